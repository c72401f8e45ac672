//! State of a tunnel: reported by a worker, and passed to the next one.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{ClassicState, Counts, PathCounters, PortCounters, SealCounters, SecureState, Settings, Wire};
use crate::ipc::Address;

/// State that survives a worker. `src/supervise/children/resume.rs` gives the reason for each field.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Ticks passed, about one a second.
    pub tick: u64,
    /// Number of the best path, by which frames leave.
    pub active: u8,
    /// Whether no frame is forwarded, because of a loop.
    pub blocked: bool,
    /// The local side.
    pub port: PortCounters,
    /// Effect of compression and encryption on the size of frames.
    pub seal: SealCounters,
    /// State of the wire.
    pub wire: WireState,
    /// Each path.
    pub paths: Vec<PathReport>,
}

/// State of a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WireState {
    /// State of the classic wire.
    Classic(ClassicState),
    /// State of the secure wire.
    Secure(SecureState),
}

impl Default for WireState {
    fn default() -> Self {
        Self::Classic(ClassicState::default())
    }
}

impl State {
    /// State of a tunnel before its first worker.
    pub fn new(settings: &Settings) -> Self {
        let wire = match settings.wire {
            Wire::Classic(_) => WireState::Classic(ClassicState::default()),
            Wire::Secure(_) => WireState::Secure(SecureState::default()),
        };
        Self { wire, paths: vec![PathReport::default(); settings.remotes.len()], ..Self::default() }
    }

    /// Whether both states have the same wire and as many paths.
    pub fn is_shaped_like(&self, other: &Self) -> bool {
        let wire = |state: &Self| std::mem::discriminant(&state.wire);
        wire(self) == wire(other) && self.paths.len() == other.paths.len()
    }

    /// State of the classic wire, if the tunnel uses it.
    pub fn classic(&self) -> Option<&ClassicState> {
        match &self.wire {
            WireState::Classic(classic) => Some(classic),
            WireState::Secure(_) => None,
        }
    }

    /// State of the secure wire, if the tunnel uses it.
    pub fn secure(&self) -> Option<&SecureState> {
        match &self.wire {
            WireState::Classic(_) => None,
            WireState::Secure(secure) => Some(secure),
        }
    }

    /// Clears counters.
    pub fn reset(&mut self, counts: Counts) {
        self.port.reset(counts);
        self.seal.reset(counts);
        if let WireState::Secure(secure) = &mut self.wire {
            secure.reset(counts);
        }
        self.paths.iter_mut().for_each(|path| path.counters.reset(counts));
    }
}

/// Health of a path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathHealth {
    /// The peer has not answered yet.
    #[default]
    Connecting,
    /// The peer answers.
    Up,
    /// The peer has answered before, and does not answer now.
    Down,
}

/// Reason of the last change of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeReason {
    /// The peer answers, for the first time or again.
    Answers,
    /// The peer does not answer.
    Silent,
    /// Too many datagrams are lost on the way to the peer.
    Loss,
    /// The round trip takes too long.
    Delay,
    /// The path has been good for its hold time.
    Good,
}

/// Last change of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastChange {
    /// Reason of the change.
    pub reason: ChangeReason,
    /// Milliseconds since the change.
    pub age_ms: u64,
}

/// Datagrams that a path carries, as far as this worker knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carries {
    /// Length in bytes of the longest datagrams that leave by the path.
    pub datagram: u16,
    /// Whether the search for this length is over.
    pub searched: bool,
    /// Whether datagrams of this length do not arrive, although small ones do; `None` while that is unknown.
    pub loses: Option<bool>,
    /// Whether runs of datagrams (`UDP_SEGMENT`) arrive; `None` while that is unknown.
    pub runs: Option<bool>,
}

/// Report of a worker on one path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathReport {
    /// Health at the last tick.
    pub health: PathHealth,
    /// Whether frames leave by this path.
    pub active: bool,
    /// The learned address.
    pub learned: Option<Address>,
    /// Local address that the peer uses, if the kernel would choose another.
    pub local: Option<IpAddr>,
    /// Tick of the last PONG; on the classic wire the tick less one for each later PING.
    pub last_pong: u64,
    /// Round trip time in microseconds: smoothed on the secure wire, of the last PING on the classic wire; 0 before the first PONG.
    pub rtt_us: u64,
    /// Mean deviation of the round trip time in microseconds; 0 on the classic wire.
    pub jitter_us: u64,
    /// Lost datagrams in a thousand on the way to the peer; `None` while unknown.
    pub loss_to_peer: Option<u16>,
    /// Lost datagrams in a thousand on the way from the peer; `None` while unknown.
    pub loss_from_peer: Option<u16>,
    /// Last change of the path, if this worker has seen one.
    pub change: Option<LastChange>,
    /// Milliseconds since this worker received the last datagram.
    pub last_rx_ms: Option<u64>,
    /// Datagrams that the path carries, on the secure wire.
    pub carries: Carries,
    /// Counters.
    pub counters: PathCounters,
}
