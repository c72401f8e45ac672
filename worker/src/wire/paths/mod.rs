//! Paths of a tunnel, for every wire: the peer's address on each path, whether the peer answers, and the path that frames leave by.
//! Pure code: ticks and times are arguments.
//!
//! [`remote`] is the address of the peer, fixed or learned. [`estimate`] tells from a ping in each interval whether a path is up.
//! [`evidence`] tells it within a fraction of a second, for a wire whose pings have tokens; [`pace`] has its times and limits, [`rtt`]
//! and [`loss`] its measurements. [`choose`] orders the paths, and [`policy`] selects those that frames leave by. [`Path`] combines them
//! for one path, [`Paths`] for a session.

pub mod choose;
pub mod estimate;
pub mod evidence;
pub mod loss;
pub mod pace;
pub mod path;
pub mod policy;
pub mod remote;
pub mod rtt;
#[cfg(test)]
mod tests;

use privsep::ipc::{MAX_PATHS, PathHealth, PathReport, Policy};

use super::route::Route;
use crate::endpoint::Target;
pub use choose::Choice;
use choose::{Class, Ranked, Standing};
use estimate::DOWN_AFTER;
use evidence::Evidence;
use pace::Role;
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
        self.share(|_| None);
    }

    /// Chooses the paths that frames leave by, after a change of the order. Frames stay on a path in doubt: it may be as good as before.
    /// `loss` is the share of datagrams in a thousand that a path loses on the way to the peer.
    fn share(&mut self, loss: impl Fn(&W) -> Option<u16>) {
        let candidates = self.choice.order().iter().filter_map(|&Ranked { path, class }| {
            let here = self.all.get(path).filter(|path| path.remote.target() != Target::Unknown)?;
            class.answers().then(|| Candidate { path, class, loss: loss(&here.wire) })
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

/// Paths of a wire that keeps evidence about each one.
impl<W: AsRef<Evidence> + AsMut<Evidence>> Paths<W> {
    /// Judges every path by its evidence, and updates health and order. While the tunnel is `starting`, a path that has not yet
    /// answered holds back those after it. Returns whether anything has changed.
    pub fn weigh(&mut self, now_us: u64, starting: bool) -> bool {
        let judged = self.all.iter_mut().fold(false, |changed, path| path.wire.as_mut().judge(now_us) | changed);
        let active = self.choice.active();
        let silent_us = self.all.get(active).and_then(|path| path.wire.as_ref().unproved_since_us(now_us));
        let standings = self.all.iter().enumerate().map(|(number, path)| {
            let evidence = path.wire.as_ref();
            let Standing { mut class, doubtful } = evidence.standing();
            // It cannot answer, and holds back no other path.
            if class == Class::New && path.remote.target() == Target::Unknown {
                class = Class::Dead;
            }
            // No path has answered since the peer itself stopped, so frames stay where they are.
            let unproved = number != active && silent_us.is_some_and(|silent_us| evidence.proved_us() < silent_us);
            Standing { class, doubtful: doubtful || unproved }
        });
        let chosen = self.choice.update(standings, starting);
        let before = (self.route.active, self.route.spread);
        let carried: [bool; MAX_PATHS] = std::array::from_fn(|number| self.route.uses(number));
        self.route.active = self.choice.active();
        self.share(|link| link.as_ref().to_peer.share());
        if before != (self.route.active, self.route.spread) {
            self.route.from_us = self.pause_us(carried).map_or(0, |pause_us| now_us + pause_us);
        }
        judged | chosen | self.update_health(now_us)
    }

    /// Pause before frames leave by the route, after those of the paths in `carried`. It follows from each path that answers and has
    /// carried frames, and each other path of the route: if the first one carries no more, or the second one did not before. `None`
    /// without such a pair.
    fn pause_us(&self, carried: [bool; MAX_PATHS]) -> Option<u64> {
        let paths = || self.all.iter().map(|path| path.wire.as_ref()).enumerate();
        let left = || paths().filter(|(number, evidence)| carried[*number] && evidence.standing().class.answers());
        let taken = paths().filter(|&(number, _)| self.route.uses(number));
        let moves = taken.flat_map(|to| left().map(move |from| (from, to)));
        let moves = moves.filter(|(from, to)| from.0 != to.0 && (!self.route.uses(from.0) || !carried[to.0]));
        moves.map(|(from, to)| pace::pause_us(from.1.rtt(), to.1.rtt())).max()
    }

    fn update_health(&mut self, now_us: u64) -> bool {
        let mut changed = false;
        for path in &mut self.all {
            let (evidence, before) = (path.wire.as_ref(), path.estimate.health());
            let health = match evidence.standing().class {
                Class::Good | Class::Proving | Class::Poor => PathHealth::Up,
                Class::New => PathHealth::Connecting,
                Class::Dead if !evidence.has_answered() => PathHealth::Connecting,
                Class::Dead if now_us < evidence.down_us() => before,
                Class::Dead => PathHealth::Down,
            };
            changed |= before != health;
            path.estimate.set_health(health);
        }
        changed
    }

    /// Part of a path in the traffic.
    pub fn role(&self, number: usize, traffic: bool) -> Role {
        let carries = |number| self.route.uses(number);
        let alarm = |path: &Path<W>| path.wire.as_ref().standing().doubtful;
        Role {
            carries: carries(number),
            carriers: (0..self.all.len()).filter(|&number| carries(number)).count() as u64,
            traffic,
            alarm: self.all.iter().enumerate().any(|(number, path)| carries(number) && alarm(path)),
        }
    }

    /// Time at which the judgement may change without an answer, in microseconds; `u64::MAX` for none.
    pub fn due_us(&self, now_us: u64) -> u64 {
        let each = self.all.iter().flat_map(|path| {
            let evidence = path.wire.as_ref();
            [evidence.due_us(), evidence.given_up_us(), evidence.down_us()]
        });
        each.filter(|&time| time > now_us).fold(u64::MAX, u64::min)
    }
}
