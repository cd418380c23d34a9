//! `cargo xtask facts-check`: random facts of a kernel against its own compiler's and BTF's word.

use anyhow::Context;
use kspan_facts::btf::Btf;
use kspan_facts::{Def, Detail, Facts, Ty};
use kspan_kernel::{Cache, Kernel};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many facts one run of the compiler is asked about.
const BATCH: usize = 400;
/// The name of the text that asks.
const FILE: &str = "ask.c";

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

/// What the compiler said of a text.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    /// Lines of the text itself with errors.
    lines: BTreeSet<usize>,
    /// Lines of the text whose `#include` led to errors.
    includes: BTreeSet<usize>,
    /// It failed and did not say where.
    elsewhere: bool,
}

fn compile(
    cache: &Cache,
    kernel: &Kernel,
    args: &[String],
    cc: &str,
    dir: &Path,
    text: &str,
) -> anyhow::Result<Said> {
    let dir = tempfile::tempdir_in(dir)?;
    let file = dir.path().join(FILE);
    std::fs::write(&file, text).with_context(|| format!("{}", file.display()))?;
    let mut command = cache.sandboxed(kernel, cc, dir.path(), &[dir.path()])?;
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
    let mut said = heard(&String::from_utf8_lossy(&out.stderr));
    said.elsewhere = !out.status.success() && said.lines.is_empty() && said.includes.is_empty();
    Ok(said)
}

/// Reads gcc's words: an error in a header counts against the line of the text that included it.
fn heard(words: &str) -> Said {
    let mut said = Said::default();
    let mut include = None;
    let number = |rest: &str| rest.split([':', ',']).next()?.parse::<usize>().ok();
    for line in words.lines() {
        let ours = line
            .split_once(FILE)
            .and_then(|(_, rest)| number(rest.strip_prefix(':')?));
        let stack =
            line.starts_with("In file included from") || line.trim_start().starts_with("from ");
        match (stack, ours) {
            (true, Some(at)) => include = Some(at),
            (false, Some(at)) if line.contains("error:") => drop(said.lines.insert(at)),
            (false, None) if line.contains("error:") => said.includes.extend(include),
            _ => {}
        }
    }
    said
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

/// What came of some questions.
#[derive(Debug, Default)]
struct Answers {
    counts: BTreeMap<&'static str, Count>,
    wrong: Vec<String>,
}

impl Answers {
    fn join(mut self, other: Self) -> Self {
        for (kind, count) in other.counts {
            let sum = self.counts.entry(kind).or_default();
            sum.asked += count.asked;
            sum.agree += count.agree;
            sum.unasked += count.unasked;
        }
        self.wrong.extend(other.wrong);
        self
    }
}

/// A compiler that can be asked.
type Asker<'a> = &'a (dyn Fn(&str) -> anyhow::Result<Said> + Sync);

/// Asks questions together, as far as their headers go together; returns the questions whose headers do not.
fn ask_together<'q>(
    asker: Asker<'_>,
    list: &[&'q Question],
) -> anyhow::Result<(Answers, Vec<&'q Question>)> {
    let (mut list, mut apart) = (list.to_vec(), Vec::new());
    while !list.is_empty() {
        let (text, ranges) = compose(&list);
        let said = asker(&text)?;
        if !said.in_the_way() {
            return Ok((judge(&said, &list, &ranges), apart));
        }
        let bad = said.blamed(&text);
        let is_blamed = |q: &&Question| bad.contains(q.header.as_str());
        if !list.iter().any(is_blamed) {
            // What is wrong is in no header that was asked about; without this the same text would be asked for ever.
            apart.extend(list);
            break;
        }
        let (blamed, rest): (Vec<_>, Vec<_>) = list.into_iter().partition(is_blamed);
        apart.extend(blamed);
        list = rest;
    }
    Ok((Answers::default(), apart))
}

/// Asks the questions of one header by themselves.
fn ask_alone(asker: Asker<'_>, list: &[&Question]) -> anyhow::Result<Answers> {
    let (text, ranges) = compose(list);
    let said = asker(&text)?;
    if !said.in_the_way() {
        return Ok(judge(&said, list, &ranges));
    }
    let mut out = Answers::default();
    for one in list {
        out.counts.entry(one.kind).or_default().unasked += 1;
    }
    Ok(out)
}

impl Said {
    /// Something other than the questions themselves is wrong.
    fn in_the_way(&self) -> bool {
        self.elsewhere || !self.includes.is_empty()
    }

    /// The headers that errors come from.
    fn blamed<'t>(&self, text: &'t str) -> BTreeSet<&'t str> {
        let lines: Vec<&str> = text.lines().collect();
        let header = |at: &usize| {
            let line = lines.get(at.checked_sub(1)?)?;
            line.strip_prefix("#include <")?.strip_suffix('>')
        };
        self.includes.iter().filter_map(header).collect()
    }
}

fn judge(said: &Said, list: &[&Question], ranges: &[(usize, usize)]) -> Answers {
    let mut out = Answers::default();
    for (one, range) in list.iter().zip(ranges) {
        let count = out.counts.entry(one.kind).or_default();
        count.asked += 1;
        if said.lines.range(range.0..=range.1).next().is_none() {
            count.agree += 1;
            continue;
        }
        let asked = one.text.replace('\n', " ");
        out.wrong.push(format!(
            "{} {} <{}>: {asked}",
            one.kind, one.name, one.header
        ));
    }
    out
}

/// Asks all questions: first in large company, then those of headers that do not go with others, each by itself.
fn ask(asker: Asker<'_>, list: &[Question]) -> anyhow::Result<Answers> {
    let done = AtomicUsize::new(0);
    let talk = std::io::stderr().is_terminal();
    let tell = |count: usize| {
        let done = done.fetch_add(count, Ordering::Relaxed) + count;
        if talk {
            eprint!("\r{done}/{}", list.len());
        }
    };
    let all: Vec<&Question> = list.iter().collect();
    let first: Vec<(Answers, Vec<&Question>)> = all
        .par_chunks(BATCH)
        .map(|batch| {
            let out = ask_together(asker, batch)?;
            tell(batch.len() - out.1.len());
            Ok(out)
        })
        .collect::<anyhow::Result<_>>()?;
    let (answers, apart): (Vec<Answers>, Vec<Vec<&Question>>) = first.into_iter().unzip();
    let mut apart = apart.concat();
    apart.sort_by(|a, b| a.header.cmp(&b.header));
    let second: Vec<Answers> = apart
        .chunk_by(|a, b| a.header == b.header)
        .collect::<Vec<_>>()
        .into_par_iter()
        .map(|group| {
            tell(group.len());
            ask_alone(asker, group)
        })
        .collect::<anyhow::Result<_>>()?;
    let all = answers.into_iter().chain(second);
    Ok(all.fold(Answers::default(), Answers::join))
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

/// Runs it; the exit code is 1 when something disagrees.
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
    let answers = ask(&asker, &list)?;
    let (mut counts, mut wrong) = (answers.counts, answers.wrong);
    if let Ok(btf) = Btf::open(&kernel.build_dir.join("vmlinux")) {
        counts.extend(against_btf(&btf, &defs, &mut wrong));
    }
    print(args, &kernel, &counts, &wrong)?;
    Ok(ExitCode::from(u8::from(!wrong.is_empty())))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_in_a_header_counts_against_its_include() {
        let words = "In file included from ./include/a.h:3,\n                 from /t/ask.c:7:\n./include/b.h:1:2: error: x\n/t/ask.c:20:1: error: y\n";
        let said = heard(words);
        assert_eq!(
            (said.includes, said.lines),
            (BTreeSet::from([7]), BTreeSet::from([20]))
        );
    }

    #[test]
    fn an_error_that_no_asked_header_has_ends_the_asking() {
        let question = Question {
            kind: "macro",
            name: "a".to_owned(),
            header: "a.h".to_owned(),
            text: "a".to_owned(),
        };
        // The first line is an include that nobody asked for.
        let asker = |_: &str| {
            Ok(heard(
                "In file included from /t/ask.c:1:\nb.h:1:2: error: x\n",
            ))
        };
        let (answers, apart) = ask_together(&asker, &[&question]).unwrap();
        assert!(answers.counts.is_empty());
        assert_eq!(apart.len(), 1);
    }
}
