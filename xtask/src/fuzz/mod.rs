//! `cargo xtask fuzz`: mutated inputs for everything that reads what kspan did not write.
//!
//! Coverage-blind and seeded: a run can be repeated, needs no special compiler, and still finds what careless parsing
//! does with cut, doubled and twisted input.

mod mutate;
mod targets;

use mutate::Mutator;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// A single input may take this long; more is a finding, too.
const SLOW: Duration = Duration::from_secs(2);

/// Feed mutated inputs to every parser.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One target instead of all; a wrong name lists them.
    target: Option<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Where the stream of mutations begins.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run this one input, as it is.
    #[arg(long, value_name = "FILE", requires = "target")]
    input: Option<PathBuf>,
}

/// What a target did wrong.
#[derive(Debug)]
pub struct Finding {
    what: &'static str,
    input: Vec<u8>,
}

/// Runs it.
///
/// # Errors
/// An unknown target, or a corpus that cannot be read.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    // The inputs tell enough; a panic's words for each of thousands do not.
    std::panic::set_hook(Box::new(|_| ()));
    let mut failed = false;
    for (name, parse) in chosen(args.target.as_deref())? {
        if let Some(file) = &args.input {
            parse(&std::fs::read(file)?);
            println!("{name}: survived {}", file.display());
            continue;
        }
        eprintln!("{name}: seed {}", args.seed);
        let (runs, finding) = target(name, parse, Duration::from_secs(args.seconds), args.seed)?;
        match finding {
            None => println!("{name}: {runs} inputs, nothing found"),
            Some(finding) => {
                failed = true;
                let place = keep(name, &finding)?;
                println!(
                    "{name}: {} after {runs} inputs: {} ({} bytes); `cargo xtask fuzz {name} --input {}`",
                    finding.what,
                    place.display(),
                    finding.input.len(),
                    place.display()
                );
            }
        }
    }
    Ok(ExitCode::from(u8::from(failed)))
}

fn chosen(name: Option<&str>) -> anyhow::Result<Vec<targets::Target>> {
    let all: Vec<_> = targets::ALL
        .iter()
        .filter(|t| name.is_none_or(|n| n == t.0))
        .copied()
        .collect();
    let names: Vec<&str> = targets::ALL.iter().map(|t| t.0).collect();
    anyhow::ensure!(
        !all.is_empty(),
        "no such target; there are {}",
        names.join(", ")
    );
    Ok(all)
}

/// Mutates the corpus of a target until the time is over or something is found.
fn target(
    name: &str,
    parse: targets::Parse,
    time: Duration,
    seed: u64,
) -> anyhow::Result<(u64, Option<Finding>)> {
    let corpus = corpus(name)?;
    let mut mutator = Mutator::new(&corpus, seed);
    let end = Instant::now() + time;
    let mut runs = 0;
    for input in &corpus {
        runs += 1;
        if let Some(what) = trouble(parse, input) {
            return Ok((runs, Some(shrunk(parse, what, input.clone()))));
        }
    }
    while Instant::now() < end {
        runs += 1;
        let input = mutator.next_input();
        if let Some(what) = trouble(parse, &input) {
            return Ok((runs, Some(shrunk(parse, what, input))));
        }
    }
    Ok((runs, None))
}

/// The processor's time that this thread has had (proc(5), schedstat: nanoseconds first): a machine that has other work makes no parser slow.
/// Where the kernel does not count it, the time that passes.
fn spent() -> Duration {
    static BEGIN: std::sync::LazyLock<std::time::Instant> =
        std::sync::LazyLock::new(std::time::Instant::now);
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = text.split_whitespace().next();
    let counted = first.and_then(|n| n.parse().ok()).filter(|n| *n > 0);
    counted.map_or_else(|| BEGIN.elapsed(), Duration::from_nanos)
}

/// What is wrong with how an input is taken.
fn trouble(parse: targets::Parse, input: &[u8]) -> Option<&'static str> {
    let start = spent();
    if catch_unwind(AssertUnwindSafe(|| parse(input))).is_err() {
        return Some("panic");
    }
    (spent().saturating_sub(start) > SLOW).then_some("too slow")
}

/// Leaves out ever smaller pieces as long as the trouble stays.
fn shrunk(parse: targets::Parse, what: &'static str, mut input: Vec<u8>) -> Finding {
    let end = Instant::now() + Duration::from_secs(20);
    let mut piece = input.len() / 2;
    while piece > 0 && Instant::now() < end {
        let mut at = 0;
        while at < input.len() && Instant::now() < end {
            let mut shorter = input.clone();
            shorter.drain(at..(at + piece).min(input.len()));
            if trouble(parse, &shorter) == Some(what) {
                input = shorter;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    Finding { what, input }
}

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

fn corpus(name: &str) -> anyhow::Result<Vec<Vec<u8>>> {
    let dir = home().join("corpus").join(name);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .map_err(|e| anyhow::anyhow!("{}: {e}", dir.display()))?
        .flatten()
        .map(|e| e.path())
        .collect();
    files.sort();
    anyhow::ensure!(!files.is_empty(), "{} holds no inputs", dir.display());
    files.iter().map(|f| Ok(std::fs::read(f)?)).collect()
}

fn keep(name: &str, finding: &Finding) -> anyhow::Result<PathBuf> {
    let dir = home().join("found").join(name);
    std::fs::create_dir_all(&dir)?;
    let short: String = blake3::hash(&finding.input)
        .to_hex()
        .chars()
        .take(12)
        .collect();
    let place = dir.join(short);
    std::fs::write(&place, &finding.input)?;
    Ok(place.canonicalize()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_taken_well(name: &str) {
        let (_, parse) = chosen(Some(name)).unwrap()[0];
        let (runs, finding) = target(name, parse, Duration::from_secs(2), 1).unwrap();
        let found = finding.map(|f| (f.what, String::from_utf8_lossy(&f.input).into_owned()));
        assert_eq!(found, None, "after {runs} inputs");
    }

    /// One test for each target, so that they share the cores and a failure names its own.
    macro_rules! targets {
        ($($name:ident),*) => {
            const TESTED: &[&str] = &[$(stringify!($name)),*];
            $(#[test] fn $name() { is_taken_well(stringify!($name)); })*
        };
    }
    targets!(
        symvers,
        btf,
        deb,
        control,
        lock,
        manifest,
        kbuild,
        diagnostics,
        cmdfile,
        lexer,
        evolutions,
        spec,
        module,
        image,
        configuration,
        state,
        preprocessed
    );

    #[test]
    fn no_target_is_forgotten() {
        let all: Vec<&str> = targets::ALL.iter().map(|t| t.0).collect();
        assert_eq!(all, TESTED);
    }

    #[test]
    fn a_panic_is_found_and_made_small() {
        let fussy: targets::Parse = |bytes| assert!(!bytes.contains(&b'!'), "found");
        let finding = shrunk(fussy, "panic", b"much ado about! nothing".to_vec());
        assert_eq!(finding.input, b"!");
    }
}
