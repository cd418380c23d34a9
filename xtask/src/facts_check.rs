//! `cargo xtask facts-check`: random facts of a kernel against its own compiler's and BTF's word.

use anyhow::Context;
use kspan_facts::btf::Btf;
use kspan_facts::{Def, Detail, Facts, Ty};
use kspan_kernel::{Cache, Kernel};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

/// How many facts one run of the compiler is asked about.
const BATCH: usize = 400;

/// Compare random facts with what the kernel's own compiler and BTF say.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A kernel: an id, a release, an alias such as 6.1, or a path.
    kernel: String,
    /// How many facts.
    #[arg(long, default_value_t = 10_000)]
    sample: usize,
    /// Which ones.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// One fact as a question to a compiler.
struct Question {
    kind: &'static str,
    name: String,
    header: String,
    /// C text that compiles exactly when the fact holds; `@` stands for a number of its own.
    text: String,
}

#[derive(Debug, Default, serde::Serialize)]
struct Count {
    asked: usize,
    agree: usize,
    /// The compiler could not be asked: the header does not compile by itself.
    unasked: usize,
}

/// A small generator; the same seed gives the same numbers everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ mixed >> 31) % (limit.max(1) as u64)).unwrap_or(0)
    }
}

/// Can a type be written down outside of its header?
fn writable(ty: &Ty) -> bool {
    !ty.canonical.contains("(unnamed")
        && !ty.canonical.contains("(anonymous")
        && !ty.spelling.contains("typeof")
}

fn questions(def: &Def, random: &mut Random) -> Option<Question> {
    let name = &def.name;
    let ask = |kind, text| {
        Some(Question {
            kind,
            name: name.clone(),
            header: def.header.clone(),
            text,
        })
    };
    match &def.detail {
        Detail::Function { sig, .. } => {
            let all: Vec<&Ty> = sig
                .params
                .iter()
                .map(|param| &param.ty)
                .chain([&sig.ret])
                .collect();
            if !all.iter().all(|ty| writable(ty)) || sig.ret.spelling.contains('(') {
                return None;
            }
            let mut params: Vec<&str> = sig
                .params
                .iter()
                .map(|param| param.ty.spelling.as_str())
                .collect();
            if sig.variadic {
                params.push("...");
            }
            let list = if params.is_empty() {
                "void".into()
            } else {
                params.join(", ")
            };
            let text = format!(
                "typedef {} kspan_@({list});\n_Static_assert(__builtin_types_compatible_p(__typeof__({name}), kspan_@), \"\");",
                sig.ret.spelling
            );
            ask("function", text)
        }
        Detail::Record {
            fields,
            size: Some(_),
            is_union,
        } => {
            let fields: Vec<_> = fields
                .iter()
                .filter(|field| field.bit_width.is_none() && field.offset_bits.is_some())
                .collect();
            let field = fields.get(random.below(fields.len()))?;
            let word = if *is_union { "union" } else { "struct" };
            let tagged = format!("{word} {name}");
            let word = if def.text.contains(&tagged) {
                format!("{word} ")
            } else if def.text.contains("typedef") {
                String::new()
            } else {
                // A macro made it: its text does not say how it is named.
                return None;
            };
            let offset = field.offset_bits? / 8;
            ask(
                "field",
                format!(
                    "_Static_assert(__builtin_offsetof({word}{name}, {}) == {offset}, \"\");",
                    field.name
                ),
            )
        }
        Detail::EnumConst { value, .. } => ask(
            "constant",
            format!("_Static_assert((long long){name} == {value}LL, \"\");"),
        ),
        Detail::Macro { .. } => ask(
            "macro",
            format!("#ifndef {name}\n_Static_assert(0, \"\");\n#endif"),
        ),
        _ => None,
    }
}

/// What the compiler said of a text: the lines with errors, and whether it got that far at all.
fn compile(
    cache: &Cache,
    kernel: &Kernel,
    args: &[String],
    cc: &str,
    dir: &Path,
    text: &str,
) -> anyhow::Result<Vec<usize>> {
    let file = dir.join("ask.c");
    std::fs::write(&file, text).with_context(|| format!("{}", file.display()))?;
    let mut command = cache.sandboxed(kernel, cc, dir, &[dir])?;
    command.args(args).args([
        "-w",
        "-fsyntax-only",
        "-fmax-errors=0",
        "-DMODULE",
        "-DKBUILD_MODNAME=\"ask\"",
        "-DKBUILD_BASENAME=\"ask\"",
        "-DKBUILD_MODFILE=\"ask\"",
    ]);
    let out = command
        .arg(&file)
        .env("LC_ALL", "C")
        .output()
        .with_context(|| format!("running {cc}"))?;
    let words = String::from_utf8_lossy(&out.stderr);
    let mut lines: Vec<usize> = words
        .lines()
        .filter(|line| line.contains("error:"))
        .filter_map(|line| {
            let rest = line.split("ask.c:").nth(1);
            // An error inside a header counts against whatever includes it.
            rest.map_or(Some(0), |rest| rest.split(':').next()?.parse().ok())
        })
        .collect();
    if !out.status.success() && lines.is_empty() {
        lines.push(0);
    }
    Ok(lines)
}

/// Writes a text that asks all questions; returns for each the range of its lines.
fn compose(list: &[&Question]) -> (String, Vec<(usize, usize)>) {
    let mut text = String::from("#include <linux/module.h>\n");
    let mut headers: Vec<&str> = list.iter().map(|one| one.header.as_str()).collect();
    headers.sort_unstable();
    headers.dedup();
    for header in headers {
        text.push_str(&format!("#include <{header}>\n"));
    }
    let mut line = text.lines().count() + 1;
    let mut ranges = Vec::new();
    for (number, one) in list.iter().enumerate() {
        let asked = one.text.replace('@', &number.to_string());
        let count = asked.lines().count();
        ranges.push((line, line + count - 1));
        line += count;
        text.push_str(&asked);
        text.push('\n');
    }
    (text, ranges)
}

/// Asks questions together; where a header gets in the way, in halves, down to one.
fn ask(
    asker: &dyn Fn(&str) -> anyhow::Result<Vec<usize>>,
    list: &[&Question],
    out: &mut BTreeMap<&'static str, Count>,
    wrong: &mut Vec<String>,
) -> anyhow::Result<()> {
    if list.is_empty() {
        return Ok(());
    }
    let (text, ranges) = compose(list);
    let errors = asker(&text)?;
    let first = ranges.first().map_or(0, |range| range.0);
    if errors.iter().any(|line| *line < first) {
        if let [only] = list {
            out.entry(only.kind).or_default().unasked += 1;
            return Ok(());
        }
        let (left, right) = list.split_at(list.len() / 2);
        ask(asker, left, out, wrong)?;
        return ask(asker, right, out, wrong);
    }
    for (one, range) in list.iter().zip(&ranges) {
        let count = out.entry(one.kind).or_default();
        count.asked += 1;
        if errors.iter().any(|line| (range.0..=range.1).contains(line)) {
            wrong.push(format!(
                "{} {} <{}>: {}",
                one.kind,
                one.name,
                one.header,
                one.text.replace('\n', " ")
            ));
        } else {
            count.agree += 1;
        }
    }
    Ok(())
}

/// The headers' word on a sample of functions and records against BTF's.
fn against_btf(btf: &Btf, defs: &[Def], wrong: &mut Vec<String>) -> BTreeMap<&'static str, Count> {
    let mut out: BTreeMap<&'static str, Count> = BTreeMap::new();
    for def in defs {
        let (kind, said, heard) = match &def.detail {
            Detail::Function {
                sig,
                is_static: false,
                ..
            } => {
                let Some((ret, params)) = btf.function(&def.name) else {
                    continue;
                };
                let mut mine: Vec<String> = sig
                    .params
                    .iter()
                    .map(|param| param.ty.canonical.clone())
                    .collect();
                if sig.variadic {
                    mine.push("...".into());
                }
                (
                    "BTF function",
                    format!("{} ({})", sig.ret.canonical, mine.join(", ")),
                    format!("{ret} ({})", params.join(", ")),
                )
            }
            Detail::Record {
                size: Some(size),
                fields,
                ..
            } => {
                let (Some(bytes), Some(members)) =
                    (btf.record_size(&def.name), btf.members(&def.name))
                else {
                    continue;
                };
                let mine: Vec<String> = fields
                    .iter()
                    .filter(|field| !field.name.contains('.'))
                    .map(|field| format!("{}@{}", field.name, field.offset_bits.unwrap_or(0)))
                    .collect();
                let theirs: Vec<String> = members
                    .iter()
                    .map(|(name, offset)| format!("{name}@{offset}"))
                    .collect();
                (
                    "BTF record",
                    format!("{size}: {}", mine.join(" ")),
                    format!("{bytes}: {}", theirs.join(" ")),
                )
            }
            _ => continue,
        };
        let count = out.entry(kind).or_default();
        count.asked += 1;
        if said.replace("_Bool", "bool") == heard.replace("_Bool", "bool") {
            count.agree += 1;
        } else {
            wrong.push(format!(
                "{kind} {}: headers say {said}; BTF says {heard}",
                def.name
            ));
        }
    }
    out
}

/// Runs it.
///
/// # Errors
/// When the kernel or its compiler is not there.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let cache = Cache::open()?;
    let kernel = cache.resolve(&args.kernel)?;
    let facts = Facts::open(&cache, &kernel)?;
    let flags = cache.compile_flags(&kernel)?;
    let names: Vec<&str> = facts.all_names().collect();
    let mut random = Random(args.seed);
    let (mut defs, mut list) = (Vec::new(), Vec::new());
    let broken = facts.unanalysed();
    for _ in 0..args.sample * 8 {
        if list.len() >= args.sample {
            break;
        }
        let Some(def) = names
            .get(random.below(names.len()))
            .and_then(|name| facts.defs(name).into_iter().next())
        else {
            continue;
        };
        // Most names are macros of device bindings; ask of every kind alike.
        let common = matches!(def.detail, Detail::Macro { .. } | Detail::EnumConst { .. });
        if common && random.below(4) != 0 || broken.iter().any(|line| line.starts_with(&def.header))
        {
            continue;
        }
        list.extend(questions(&def, &mut random));
        defs.push(def);
    }
    list.sort_by(|a, b| a.header.cmp(&b.header));
    let dir = tempfile::tempdir()?;
    let asker = |text: &str| compile(&cache, &kernel, &flags.args, &flags.cc, dir.path(), text);
    let (mut counts, mut wrong) = (BTreeMap::new(), Vec::new());
    for batch in list.iter().collect::<Vec<_>>().chunks(BATCH) {
        ask(&asker, batch, &mut counts, &mut wrong)?;
    }
    if let Ok(btf) = Btf::open(&kernel.build_dir.join("vmlinux")) {
        counts.extend(against_btf(&btf, &defs, &mut wrong));
    }
    print(args, &kernel, &counts, &wrong)?;
    Ok(ExitCode::SUCCESS)
}

fn print(
    args: &Args,
    kernel: &Kernel,
    counts: &BTreeMap<&str, Count>,
    wrong: &[String],
) -> anyhow::Result<()> {
    if args.json {
        let value = serde_json::json!({ "kernel": kernel.id, "seed": args.seed, "counts": counts, "disagreements": wrong });
        println!("{}", serde_json::to_string_pretty(&value)?);
        return Ok(());
    }
    for line in wrong {
        println!("{line}");
    }
    println!(
        "{}: what the headers were read to say, against the compiler and BTF",
        kernel.id
    );
    for (kind, count) in counts {
        let share = 100.0 * count.agree as f64 / count.asked.max(1) as f64;
        println!(
            "{kind:>14}: {} of {} agree ({share:.2} %), {} could not be asked",
            count.agree, count.asked, count.unasked
        );
    }
    Ok(())
}
