//! Compiles the emulated suite, `drivers/emulated/*.toml`, into the crate: one sorted list of (name, text).

use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let dir = Path::new(&env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?)
        .join("../../drivers/emulated");
    println!("cargo:rerun-if-changed={}", dir.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "toml") {
            println!("cargo:rerun-if-changed={}", path.display());
            names.push(path);
        }
    }
    names.sort();
    let mut list = String::from("&[\n");
    for path in &names {
        let path = path.canonicalize()?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        list.push_str(&format!(
            "    ({:?}, include_str!({:?})),\n",
            format!("drivers/emulated/{name}"),
            path.display().to_string()
        ));
    }
    list.push(']');
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    fs::write(Path::new(&out).join("emulated.rs"), list)
}
