//! Secure wire between supervisor and worker: settings, secrets, state and reports of a session.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::settings::MAX_FRAME;
use super::{Counts, Secret, SecureCounters};
use crate::ipc::MAX_PATHS;

/// Use of several paths by the frames that leave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Policy {
    /// All frames leave by the best path.
    #[default]
    Failover,
    /// Each frame leaves by the two best paths.
    Duplicate,
    /// Each flow leaves by one of the good paths, in proportion to their weights.
    Balance,
}

impl Policy {
    /// Name in file and status.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failover => "failover",
            Self::Duplicate => "duplicate",
            Self::Balance => "balance",
        }
    }
}

/// Settings of the secure wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secure {
    /// X25519 public key of the peer, already checked.
    pub peer_key: [u8; 32],
    /// Tunnel identifier, the same at both ends; zeros without one.
    pub tunnel: [u8; 8],
    /// Receiver index of initiations to the peer; zero if none is known.
    pub peer_index: u32,
    /// Longest datagram in bytes of UDP payload of any path; from 1232 to [`Secure::LONGEST`].
    pub datagram: u16,
    /// Interval between pings in seconds, at least 1.
    pub ping_interval: u8,
    /// Use of several paths.
    pub policy: Policy,
    /// Share of each path in the flows of [`Policy::Balance`], 1 to 100.
    pub weights: [u8; MAX_PATHS],
}

impl Secure {
    /// Bytes added to a frame: header and tag of the datagram, and the header of the content.
    pub const OVERHEAD: u16 = 36;
    /// Length in bytes of the datagram with the longest frame.
    #[allow(clippy::cast_possible_truncation)] // 9270.
    pub const LONGEST: u16 = MAX_FRAME as u16 + Self::OVERHEAD;

    /// Number of datagrams in the long run of a check whether runs arrive: 8, or fewer where they are jumbo frames.
    pub fn long_run(datagram: u16) -> u16 {
        (16_384 / datagram.max(1)).clamp(3, 8)
    }

    /// Longest frame in bytes that fits into `payload` bytes once sealed.
    pub fn largest_frame(payload: u32) -> u32 {
        payload.saturating_sub(Self::OVERHEAD.into())
    }
}

/// Timestamp of an initiation: nanoseconds since the beginning of 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Later than the time of any clock: in the year 2262.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// Time of the wall clock.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)).bounded()
    }

    /// The timestamp, at most [`Timestamp::MAX`].
    #[must_use]
    pub fn bounded(self) -> Self {
        self.min(Self::MAX)
    }
}

/// Cipher that seals the data of a session.
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
    /// Age of its keys in milliseconds.
    pub age_ms: u64,
    /// Whether this end initiated it.
    pub began_here: bool,
}

/// Reason why no session is established, as far as the protocol shows it (docs/WIRE.md, "What an end can say").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trouble {
    /// `mac0` is wrong and `mac1` right: the sender knows this end's public key and is not the peer of this tunnel.
    OtherPeerKey,
    /// Both MACs are wrong, and the source is the peer's address: the peer's file has another key for this end.
    OurKeyUnknown,
    /// `mac0` is right and `mac2` wrong: the pre-shared keys differ.
    Psk,
    /// The peer's clock is behind its earlier time.
    Clock {
        /// Difference in milliseconds.
        behind_ms: u64,
    },
    /// More initiations with right MACs arrive than a peer makes: an attacker has a private key.
    StolenKey,
    /// A response to an expired attempt.
    Late {
        /// Milliseconds from the start of the attempt to the response.
        after_ms: u64,
    },
    /// The peer uses this version of the protocol.
    Version(u8),
    /// The peer uses a draft of this version.
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

/// State of the secure wire that survives a worker, and the status of its session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecureState {
    /// Greatest timestamp of an initiation that led to a confirmed session.
    pub heard: Timestamp,
    /// Greatest timestamp sent.
    pub sent: Timestamp,
    /// Current session. A new worker starts without one.
    pub session: Option<SessionReport>,
    /// Reason why no new session is established.
    pub trouble: Option<Trouble>,
    /// Counters, which continue over workers.
    pub counts: SecureCounters,
}

impl SecureState {
    /// Clears counters.
    pub fn reset(&mut self, counts: Counts) {
        self.counts.reset(counts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overhead_matches_specification() {
        assert_eq!((Secure::LONGEST, Secure::largest_frame(1472), Secure::largest_frame(7)), (9270, 1436, 0));
    }
}
