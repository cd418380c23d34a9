//! The built-in evolutions load, and conditions decide as they say.

use kspan_evolve::{KernelView, Kind, Library, Risk};
use std::collections::{BTreeMap, BTreeSet, HashSet};

#[derive(Default)]
struct Fake {
    names: BTreeSet<&'static str>,
    fields: BTreeSet<(&'static str, &'static str)>,
    arity: BTreeMap<&'static str, usize>,
}

impl KernelView for Fake {
    fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }
    fn has_field(&self, record: &str, field: &str) -> bool {
        self.fields.iter().any(|(r, f)| *r == record && *f == field)
    }
    fn arity(&self, name: &str) -> Option<usize> {
        self.arity.get(name).copied()
    }
    fn returns(&self, _name: &str) -> Option<String> {
        None
    }
    fn macro_body(&self, _name: &str) -> Option<String> {
        None
    }
    fn config(&self, _symbol: &str) -> bool {
        false
    }
    fn header_exists(&self, _header: &str) -> bool {
        true
    }
    fn header_of(&self, _name: &str) -> Option<String> {
        None
    }
}

fn library(text: &str) -> Library {
    Library::from_texts([("t.toml".to_owned(), text.to_owned())]).expect("the text is well formed")
}

#[test]
fn the_built_in_evolutions_load() {
    let library = Library::load(None).unwrap_or_else(|e| panic!("{e}"));
    assert!(library.all().len() >= 350, "{}", library.all().len());
}

#[test]
fn every_text_names_no_version_and_no_driver() {
    let library = Library::load(None).unwrap_or_else(|e| panic!("{e}"));
    for e in library.all() {
        let text = e.text().unwrap_or_default();
        for word in ["LINUX_VERSION_CODE", "KERNEL_VERSION", "KBUILD_MODNAME"] {
            assert!(
                !text.contains(word),
                "{}:{}: {} uses {word}",
                e.file,
                e.line,
                e.id
            );
        }
    }
}

#[test]
fn a_definition_applies_only_where_the_name_is_lacking() {
    let library = library(
        "[[evolution]]\nid='a'\nkind='define'\nprovides=['new_f']\nhas=['old_f','struct s.m']\ntext='#define new_f old_f'\n",
    );
    let mut view = Fake::default();
    assert!(
        library.best("new_f", &view).is_none(),
        "no old_f to build on"
    );
    view.names.insert("old_f");
    view.fields.insert(("s", "m"));
    assert!(library.best("new_f", &view).is_some());
    view.names.insert("new_f");
    assert!(library.best("new_f", &view).is_none(), "the target has it");
}

#[test]
fn an_override_asks_for_the_targets_arity() {
    let library = library(
        "[[evolution]]\nid='a'\nkind='override'\nprovides=['f']\narity={f=4}\nhome_arity={f=3}\ntext='#define f kspan_f'\n",
    );
    let mut view = Fake::default();
    view.names.insert("f");
    view.arity.insert("f", 3);
    assert!(library.best("f", &view).is_none());
    view.arity.insert("f", 4);
    assert!(matches!(
        library.best("f", &view).map(|e| &e.kind),
        Some(Kind::Override { .. })
    ));
}

#[test]
fn a_plan_puts_what_is_needed_first_and_names_what_to_carry() {
    let library = library(
        "[[evolution]]\nid='a'\nkind='define'\nprovides=['a']\nneeds=['b','c']\ntext='#define a b'\n\
         [[evolution]]\nid='b'\nkind='define'\nprovides=['b']\ntext='#define b x'\n",
    );
    let view = Fake::default();
    let plan = library.plan(["a", "z"], &view);
    let ids: Vec<_> = plan.evolutions.iter().map(|e| e.id.as_str()).collect();
    assert_eq!(ids, ["b", "a"]);
    assert!(plan.carry.contains("c") && plan.unserved.contains("z"));
}

#[test]
fn ids_are_unique() {
    let twice =
        "[[evolution]]\nid='a'\nkind='define'\nprovides=['a']\ntext='#define a b'\n".repeat(2);
    let errors = Library::from_texts([("t.toml".to_owned(), twice)]).expect_err("must be refused");
    assert!(errors.to_string().contains("t.toml:6"), "{errors}");
}

#[test]
fn what_a_driver_must_choose_is_given_to_it_alone() {
    let text = "[[evolution]]\nid = \"everybodys\"\nkind = \"define\"\nprovides = [\"a\"]\ntext = \"#define a b\"\n\
                [[evolution]]\nid = \"chosen\"\nkind = \"define\"\nopt_in = true\nmeaning = \"m\"\nprovides = [\"c\"]\ntext = \"#define c d\"\n";
    let every = Library::from_texts([("x.toml".to_owned(), text.to_owned())]).unwrap();
    let names = |library: &Library| {
        let ids = library.all().iter().map(|e| e.id.clone());
        ids.collect::<Vec<_>>()
    };
    assert_eq!(names(&every.chosen(&[]).unwrap()), ["everybodys"]);
    let both = every.chosen(&["chosen".to_owned()]).unwrap();
    assert_eq!(names(&both), ["everybodys", "chosen"]);
    assert_eq!(both.for_name("c").len(), 1);
    let why = every.chosen(&["everybodys".to_owned()]).unwrap_err();
    assert!(
        why.contains("everybodys") && why.contains(": chosen"),
        "{why}"
    );
    let silent = text.replace("meaning = \"m\"\n", "");
    assert!(Library::from_texts([("x.toml".to_owned(), silent)]).is_err());
}

#[test]
fn a_risk_is_met_by_those_who_use_what_brings_it() {
    let rule = |more: &str| {
        format!(
            "[[evolution]]\nid = \"x\"\nkind = \"define\"\nprovides = [\"FLAG\"]\nrisk = \"behaviour\"\nmeaning = \"m\"\n{more}\ntext = \"#define FLAG 0\"\n"
        )
    };
    let risk = |more: &str, files: &[&[&str]]| {
        let uses: Vec<HashSet<&str>> = files.iter().map(|f| f.iter().copied().collect()).collect();
        library(&rule(more)).met_by(&uses).all()[0].risk
    };
    let with = "risk_with = [\"scsi_host_template\"]";
    assert_eq!(risk(with, &[&["FLAG"]]), Risk::None);
    assert_eq!(
        risk(with, &[&["FLAG"], &["scsi_host_template"]]),
        Risk::Behaviour
    );
    let without = "risk_without = [\"register_it\"]";
    assert_eq!(
        risk(without, &[&["FLAG", "register_it"], &["other"]]),
        Risk::None
    );
    assert_eq!(
        risk(without, &[&["FLAG"], &["register_it"]]),
        Risk::Behaviour
    );
    assert_eq!(risk("", &[&["FLAG", "register_it"]]), Risk::Behaviour);
    let harmless = rule(with).replace("behaviour", "none");
    assert!(Library::from_texts([("x.toml".to_owned(), harmless)]).is_err());
}

#[test]
fn a_rule_for_some_drivers_is_met_by_these_alone() {
    let text = "[[evolution]]\nid = \"x\"\nkind = \"define\"\nprovides = [\"EXPORT_IT\"]\nonly_with = [\"NAMESPACE\"]\ntext = \"#define EXPORT_IT(s)\"\n";
    let met = |names: &[&str]| {
        let uses: HashSet<&str> = names.iter().copied().collect();
        library(text).met_by(&[uses]).for_name("EXPORT_IT").len()
    };
    assert_eq!(met(&["EXPORT_IT"]), 0);
    assert_eq!(met(&["EXPORT_IT", "NAMESPACE"]), 1);
}
