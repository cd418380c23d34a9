//! The lines that guest and host exchange over the machine's second serial port.
//!
//! Guest to host: `@SEQ WORD ARGUMENT...`, numbered from 1 so that a lost line is noticed (`@-` for text that may be lost),
//! and questions `?VERB ...` that wait for one line of answer. Everything else on the line is not understood and kept as such.

/// One line from the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// The guest is up: its release, and its taint.
    Hello {
        /// `uname -r`.
        release: String,
        /// Taint bits at the start.
        taint: u64,
    },
    /// Driver number N is taken up.
    Begin(usize),
    /// A check of a driver begins.
    Step(usize, String),
    /// A check's result.
    Result {
        /// The driver.
        driver: usize,
        /// The check.
        check: String,
        /// Passed.
        pass: bool,
        /// Why not.
        why: String,
    },
    /// Output of a failed smoke test.
    Out(usize, String),
    /// A driver is done; the kernel's taint bits.
    End(usize, u64),
    /// All done.
    Bye,
    /// What only the host can do.
    Ask(Vec<String>),
    /// Not a line of this protocol.
    Garbage(String),
}

/// Reads lines and minds their numbers.
#[derive(Debug, Default)]
pub struct Reader {
    last: u64,
    /// Numbers that were skipped.
    pub lost: u64,
}

impl Reader {
    /// Understands one line.
    pub fn line(&mut self, text: &str) -> Line {
        let text = text.trim();
        if let Some(question) = text.strip_prefix('?') {
            return Line::Ask(question.split_whitespace().map(str::to_owned).collect());
        }
        let parsed = text.strip_prefix('@').and_then(|rest| {
            let (number, words) = rest.split_once(' ').unwrap_or((rest, ""));
            let line = words_of(words)?;
            if number != "-" {
                let number: u64 = number.parse().ok()?;
                self.lost += number.saturating_sub(self.last.saturating_add(1));
                self.last = number;
            }
            Some(line)
        });
        parsed.unwrap_or_else(|| Line::Garbage(text.to_owned()))
    }
}

fn words_of(text: &str) -> Option<Line> {
    let mut words = text.splitn(2, ' ');
    let word = words.next()?;
    let rest = words.next().unwrap_or_default();
    let mut arguments = rest.split(' ');
    let mut next = || arguments.next().filter(|w| !w.is_empty());
    Some(match word {
        "hello" => Line::Hello {
            release: next()?.to_owned(),
            taint: next()?.parse().ok()?,
        },
        "begin" => Line::Begin(next()?.parse().ok()?),
        "step" => Line::Step(next()?.parse().ok()?, next()?.to_owned()),
        "result" => {
            let mut parts = rest.splitn(4, ' ');
            Line::Result {
                driver: parts.next()?.parse().ok()?,
                check: parts.next()?.to_owned(),
                pass: match parts.next()? {
                    "pass" => true,
                    "fail" => false,
                    _ => return None,
                },
                why: parts.next().unwrap_or_default().to_owned(),
            }
        }
        "out" => {
            let (driver, text) = rest.split_once(' ').unwrap_or((rest, ""));
            Line::Out(driver.parse().ok()?, text.to_owned())
        }
        "end" => Line::End(next()?.parse().ok()?, next()?.parse().ok()?),
        "bye" => Line::Bye,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood_and_counted() {
        let mut reader = Reader::default();
        let hello = reader.line("@1 hello 6.12.117+deb13-amd64 0\r");
        assert_eq!(
            hello,
            Line::Hello {
                release: "6.12.117+deb13-amd64".into(),
                taint: 0
            }
        );
        let failed = reader.line("@2 result 0 load fail insmod: can't insert");
        assert!(
            matches!(failed, Line::Result { pass: false, ref why, .. } if why == "insmod: can't insert")
        );
        assert_eq!(reader.line("@5 end 0 12288"), Line::End(0, 12288));
        assert_eq!(reader.lost, 2);
        assert_eq!(
            reader.line("?screen 1"),
            Line::Ask(vec!["screen".into(), "1".into()])
        );
    }

    #[test]
    fn what_is_no_line_is_garbage_and_no_pass() {
        let mut reader = Reader::default();
        for text in [
            "",
            "@",
            "@x hello",
            "@1 result 0 load maybe",
            "@2 end 0",
            "\u{fffd}@1 bye",
            "@18446744073709551615 bye x",
        ] {
            let line = reader.line(text);
            assert!(
                matches!(line, Line::Garbage(_) | Line::Bye),
                "{text}: {line:?}"
            );
        }
    }
}
