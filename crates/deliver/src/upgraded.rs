//! A package's source moved up to a newer kernel's own API: what an overlay cannot say, a rewrite often can.

use kspan_kernel::KbuildOptions;
use kspan_port::driver::{Driver, version_code};
use kspan_port::gap::{Remedy, RemedyKind, Risk};
use kspan_port::gates::Finding;
use kspan_port::view::View;
use kspan_port::{Engine, Error, Port, Result, Verdict};
use kspan_upstream::upgrade::{Change, Manner, Upgrade, upgrade};
use std::path::Path;

/// The target is the newer one of the two: an upgrade is the code that a maintainer would write, and goes one way. Only whether it is tried
/// hangs on this; what becomes of it is for facts and the compiler.
pub fn leads_to(home: &View, target: &View) -> bool {
    version_code(&home.kernel) < version_code(&target.kernel)
}

/// The upgraded driver, built on the target, as a port; `findings` are those on the meaning of its port, which hold here too. The
/// upgraded source is written to `dir`, which is not there yet. The inner error says why it does not build.
pub fn port(
    engine: &Engine,
    driver: &Driver,
    target: &View,
    options: &KbuildOptions,
    findings: &[Finding],
    dir: &Path,
) -> Result<std::result::Result<Port, String>> {
    let made = upgrade(engine, driver, target, options, Manner::default())?;
    let Some(files) = made.steps.last().filter(|_| made.builds) else {
        return Ok(Err(what_is_left(&made)));
    };
    for (name, bytes) in files {
        let file = dir.join(name);
        let parent = file.parent().unwrap_or(dir);
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&file, bytes))
            .map_err(|source| Error::Io { path: file, source })?;
    }
    let mut port = engine.port(&Driver::load(dir)?, target, options)?;
    if !port.builds() {
        return Ok(Err(format!(
            "moved up from {}, it does not build",
            made.home
        )));
    }
    port.verdict = Verdict::Ported;
    port.home.clone_from(&made.home);
    port.remedies = made.changes.iter().map(remedy).collect();
    port.findings = findings.to_vec();
    port.home_warnings = made.warnings.1;
    port.grade = port.deserved();
    Ok(Ok(port))
}

fn what_is_left(made: &Upgrade) -> String {
    let first = made.open.first().map_or("", |g| g.why.as_str());
    format!(
        "moved up from {}, {} changes are left, the first: {first}",
        made.home,
        made.open.len()
    )
}

fn remedy(change: &Change) -> Remedy {
    let reason = &change.reason;
    Remedy {
        kind: match reason.keeps {
            true => RemedyKind::Carry,
            false => RemedyKind::Rewrite,
        },
        subject: reason.subject.clone(),
        origin: reason.id.clone(),
        risk: reason.risk,
        meaning: match reason.meaning.is_empty() && reason.risk > Risk::Default {
            true => reason.why.clone(),
            false => reason.meaning.clone(),
        },
    }
}
