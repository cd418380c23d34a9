//! Everything here that reads bytes which somebody else wrote, under one roof: `cargo xtask fuzz` feeds it. Each function takes any
//! bytes and returns; what they mean is not told.

use crate::{closure, evaluate, initramfs, journal, modinfo, reuse};
use std::collections::BTreeMap;

/// A module: packed or not, its `.modinfo`, its table of imported versions.
pub fn module(bytes: &[u8]) {
    if let Ok(bytes) = modinfo::unpacked_bytes(bytes.to_vec()) {
        let _ = (
            modinfo::parse(&bytes),
            modinfo::fields(&bytes),
            modinfo::versions(&bytes),
        );
    }
}

/// An initramfs.
pub fn image(bytes: &[u8]) {
    let _ = initramfs::read_all(bytes, &mut BTreeMap::new());
}

/// What bash says of a dkms.conf.
pub fn configuration(bytes: &[u8]) {
    let _ = evaluate::parse(bytes);
}

/// The state tree's own files: a journal, the notes beside a build.
pub fn state(bytes: &[u8]) {
    let _ = serde_json::from_slice::<journal::Change>(bytes);
    reuse::read_notes(bytes);
}

/// A preprocessed source.
pub fn preprocessed(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = closure::reached(&text, &|file| file.starts_with("/src/"));
}
