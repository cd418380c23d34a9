//! `kspan dkms`, and the same when called as `dkms`.

use kspan_deliver::Talk;
use std::io::Write;
use std::process::{Command, ExitCode};

/// Manage modules as packages: a drop-in for dkms 3.4, on the same state tree.
///
/// Takes dkms' own actions and options; `kspan dkms --help` lists them. A link named `dkms` to kspan is the same. Exit codes are
/// dkms' own.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub struct Args {
    /// An action and its options, as dkms takes them.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ACTION"
    )]
    words: Vec<String>,
}

/// Runs it.
pub fn run(args: &Args) -> ExitCode {
    go("kspan dkms", &args.words)
}

/// If the program was called as `dkms`, or as `kspan dkms`, runs it with what follows as it stands.
///
/// Its options are dkms' own and not to be read by the parser of the other commands.
pub fn called_as() -> Option<ExitCode> {
    let mut words = std::env::args_os().map(|w| w.to_string_lossy().into_owned());
    let program = words.next()?;
    let name = program.rsplit('/').next().unwrap_or_default();
    if name == "dkms" {
        return Some(go(&program, &words.collect::<Vec<_>>()));
    }
    (words.next()? == "dkms").then(|| go(&format!("{name} dkms"), &words.collect::<Vec<_>>()))
}

fn go(program: &str, words: &[String]) -> ExitCode {
    ExitCode::from(kspan_deliver::dkms(program, words, &Terminal))
}

/// The terminal, or whatever stdout and stderr are.
struct Terminal;

impl Talk for Terminal {
    fn out(&self, text: &str) {
        print!("{text}");
        // A step is announced without a newline, and its program may speak next.
        let _ = std::io::stdout().flush();
    }

    fn err(&self, text: &str) {
        eprint!("{text}");
    }

    fn child(&self, _: &mut Command) {}
}
