//! The main job on real kernels: one driver, written for the newest, on all four.

mod support;

use serde_json::Value;
use std::path::{Path, PathBuf};
use support::{
    HOME, OLD, SUITES, at_home_by_path, build, cache, command, contents, files, fixture, kernel,
    kspan, make, run, small, text,
};

#[track_caller]
fn verdict(cell: &Value, wanted: &str) {
    assert_eq!(cell["verdict"], wanted, "{cell:#}");
}

/// `kspan port`, into a new directory below `parent`.
fn port(driver: &Path, suite: &str, parent: &Path) -> PathBuf {
    let to = parent.join(suite);
    kspan(&["port", text(driver), "--on", suite, "-o", text(&to)]).ends(0);
    to
}

#[test]
fn one_driver_spans_four_kernels() {
    let driver = fixture("beacon");
    let before = contents(driver.path());
    let first = build(driver.path(), &SUITES).ends(0).cells();
    assert_eq!(first.len(), SUITES.len());
    for (cell, suite) in first.iter().zip(SUITES) {
        assert_eq!(cell["kernel"], kernel(suite).id.as_str());
        verdict(cell, if suite == HOME { "native" } else { "ported" });
        assert_eq!(cell["cached"], false);
        assert_eq!(cell["modules"], serde_json::json!(["beacon.ko"]));
    }
    let again = build(driver.path(), &SUITES).ends(0).cells();
    for (cell, earlier) in again.iter().zip(&first) {
        assert_eq!(cell["cached"], true);
        assert_eq!(cell["remedies"], earlier["remedies"]);
    }
    assert!(
        before == contents(driver.path()),
        "the driver's own directory was touched"
    );
}

#[test]
fn every_remedy_names_its_risk_and_its_origin() {
    let driver = fixture("beacon");
    let cells = build(driver.path(), &["bullseye"]).ends(0).cells();
    let remedies = cells[0]["remedies"].as_array().unwrap();
    assert!(!remedies.is_empty());
    for remedy in remedies {
        for field in ["kind", "subject", "risk", "origin"] {
            assert!(
                remedy[field].as_str().is_some_and(|w| !w.is_empty()),
                "{field}: {remedy:#}"
            );
        }
    }
}

#[test]
fn a_port_builds_where_kspan_was_never_heard_of() {
    let driver = fixture("beacon");
    let work = tempfile::tempdir().unwrap();
    for suite in SUITES {
        let port = port(driver.path(), suite, work.path());
        make(suite, &port).ends(0);
        assert!(port.join("beacon.ko").is_file(), "{suite}");
        let record: Value =
            serde_json::from_slice(&std::fs::read(port.join("port.json")).unwrap()).unwrap();
        assert_eq!(record["kernel"], kernel(suite).id.as_str());
    }
}

#[test]
fn where_nothing_is_needed_nothing_is_changed() {
    let driver = fixture("beacon");
    let work = tempfile::tempdir().unwrap();
    let port = port(driver.path(), HOME, work.path());
    let own = |dir: &Path| {
        let mut all = contents(dir);
        all.retain(|(name, _)| name != Path::new("port.json"));
        all
    };
    assert!(own(&port) == own(driver.path()), "{:?}", files(&port));
}

/// A cache of its own: nothing is known there of any driver. Kernels are named by path, so that they are the same ones.
fn fresh_cache(place: &Path) -> PathBuf {
    std::fs::create_dir(place).unwrap();
    for shared in ["roots", "facts", "toolchains"] {
        std::os::unix::fs::symlink(cache().root().join(shared), place.join(shared)).unwrap();
    }
    place.to_path_buf()
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let driver = fixture("beacon");
    at_home_by_path(driver.path());
    let elsewhere = tempfile::tempdir().unwrap();
    let moved = elsewhere.path().join("a longer name/beacon");
    std::fs::create_dir_all(&moved).unwrap();
    for (name, bytes) in contents(driver.path()) {
        std::fs::write(moved.join(name), bytes).unwrap();
    }
    let old = kernel(OLD).build_dir;
    let port = |driver: &Path, name: &str| {
        let (cache, to) = (
            fresh_cache(&elsewhere.path().join(name)),
            elsewhere.path().join(name).join("port"),
        );
        run(
            command(&["port", text(driver), "--on", text(&old), "-o", text(&to)])
                .env("KSPAN_CACHE", &cache),
        )
        .ends(0);
        contents(&to)
    };
    let (first, second) = (port(driver.path(), "one"), port(&moved, "another"));
    assert_eq!(first.len(), second.len());
    for ((name, bytes), (other_name, other_bytes)) in first.iter().zip(&second) {
        assert_eq!(name, other_name);
        assert_eq!(
            String::from_utf8_lossy(bytes),
            String::from_utf8_lossy(other_bytes),
            "{}",
            name.display()
        );
    }
}

#[test]
fn a_ports_warning_names_the_drivers_own_line() {
    let driver = fixture("beacon");
    let file = driver.path().join("main.c");
    let source = std::fs::read_to_string(&file).unwrap();
    let marked = source.replacen(
        "\tstruct beacon *beacon = platform_get_drvdata(pdev);\n",
        "\tstruct beacon *beacon = platform_get_drvdata(pdev);\n\tint never_used_in_beacon;\n",
        1,
    );
    let line = 1 + marked
        .lines()
        .position(|l| l.contains("never_used"))
        .unwrap();
    std::fs::write(&file, &marked).unwrap();
    let work = tempfile::tempdir().unwrap();
    let port = port(driver.path(), "bullseye", work.path());
    assert_ne!(
        std::fs::read(port.join("main.c")).unwrap(),
        marked.as_bytes(),
        "no edit to map"
    );
    let made = make("bullseye", &port).ends(0);
    made.says(&format!("main.c:{line}:"))
        .says("never_used_in_beacon");
}

#[test]
fn a_tag_declared_inside_of_a_carried_structure_comes_with_it_alone() {
    let driver = fixture("nest");
    let cells = build(driver.path(), &["trixie", "bullseye"])
        .ends(0)
        .cells();
    for cell in &cells {
        verdict(cell, "ported");
        let remedies = cell["remedies"].as_array().unwrap();
        let of = |name: &str| remedies.iter().any(|r| r["subject"] == name);
        assert!(of("ethtool_fec_hist"), "{cell:#}");
        assert!(!of("ethtool_fec_hist_value"), "{cell:#}");
    }
}

#[test]
fn a_member_of_a_wires_format_is_reached_by_its_place() {
    let driver = fixture("frame");
    let work = tempfile::tempdir().unwrap();
    let port = port(driver.path(), "trixie", work.path());
    let source = std::fs::read_to_string(port.join("frame.c")).unwrap();
    assert!(!source.contains("identify->cnssid"), "{source}");
    let at = "(unsigned char *)(identify) + 44";
    assert_eq!(source.matches(at).count(), 2, "{source}");
    assert!(source.contains(".cns = 1"), "{source}");
}

#[test]
fn a_relative_output_lies_where_the_user_stands() {
    let driver = fixture("frame");
    let work = tempfile::tempdir().unwrap();
    // The driver's text is new, so that it is built and read at home in this run.
    let mut port = command(&["port", text(driver.path()), "--on", "trixie", "-o", "out"]);
    run(port.current_dir(work.path())).ends(0);
    assert!(work.path().join("out/frame.c").is_file());
}

#[test]
fn check_finds_the_gaps_without_the_targets_compiler() {
    let driver = fixture("beacon");
    let run = kspan(&[
        "check",
        text(driver.path()),
        "--on",
        "trixie,bullseye",
        "--json",
    ])
    .ends(1);
    let cells = run.cells();
    let gaps = |i: usize| cells[i]["gaps"].to_string();
    for name in ["timer_container_of", "hrtimer_setup"] {
        assert!(gaps(0).contains(name), "{name}: {}", gaps(0));
    }
    assert!(gaps(1).contains("string_choices"), "{}", gaps(1));
    let since = format!("; since {} of the kernels here", kernel("trixie").release);
    assert!(gaps(1).contains(&since), "{}", gaps(1));
    assert!(
        cells[0]["gaps"].to_string().contains("main.c"),
        "places are named"
    );
}

#[test]
fn a_header_that_stands_for_another_does_not_give_what_it_does_not_name() {
    // 5.10 has no <linux/math.h>; <linux/kernel.h> has its names, but for those that came later.
    let driver = small(
        b"#include <linux/math.h>
#include <linux/module.h>

static int small_n;
module_param_named(n, small_n, int, 0444);

static int __init small_init(void)
{
	pr_info(\"%d %d\\n\", DIV_ROUND_UP_POW2(small_n, 8), DIV_ROUND_UP(small_n, 3));
	return 0;
}
module_init(small_init);
MODULE_DESCRIPTION(\"Rounds\");
MODULE_LICENSE(\"GPL\");
",
    );
    let cells = build(driver.path(), &["bullseye"]).ends(0).cells();
    verdict(&cells[0], "ported");
    let remedies = cells[0]["remedies"].as_array().unwrap();
    let of = |name: &str| remedies.iter().any(|r| r["subject"] == name);
    assert!(
        of("DIV_ROUND_UP_POW2") && !of("DIV_ROUND_UP"),
        "{:#}",
        cells[0]
    );
}

#[test]
fn what_the_target_does_not_compile_asks_nothing_of_it() {
    // A source with a form of its own for older kernels, and one thing that it forgot.
    let driver = small(
        b"#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/timer.h>
#include <linux/version.h>

static struct beat { struct timer_list timer; int n; } beat;

static void small_tick(struct timer_list *t)
{
	struct beat *b = timer_container_of(b, t, timer);

	b->n++;
}

static int small_probe(struct platform_device *pdev)
{
	timer_setup(&beat.timer, small_tick, 0);
	return 0;
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 11, 0)
static void small_remove(struct platform_device *pdev)
#else
static int small_remove(struct platform_device *pdev)
#endif
{
	dev_info(&pdev->dev, \"%d\\n\", beat.n);
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 11, 0)
	return 0;
#endif
}

static struct platform_driver small_driver = {
	.probe = small_probe,
	.remove = small_remove,
	.driver = { .name = \"small\" },
};
module_platform_driver(small_driver);
MODULE_LICENSE(\"GPL\");
",
    );
    let cells = build(driver.path(), &[OLD]).ends(0).cells();
    verdict(&cells[0], "ported");
    let remedies = cells[0]["remedies"].as_array().unwrap();
    let subjects: Vec<&str> = remedies
        .iter()
        .filter_map(|r| r["subject"].as_str())
        .collect();
    assert_eq!(subjects, ["timer_container_of"], "{remedies:#?}");
}

#[test]
fn what_the_targets_configuration_leaves_out_asks_nothing_of_it() {
    // NVMe's authentication is configured at home and not on the old kernel: a file of its own, and a block in another.
    let uses_a_newer_name = "struct beat { struct timer_list timer; int n; };
static void PREFIX_tick(struct timer_list *t)
{
	struct beat *b = timer_container_of(b, t, timer);

	b->n++;
}
void PREFIX_start(struct timer_list *t);
void PREFIX_start(struct timer_list *t)
{
	timer_setup(t, PREFIX_tick, 0);
}
";
    let own = uses_a_newer_name.replace("PREFIX", "own");
    let core = format!(
        "#include <linux/module.h>\n#include <linux/timer.h>\n#ifdef CONFIG_NVME_HOST_AUTH\n{own}#endif\nMODULE_LICENSE(\"GPL\");\n"
    );
    let driver = small(core.as_bytes());
    let dir = driver.path();
    std::fs::rename(dir.join("small.c"), dir.join("core.c")).unwrap();
    let other = uses_a_newer_name.replace("PREFIX", "other");
    std::fs::write(
        dir.join("other.c"),
        format!("#include <linux/timer.h>\n{other}"),
    )
    .unwrap();
    let kbuild = "obj-m += small.o\nsmall-y += core.o\nsmall-$(CONFIG_NVME_HOST_AUTH) += other.o\n";
    std::fs::write(dir.join("Kbuild"), kbuild).unwrap();
    // The compiler alone would not tell: what it never sees is no error.
    let cells = kspan(&["check", text(dir), "--on", OLD, "--json"])
        .ends(0)
        .cells();
    assert_eq!(cells[0]["gaps"], serde_json::json!([]));
    // What both kernels answer alike is asked: the block stands for itself then.
    let told = std::fs::read_to_string(dir.join("core.c")).unwrap();
    let always = told.replace("CONFIG_NVME_HOST_AUTH", "CONFIG_MODULES");
    std::fs::write(dir.join("core.c"), always).unwrap();
    let cells = kspan(&["check", text(dir), "--on", OLD, "--json"])
        .ends(1)
        .cells();
    let gaps = cells[0]["gaps"].to_string();
    assert!(
        gaps.contains("core.c") && !gaps.contains("other.c"),
        "{gaps}"
    );
}
