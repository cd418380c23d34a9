//! What comes in broken, hostile or cut short ends in words and an exit code, never in a panic or a half result.

mod support;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use support::{
    HOME, OLD, at_home_by_path, build, command, contents, fixture, kernel, kspan, run, small, text,
    write,
};
use tempfile::TempDir;

const GOOD: &str = "#include <linux/module.h>\n#include <linux/string_choices.h>\n\nstatic int __init small_init(void)\n{\n\tpr_info(\"%s\\n\", str_on_off(true));\n\treturn 0;\n}\nmodule_init(small_init);\nMODULE_DESCRIPTION(\"small\");\nMODULE_LICENSE(\"GPL\");\n";

/// The only cell, which must be there and `broken`; what it says.
#[track_caller]
fn broken(driver: &Path) -> String {
    let cells = build(driver, &[OLD]).ends(1).cells();
    assert_eq!(cells[0]["verdict"], "broken", "{:#}", cells[0]);
    cells[0]["broken"].as_str().unwrap().to_owned()
}

#[test]
fn bytes_that_are_no_utf8_pass_through() {
    let source = [
        GOOD.as_bytes(),
        b"/* gr\xfc\xdfe \xff */\nMODULE_AUTHOR(\"J\xfcrgen\");\n",
    ]
    .concat();
    let driver = small(&source);
    let cells = build(driver.path(), &[OLD]).ends(0).cells();
    assert_eq!(cells[0]["verdict"], "ported", "{:#}", cells[0]);
    let port = PathBuf::from(cells[0]["dir"].as_str().unwrap());
    let bytes = std::fs::read(port.join("small.c")).unwrap();
    assert!(bytes.windows(8).any(|w| w == b"gr\xfc\xdfe \xff "));
}

#[test]
fn dos_line_ends_are_built() {
    let driver = small(GOOD.replace('\n', "\r\n").as_bytes());
    let cells = build(driver.path(), &[HOME, OLD]).ends(0).cells();
    assert_eq!(cells[0]["verdict"], "native", "{:#}", cells[0]);
    assert_eq!(cells[1]["verdict"], "ported", "{:#}", cells[1]);
}

#[test]
fn a_link_out_of_the_driver_is_refused() {
    let driver = small(GOOD.as_bytes());
    symlink("/etc/passwd", driver.path().join("secret.h")).unwrap();
    kspan(&["build", text(driver.path()), "--on", OLD])
        .ends(1)
        .says("symbolic link")
        .says("secret.h");
}

#[test]
fn headers_that_include_each_other_are_the_drivers_fault() {
    let driver = small(format!("#include \"a.h\"\n{GOOD}").as_bytes());
    write(driver.path(), "a.h", b"#include \"b.h\"\n");
    write(driver.path(), "b.h", b"#include \"a.h\"\n");
    let words = broken(driver.path());
    assert!(words.contains("nested"), "{words}");
}

#[test]
fn a_drivers_error_directive_is_quoted() {
    let driver = small(format!("{GOOD}#error \"not for this world\"\n").as_bytes());
    let words = broken(driver.path());
    assert!(
        words.contains("not for this world") && words.contains("small.c"),
        "{words}"
    );
}

#[test]
fn a_kbuild_file_cannot_write_outside_of_its_copy() {
    let outside = tempfile::tempdir_in("/var/tmp").unwrap();
    let mark = outside.path().join("mark");
    let driver = small(GOOD.as_bytes());
    let shell = format!(
        "touch {0}; echo x > {1}/here; echo x > $(srctree)/Makefile.x",
        mark.display(),
        driver.path().display()
    );
    write(
        driver.path(),
        "Kbuild",
        format!("junk := $(shell {shell})\nobj-m := small.o\n").as_bytes(),
    );
    let before = contents(driver.path());
    for arguments in [
        &["init", text(driver.path())][..],
        &["check", text(driver.path()), "--on", OLD],
        &["build", text(driver.path()), "--on", OLD],
    ] {
        assert!(!kspan(arguments).err.contains("panicked"));
    }
    assert!(!mark.exists(), "the Kbuild file wrote outside");
    assert!(
        before == contents(driver.path()),
        "the Kbuild file wrote into the driver's directory"
    );
    assert!(!kernel(HOME).source_dir.join("Makefile.x").exists());
}

#[test]
fn kernels_that_are_none_are_told() {
    let driver = small(GOOD.as_bytes());
    let on = |kernel: &str| kspan(&["build", text(driver.path()), "--on", kernel]);
    on("9.99").ends(2).says("9.99");
    on("debian/no-such").ends(2).says("no-such");
    on("/nowhere/headers").ends(2).says("/nowhere/headers");
    let empty = tempfile::tempdir().unwrap();
    on(text(empty.path())).ends(2).says(text(empty.path()));
}

/// A copy of bookworm's build directory, usable as a kernel by path.
fn copied_kernel() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let kernel = kernel(OLD);
    let copied = run(Command::new("cp")
        .arg("-a")
        .arg(kernel.build_dir.join("."))
        .arg(dir.path()));
    copied.ends(0);
    for link in ["scripts", "tools"] {
        std::fs::remove_file(dir.path().join(link)).unwrap();
        let real = kernel.build_dir.join(link).canonicalize().unwrap();
        symlink(real, dir.path().join(link)).unwrap();
    }
    let makefile = format!("include {}/Makefile\n", kernel.source_dir.display());
    write(dir.path(), "Makefile", makefile.as_bytes());
    dir
}

#[test]
fn a_half_unpacked_kernel_is_told() {
    let driver = small(GOOD.as_bytes());
    let kernel = copied_kernel();
    let on = || kspan(&["build", text(driver.path()), "--on", text(kernel.path())]);
    on().ends(0);
    for missing in [
        "include/generated/autoconf.h",
        "Module.symvers",
        ".config",
        "Makefile",
    ] {
        std::fs::rename(kernel.path().join(missing), kernel.path().join("aside")).unwrap();
        on().ends(2).says(text(kernel.path())).says(missing);
        std::fs::rename(kernel.path().join("aside"), kernel.path().join(missing)).unwrap();
    }
}

#[test]
fn garbage_in_module_symvers_is_told() {
    let driver = small(GOOD.as_bytes());
    let kernel = copied_kernel();
    let file = kernel.path().join("Module.symvers");
    let good = std::fs::read(&file).unwrap();
    // modpost itself bears this line.
    let bad = b"0x1\tb\xff;d\tvmlinux\tEXPORT_SYMBOL\t\n";
    std::fs::write(&file, [good.as_slice(), bad].concat()).unwrap();
    let run = kspan(&["build", text(driver.path()), "--on", text(kernel.path())]);
    run.ends(2).says("Module.symvers").says("line ");
}

#[test]
fn a_killed_run_leaves_nothing_half_done() {
    let driver = fixture("beacon");
    for milliseconds in [150, 900, 2_500, 4_000] {
        let mut child = command(&["build", text(driver.path()), "--on", "trixie,bookworm"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let cells = build(driver.path(), &["trixie", "bookworm"])
        .ends(0)
        .cells();
    for cell in cells {
        assert_eq!(cell["verdict"], "ported", "{cell:#}");
        let port = PathBuf::from(cell["dir"].as_str().unwrap());
        assert!(port.join("beacon.ko").is_file());
    }
}

#[test]
fn a_full_disk_is_told() {
    let driver = small(GOOD.as_bytes());
    let place = tempfile::tempdir().unwrap();
    let root = run(Command::new("id").arg("-u")).out.trim() == "0";
    let script = "mount -t tmpfs -o size=2m none \"$1\" && shift && exec \"$@\"";
    at_home_by_path(driver.path());
    let mut unshare = Command::new("unshare");
    unshare.arg(if root { "-m" } else { "-rm" }).args([
        "sh",
        "-c",
        script,
        "sh",
        text(place.path()),
    ]);
    unshare.arg(env!("CARGO_BIN_EXE_kspan")).args([
        "--cache",
        text(place.path()),
        "build",
        text(driver.path()),
        "--on",
        text(&kernel(OLD).build_dir),
    ]);
    let ended = run(&mut unshare);
    assert!(!ended.err.contains("panicked"), "{}", ended.err);
    ended.ends(3).says("space");
}
