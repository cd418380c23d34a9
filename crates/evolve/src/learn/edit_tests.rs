//! Both versions of a file in, edits out; and rules that survive being written and read.

use super::anchors::{Anchor, Anchors, Callback, Shape};
use super::sites::{Key, Outcome, Reader};
use super::toml;
use crate::library::Library;
use crate::model::{Condition, Evidence, Evolution, Kind, Risk, Tier};
use kspan_facts::{Param, Signature, Ty};
use std::collections::BTreeMap;

fn ty(text: &str) -> Ty {
    Ty {
        spelling: text.to_owned(),
        canonical: text.to_owned(),
    }
}

fn signature(params: &[&str]) -> Signature {
    let param = |t: &&str| Param {
        name: String::new(),
        ty: ty(t),
    };
    Signature {
        ret: ty("int"),
        params: params.iter().map(param).collect(),
        variadic: false,
    }
}

fn anchors() -> Anchors {
    let mut anchors = Anchors::default();
    let missing = |callable| Anchor {
        shape: Shape::Missing,
        signature: None,
        callable,
        variadic: false,
        tag: false,
    };
    for name in ["new_call", "new_setup"] {
        anchors.names.insert(name.to_owned(), missing(true));
    }
    anchors.names.insert("NEW_FLAG".to_owned(), missing(false));
    let members = ["fresh", "kept", "cb", "inner"];
    let records = members.iter().map(|m| {
        let inner = (*m == "inner").then(|| "dev".to_owned());
        ((*m).to_owned(), inner)
    });
    anchors.records.insert("dev".to_owned(), records.collect());
    let gone = ["fresh".to_owned()].into_iter().collect();
    anchors.gone.insert("dev".to_owned(), gone);
    let callback = Callback {
        home: signature(&["struct disk *", "int"]),
        target: signature(&["struct bdev *", "int"]),
    };
    anchors
        .callbacks
        .insert(("dev".to_owned(), "cb".to_owned()), callback);
    anchors
}

/// What is found in a file of both kernels: the key in words, and the form.
fn found(home: &str, target: &str) -> Vec<(String, String)> {
    let anchors = anchors();
    let reader = Reader {
        anchors: &anchors,
        target_has_header: &|h| h != "linux/fresh.h",
    };
    let word = |key: Key| match key {
        Key::Name(n) => n,
        Key::Field(r, f) => format!("{r}.{f}"),
        Key::Write(r, f) => format!("{r}.{f} ="),
        Key::Initialiser(r, f) => format!("{{ {r}.{f} }}"),
        Key::Parameter(r, f, n) => format!("{r}.{f}({n})"),
        Key::Header(h) => format!("<{h}>"),
    };
    let form = |outcome| match outcome {
        Outcome::Edit { template, .. } => template,
        other => format!("{other:?}"),
    };
    reader
        .read(home, target)
        .into_iter()
        .map(|(key, site)| (word(key), form(site.outcome)))
        .collect()
}

fn check(home: &str, target: &str, expected: &[(&str, &str)]) {
    let found = found(home, target);
    let found: Vec<(&str, &str)> = found
        .iter()
        .map(|(k, f)| (k.as_str(), f.as_str()))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn a_call_is_paired_with_what_stands_in_its_place() {
    check(
        "int f(struct dev *d)\n{\n\treturn new_call(d->kept, 3);\n}\n",
        "int f(struct dev *d)\n{\n\treturn old_call(3, d->kept, 0);\n}\n",
        &[("new_call", "old_call ( {1} , {0} , 0 )")],
    );
}

#[test]
fn a_statement_may_become_two() {
    check(
        "void f(struct dev *d)\n{\n\tg();\n\tnew_setup(&d->kept, fn);\n\th();\n}\n",
        "void f(struct dev *d)\n{\n\tg();\n\told_init(&d->kept);\n\td->kept.function = fn;\n\th();\n}\n",
        &[("new_setup", "old_init ( {0} ) ; {0} -> function = {1} ;")],
    );
}

#[test]
fn a_flag_may_have_no_counterpart() {
    check(
        "int f(void)\n{\n\treturn g(A_FLAG | NEW_FLAG);\n}\n",
        "int f(void)\n{\n\treturn g(A_FLAG);\n}\n",
        &[("NEW_FLAG", "Deleted")],
    );
}

#[test]
fn a_name_that_the_file_defines_itself_is_no_use_of_the_api() {
    check(
        "static int new_call(int a)\n{\n\treturn a;\n}\nint f(void)\n{\n\treturn new_call(1);\n}\n",
        "int f(void)\n{\n\treturn other(1);\n}\n",
        &[],
    );
    check(
        "int f(int NEW_FLAG)\n{\n\treturn NEW_FLAG;\n}\n",
        "int f(int x)\n{\n\treturn x;\n}\n",
        &[],
    );
}

#[test]
fn members_are_followed_through_the_types_of_variables() {
    check(
        "int f(struct dev *d, struct other *o)\n{\n\treturn d->inner->fresh + o->fresh;\n}\n",
        "int f(struct dev *d, struct other *o)\n{\n\treturn d->inner->stale + o->fresh;\n}\n",
        &[("dev.fresh", "{0} -> stale")],
    );
    check(
        "void f(struct dev *d)\n{\n\td->fresh = 3;\n}\n",
        "void f(struct dev *d)\n{\n\tset_it(d, 3);\n}\n",
        &[("dev.fresh =", "set_it ( {0} , {1} )")],
    );
}

#[test]
fn initialisers_are_paired_by_their_value() {
    check(
        "static struct dev x = {\n\t.kept = 1,\n\t.fresh = my_fn,\n};\n",
        "static struct dev x = {\n\t.kept = 1,\n\t.stale = my_fn,\n};\n",
        &[("{ dev.fresh }", "stale")],
    );
    check(
        "static struct dev x = {\n\t.kept = 1,\n\t.fresh = my_fn,\n};\n",
        "static struct dev x = {\n\t.kept = 1,\n};\n",
        &[("{ dev.fresh }", "Deleted")],
    );
}

#[test]
fn a_lost_parameter_is_found_in_the_targets_own() {
    check(
        "static int cb(struct disk *d, int n)\n{\n\treturn use(d, n);\n}\nstatic struct dev x = {\n\t.cb = cb,\n};\n",
        "static int cb(struct bdev *b, int n)\n{\n\treturn use(b->disk, n);\n}\nstatic struct dev x = {\n\t.cb = cb,\n};\n",
        &[("dev.cb(0)", "{0} -> disk")],
    );
}

#[test]
fn headers_that_the_target_lacks_are_paired_with_those_that_came() {
    check(
        "#include <linux/a.h>\n#include <linux/fresh.h>\n",
        "#include <linux/a.h>\n#include <linux/stale.h>\n",
        &[("<linux/fresh.h>", "linux/stale.h")],
    );
}

#[test]
fn garbage_is_no_panic() {
    for text in [
        "new_call(",
        "f(){new_call(}",
        "struct dev x = {.fresh",
        "\u{0}#include <",
    ] {
        assert!(found(text, "int f(void) { }").len() < 2, "{text:?}");
    }
}

fn evolution(kind: Kind) -> Evolution {
    Evolution {
        id: "a-\"b\"".to_owned(),
        kind,
        provides: vec!["a".to_owned()],
        has: vec![Condition::Name("b".to_owned()), Condition::parse("<c.h>")],
        lacks: vec![Condition::parse("struct d.e")],
        arity: [("b".to_owned(), 2)].into(),
        types: BTreeMap::new(),
        body: BTreeMap::new(),
        body_lacks: BTreeMap::new(),
        includes: vec!["linux/b.h".to_owned()],
        needs: Vec::new(),
        rewrite: Default::default(),
        upgrade: Default::default(),
        risk: Risk::Default,
        meaning: "a \\ \"quoted\" word".to_owned(),
        commit: String::new(),
        why: "learned".to_owned(),
        opt_in: false,
        only_with: Vec::new(),
        risk_with: Vec::new(),
        risk_without: Vec::new(),
        examples: Vec::new(),
        evidence: Some(Evidence {
            tier: Tier::Likely,
            files: 3,
            sites: 4,
            against: 1,
            unresolved: 2,
            examples: vec!["drivers/a.c:3".to_owned()],
            before: "a ( \"x\\n\" )".to_owned(),
            after: "b ( 0 )".to_owned(),
        }),
        file: "t.toml".to_owned(),
        line: 3,
    }
}

#[test]
fn what_is_written_is_read_again() {
    let text = "#define a(x) b((x), 0)\n".to_owned();
    let callback = Kind::Callback {
        record: "r".to_owned(),
        field: "f".to_owned(),
        params: [("struct x *".to_owned(), "({0})->x".to_owned())].into(),
        ret: None,
        adapter: None,
    };
    let kinds = [
        Kind::Define { text: text.clone() },
        Kind::Override {
            text,
            home_arity: [("a".to_owned(), 1)].into(),
        },
        callback,
    ];
    for kind in kinds {
        let made = evolution(kind);
        let written = toml::file("A head.", &[&made]);
        let library = Library::from_texts([("t.toml".to_owned(), written.clone())])
            .unwrap_or_else(|e| panic!("{e}\n{written}"));
        assert_eq!(library.all(), [made]);
    }
}
