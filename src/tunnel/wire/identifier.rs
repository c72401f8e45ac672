//! The tunnel identifier of the secure wire, which keeps apart two tunnels of one key pair: 8 bytes, the same at both ends.

/// An identifier; zeros for none.
pub type Identifier = [u8; 8];

/// What stands for none.
pub const NONE: Identifier = [0; 8];

/// A new one.
///
/// # Errors
/// What the kernel says.
pub fn random() -> Result<Identifier, getrandom::Error> {
    let mut identifier = NONE;
    getrandom::fill(&mut identifier)?;
    Ok(identifier)
}

/// An identifier as text: 16 hexadecimal digits.
pub fn text(identifier: Identifier) -> String {
    format!("{:016x}", u64::from_be_bytes(identifier))
}

/// An identifier from text.
///
/// # Errors
/// What is wrong with it, for `what`; also where it is that of none.
pub fn parse(what: &str, text: &str) -> Result<Identifier, String> {
    let right = "must be 16 hexadecimal digits, the same at both ends; `ethudp init` creates it";
    let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match u64::from_str_radix(text, 16).ok().filter(|_| digits) {
        Some(0) => Err(format!("{what} = {text:?}: all zeros; {right}")),
        Some(number) => Ok(number.to_be_bytes()),
        None => Err(format!("{what} = {text:?}: not a tunnel identifier; {right}")),
    }
}

/// What two ends agree on that have these: the smaller one as bytes, and any rather than none. Each end comes to the same, as each
/// sees both.
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
