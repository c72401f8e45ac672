//! Paths of a tunnel, for every wire: the peer's address on each path, whether the peer answers, and the path that frames leave by.
//! Pure code: ticks and times are arguments.
//!
//! [`remote`] is the address of the peer, fixed or learned. [`estimate`] tells from pings and pongs whether a path is up.
//! [`choose`] selects the best path, and [`policy`] the paths that frames leave by. [`Path`] combines them for one path, [`Paths`] for a session.

pub mod choose;
pub mod estimate;
pub mod path;
pub mod policy;
pub mod remote;
pub mod rtt;

use privsep::ipc::{MAX_PATHS, PathHealth, PathReport, Policy};

use super::route::Route;
use crate::endpoint::Target;
pub use choose::Choice;
use choose::{Class, Ranked, Standing};
use estimate::DOWN_AFTER;
pub use path::Path;
use policy::{Candidate, Sharing};

/// Paths of a session, the preferred one first, and their route. `W` is the state of the wire for each path.
pub struct Paths<W> {
    /// The paths.
    pub all: Vec<Path<W>>,
    choice: Choice,
    sharing: Sharing,
    route: Route,
}

impl<W> Paths<W> {
    /// Makes paths, of which number `active` is the first active one.
    pub fn new(all: Vec<Path<W>>, active: usize) -> Self {
        let active = active.min(all.len().saturating_sub(1));
        let egress = all.iter().map(Path::egress).collect();
        let route = Route { active, egress, ..Route::default() };
        Self { choice: Choice::new(all.len(), active), sharing: Sharing::default(), all, route }
    }

    /// Sets the use of several paths, and the weights of the paths.
    #[must_use]
    pub fn with_policy(self, policy: Policy, weights: [u8; MAX_PATHS]) -> Self {
        Self { sharing: Sharing::new(policy, weights), ..self }
    }

    /// Updates the health of every path at this tick, and chooses the paths that frames leave by.
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
        self.share();
    }

    /// Chooses the paths that frames leave by, after a change of the order. Frames stay on a path in doubt: it may be as good as before.
    fn share(&mut self) {
        let answers = |class| matches!(class, Class::Good | Class::Proving | Class::Poor);
        let candidates = self.choice.order().iter().filter_map(|&Ranked { path, class }| {
            let known = self.all.get(path)?.remote.target() != Target::Unknown;
            (answers(class) && known).then_some(Candidate { path, class, loss: None })
        });
        self.route.spread = self.sharing.spread(self.route.active, candidates);
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
        let report = |(number, path): (usize, &Path<W>)| {
            let mut report = path.report(now_us);
            report.active = self.route.uses(number);
            add(&path.wire, &mut report);
            report
        };
        self.all.iter().enumerate().map(report).collect()
    }
}
