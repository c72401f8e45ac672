//! Secure wire, specified in `docs/WIRE.md`: a handshake of X25519 and ML-KEM, datagrams sealed by an AEAD, and sessions that are
//! replaced every two minutes.
//!
//! [`keys`] holds the keys that both ends know beforehand, and [`message`] the format of datagrams. [`handshake`], with [`noise`],
//! derives the keys of a session from two datagrams in the long form, from four in the short form.

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

/// Cipher that seals the datagrams of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroize)]
#[repr(u8)]
pub enum CipherKind {
    /// RFC 8439.
    ChaCha20Poly1305 = 0,
    /// AES-256 in Galois/Counter mode.
    Aes256Gcm = 1,
}

/// Result of a handshake at one end.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Keys {
    /// Key that seals datagrams of this end.
    pub sending: [u8; 32],
    /// Key that opens datagrams of the peer.
    pub receiving: [u8; 32],
    /// Cipher of both directions.
    pub cipher: CipherKind,
    /// Receiver index of datagrams to this end.
    pub our_index: u32,
    /// Receiver index of datagrams to the peer.
    pub their_index: u32,
    /// Features of the peer.
    pub peer_features: u32,
}

/// Makes the session and the sealer of a tunnel.
///
/// # Errors
/// Fails if a key is unusable, or if the kernel gives no random bytes.
///
/// # Panics
/// The session panics later if the kernel stops giving random bytes.
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
    let mut pair =
        keys::Pair::new(&private, secure.peer_key, &psk, secure.tunnel).map_err(|error| wrong(&error.to_string()))?;
    pair.features = if settings.rules.ecn { message::features::ECN } else { 0 };
    // ML-KEM uses the library's random generator. Its first use makes system calls that a confined worker may not make.
    aws_lc_rs::rand::fill(&mut [0; 1]).map_err(|_| wrong("no random bytes"))?;
    let session = Session::new(SessionConfig {
        pair,
        secure,
        offer: offer(),
        remotes: &settings.remotes,
        paths: &settings.paths,
        delivers: settings.rules.receive,
        exit_after: settings.exit_after,
        state,
        wall: Box::new(|_| Timestamp::now()),
        random: Box::new(|bytes| getrandom::fill(bytes).expect("the kernel has random bytes, or none for anybody")),
    });
    let sealer = Sealer::new(session.route().clone());
    Ok((session, sealer))
}

/// Ciphers that are fast on this processor.
fn offer() -> u8 {
    #[cfg(target_arch = "x86_64")]
    let has_aes = std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let has_aes = std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let has_aes = false;
    message::offer::CHACHA | if has_aes { message::offer::AES } else { 0 }
}
