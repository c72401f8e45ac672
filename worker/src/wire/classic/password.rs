//! The password of the classic wire: who may teach us the address of a peer behind NAT.

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::codec::{Kind, PASSWORD, kind};
use crate::endpoint::Endpoint;
use crate::wire::paths::remote::Remote;

/// The whole message that has the right password: word, password, NUL.
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    /// `None` for an empty password, which is none.
    pub fn new(password: &[u8]) -> Option<Self> {
        let message = || Zeroizing::new([PASSWORD, password, &[0]].concat());
        (!password.is_empty()).then(|| Self(message()))
    }

    /// The message that tells a peer our password.
    pub fn message(&self) -> &[u8] {
        &self.0
    }

    /// Whether a message has the right password, NUL included; what follows does not matter. The time it takes tells
    /// nothing but the length.
    fn matches(&self, message: &[u8]) -> bool {
        message.get(..self.0.len()).is_some_and(|begin| begin.ct_eq(&self.0).into())
    }
}

/// Whether a decoded datagram from `source` is to be looked at any further; learns the source where it may be learned.
///
/// A fixed remote is the kernel's business. A learned one without a password is whoever sent last, within the limits; with
/// a password it is who sent that last, and everybody else is foreign.
pub fn admits(remote: &mut Remote, password: Option<&Password>, source: Option<Endpoint>, decoded: &[u8]) -> bool {
    let (Remote::Learned(learned), Some(source)) = (remote, source) else { return true };
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
    fn only_the_whole_password_with_its_nul_is_right() {
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
