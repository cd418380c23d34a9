//! From a need to a change of the plan.

use crate::adapter::{self, Wanted};
use crate::carry::Wants;
use crate::edit::Edit;
use crate::gap::{Need, RemedyKind, Risk};
use crate::plan::{Context, HeaderPlan, Plan, RemedyKey};
use crate::{cfn, check, event, lex, member, unqualify};
use kspan_evolve::Kind;
use kspan_facts::{Binding, Detail, Loc, LocalFunction};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A header with fewer of its names on the target than this share is carried whole.
const WHOLE_BELOW: f64 = 0.1;

/// Changes the plan so that a need of one source file is met; `Ok(false)` when the plan meets it already.
///
/// # Errors
/// Says in plain words why nothing can be done.
pub fn take_up(plan: &mut Plan, ctx: &Context<'_>, tu: usize, need: &Need) -> Result<bool, String> {
    match need {
        Need::Header { header } => take_header(plan, ctx, header),
        Need::Name { name, .. } | Need::Signature { name }
            if event::evolution(name, ctx.home, ctx.target, ctx.library).is_some() =>
        {
            Ok(plan.events.insert(name.clone()))
        }
        Need::Signature { name } if is_own(ctx, name) => match is_inline(ctx, name) {
            true => Ok(plan.tus[tu].own.insert(name.clone())),
            false => declare_as_there(plan, ctx, name),
        },
        Need::Name { name, .. } => Ok(plan.tus[tu].names.insert(name.clone())),
        Need::Moved { name } => take_moved(&mut plan.tus[tu], ctx, name),
        Need::Signature { name } => Ok(take_signature(&mut plan.tus[tu], ctx, name)),
        Need::Field { record, field } => match own_header(ctx, record) {
            Some(header) => take_header(plan, ctx, &header),
            None => member::take_up(plan, ctx, tu, record, field),
        },
        Need::Callback { .. } => take_callback(plan, ctx, tu, need),
        Need::Qualifier { file, offset, end } => {
            let lifted = make_writable(plan, ctx, file, *offset..*end)?;
            // A pointer stays one to const; for an object that is none any more nothing is left to cast.
            match lifted {
                Writable::Now => Ok(true),
                Writable::Behind | Writable::Not => cast_const_away(plan, file, *offset, *end),
            }
        }
        Need::Entry { function } => take_entry(plan, ctx, function),
        Need::Export { symbol } => Ok(take_export(plan, ctx, tu, symbol)),
        Need::Diagnostic { message } => Err(message.clone()),
    }
}

/// The module's first or last function gets a name of its own, and a macro of the kernel's that names it.
fn take_entry(plan: &mut Plan, ctx: &Context<'_>, function: &str) -> Result<bool, String> {
    let all = ctx.built.tus.iter().flat_map(|t| &t.tu.functions);
    let found = all.into_iter().find(|f| f.name == function);
    let found = found.ok_or_else(|| format!("the driver does not write out {function}()"))?;
    let (file, start) = place(ctx, &found.start)?;
    let text = std::fs::read_to_string(ctx.driver.dir.join(&file)).map_err(|e| e.to_string())?;
    let head = (!found.is_static).then_some(start);
    let mut changed = false;
    for (range, text) in crate::entry::renamed(&text, head, function, &format!("kspan_{function}"))
    {
        let (start, end) = (range.start, range.end);
        let edit = Edit { start, end, text };
        changed |= plan.edits.add(&file, edit).map_err(|e| e.to_string())?;
    }
    plan.remedies.insert(RemedyKey {
        kind: RemedyKind::Rewrite,
        subject: format!("{function}() by the kernel's macro"),
        origin: "generated".to_owned(),
        risk: Risk::None,
        meaning: String::new(),
    });
    Ok(changed)
}

/// The driver defines the function, and others may call it.
fn is_own(ctx: &Context<'_>, name: &str) -> bool {
    let mut all = ctx.built.tus.iter().flat_map(|t| &t.tu.functions);
    all.any(|f| f.name == name && !f.is_static)
}

/// The target's header has the function with its body: nobody calls another module's.
fn is_inline(ctx: &Context<'_>, name: &str) -> bool {
    let defs = ctx.target.facts.defs(name);
    defs.iter()
        .any(|d| matches!(d.detail, Detail::Function { body: true, .. }))
}

/// A function of the driver's that the target's header declares with other `const` parameters gets these: it is then the function
/// that the target's modules call, by the same version of its type.
fn declare_as_there(plan: &mut Plan, ctx: &Context<'_>, name: &str) -> Result<bool, String> {
    let stands_in =
        |d: &kspan_facts::Def| matches!(plan.headers.get(&d.header), Some(HeaderPlan::Whole(_)));
    if ctx.home.facts.defs(name).iter().any(stands_in) {
        return Err(format!("{name}() is declared by the driver's own header"));
    }
    let mut changed = false;
    let all = ctx.built.tus.iter().flat_map(|t| &t.tu.functions);
    for function in all.filter(|f| f.name == name && !f.is_static) {
        let other = || format!("{name}() is declared with other parameters on the target");
        let wanted =
            check::const_of_parameters(name, &function.sig, ctx.target).ok_or_else(other)?;
        let (file, start) = place(ctx, &function.start)?;
        let text =
            std::fs::read_to_string(ctx.driver.dir.join(&file)).map_err(|e| e.to_string())?;
        for edit in const_edits(&text, start, name, &wanted).ok_or_else(other)? {
            if plan
                .edits
                .add(&file, edit.clone())
                .map_err(|e| e.to_string())?
            {
                let all = plan.as_there.entry(name.to_owned()).or_default();
                all.push((file.clone(), edit));
                changed = true;
            }
        }
    }
    plan.remedies.insert(as_declared_there(name));
    Ok(changed)
}

fn as_declared_there(name: &str) -> RemedyKey {
    RemedyKey {
        kind: RemedyKind::Rewrite,
        subject: format!("const parameters of {name}"),
        origin: "the target's own declaration".to_owned(),
        risk: Risk::None,
        meaning: String::new(),
    }
}

/// Where the driver's own header stands in for the target's, its functions are declared as the driver has them.
fn declare_as_here(plan: &mut Plan, names: &[String]) {
    for name in names {
        for (file, edit) in plan.as_there.remove(name).unwrap_or_default() {
            plan.edits.withdraw(&file, &edit);
            plan.remedies.remove(&as_declared_there(name));
        }
    }
}

/// Gives or takes `const` in the head of the definition that starts at a place.
fn const_edits(
    text: &str,
    start: usize,
    name: &str,
    wanted: &BTreeMap<usize, bool>,
) -> Option<Vec<Edit>> {
    let head = text.get(start..)?;
    let tokens: Vec<_> = lex::tokens(head.as_bytes()).collect();
    let is_name = |pair: &&[(lex::Token, Range<usize>)]| {
        head.get(pair[0].1.clone()) == Some(name) && pair[1].0 == lex::Token::Punct(b'(')
    };
    let open = start + tokens.windows(2).find(is_name)?[1].1.start;
    let close = lex::closing(text.as_bytes(), open)?;
    let inner = text.get(open + 1..close)?;
    let mut edits = Vec::new();
    for (i, range) in lex::split(inner).into_iter().enumerate() {
        let (begin, parameter) = (open + 1 + range.start, inner.get(range)?);
        let Some(gains) = wanted.get(&i) else {
            continue;
        };
        edits.push(match gains {
            true => Edit {
                start: begin,
                end: begin,
                text: "const ".to_owned(),
            },
            false => {
                let word = begin + lex::find(parameter.as_bytes(), 0, b"const")?;
                let blanks = text.get(word + 5..)?.len() - text.get(word + 5..)?.trim_start().len();
                Edit {
                    start: word,
                    end: word + 5 + blanks,
                    text: String::new(),
                }
            }
        });
    }
    Some(edits)
}

/// The header of a structure, where it declares what the driver itself exports: the driver is what stands behind that header,
/// and wants its own version of it.
fn own_header(ctx: &Context<'_>, record: &str) -> Option<String> {
    let facts = &ctx.home.facts;
    let header = facts
        .defs(record)
        .into_iter()
        .find(|d| matches!(&d.detail, Detail::Record { fields, .. } if !fields.is_empty()))?
        .header;
    let declares = |symbol: &String| facts.defs(symbol).iter().any(|d| d.header == header);
    let own = ctx.target.facts.header_exists(&header) && ctx.built.exports.iter().any(declares);
    own.then_some(header)
}

fn take_moved(wants: &mut Wants, ctx: &Context<'_>, name: &str) -> Result<bool, String> {
    let header = ctx
        .target
        .header_of(name)
        .ok_or_else(|| format!("{name} is in no header that can be included"))?;
    if wants.includes.insert(header.clone()) || wants.top.insert(header) {
        Ok(true)
    } else {
        Err(format!(
            "{name} is not declared, though its header is included"
        ))
    }
}

/// What became of an object's `const`.
enum Writable {
    /// It went, and the expression is the object's address.
    Now,
    /// It went, or had gone before; the expression is a pointer, or needs a cast for another reason.
    Behind,
    /// No such object is the driver's.
    Not,
}

/// The objects that a pointer may lead to are not const in the port: a core that does not promise to leave them alone may write to
/// them, and pages of constants take no write.
fn make_writable(
    plan: &mut Plan,
    ctx: &Context<'_>,
    file: &Path,
    expression: Range<usize>,
) -> Result<Writable, String> {
    let files = ctx.driver.sources().map_err(|e| e.to_string())?;
    let is_c = |f: &&PathBuf| f.extension().is_some_and(|e| e == "c" || e == "h");
    let text = |f: &PathBuf| std::fs::read_to_string(ctx.driver.dir.join(f)).unwrap_or_default();
    let files: Vec<PathBuf> = files.iter().filter(is_c).cloned().collect();
    let texts: Vec<String> = files.iter().map(text).collect();
    let here = text(&file.to_path_buf());
    let said = here.get(expression).unwrap_or_default();
    let Some(record) = unqualify::pointee(said, &here, &texts) else {
        return Ok(Writable::Not);
    };
    // What a kernel header declares, too, would be declared in two ways.
    let own = |o: &unqualify::Object| o.record == record && !ctx.home.has(&o.name);
    let mut changed = false;
    for (file, text) in files.iter().zip(&texts) {
        for object in unqualify::objects(text).into_iter().filter(own) {
            let edit = Edit {
                start: object.qualifier.start,
                end: object.qualifier.end,
                text: String::new(),
            };
            let Ok(new) = plan.edits.add(file, edit) else {
                return Ok(Writable::Not);
            };
            changed |= new;
            plan.remedies.insert(RemedyKey {
                kind: RemedyKind::Rewrite,
                subject: format!("const of {}", object.name),
                origin: "generated".to_owned(),
                risk: Risk::None,
                meaning: String::new(),
            });
        }
    }
    let is_address = said.trim_start_matches('(').trim_start().starts_with('&');
    Ok(match changed && is_address {
        true => Writable::Now,
        false => Writable::Behind,
    })
}

/// `(void *)(expression)`: the target's API is not const yet, and what it is given was never written to by it.
fn cast_const_away(
    plan: &mut Plan,
    file: &std::path::Path,
    offset: usize,
    end: usize,
) -> Result<bool, String> {
    let mut insert = |at: usize, text: &str| {
        plan.edits
            .add(
                file,
                Edit {
                    start: at,
                    end: at,
                    text: text.to_owned(),
                },
            )
            .map_err(|e| e.to_string())
    };
    let changed = insert(offset, "(void *)(")? | insert(end, ")")?;
    plan.remedies.insert(RemedyKey {
        kind: RemedyKind::Rewrite,
        subject: format!("const in {}", file.display()),
        origin: "generated".to_owned(),
        risk: Risk::Default,
        meaning: "const data is given to an API that does not promise to leave it alone".to_owned(),
    });
    Ok(changed)
}

/// A symbol that the target exports from a namespace is imported from it, where the licence is named; another is wanted in
/// the home kernel's form.
fn take_export(plan: &mut Plan, ctx: &Context<'_>, tu: usize, symbol: &str) -> bool {
    let namespace = ctx.target.facts.export(symbol).and_then(|e| e.namespace);
    let Some(namespace) = namespace.filter(|n| !n.is_empty()) else {
        let wants = &mut plan.tus[tu];
        return match is_defined(ctx, symbol) {
            true => wants.names.insert(symbol.to_owned()),
            false => wants.overrides.insert(symbol.to_owned()),
        };
    };
    plan.remedies.insert(RemedyKey {
        kind: RemedyKind::Alias,
        subject: format!("MODULE_IMPORT_NS({namespace})"),
        origin: "the target's Module.symvers".to_owned(),
        risk: Risk::None,
        meaning: String::new(),
    });
    plan.namespaces.insert(namespace)
}

/// The home form of a changed function; where only the result went away, a result.
fn take_signature(wants: &mut Wants, ctx: &Context<'_>, name: &str) -> bool {
    let returns = |view: &crate::view::View| match view.callable(name)?.detail {
        Detail::Function { sig, .. } => Some((sig.ret.canonical, sig.params.len())),
        _ => None,
    };
    let said = is_overridden(ctx, name);
    match (returns(ctx.home), returns(ctx.target)) {
        _ if said => wants.overrides.insert(name.to_owned()),
        (Some((home, n)), Some((target, m))) if n == m && target == "void" && home != "void" => {
            wants.results.insert(name.to_owned())
        }
        _ => wants.overrides.insert(name.to_owned()),
    }
}

/// An evolution gives the function in terms of what the target exports.
fn is_defined(ctx: &Context<'_>, name: &str) -> bool {
    let known = ctx.library.for_name(name);
    known
        .into_iter()
        .any(|e| matches!(e.kind, Kind::Define { .. }) && e.applies_to(ctx.target))
}

/// An evolution gives the target's function in the home kernel's form.
fn is_overridden(ctx: &Context<'_>, name: &str) -> bool {
    let known = ctx.library.for_name(name);
    known
        .into_iter()
        .any(|e| matches!(e.kind, Kind::Override { .. }) && e.applies_to(ctx.target))
}

/// A header that the target lacks: carried whole, or led to where the target has its names.
fn take_header(plan: &mut Plan, ctx: &Context<'_>, header: &str) -> Result<bool, String> {
    if plan.headers.contains_key(header) {
        return Ok(false);
    }
    if ctx.target.facts.header_exists(header) {
        let names = ctx.home.names_in(header);
        plan.headers.insert(
            header.to_owned(),
            HeaderPlan::Whole(header_wants(ctx, &names, header)),
        );
        declare_as_here(plan, &names);
        plan.remedies.insert(standing_in(ctx, header));
        return Ok(true);
    }
    if ctx.home.header_path(header).is_none() {
        return match beside_includer(plan, ctx, header) {
            Some(found) => take_header(plan, ctx, &found),
            None => Err(format!("<{header}> is on neither kernel")),
        };
    }
    let by_evolution = ctx
        .library
        .headers(header)
        .into_iter()
        .find(|e| e.applies_to(ctx.target));
    if let Some(Kind::Header { target, .. }) = by_evolution.map(|e| &e.kind) {
        plan.headers
            .insert(header.to_owned(), HeaderPlan::Stand(target.clone()));
        note_header(plan, header, &format!("the target has it as <{target}>"));
        return Ok(true);
    }
    // What the header itself includes is missing too, as often as not.
    for inner in ctx.home.facts.includes_of(header) {
        if !ctx.target.facts.header_exists(&inner) && inner != header {
            let _ = take_header(plan, ctx, &inner);
        }
    }
    let names = ctx.home.names_in(header);
    let present: Vec<&String> = names.iter().filter(|n| ctx.target.has(n)).collect();
    let said = |n: &&String| !ctx.target.has(n) && ctx.library.best(n, ctx.target).is_some();
    let served = present.len() + names.iter().filter(said).count();
    let private = ctx
        .driver
        .manifest
        .private_headers
        .iter()
        .any(|h| h == header);
    #[allow(clippy::cast_precision_loss)]
    let share = served as f64 / names.len().max(1) as f64;
    let how = if header.starts_with("trace/events/") && !private && !makes_tracepoints(ctx) {
        // The functions of its tracepoints are made where the home kernel is.
        HeaderPlan::Redirect(vec!["linux/tracepoint.h".to_owned()])
    } else if private || share <= WHOLE_BELOW {
        HeaderPlan::Whole(header_wants(ctx, &names, header))
    } else {
        HeaderPlan::Redirect(redirect_targets(ctx, header, &present))
    };
    note_header(
        plan,
        header,
        &format!("include/{header} of {}", ctx.home.kernel.release),
    );
    plan.headers.insert(header.to_owned(), how);
    Ok(true)
}

/// One of the driver's files has tracepoints made.
fn makes_tracepoints(ctx: &Context<'_>) -> bool {
    let makes = |file: &PathBuf| {
        let text = std::fs::read(ctx.driver.dir.join(file)).unwrap_or_default();
        lex::find(&text, 0, b"CREATE_TRACE_POINTS").is_some()
    };
    ctx.driver
        .sources()
        .is_ok_and(|files| files.iter().any(makes))
}

/// The driver's own version of a header that the target has, too. Others than the driver may include the target's.
fn standing_in(ctx: &Context<'_>, header: &str) -> RemedyKey {
    let private = &ctx.driver.manifest.private_headers;
    let stands = format!("the driver's own <{header}> stands in for the target's version of it");
    let (risk, meaning) = match private.iter().any(|h| h == header) {
        true => (Risk::Default, stands),
        false => (
            Risk::Behaviour,
            format!("{stands}, with which the target's other modules that include it were built"),
        ),
    };
    RemedyKey {
        kind: RemedyKind::Carry,
        subject: format!("<{header}>"),
        origin: format!("include/{header} of {}", ctx.home.kernel.release),
        risk,
        meaning,
    }
}

/// A header that one of the overlay's whole headers includes by its name alone, from its own directory.
fn beside_includer(plan: &Plan, ctx: &Context<'_>, header: &str) -> Option<String> {
    let directories = plan
        .headers
        .keys()
        .filter_map(|h| Some(h.rsplit_once('/')?.0));
    let mut candidates = directories.map(|dir| format!("{dir}/{header}"));
    candidates.find(|path| ctx.home.header_path(path).is_some() && !plan.headers.contains_key(path))
}

fn note_header(plan: &mut Plan, header: &str, origin: &str) {
    plan.remedies.insert(RemedyKey {
        kind: RemedyKind::Carry,
        subject: format!("<{header}>"),
        origin: origin.to_owned(),
        risk: Risk::None,
        meaning: String::new(),
    });
}

/// What a whole header's declarations need and the target lacks; macros need nothing until they are used.
fn header_wants(ctx: &Context<'_>, names: &[String], header: &str) -> Wants {
    let mut wants = Wants::default();
    let header = header.strip_prefix("uapi/").unwrap_or(header);
    let is_macro = |n: &str| {
        ctx.home
            .facts
            .defs(n)
            .iter()
            .any(|d| matches!(d.detail, Detail::Macro { .. }))
    };
    let mut used_macros: Vec<String> = Vec::new();
    let mut todo: Vec<kspan_facts::Def> = names
        .iter()
        .flat_map(|n| ctx.home.facts.defs(n))
        .filter(|d| d.header == header)
        .collect();
    todo.retain(|d| !matches!(d.detail, Detail::Macro { .. } | Detail::EnumConst { .. }));
    while let Some(def) = todo.pop() {
        for word in lex::words(&def.text) {
            // A macro of the header needs what it names once a declaration of the header uses it.
            if names.contains(&word) && is_macro(&word) && !used_macros.contains(&word) {
                todo.extend(
                    ctx.home
                        .facts
                        .defs(&word)
                        .into_iter()
                        .filter(|d| d.header == header),
                );
                used_macros.push(word.clone());
            }
            let elsewhere = |d: &kspan_facts::Def| {
                d.header != header && !matches!(d.detail, Detail::EnumConst { .. })
            };
            let lost_tag = || {
                def.text.contains(&format!("struct {word}"))
                    && !check::is_served(&word, true, ctx.home, ctx.target)
            };
            if (!ctx.target.has(&word) || lost_tag())
                && ctx.home.facts.defs(&word).iter().any(elsewhere)
                && !names.contains(&word)
                && !ctx.home.is_stranger(&word, header)
            {
                wants.names.insert(word);
            }
        }
    }
    wants
}

fn redirect_targets(ctx: &Context<'_>, header: &str, present: &[&String]) -> Vec<String> {
    let mut to: Vec<String> = Vec::new();
    let inner = ctx.home.facts.includes_of(header);
    let of_names = present.iter().filter_map(|n| ctx.target.header_of(n));
    for candidate in inner.into_iter().chain(of_names) {
        let known = ctx.target.can_include(&candidate);
        if known && candidate != header && !to.contains(&candidate) {
            to.push(candidate);
        }
    }
    to
}

/// A place of the analysis as a file of the driver and a byte offset.
pub(crate) fn place(ctx: &Context<'_>, at: &Loc) -> Result<(PathBuf, usize), String> {
    let file = ctx
        .built
        .relative(&at.file)
        .ok_or("the place is in no file of the driver")?;
    Ok((file.to_path_buf(), at.offset as usize))
}

/// A generated function of the target's type between the kernel and the driver's own.
fn take_callback(
    plan: &mut Plan,
    ctx: &Context<'_>,
    index: usize,
    need: &Need,
) -> Result<bool, String> {
    let Need::Callback {
        record,
        field,
        function,
    } = need
    else {
        return Ok(false);
    };
    // A function that an evolution gives in the home kernel's form takes the driver's function as it is.
    if let Some((callee, _)) = field.split_once('#').filter(|_| record.is_empty())
        && is_overridden(ctx, callee)
    {
        return Ok(plan.tus[index].overrides.insert(callee.to_owned()));
    }
    let tu = &ctx.built.tus[index];
    let is_it = |b: &&Binding| &b.record == record && &b.field == field && &b.function == function;
    let mut bindings: Vec<&Binding> = tu.tu.bindings.iter().filter(is_it).collect();
    // What is generated must stand before the first of them.
    bindings.sort_by_key(|b| b.decl_start.offset);
    let Some(first) = bindings.first() else {
        return Err(format!(
            "{function}() is stored where the target wants another type"
        ));
    };
    let want = check::callback_type(first, ctx.target, ctx.library)
        .ok_or_else(|| format!("the target has no callback {field} in struct {record}"))?;
    let wanted = Wanted {
        record,
        field,
        function,
        have: &first.sig,
        want: &want,
        unread: unread(ctx, index, function),
    };
    let made = adapter::make(&wanted, ctx.library, ctx.target)?;
    let mut changed = false;
    for binding in &bindings {
        changed |= place_adapter(plan, ctx, binding, &made)?;
    }
    let wants = &mut plan.tus[index];
    wants.includes.extend(made.includes.iter().cloned());
    let lacking = made.needs.iter().filter(|n| !ctx.target.has(n));
    wants.names.extend(lacking.cloned());
    for word in lex::words(&made.text)
        .into_iter()
        .filter(|w| !ctx.target.has(w) && ctx.home.has(w))
    {
        wants.names.insert(word);
    }
    plan.remedies.insert(RemedyKey {
        kind: RemedyKind::Adapter,
        subject: need.to_string(),
        origin: made
            .evolution
            .map_or("generated".to_owned(), |id| format!("evolution {id}")),
        risk: made.risk,
        meaning: made.meaning,
    });
    Ok(changed)
}

/// The adapter before the declaration that holds the binding, and its name in place of the driver's function.
fn place_adapter(
    plan: &mut Plan,
    ctx: &Context<'_>,
    binding: &Binding,
    made: &adapter::Adapter,
) -> Result<bool, String> {
    let (file, at) = place(ctx, &binding.at)?;
    let (_, start) = place(ctx, &binding.decl_start)?;
    let bytes = std::fs::read(ctx.driver.dir.join(&file)).map_err(|e| e.to_string())?;
    let end = at + binding.function.len();
    if bytes.get(at..end) != Some(binding.function.as_bytes()) {
        return place_under_its_name(plan, ctx, binding, made);
    }
    // `&fn` and `fn` are the same pointer, so the name alone is replaced.
    let call = Edit {
        start: at,
        end,
        text: made.name.clone(),
    };
    let mut changed = plan.edits.add(&file, call).map_err(|e| e.to_string())?;
    changed |= insert_once(
        plan,
        &file,
        (start, &binding.decl_start),
        &made.name,
        &with_own_macros_aside(&made.text, &bytes),
    )?;
    Ok(changed)
}

/// Generated text in a file that defines a macro of a structure's name (`#define ctl_table struct ctl_table`): it is put aside for it.
fn with_own_macros_aside(text: &str, file: &[u8]) -> String {
    let file = String::from_utf8_lossy(file);
    let defines = |tag: &&str| {
        file.lines().any(|line| {
            let rest = line.trim_start().strip_prefix('#').map(str::trim_start);
            let name = rest.and_then(|r| r.strip_prefix("define"));
            name.is_some_and(|n| n.split_whitespace().next() == Some(tag))
        })
    };
    let mut aside = lex::tags(text);
    aside.retain(defines);
    let each = |line: &dyn Fn(&str) -> String| aside.iter().map(|t| line(t)).collect::<String>();
    format!(
        "{}{text}{}",
        each(&|t| format!("#pragma push_macro(\"{t}\")\n#undef {t}\n")),
        each(&|t| format!("#pragma pop_macro(\"{t}\")\n"))
    )
}

/// Generated text before a declaration, unless it stands at or before that place already.
fn insert_once(
    plan: &mut Plan,
    file: &Path,
    (start, back): (usize, &Loc),
    name: &str,
    text: &str,
) -> Result<bool, String> {
    let stands = |e: &Edit| e.text.contains(text) && e.start <= start;
    if plan.edits.of(file).iter().any(stands) {
        return Ok(false);
    }
    let edit = Edit {
        start,
        end: start,
        text: framed(text, name, file, back),
    };
    plan.edits.add(file, edit).map_err(|e| e.to_string())
}

/// Which parameters of one of the driver's functions its body never names; none where the body cannot be read.
fn unread(ctx: &Context<'_>, index: usize, function: &str) -> Vec<bool> {
    let functions = &ctx.built.tus[index].tu.functions;
    let text_of = |function: &LocalFunction| {
        let (file, start) = place(ctx, &function.start).ok()?;
        let bytes = std::fs::read(ctx.driver.dir.join(file)).ok()?;
        let length = function.end.offset.checked_sub(function.start.offset)? as usize;
        let text = String::from_utf8_lossy(bytes.get(start..start + length)?).into_owned();
        Some(text.split_once('{')?.1.to_owned())
    };
    let Some(found) = functions.iter().find(|f| f.name == function) else {
        return Vec::new();
    };
    let Some(body) = text_of(found) else {
        return Vec::new();
    };
    let words = lex::words(&body);
    let params = found.sig.params.iter();
    params.map(|p| !words.contains(&p.name)).collect()
}

/// Generated text under a file name of its own, then back to the driver's line.
fn framed(text: &str, name: &str, file: &std::path::Path, back: &Loc) -> String {
    let fresh_line = if back.column > 1 { "\n" } else { "" };
    format!(
        "{fresh_line}#line 1 \"generated by kspan: {name}\"\n{text}#line {} \"{}\"\n",
        back.line,
        file.display()
    )
}

/// Where a macro pastes the function's name together: the adapter takes the name, the driver's function another. Where a
/// macro makes the function too, the preprocessor renames one of them.
fn place_under_its_name(
    plan: &mut Plan,
    ctx: &Context<'_>,
    binding: &Binding,
    made: &adapter::Adapter,
) -> Result<bool, String> {
    let (file, decl) = place(ctx, &binding.decl_start)?;
    let name = &binding.function;
    let own = format!("kspan_own_{name}");
    let under_its_name = || {
        let text = lex::rename(&made.text, name, &own);
        lex::rename(&text, &made.name, name)
    };
    let mut functions = ctx.built.tus.iter().flat_map(|t| &t.tu.functions);
    let function = functions
        .find(|f| f.name == *name)
        .ok_or_else(|| format!("{name}() is not defined by the driver"))?;
    let (own_file, start) = place(ctx, &function.start)?;
    let mut changed = false;
    // What the adapter calls must be declared before it.
    let declared = || {
        let types = binding.sig.params.iter().map(|p| p.ty.spelling.as_str());
        let list = types.collect::<Vec<_>>().join(", ");
        let head = cfn::declare(&binding.sig.ret.spelling, &format!("{own}({list})"));
        let scope = if function.is_static { "static " } else { "" };
        format!("{scope}{head};\n")
    };
    let text = if let Some(range) = written(ctx, function)? {
        let text = std::fs::read(ctx.driver.dir.join(&own_file)).map_err(|e| e.to_string())?;
        let heads = prototypes(&text, name);
        let is_ahead = own_file != file || start < decl || heads.iter().any(|h| h.start < decl);
        for head in std::iter::once(range).chain(heads) {
            let rename = Edit {
                start: head.start,
                end: head.end,
                text: own.clone(),
            };
            changed |= plan
                .edits
                .add(&own_file, rename)
                .map_err(|e| e.to_string())?;
        }
        let ahead = if is_ahead { String::new() } else { declared() };
        format!("{ahead}{}", under_its_name())
    } else if own_file == file && start >= decl {
        // One macro makes the function and stores it. Only where it is defined or called does `(` follow its name.
        let adapter = under_its_name();
        let head = declared();
        format!("{head}{adapter}#define {name}(...) {own}(__VA_ARGS__)\n")
    } else {
        format!("{}#define {name} {}\n", made.text, made.name)
    };
    changed |= insert_once(plan, &file, (decl, &binding.decl_start), &made.name, &text)?;
    Ok(changed)
}

/// Where a text declares a function without defining it: the places of its name.
fn prototypes(text: &[u8], name: &str) -> Vec<Range<usize>> {
    let all: Vec<(lex::Token, Range<usize>)> = lex::tokens(text).collect();
    let (mut depth, mut found) = (0_usize, Vec::new());
    for (i, (token, range)) in all.iter().enumerate() {
        match token {
            lex::Token::Punct(b'{' | b'(') => depth += 1,
            lex::Token::Punct(b'}' | b')') => depth = depth.saturating_sub(1),
            lex::Token::Word
                if depth == 0
                    && text.get(range.clone()) == Some(name.as_bytes())
                    && ends_after_parameters(&all[i + 1..]) =>
            {
                found.push(range.clone());
            }
            _ => {}
        }
    }
    found
}

/// Parameters in brackets, words (attributes) at most, then the end of the declaration.
fn ends_after_parameters(rest: &[(lex::Token, Range<usize>)]) -> bool {
    let mut depth = 0_usize;
    for (i, (token, _)) in rest.iter().enumerate() {
        match token {
            lex::Token::Punct(b'(') => depth += 1,
            _ if i == 0 => return false,
            lex::Token::Punct(b')') => depth = depth.saturating_sub(1),
            lex::Token::Punct(b';') if depth == 0 => return true,
            lex::Token::Word => {}
            _ if depth == 0 => return false,
            _ => {}
        }
    }
    false
}

/// Where the head of a function's definition writes its name; `None` when a macro makes the definition.
fn written(ctx: &Context<'_>, function: &LocalFunction) -> Result<Option<Range<usize>>, String> {
    let (file, start) = place(ctx, &function.start)?;
    let bytes = std::fs::read(ctx.driver.dir.join(&file)).map_err(|e| e.to_string())?;
    let rest = bytes.get(start..).unwrap_or_default();
    let head = lex::tokens(rest).take_while(|(token, _)| *token != lex::Token::Punct(b'{'));
    let mut names = head.filter(|(token, range)| {
        *token == lex::Token::Word && rest.get(range.clone()) == Some(function.name.as_bytes())
    });
    Ok(names.next().map(|(_, r)| start + r.start..start + r.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declaration_is_told_from_a_definition_and_a_call() {
        let text = "static int f(int a,\n\tint b) __cold;\nint g(void) { return f(1, 2); }\nint (*h)(int) = f;\nstatic int f(int a, int b)\n{ return a; }\n";
        let found = prototypes(text.as_bytes(), "f");
        let starts: Vec<usize> = found.iter().map(|r| r.start).collect();
        assert_eq!(starts, [11]);
    }

    #[test]
    fn a_macro_of_a_structures_name_is_put_aside() {
        let text = "static int f(const struct ctl_table *a0)\n";
        assert_eq!(with_own_macros_aside(text, b"#define ctl_tables 1\n"), text);
        assert_eq!(
            with_own_macros_aside(text, b" # define ctl_table struct ctl_table\n"),
            format!(
                "#pragma push_macro(\"ctl_table\")\n#undef ctl_table\n{text}#pragma pop_macro(\"ctl_table\")\n"
            )
        );
    }

    #[test]
    fn a_definition_takes_the_const_of_the_targets_declaration() {
        let text = "struct fd *f(const struct d *d,\n\t struct e *e)\n{\n}\n";
        let wanted = [(0, false), (1, true)].into();
        let mut out = text.to_owned();
        for edit in const_edits(text, 0, "f", &wanted).unwrap().iter().rev() {
            out.replace_range(edit.start..edit.end, &edit.text);
        }
        assert_eq!(
            out,
            "struct fd *f(struct d *d,\n\t const struct e *e)\n{\n}\n"
        );
    }
}
