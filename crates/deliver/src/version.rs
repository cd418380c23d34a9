//! Versions as dkms compares them.

/// What `--version` prints and a make.log's first line names: the contract that is kept.
pub const VERSION: &str = "dkms-3.4.3";

/// A version whose numbers are padded to three digits, so that strings compare as the versions do.
///
/// `2.6.9-1cvs` becomes `002.006.009-001cvs`. Longer numbers stay as they are, as with dkms.
pub fn padded(version: &str) -> String {
    let mut out = String::new();
    let mut digits = String::new();
    for c in version.chars().filter(|c| *c != ' ') {
        if c.is_ascii_digit() {
            digits.push(c);
        } else {
            flush(&mut out, &mut digits);
            out.push(c);
        }
    }
    flush(&mut out, &mut digits);
    out
}

fn flush(out: &mut String, digits: &mut String) {
    if !digits.is_empty() {
        for _ in digits.len()..3 {
            out.push('0');
        }
        out.push_str(digits);
        digits.clear();
    }
}

/// The order of `sort -V`, near enough for module versions: numbers as numbers, the rest as text.
pub fn natural(a: &str, b: &str) -> std::cmp::Ordering {
    chunks(a).cmp(&chunks(b))
}

fn chunks(text: &str) -> Vec<(u128, String)> {
    let mut out: Vec<(u128, String)> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let word_end = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at(word_end);
        let number_end = after
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(after.len());
        let (number, after) = after.split_at(number_end);
        out.push((0, word.to_owned()));
        out.push((number.parse().unwrap_or_default(), String::new()));
        rest = after;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_padded_to_three_digits() {
        assert_eq!(
            padded("2.6.9-1cvs200409091247"),
            "002.006.009-001cvs200409091247"
        );
        assert_eq!(padded("6.12.117+deb13-amd64"), "006.012.117+deb013-amd064");
        assert!(padded("5.10") > padded("5.9"));
    }

    #[test]
    fn ten_is_newer_than_nine() {
        assert!(natural("1.10", "1.9").is_gt());
        assert!(natural("2.0", "2.0").is_eq());
    }
}
