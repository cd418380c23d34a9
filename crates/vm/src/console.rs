//! What the kernel's own log says of a driver: the lines between the marks that the guest put there, judged.

/// Words that no driver in good health makes a kernel say. Each with the kernel's own spelling.
const ALARMS: [&str; 24] = [
    "WARNING: ",
    "BUG: ",
    "kernel BUG at",
    "Oops",
    "general protection fault",
    "Kernel panic",
    "INFO: possible recursive locking",
    "possible circular locking dependency",
    "inconsistent lock state",
    "sleeping function called from invalid context",
    "refcount_t: ",
    "UBSAN: ",
    "blocked for more than",
    "soft lockup",
    "cannot create duplicate filename",
    "Slab cache still has objects",
    "Objects remaining",
    "Redzone overwritten",
    "Poison overwritten",
    "Object already free",
    "Freepointer corrupt",
    "Padding overwritten",
    "list_add corruption",
    "list_del corruption",
];

/// The lines of one driver: from its begin mark to its end mark, or to the end of the log.
pub fn of_driver(log: &str, driver: usize) -> Vec<&str> {
    let begin = format!("kspan: begin {driver}");
    let end = format!("kspan: end {driver}");
    log.lines()
        .map(str::trim_end)
        .skip_while(|l| !l.ends_with(&begin))
        .take_while(|l| !l.ends_with(&end))
        .collect()
}

/// The lines up to a driver's smoke test, for tests that end with the machine's reset.
pub fn before_smoke<'a>(lines: &[&'a str], driver: usize) -> Vec<&'a str> {
    let mark = format!("kspan: smoke {driver}");
    lines
        .iter()
        .copied()
        .take_while(|l| !l.ends_with(&mark))
        .collect()
}

/// The alarms among some lines, each once, without its time stamp.
pub fn alarms(lines: &[&str]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in lines {
        let text = without_time(line);
        if ALARMS.iter().any(|a| text.contains(a)) && !found.iter().any(|f| f == text) {
            found.push(text.to_owned());
        }
    }
    found
}

/// What the kernel said last: the reason of a refused load stands there, not in insmod's words.
pub fn last_words(lines: &[&str], count: usize) -> String {
    let said: Vec<&str> = lines
        .iter()
        .map(|l| without_time(l))
        .filter(|l| !l.is_empty() && !l.starts_with("kspan: "))
        .collect();
    let from = said.len().saturating_sub(count);
    said.get(from..).unwrap_or_default().join("; ")
}

/// `[    1.234567] text` is `text`; with CONFIG_PRINTK_CALLER `[ 1.2][ T1] text`, too. Other words in brackets are the kernel's own.
fn without_time(line: &str) -> &str {
    let mut text = line.trim();
    while let Some((inner, after)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let plain = inner.trim_start().trim_start_matches(['T', 'C']);
        if plain.is_empty() || !plain.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            break;
        }
        text = after.trim_start();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
[    0.1] WARNING: CPU: 0 before any driver
[    1.0] kspan: begin 0
[    1.1] e1000e: loading
[    1.2] kspan: smoke 0
[    1.3][    T1] WARNING: CPU: 0 PID: 1 at kernel/x.c:12 y+0x1/0x2
[    1.4] [kmalloc Redzone overwritten] 0x0-0x1 @offset=1
[    1.4] kspan: end 0
[    1.5] kspan: begin 1
[    1.6] Unknown symbol foo (err -2)
";

    #[test]
    fn each_driver_has_its_own_lines() {
        let first = of_driver(LOG, 0);
        assert_eq!(
            alarms(&first),
            [
                "WARNING: CPU: 0 PID: 1 at kernel/x.c:12 y+0x1/0x2",
                "[kmalloc Redzone overwritten] 0x0-0x1 @offset=1"
            ]
        );
        assert!(alarms(&before_smoke(&first, 0)).is_empty());
        let second = of_driver(LOG, 1);
        assert!(alarms(&second).is_empty());
        assert_eq!(last_words(&second, 1), "Unknown symbol foo (err -2)");
    }
}
