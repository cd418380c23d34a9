//! The target's compiler on learned rules: many at once. Its errors name the rules that it refuses; where they name none (a
//! header that does not stand alone), the batch is tried in halves.

use super::emit::Rule;
use crate::judge::includes;
use kspan_kernel::Result;
use rayon::prelude::*;

/// How many rules are compiled together at first.
const BATCH: usize = 32;

type Judge<'a> = dyn Fn(&str, &str) -> Result<Option<String>> + Sync + 'a;

/// A rule's number and what the compiler said of it.
type Refusal = (usize, String);

/// Takes out what the compiler refuses; returns what it said of each.
///
/// # Errors
/// The compiler cannot be started.
pub fn sift(rules: &mut Vec<Rule>, judge: &Judge<'_>) -> Result<Vec<String>> {
    let numbers: Vec<usize> = (0..rules.len())
        .filter(|n| rules.get(*n).is_some_and(has_text))
        .collect();
    let bad: Vec<Refusal> = numbers
        .par_chunks(BATCH)
        .map(|batch| refused(rules, batch, judge))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .flatten()
        .collect();
    let words = bad
        .iter()
        .filter_map(|(n, words)| Some(format!("{}: {words}", rules.get(*n)?.evolution.id)))
        .collect();
    let mut number = 0;
    rules.retain(|_| {
        number += 1;
        !bad.iter().any(|(n, _)| *n == number - 1)
    });
    Ok(words)
}

fn has_text(rule: &Rule) -> bool {
    rule.evolution.text().is_some() || !rule.trial.is_empty()
}

fn refused(rules: &[Rule], batch: &[usize], judge: &Judge<'_>) -> Result<Vec<Refusal>> {
    let Some(first) = batch.first() else {
        return Ok(Vec::new());
    };
    let some: Vec<&Rule> = batch.iter().filter_map(|n| rules.get(*n)).collect();
    let name = format!("learn-{first}-{}", batch.len());
    let Some(words) = judge(&name, &source(&some))? else {
        return Ok(Vec::new());
    };
    if batch.len() == 1 {
        return Ok(vec![(
            *first,
            words.lines().next().unwrap_or("").to_owned(),
        )]);
    }
    let mut bad = named(rules, batch, &words);
    // A macro of one rule may stand in another's way; alone it shows what it is worth.
    for (n, words) in &mut bad {
        if words.contains("macro \"") {
            let alone = refused(rules, &[*n], judge)?.into_iter().next();
            *words = alone.map_or(String::new(), |(_, words)| words);
        }
    }
    if bad.is_empty() {
        let (left, right) = batch.split_at(batch.len() / 2);
        bad = refused(rules, left, judge)?;
        bad.extend(refused(rules, right, judge)?);
        return Ok(bad);
    }
    let rest: Vec<usize> = batch
        .iter()
        .copied()
        .filter(|n| !bad.iter().any(|(b, _)| b == n))
        .collect();
    bad.extend(refused(rules, &rest, judge)?);
    bad.retain(|(_, words)| !words.is_empty());
    Ok(bad)
}

/// The rules that the compiler complains of: in their own lines, or in a header that they include.
fn named(rules: &[Rule], batch: &[usize], words: &str) -> Vec<Refusal> {
    batch
        .iter()
        .filter_map(|n| Some((*n, complaint(rules.get(*n)?, words)?.to_owned())))
        .collect()
}

fn complaint<'w>(rule: &Rule, words: &'w str) -> Option<&'w str> {
    let own = format!("{}:", rule.evolution.id);
    words.lines().find(|line| {
        let file = line.split(':').next().unwrap_or("");
        line.starts_with(&own)
            || all_includes(rule).any(|h| file.ends_with(h.as_str()) && file.len() > h.len())
    })
}

fn all_includes(rule: &Rule) -> impl Iterator<Item = &String> {
    rule.evolution.includes.iter().chain(&rule.trial_includes)
}

/// All headers, then all texts, then their uses; each in lines that bear its rule's name.
fn source(rules: &[&Rule]) -> String {
    let headers = rules
        .iter()
        .flat_map(|r| all_includes(r).map(String::as_str));
    let mut text = includes(headers);
    let mut add = |rule: &Rule, part: &str| {
        text.push_str(&format!("#line 1 \"{}\"\n{part}", rule.evolution.id));
    };
    for rule in rules {
        add(rule, rule.evolution.text().unwrap_or_default());
    }
    for rule in rules {
        add(rule, &rule.trial);
    }
    text
}
