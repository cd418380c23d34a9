//! Builds that go on at the same time. What each of them says is kept until its turn has come, so that the words of a run are in the
//! order in which one build after the other would have said them.

use crate::session::{Package, Session, Target};
use crate::{Result, Stop, Talk};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What a build said, and how it ended.
struct Done {
    said: Buffer,
    result: Result<()>,
    /// The configuration whose warnings it has said.
    last: Last,
}

/// What [`Session::last`] is.
type Last = Option<(Package, Target, PathBuf)>;

/// Where finished builds wait for their turn.
#[derive(Default)]
struct Shelf {
    done: Mutex<BTreeMap<usize, Done>>,
    more: Condvar,
}

/// Builds that were begun.
pub struct Ahead {
    packages: Vec<Package>,
    shelf: Arc<Shelf>,
}

impl Session<'_> {
    /// Begins to build packages for a kernel, so many at once as there are job tokens, all makes together with no more jobs than
    /// that. None where one build after the other is as good.
    pub(crate) fn build_ahead(&self, packages: Vec<Package>, target: &Target) -> Option<Ahead> {
        // `-j` without a number is no limit at all, and one token makes no two builds.
        let tokens: usize = self.jobs().parse().ok().filter(|n| *n > 1)?;
        if packages.len() < 2 {
            return None;
        }
        let pool = jobserver::Client::new(tokens).ok()?;
        let shelf = Arc::new(Shelf::default());
        let (give, take) = channel();
        let take = Arc::new(Mutex::new(take));
        for (i, package) in packages.iter().enumerate() {
            let mut session = self.aside();
            session.jobserver = Some(pool.clone());
            // The receiver lives as long as `take`.
            let _ = give.send((i, session, package.clone(), target.clone()));
        }
        for _ in 0..tokens.min(packages.len()) {
            let (take, shelf, pool) = (Arc::clone(&take), Arc::clone(&shelf), pool.clone());
            std::thread::spawn(move || work(&take, &shelf, &pool));
        }
        drop(give);
        Some(Ahead { packages, shelf })
    }
}

type Task = (usize, Session<'static>, Package, Target);

fn work(tasks: &Mutex<Receiver<Task>>, shelf: &Shelf, pool: &jobserver::Client) {
    loop {
        let task = lock(tasks).recv();
        let Ok((i, session, package, target)) = task else {
            return;
        };
        // The token of this build's own make; where none can be had any more, it builds all the same.
        let _token = pool.acquire();
        let mut said = Buffer::default();
        let (result, last) = built(session, &said, &package, &target);
        said.end();
        lock(&shelf.done).insert(i, Done { said, result, last });
        shelf.more.notify_all();
    }
}

/// One build. A thread that ends without a word would keep its waiter for ever, so that a panic is an error here.
fn built(
    session: Session<'static>,
    said: &Buffer,
    package: &Package,
    target: &Target,
) -> (Result<()>, Last) {
    let build = || {
        let mut session = Session {
            talk: said,
            ..session
        };
        let result = session.build_one(package, target);
        (result, session.last.take())
    };
    catch_unwind(AssertUnwindSafe(build)).unwrap_or_else(|_| {
        let words = format!("The build of {package} ended unexpectedly; this is a fault of kspan.");
        (Err(Stop::error(1, [words])), None)
    })
}

impl Ahead {
    /// Waits for a package's build, says what it said, and tells how it ended (well, for a package that was not begun). The session
    /// then knows which configuration's warnings have been said.
    pub fn finish(&self, package: &Package, session: &mut Session<'_>) -> Result<()> {
        let Some(i) = self.packages.iter().position(|p| p == package) else {
            return Ok(());
        };
        let mut done = lock(&self.shelf.done);
        loop {
            match done.remove(&i) {
                Some(Done { said, result, last }) => {
                    drop(done);
                    said.replay(session.talk);
                    session.last = last;
                    return result;
                }
                None => {
                    done = self
                        .shelf
                        .more
                        .wait(done)
                        .unwrap_or_else(PoisonError::into_inner)
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Words that are kept, each for the stream that it belongs to.
#[derive(Default)]
struct Buffer {
    words: Mutex<Vec<(bool, String)>>,
    /// What child programs said.
    children: Mutex<Option<File>>,
}

impl Talk for Buffer {
    fn out(&self, text: &str) {
        lock(&self.words).push((false, text.to_owned()));
    }

    fn err(&self, text: &str) {
        lock(&self.words).push((true, text.to_owned()));
    }

    fn child(&self, command: &mut Command) {
        let mut file = lock(&self.children);
        if file.is_none() {
            *file = tempfile::tempfile().ok();
        }
        let stream = || {
            let clone = file.as_ref().and_then(|f| f.try_clone().ok());
            clone.map_or_else(Stdio::null, Stdio::from)
        };
        command.stdout(stream()).stderr(stream());
    }
}

impl Buffer {
    /// What child programs said comes last.
    fn end(&mut self) {
        let mut text = Vec::new();
        if let Some(mut file) = lock(&self.children).take() {
            // What cannot be read back was a program's chatter.
            let _ = file.rewind().and_then(|()| file.read_to_end(&mut text));
        }
        if !text.is_empty() {
            self.err(&String::from_utf8_lossy(&text));
        }
    }

    fn replay(&self, talk: &dyn Talk) {
        for (is_error, text) in lock(&self.words).iter() {
            match is_error {
                true => talk.err(text),
                false => talk.out(text),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<String>);

    impl Talk for Heard {
        fn out(&self, text: &str) {
            lock(&self.0).push_str(&format!("o:{text};"));
        }
        fn err(&self, text: &str) {
            lock(&self.0).push_str(&format!("e:{text};"));
        }
        fn child(&self, _: &mut Command) {}
    }

    #[test]
    fn words_come_back_in_their_order_and_on_their_streams() {
        let mut buffer = Buffer::default();
        buffer.out("a");
        buffer.err("b");
        let mut command = Command::new("sh");
        command.args(["-c", "echo child"]);
        buffer.child(&mut command);
        assert!(command.status().unwrap().success());
        buffer.out("c");
        buffer.end();
        let heard = Heard::default();
        buffer.replay(&heard);
        assert_eq!(lock(&heard.0).as_str(), "o:a;e:b;o:c;e:child\n;");
    }
}
