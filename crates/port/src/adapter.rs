//! Adapters: a generated function of the target's callback type that calls the driver's own.

use crate::gap::Risk;
use crate::view::View;
use crate::{cfn, lex};
use kspan_evolve::{Evolution, Kind, Library};
use kspan_facts::{Signature, Ty};

/// A generated function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adapter {
    /// Its name.
    pub name: String,
    /// Its text, ending in a newline.
    pub text: String,
    /// How far it may change what the driver does.
    pub risk: Risk,
    /// What may differ.
    pub meaning: String,
    /// The evolution that told how, if one did.
    pub evolution: Option<String>,
    /// Headers that the text needs.
    pub includes: Vec<String>,
    /// Names that other evolutions provide and the text uses.
    pub needs: Vec<String>,
}

/// What an adapter is for.
pub struct Wanted<'a> {
    /// Tag of the structure; empty for an argument.
    pub record: &'a str,
    /// The member.
    pub field: &'a str,
    /// The driver's function.
    pub function: &'a str,
    /// Its type.
    pub have: &'a Signature,
    /// The target's type.
    pub want: &'a Signature,
    /// Which of its parameters the driver's function never reads.
    pub unread: Vec<bool>,
}

impl Wanted<'_> {
    /// A parameter of the target's can be passed for one of the driver's. Where parameters were added or dropped, a truth value is not
    /// the number beside it.
    fn passes(&self, have: &Ty, want: &Ty) -> bool {
        let truth = |t: &Ty| matches!(cfn::bare(&t.canonical).as_str(), "_Bool" | "bool");
        let as_many = self.have.params.len() == self.want.params.len();
        fits(have, want) && (as_many || truth(have) == truth(want))
    }

    /// For each parameter of the driver's function the place of the target's that is passed for it, in order.
    fn places(&self) -> Vec<Option<usize>> {
        let mut used = vec![false; self.want.params.len()];
        let place = |param: &kspan_facts::Param| {
            let mut free = self.want.params.iter().zip(&mut used).enumerate();
            let (i, (_, taken)) =
                free.find(|(_, (p, taken))| !**taken && self.passes(&param.ty, &p.ty))?;
            *taken = true;
            Some(i)
        };
        self.have.params.iter().map(place).collect()
    }
}

/// Makes an adapter.
///
/// # Errors
/// Says which parameter of the driver's function nothing on the target can give.
pub fn make(wanted: &Wanted<'_>, library: &Library, target: &View) -> Result<Adapter, String> {
    // An evolution of the callback goes by the target's name of the member.
    let renamed = target
        .renamed_field(library, wanted.record, wanted.field)
        .and_then(|e| match &e.kind {
            Kind::Field { target, .. } => Some(target.as_str()),
            _ => None,
        });
    let names = std::iter::once(wanted.field).chain(renamed);
    let mut known = names.flat_map(|field| library.callbacks(wanted.record, field));
    let evolution = known.find(|e| e.applies_to(target) && speaks(e, wanted));
    let name = format!(
        "kspan_{}_{}",
        wanted.function,
        wanted.field.replace(['#', '.'], "_")
    );
    if let Some((e, template)) = evolution.and_then(|e| whole(e).map(|t| (e, t))) {
        let text = template
            .replace("{name}", &name)
            .replace("{fn}", wanted.function);
        return Ok(adapter(
            name,
            with_newline(text),
            e.risk.into(),
            e.meaning.clone(),
            Some(e),
        ));
    }
    let (arguments, mut risk, mut meaning) = arguments(wanted, evolution)?;
    let call = format!("{}({})", wanted.function, arguments.join(", "));
    let (body, ret_risk, ret_meaning) = returning(&call, wanted, evolution);
    if ret_risk > risk {
        (risk, meaning) = (ret_risk, ret_meaning);
    }
    if let Some(e) = evolution {
        (risk, meaning) = (e.risk.into(), e.meaning.clone());
    }
    let parameters: Vec<String> = wanted
        .want
        .params
        .iter()
        .enumerate()
        .map(|(i, p)| cfn::declare(&p.ty.spelling, &format!("a{i}")))
        .collect();
    let list = if parameters.is_empty() {
        "void".to_owned()
    } else {
        parameters.join(", ")
    };
    let head = cfn::declare(&wanted.want.ret.spelling, &format!("{name}({list})"));
    Ok(adapter(
        name,
        format!("static {head}\n{{\n\t{body}\n}}\n"),
        risk,
        meaning,
        evolution,
    ))
}

fn adapter(
    name: String,
    text: String,
    risk: Risk,
    meaning: String,
    evolution: Option<&Evolution>,
) -> Adapter {
    Adapter {
        name,
        text,
        risk,
        meaning,
        evolution: evolution.map(|e| e.id.clone()),
        includes: evolution.map(|e| e.includes.clone()).unwrap_or_default(),
        needs: evolution.map(|e| e.needs.clone()).unwrap_or_default(),
    }
}

fn with_newline(mut text: String) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// It says something of this adapter: of a parameter that the target does not pass, of what is returned, or of the whole.
fn speaks(evolution: &Evolution, wanted: &Wanted<'_>) -> bool {
    let Kind::Callback {
        params,
        ret,
        adapter,
        ..
    } = &evolution.kind
    else {
        return false;
    };
    let places = wanted.places();
    let mut lost = wanted
        .have
        .params
        .iter()
        .zip(&places)
        .filter(|(_, place)| place.is_none());
    let returns = ret.is_some() && wanted.have.ret.canonical == "void";
    let counts = (wanted.have.params.len(), wanted.want.params.len());
    if adapter.as_ref().is_some_and(|a| !is_between(a, counts)) {
        return false;
    }
    adapter.is_some()
        || params.is_empty()
        || returns
        || lost.any(|(p, _)| told(Some(evolution), &p.ty).is_some())
}

/// A written-out adapter is for functions of so many parameters as the driver has, and the target wants: one of others is for the
/// way back, or for an older form.
#[must_use]
pub fn is_between(adapter: &str, (have, want): (usize, usize)) -> bool {
    let counted =
        |mark: &str, n: usize| listed_behind(adapter, mark).is_none_or(|found| found == n);
    counted("{name}", want) && counted("{fn}", have)
}

/// How many parameters or arguments stand in brackets behind the first such mark of an adapter.
fn listed_behind(adapter: &str, mark: &str) -> Option<usize> {
    let open = adapter.find(mark)? + mark.len();
    if adapter.as_bytes().get(open) != Some(&b'(') {
        return None;
    }
    let close = lex::closing(adapter.as_bytes(), open)?;
    let list = lex::arguments(adapter.get(open + 1..close)?);
    Some(
        list.iter()
            .filter(|p| !p.is_empty() && *p != "void")
            .count(),
    )
}

fn whole(evolution: &Evolution) -> Option<String> {
    match &evolution.kind {
        Kind::Callback { adapter, .. } => adapter.clone(),
        _ => None,
    }
}

/// The arguments for the driver's function: the target's parameters of the same type in order, evolutions for the rest.
fn arguments(
    wanted: &Wanted<'_>,
    evolution: Option<&Evolution>,
) -> Result<(Vec<String>, Risk, String), String> {
    let (mut risk, mut meaning) = (Risk::None, String::new());
    let places = wanted.places();
    let mut out = Vec::new();
    for (index, (param, place)) in wanted.have.params.iter().zip(&places).enumerate() {
        if let Some(i) = *place {
            out.push(pass(&param.ty, &wanted.want.params[i].ty, i));
        } else if let Some(expression) = told(evolution, &param.ty) {
            out.push(expression);
        } else if wanted.unread.get(index) == Some(&true) && is_scalar(&param.ty) {
            out.push(format!("({})0", cfn::bare(&param.ty.spelling)));
        } else if cfn::bare(&param.ty.canonical) == "struct netlink_ext_ack *" {
            out.push("NULL".to_owned());
            meaning = "extended error texts are not passed on".to_owned();
            risk = risk.max(Risk::Default);
        } else {
            return Err(format!(
                "the target does not pass parameter {} ({}) of {}()",
                index + 1,
                param.ty.spelling,
                wanted.function
            ));
        }
    }
    let ignored = wanted.want.params.iter().enumerate();
    let mut outputs = ignored.filter(|(i, p)| !places.contains(&Some(*i)) && is_output(&p.ty));
    if let Some((_, output)) = outputs.next() {
        risk = Risk::Behaviour;
        meaning = format!(
            "the target looks at what {} puts where its parameter {} points; {}() does not know it",
            wanted.field, output.ty.spelling, wanted.function
        );
    }
    Ok((out, risk, meaning))
}

/// A pointer by which a function gives a number back.
fn is_output(ty: &Ty) -> bool {
    let constant = ty.canonical.contains("const");
    let number = ty.canonical.strip_suffix('*').map(str::trim);
    !constant && number.is_some_and(|n| is_integer(n) && n != "char")
}

/// A number or a pointer.
fn is_scalar(ty: &Ty) -> bool {
    let bare = cfn::bare(&ty.canonical);
    let aggregate = ["struct ", "union "]
        .iter()
        .any(|tag| bare.starts_with(tag));
    bare.ends_with('*') || !aggregate && !bare.contains(['(', '['])
}

/// The expression by which an evolution finds a value of this type.
fn told(evolution: Option<&Evolution>, ty: &Ty) -> Option<String> {
    let Kind::Callback { params, .. } = &evolution?.kind else {
        return None;
    };
    let wanted = [cfn::bare(&ty.spelling), cfn::bare(&ty.canonical)];
    let (_, expression) = params
        .iter()
        .find(|(t, _)| wanted.contains(&cfn::bare(t)))?;
    let mut text = expression.clone();
    for i in 0..10 {
        text = text.replace(&format!("{{{i}}}"), &format!("a{i}"));
    }
    Some(text)
}

fn fits(have: &Ty, want: &Ty) -> bool {
    cfn::decayed(&have.canonical) == cfn::decayed(&want.canonical)
        || cfn::bare(&have.spelling) == cfn::bare(&want.spelling)
        || is_integer(&have.canonical) && is_integer(&want.canonical)
}

/// A parameter passed on; a `const` that only the target has is cast away, as the driver of that kernel would have it.
fn pass(have: &Ty, want: &Ty, index: usize) -> String {
    let loses_const = want.canonical.contains("const") && !have.canonical.contains("const");
    if loses_const && want.canonical.contains('*') {
        format!("({})a{index}", have.spelling)
    } else {
        format!("a{index}")
    }
}

fn is_integer(ty: &str) -> bool {
    let bare = cfn::bare(ty);
    bare.starts_with("enum ") && !bare.contains('*')
        || matches!(
            bare.as_str(),
            "int"
                | "unsigned int"
                | "long"
                | "unsigned long"
                | "short"
                | "unsigned short"
                | "char"
                | "unsigned char"
                | "signed char"
                | "_Bool"
                | "bool"
                | "long long"
                | "unsigned long long"
        )
}

/// The body, with what its return may change.
fn returning(
    call: &str,
    wanted: &Wanted<'_>,
    evolution: Option<&Evolution>,
) -> (String, Risk, String) {
    let (have, want) = (
        wanted.have.ret.canonical.as_str(),
        wanted.want.ret.canonical.as_str(),
    );
    match (have == "void", want == "void") {
        (true, true) => (format!("{call};"), Risk::None, String::new()),
        (true, false) => {
            let value = match evolution.map(|e| &e.kind) {
                Some(Kind::Callback {
                    ret: Some(value), ..
                }) => value.clone(),
                _ => "0".to_owned(),
            };
            (
                format!("{call};\n\treturn {value};"),
                Risk::Default,
                format!("{} returns {value}", wanted.field),
            )
        }
        (false, true) => {
            let meaning = format!(
                "what {}() returns is lost: the target's {} returns nothing",
                wanted.function, wanted.field
            );
            (format!("{call};"), Risk::Behaviour, meaning)
        }
        (false, false) if fits(&wanted.have.ret, &wanted.want.ret) => {
            let meaning = if have == want {
                String::new()
            } else {
                format!("{have} returned as {want}")
            };
            let risk = if have == want || !is_integer(have) {
                Risk::None
            } else {
                Risk::Default
            };
            let loses_const =
                have != want && cfn::bare(have) == cfn::bare(want) && have.contains('*');
            let cast = if loses_const {
                format!("({})", wanted.want.ret.spelling)
            } else {
                String::new()
            };
            (format!("return {cast}{call};"), risk, meaning)
        }
        (false, false) => (
            format!("return {call};"),
            Risk::Unknown,
            format!("{have} returned as {want}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapters_parameters_are_counted() {
        let takes = |text: &str| listed_behind(text, "{name}");
        assert_eq!(
            takes("static int {name}(struct a *a, int (*f)(int, int), u8 b[2])\n{\n}\n"),
            Some(3)
        );
        assert_eq!(takes("static int {name}(void)\n{\n}\n"), Some(0));
        assert_eq!(takes("static int {name};"), None);
        let text = "static int {name}(struct a *a)\n{\n\treturn {fn}(a, f(a->b, 1));\n}\n";
        assert!(is_between(text, (2, 1)));
        assert!(!is_between(text, (3, 1)));
        assert!(!is_between(text, (2, 2)));
        let choice = "static int {name}(struct a *a)\n{\n\treturn kspan_call(a, {fn});\n}\n";
        assert!(is_between(choice, (5, 1)));
    }

    #[test]
    fn a_number_that_nobody_gives_back_is_a_change_of_behaviour() {
        let output = |text: &str| is_output(&signature(text).params[0].ty);
        assert!(output("int (*)(int *)") && output("int (*)(bool *)"));
        assert!(!output("int (*)(const int *)") && !output("int (*)(char *)"));
        assert!(!output("int (*)(struct a *)") && !output("int (*)(int)"));
        let (have, want) = (
            signature("int (*)(void *)"),
            signature("int (*)(void *, int *)"),
        );
        let wanted = Wanted {
            record: "proto",
            field: "recvmsg",
            function: "f",
            have: &have,
            want: &want,
            unread: Vec::new(),
        };
        let (arguments, risk, meaning) = arguments(&wanted, None).unwrap();
        assert_eq!(arguments, ["a0"]);
        assert_eq!(risk, Risk::Behaviour, "{meaning}");
    }

    #[test]
    fn an_evolution_of_another_parameter_is_not_named() {
        let text = "[[evolution]]\nid = \"a\"\nkind = \"callback\"\nrecord = \"r\"\nfield = \"f\"\n[evolution.params]\n\"int *\" = \"&{0}->n\"\n";
        let library = Library::from_texts([("t.toml".to_owned(), text.to_owned())]).unwrap();
        let (short, long) = (
            signature("int (*)(void *)"),
            signature("int (*)(void *, int *)"),
        );
        let said = |have: &Signature, want: &Signature| {
            let wanted = Wanted {
                record: "r",
                field: "f",
                function: "g",
                have,
                want,
                unread: Vec::new(),
            };
            speaks(&library.all()[0], &wanted)
        };
        assert!(said(&long, &short));
        assert!(!said(&short, &long));
    }

    fn signature(text: &str) -> Signature {
        crate::understand::signature(cfn::parse(text).unwrap()).unwrap()
    }

    fn arguments_of(have: &str, want: &str) -> Result<Vec<String>, String> {
        let (have, want) = (signature(have), signature(want));
        let wanted = Wanted {
            record: "r",
            field: "f",
            function: "fn",
            have: &have,
            want: &want,
            unread: Vec::new(),
        };
        arguments(&wanted, None).map(|a| a.0)
    }

    #[test]
    fn what_the_function_never_reads_is_nothing() {
        let (have, want) = (
            signature("int (struct a *, struct s *, struct v, int)"),
            signature("int (struct a *)"),
        );
        let mut wanted = Wanted {
            record: "r",
            field: "f",
            function: "fn",
            have: &have,
            want: &want,
            unread: vec![false, true, true, true],
        };
        // A structure by value has no nothing.
        assert!(arguments(&wanted, None).is_err_and(|why| why.contains("parameter 3")));
        let have = signature("int (struct a *, struct s *, int)");
        (wanted.have, wanted.unread) = (&have, vec![false, true, true]);
        assert_eq!(
            arguments(&wanted, None).unwrap().0,
            ["a0", "(struct s *)0", "(int)0"]
        );
        wanted.unread = vec![false, false, true];
        assert!(arguments(&wanted, None).is_err());
    }

    #[test]
    fn parameters_are_matched_by_type() {
        assert_eq!(
            arguments_of("int (struct a *)", "int (struct a *, const struct id *)").unwrap(),
            ["a0"]
        );
        assert_eq!(
            arguments_of(
                "int (struct b *, struct a *)",
                "int (struct a *, struct b *)"
            )
            .unwrap(),
            ["a1", "a0"]
        );
        assert_eq!(
            arguments_of("int (struct a *)", "int (const struct a *)").unwrap(),
            ["(struct a *)a0"]
        );
        assert!(arguments_of("int (struct a *, struct b *)", "int (struct a *)").is_err());
    }
}
