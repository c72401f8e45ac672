//! Names of tunnels and of interfaces.

/// Longest name for systemd, shells and file systems. The unit's user is `ethudp_NAME`, and systemd limits user names to 31 bytes
/// (`valid_user_group_name()`, the size in utmp).
pub const LONGEST: usize = 24;

/// Rule of [`unit`] in words.
pub const RULE: &str = "must be 1 to 24 letters, digits, '-' and '_', and begin with a letter or a digit";

/// Checks that systemd can run a tunnel of this name by the unit without changes.
pub fn unit(name: &str) -> Result<(), String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if begins && name.len() <= LONGEST && name.bytes().all(good) {
        return Ok(());
    }
    Err(format!("tunnel name {name:?}: {RULE}"))
}

/// Checks the name of a tunnel, which becomes a file name.
pub fn tunnel(name: &str) -> Result<String, String> {
    let bad = |b: u8| b == b'/' || b.is_ascii_control() || b.is_ascii_whitespace();
    if name.is_empty() || name.len() > 64 || name.starts_with(['.', '-']) || name.bytes().any(bad) {
        return Err(format!(
            "tunnel name {name:?}: must be 1 to 64 bytes without '/' and space, and not begin with '.' or '-'; the unit \
             takes 1 to {LONGEST} letters, digits, '-' and '_'"
        ));
    }
    Ok(name.to_owned())
}

/// Checks an interface name by the kernel's rules (`dev_valid_name`).
pub fn interface(what: &str, name: &str) -> Result<String, String> {
    if name.is_empty() || name.len() > 15 {
        return Err(format!("{what} {name:?}: {} bytes; must be 1 to 15 bytes", name.len()));
    }
    if matches!(name, "." | "..")
        || name.bytes().any(|b| b.is_ascii_whitespace() || b.is_ascii_control() || b"/:%".contains(&b))
    {
        return Err(format!("{what} {name:?}: must not contain a space, '/', ':' or '%'"));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_names_are_refused() {
        for bad in ["", "sixteen-byte-nam", "a/b", "a b", "a:b", "tap%d", ".", ".."] {
            assert!(interface("interface", bad).is_err(), "{bad:?}");
        }
        for bad in ["", "a/b", "../x", "-x", "a b", &"x".repeat(65)] {
            assert!(tunnel(bad).is_err(), "{bad:?}");
        }
        assert_eq!(interface("interface", "fifteen-byte-na"), Ok("fifteen-byte-na".into()));
        assert_eq!(tunnel("site-a.1"), Ok("site-a.1".into()));
    }

    #[test]
    fn unit_takes_plain_names_only() {
        for good in ["a", "Site-a_1", "1", &"x".repeat(LONGEST)] {
            assert_eq!(unit(good), Ok(()), "{good}");
        }
        for bad in ["", "-a", "_a", "a.b", "münchen", "x@y", "x;reboot", "$(x)", &"x".repeat(LONGEST + 1)] {
            assert!(unit(bad).unwrap_err().contains(RULE), "{bad}");
        }
    }
}
