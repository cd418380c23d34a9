//! Module.symvers: what a kernel exports to modules.

use crate::Export;
use std::collections::HashMap;

/// Reads the text of a Module.symvers.
///
/// Lines are `CRC name module export namespace`, by tabs; the namespace may be missing. modpost takes no blank lines either.
///
/// # Errors
/// The number of the first line that is none, and what is wrong with it.
pub fn parse(text: &str) -> Result<HashMap<String, Export>, String> {
    let mut out = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        let (name, export) = parse_line(line)
            .map_err(|why| format!("line {}: {why}: {:?}", number + 1, shorten(line)))?;
        out.insert(name, export);
    }
    Ok(out)
}

fn shorten(line: &str) -> String {
    line.chars().take(80).collect()
}

fn parse_line(line: &str) -> Result<(String, Export), &'static str> {
    let mut words = line.split('\t').map(str::trim);
    let crc = words.next().unwrap_or_default();
    let digits = crc
        .strip_prefix("0x")
        .ok_or("does not begin with a checksum such as 0x1234abcd")?;
    let crc = u32::from_str_radix(digits, 16)
        .map_err(|_| "the checksum is no 32-bit hexadecimal number")?;
    let name = words
        .next()
        .filter(|name| is_symbol(name))
        .ok_or("the second word is no symbol")?;
    let module = words
        .next()
        .filter(|module| !module.is_empty())
        .ok_or("the third word should name vmlinux or a module")?;
    let kind = words
        .next()
        .filter(|kind| kind.starts_with("EXPORT_"))
        .ok_or("the fourth word should be EXPORT_SYMBOL or a relative of it")?;
    let namespace = words
        .next()
        .filter(|space| !space.is_empty())
        .map(str::to_owned);
    let export = Export {
        crc,
        gpl_only: kind.contains("GPL"),
        namespace,
        module: module.to_owned(),
    };
    Ok((name.to_owned(), export))
}

fn is_symbol(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$'))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn lines_of_all_ages() {
        let text = "0x12345678\ta\tvmlinux\tEXPORT_SYMBOL\t\n0x00000000\tb\tdrivers/x\tEXPORT_SYMBOL_GPL\tNS\n0x1\tc\tm\tEXPORT_UNUSED\n";
        let all = parse(text).unwrap_or_default();
        assert_eq!(all.len(), 3);
        assert_eq!(
            all.get("a")
                .map(|one| (one.crc, one.gpl_only, one.namespace.clone())),
            Some((0x1234_5678, false, None))
        );
        assert_eq!(
            all.get("b")
                .and_then(|one| one.namespace.clone())
                .as_deref(),
            Some("NS")
        );
        for bad in [
            "x",
            "0xzz\ta\tb\tEXPORT_SYMBOL",
            "0x1\t\tb\tEXPORT_SYMBOL",
            "0x1\ta\tb",
            "0x1\ta\tb\tELSE",
            "\u{0}",
        ] {
            assert!(
                parse(bad).is_err_and(|words| words.starts_with("line 1:")),
                "{bad}"
            );
        }
    }
}
