//! `status`: what is there, read from files alone.

use crate::conf::Reading;
use crate::modinfo;
use crate::session::{Package, Session, Target};
use crate::tree::{Entry, State};
use crate::{Result, Stop};
use rayon::prelude::*;

impl Session<'_> {
    /// Tells what the command line asks for.
    pub(crate) fn status(&mut self) -> Result<()> {
        let mut entries = Vec::new();
        if self.targets.is_empty() {
            let arch = self.request.arches.first().cloned().unwrap_or_default();
            entries = self.asked("", &arch);
        }
        for target in self.targets.clone() {
            entries.extend(self.asked(&target.kernel, &target.arch));
        }
        self.stamps.load(&self.tree.own("same.json"));
        let told = self.tell_status(&entries);
        self.stamps.keep(&self.tree.own("same.json"));
        told
    }

    fn tell_status(&self, entries: &[Entry]) -> Result<()> {
        if self.request.json {
            return self.status_json(entries);
        }
        // Comparing what is installed with what was built reads both: on all cores, but told in order.
        let notes: Vec<Vec<&str>> = entries.par_iter().map(|e| self.notes_of(e)).collect();
        entries
            .iter()
            .zip(&notes)
            .for_each(|(e, notes)| self.status_line(e, notes));
        Ok(())
    }

    fn asked(&self, kernel: &str, arch: &str) -> Vec<Entry> {
        self.tree
            .entries(&self.request.module, &self.request.version, kernel, arch)
    }

    fn notes_of(&self, entry: &Entry) -> Vec<&'static str> {
        let target = entry.target.as_ref();
        target
            .map(|t| self.notes(&entry.package, t))
            .unwrap_or_default()
    }

    fn status_line(&self, entry: &Entry, notes: &[&str]) {
        let package = &entry.package;
        match (&entry.target, entry.state) {
            (Some(target), state) => {
                let word = if state == State::Installed {
                    "installed"
                } else {
                    "built"
                };
                let mut line = format!("{package}, {}, {}: {word}", target.kernel, target.arch);
                for note in notes {
                    line.push_str(&format!(" ({note})"));
                }
                self.say(&line);
            }
            (None, State::Broken) => {
                self.say(&format!("{package}: broken"));
                self.tell(&Stop::error(
                    4,
                    [
                        format!("{package}: Missing the module source directory or the symbolic link pointing to it."),
                        "Manual intervention is required!".to_owned(),
                    ],
                ));
            }
            (None, _) => self.say(&format!("{package}: added")),
        }
    }

    /// What is remarkable of a package that is built for a kernel.
    pub(crate) fn notes(&self, package: &Package, target: &Target) -> Vec<&'static str> {
        let mut notes = Vec::new();
        if self.tree.originals(&package.name, target).is_dir() {
            notes.push("Original modules exist");
        }
        let file = self.tree.source_link(package).join("dkms.conf");
        let Ok(conf) = self.read_conf(package, target, &file, Reading::Lenient) else {
            return notes;
        };
        let built = self.tree.base(package, target).join("module");
        let active = self.tree.is_active(package, target);
        for module in conf.wanted() {
            let Some(ours) = modinfo::find(&built, &module.name) else {
                notes.push("Built modules are missing in the kernel modules folder");
                break;
            };
            let lib = self.lib(&target.kernel);
            let theirs = [&module.location, &module.declared]
                .into_iter()
                .find_map(|l| modinfo::find(&lib.join(l.trim_start_matches('/')), &module.name));
            if active && !theirs.is_some_and(|t| self.stamps.same(&ours, &t)) {
                notes.push("Differences between built and installed modules");
                break;
            }
        }
        notes
    }

    fn status_json(&self, entries: &[Entry]) -> Result<()> {
        let rows: Vec<serde_json::Value> = entries
            .iter()
            .map(|e| {
                let notes = self.notes_of(e);
                serde_json::json!({
                    "module": e.package.name,
                    "version": e.package.version,
                    "kernel": e.target.as_ref().map(|t| &t.kernel),
                    "arch": e.target.as_ref().map(|t| &t.arch),
                    "state": e.state,
                    "notes": notes,
                })
            })
            .collect();
        let text = serde_json::to_string_pretty(&serde_json::json!({ "modules": rows }));
        self.say(&text.map_err(|e| Stop::error(1, [e.to_string()]))?);
        Ok(())
    }
}
