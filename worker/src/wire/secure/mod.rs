//! The secure wire, which is specified in `docs/WIRE.md`: a handshake of X25519 and ML-KEM, datagrams sealed by an AEAD, and
//! sessions that are made anew every two minutes.
//!
//! [`keys`] is what both ends know before, [`message`] the form of a datagram, [`handshake`] (with [`noise`]) what two ends come
//! to by four of them.

pub mod content;
pub mod crypt;
pub mod fragment;
pub mod handshake;
pub mod keys;
pub mod message;
pub mod noise;
mod sealer;
pub mod session;
mod standin;
#[cfg(test)]
mod tests;
pub mod unpack;
pub mod window;

pub use session::{Session, Told};
pub use standin::{SecureCounters, SecureState, SessionCipher, SessionReport, Timestamp, Trouble};
use zeroize::{Zeroize, ZeroizeOnDrop};

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
