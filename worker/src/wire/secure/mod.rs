//! The secure wire, which is specified in `docs/WIRE.md`: a handshake of X25519 and ML-KEM, datagrams sealed by an AEAD, and
//! sessions that are made anew every two minutes.
//!
//! [`keys`] holds the keys that both ends know before, [`message`] the form of a datagram. [`handshake`], with [`noise`], makes the
//! keys of a session from two datagrams in the long form, from four in the short form.

pub mod content;
pub mod crypt;
pub mod fragment;
pub mod handshake;
pub mod keys;
pub mod message;
pub mod noise;
mod sealer;
pub mod session;
#[cfg(test)]
mod tests;
pub mod unpack;
pub mod window;

pub use session::{Session, SessionConfig};
use std::io;

use privsep::ipc::{Secure, SecureSecrets, Settings, State, Timestamp};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

pub use crypt::{Dropped, Opening, Sending};
pub use sealer::Sealer;
pub use unpack::Unpacker;

/// What seals the datagrams of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroize)]
#[repr(u8)]
pub enum CipherKind {
    /// RFC 8439.
    ChaCha20Poly1305 = 0,
    /// AES-256 in Galois/Counter mode.
    Aes256Gcm = 1,
}

/// What a handshake has come to, as one end sees it.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Keys {
    /// Seals what this end sends.
    pub sending: [u8; 32],
    /// Opens what the other end sends.
    pub receiving: [u8; 32],
    /// The cipher of both.
    pub cipher: CipherKind,
    /// Number that datagrams to this end carry.
    pub our_index: u32,
    /// Number that datagrams to the other end carry.
    pub their_index: u32,
}

/// Makes both machines of a tunnel.
///
/// # Errors
/// When a key is none that can be used, or the kernel gives no random bytes.
///
/// # Panics
/// Later, when the kernel gives no random bytes any more.
pub fn machines(
    settings: &Settings,
    secure: &Secure,
    secrets: &SecureSecrets,
    state: &State,
) -> io::Result<(Session, Sealer)> {
    let key = |secret: &[u8]| {
        let mut key = Zeroizing::new([0; keys::KEY]);
        key.copy_from_slice(secret.get(..keys::KEY).filter(|_| secret.len() == keys::KEY)?);
        Some(key)
    };
    let wrong = |error: &str| io::Error::other(format!("wire secure: {error}"));
    let private = key(secrets.private_key.expose()).ok_or_else(|| wrong("no private key of 32 bytes"))?;
    let psk = match secrets.psk.expose() {
        [] => Zeroizing::default(),
        psk => key(psk).ok_or_else(|| wrong("a pre-shared key of other than 32 bytes"))?,
    };
    let pair =
        keys::Pair::new(&private, secure.peer_key, &psk, secure.tunnel).map_err(|error| wrong(&error.to_string()))?;
    // ML-KEM draws by itself. The first draw makes calls that a confined worker may not.
    aws_lc_rs::rand::fill(&mut [0; 1]).map_err(|_| wrong("no random bytes"))?;
    let session = Session::new(SessionConfig {
        pair,
        secure,
        offer: offer(),
        remotes: &settings.remotes,
        delivers: settings.rules.receive,
        exit_after: settings.exit_after,
        state,
        wall: Box::new(|_| Timestamp::now()),
        random: Box::new(|bytes| getrandom::fill(bytes).expect("the kernel has random bytes, or none for anybody")),
    });
    let sealer = Sealer::new(session.route().clone());
    Ok((session, sealer))
}

/// The ciphers that this processor is fast with.
fn offer() -> u8 {
    #[cfg(target_arch = "x86_64")]
    let has_aes = std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let has_aes = std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let has_aes = false;
    message::offer::CHACHA | if has_aes { message::offer::AES } else { 0 }
}
