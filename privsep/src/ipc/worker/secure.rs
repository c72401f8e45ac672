//! The secure wire, as supervisor and worker speak of it: what a worker is told, and what it says of its session.

use serde::{Deserialize, Serialize};

use super::settings::MAX_FRAME;
use super::{Counts, SecureCounters};

/// Settings of the secure wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secure {
    /// X25519 public key of the peer, which has been checked.
    pub peer_key: [u8; 32],
    /// Longest datagram in bytes of UDP payload that leaves whole by every path; from 1232 to [`Secure::LONGEST`].
    pub datagram: u16,
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

/// A moment, as an initiation carries it: since the beginning of 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Timestamp {
    /// Whole seconds; of what a supervisor hands on, at most [`Timestamp::MAX`]'s.
    pub seconds: u64,
    /// Nanoseconds beyond, less than 10^9.
    pub nanoseconds: u32,
}

impl Timestamp {
    /// Later than any clock shows, and far enough from the end that no sum overflows.
    pub const MAX: Self = Self { seconds: 1 << 62, nanoseconds: 999_999_999 };

    /// The same with numbers that are possible.
    #[must_use]
    pub fn bounded(self) -> Self {
        let nanoseconds = self.nanoseconds.min(Self::MAX.nanoseconds);
        Self { nanoseconds, ..self }.min(Self::MAX)
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
    /// `mac0` is wrong and `mac1` right: who sends knows this end's key, and is not the peer of the file.
    OtherPeerKey,
    /// Both are wrong, from the peer's address: the peer's file has another key for this end.
    OurKeyUnknown,
    /// A response whose payload does not open.
    Psk,
    /// The peer's clock is behind what it was.
    Clock {
        /// By so many milliseconds.
        behind_ms: u64,
    },
    /// The peer speaks this version.
    Version(u8),
}

/// What survives a worker of the secure wire, and what is shown of it. A worker whose wire is another leaves it as it is.
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
    fn a_timestamp_of_any_numbers_can_be_counted_on() {
        for (seconds, nanoseconds) in [(0, 0), (7, u32::MAX), (u64::MAX, 0), (u64::MAX, u32::MAX)] {
            let bounded = Timestamp { seconds, nanoseconds }.bounded();
            assert!(bounded <= Timestamp::MAX && bounded.nanoseconds < 1_000_000_000);
            assert!(bounded.seconds.checked_add(1 << 62).is_some());
        }
        let exact = Timestamp { seconds: 1_764_000_000, nanoseconds: 999_999_999 };
        assert_eq!(exact.bounded(), exact);
        assert!(exact < Timestamp { seconds: exact.seconds + 1, nanoseconds: 0 });
    }

    #[test]
    fn the_overhead_is_that_of_the_specification() {
        assert_eq!((Secure::LONGEST, Secure::largest_frame(1472), Secure::largest_frame(7)), (9270, 1436, 0));
    }
}
