//! How an end without an answer is told, and with which exit code.

use kspan_upstream::upgrade::series::SeriesError;
use std::process::ExitCode;

/// The answer is no: gaps, failed cells.
pub const NO: u8 = 1;
/// What the user named is malformed or not there.
const USAGE: u8 = 2;
/// The machine lacks something.
const ENVIRONMENT: u8 = 3;

/// Says what happened on stderr; the exit code by whose part it is to mend it.
pub fn failure(error: &anyhow::Error) -> ExitCode {
    eprintln!("kspan: {}", words(error));
    ExitCode::from(code(error))
}

/// The error and its causes, each said once: many a message has its cause's words in it already.
fn words(error: &anyhow::Error) -> String {
    let mut all = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if all.is_empty() {
            all = cause;
        } else if !all.contains(&cause) {
            all = format!("{all}: {cause}");
        }
    }
    all
}

fn code(error: &anyhow::Error) -> u8 {
    let kernel = |e: &kspan_kernel::Error| match e {
        kspan_kernel::Error::Input(_) => USAGE,
        _ => ENVIRONMENT,
    };
    for cause in error.chain() {
        if let Some(e) = cause.downcast_ref::<kspan_kernel::Error>() {
            return kernel(e);
        }
        if let Some(e) = cause.downcast_ref::<SeriesError>() {
            return match e {
                SeriesError::Dirty { .. } => USAGE,
                SeriesError::Git { .. } | SeriesError::Io { .. } => ENVIRONMENT,
            };
        }
        if let Some(e) = cause.downcast_ref::<kspan_deliver::package::Error>() {
            return if e.is_environment() {
                ENVIRONMENT
            } else {
                USAGE
            };
        }
        match cause.downcast_ref::<kspan_port::Error>() {
            Some(kspan_port::Error::Kernel(e)) => return kernel(e),
            Some(kspan_port::Error::Input(_)) => return USAGE,
            Some(_) => return ENVIRONMENT,
            None => {}
        }
    }
    USAGE
}

/// A yes or no as an exit code.
pub fn verdict(yes: bool) -> ExitCode {
    if yes {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(NO)
    }
}

/// A reader that has seen enough (`kspan … | head`) ends the program, as SIGPIPE ends others: quietly, with 141.
pub fn end_with_the_reader() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let words = info.payload().downcast_ref::<String>();
        if words
            .is_some_and(|w| w.contains("failed printing to stdout") && w.contains("Broken pipe"))
        {
            std::process::exit(141);
        }
        usual(info);
    }));
}
