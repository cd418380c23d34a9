//! The command line: help, generated pages, usage errors. Needs no kernel.

mod support;

use std::fmt::Write;
use std::path::Path;
use support::{command, kspan, run, text, write};

/// The help of a command and of all below it, as one Markdown page.
fn reference(path: &[&str], page: &mut String) {
    let help = kspan(&[path, &["--help"]].concat()).ends(0).out;
    let title = ["kspan"]
        .iter()
        .chain(path)
        .copied()
        .collect::<Vec<_>>()
        .join(" ");
    let _ = write!(
        page,
        "\n## {title}\n\n```text\n{}\n```\n",
        without_trailing_blanks(&help)
    );
    for name in subcommands(&help) {
        reference(&[path, &[name]].concat(), page);
    }
}

fn without_trailing_blanks(help: &str) -> String {
    let lines: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
    lines.join("\n")
}

fn subcommands(help: &str) -> Vec<&str> {
    let list = help.lines().skip_while(|l| *l != "Commands:").skip(1);
    let names = list
        .take_while(|l| !l.is_empty())
        .filter(|l| l.starts_with("  ") && !l.starts_with("   "));
    names
        .filter_map(|l| l.split_whitespace().next())
        .filter(|n| *n != "help")
        .collect()
}

#[test]
fn the_reference_in_docs_is_what_help_says() {
    let mut page = "# Command reference\n\nWhat `--help` says; written by `KSPAN_UPDATE=1 cargo test -p kspan --test cli`.\n".to_owned();
    reference(&[], &mut page);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    if std::env::var_os("KSPAN_UPDATE").is_some() {
        std::fs::write(&file, &page).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        kept == page,
        "docs/cli.md is not what --help says; look at the difference after `KSPAN_UPDATE=1 cargo test -p kspan --test cli`"
    );
}

#[test]
fn completions_and_pages_are_made() {
    let script = kspan(&["completions", "bash"]).ends(0).out;
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "kspan.bash", script.as_bytes());
    let checked = run(std::process::Command::new("bash")
        .arg("-n")
        .arg(dir.path().join("kspan.bash")));
    checked.ends(0);
    let pages = dir.path().join("man");
    kspan(&["man", text(&pages)]).ends(0);
    for page in ["kspan.1", "kspan-build.1"] {
        let source = std::fs::read_to_string(pages.join(page)).unwrap();
        assert!(source.contains(".TH"), "{page}");
    }
}

#[test]
fn usage_errors_end_with_2() {
    for arguments in [
        &["nonsense"][..],
        &[],
        &["build"],
        &["port", "."],
        &["build", ".", "--on"],
    ] {
        kspan(arguments).ends(2).says("--help");
    }
}

#[test]
fn a_directory_that_is_no_driver_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let empty = text(dir.path());
    for arguments in [
        &["build", empty][..],
        &["check", empty],
        &["port", empty, "--on", "x", "-o", "y"],
    ] {
        kspan(arguments).ends(2).says("kspan init");
    }
    kspan(&["build", "/nowhere/at/all"])
        .ends(2)
        .says("/nowhere/at/all");
}

#[test]
fn a_manifest_that_is_wrong_is_told_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        "kspan.toml",
        b"name = \"a\"\nhome = \"x\"\nmodules = [\"a\"]\nhorse = 1\n",
    );
    kspan(&["build", text(dir.path())])
        .ends(2)
        .says("line 4")
        .says("horse");
    write(dir.path(), "kspan.toml", b"name = \"\xff\"\n");
    kspan(&["build", text(dir.path())]).ends(2).says("UTF-8");
}

#[test]
fn an_empty_cache_says_how_to_fill_it() {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        "kspan.toml",
        b"name = \"a\"\nhome = \"6.1\"\nmodules = [\"a\"]\n",
    );
    write(dir.path(), "Kbuild", b"obj-m := a.o\n");
    let cache = dir.path().join("cache");
    let with = |arguments: &[&str]| run(command(arguments).env("KSPAN_CACHE", &cache));
    with(&["kernel", "list"]).ends(0).says("kspan kernel fetch");
    with(&["build", text(dir.path())])
        .ends(2)
        .says("kspan kernel fetch");
    with(&["build", text(dir.path()), "--on", "6.1"])
        .ends(2)
        .says("kspan kernel fetch");
}

#[test]
fn a_cache_that_cannot_be_made_is_the_machines_part() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "file", b"");
    let place = dir.path().join("file/cache");
    kspan(&["--cache", text(&place), "kernel", "list"])
        .ends(3)
        .says("file/cache");
}

#[test]
fn evolutions_are_asked_for_by_names_that_there_are() {
    let listed = kspan(&["evolution", "list", "--json"]).ends(0).out;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert!(listed.to_string().contains("\"skb-crc32c\""));
    kspan(&["evolution", "show", "skb-crc32c"])
        .ends(0)
        .says("skb_crc32c");
    kspan(&["evolution", "show", "no-such-thing"])
        .ends(2)
        .says("kspan evolution list");
    kspan(&["evolution", "test", "no-such-thing"])
        .ends(2)
        .says("no-such-thing");
}

#[test]
fn an_evolution_that_is_wrong_is_named_with_its_file() {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        "bad.toml",
        b"[[evolution]]\nid = \"a\"\nkind = \"defin\"\n",
    );
    run(command(&["evolution", "list"]).env("KSPAN_EVOLUTIONS", dir.path()))
        .ends(2)
        .says("bad.toml")
        .says("defin");
}

#[test]
fn evolutions_that_cannot_be_right_are_named_with_file_and_line() {
    let define = |id: &str, name: &str, more: &str| {
        format!(
            "[[evolution]]\nid = \"{id}\"\nkind = \"define\"\nprovides = [\"{name}\"]\ntext = \"#define {name}(x) {id}(x)\"\n{more}\n"
        )
    };
    let never = define("a", "x", "has = [\"x\"]");
    let contradicts = define("a", "x", "") + &define("b", "x", "");
    let circle = define("a", "x", "needs = [\"y\"]") + &define("b", "y", "needs = [\"x\"]");
    let example = define(
        "a",
        "x",
        "[[evolution.example]]\nbefore = \"x(1)\"\nafter = \"c(1)\"",
    );
    for (text, place, word) in [
        (never, "bad.toml:1", "never applies"),
        (contradicts, "bad.toml:7", "contradicts"),
        (circle, "bad.toml:1", "circle"),
        (example, "bad.toml:1", "becomes `a(1)`"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "bad.toml", text.as_bytes());
        for asked in [&["evolution", "list"][..], &["kernel", "list"]] {
            run(command(asked).env("KSPAN_EVOLUTIONS", dir.path()))
                .ends(2)
                .says(place)
                .says(word);
        }
    }
}

#[test]
fn learning_and_asking_need_kernels() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("learned.toml");
    let with =
        |arguments: &[&str]| run(command(arguments).env("KSPAN_CACHE", dir.path().join("cache")));
    with(&["why", "kmalloc"]).ends(3).says("kspan kernel fetch");
    with(&[
        "learn",
        "--old",
        "6.1",
        "--new",
        "6.12",
        "--output",
        text(&out),
    ])
    .ends(2)
    .says("kspan kernel fetch");
    assert!(!out.exists());
}
