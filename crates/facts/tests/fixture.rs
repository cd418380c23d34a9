//! A small kernel of our own, read as a real one would be.

use kspan_facts::{Change, Detail, Facts, UseKind, align, analyse, compare};
use kspan_kernel::Kernel;
use std::path::{Path, PathBuf};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const MODULE_H: &str = "#ifndef _LINUX_MODULE_H\n#define _LINUX_MODULE_H\n#define MODULE_LICENSE(x) static const char license[] = x\n#endif\n";
const CORE_H: &str = r"#ifndef _LINUX_CORE_H
#define _LINUX_CORE_H
#define __must_check __attribute__((__warn_unused_result__))
#define IS_ENABLED(x) 1
#define TEMPORARY 1
#undef TEMPORARY
typedef unsigned int u32;
struct opaque;
struct core_dev {
	u32 id;
	union {
		u32 low;
		void *data;
	};
	struct { u32 inner; } nested;
	u32 a:3, b:5;
};
struct core_pm { int (*suspend)(struct core_dev *dev); int (*resume)(struct core_dev *dev); };
struct core_ops {
	int (*probe)(struct core_dev *dev, u32 flags);
	void (*remove)(struct core_dev *dev);
	struct core_pm pm;
};
struct core_driver { const char *name; struct core_ops ops; };
enum core_mode { CORE_OFF, CORE_ON = 7 };
#define CORE_PM(s, r) .suspend = (IS_ENABLED(CONFIG_PM) ? (s) : (void *)0), .resume = r
#define core_setup(dev, fn) __core_setup(dev, fn, 0)
void __core_setup(struct core_dev *dev, void (*fn)(struct core_dev *), u32 flags);
int __must_check core_register(struct core_driver *driver,
			       const char *name);
static inline u32 core_id(const struct core_dev *dev)
{
	return dev->id;
}
#define DEFINE_GETTER(name) static inline u32 get_##name(struct core_dev *d) { return d->name; }
DEFINE_GETTER(id)
#define CORE_MAX(a, b...) \
	((a) > CORE_ON ? (a) /* largest */ : 0)
#endif
";
const DRIVER_C: &str = r#"#include <linux/module.h>
#include <linux/core.h>
#include "own.h"
#define OWN_MAX(x) CORE_MAX(x, 3)
#ifdef CORE_PM
#endif
static int my_probe(struct core_dev *dev, u32 flags) { return core_id(dev) + dev->low + OWN_MAX(2) + dev->nested.inner; }
static void my_remove(struct core_dev *dev) { }
static int my_suspend(struct core_dev *dev) { return CORE_ON; }
static int my_resume(struct core_dev *dev) { return 0; }
static void my_timer(struct core_dev *dev) { }
static struct core_driver drv[] = {
	[0] = { "x", { .probe = my_probe, .remove = my_remove, .pm = { CORE_PM(my_suspend, my_resume) } } },
};
int start(struct core_dev *dev, struct core_ops *ops)
{
	ops->remove = my_remove;
	core_setup(dev, my_timer);
	return core_register(&drv[0], "x");
}
"#;

struct Fixture {
    dir: tempfile::TempDir,
    kernel: Kernel,
}

fn write(path: &Path, text: impl AsRef<[u8]>) -> std::io::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::write(path, text)
}

fn fixture() -> Result<Fixture, Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let tree = dir.path().join("kernel");
    write(&tree.join("include/linux/module.h"), MODULE_H)?;
    write(&tree.join("include/linux/core.h"), CORE_H)?;
    write(
        &tree.join("include/linux/broken.h"),
        "#error never include this\n",
    )?;
    write(
        &tree.join("include/linux/circle.h"),
        "#include <linux/circle2.h>\n#ifndef C1\n#define C1\nint circle(void);\n#endif\n",
    )?;
    write(
        &tree.join("include/linux/circle2.h"),
        "#ifndef C2\n#define C2\n#include <linux/circle.h>\n#endif\n",
    )?;
    write(
        &tree.join("include/linux/flags.h"),
        "#define FLAG(x) FLAG_##x,\nenum flag {\n#include <linux/flag_list.h>\n};\nint flag_of(struct later *l);\n",
    )?;
    write(
        &tree.join("include/linux/flag_list.h"),
        "/* What there is. */\nFLAG(A)\nFLAG(B)\n",
    )?;
    write(
        &tree.join("include/linux/later.h"),
        "struct later { int flag; };\nint flag_of(struct later *l);\n",
    )?;
    write(
        &tree.join("include/linux/latin.h"),
        b"/* \xe9\xff */\r\nint latin(int x);\r\n",
    )?;
    write(
        &tree.join("include/config/auto.conf"),
        "CONFIG_PM=y\nCONFIG_HZ=250\n",
    )?;
    write(
        &tree.join("Module.symvers"),
        "0x00000000\tcore_register\tvmlinux\tEXPORT_SYMBOL_GPL\tCORE\n",
    )?;
    let kernel = Kernel {
        id: "path/fixture".into(),
        release: "fixture".into(),
        version: "0".into(),
        arch: "x86".into(),
        build_dir: tree.clone(),
        source_dir: tree,
        digest: "00".into(),
    };
    Ok(Fixture { dir, kernel })
}

fn args(kernel: &Kernel) -> Vec<String> {
    vec![
        "-nostdinc".into(),
        format!("-I{}/include", kernel.source_dir.display()),
        "-std=gnu11".into(),
    ]
}

fn open(fixture: &Fixture) -> kspan_facts::Result<Facts> {
    Facts::open_with(&fixture.dir.path().join("store"), &fixture.kernel, || {
        Ok(args(&fixture.kernel))
    })
}

#[test]
fn facts_of_a_kernel() -> Outcome {
    let fixture = fixture()?;
    let facts = open(&fixture)?;
    let first = |name: &str| {
        facts
            .defs(name)
            .into_iter()
            .next()
            .ok_or(format!("{name} is missing"))
    };
    let register = first("core_register")?;
    assert_eq!(
        register.text,
        "int __must_check core_register(struct core_driver *driver,\n\t\t\t       const char *name);"
    );
    assert_eq!(
        (register.header.as_str(), register.path.as_str()),
        ("linux/core.h", "include/linux/core.h")
    );
    assert_eq!(
        first("core_id")?.text,
        "static inline u32 core_id(const struct core_dev *dev)\n{\n\treturn dev->id;\n}"
    );
    assert_eq!(first("get_id")?.text, "DEFINE_GETTER(id)");
    let Detail::Record { fields, size, .. } = first("core_dev")?.detail else {
        return Err("no record".into());
    };
    let seen: Vec<_> = fields
        .iter()
        .map(|field| (field.name.as_str(), field.offset_bits, field.bit_width))
        .collect();
    assert_eq!(
        seen,
        [
            ("id", Some(0), None),
            ("low", Some(64), None),
            ("data", Some(64), None),
            ("nested", Some(128), None),
            ("nested.inner", Some(128), None),
            ("a", Some(160), Some(3)),
            ("b", Some(163), Some(5)),
        ]
    );
    assert_eq!(size, Some(24));
    assert!(
        matches!(first("CORE_ON")?.detail, Detail::EnumConst { value: 7, ref parent } if parent == "core_mode")
    );
    let flag = first("FLAG_B")?;
    assert_eq!(
        (flag.text.as_str(), flag.lines),
        ("enum flag {\n#include <linux/flag_list.h>\n};", (2, 4))
    );
    // The prototype that is first to name the structure means the same as the one behind its definition.
    let complained = facts.unanalysed();
    assert!(
        !complained.iter().any(|words| words.contains("later.h")),
        "{complained:?}"
    );
    let Detail::Macro { params, body } = first("CORE_MAX")?.detail else {
        return Err("no macro".into());
    };
    assert_eq!(
        (params, body.as_str()),
        (
            Some(vec!["a".into(), "b...".into()]),
            "((a) > CORE_ON ? (a) : 0)"
        )
    );
    assert_eq!(facts.deps(&first("CORE_MAX")?), ["CORE_ON"]);
    assert_eq!(facts.deps(&first("core_id")?), ["u32", "core_dev"]);
    assert!(
        !facts.has("TEMPORARY") && facts.has("opaque") && facts.has("latin") && facts.has("circle")
    );
    assert!(facts.header_exists("linux/broken.h") && !facts.header_exists("linux/none.h"));
    assert!(
        facts
            .unanalysed()
            .iter()
            .any(|line| line.contains("linux/broken.h") && line.contains("never include this"))
    );
    let export = facts.export("core_register").ok_or("no export")?;
    assert!(export.gpl_only && export.namespace.as_deref() == Some("CORE"));
    assert_eq!(facts.config("CONFIG_HZ").as_deref(), Some("250"));
    assert!(
        facts
            .names_in_header("linux/core.h")
            .contains(&"core_ops".to_owned())
    );
    Ok(())
}

#[test]
fn a_damaged_store_is_read_anew() -> Outcome {
    let fixture = fixture()?;
    let count = open(&fixture)?.all_names().count();
    for entry in std::fs::read_dir(fixture.dir.path().join("store"))? {
        let path = entry?.path();
        let mut bytes = std::fs::read(&path)?;
        let middle = bytes.len() / 2;
        if let Some(byte) = bytes.get_mut(middle) {
            *byte ^= 0x55;
        }
        std::fs::write(path, bytes)?;
    }
    assert_eq!(open(&fixture)?.all_names().count(), count);
    Ok(())
}

#[test]
fn garbage_is_refused_with_its_place() -> Outcome {
    let fixture = fixture()?;
    write(
        &fixture.kernel.build_dir.join("Module.symvers"),
        "0x0\tgood\tvmlinux\tEXPORT_SYMBOL\n\u{0}rubbish\n",
    )?;
    let words = match open(&fixture) {
        Ok(_) => return Err("garbage was taken".into()),
        Err(error) => error.to_string(),
    };
    assert!(
        words.contains("Module.symvers") && words.contains("line 2"),
        "{words}"
    );
    std::fs::remove_file(fixture.kernel.source_dir.join("include/linux/module.h"))?;
    write(&fixture.kernel.build_dir.join("Module.symvers"), "")?;
    assert!(open(&fixture).is_err_and(|error| error.to_string().contains("half-unpacked")));
    Ok(())
}

fn driver(fixture: &Fixture) -> std::io::Result<PathBuf> {
    let dir = fixture.dir.path().join("driver");
    write(&dir.join("own.h"), "struct own { int (*hook)(void); };\n")?;
    write(&dir.join("driver.c"), DRIVER_C)?;
    Ok(dir)
}

#[test]
fn uses_of_a_driver() -> Outcome {
    let fixture = fixture()?;
    let dir = driver(&fixture)?;
    let tu = analyse(
        &fixture.kernel,
        &dir.join("driver.c"),
        &args(&fixture.kernel),
        &dir,
    )?;
    assert_eq!(tu.unanalysed, Vec::<String>::new());
    let has = |kind: UseKind, name: &str, line: u32, via: Option<&str>| {
        tu.uses.iter().any(|one| {
            one.kind == kind
                && one.name == name
                && one.at.line == line
                && one.via_macro.as_deref() == via
        })
    };
    assert!(has(UseKind::Header, "linux/core.h", 2, None));
    assert!(
        has(UseKind::Macro, "CORE_MAX", 4, None),
        "in the body of the driver's own macro"
    );
    assert!(
        has(UseKind::EnumConst, "CORE_ON", 4, Some("CORE_MAX"))
            || has(UseKind::EnumConst, "CORE_ON", 7, Some("CORE_MAX"))
    );
    assert!(has(UseKind::Macro, "CORE_PM", 5, None), "tested");
    assert!(has(UseKind::Function, "core_id", 7, None));
    assert!(has(UseKind::Field, "low", 7, None));
    assert!(has(
        UseKind::Function,
        "__core_setup",
        18,
        Some("core_setup")
    ));
    let field = tu
        .uses
        .iter()
        .find(|one| one.kind == UseKind::Field && one.name == "low")
        .ok_or("no field")?;
    assert_eq!(field.record.as_deref(), Some("core_dev"));
    let call = tu
        .uses
        .iter()
        .find(|one| one.name == "core_register")
        .ok_or("no call")?;
    assert_eq!((call.args, call.header.as_str()), (Some(2), "linux/core.h"));
    let setup = tu
        .uses
        .iter()
        .find(|one| one.kind == UseKind::Macro && one.name == "core_setup")
        .ok_or("no macro")?;
    assert_eq!(setup.args, Some(2));
    assert!(!tu.uses.iter().any(|one| one.header.contains("own.h")));
    Ok(())
}

#[test]
fn bindings_of_a_driver() -> Outcome {
    let fixture = fixture()?;
    let dir = driver(&fixture)?;
    let tu = analyse(
        &fixture.kernel,
        &dir.join("driver.c"),
        &args(&fixture.kernel),
        &dir,
    )?;
    let seen: Vec<_> = tu
        .bindings
        .iter()
        .map(|one| {
            format!(
                "{}.{}={}@{} {}",
                one.record,
                one.field,
                one.function,
                one.at.line,
                one.via_macro.as_deref().unwrap_or("-")
            )
        })
        .collect();
    for wanted in [
        "core_ops.probe=my_probe@13 -",
        "core_ops.remove=my_remove@13 -",
        "core_pm.suspend=my_suspend@13 CORE_PM",
        "core_pm.resume=my_resume@13 CORE_PM",
        "core_ops.remove=my_remove@17 -",
        ".__core_setup#1=my_timer@18 core_setup",
    ] {
        assert!(
            seen.iter().any(|one| one == wanted),
            "{wanted} is not in {seen:#?}"
        );
    }
    assert_eq!(seen.len(), 6);
    let probe = tu.bindings.first().ok_or("none")?;
    assert_eq!(
        (
            probe.decl_start.line,
            probe.field_at.as_ref().map(|at| at.line)
        ),
        (12, Some(13))
    );
    assert_eq!(probe.expects.as_ref().map(|sig| sig.params.len()), Some(2));
    Ok(())
}

#[test]
fn a_kernels_typedef_makes_a_callback_of_the_drivers_own() -> Outcome {
    let fixture = fixture()?;
    let dir = fixture.dir.path().join("typed");
    let include = fixture.dir.path().join("named");
    write(
        &include.join("linux/named.h"),
        "typedef void (*core_notify)(unsigned long error, void *context);\n",
    )?;
    write(
        &dir.join("typed.c"),
        "#include <linux/named.h>\n\
         struct own { core_notify fn; void (*plain)(void); };\n\
         void done(unsigned long error, void *context) { }\n\
         void plain(void) { }\n\
         int send(int n, core_notify fn, void (*other)(void));\n\
         int go(struct own *o) { o->fn = done; o->plain = plain; return send(1, done, plain); }\n",
    )?;
    let mut flags = args(&fixture.kernel);
    flags.push(format!("-I{}", include.display()));
    let tu = analyse(&fixture.kernel, &dir.join("typed.c"), &flags, &dir)?;
    let seen: Vec<_> = tu
        .bindings
        .iter()
        .map(|b| format!("{}.{}={}", b.record, b.field, b.function))
        .collect();
    assert_eq!(seen, [".core_notify=done", ".core_notify=done"]);
    let wanted = tu.bindings.first().and_then(|b| b.expects.as_ref());
    assert_eq!(wanted.map(|sig| sig.params.len()), Some(2));
    Ok(())
}

#[test]
fn bad_drivers_never_panic() -> Outcome {
    let fixture = fixture()?;
    let dir = fixture.dir.path().join("bad");
    let texts: [&[u8]; 5] = [
        b"#error no\n",
        b"#include \"bad.c\"\n\xff\xfe int x = ;\r\n#define A(\r\n",
        b"#include <linux/none.h>\nint f(void) { return gone(1); }\n",
        b"/* never closed\n#define X",
        b"\"\\\n#if\n#define\n#include\n",
    ];
    for text in texts {
        write(&dir.join("bad.c"), text)?;
        let tu = analyse(
            &fixture.kernel,
            &dir.join("bad.c"),
            &args(&fixture.kernel),
            &dir,
        )?;
        assert!(
            !tu.unanalysed.is_empty(),
            "silent on {:?}",
            String::from_utf8_lossy(text)
        );
    }
    assert!(analyse(&fixture.kernel, &dir.join("none.c"), &[], &dir).is_err());
    Ok(())
}

#[test]
fn differences_in_words() -> Outcome {
    let (one, two) = (fixture()?, fixture()?);
    let changed = CORE_H
        .replace(
            "void (*remove)(struct core_dev *dev);",
            "int (*remove)(struct core_dev *dev, u32 how);",
        )
        .replace("CORE_ON = 7", "CORE_ON = 8")
        .replace("const char *name);", "u32 flags, const char *name);")
        .replace("core_setup(dev, fn)", "core_setup(dev, fn, f)");
    write(&two.kernel.source_dir.join("include/linux/core.h"), changed)?;
    let (a, b) = (open(&one)?, open(&two)?);
    let changes = |name: &str| -> Vec<String> {
        let (x, y) = (a.defs(name), b.defs(name));
        x.iter()
            .zip(&y)
            .flat_map(|(x, y)| compare(x, y))
            .map(|change| change.to_string())
            .collect()
    };
    assert_eq!(
        changes("core_register"),
        ["takes a new parameter 2: `u32 flags`"]
    );
    assert_eq!(
        changes("core_setup"),
        ["the macro takes 3 arguments where it took 2 arguments before"]
    );
    assert_eq!(changes("core_mode"), ["`CORE_ON` was 7, is 8"]);
    assert_eq!(
        changes("core_ops"),
        ["member `remove` was `void (*)(struct core_dev *)`, is `int (*)(struct core_dev *, u32)`"]
    );
    assert_eq!(changes("core_dev"), Vec::<String>::new());
    let (x, y) = (a.defs("core_ops"), b.defs("core_ops"));
    let callback =
        x.iter()
            .zip(&y)
            .flat_map(|(x, y)| compare(x, y))
            .find_map(|change| match change {
                Change::FieldType { callback, .. } => Some(callback.len()),
                _ => None,
            });
    assert_eq!(callback, Some(2));
    assert!(align(&[], &[]).is_empty());
    Ok(())
}
