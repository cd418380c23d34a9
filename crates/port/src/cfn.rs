//! C function types as text: `int (*)(struct device *, void *)`.

/// A function pointer's type, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FnType {
    /// What it returns.
    pub ret: String,
    /// Parameter types.
    pub params: Vec<String>,
}

/// Takes `R (*)(P1, P2)` or `R (P1, P2)` apart; `None` if the text is something else.
#[must_use]
pub fn parse(text: &str) -> Option<FnType> {
    let text = text.trim();
    let (ret, params) = match text.find("(*") {
        Some(at) => {
            let after = text[at..].find(')')? + at + 1;
            (&text[..at], text[after..].trim_start())
        }
        None => {
            let at = text.find('(')?;
            (&text[..at], &text[at..])
        }
    };
    let inner = params.strip_prefix('(')?.strip_suffix(')')?;
    let params = split_params(inner)?;
    Some(FnType {
        ret: ret.trim().to_owned(),
        params,
    })
}

fn split_params(text: &str) -> Option<Vec<String>> {
    if matches!(text.trim(), "void" | "") {
        return Some(Vec::new());
    }
    let (mut depth, mut start, mut out) = (0i32, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            ',' if depth == 0 => {
                out.push(text[start..at].trim().to_owned());
                start = at + 1;
            }
            _ => {}
        }
        if depth < 0 {
            return None;
        }
    }
    out.push(text[start..].trim().to_owned());
    Some(out)
}

/// A type without any `const`, and without differences of blanks: what decides if an argument can be passed on.
#[must_use]
pub fn bare(ty: &str) -> String {
    let spaced = ty.replace('*', " * ");
    let words: Vec<&str> = spaced
        .split_whitespace()
        .filter(|w| !matches!(*w, "const" | "volatile" | "restrict"))
        .collect();
    words.join(" ").replace("* ", "*")
}

/// [`bare`], with an array as the pointer that it is as a parameter.
#[must_use]
pub fn decayed(ty: &str) -> String {
    let bare = bare(ty);
    match bare.find('[') {
        Some(at) if bare.ends_with(']') && !bare.contains('(') => {
            format!("{} *", bare[..at].trim_end())
        }
        _ => bare,
    }
}

/// A declaration of `name` with type `ty`; function pointers put the name inside.
#[must_use]
pub fn declare(ty: &str, name: &str) -> String {
    if let Some(at) = ty.find("(*") {
        let (head, tail) = ty.split_at(at + 2);
        return format!("{head}{name}{tail}");
    }
    if let Some(at) = ty.find('[') {
        let (head, tail) = ty.split_at(at);
        return format!("{}{name}{tail}", spaced(head));
    }
    format!("{}{name}", spaced(ty))
}

fn spaced(ty: &str) -> String {
    if ty.ends_with('*') {
        ty.to_owned()
    } else {
        format!("{} ", ty.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_function_pointers_apart() {
        let f = parse("int (*)(struct device *, void (*)(int, int), u8[4])").unwrap();
        assert_eq!(f.ret, "int");
        assert_eq!(f.params, ["struct device *", "void (*)(int, int)", "u8[4]"]);
        assert_eq!(parse("void (void)").unwrap().params, Vec::<String>::new());
        assert!(parse("int").is_none());
    }

    #[test]
    fn bare_types_ignore_const() {
        assert_eq!(bare("const struct foo *const"), "struct foo *");
        assert_eq!(bare("struct foo * const *"), bare("struct foo **"));
    }

    #[test]
    fn arrays_decay() {
        assert_eq!(decayed("int[3]"), "int *");
        assert_eq!(decayed("const u8 *"), "u8 *");
    }

    #[test]
    fn declares_names() {
        assert_eq!(declare("struct a *", "x"), "struct a *x");
        assert_eq!(declare("void (*)(int)", "cb"), "void (*cb)(int)");
        assert_eq!(declare("u8[4]", "m"), "u8 m[4]");
        assert_eq!(declare("int", "n"), "int n");
    }
}
