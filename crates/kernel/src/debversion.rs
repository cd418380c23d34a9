//! The order of Debian version numbers (Debian Policy 5.6.12). It decides only what is newer in a list, never what a kernel offers.

use std::cmp::Ordering;

/// Compares two versions as dpkg does.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (epoch_a, upstream_a, revision_a) = split(a);
    let (epoch_b, upstream_b, revision_b) = split(b);
    epoch_a
        .cmp(&epoch_b)
        .then_with(|| part(upstream_a, upstream_b))
        .then_with(|| part(revision_a, revision_b))
}

/// The upstream part: without epoch and Debian revision.
#[cfg(test)]
pub fn upstream(version: &str) -> &str {
    split(version).1
}

fn split(version: &str) -> (u64, &str, &str) {
    let (epoch, rest) = match version.split_once(':') {
        Some((epoch, rest)) => (epoch.parse().unwrap_or(0), rest),
        None => (0, version),
    };
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, upstream, revision)
}

/// Alternates between the longest non-digit and the longest digit prefix.
fn part(mut a: &str, mut b: &str) -> Ordering {
    while !(a.is_empty() && b.is_empty()) {
        let (text_a, rest_a) = a.split_at(a.find(|c: char| c.is_ascii_digit()).unwrap_or(a.len()));
        let (text_b, rest_b) = b.split_at(b.find(|c: char| c.is_ascii_digit()).unwrap_or(b.len()));
        let (number_a, next_a) = rest_a.split_at(
            rest_a
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(rest_a.len()),
        );
        let (number_b, next_b) = rest_b.split_at(
            rest_b
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(rest_b.len()),
        );
        let order = text(text_a, text_b).then_with(|| number(number_a, number_b));
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (next_a, next_b);
    }
    Ordering::Equal
}

/// Character by character: `~` before the end, the end before letters, letters before all else.
fn text(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.chars(), b.chars());
    loop {
        match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (x, y) if weight(x) != weight(y) => return weight(x).cmp(&weight(y)),
            _ => {}
        }
    }
}

fn weight(c: Option<char>) -> i64 {
    match c {
        Some('~') => -1,
        None => 0,
        Some(c) if c.is_ascii_alphabetic() => i64::from(u32::from(c)),
        Some(c) => 0x20_0000 + i64::from(u32::from(c)),
    }
}

fn number(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_like_dpkg() {
        let sorted = [
            "1.0~rc1-1",
            "1.0-1",
            "1.0-1+b1",
            "1.0-2~bpo12+1",
            "1.0-2",
            "1.0.1-1",
            "1.9-1",
            "1.10-1",
            "1:0.1-1",
        ];
        for pair in sorted.windows(2) {
            let [low, high] = pair else { continue };
            assert_eq!(compare(low, high), Ordering::Less, "{low} < {high}");
            assert_eq!(compare(high, low), Ordering::Greater, "{high} > {low}");
        }
        assert_eq!(compare("6.1.07-1", "6.1.7-1"), Ordering::Equal);
        assert_eq!(upstream("7.3.4-1~bpo13+1"), "7.3.4");
    }
}
