//! `kspan test` on real kernels: what works, and what a bad driver comes to. Each boots machines; they run one by one.

mod support;

use serde_json::Value;
use std::path::Path;
use std::sync::Mutex;
use support::{HOME, OLD, kernel, kspan, small, text};

/// Machines of two tests at once would only slow each other down.
static ONE_BY_ONE: Mutex<()> = Mutex::new(());

fn cells(arguments: &[&str], code: i32) -> Vec<Value> {
    let _alone = ONE_BY_ONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let logs = tempfile::tempdir().unwrap();
    kernel(HOME);
    let mut all = vec![
        "test",
        "--json",
        "--accel",
        "tcg",
        "--logs",
        text(logs.path()),
    ];
    all.extend_from_slice(arguments);
    kspan(&all).ends(code).cells()
}

/// A driver whose init does this.
fn with_init(body: &str) -> tempfile::TempDir {
    let source = format!(
        "#include <linux/module.h>\n#include <linux/kernel.h>\n#include <linux/delay.h>\n\
         static int __init small_init(void)\n{{\n\t{body}\n\treturn 0;\n}}\n\
         static void __exit small_exit(void)\n{{\n}}\n\
         module_init(small_init);\nmodule_exit(small_exit);\nMODULE_LICENSE(\"GPL\");\n"
    );
    small(source.as_bytes())
}

fn only(cells: &[Value]) -> &Value {
    assert_eq!(cells.len(), 1, "{cells:#?}");
    &cells[0]
}

#[track_caller]
fn says(cell: &Value, verdict: &str, why: &str) {
    assert_eq!(cell["verdict"], verdict, "{cell:#}");
    assert!(
        cell["why"].as_str().unwrap_or_default().contains(why),
        "{cell:#}"
    );
}

/// No QEMU of these tests is left: every one of them is a child of kspan, in its own process namespace.
fn no_machine_of(driver: &Path) {
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        assert!(
            !line.contains("qemu-system") || !line.contains(text(driver)),
            "{line}"
        );
    }
}

#[test]
fn two_drivers_work_on_two_kernels() {
    let kernels = format!("{OLD},{HOME}");
    for cell in cells(
        &[
            "--suite",
            "emulated",
            "--only",
            "e1000e,qemu_fw_cfg",
            "--on",
            &kernels,
        ],
        0,
    ) {
        assert_eq!(cell["verdict"], "works", "{cell:#}");
        let checks: Vec<&str> = cell["checks"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|c| c["name"].as_str())
            .collect();
        assert_eq!(
            checks,
            ["needs", "load", "own", "reload", "smoke", "unload", "log"]
        );
    }
}

#[test]
fn the_reference_pair_goes_peer_to_peer_where_the_kernel_permits_it() {
    let pair = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../drivers/p2p");
    let kernels = format!("{OLD},{HOME}");
    let cells = cells(&[text(&pair), "--on", &kernels], 0);
    let note = |cell: &Value| {
        let checks = cell["checks"].as_array().unwrap();
        let smoke = checks.iter().find(|c| c["name"] == "smoke").unwrap();
        smoke["note"].as_str().unwrap().to_owned()
    };
    assert!(note(&cells[0]).starts_with("by a bounce"), "{:#}", cells[0]);
    assert!(
        note(&cells[1]).starts_with("peer to peer"),
        "{:#}",
        cells[1]
    );
}

#[test]
fn a_driver_that_panics_the_guest_crashes() {
    let driver = with_init("panic(\"small gives up\");");
    let cells = cells(&[text(driver.path()), "--on", HOME], 1);
    says(only(&cells), "crashes", "small gives up");
    no_machine_of(driver.path());
}

#[test]
fn a_driver_that_never_returns_hangs() {
    let driver = with_init("for (;;)\n\t\tmsleep(100);");
    let cells = cells(&[text(driver.path()), "--on", HOME, "--limit", "15"], 1);
    says(only(&cells), "hangs", "load");
    no_machine_of(driver.path());
}

#[test]
fn a_driver_that_warns_fails_though_it_loads() {
    let driver = with_init("WARN_ON(1);");
    let cells = cells(&[text(driver.path()), "--on", HOME], 1);
    says(only(&cells), "fails", "WARNING");
}

#[test]
fn a_driver_that_refuses_to_load_fails_with_the_kernels_word() {
    let driver = with_init("pr_err(\"small: no such luck\\n\");\n\treturn -ENODEV;");
    let cells = cells(&[text(driver.path()), "--on", HOME], 1);
    says(only(&cells), "fails", "no such luck");
}

#[test]
fn a_device_that_this_qemu_lacks_is_skipped_not_passed() {
    let driver = with_init("pr_info(\"small\\n\");");
    let manifest = driver.path().join("kspan.toml");
    let text_of = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(
        &manifest,
        format!("{text_of}[smoke]\nqemu = [\"-device unobtainium\"]\nscript = \"pass\"\n"),
    )
    .unwrap();
    let cells = cells(&[text(driver.path()), "--on", HOME], 0);
    says(only(&cells), "skipped", "unobtainium");
}
