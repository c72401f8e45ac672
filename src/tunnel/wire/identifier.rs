//! Tunnel identifier of the secure wire: 8 bytes, the same at both ends. It separates tunnels of one key pair.

/// Tunnel identifier; zeros for none.
pub type Identifier = [u8; 8];

/// Value without an identifier.
pub const NONE: Identifier = [0; 8];

/// A new random identifier.
///
/// # Errors
/// When the kernel has no randomness.
pub fn random() -> Result<Identifier, getrandom::Error> {
    let mut identifier = NONE;
    getrandom::fill(&mut identifier)?;
    Ok(identifier)
}

/// Text of an identifier: 16 hexadecimal digits.
pub fn text(identifier: Identifier) -> String {
    format!("{:016x}", u64::from_be_bytes(identifier))
}

/// Parses an identifier.
///
/// # Errors
/// Message with `what` as the name; also for the value [`NONE`].
pub fn parse(what: &str, text: &str) -> Result<Identifier, String> {
    let right = "must be 16 hexadecimal digits, the same at both ends; `ethudp init` creates it";
    let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match u64::from_str_radix(text, 16).ok().filter(|_| digits) {
        Some(0) => Err(format!("{what} = {text:?}: all zeros; {right}")),
        Some(number) => Ok(number.to_be_bytes()),
        None => Err(format!("{what} = {text:?}: not a tunnel identifier; {right}")),
    }
}

/// Identifier on which two ends agree: the smaller one by bytes, and any in preference to none. Each end knows both identifiers and
/// computes the same result.
pub fn agreed(one: Identifier, other: Identifier) -> Identifier {
    if one == NONE || other == NONE { one.max(other) } else { one.min(other) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_agree_on_identifier() {
        let (less, greater) = ([0, 0xff, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]);
        for (one, other, both) in
            [(less, greater, less), (NONE, greater, greater), (less, less, less), (NONE, NONE, NONE)]
        {
            assert_eq!((agreed(one, other), agreed(other, one)), (both, both));
        }
    }

    #[test]
    fn identifier_has_sixteen_digits() {
        let id = [0, 1, 2, 3, 4, 5, 6, 0xff];
        assert_eq!(text(id), "00010203040506ff");
        for same in ["00010203040506ff", "00010203040506FF"] {
            assert_eq!(parse("id", same), Ok(id));
        }
        for (wrong, words) in [
            ("", "not a tunnel identifier; must be 16 hexadecimal digits"),
            ("00010203040506f", "not a tunnel identifier"),
            ("00010203040506fff", "not a tunnel identifier"),
            ("+0010203040506ff", "not a tunnel identifier"),
            ("00010203040506fg", "not a tunnel identifier"),
            ("0000000000000000", "all zeros"),
        ] {
            let error = parse("id", wrong).unwrap_err();
            assert!(error.contains(words) && error.contains(&format!("id = {wrong:?}")), "{error}");
        }
    }
}
