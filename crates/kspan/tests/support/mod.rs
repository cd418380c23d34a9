//! What the integration tests share: kspan itself, drivers in temporary directories, and four kernels that are fetched
//! once into the user's cache.
#![allow(
    dead_code,
    missing_docs,
    reason = "each test program uses a part of this"
)]

use kspan_kernel::{Cache, FetchSpec, Kernel};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use tempfile::TempDir;

/// Each suite's newest kernel, oldest first.
pub const SUITES: [&str; 4] = ["bullseye", "bookworm", "trixie", HOME];
/// The kernel that the fixtures are written for.
pub const HOME: &str = "trixie-backports";
/// An older kernel that the host's compiler builds for, so that plain make does.
pub const OLD: &str = "bookworm";

/// What a program said, and its exit code.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Run {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: output.status.code(),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    /// Checks the exit code, and that nothing panicked on the way.
    #[track_caller]
    pub fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.out, self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
        self
    }

    /// Checks that it says something.
    #[track_caller]
    pub fn says(self, what: &str) -> Self {
        let all = format!("{}\n{}", self.out, self.err);
        assert!(all.contains(what), "does not say {what:?}:\n{all}");
        self
    }

    /// Its output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).expect(&self.out)
    }

    /// The cells of a matrix.
    #[track_caller]
    pub fn cells(&self) -> Vec<Value> {
        self.json()["cells"].as_array().cloned().unwrap()
    }
}

/// kspan, not started yet.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kspan"));
    command.args(arguments).env("COLUMNS", "100");
    command
}

/// Runs kspan to its end.
pub fn kspan(arguments: &[&str]) -> Run {
    run(&mut command(arguments))
}

/// Runs a program to its end.
pub fn run(command: &mut Command) -> Run {
    Run::of(&command.output().unwrap())
}

/// `kspan build DRIVER --on KERNELS --json`.
pub fn build(driver: &Path, kernels: &[&str]) -> Run {
    kspan(&["build", text(driver), "--on", &kernels.join(","), "--json"])
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The cache that the kernels are in.
pub fn cache() -> Cache {
    Cache::open().unwrap()
}

/// The newest kernel of a suite; the four are fetched by whoever asks first.
pub fn kernel(suite: &str) -> Kernel {
    static FETCHED: OnceLock<()> = OnceLock::new();
    FETCHED.get_or_init(|| SUITES.iter().for_each(|s| fetch(s)));
    cache().resolve(suite).unwrap()
}

fn fetch(suite: &str) {
    if cache().resolve(suite).is_err() {
        let spec = FetchSpec::parse(&format!("debian/{suite}")).unwrap();
        cache()
            .fetch(&spec, &|_| ())
            .unwrap_or_else(|e| panic!("these tests need debian/{suite}: {e}"));
    }
}

/// A driver of `tests/fixtures` in a directory of its own. No other run has seen its content: nothing of it is cached.
pub fn fixture(name: &str) -> TempDir {
    kernel(HOME);
    let from = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name);
    let dir = tempfile::tempdir().unwrap();
    for file in files(&from) {
        std::fs::copy(from.join(&file), dir.path().join(&file)).unwrap();
    }
    std::fs::write(
        dir.path().join("seen-once.txt"),
        text(dir.path()).as_bytes(),
    )
    .unwrap();
    dir
}

/// A driver of one source file, `small.c`, for the newest kernel.
pub fn small(source: &[u8]) -> TempDir {
    kernel(HOME);
    let dir = tempfile::tempdir().unwrap();
    let manifest = format!("name = \"small\"\nhome = \"{HOME}\"\nmodules = [\"small\"]\n");
    write(dir.path(), "kspan.toml", manifest.as_bytes());
    write(dir.path(), "Kbuild", b"obj-m := small.o\n");
    write(dir.path(), "small.c", source);
    dir
}

/// Names a driver's home kernel by its path instead.
pub fn at_home_by_path(driver: &Path) {
    let manifest = std::fs::read_to_string(driver.join("kspan.toml")).unwrap();
    let named = manifest.replace(HOME, text(&kernel(HOME).build_dir));
    write(driver, "kspan.toml", named.as_bytes());
}

pub fn write(dir: &Path, name: &str, bytes: &[u8]) {
    std::fs::write(dir.join(name), bytes).unwrap();
}

/// The plain files of a directory and below, relative to it, sorted.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let name = PathBuf::from(entry.file_name());
        match entry.path().is_dir() {
            true => found.extend(files(&entry.path()).into_iter().map(|f| name.join(f))),
            false => found.push(name),
        }
    }
    found.sort();
    found
}

/// Names and bytes of all files of a directory.
pub fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let read = |f: PathBuf| {
        let bytes = std::fs::read(dir.join(&f)).unwrap();
        (f, bytes)
    };
    files(dir).into_iter().map(read).collect()
}

/// `make -C KDIR M=DIR modules`, with nothing of kspan around it but the root that holds the compiler.
pub fn make(suite: &str, dir: &Path) -> Run {
    let kernel = kernel(suite);
    let toolchain = cache().toolchain(&kernel).unwrap();
    let mut command = match &toolchain.root {
        None => Command::new("make"),
        Some(root) => inside(root, dir),
    };
    command.arg("-C").arg(&kernel.build_dir);
    command
        .arg(format!("M={}", dir.display()))
        .arg(format!("CC={}", toolchain.cc));
    run(command.arg("modules"))
}

fn inside(root: &Path, dir: &Path) -> Command {
    let mut command = Command::new("bwrap");
    command
        .arg("--ro-bind")
        .arg(root.join("usr"))
        .arg("/usr")
        .args(["--symlink", "usr/bin", "/bin"])
        .arg("--ro-bind")
        .arg(root.join("etc"))
        .arg("/etc");
    command.args([
        "--symlink",
        "usr/lib",
        "/lib",
        "--symlink",
        "usr/lib64",
        "/lib64",
    ]);
    command.args(["--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]);
    command
        .arg("--ro-bind")
        .arg(cache().root())
        .arg(cache().root());
    command.arg("--bind").arg(dir).arg(dir).arg("make");
    command
}
