//! What a port changed in the driver, as a unified diff.

use kspan_port::driver::Driver;
use kspan_port::{Error, Port, Result};
use similar::TextDiff;
use std::path::Path;

/// The diff between a driver and its port, overlay included.
///
/// # Errors
/// When a file of the port cannot be read.
pub fn port_diff(driver: &Driver, port: &Port) -> Result<String> {
    let dir = port.dir.as_deref().unwrap_or(Path::new("."));
    let mut out = String::new();
    for file in &port.files {
        let path = dir.join(file);
        let new = std::fs::read(&path).map_err(|source| Error::Io { path, source })?;
        let old = std::fs::read(driver.dir.join(file)).unwrap_or_default();
        if old == new {
            continue;
        }
        let (old, new) = (
            String::from_utf8_lossy(&old).into_owned(),
            String::from_utf8_lossy(&new).into_owned(),
        );
        let name = file.display();
        let diff = TextDiff::from_lines(&old, &new);
        out.push_str(
            &diff
                .unified_diff()
                .header(&format!("a/{name}"), &format!("b/{name}"))
                .to_string(),
        );
    }
    Ok(out)
}
