//! Types of the channel.

/// A moment, as an initiation carries it: since the beginning of 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionCipher {
    /// AES-256-GCM.
    Aes256Gcm,
    /// ChaCha20-Poly1305.
    ChaCha20Poly1305,
}

/// A current session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionReport {
    /// Its cipher.
    pub cipher: SessionCipher,
    /// Milliseconds since it is current.
    pub age_ms: u64,
    /// Whether this end has begun it.
    pub began_here: bool,
}

/// What keeps a session from coming about, as far as the protocol lets one know (docs/WIRE.md, "What an end can say").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// `mac2` is wrong and `mac1` right: who sends knows this end's key, and is not the peer of the file.
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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

/// Counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SecureCounters {
    pub handshakes: u64,
    pub rekeys: u64,
    pub replays: u64,
    pub auth_failures: u64,
    pub dropped_initiations: u64,
    pub dropped_messages: u64,
    pub dropped_content: u64,
}
