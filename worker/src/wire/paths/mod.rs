//! Paths of a tunnel, for every wire: the peer's address on each path, whether the peer answers, and the path that frames leave by.
//! Pure code: ticks and times are arguments.
//!
//! [`remote`] is the address of the peer, fixed or learned. [`estimate`] tells from pings and pongs whether a path is up.
//! [`choose`] selects the path that frames leave by. [`Path`] combines them for one path, [`Paths`] for a session.

pub mod choose;
pub mod estimate;
pub mod path;
pub mod remote;
pub mod rtt;

use privsep::ipc::{PathHealth, PathReport};

use super::route::Route;
use crate::endpoint::Target;
pub use choose::Choice;
use choose::{Class, Standing};
use estimate::DOWN_AFTER;
pub use path::Path;

/// Paths of a session, the preferred one first, and their route. `W` is the state of the wire for each path.
pub struct Paths<W> {
    /// The paths.
    pub all: Vec<Path<W>>,
    choice: Choice,
    route: Route,
}

impl<W> Paths<W> {
    /// Makes paths, of which number `active` is the first active one.
    pub fn new(all: Vec<Path<W>>, active: usize) -> Self {
        let active = active.min(all.len().saturating_sub(1));
        let egress = all.iter().map(Path::egress).collect();
        Self { choice: Choice::new(all.len(), active), all, route: Route { active, egress, sending: None } }
    }

    /// Updates the health of every path at this tick, and chooses the active path.
    pub fn judge(&mut self, tick: u64) {
        self.all.iter_mut().for_each(|path| path.estimate.judge(tick));
        let standing = |path: &Path<W>| {
            let class = match path.estimate.health() {
                PathHealth::Up => Class::Good,
                PathHealth::Connecting => Class::New,
                PathHealth::Down => Class::Dead,
            };
            Standing { class, doubtful: false }
        };
        self.choice.update(self.all.iter().map(standing), tick <= DOWN_AFTER);
        self.route.active = self.choice.active();
    }

    /// Order of the paths for frames.
    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    /// Copies the egress of every path into the route.
    pub fn update_route(&mut self) {
        self.route.egress.iter_mut().zip(&self.all).for_each(|(egress, path)| *egress = path.egress());
    }

    /// Route of the frames.
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// Route of the frames, for a wire that seals by sessions.
    pub fn route_mut(&mut self) -> &mut Route {
        &mut self.route
    }

    /// Whether the peer is answering on any path.
    pub fn answer(&self, tick: u64) -> bool {
        self.all.iter().any(|path| path.estimate.answers(tick))
    }

    /// Whether the peer's address is known on any path.
    pub fn lead_somewhere(&self) -> bool {
        self.all.iter().any(|path| path.remote.target() != Target::Unknown)
    }

    /// Number of the active path, for reports.
    pub fn active(&self) -> u8 {
        u8::try_from(self.route.active).unwrap_or(u8::MAX)
    }

    /// Reports of all paths; `add` completes each one.
    pub fn reports(&self, now_us: u64, add: impl Fn(&W, &mut PathReport)) -> Vec<PathReport> {
        let report = |path: &Path<W>| {
            let mut report = path.report(now_us);
            add(&path.wire, &mut report);
            report
        };
        self.all.iter().map(report).collect()
    }
}
