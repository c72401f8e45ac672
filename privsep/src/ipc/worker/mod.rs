//! Messages between supervisor and worker.
//!
//! Lifetimes: [`Settings`] and [`Secrets`] are the same for every worker of a tunnel. [`State`] is the last report of the previous
//! worker. An order, such as the one to drain, is for one worker.

mod classic;
mod clock;
mod counters;
mod secret;
mod secure;
mod settings;
mod state;

use serde::{Deserialize, Serialize};

pub use classic::*;
pub use clock::Moment;
pub use counters::*;
pub use secret::*;
pub use secure::*;
pub use settings::*;
pub use state::*;

use super::{Address, MAX_PATHS, Message};

/// Supervisor to worker.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToWorker {
    /// First message; [`ToWorker::Secrets`] follow.
    Start {
        /// [`crate::PROTOCOL`] of the supervisor.
        protocol: u32,
        /// Settings, the same for every worker of the tunnel.
        settings: Box<Settings>,
        /// State from which the worker continues.
        state: Box<State>,
        /// Whether frames and datagrams that already wait are too old, and are dropped.
        drain: bool,
    },
    /// Second message.
    Secrets(Secrets),
    /// Asks for a [`FromWorker::Report`] now, in addition to the one of each tick.
    Report,
    /// Clears counters.
    Reset(Counts),
    /// New address of the peer on the path with this number, whose remote is a name.
    Remote(u8, Address),
}

impl Message for ToWorker {
    /// Room for a pair for each VLAN id, at most 6 bytes each, or for a key and a password.
    const MAX: usize = 4096 * 6 + 8192;
}

/// Confinement that a worker has reached. A feature that the kernel lacks is reported and not fatal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Landlock ABI in force; 0 without Landlock.
    pub landlock_abi: u32,
    /// Memory-deny-write-execute.
    pub mdwe: bool,
    /// The seccomp allow-list; always true for a confined worker.
    pub seccomp: bool,
}

/// Piece of a report: first the tunnel, then each path in order.
#[allow(clippy::large_enum_variant)] // One exists at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// Everything except the paths, and the number of paths that follow.
    Tunnel(State, u8),
    /// A path, with its number.
    Path(u8, PathReport),
}

/// Assembles the pieces of a report.
#[derive(Debug, Default)]
pub struct Reports {
    /// State so far, and the number of paths of the whole report.
    begun: Option<(State, u8)>,
}

impl Reports {
    /// Splits a state into pieces.
    pub fn pieces(mut state: State) -> impl Iterator<Item = Report> {
        let paths = std::mem::take(&mut state.paths);
        let tunnel = Report::Tunnel(state, u8::try_from(paths.len()).unwrap_or(u8::MAX));
        std::iter::once(tunnel).chain((0..u8::MAX).zip(paths).map(|(number, path)| Report::Path(number, path)))
    }

    /// Takes a piece. Returns the state once it is complete.
    ///
    /// # Errors
    /// Fails if the piece is out of order.
    pub fn take(&mut self, piece: Report) -> Result<Option<State>, super::Error> {
        let (state, paths) = match (self.begun.take(), piece) {
            (None, Report::Tunnel(state, paths)) if state.paths.is_empty() => (state, paths),
            (Some((mut state, paths)), Report::Path(number, path)) if usize::from(number) == state.paths.len() => {
                state.paths.push(path);
                (state, paths)
            }
            _ => return Err(super::Error::Violation("message out of place")),
        };
        if state.paths.len() == usize::from(paths) {
            return Ok(Some(state));
        }
        self.begun = Some((state, paths));
        Ok(None)
    }
}

/// Most messages of a worker between two tick reports, in addition to its reports: health and address of each path, and four more.
/// A worker that sends more is hostile.
#[allow(clippy::cast_possible_truncation)] // 20.
pub const MAX_UNASKED: u32 = 2 * MAX_PATHS as u32 + 4;

/// Worker to supervisor. The supervisor treats every message as hostile input.
#[allow(clippy::large_enum_variant)] // One exists at a time.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromWorker {
    /// The worker is confined, and all its loops run.
    Confined(Confinement),
    /// Counters and health: once in each tick, and on request. A report is also the sign of life: since the tick or the request
    /// every loop has run, or had nothing to do at the tick.
    Report(Report),
    /// The health of a path has changed.
    Health(u8, PathHealth),
    /// Frames now leave by this path, for this reason.
    Active(u8, Option<ChangeReason>),
    /// The address of a path has been learned, or has moved.
    Learned(u8, Address),
    /// The worker has run for its number of ticks.
    Finished,
    /// Last words: location and message of a panic or a fatal error.
    Dying(String),
}

impl Message for FromWorker {
    const MAX: usize = 2048;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(paths: usize) -> State {
        let path = |number| PathReport { last_pong: number, ..PathReport::default() };
        State { tick: 7, paths: (0..paths as u64).map(path).collect(), ..State::default() }
    }

    #[test]
    fn report_pieces_fit_and_reassemble() {
        for paths in [0, 1, 2, 200] {
            let mut reports = Reports::default();
            let mut whole = None;
            for piece in Reports::pieces(state(paths)) {
                assert!(whole.is_none());
                assert!(postcard::to_allocvec(&FromWorker::Report(piece.clone())).unwrap().len() < FromWorker::MAX);
                whole = reports.take(piece).unwrap();
            }
            assert_eq!(whole, Some(state(paths)));
        }
    }

    /// Numbers that take ten bytes each.
    fn huge<T: serde::de::DeserializeOwned>(count: usize) -> T {
        postcard::from_bytes(&[[0xff; 9].as_slice(), &[1]].concat().repeat(count)).unwrap()
    }

    #[test]
    fn greatest_messages_fit() {
        let counters = huge(PathCounters::ALL.len());
        let address = Address((std::net::Ipv6Addr::from(u128::MAX), u16::MAX).into());
        let (learned, local) = (Some(address), Some(address.0.ip()));
        let path =
            PathReport { learned, local, last_pong: u64::MAX, rtt_us: u64::MAX, counters, ..PathReport::default() };
        let secure = SecureState { counts: huge(SecureCounters::ALL.len()), ..SecureState::default() };
        let state = State {
            port: huge(PortCounters::ALL.len()),
            seal: huge(SealCounters::ALL.len()),
            wire: WireState::Secure(secure),
            paths: vec![path; MAX_PATHS],
            ..State::default()
        };
        let vlan_map = (0..4096).map(|id| (u16::MAX - id, id)).collect();
        let settings = Settings {
            wire: Wire::Secure(Secure { peer_key: [0xff; 32], tunnel: [0xff; 8], ..Secure::default() }),
            remotes: vec![Remote::Named { now: Some(address), before: Some(address) }; MAX_PATHS],
            locals: vec![address; MAX_PATHS],
            rules: Rules { vlan_map, ..Rules::default() },
            announcement: Some(Announcement { mac: [0xff; 6], addresses: vec![address.0.ip(); 64], router: true }),
            ..Settings::default()
        };
        let pieces = Reports::pieces(state.clone());
        let longest = pieces.map(|piece| postcard::to_allocvec(&FromWorker::Report(piece)).unwrap().len()).max();
        assert!(longest < Some(FromWorker::MAX / 2), "{longest:?}");
        let (settings, state) = (Box::new(settings), Box::new(state));
        let start = ToWorker::Start { protocol: u32::MAX, settings, state, drain: true };
        assert!(postcard::to_allocvec(&start).unwrap().len() < ToWorker::MAX - 1024);
    }

    #[test]
    fn unordered_report_pieces_are_refused() {
        let pieces: Vec<_> = Reports::pieces(state(2)).collect();
        for order in [&[1][..], &[0, 0], &[0, 2], &[0, 1, 1], &[0, 1, 0]] {
            let mut reports = Reports::default();
            let results: Vec<_> = order.iter().map(|&piece| reports.take(pieces[piece].clone())).collect();
            assert!(results.last().unwrap().is_err(), "{order:?}");
        }
        let whole_in_one = Report::Tunnel(state(1), 1);
        assert!(Reports::default().take(whole_in_one).is_err());
    }
}
