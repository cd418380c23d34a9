//! A gate: symbols that the driver takes from another module by a header of its own directory.
//!
//! Such a header is no part of the kernel's API, so no fact tells whether the target's module was built with the same one.
//! Where the target's source tree is at hand, the two headers are compared; to link is no proof here.

use crate::driver::Driver;
use crate::gap::Risk;
use crate::gates::Finding;
use crate::home::Home;
use crate::lex::{self, Token};
use crate::provider;
use crate::view::View;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The source trees of both kernels.
pub struct Trees<'a> {
    /// The home kernel's.
    pub home: &'a Path,
    /// The target's.
    pub target: &'a Path,
}

/// What the driver takes from modules of the target that were built with another version of its own header.
#[derive(Debug, Clone, Default)]
pub struct Apart {
    /// The symbols.
    pub symbols: BTreeSet<String>,
    /// Those by whose header a structure is laid out otherwise: what the two hand each other is another thing to each.
    pub structures: BTreeSet<String>,
}

/// Symbols that the target's module does have, but as it was built with another version of the driver's own header.
#[must_use]
pub fn apart(
    driver: &Driver,
    built: &Home,
    (home, target): (&View, &View),
    trees: &Trees<'_>,
) -> Apart {
    let private = |s: &&String| !home.has(s) && target.facts.export(s).is_some();
    let symbols: BTreeSet<&String> = built.imports.iter().filter(private).collect();
    let mut out = Apart::default();
    if symbols.is_empty() {
        return out;
    }
    let dir = provider::driver_dir(driver, trees.home);
    let texts = |file: &PathBuf| {
        let text = std::fs::read_to_string(driver.dir.join(file)).ok()?;
        let place = in_tree(trees.home, &dir, file, &text)?;
        let there = std::fs::read_to_string(trees.target.join(place)).ok()?;
        Some((text, there))
    };
    let files = driver.sources().unwrap_or_default();
    let is_c = |f: &&PathBuf| f.extension().is_some_and(|e| e == "c" || e == "h");
    let read = |f: &PathBuf| std::fs::read_to_string(driver.dir.join(f)).unwrap_or_default();
    let code: Vec<String> = files.iter().filter(is_c).map(read).collect();
    let mut words: BTreeMap<String, usize> = BTreeMap::new();
    for word in code.iter().flat_map(|text| lex::words(text)) {
        *words.entry(word).or_default() += 1;
    }
    let is_used = |name: &str| words.get(name).is_some_and(|count| *count > 1);
    let code: Vec<String> = code
        .iter()
        .map(|text| without_macros(text, is_used))
        .collect();
    let headers = files
        .iter()
        .filter(|f| f.extension().is_some_and(|e| e == "h"));
    for (ours, theirs) in headers.filter_map(texts) {
        if difference(&ours, &theirs, &symbols).is_none() {
            continue;
        }
        let (ours, theirs) = (Declared::read(&ours), Declared::read(&theirs));
        let by_it = symbols
            .iter()
            .filter(|s| ours.functions.contains_key(s.as_str()));
        let by_it: Vec<String> = by_it.map(|s| (*s).clone()).collect();
        let mut other = ours.lays_out_otherwise(&theirs, &by_it).into_iter();
        if other.any(|(name, moved)| code.iter().any(|text| looks_inside(text, name, &moved))) {
            out.structures.extend(by_it.iter().cloned());
        }
        out.symbols.extend(by_it);
    }
    out
}

/// Headers of the driver's directory by which it takes symbols of other modules, and that the target's tree has in another version:
/// the target's text, by the driver's file.
#[must_use]
pub fn theirs(
    driver: &Driver,
    built: &Home,
    home: &View,
    trees: &Trees<'_>,
) -> BTreeMap<PathBuf, String> {
    let symbols: BTreeSet<&String> = built.imports.iter().filter(|s| !home.has(s)).collect();
    let place = provider::driver_dir(driver, trees.home);
    let files = driver.sources().unwrap_or_default();
    other_versions(&driver.dir, files, &place, &symbols, trees)
}

/// The headers among a directory's files that declare some symbols and are others in the target's tree, with the target's text.
fn other_versions(
    dir: &Path,
    files: Vec<PathBuf>,
    place: &str,
    symbols: &BTreeSet<&String>,
    trees: &Trees<'_>,
) -> BTreeMap<PathBuf, String> {
    let is_header = |f: &PathBuf| f.extension().is_some_and(|e| e == "h");
    let other = |file: PathBuf| {
        let text = std::fs::read_to_string(dir.join(&file)).ok()?;
        taken(&Declared::read(&text), symbols)?;
        let at = in_tree(trees.home, place, &file, &text)?;
        let there = std::fs::read_to_string(trees.target.join(at)).ok()?;
        (there != text).then_some((file, there))
    };
    files
        .into_iter()
        .filter(is_header)
        .filter_map(other)
        .collect()
}

/// One finding for each header whose declarations differ in what the driver takes by it.
#[must_use]
pub fn findings(
    driver: &Driver,
    built: &Home,
    kernels: (&View, &View),
    trees: &Trees<'_>,
) -> Vec<Finding> {
    let (home, target) = kernels;
    let private = |s: &&String| !home.has(s) && target.facts.export(s).is_some();
    let symbols: BTreeSet<&String> = built.imports.iter().filter(private).collect();
    if symbols.is_empty() {
        return Vec::new();
    }
    let dir = provider::driver_dir(driver, trees.home);
    let files = driver.sources().unwrap_or_default();
    let headers = files
        .iter()
        .filter(|f| f.extension().is_some_and(|e| e == "h"));
    let release = &target.kernel.release;
    headers
        .filter_map(|file| {
            let text = std::fs::read_to_string(driver.dir.join(file)).ok()?;
            let place = in_tree(trees.home, &dir, file, &text)?;
            let meaning = match std::fs::read_to_string(trees.target.join(&place)) {
                Ok(there) => format!(
                    "{} differs from {place} of {release}, with which the target's own module was built",
                    difference(&text, &there, &symbols)?
                ),
                Err(_) => format!(
                    "it declares {}(), which {release} exports, and {release} has no {place} to compare with: arguments and structures may be others there",
                    taken(&Declared::read(&text), &symbols)?
                ),
            };
            Some(Finding {
                gate: "private-header".to_owned(),
                subject: file.display().to_string(),
                risk: Risk::Behaviour,
                meaning,
                places: Vec::new(),
            })
        })
        .collect()
}

/// A symbol that the driver takes by a header.
fn taken(header: &Declared, symbols: &BTreeSet<&String>) -> Option<String> {
    let is_declared = |s: &&&String| header.functions.contains_key(s.as_str());
    symbols.iter().find(is_declared).map(|s| (*s).clone())
}

/// Symbols that a header of the home kernel declares and none of the target's does, though a module there exports them: the
/// driver calls by the home kernel's declaration what was built by another.
#[must_use]
pub fn undeclared(built: &Home, home: &View, target: &View) -> Vec<Finding> {
    let mut by_module: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for symbol in built
        .imports
        .iter()
        .filter(|s| home.has(s) && !target.has(s))
    {
        // What the kernel itself exports undeclared is called by the compiler or by macros (`__stack_chk_fail`).
        let of_module = target
            .facts
            .export(symbol)
            .filter(|e| e.module != "vmlinux");
        if let Some(export) = of_module {
            by_module.entry(export.module).or_default().push(symbol);
        }
    }
    let finding = |(module, symbols): (String, Vec<&str>)| Finding {
        gate: "undeclared".to_owned(),
        subject: module.clone(),
        risk: Risk::Behaviour,
        meaning: format!(
            "no header of {} declares {}, which its {module} exports: arguments and structures may be others there",
            target.kernel.release,
            symbols.join(", ")
        ),
        places: Vec::new(),
    };
    by_module.into_iter().map(finding).collect()
}

/// Where a file of the driver stands in its home tree: at or above the driver's directory, with the same text.
fn in_tree(tree: &Path, dir: &str, file: &Path, text: &str) -> Option<String> {
    let mut at = Some(Path::new(dir));
    while let Some(base) = at {
        let place = base.join(file);
        if std::fs::read_to_string(tree.join(&place)).is_ok_and(|found| found == text) {
            return Some(place.to_string_lossy().into_owned());
        }
        at = base.parent();
    }
    None
}

/// What the driver takes by a header and another version of it says otherwise: the prototype of a symbol, or a structure
/// of a header that declares one.
fn difference(ours: &str, theirs: &str, symbols: &BTreeSet<&String>) -> Option<String> {
    let (ours, theirs) = (Declared::read(ours), Declared::read(theirs));
    let mut taken = symbols
        .iter()
        .filter(|s| ours.functions.contains_key(s.as_str()))
        .peekable();
    taken.peek()?;
    let other = |s: &&&&String| {
        let there = theirs.functions.get(s.as_str());
        there.is_some_and(|t| Some(t) != ours.functions.get(s.as_str()))
    };
    if let Some(symbol) = taken.clone().find(|s| other(&s)) {
        return Some(format!("{symbol}()"));
    }
    let record = ours
        .records
        .iter()
        .find(|(name, body)| theirs.records.get(*name).is_some_and(|b| b != *body));
    record.map(|(name, _)| format!("struct {name}"))
}

/// A header's declarations, as tokens with single blanks between them.
#[derive(Default)]
struct Declared {
    functions: BTreeMap<String, String>,
    records: BTreeMap<String, String>,
}

impl Declared {
    /// The structures that prototypes of some functions lead to, by their members, too.
    fn handed_over(&self, symbols: &[String]) -> BTreeSet<&String> {
        let mut out = BTreeSet::new();
        let mut texts: Vec<&String> = symbols
            .iter()
            .filter_map(|s| self.functions.get(s))
            .collect();
        while let Some(text) = texts.pop() {
            for word in text.split(' ') {
                if let Some((name, members)) = self.records.get_key_value(word)
                    && out.insert(name)
                {
                    texts.push(members);
                }
            }
        }
        out
    }

    /// The structures that some functions are handed and that have other members, with those that stand elsewhere for it; more
    /// of them at the end alone do not count.
    fn lays_out_otherwise(&self, other: &Self, symbols: &[String]) -> Vec<(&String, Vec<String>)> {
        let moved = |name: &String| {
            let (here, there) = (
                members(self.records.get(name)?),
                members(other.records.get(name)?),
            );
            let first = here.iter().zip(&there).position(|(a, b)| a != b)?;
            Some(here.iter().skip(first).map(|m| name_of(m)).collect())
        };
        let all = self.handed_over(symbols).into_iter();
        all.filter_map(|name| Some((name, moved(name)?))).collect()
    }

    fn read(text: &str) -> Self {
        let blanked = crate::cfile::blank_directives(text);
        let mut out = Self::default();
        let mut words: Vec<&str> = Vec::new();
        let mut depth = 0usize;
        for (token, range) in lex::tokens(blanked.as_bytes()) {
            let Some(word) = blanked.get(range) else {
                continue;
            };
            words.push(word);
            match token {
                Token::Punct(b'{') => depth += 1,
                Token::Punct(b'}') => depth = depth.saturating_sub(1),
                _ => {}
            }
            let inline_ends = token == Token::Punct(b'}') && depth == 0 && words.contains(&"(");
            if depth == 0 && (token == Token::Punct(b';') || inline_ends) {
                out.take(&words);
                words.clear();
            }
        }
        out
    }

    fn take(&mut self, words: &[&str]) {
        let brace = words.iter().position(|w| *w == "{");
        let bracket = words.iter().position(|w| *w == "(");
        let text = words.join(" ");
        match (words.first(), brace, bracket) {
            (Some(&("struct" | "union")), Some(2), _) => {
                drop(self.records.insert(words[1].to_owned(), text))
            }
            (_, None, Some(at)) if at > 0 => {
                drop(
                    self.functions
                        .insert(words[at - 1].to_owned(), without_names(words, at)),
                );
            }
            _ => {}
        }
    }
}

/// The members of a structure in a form that tells layouts apart: of a pointer, to whatever, the name alone.
fn members(text: &str) -> Vec<String> {
    let inside = text.split_once('{').map_or("", |(_, rest)| rest);
    let member = |declaration: &str| match declaration.split_once("( *") {
        Some((_, rest)) => format!(
            "* {}",
            rest.split(' ').find(|w| !w.is_empty()).unwrap_or_default()
        ),
        None => match declaration.rsplit_once("* ") {
            Some((_, name)) => format!("* {}", name.trim()),
            None => declaration.trim().to_owned(),
        },
    };
    inside
        .split(';')
        .map(member)
        .filter(|m| !m.is_empty() && m != "}")
        .collect()
}

/// The name that a member's declaration declares.
fn name_of(member: &str) -> String {
    let plain = member.split(['[', ':']).next().unwrap_or_default();
    lex::words(plain).pop().unwrap_or_default()
}

/// A text without the macros that nobody uses.
fn without_macros(text: &str, is_used: impl Fn(&str) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for line in text.split_inclusive('\n') {
        let directive = line.trim_start().strip_prefix('#').map(str::trim_start);
        let macro_line = directive.and_then(|d| d.strip_prefix("define"));
        let name = macro_line.and_then(|m| lex::words(m).into_iter().next());
        let starts = !inside && name.is_some_and(|n| !is_used(&n));
        let skipped = inside || starts;
        if !skipped {
            out.push_str(line);
        }
        inside = skipped && line.trim_end().ends_with('\\');
    }
    out
}

/// A text has a structure by value, or looks at a member that has moved, behind a pointer to it: what it only hands on may be laid
/// out as it likes.
fn looks_inside(text: &str, tag: &str, moved: &[String]) -> bool {
    let tokens: Vec<&str> = lex::tokens(text.as_bytes())
        .filter_map(|(_, range)| text.get(range))
        .collect();
    let mut pointers: BTreeSet<&str> = BTreeSet::new();
    for window in tokens.windows(4) {
        if window[0] != "struct" || window[1] != tag {
            continue;
        }
        match (window[2], window[3]) {
            ("*", name) => drop(pointers.insert(name)),
            // Its own definition, or the declaration that there is one.
            ("{" | ";", _) => {}
            _ => return true,
        }
    }
    let behind = |w: &[&str]| {
        pointers.contains(w[0]) && w[1] == "-" && w[2] == ">" && moved.iter().any(|m| m == w[3])
    };
    tokens.windows(4).any(behind)
}

/// A prototype without `extern` and without the names of its parameters, which mean nothing to a caller.
fn without_names(words: &[&str], open: usize) -> String {
    let mut out: Vec<&str> = Vec::new();
    for (i, word) in words.iter().enumerate() {
        let ends = matches!(words.get(i + 1), Some(&("," | ")")));
        let typed = i > open + 1
            && !matches!(
                words[i - 1],
                "(" | "," | "struct" | "enum" | "union" | "unsigned"
            );
        let is_word = word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let keyword = matches!(*word, "int" | "char" | "long" | "short" | "const" | "void");
        if *word == "extern" || i > open && ends && typed && is_word && !keyword {
            continue;
        }
        out.push(word);
    }
    out.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_macro_that_nobody_uses_looks_at_nothing() {
        let text = "#define to_s(w) \\\n\tcontainer_of(w, struct s, work)\n#define N 1\nstatic struct s *p;\n";
        let moved = ["work".to_owned()];
        assert!(looks_inside(text, "s", &moved));
        let used = without_macros(text, |name| name == "N");
        assert_eq!(used, "#define N 1\nstatic struct s *p;\n");
        assert!(!looks_inside(&used, "s", &moved));
    }

    fn differs(ours: &str, theirs: &str) -> Option<String> {
        let symbol = "probe".to_owned();
        difference(ours, theirs, &BTreeSet::from([&symbol]))
    }

    #[test]
    fn names_of_parameters_and_comments_do_not_count() {
        let ours = "#define A 1\n/* c */ extern int probe(struct device *dev, int irq);\n";
        assert_eq!(differs(ours, "int probe(struct device *d, int);"), None);
    }

    #[test]
    fn the_targets_version_of_a_header_that_declares_what_is_taken() {
        let at = tempfile::tempdir().expect("a directory");
        let write = |file: &str, text: &str| {
            let file = at.path().join(file);
            std::fs::create_dir_all(file.parent().expect("a parent")).expect("directories");
            std::fs::write(file, text).expect("a file");
        };
        let core = "int probe(struct device *dev, int irq);\n";
        for (file, here, there) in [
            ("core.h", core, "int probe(struct device *dev);\n"),
            ("same.h", core, core),
            ("own.h", "int own(int a);\n", "int own(void);\n"),
            ("new.h", core, ""),
        ] {
            write(&format!("driver/{file}"), here);
            write(&format!("home/drivers/d/{file}"), here);
            if !there.is_empty() {
                write(&format!("target/drivers/d/{file}"), there);
            }
        }
        let (home, target) = (at.path().join("home"), at.path().join("target"));
        let trees = Trees {
            home: &home,
            target: &target,
        };
        let files = ["core.h", "same.h", "own.h", "new.h", "d.c"];
        let symbol = "probe".to_owned();
        let found = other_versions(
            &at.path().join("driver"),
            files.map(PathBuf::from).to_vec(),
            "drivers/d",
            &BTreeSet::from([&symbol]),
            &trees,
        );
        let text = "int probe(struct device *dev);\n".to_owned();
        assert_eq!(found, BTreeMap::from([(PathBuf::from("core.h"), text)]));
    }

    #[test]
    fn another_layout_counts_where_it_is_handed_over() {
        let otherwise = |ours: &str, theirs: &str| {
            let (ours, theirs) = (Declared::read(ours), Declared::read(theirs));
            !ours
                .lays_out_otherwise(&theirs, &["f".to_owned()])
                .is_empty()
        };
        let with = |members: &str| {
            format!(
                "struct in {{ {members} }};\nstruct s {{ struct in *p; }};\nint f(struct s *s);"
            )
        };
        assert!(otherwise(&with("int b; int a;"), &with("int a;")));
        assert!(!otherwise(&with("int a; int b;"), &with("int a;")));
        assert!(!otherwise(&with("int a;"), &with("int a;")));
        let apart = |members: &str| format!("struct in {{ {members} }};\nint f(int s);");
        assert!(!otherwise(&apart("int b; int a;"), &apart("int a;")));
        assert!(!otherwise(
            &with("int (*f)(int); char *p;"),
            &with("long (*f)(long); u8 *p;")
        ));
    }

    #[test]
    fn what_is_only_handed_on_has_any_layout() {
        for (text, inside) in [
            ("struct s; int f(struct s *p) { return g(p); }", false),
            ("struct s { int a; };\nint f(struct s *p);", false),
            ("int f(struct s *p) { return p->a; }", true),
            ("int f(struct s *p) { return p->first; }", false),
            ("struct t { struct s first; };", true),
            ("f(sizeof(struct s));", true),
        ] {
            assert_eq!(looks_inside(text, "s", &["a".to_owned()]), inside, "{text}");
        }
    }

    #[test]
    fn a_parameter_more_and_another_structure_do() {
        let ours = "struct ops { int a; int b; };\nint probe(struct device *dev, bool x);";
        assert_eq!(
            differs(ours, "int probe(struct device *dev);").unwrap(),
            "probe()"
        );
        let theirs = "struct ops { int a; };\nint probe(struct device *dev, bool x);";
        assert_eq!(differs(ours, theirs).unwrap(), "struct ops");
        assert_eq!(
            differs("struct ops { int a; int b; };", "struct ops { int a; };"),
            None
        );
    }
}
