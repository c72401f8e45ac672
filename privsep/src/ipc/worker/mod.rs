//! Messages between supervisor and worker.
//!
//! By lifetime: [`Settings`] and [`Secrets`] are the same for every worker of a tunnel, [`State`] is what the previous worker
//! reported last, and an order such as to drain is for one worker.

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

use super::{Address, Message};

/// Supervisor to worker.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToWorker {
    /// First message; [`ToWorker::Secrets`] follow.
    Start {
        /// [`crate::PROTOCOL`] of the supervisor.
        protocol: u32,
        /// What is the same for every worker of the tunnel.
        settings: Box<Settings>,
        /// Where the worker before this one had come to.
        state: Box<State>,
        /// What waits already has waited too long, and is not delivered any more.
        drain: bool,
    },
    /// Second message.
    Secrets(Secrets),
    /// Have a [`FromWorker::Report`] now, besides the one of each tick.
    Report,
    /// Set counts back to zero.
    Reset(Counts),
}

impl Message for ToWorker {
    /// A pair for each VLAN id, 6 bytes at most, or a key and a password.
    const MAX: usize = 4096 * 6 + 8192;
}

/// What confinement a worker has reached; what the kernel lacks is reported, not fatal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Landlock ABI in force; 0 without Landlock.
    pub landlock_abi: u32,
    /// Memory-deny-write-execute.
    pub mdwe: bool,
    /// The seccomp allow-list; always true for a worker that is confined.
    pub seccomp: bool,
}

/// A report comes in pieces: of the tunnel, then of each path in their order.
#[allow(clippy::large_enum_variant)] // Taken apart one at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// Everything but its paths, and how many of them follow.
    Tunnel(State, u8),
    /// A path, by its number.
    Path(u8, PathReport),
}

/// Puts the pieces of a report together.
#[derive(Debug, Default)]
pub struct Reports {
    /// What has come, and how many paths are to come in all.
    begun: Option<(State, u8)>,
}

impl Reports {
    /// The pieces of a state.
    pub fn pieces(mut state: State) -> impl Iterator<Item = Report> {
        let paths = std::mem::take(&mut state.paths);
        let tunnel = Report::Tunnel(state, u8::try_from(paths.len()).unwrap_or(u8::MAX));
        std::iter::once(tunnel).chain((0..u8::MAX).zip(paths).map(|(number, path)| Report::Path(number, path)))
    }

    /// Takes a piece and returns the state when it is whole.
    ///
    /// # Errors
    /// When the piece is not the one that follows.
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

/// Messages of a worker besides its reports, from the report of one tick to that of the next, beyond which it counts as hostile.
pub const MAX_UNASKED: u32 = 20;

/// Worker to supervisor. The supervisor takes all of it as hostile.
#[allow(clippy::large_enum_variant)] // As above.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromWorker {
    /// Confined, and all loops run.
    Confined(Confinement),
    /// Counters and health: once in each tick, and when asked for. This is the sign of life, too: every loop has passed since the tick
    /// or the question, or had nothing to do at the tick.
    Report(Report),
    /// Health of a path has changed.
    Health(u8, PathHealth),
    /// Frames now leave by this path.
    Active(u8),
    /// The address of a path has been learned, or has moved.
    Learned(u8, Address),
    /// The ticks that the worker was to run are over.
    Finished,
    /// Last words: place and message of a panic or a fatal error.
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
    fn a_report_of_any_number_of_paths_is_whole_again_and_each_piece_fits() {
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

    #[test]
    fn pieces_out_of_their_order_are_refused() {
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
