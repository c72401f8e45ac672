//! Password of the classic wire: decides which sender's address is learned.

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::codec::{Kind, PASSWORD, kind};
use crate::endpoint::Endpoint;
use crate::wire::paths::remote::Remote;

/// Complete password message: control word, password, NUL.
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    /// `None` for an empty password, which means that none is configured.
    pub fn new(password: &[u8]) -> Option<Self> {
        let message = || Zeroizing::new([PASSWORD, password, &[0]].concat());
        (!password.is_empty()).then(|| Self(message()))
    }

    /// Message that authenticates this end to the peer.
    pub fn message(&self) -> &[u8] {
        &self.0
    }

    /// Whether a message begins with the right password, NUL included. The comparison reveals only the length by its timing.
    fn matches(&self, message: &[u8]) -> bool {
        message.get(..self.0.len()).is_some_and(|begin| begin.ct_eq(&self.0).into())
    }
}

/// Whether to process a decoded datagram from `source`. Learns the source if permitted.
///
/// The kernel filters the senders of a fixed remote. A name admits its addresses. A learned remote without a password is the last sender within the limits. With
/// a password it is the last sender of the right password, and other sources are foreign.
pub fn admit(remote: &mut Remote, password: Option<&Password>, source: Option<Endpoint>, decoded: &[u8]) -> bool {
    let (learned, source) = match (remote, source) {
        (Remote::Learned(learned), Some(source)) => (learned, source),
        (Remote::Named(named), Some(source)) => return named.admits(source.remote),
        (_, _) => return true,
    };
    match password {
        None => learned.learn(source),
        Some(password) if kind(decoded) == Kind::Password => password.matches(decoded) && learned.learn(source),
        Some(_) => learned.get().is_some_and(|place| place.remote == source.remote) && learned.learn(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_is_compared_whole() {
        let password = Password::new(b"secret").unwrap();
        assert_eq!(password.message(), b"PASSWORD:secret\0");
        for (message, right) in [
            (&b"PASSWORD:secret\0"[..], true),
            (b"PASSWORD:secret\0 and more", true),
            (b"PASSWORD:secret", false),
            (b"PASSWORD:secrets\0", false),
            (b"PASSWORD:secre\0", false),
            (b"PASSWORD:", false),
            (b"", false),
        ] {
            assert_eq!(password.matches(message), right, "{message:?}");
        }
        assert!(Password::new(b"").is_none());
    }
}
