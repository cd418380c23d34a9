//! Tries the room by hand: `try KERNEL_DIR LOG analyse FILE [ROOT]`.
use kspan_kernel::Kernel;
use std::path::{Path, PathBuf};

fn kernel(dir: &str) -> Kernel {
    let base = PathBuf::from(dir).join("usr/src");
    let find = |end: &str| {
        std::fs::read_dir(&base)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .find(|path| {
                path.to_string_lossy().contains("linux-headers")
                    && path.to_string_lossy().ends_with(end)
            })
            .unwrap_or_default()
    };
    let build_dir = find("-amd64");
    Kernel {
        id: format!("try/{}", build_dir.display()),
        release: String::new(),
        version: String::new(),
        arch: "x86".into(),
        source_dir: find("-common"),
        digest: blake3::hash(dir.as_bytes()).to_hex().to_string(),
        build_dir,
    }
}

fn log_args(kernel: &Kernel, log: &str) -> Vec<String> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let text = if text.contains(" -nostdinc ") {
        text
    } else {
        std::fs::read_to_string(log.replace("/log", "/.probe.o.cmd"))
            .unwrap_or_default()
            .replacen(" := ", "\n", 1)
    };
    let line = text
        .lines()
        .find(|line| line.contains(" -nostdinc "))
        .unwrap_or("");
    let mut out: Vec<String> = Vec::new();
    for word in line.split_whitespace().skip(1) {
        if word.starts_with("-Wp")
            || word.starts_with("-DKBUILD")
            || word == "-c"
            || word == "-o"
            || word.contains(".c") && !word.starts_with('-')
            || word.ends_with(".o")
        {
            continue;
        }
        out.push(word.replace("-I./", &format!("-I{}/", kernel.build_dir.display())));
    }
    out
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().collect();
    let word = |at: usize| words.get(at).cloned().unwrap_or_default();
    let kernel = kernel(&word(1));
    let args = log_args(&kernel, &word(2));
    let start = std::time::Instant::now();
    if word(3) == "index" {
        let facts =
            kspan_facts::Facts::open_with(Path::new("/tmp/facts/store"), &kernel, || Ok(args))?;
        println!("open {:.3} s", start.elapsed().as_secs_f64());
        for name in words.iter().skip(4) {
            println!(
                "{name} in {:?} export {:?}",
                facts.headers_of(name),
                facts.export(name)
            );
            for def in facts.defs(name) {
                println!(
                    "  {} {:?} deps {:?}\n{}\n   {:?}",
                    def.path,
                    def.lines,
                    facts.deps(&def),
                    def.text,
                    def.detail
                );
            }
        }
        println!("lookups {:.3} s", start.elapsed().as_secs_f64());
        println!(
            "{} names {} headers, includes of linux/i2c.h {:?}, HZ {:?}",
            facts.all_names().count(),
            facts.header_list().count(),
            facts.includes_of("linux/i2c.h"),
            facts.config("CONFIG_HZ")
        );
        if words.len() == 4 {
            for line in facts.unanalysed() {
                println!("BAD {line}");
            }
        }
        return Ok(());
    }
    let source = PathBuf::from(word(4));
    let root = if words.len() > 5 {
        PathBuf::from(word(5))
    } else {
        source.parent().unwrap_or(Path::new(".")).to_path_buf()
    };
    let tu = kspan_facts::analyse(&kernel, &source, &args, &root)?;
    let seconds = start.elapsed().as_secs_f64();
    if word(3) == "quiet" {
        println!(
            "{}: {} uses, {} bindings, {} unanalysed, {seconds:.2} s",
            source.display(),
            tu.uses.len(),
            tu.bindings.len(),
            tu.unanalysed.len()
        );
        for line in tu.unanalysed.iter().take(10) {
            println!("   {line}");
        }
        return Ok(());
    }
    for one in &tu.uses {
        println!(
            "{}:{} {:?} {} rec={:?} args={:?} <{}> via={:?}",
            one.at.line,
            one.at.column,
            one.kind,
            one.name,
            one.record,
            one.args,
            one.header,
            one.via_macro
        );
    }
    for one in &tu.bindings {
        println!(
            "{}:{} BIND {}.{} = {} {:?} at={:?} via={:?} <{}> expects {:?} decl {}:{}",
            one.at.line,
            one.at.column,
            one.record,
            one.field,
            one.function,
            one.sig
                .params
                .iter()
                .map(|p| format!("{} {}", p.ty.spelling, p.name))
                .collect::<Vec<_>>(),
            one.field_at.as_ref().map(|l| (l.line, l.column)),
            one.via_macro,
            one.header,
            one.expects.as_ref().map(|s| s
                .params
                .iter()
                .map(|p| format!("{} {}", p.ty.spelling, p.name))
                .collect::<Vec<_>>()),
            one.decl_start.line,
            one.decl_start.column
        );
    }
    for one in &tu.includes {
        println!("{} INCLUDE {} {:?}", one.0.line, one.1, one.2);
    }
    for one in &tu.functions {
        println!(
            "FN {} {}..{} static {}",
            one.name, one.start.line, one.end.line, one.is_static
        );
    }
    for line in &tu.unanalysed {
        println!("BAD {line}");
    }
    println!("{} uses, {seconds:.2} s", tu.uses.len());
    Ok(())
}
