//! `kspan test` on real kernels: what works, and what a bad driver comes to. Each boots machines; they run one by one.

mod support;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use support::{HOME, OLD, cache, kernel, kspan, small, text};

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
        "#include <linux/module.h>\n#include <linux/kernel.h>\n#include <linux/delay.h>\n#include <linux/slab.h>\n\
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
            [
                "needs", "load", "own", "reload", "smoke", "unload", "slab", "log"
            ]
        );
    }
}

#[test]
fn the_reference_pair_goes_peer_to_peer_where_the_kernel_permits_it() {
    let pair = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../drivers/p2p");
    let kernels = format!("{OLD},{HOME}");
    let cells = cells(&[text(&pair), "--on", &kernels], 0);
    assert!(note(&cells[0]).starts_with("by a bounce"), "{:#}", cells[0]);
    assert!(
        note(&cells[1]).starts_with("peer to peer"),
        "{:#}",
        cells[1]
    );
}

/// The note of a cell's smoke test.
fn note(cell: &Value) -> String {
    let checks = cell["checks"].as_array().unwrap();
    let smoke = checks.iter().find(|c| c["name"] == "smoke");
    let smoke = smoke.unwrap_or_else(|| panic!("no smoke test: {cell:#}"));
    smoke["note"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn the_distance_check_is_lifted_only_for_a_driver_that_chooses_so_and_its_risk_is_named() {
    let pair = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../drivers/p2p");
    let driver = tempfile::tempdir().unwrap();
    for file in ["Kbuild", "p2p_dma.c", "p2p_mem.c", "p2p_uapi.h"] {
        std::fs::copy(pair.join(file), driver.path().join(file)).unwrap();
    }
    let manifest = std::fs::read_to_string(pair.join("kspan.toml")).unwrap();
    let lifted = manifest.replace(
        "\n[smoke]",
        "opt_in = [\"p2pdma-distance-below-one-bridge\"]\n\n[smoke]",
    );
    std::fs::write(driver.path().join("kspan.toml"), lifted).unwrap();
    kspan(&["check", text(driver.path()), "--on", OLD])
        .ends(1)
        .says("p2pdma-distance-below-one-bridge")
        .says("ACS");
    let cells = cells(&[text(driver.path()), "--on", OLD], 0);
    let cell = only(&cells);
    assert!(note(cell).starts_with("peer to peer"), "{cell:#}");
}

#[test]
fn a_choice_that_nobody_offers_is_refused_by_name() {
    let driver = with_init("pr_info(\"small\\n\");");
    let manifest = driver.path().join("kspan.toml");
    let text_of = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, format!("{text_of}opt_in = [\"horse\"]\n")).unwrap();
    kspan(&["check", text(driver.path()), "--on", OLD])
        .ends(2)
        .says("horse")
        .says("p2pdma-distance-below-one-bridge");
}

#[test]
fn a_driver_that_leaves_memory_behind_fails_though_it_unloads() {
    let driver = with_init("if (!kmalloc(50, GFP_KERNEL))\n\t\treturn -ENOMEM;");
    let kernels = format!("{OLD},{HOME}");
    for cell in cells(&[text(driver.path()), "--on", &kernels], 1) {
        says(
            &cell,
            "fails",
            "11 objects of the unloaded driver remain: kmalloc-",
        );
    }
}

#[test]
fn a_driver_that_writes_past_its_memory_fails() {
    let driver = with_init(
        "char *p = kmalloc(50, GFP_KERNEL);\n\n\tif (!p)\n\t\treturn -ENOMEM;\n\t\
         OPTIMIZER_HIDE_VAR(p);\n\tp[64] = 1;\n\tkfree(p);",
    );
    let cells = cells(&[text(driver.path()), "--on", HOME], 1);
    says(only(&cells), "fails", "Redzone overwritten");
}

/// The image and the modules of a kernel that kspan fetched.
fn files_of(suite: &str) -> (PathBuf, PathBuf) {
    let image = cache().image(&kernel(suite), &|_| ()).unwrap();
    (image.vmlinuz, image.modules)
}

#[test]
fn an_image_of_ones_own_is_booted_with_its_modules() {
    let driver = with_init("pr_info(\"small\\n\");");
    let (vmlinuz, modules) = files_of(OLD);
    let own = [
        "--kernel-image",
        text(&vmlinuz),
        "--modules",
        text(&modules),
    ];
    let run = |kernel: &str, code| {
        let mut arguments = vec![text(driver.path()), "--on", kernel];
        arguments.extend(own);
        cells(&arguments, code)
    };
    assert_eq!(only(&run(OLD, 0))["verdict"], "loads");
    // A port for another kernel than the one that is booted does not load, and the kernel says why.
    says(only(&run(HOME, 1)), "fails", "version magic");
}

#[test]
fn an_image_that_never_speaks_is_ended() {
    let driver = with_init("pr_info(\"small\\n\");");
    let (_, modules) = files_of(HOME);
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    std::fs::write(&image, "this is no kernel").unwrap();
    let arguments = [
        text(driver.path()),
        "--on",
        HOME,
        "--kernel-image",
        text(&image),
        "--modules",
        text(&modules),
    ];
    let cells = cells(&arguments, 1);
    says(only(&cells), "fails", "QEMU");
    no_machine_of(driver.path());
}

#[test]
fn an_image_that_is_not_there_is_a_slip_of_the_users() {
    kernel(HOME);
    let driver = with_init("pr_info(\"small\\n\");");
    let own = ["--kernel-image", "/nowhere/image", "--modules", "/nowhere"];
    let mut arguments = vec!["test", text(driver.path()), "--on", HOME];
    arguments.extend(own);
    kspan(&arguments)
        .ends(2)
        .says("/nowhere/image: no such kernel image");
}

#[test]
fn a_symbol_that_nobody_has_is_named() {
    let driver = small(
        b"#include <linux/module.h>\nvoid nobody_has_this(void);\n\
          static int __init small_init(void)\n{\n\tnobody_has_this();\n\treturn 0;\n}\n\
          module_init(small_init);\nMODULE_LICENSE(\"GPL\");\n",
    );
    let cells = cells(&[text(driver.path()), "--on", HOME], 1);
    says(only(&cells), "no-port", "nobody_has_this");
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
