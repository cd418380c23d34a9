//! `kspan facts`: what a kernel says of a name, and what changed.

use crate::output;
use kspan_facts::btf::Btf;
use kspan_facts::{Def, Detail, Export, Facts, Signature, compare, kind};
use kspan_kernel::{Cache, Kernel};
use std::process::ExitCode;

/// Show what a kernel says of a name: definition, header, layout, export.
///
/// Read from the kernel itself under its own configuration; a version number is never asked. With --diff, what changed
/// from KERNEL to OTHER.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A kernel: an id, a release, an alias such as 6.1, or a path.
    kernel: String,
    /// A function, macro, structure, enumeration, constant, typedef or CONFIG_ symbol.
    name: String,
    /// Another kernel to compare with.
    #[arg(long, value_name = "OTHER")]
    diff: Option<String>,
}

/// What one kernel says of a name.
struct Word {
    kernel: Kernel,
    defs: Vec<Def>,
    export: Option<Export>,
    config: Option<String>,
    btf: Option<String>,
}

fn ask(cache: &Cache, kernel: &str, name: &str) -> anyhow::Result<Word> {
    let kernel = cache.resolve(kernel)?;
    let facts = Facts::open(cache, &kernel)?;
    Ok(Word {
        defs: facts.defs(name),
        export: facts.export(name),
        config: facts.config(name),
        btf: btf_word(&kernel, name),
        kernel,
    })
}

/// BTF's word on a function or record, where the kernel has BTF.
fn btf_word(kernel: &Kernel, name: &str) -> Option<String> {
    let btf = Btf::open(&kernel.build_dir.join("vmlinux")).ok()?;
    if let Some((ret, params)) = btf.function(name) {
        return Some(format!("{ret} {name}({})", params.join(", ")));
    }
    let size = btf.record_size(name)?;
    Some(format!(
        "{name}: {size} bytes, {} members",
        btf.members(name)?.len()
    ))
}

/// Runs it.
///
/// # Errors
/// When a kernel is not there or cannot be read.
pub fn run(args: &Args, cache: &Cache, json: bool) -> anyhow::Result<ExitCode> {
    let word = ask(cache, &args.kernel, &args.name)?;
    let other = match &args.diff {
        Some(other) => Some(ask(cache, other, &args.name)?),
        None => None,
    };
    let known =
        |word: &Word| !word.defs.is_empty() || word.export.is_some() || word.config.is_some();
    if json {
        let value = serde_json::json!({
            "name": args.name,
            "kernel": as_json(&word),
            "other": other.as_ref().map(as_json),
            "changes": other.as_ref().map(|other| changes(&word, other)),
        });
        println!("{}", serde_json::to_string_pretty(&value)?);
    } else if let Some(other) = &other {
        print_diff(&args.name, &word, other);
    } else {
        print_word(&args.name, &word);
    }
    Ok(output::verdict(
        known(&word) || other.as_ref().is_some_and(known),
    ))
}

fn as_json(word: &Word) -> serde_json::Value {
    serde_json::json!({
        "id": word.kernel.id, "definitions": word.defs, "export": word.export, "config": word.config, "btf": word.btf,
    })
}

fn print_word(name: &str, word: &Word) {
    if word.defs.is_empty() && word.config.is_none() && word.export.is_none() {
        println!(
            "{} says nothing of {name}: no header that a module can include defines it.",
            word.kernel.id
        );
        return;
    }
    for def in &word.defs {
        println!(
            "{} {name}: <{}> ({}:{})",
            kind(&def.detail),
            def.header,
            def.path,
            def.lines.0
        );
        for line in def.text.lines() {
            println!("    {line}");
        }
        print_detail(&def.detail);
    }
    match &word.export {
        Some(export) => println!("export: {}", export_words(export)),
        None if word
            .defs
            .iter()
            .any(|def| matches!(def.detail, Detail::Function { body: false, .. })) =>
        {
            println!("export: none; a module that calls it does not link");
        }
        None => {}
    }
    if let Some(value) = &word.config {
        println!("configuration: {name}={value}");
    }
    if let Some(text) = &word.btf {
        println!("BTF: {text}");
    }
}

fn export_words(export: &Export) -> String {
    let licence = if export.gpl_only {
        "GPL modules only"
    } else {
        "any module"
    };
    let space = export
        .namespace
        .as_ref()
        .map(|space| format!(", namespace {space}"))
        .unwrap_or_default();
    let crc = if export.crc == 0 {
        String::new()
    } else {
        format!(", CRC {:#010x}", export.crc)
    };
    format!("by {} to {licence}{space}{crc}", export.module)
}

fn print_detail(detail: &Detail) {
    match detail {
        Detail::Function { sig, .. } => println!("  type: {}", signature(sig)),
        Detail::Record { fields, size, .. } => {
            println!(
                "  size: {}",
                size.map_or("unknown".into(), |size| format!("{size} bytes"))
            );
            for field in fields {
                let offset = field
                    .offset_bits
                    .map_or("?".into(), |bits| format!("{}", bits / 8));
                println!("  {offset:>6}  {}: {}", field.name, field.ty.spelling);
            }
        }
        Detail::Enum { constants } => constants
            .iter()
            .for_each(|(name, value)| println!("  {name} = {value}")),
        Detail::EnumConst { value, .. } => println!("  value: {value}"),
        Detail::Variable { ty } | Detail::Typedef { ty } => {
            println!("  type: {} ({})", ty.spelling, ty.canonical)
        }
        Detail::Macro { .. } => {}
    }
}

fn signature(sig: &Signature) -> String {
    let mut params: Vec<&str> = sig
        .params
        .iter()
        .map(|param| param.ty.canonical.as_str())
        .collect();
    if sig.variadic {
        params.push("...");
    }
    format!("{} ({})", sig.ret.canonical, params.join(", "))
}

/// What changed, in plain words.
fn changes(word: &Word, other: &Word) -> Vec<String> {
    let mut out = Vec::new();
    match (word.defs.first(), other.defs.first()) {
        (Some(_), None) => out.push("is gone from the headers".to_owned()),
        (None, Some(def)) => out.push(format!("is new, in <{}>", def.header)),
        _ => {}
    }
    for def in &word.defs {
        let same = other
            .defs
            .iter()
            .find(|one| kind(&one.detail) == kind(&def.detail))
            .or(other.defs.first());
        if let Some(same) = same {
            for change in compare(def, same) {
                let text = change.to_string();
                if !out.contains(&text) {
                    out.push(text);
                }
            }
        }
    }
    match (&word.export, &other.export) {
        (Some(_), None) => out.push("is no longer exported".into()),
        (None, Some(export)) => out.push(format!("is now exported {}", export_words(export))),
        (Some(a), Some(b)) if (a.gpl_only, &a.namespace) != (b.gpl_only, &b.namespace) => {
            out.push(format!(
                "was exported {}, is exported {}",
                export_words(a),
                export_words(b)
            ));
        }
        _ => {}
    }
    if word.config != other.config {
        let value = |config: &Option<String>| config.clone().unwrap_or_else(|| "off".into());
        out.push(format!(
            "configuration was {}, is {}",
            value(&word.config),
            value(&other.config)
        ));
    }
    out
}

fn print_diff(name: &str, word: &Word, other: &Word) {
    println!("{name}, from {} to {}:", word.kernel.id, other.kernel.id);
    let list = changes(word, other);
    if list.is_empty() {
        println!(
            "  {}",
            if word.defs.is_empty() {
                "neither knows it"
            } else {
                "nothing changed"
            }
        );
    }
    for change in list {
        println!("  - {change}");
    }
}
