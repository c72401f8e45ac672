//! Secure wire between supervisor and worker: settings, secrets, state and reports of a session.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::settings::MAX_FRAME;
use super::{Counts, Secret, SecureCounters};

/// Settings of the secure wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secure {
    /// X25519 public key of the peer, which has been checked.
    pub peer_key: [u8; 32],
    /// Tunnel identifier, the same at both ends; zeros without one.
    pub tunnel: [u8; 8],
    /// Receiver index of initiations to the peer; zero where none is known.
    pub peer_index: u32,
    /// Longest datagram in bytes of UDP payload that leaves whole by every path; from 1232 to [`Secure::LONGEST`].
    pub datagram: u16,
    /// Seconds from one ping to the next; 1 or more.
    pub ping_interval: u8,
}

impl Secure {
    /// Bytes that a frame grows by: header and tag of the datagram, and what says that it holds a frame.
    pub const OVERHEAD: u16 = 36;
    /// Datagram in bytes of the longest frame.
    #[allow(clippy::cast_possible_truncation)] // 9270.
    pub const LONGEST: u16 = MAX_FRAME as u16 + Self::OVERHEAD;

    /// The longest frame in bytes that is sealed into `payload` bytes.
    pub fn largest_frame(payload: u32) -> u32 {
        payload.saturating_sub(Self::OVERHEAD.into())
    }
}

/// A moment, as an initiation carries it: nanoseconds since the beginning of 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Later than any clock shows: in the year 2262.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// What the wall clock shows.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)).bounded()
    }

    /// The same, at most [`Timestamp::MAX`].
    #[must_use]
    pub fn bounded(self) -> Self {
        self.min(Self::MAX)
    }
}

/// Which cipher seals the data of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionCipher {
    /// AES-256-GCM.
    Aes256Gcm,
    /// ChaCha20-Poly1305.
    ChaCha20Poly1305,
}

/// A current session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionReport {
    /// Its cipher.
    pub cipher: SessionCipher,
    /// Milliseconds since its keys were made.
    pub age_ms: u64,
    /// Whether this end has begun it.
    pub began_here: bool,
}

/// What keeps a session from coming about, as far as the protocol lets one know (docs/WIRE.md, "What an end can say").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trouble {
    /// `mac0` is wrong and `mac1` right: the sender knows this end's key, and is not the peer of this tunnel.
    OtherPeerKey,
    /// Both are wrong, from the peer's address: the peer's file has another key for this end.
    OurKeyUnknown,
    /// `mac0` is right and `mac2` wrong: the pre-shared keys differ.
    Psk,
    /// The peer's clock is behind what it was.
    Clock {
        /// By so many milliseconds.
        behind_ms: u64,
    },
    /// More initiations with right MACs than a peer makes: an attacker has a private key.
    StolenKey,
    /// A response to an attempt that is over.
    Late {
        /// So many milliseconds after the attempt began.
        after_ms: u64,
    },
    /// The peer speaks this version.
    Version(u8),
    /// The peer speaks a draft of this version.
    Draft,
}

/// Secrets of the secure wire.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecureSecrets {
    /// X25519 private key of this end, 32 bytes.
    pub private_key: Secret,
    /// Pre-shared key, 32 bytes; empty without one.
    pub psk: Secret,
}

/// State of the secure wire that survives a worker, and what is shown of a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecureState {
    /// Greatest timestamp of an initiation whose session was confirmed.
    pub heard: Timestamp,
    /// Greatest timestamp that was sent.
    pub sent: Timestamp,
    /// The current session; a new worker has none, whatever this says.
    pub session: Option<SessionReport>,
    /// What keeps the next one from coming about.
    pub trouble: Option<Trouble>,
    /// Counts, which go on.
    pub counts: SecureCounters,
}

impl SecureState {
    /// Sets counts back to zero.
    pub fn reset(&mut self, counts: Counts) {
        self.counts.reset(counts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overhead_is_that_of_the_specification() {
        assert_eq!((Secure::LONGEST, Secure::largest_frame(1472), Secure::largest_frame(7)), (9270, 1436, 0));
    }
}
