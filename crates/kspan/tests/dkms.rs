//! `kspan dkms` on a real kernel, in trees of its own: nothing of the host's is touched. Installing needs root.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{HOME, OLD, Run, command, kernel, run, text};
use tempfile::TempDir;

const PLAIN: &str =
    "#include <linux/module.h>\nMODULE_LICENSE(\"GPL\");\nMODULE_DESCRIPTION(\"test\");\n";

/// What only the newest kernel has.
const NEW: &str = "#include <linux/module.h>\n#include <linux/timer.h>\n\
struct a { struct timer_list timer; int n; };\nstatic struct a a;\n\
static void tick(struct timer_list *t)\n{\n\tstruct a *x = timer_container_of(x, t, timer);\n\n\tx->n++;\n}\n\
static int __init start(void)\n{\n\ttimer_setup(&a.timer, tick, 0);\n\treturn 0;\n}\n\
static void __exit stop(void)\n{\n\ttimer_delete_sync(&a.timer);\n}\n\
module_init(start);\nmodule_exit(stop);\nMODULE_LICENSE(\"GPL\");\nMODULE_DESCRIPTION(\"test\");\n";

/// A tree of packages, one of sources, and one of a kernel's modules.
struct House {
    dir: TempDir,
    release: String,
    build_dir: PathBuf,
}

impl House {
    fn new() -> Self {
        Self::of(OLD)
    }

    /// For a suite's newest kernel.
    fn of(suite: &str) -> Self {
        kernel(HOME);
        let kernel = kernel(suite);
        let house = Self {
            dir: tempfile::tempdir().unwrap(),
            release: kernel.release,
            build_dir: kernel.build_dir,
        };
        for dir in ["dkms", "src", "new"] {
            fs::create_dir_all(house.at(dir)).unwrap();
        }
        fs::create_dir_all(house.lib().join("kernel")).unwrap();
        fs::write(house.lib().join("modules.dep"), "none:\n").unwrap();
        house
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn lib(&self) -> PathBuf {
        self.at("lib/modules").join(&self.release)
    }

    /// A source directory that is not yet known.
    fn source(&self, name: &str, code: &str, conf: &str) -> PathBuf {
        let dir = self.at("new").join(name);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("{name}.c")), code).unwrap();
        fs::write(dir.join("Makefile"), format!("obj-m := {name}.o\n")).unwrap();
        let base = format!(
            "PACKAGE_NAME={name}\nPACKAGE_VERSION=1.0\nDEST_MODULE_LOCATION=/kernel/drivers\n"
        );
        fs::write(dir.join("dkms.conf"), format!("{base}{conf}")).unwrap();
        dir
    }

    /// Version 2.0 of a package that is known, with other code.
    fn second(&self, name: &str, code: &str) {
        let dir = self.at("src").join(format!("{name}-2.0"));
        let first = self.at("new").join(name);
        fs::create_dir_all(&dir).unwrap();
        for file in ["Makefile", "dkms.conf"] {
            let text = fs::read_to_string(first.join(file)).unwrap();
            fs::write(dir.join(file), text.replace("VERSION=1.0", "VERSION=2.0")).unwrap();
        }
        fs::write(dir.join(format!("{name}.c")), code).unwrap();
        self.dkms(&["add", &format!("{name}/2.0")]).ends(0);
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = command(&["dkms"]);
        command.args(words).env("try_sign_modules", "false");
        let places = [
            ("--dkmstree", self.at("dkms")),
            ("--sourcetree", self.at("src")),
            ("--installtree", self.at("lib/modules")),
            ("--kernelsourcedir", self.build_dir.clone()),
        ];
        for (option, path) in places {
            command.arg(option).arg(path);
        }
        command
    }

    /// Runs it for the one kernel.
    fn dkms(&self, words: &[&str]) -> Run {
        run(self.command(words).args(["-k", &self.release]))
    }

    fn status(&self) -> String {
        run(&mut self.command(&["status"])).ends(0).out
    }
}

/// Only root may install; where somebody else runs the tests, the refusal is what is tested.
fn root() -> bool {
    let output = Command::new("id").arg("-u").output().unwrap();
    output.stdout == b"0\n"
}

fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn a_module_goes_in_and_the_kernels_own_comes_back() {
    let house = House::new();
    let source = house.source("swap", PLAIN, "");
    let original = house.lib().join("kernel/swap.ko");
    fs::write(&original, "the kernel's own").unwrap();
    if !root() {
        house.dkms(&["install", text(&source)]).ends(1).says("root");
        return;
    }
    house
        .dkms(&["install", text(&source)])
        .ends(0)
        .says("Building module(s)... done.");
    assert!(
        house
            .status()
            .contains(": installed (Original modules exist)"),
        "{}",
        house.status()
    );
    let placed = house.lib().join("updates/dkms/swap.ko");
    assert!(bytes(&placed).starts_with(b"\x7fELF") && !original.exists());
    house.dkms(&["verify", "swap"]).ends(0);

    fs::write(&placed, "cut").unwrap();
    assert!(
        house
            .status()
            .contains("Differences between built and installed")
    );
    house
        .dkms(&["verify", "swap"])
        .ends(1)
        .says("is not what was built");
    house
        .dkms(&["verify", "swap", "--force"])
        .ends(0)
        .says("mended");
    assert!(bytes(&placed).starts_with(b"\x7fELF"));

    house
        .dkms(&["remove", "swap/1.0"])
        .ends(0)
        .says("Restoring archived original module");
    assert_eq!(bytes(&original), b"the kernel's own");
    assert!(!placed.exists() && house.status().is_empty());
}

#[test]
fn a_build_that_fails_keeps_the_last_good_one() {
    let house = House::new();
    if !root() {
        house.dkms(&["autoinstall"]).ends(1).says("root");
        return;
    }
    let source = house.source("keep", PLAIN, "");
    house.dkms(&["build", text(&source)]).ends(0);
    let built = house
        .at("dkms/keep/1.0")
        .join(&house.release)
        .join("x86_64/module/keep.ko");
    let before = bytes(&built);
    fs::write(house.at("src/keep-1.0/keep.c"), "#error broken\n").unwrap();
    house
        .dkms(&["build", "keep/1.0", "--force"])
        .ends(10)
        .says("Bad return status");
    assert!(before == bytes(&built));
    house.dkms(&["install", "keep/1.0"]).ends(0);
    assert!(house.status().contains("installed"));
}

#[test]
fn what_does_not_build_is_ported() {
    let house = House::new();
    if !root() {
        house.dkms(&["match"]).ends(1).says("root");
        return;
    }
    let source = house.source("fresh", NEW, "");
    house
        .dkms(&["install", text(&source)])
        .ends(0)
        .says("it was ported from");
    house
        .dkms(&["why", "fresh"])
        .ends(0)
        .says("installed, ported from");
}

/// What kernels before 6.3 let a driver write, and no overlay can allow again.
const OLD_WAYS: &str = "#include <linux/module.h>\n#include <linux/fs.h>\n#include <linux/mm.h>\n#include <linux/miscdevice.h>\n\
static int old_mmap(struct file *file, struct vm_area_struct *vma)\n{\n\tvma->vm_flags |= VM_IO;\n\treturn 0;\n}\n\
static const struct file_operations old_fops = {\n\t.owner = THIS_MODULE,\n\t.mmap = old_mmap,\n};\n\
static struct miscdevice old_dev = {\n\t.minor = MISC_DYNAMIC_MINOR,\n\t.name = \"old\",\n\t.fops = &old_fops,\n};\n\
module_misc_device(old_dev);\nMODULE_LICENSE(\"GPL\");\nMODULE_DESCRIPTION(\"test\");\n";

#[test]
fn what_no_overlay_closes_is_moved_up() {
    let house = House::of(HOME);
    if !root() {
        house.dkms(&["match"]).ends(1).says("root");
        return;
    }
    let source = house.source("old", OLD_WAYS, "");
    house.dkms(&["add", text(&source)]).ends(0);
    house
        .dkms(&["port", "old/1.0", "--diff"])
        .ends(0)
        .says("-\tvma->vm_flags |= VM_IO;")
        .says("+\tvm_flags_set(vma, VM_IO);");
    house
        .dkms(&["install", "old/1.0"])
        .ends(0)
        .says("it was ported from");
    assert!(house.status().contains("old/1.0, "), "{}", house.status());
}

#[test]
fn two_at_once_both_succeed() {
    let house = House::new();
    if !root() {
        house.dkms(&["match"]).ends(1).says("root");
        return;
    }
    let sources = ["left", "right"].map(|name| house.source(name, PLAIN, ""));
    std::thread::scope(|scope| {
        for source in &sources {
            scope.spawn(|| house.dkms(&["install", text(source)]).ends(0));
        }
    });
    assert_eq!(
        house.status().matches(": installed").count(),
        2,
        "{}",
        house.status()
    );
}

#[test]
fn a_configuration_cannot_write_and_its_errors_are_told() {
    let house = House::new();
    if !root() {
        house.dkms(&["match"]).ends(1).says("root");
        return;
    }
    let mark = house.at("mark");
    let source = house.source("sly", PLAIN, &format!("echo x >{}\n", mark.display()));
    house.dkms(&["add", text(&source)]).ends(0);
    assert!(!mark.exists());
    let bad = house.source("bad", PLAIN, "BUILT_MODULE_NAME[2]=x.ko\n");
    house
        .dkms(&["add", text(&bad)])
        .ends(8)
        .says("in record #2");
    house
        .dkms(&["build", "nobody/1.0"])
        .ends(2)
        .says("Could not find module source directory");
    house
        .dkms(&["frobnicate"])
        .ends(2)
        .says("Unknown action specified: \"frobnicate\"");
    house.dkms(&["why", "sly"]).ends(0).says("AUTOINSTALL");
}

#[test]
fn rollback_goes_back_to_the_version_before() {
    let house = House::new();
    if !root() {
        house.dkms(&["rollback", "twice"]).ends(1).says("root");
        return;
    }
    let source = house.source("twice", PLAIN, "");
    house
        .dkms(&["rollback", "twice"])
        .ends(3)
        .says("No earlier version");
    house.dkms(&["install", text(&source)]).ends(0);
    let first = bytes(&house.lib().join("updates/dkms/twice.ko"));
    house
        .dkms(&["rollback", "twice"])
        .ends(3)
        .says("No earlier version");
    house.second("twice", &PLAIN.replace("test", "newer"));
    house.dkms(&["install", "twice/2.0"]).ends(0);
    let placed = house.lib().join("updates/dkms/twice.ko");
    assert!(bytes(&placed) != first);
    house
        .dkms(&["rollback", "twice"])
        .ends(0)
        .says("Rolling back twice to 1.0");
    assert!(bytes(&placed) == first && house.status().contains("twice/1.0"));
    house.dkms(&["verify", "twice"]).ends(0);
}

#[test]
fn autoinstall_builds_side_by_side_and_falls_back() {
    let house = House::new();
    if !root() {
        house.dkms(&["autoinstall"]).ends(1).says("root");
        return;
    }
    for name in ["one", "three", "two"] {
        let source = house.source(name, PLAIN, "AUTOINSTALL=yes\n");
        house.dkms(&["add", text(&source)]).ends(0);
    }
    house.second("two", "#error broken\n");
    let run = house
        .dkms(&["autoinstall", "--no-repair", "-j", "2"])
        .ends(0)
        .says("two/2.0 cannot be installed")
        .says("fell back to an older version of two/2.0 (1.0)");
    // The words of builds that went on at the same time stand in the packages' order.
    let steps: Vec<&str> = run
        .out
        .lines()
        .filter(|l| l.starts_with("Autoinstall of") || l.starts_with("Building"))
        .collect();
    assert_eq!(steps.len(), 7, "{}", run.out);
    for (i, name) in ["one", "three", "two"].iter().enumerate() {
        assert!(steps[2 * i].contains(name) && steps[2 * i + 1].starts_with("Building"));
    }
    let status = house.status();
    for line in ["one/1.0", "three/1.0", "two/1.0"] {
        assert!(
            status.contains(&format!("{line}, {}, x86_64: installed", house.release)),
            "{status}"
        );
    }
    house.dkms(&["autoinstall"]).ends(0);
}

/// The firmware's variables, with Secure Boot on.
fn firmware(house: &House) -> PathBuf {
    let dir = house.at("efivars");
    fs::create_dir_all(&dir).unwrap();
    let name = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    fs::write(dir.join(name), [6, 0, 0, 0, 1]).unwrap();
    dir
}

#[test]
fn with_secure_boot_an_unsigned_module_is_refused() {
    let house = House::new();
    if !root() {
        house.dkms(&["autoinstall"]).ends(1).says("root");
        return;
    }
    let source = house.source("bare", PLAIN, "AUTOINSTALL=yes\n");
    let efi = firmware(&house);
    let secure = |words: &[&str]| {
        run(house
            .command(words)
            .args(["-k", &house.release])
            .env("KSPAN_EFIVARS", &efi))
    };
    secure(&["install", text(&source)])
        .ends(6)
        .says("bare of bare/1.0 is not signed, and Secure Boot is on");
    assert!(!house.lib().join("updates/dkms/bare.ko").exists());
    secure(&["preflight"])
        .ends(1)
        .says("NOT READY: bare is not signed");
    secure(&["install", "bare/1.0", "--force"])
        .ends(0)
        .says("will not load");
    house.dkms(&["preflight"]).ends(0).says("installed");
}

#[test]
fn preflight_names_what_misses_and_changes_nothing() {
    let house = House::new();
    if !root() {
        house.dkms(&["autoinstall"]).ends(1).says("root");
        return;
    }
    for (name, code) in [
        ("good", PLAIN),
        ("wrong", "#error broken\n"),
        ("fresh", NEW),
    ] {
        let source = house.source(name, code, "AUTOINSTALL=yes\n");
        house.dkms(&["add", text(&source)]).ends(0);
    }
    let etc = house.at("etc/initramfs-tools");
    fs::create_dir_all(&etc).unwrap();
    fs::create_dir_all(house.at("boot")).unwrap();
    fs::write(etc.join("modules"), "# wanted\ngood\n").unwrap();
    let before = house.status();
    house
        .dkms(&["preflight"])
        .ends(1)
        .says("good/1.0, ")
        .says("x86_64: builds\n")
        .says("NOT READY: good belongs into an initramfs")
        .says("NOT READY: does not build: ")
        .says("#error broken")
        .says("x86_64: builds as a port of its source");
    assert_eq!(house.status(), before);
    let json = house
        .dkms(&["preflight", "-m", "wrong", "--json"])
        .ends(1)
        .json();
    assert_eq!(json["findings"][0]["about"], "build");
    assert_eq!(json["findings"][0]["well"], false);
}

#[test]
fn a_port_can_be_looked_at_before() {
    let house = House::new();
    if !root() {
        house.dkms(&["autoinstall"]).ends(1).says("root");
        return;
    }
    let source = house.source("fresh", NEW, "");
    house.dkms(&["add", text(&source)]).ends(0);
    house
        .dkms(&["port", "fresh/1.0"])
        .ends(0)
        .says("timer_container_of");
    house
        .dkms(&["port", "fresh/1.0", "--diff"])
        .ends(0)
        .says("--- a/fresh.c")
        .says("+#define timer_container_of");
    assert!(house.status().contains("fresh/1.0: added"));
}
