//! An old driver's own source on the newest kernel, and back again.

mod support;

use serde_json::Value;
use std::path::Path;
use std::process::Command;
use support::{HOME, Run, build, fixture, kernel, kspan, make, run, text, write};

const THEN: &str = "bullseye";

/// The old driver in a directory of its own, without the mark that fixtures carry.
fn lantern() -> tempfile::TempDir {
    kernel(THEN);
    let dir = fixture("lantern");
    std::fs::remove_file(dir.path().join("seen-once.txt")).unwrap();
    dir
}

/// The upgrade of a driver's source into another directory.
fn moved(driver: &Path, out: &Path, more: &[&str]) -> Run {
    let words = ["upgrade", text(driver), "--to", HOME, "--out", text(out)];
    kspan(&[&words[..], more].concat()).ends(0)
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
    let done = moved(driver.path(), &out, &["--drop-compat", "--json"]).json();
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
fn in_a_repository_each_commit_builds_on_one_of_the_two_kernels() {
    let driver = lantern();
    repository(driver.path());
    kspan(&["upgrade", text(driver.path()), "--to", HOME])
        .ends(0)
        .says("commits");
    let log = git(driver.path(), &["log", "--format=%B"]);
    for words in [
        "lantern: drop MODULE_SUPPORTED_DEVICE",
        "lantern: switch to the API of",
        "platform_driver.remove: return void:",
        "Evolution: i2c-probe-id",
        "Signed-off-by: A Person <a@example.org>",
    ] {
        assert!(log.contains(words), "{words}: {log}");
    }
    // The guard's branch for old kernels stays as it is without --drop-compat.
    assert!(!log.contains("instead of strlcpy"), "{log}");
    assert_eq!(git(driver.path(), &["status", "--porcelain"]), "");

    let commits = git(driver.path(), &["rev-list", "--reverse", "HEAD"]);
    let commits: Vec<&str> = commits.lines().collect();
    assert!(commits.len() >= 3, "{log}");
    for commit in &commits {
        let work = tempfile::tempdir().unwrap();
        let tree = work.path().join("tree");
        git(
            driver.path(),
            &["worktree", "add", "-q", "--detach", text(&tree), commit],
        );
        let last = Some(commit) == commits.last();
        make(if last { HOME } else { THEN }, &tree).ends(0);
        git(
            driver.path(),
            &["worktree", "remove", "--force", text(&tree)],
        );
    }
}

#[test]
fn who_interrupts_an_upgrade_finds_the_source_as_it_was() {
    let driver = lantern();
    repository(driver.path());
    let before = git(driver.path(), &["rev-parse", "HEAD"]);
    let source = std::fs::read(driver.path().join("lantern.c")).unwrap();
    let mut running = support::command(&["upgrade", text(driver.path()), "--to", HOME])
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(700));
    assert!(running.try_wait().unwrap().is_none(), "it was too quick");
    running.kill().unwrap();
    running.wait().unwrap();
    assert_eq!(git(driver.path(), &["rev-parse", "HEAD"]), before);
    assert_eq!(git(driver.path(), &["status", "--porcelain"]), "");
    assert_eq!(
        std::fs::read(driver.path().join("lantern.c")).unwrap(),
        source
    );
    kspan(&["upgrade", text(driver.path()), "--to", HOME]).ends(0);
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

#[test]
fn a_function_that_a_call_is_given_takes_the_new_parameters_and_the_modules_own_are_named_by_macros()
 {
    kernel(THEN);
    let driver = fixture("turnstile");
    let work = tempfile::tempdir().unwrap();
    let out = work.path().join("out");
    moved(driver.path(), &out, &[]);
    let source = std::fs::read_to_string(out.join("turnstile.c")).unwrap();
    for new in [
        "i8042_install_filter(turnstile_filter, NULL)",
        "struct serio *port, void *data_)",
        "static int turnstile_init(void)",
        "module_init(turnstile_init);",
        "static void turnstile_cleanup(void)",
        "module_exit(turnstile_cleanup);",
    ] {
        assert!(source.contains(new), "{new}: {source}");
    }
    make(HOME, &out).ends(0);
    // A port needs the same, without the driver's own source being touched.
    let cells = build(driver.path(), &[THEN, HOME]).ends(0).cells();
    let verdicts: Vec<&Value> = cells.iter().map(|c| &c["verdict"]).collect();
    assert_eq!(verdicts, ["native", "ported"], "{cells:#?}");
}

#[test]
fn a_head_that_stands_there_twice_is_read_as_compiled_and_names_that_macros_took_are_renamed() {
    kernel(THEN);
    let driver = tempfile::tempdir().unwrap();
    let manifest = format!("name = \"twice\"\nhome = \"{THEN}\"\nmodules = [\"twice\"]\n");
    write(driver.path(), "kspan.toml", manifest.as_bytes());
    write(driver.path(), "Kbuild", b"obj-m := twice.o\n");
    write(
        driver.path(),
        "twice.c",
        b"#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/if_link.h>
#include <linux/version.h>

enum { IFLA_TWICE_UNSPEC, IFLA_OVPN_MAX };

#if LINUX_VERSION_CODE >= KERNEL_VERSION(3, 3, 0)
static int twice_remove(struct platform_device *pdev)
#else
static int __devexit twice_remove(struct platform_device *pdev)
#endif
{
	dev_info(&pdev->dev, \"%d\\n\", IFLA_OVPN_MAX);
	return 0;
}

static struct platform_driver twice_driver = {
	.remove = twice_remove,
	.driver = { .name = \"twice\" },
};
module_platform_driver(twice_driver);
MODULE_LICENSE(\"GPL\");
MODULE_DESCRIPTION(\"test\");
",
    );
    let work = tempfile::tempdir().unwrap();
    let out = work.path().join("out");
    moved(driver.path(), &out, &[]);
    let source = std::fs::read_to_string(out.join("twice.c")).unwrap();
    for words in [
        "static void twice_remove(",
        "static int __devexit twice_remove(",
        "IFLA_TWICE_UNSPEC, twice_IFLA_OVPN_MAX",
    ] {
        assert!(source.contains(words), "{words}: {source}");
    }
}
