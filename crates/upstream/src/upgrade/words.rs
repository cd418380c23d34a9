//! What a commit says of a change.

use super::change::Reason;
use kspan_evolve::Evolution;

/// Why an evolution exists, and what stands behind it.
#[must_use]
pub fn why(e: &Evolution) -> String {
    let mut out = sentence(&e.why);
    if let Some(v) = &e.evidence {
        let places = v
            .examples
            .first()
            .map_or(String::new(), |p| format!(", for example {p}"));
        out.push_str(&format!(
            "{}{} files of the kernel made this change at {} places{places}.",
            if out.is_empty() { "" } else { " " },
            v.files,
            v.sites
        ));
    }
    out
}

/// A text as a sentence.
#[must_use]
pub fn sentence(text: &str) -> String {
    let text = text.trim();
    let mut chars = text.chars();
    let Some(first) = chars.next() else {
        return String::new();
    };
    // A name that starts a sentence keeps its case.
    let word = text.split_whitespace().next().unwrap_or_default();
    let is_name = word.contains(['_', '(', '<', '.']);
    let head = if is_name {
        first.to_string()
    } else {
        first.to_uppercase().collect()
    };
    let end = if text.ends_with(['.', '!', '?']) {
        ""
    } else {
        "."
    };
    format!("{head}{}{end}", chars.as_str())
}

/// The body of a commit: the reason, what may differ, the rule and the upstream commit.
#[must_use]
pub fn body(reason: &Reason) -> String {
    let mut out = wrapped(&reason.why);
    if !reason.meaning.is_empty() {
        out.push_str(&format!("\n{}", wrapped(&sentence(&reason.meaning))));
    }
    let mut trailers = String::new();
    if !reason.commit.is_empty() {
        trailers.push_str(&format!("Upstream: {}\n", reason.commit));
    }
    if !reason.id.starts_with("generated") {
        trailers.push_str(&format!("Evolution: {}\n", reason.id));
    }
    if !trailers.is_empty() {
        out.push_str(&format!("\n{trailers}"));
    }
    out
}

/// Lines of at most 75 bytes, as kernel commits have them; the text ends in a newline where there is any.
#[must_use]
pub fn wrapped(text: &str) -> String {
    const WIDTH: usize = 75;
    let mut out = String::new();
    let mut at = 0;
    for word in text.split_whitespace() {
        if at > 0 && at + 1 + word.len() > WIDTH {
            out.push('\n');
            at = 0;
        }
        if at > 0 {
            out.push(' ');
            at += 1;
        }
        out.push_str(word);
        at += word.len();
    }
    if at > 0 {
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_sentences_of_lines() {
        assert_eq!(sentence("the core does it"), "The core does it.");
        assert_eq!(sentence("del_timer() is gone."), "del_timer() is gone.");
        assert!(wrapped(&"word ".repeat(40)).lines().all(|l| l.len() <= 75));
    }
}
