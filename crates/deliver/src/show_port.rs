//! `port`: the port of a source that does not build for a kernel, to look at before it is used.

use crate::session::{Session, Target};
use crate::{Action, Result, Stop, disk};
use kspan_port::Port;
use similar::TextDiff;
use std::path::{Path, PathBuf};

impl Session<'_> {
    /// Derives a port of the named package for the kernel and tells of its remedies; with `--diff` shows what it changes in the
    /// package's source. Nothing is built into the tree.
    pub(crate) fn show_port(&mut self) -> Result<()> {
        self.named(Action::Port)?;
        self.not_broken()?;
        self.added()?;
        let (package, target) = (self.package(), self.first_target());
        self.check_headers(&target.kernel)?;
        let Some((engine, homes)) = self.engine(&target) else {
            return Err(Stop::error(
                3,
                [
                    format!(
                        "There is no kernel beside {} that {package} could be ported from.",
                        target.kernel
                    ),
                    "Fetch one with `kspan kernel fetch`, or install the headers of a newer one."
                        .to_owned(),
                ],
            ));
        };
        let dir = self.tree.own("repair");
        disk::make_dir(&dir)?;
        let work = tempfile::tempdir_in(&dir).map_err(Stop::io(&dir))?;
        let found = self.best_port(&engine, &homes, work.path(), &package, &target);
        self.at_home = None;
        let Some(port) = found? else {
            // Why has been said.
            return Err(Stop::Exit(1));
        };
        self.tell_port(&port, &target)
    }

    fn tell_port(&self, port: &Port, target: &Target) -> Result<()> {
        let package = self.package();
        let source = self.tree.source_link(&package);
        if self.request.json {
            let diff = self.request.diff.then(|| diff(&source, port)).transpose()?;
            let all = serde_json::json!({ "port": port, "diff": diff });
            let text = serde_json::to_string_pretty(&all);
            self.say(&text.map_err(|e| Stop::error(1, [e.to_string()]))?);
            return Ok(());
        }
        if self.request.diff {
            self.talk.out(&diff(&source, port)?);
            return Ok(());
        }
        self.say(&format!(
            "{package} for {target}, ported from {}: {} remedies.",
            port.home,
            port.remedies.len()
        ));
        for remedy in &port.remedies {
            self.say(&format!(
                "  {}: {} ({})",
                remedy.kind.word(),
                remedy.subject,
                remedy.origin
            ));
        }
        for risk in port.risks() {
            self.say(&format!("  may act otherwise: {risk}"));
        }
        self.say("`--diff` shows what it changes.");
        Ok(())
    }
}

/// What a port changes in a package's source, as a unified diff; files that are only in one of them are whole in it.
fn diff(source: &Path, port: &Port) -> Result<String> {
    let dir = port.dir.clone().unwrap_or_default();
    let mut out = String::new();
    for file in &port.files {
        let path: PathBuf = dir.join(file);
        let new = std::fs::read(&path).map_err(Stop::io(&path))?;
        let old = std::fs::read(source.join(file)).unwrap_or_default();
        if old == new {
            continue;
        }
        let (old, new) = (String::from_utf8_lossy(&old), String::from_utf8_lossy(&new));
        let name = file.display();
        let names = (format!("a/{name}"), format!("b/{name}"));
        let text = TextDiff::from_lines(old.as_ref(), new.as_ref())
            .unified_diff()
            .header(&names.0, &names.1)
            .to_string();
        out.push_str(&text);
    }
    Ok(out)
}
