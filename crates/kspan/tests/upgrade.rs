//! An old driver's own source on the newest kernel, and back again.

mod support;

use serde_json::Value;
use std::path::Path;
use std::process::Command;
use support::{HOME, build, fixture, kernel, kspan, make, run, text};

const THEN: &str = "bullseye";

/// The old driver in a directory of its own, without the mark that fixtures carry.
fn lantern() -> tempfile::TempDir {
    kernel(THEN);
    let dir = fixture("lantern");
    std::fs::remove_file(dir.path().join("seen-once.txt")).unwrap();
    dir
}

fn git(dir: &Path, args: &[&str]) -> String {
    run(Command::new("git").arg("-C").arg(dir).args(args))
        .ends(0)
        .out
}

fn repository(dir: &Path) {
    git(dir, &["init", "-q"]);
    git(dir, &["config", "user.name", "A Person"]);
    git(dir, &["config", "user.email", "a@example.org"]);
    git(dir, &["add", "."]);
    git(dir, &["commit", "-qm", "lantern"]);
}

#[test]
fn an_old_driver_is_moved_and_serves_the_old_kernel_still() {
    let driver = lantern();
    let work = tempfile::tempdir().unwrap();
    let out = work.path().join("out");
    let done = kspan(&[
        "upgrade",
        text(driver.path()),
        "--to",
        HOME,
        "--out",
        text(&out),
        "--drop-compat",
        "--json",
    ])
    .ends(0)
    .json();
    assert_eq!(done["builds"], true, "{done:#}");
    assert!(
        done["changes"]
            .as_array()
            .unwrap()
            .iter()
            .all(|c| c["keeps"] == false),
        "{done:#}"
    );
    let wrong: Vec<&Value> = done["guards"].as_array().unwrap().iter().collect();
    assert!(wrong.iter().any(|w| w["kernel"].as_str().unwrap().contains("6.12") && w["lacking"][0] == "strlcpy"), "{wrong:#?}");
    let source = std::fs::read_to_string(out.join("lantern.c")).unwrap();
    for new in [
        "static void lantern_remove(",
        "timer_container_of(lantern, t, timer)",
        "linux/unaligned.h",
        "timer_delete_sync(",
    ] {
        assert!(source.contains(new), "{new}: {source}");
    }
    for old in [
        "strlcpy",
        "LINUX_VERSION_CODE",
        "LANTERN_NEW_NAMES",
        "kspan",
        "from_timer",
    ] {
        assert!(!source.contains(old), "{old}: {source}");
    }
    // The target's own build, without kspan; then the ports that the upgraded source has on older kernels.
    make(HOME, &out).ends(0);
    std::fs::remove_dir_all(out.join("patches")).unwrap();
    let cells = build(&out, &[THEN, "bookworm", "trixie"]).ends(0).cells();
    assert!(cells.iter().all(|c| c["verdict"] == "ported"), "{cells:#?}");
}

#[test]
fn in_a_repository_each_change_is_a_commit() {
    let driver = lantern();
    repository(driver.path());
    kspan(&["upgrade", text(driver.path()), "--to", HOME])
        .ends(0)
        .says("commits");
    let log = git(driver.path(), &["log", "--format=%s"]);
    for subject in [
        "lantern: use strscpy() instead of strlcpy",
        "lantern: platform_driver.remove: return void",
    ] {
        // The guard's branch for old kernels stays as it is without --drop-compat.
        assert_eq!(log.contains(subject), !subject.contains("strlcpy"), "{log}");
    }
    let body = git(driver.path(), &["log", "--format=%B"]);
    assert!(
        body.contains("Signed-off-by: A Person <a@example.org>")
            && body.contains("Evolution: i2c-probe-id"),
        "{body}"
    );
    assert_eq!(git(driver.path(), &["status", "--porcelain"]), "");
}

#[test]
fn a_dirty_work_tree_is_refused() {
    let driver = lantern();
    repository(driver.path());
    let source = driver.path().join("lantern.c");
    let before = std::fs::read(&source)
        .unwrap()
        .into_iter()
        .chain(*b"/* mine */\n")
        .collect::<Vec<_>>();
    std::fs::write(&source, &before).unwrap();
    kspan(&["upgrade", text(driver.path()), "--to", HOME])
        .ends(2)
        .says("not committed");
    assert_eq!(std::fs::read(&source).unwrap(), before);
    std::fs::remove_dir_all(driver.path().join(".git")).unwrap();
    kspan(&["upgrade", text(driver.path()), "--to", HOME])
        .ends(2)
        .says("--out");
}
