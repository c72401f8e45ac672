//! Wire formats: they encode frames as datagrams and keep a tunnel alive. They are state machines without I/O, clocks or locks.
//! Input is a batch with its origin, and the time in microseconds since the worker's start. Output is datagrams with destinations,
//! frames, and the time of the next deadline.
//!
//! A [`Session`] receives and knows the peer; the inward loop owns it. A [`Sealer`] sends; each loop that takes frames from the
//! local side owns one. A sealer knows the session only by its [`Route`], a copy that is replaced after a change.

pub mod classic;
pub mod counters;
pub mod outbox;
pub mod paths;
pub mod route;
pub mod secure;
pub mod spread;
pub mod ticks;

use std::io;
use std::net::SocketAddr;

use privsep::ipc::{Counts, Secrets, Settings, State, Wire};

use crate::batch::Batch;
pub use counters::Counters;
pub use outbox::Outbox;
pub use route::{Departure, Route};

/// Makes the session and the sealer of a tunnel.
///
/// # Errors
/// As [`secure::machines`], and when the secrets belong to another wire.
pub fn machines(settings: &Settings, secrets: &Secrets, state: &State) -> io::Result<(Session, Sealer)> {
    match (&settings.wire, secrets) {
        (Wire::Classic(classic), Secrets::Classic(secrets)) => {
            let (session, sealer) = classic::machines(settings, classic, secrets, state);
            Ok((Session::Classic(session), Sealer::Classic(sealer)))
        }
        (Wire::Secure(secure), Secrets::Secure(secrets)) => {
            let (session, sealer) = secure::machines(settings, secure, secrets, state)?;
            Ok((Session::Secure(session), Sealer::Secure(sealer)))
        }
        _ => Err(io::Error::other("secrets of another wire")),
    }
}

/// Session of a tunnel: receives datagrams, keeps the paths alive and knows the peer. The inward loop owns it.
///
/// A session does no I/O. The loop calls it in one of two cases and then takes over what the call has left:
///
/// 1. Input: [`receive`](Self::receive) with datagrams of one path, or [`on_time`](Self::on_time) once the time is
///    [`due_us`](Self::due_us). Both take the time in microseconds since the start of the worker; it never decreases.
/// 2. Output, after each of them: frames are in the batch that was received, datagrams to send in the [`Outbox`], which the loop
///    empties. The [`route`](Self::route) may have changed; the loop then gives a copy to every [`Sealer`]. The next `due_us` may be
///    earlier.
///
/// [`tell`](Self::tell) gives it an address of the peer that the supervisor has looked up.
/// [`is_over`](Self::is_over) ends the worker. For the supervisor, [`report`](Self::report) returns the state from which a next
/// session goes on, and [`reset`](Self::reset) clears counts. Traffic is counted in [`Counters`], which the loops share.
#[allow(clippy::large_enum_variant)] // One exists in a process.
pub enum Session {
    /// Session of `EthUDP`'s wire.
    Classic(classic::Session),
    /// Session of the wire in docs/WIRE.md.
    Secure(secure::Session),
}

/// Sealer of a tunnel: makes frames datagrams. Each loop that takes frames from the local side owns one.
///
/// A sealer knows the peer only by its [`Route`], a copy of the session's. The loop calls [`set_route`](Self::set_route) when the
/// session has published another, even if no frame arrives: the route holds the key of the session. [`route`](Self::route) returns
/// the copy.
///
/// [`seal`](Self::seal) takes a batch of frames and returns datagrams and [`Departure`]s. The datagrams are in the same batch, or in
/// memory of the sealer where frames leave in pieces; both stay borrowed until they are sent. A departure names a path, a target
/// and a range of the datagrams. The loop sends every departure; there may be none.
///
/// [`carries_facts`](Self::carries_facts) and [`has_session`](Self::has_session) tell the loop which frames it may give.
#[allow(clippy::large_enum_variant)] // As many exist as loops.
pub enum Sealer {
    /// Sealer of `EthUDP`'s wire.
    Classic(classic::Sealer),
    /// Sealer of the wire in docs/WIRE.md.
    Secure(secure::Sealer),
}

impl Session {
    /// Receives datagrams of a path and replaces them in the batch by the frames for the local side. Answers go to `out`.
    pub fn receive(&mut self, path: usize, batch: &mut Batch, now_us: u64, counters: &Counters, out: &mut Outbox) {
        match self {
            Self::Classic(session) => session.receive(path, batch, now_us, counters, out),
            Self::Secure(session) => session.receive(path, batch, now_us, counters, out),
        }
    }

    /// Does the work that is due at this time. Messages go to `out`.
    pub fn on_time(&mut self, now_us: u64, counters: &Counters, out: &mut Outbox) {
        match self {
            Self::Classic(session) => session.on_time(now_us, counters, out),
            Self::Secure(session) => session.on_time(now_us, counters, out),
        }
    }

    /// Takes a new address of a path whose remote is a name. A path that works moves when the peer answers there, another one at
    /// once. Messages go to `out`.
    pub fn tell(&mut self, path: usize, address: SocketAddr, now_us: u64, counters: &Counters, out: &mut Outbox) {
        match self {
            Self::Classic(session) => session.tell(path, address, counters, out),
            Self::Secure(session) => session.tell(path, address, now_us, counters, out),
        }
    }

    /// Begins to probe the paths fast, because frames leave. [`Counters::resting`] tells when the loop must call it.
    pub fn arm(&mut self, now_us: u64) {
        if let Self::Secure(session) = self {
            session.arm(now_us);
        }
    }

    /// Excludes a time up to now, in which the loop did not read what had arrived, from the silence of the paths.
    pub fn forgive(&mut self, deaf_us: u64, now_us: u64) {
        if let Self::Secure(session) = self {
            session.forgive(deaf_us, now_us);
        }
    }

    /// Whether a report would tell of a change or of a tick.
    pub fn has_news(&self) -> bool {
        match self {
            // Its deadlines are its ticks.
            Self::Classic(_) => true,
            Self::Secure(session) => session.has_news(),
        }
    }

    /// Time of the next deadline, in microseconds.
    pub fn due_us(&self) -> u64 {
        match self {
            Self::Classic(session) => session.due_us(),
            Self::Secure(session) => session.due_us(),
        }
    }

    /// Whether the last tick is over.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Classic(session) => session.is_over(),
            Self::Secure(session) => session.is_over(),
        }
    }

    /// Current route.
    pub fn route(&self) -> &Route {
        match self {
            Self::Classic(session) => session.route(),
            Self::Secure(session) => session.route(),
        }
    }

    /// State for the next worker and for the status, without the counts of [`Counters`].
    pub fn report(&mut self, now_us: u64) -> State {
        match self {
            Self::Classic(session) => session.report(now_us),
            Self::Secure(session) => session.report(now_us),
        }
    }

    /// Clears the session's own counters.
    pub fn reset(&mut self, counts: Counts) {
        match self {
            // All its counters are in [`Counters`].
            Self::Classic(_) => {}
            Self::Secure(session) => session.reset(counts),
        }
    }
}

impl Sealer {
    /// Seals the frames of the batch, in place if possible. Returns datagrams and departures; there is no departure if the peer's
    /// address is unknown.
    pub fn seal<'a>(&'a mut self, frames: &'a mut Batch, counters: &Counters) -> (&'a Batch, &'a [Departure]) {
        match self {
            Self::Classic(sealer) => sealer.seal(frames, counters),
            Self::Secure(sealer) => sealer.seal(frames, counters),
        }
    }

    /// Sets the route of later frames.
    pub fn set_route(&mut self, route: &Route) {
        match self {
            Self::Classic(sealer) => sealer.set_route(route),
            Self::Secure(sealer) => sealer.set_route(route),
        }
    }

    /// Current route.
    pub fn route(&self) -> &Route {
        match self {
            Self::Classic(sealer) => sealer.route(),
            Self::Secure(sealer) => sealer.route(),
        }
    }

    /// Whether a session of the secure wire has keys.
    pub fn has_session(&self) -> bool {
        self.route().sending.is_some()
    }

    /// Whether the peer carries congestion marks of datagrams into frames.
    pub fn peer_carries_ecn(&self) -> bool {
        self.route().sending.as_ref().is_some_and(|sending| sending.carries_ecn)
    }

    /// Whether a frame may travel with a partial checksum.
    pub fn carries_facts(&self) -> bool {
        matches!(self, Self::Secure(_))
    }
}
