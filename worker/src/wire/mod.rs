//! Wire formats: how frames become datagrams and back, and what keeps a tunnel alive. State machines without I/O, clock or
//! lock: batches with their origin go in, and the time in microseconds since the worker's start; datagrams with their
//! destination and frames come out. A machine says when it is due next.
//!
//! A [`Session`] receives and knows the peer; one loop has it. A [`Sealer`] sends; each loop that takes frames from the local
//! side has one of its own. What a sealer must know of the session is its [`Route`], a copy that is replaced when it changes.

pub mod classic;
pub mod health;
mod outbox;
pub mod remote;
pub mod secure;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use privsep::ipc::{Counts, Secrets, Settings, SharedPath, SharedPort, SharedSeal, State, Wire};

use crate::batch::Batch;
pub use outbox::Outbox;

/// Where a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its address.
    pub remote: SocketAddr,
    /// Our address that its datagrams come to, where we have several: what it hears from another may not reach it.
    pub local: Option<IpAddr>,
}

impl From<SocketAddr> for Place {
    fn from(remote: SocketAddr) -> Self {
        Self { remote, local: None }
    }
}

/// Where the datagrams of a path go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Where the path always goes. From which address of ours is the kernel's choice, unless the peer hears another one alone.
    Fixed(Place),
    /// To this place.
    Place(Place),
    /// Nobody has been learned yet.
    Nobody,
}

impl Target {
    /// The peer's address, as far as it is known.
    pub fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Fixed(place) | Self::Place(place) => Some(place.remote),
            Self::Nobody => None,
        }
    }
}

/// Where frames go: what a session knows and its sealers must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Number of the path that frames leave by.
    pub active: usize,
    /// Where each path leads; never none.
    pub targets: Vec<Target>,
    /// What seals frames, where a session does; the same only as itself.
    pub sending: Option<Arc<secure::Sending>>,
}

impl Route {
    /// Path and target of the frames that leave now.
    pub fn now(&self) -> (usize, Target) {
        let active = self.active.min(self.targets.len().saturating_sub(1));
        (active, self.targets.get(active).copied().unwrap_or(Target::Nobody))
    }

    /// The addresses of all peers that are known.
    pub fn peers(&self) -> impl Iterator<Item = SocketAddr> {
        self.targets.iter().filter_map(|target| target.address())
    }
}

/// Where a machine counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// The local side.
    pub port: SharedPort,
    /// What sealing did to the size of frames.
    pub seal: SharedSeal,
    /// Each path.
    pub paths: Vec<SharedPath>,
}

impl Counters {
    /// Goes on from where an earlier worker had come to.
    pub fn new(state: &State, paths: usize) -> Self {
        let path =
            |number: usize| state.paths.get(number).map(|path| SharedPath::new(&path.counters)).unwrap_or_default();
        Self {
            port: SharedPort::new(&state.port),
            seal: SharedSeal::new(&state.seal),
            paths: (0..paths).map(path).collect(),
        }
    }
}

/// Makes the machines of a tunnel.
///
/// # Errors
/// As [`secure::machines`].
pub fn machines(settings: &Settings, secrets: &Secrets, state: &State) -> io::Result<(Session, Sealer)> {
    match &settings.wire {
        Wire::Classic(classic) => {
            let (session, sealer) = classic::machines(settings, classic, secrets, state);
            Ok((Session::Classic(session), Sealer::Classic(sealer)))
        }
        Wire::Secure(secure) => {
            let (session, sealer) = secure::machines(settings, secure, secrets, state)?;
            Ok((Session::Secure(session), Sealer::Secure(sealer)))
        }
    }
}

/// What receives, keeps alive and knows the peer.
#[allow(clippy::large_enum_variant)] // There is one in a process.
pub enum Session {
    /// `EthUDP`'s.
    Classic(classic::Session),
    /// That of docs/WIRE.md.
    Secure(secure::Session),
}

/// What sends frames.
#[allow(clippy::large_enum_variant)] // There are as many as loops.
pub enum Sealer {
    /// `EthUDP`'s.
    Classic(classic::Sealer),
    /// That of docs/WIRE.md.
    Secure(secure::Sealer),
}

impl Session {
    /// Takes the datagrams that have come by a path, and leaves the frames in them for the local side. Answers go to `out`.
    pub fn receive(&mut self, path: usize, batch: &mut Batch, now_us: u64, counters: &Counters, out: &mut Outbox) {
        match self {
            Self::Classic(session) => session.receive(path, batch, now_us, counters, out),
            Self::Secure(session) => session.receive(path, batch, now_us, counters, out),
        }
    }

    /// Does what is due.
    pub fn on_time(&mut self, now_us: u64, counters: &Counters, out: &mut Outbox) {
        match self {
            Self::Classic(session) => session.on_time(now_us, counters, out),
            Self::Secure(session) => session.on_time(now_us, counters, out),
        }
    }

    /// When something is due next, in microseconds.
    pub fn due_us(&self) -> u64 {
        match self {
            Self::Classic(session) => session.due_us(),
            Self::Secure(session) => session.due_us(),
        }
    }

    /// Whether its last tick is over.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Classic(session) => session.is_over(),
            Self::Secure(session) => session.is_over(),
        }
    }

    /// Where frames go now.
    pub fn route(&self) -> &Route {
        match self {
            Self::Classic(session) => session.route(),
            Self::Secure(session) => session.route(),
        }
    }

    /// What the next worker is to know, and whoever asks for the status: all but counts.
    pub fn report(&mut self, now_us: u64) -> State {
        match self {
            Self::Classic(session) => session.report(now_us),
            Self::Secure(session) => session.report(now_us),
        }
    }

    /// Sets what it counts by itself back to zero.
    pub fn reset(&mut self, counts: Counts) {
        match self {
            // All is in [`Counters`].
            Self::Classic(_) => {}
            Self::Secure(session) => session.reset(counts),
        }
    }
}

impl Sealer {
    /// Makes the frames of the batch datagrams, in place where that is possible, and returns them with the path to send them
    /// by; none where nobody is known to send them to.
    pub fn seal<'a>(&'a mut self, frames: &'a mut Batch, counters: &Counters) -> (&'a Batch, usize, Target) {
        match self {
            Self::Classic(sealer) => sealer.seal(frames, counters),
            Self::Secure(sealer) => sealer.seal(frames, counters),
        }
    }

    /// Where frames go from now on.
    pub fn set_route(&mut self, route: &Route) {
        match self {
            Self::Classic(sealer) => sealer.set_route(route),
            Self::Secure(sealer) => sealer.set_route(route),
        }
    }

    /// Where frames go.
    pub fn route(&self) -> &Route {
        match self {
            Self::Classic(sealer) => sealer.route(),
            Self::Secure(sealer) => sealer.route(),
        }
    }

    /// Whether a frame's checksum can travel as it is, still to be completed.
    pub fn carries_facts(&self) -> bool {
        matches!(self, Self::Secure(_))
    }
}
