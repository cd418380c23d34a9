//! Progress on stderr: a bar on a terminal; elsewhere a line now and then, so that a long run in a log is seen to live.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A run shorter than this says nothing in a pipe, and a longer one no more often.
const PATIENCE: Duration = Duration::from_secs(10);

/// Counted steps of one run.
pub struct Steps {
    bar: ProgressBar,
    /// When something was last said, where stderr is no terminal.
    said: Option<Mutex<Instant>>,
}

impl Steps {
    /// Begins a run of `total` steps.
    pub fn new(total: usize) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::hidden());
        if terminal {
            bar.set_draw_target(ProgressDrawTarget::stderr());
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} {elapsed} {msg}") {
            bar.set_style(style);
        }
        Self {
            bar,
            said: (!terminal).then(|| Mutex::new(Instant::now())),
        }
    }

    /// One step is done; `what` tells which.
    pub fn done(&self, what: String) {
        self.bar.inc(1);
        if let Some(said) = &self.said {
            self.say(said, &what);
        }
        self.bar.set_message(what);
    }

    fn say(&self, said: &Mutex<Instant>, what: &str) {
        let mut last = said
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.elapsed() >= PATIENCE {
            *last = Instant::now();
            let total = self.bar.length().unwrap_or(0);
            eprintln!("{}/{total} {what}", self.bar.position());
        }
    }

    /// Takes the bar away.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}
