//! Evidence about one path of a wire whose pings are answered: whether the peer can be reached by it, the round trip, and the loss in
//! each direction. From it follow the class of the path and the time of its next ping.

use std::collections::VecDeque;

use privsep::ipc::{ChangeReason, LastChange, PathHealth, PathReport};

use super::choose::{Class, Standing};
use super::loss::Loss;
use super::pace::{self, Pace, Role};
use super::rtt::RoundTrip;
use crate::wire::ticks::TICK_US;

/// Most unanswered pings that are remembered. More do not change the verdict.
const REMEMBERED: usize = 64;

/// Evidence about one path. Times are in microseconds of the worker's clock.
///
/// The session calls [`pinged`](Self::pinged) and [`answered`](Self::answered), then [`judge`](Self::judge), and sends a ping when
/// [`next_ping_us`](Self::next_ping_us) has passed.
pub struct Evidence {
    /// Ping interval of an idle path.
    idle_us: u64,
    class: Class,
    /// Time of the last change of class.
    since_us: u64,
    doubtful: bool,
    rtt: RoundTrip,
    /// Round trip of the last pings, whose answers came by another path.
    detour: Option<RoundTrip>,
    /// Pings sent after the last answered one, the oldest first.
    unanswered: VecDeque<Unanswered>,
    /// Times of the first and of the last ping.
    first_us: Option<u64>,
    pinged_us: u64,
    /// Times of the last answer, and of its ping.
    answered_us: u64,
    proved_us: u64,
    has_answered: bool,
    /// Time for which the path must be good after a failure; zero before the first failure.
    hold_us: u64,
    /// Loss on the way to the peer.
    pub to_peer: Loss,
    /// Loss on the way from the peer.
    pub from_peer: Loss,
    change: Option<(ChangeReason, u64)>,
}

/// A ping without an answer.
struct Unanswered {
    sent_us: u64,
    /// Begin of the wait for the answer: later than the ping if this end did not listen meanwhile.
    since_us: u64,
}

impl Evidence {
    /// Continues from the report of an earlier worker. A ping leaves every `interval` ticks.
    pub fn new(report: &PathReport, interval: u64) -> Self {
        let class = match report.health {
            PathHealth::Connecting => Class::New,
            PathHealth::Up => Class::Good,
            PathHealth::Down => Class::Dead,
        };
        let mut rtt = RoundTrip::default();
        if report.rtt_us > 0 {
            rtt.sample(report.rtt_us.min(pace::DELAY_US.0));
        }
        Self {
            idle_us: interval * TICK_US,
            class,
            since_us: 0,
            doubtful: false,
            rtt,
            detour: None,
            unanswered: VecDeque::with_capacity(REMEMBERED),
            first_us: None,
            pinged_us: 0,
            answered_us: 0,
            proved_us: 0,
            has_answered: class != Class::New,
            hold_us: 0,
            to_peer: Loss::default(),
            from_peer: Loss::default(),
            change: None,
        }
    }

    /// Records a ping to the peer's address, and whether it left.
    pub fn pinged(&mut self, now_us: u64, leaves: bool) {
        self.first_us.get_or_insert(now_us);
        self.pinged_us = now_us;
        if leaves && self.unanswered.len() < REMEMBERED {
            self.unanswered.push_back(Unanswered { sent_us: now_us, since_us: now_us });
        }
    }

    /// Records the answer to a ping that was sent at `sent_us`. With `elsewhere` it came by another path: it proves the way to the
    /// peer, and the round trip is not the path's.
    pub fn answered(&mut self, sent_us: u64, now_us: u64, elsewhere: bool) {
        let waited = self.unanswered.iter().find(|ping| ping.sent_us == sent_us);
        let deaf = waited.is_some_and(|ping| ping.since_us > ping.sent_us);
        self.unanswered.retain(|ping| ping.sent_us > sent_us);
        self.answered_us = now_us;
        self.proved_us = self.proved_us.max(sent_us);
        if self.class == Class::Dead {
            (self.rtt, self.detour) = (RoundTrip::default(), None);
            // The losses of the outage are not those of the path that has returned.
            (self.to_peer, self.from_peer) = (Loss::default(), Loss::default());
        }
        if elsewhere {
            self.detour.get_or_insert_default().sample(now_us.saturating_sub(sent_us));
        } else if !deaf || !self.rtt.is_known() {
            self.detour = None;
            self.rtt.sample(now_us.saturating_sub(sent_us));
        }
        match self.class {
            Class::New => self.become_class(Class::Good, Some(ChangeReason::Answers), now_us),
            Class::Dead => self.become_class(Class::Proving, Some(ChangeReason::Answers), now_us),
            Class::Good | Class::Proving | Class::Poor => {}
        }
        self.has_answered = true;
        self.doubtful = self.is_overdue(now_us);
    }

    /// Forgets unanswered pings: they went to an address where the peer no longer is.
    pub fn moved(&mut self) {
        self.unanswered.clear();
        self.doubtful = false;
    }

    /// Excludes a time in which this end did not read what had arrived.
    pub fn forgive(&mut self, deaf_us: u64, now_us: u64) {
        self.answered_us = (self.answered_us + deaf_us).min(now_us);
        for ping in &mut self.unanswered {
            ping.since_us = (ping.since_us + deaf_us).min(now_us);
        }
    }

    /// Updates the class. Returns whether class or doubt has changed.
    pub fn judge(&mut self, now_us: u64) -> bool {
        let before = self.standing();
        self.doubtful = self.is_overdue(now_us);
        match self.class {
            Class::Dead => {}
            _ if self.is_silent(now_us) => {
                self.fail(now_us);
                self.become_class(Class::Dead, Some(ChangeReason::Silent), now_us);
            }
            Class::Good | Class::Proving => {
                if let Some(reason) = self.fault() {
                    self.fail(now_us);
                    self.become_class(Class::Poor, Some(reason), now_us);
                } else if self.class == Class::Proving && now_us >= self.since_us + self.hold_us {
                    self.become_class(Class::Good, Some(ChangeReason::Good), now_us);
                }
            }
            Class::Poor => {
                let loss = self.to_peer.share().unwrap_or(0);
                if loss < pace::LOSS.1 && self.rtt.srtt_us() < pace::DELAY_US.1 {
                    self.become_class(Class::Proving, None, now_us);
                }
            }
            Class::New => {}
        }
        self.standing() != before
    }

    /// Reason why an answering path is poor.
    fn fault(&self) -> Option<ChangeReason> {
        if self.to_peer.share().is_some_and(|loss| loss > pace::LOSS.0) {
            Some(ChangeReason::Loss)
        } else {
            (self.rtt.srtt_us() > pace::DELAY_US.0).then_some(ChangeReason::Delay)
        }
    }

    fn become_class(&mut self, class: Class, reason: Option<ChangeReason>, now_us: u64) {
        (self.class, self.since_us) = (class, now_us);
        if let Some(reason) = reason {
            self.change = Some((reason, now_us));
        }
    }

    /// Sets the hold time after a failure: doubled if the path fails again soon after its return.
    fn fail(&mut self, now_us: u64) {
        if self.class == Class::New {
            return;
        }
        let served_us = now_us - self.since_us;
        let forgotten = self.class == Class::Good && served_us >= pace::FORGOTTEN_US.max(10 * self.hold_us);
        self.hold_us = match self.class {
            _ if self.hold_us == 0 || forgotten => pace::HOLD_US,
            Class::Good => (2 * self.hold_us).min(pace::LONGEST_HOLD_US),
            _ => self.hold_us,
        };
    }

    /// Round trip that answers take now: the longer one where they come by another path.
    pub fn round_trip(&self) -> RoundTrip {
        match self.detour {
            Some(detour) if pace::overdue_us(detour) > pace::overdue_us(self.rtt) || !self.rtt.is_known() => detour,
            _ => self.rtt,
        }
    }

    fn is_overdue(&self, now_us: u64) -> bool {
        let overdue_us = pace::overdue_us(self.round_trip());
        self.unanswered.front().is_some_and(|ping| now_us >= ping.since_us + overdue_us)
    }

    /// Whether the peer has stopped answering.
    fn is_silent(&self, now_us: u64) -> bool {
        if self.class != Class::New && now_us > self.answered_us + pace::INTERVALS * self.idle_us + TICK_US {
            return true;
        }
        let rtt = self.round_trip();
        let overdue_us = pace::overdue_us(rtt);
        self.unanswered.front().is_some_and(|ping| now_us >= ping.since_us + pace::silence_us(rtt))
            && self.unanswered.get(pace::UNANSWERED - 1).is_some_and(|ping| now_us >= ping.since_us + overdue_us)
    }

    /// Present condition.
    pub fn standing(&self) -> Standing {
        Standing { class: self.class, doubtful: self.doubtful }
    }

    /// Whether the peer has ever answered.
    pub fn has_answered(&self) -> bool {
        self.has_answered
    }

    /// Time since which a dead path is silent. `None` once it is given up: frames may then move to a path that has not answered since.
    pub fn unproved_since_us(&self, now_us: u64) -> Option<u64> {
        (now_us < self.given_up_us()).then(|| self.unanswered.front().map_or(self.since_us, |ping| ping.sent_us))
    }

    /// Time from which frames leave a dead path for one that has not answered since; 0 for a path that is not dead.
    pub fn given_up_us(&self) -> u64 {
        if self.class == Class::Dead { self.since_us + pace::UNPROVED_US } else { 0 }
    }

    /// Time of the last ping that was answered.
    pub fn proved_us(&self) -> u64 {
        self.proved_us
    }

    /// Time at which a dead path is reported as down; 0 for another one.
    pub fn down_us(&self) -> u64 {
        if self.class == Class::Dead { self.answered_us + pace::DOWN_US } else { 0 }
    }

    /// Whether nothing but traffic and the ping interval calls for pings.
    pub fn is_steady(&self) -> bool {
        !self.doubtful && matches!(self.class, Class::Good | Class::Poor)
    }

    /// Whether pings ask for an answer by every path: one is overdue, or the last one came by another path.
    pub fn asks_every_path(&self) -> bool {
        self.doubtful || self.detour.is_some()
    }

    /// Whether every ping is answered, or the path is given up.
    pub fn is_settled(&self) -> bool {
        self.unanswered.is_empty() || self.class == Class::Dead
    }

    /// Smoothed round trip.
    pub fn rtt(&self) -> RoundTrip {
        self.rtt
    }

    /// Time of the next ping in addition to those of the ping interval; `u64::MAX` for none.
    pub fn next_ping_us(&self, role: Role, now_us: u64) -> u64 {
        let pace = match self.class {
            Class::Dead => Pace::Dead(now_us.saturating_sub(self.since_us)),
            Class::Good | Class::Proving | Class::Poor if self.doubtful => Pace::Doubtful,
            Class::New => Pace::New(self.first_us.map_or(0, |first| now_us.saturating_sub(first))),
            Class::Proving => Pace::Proving(self.hold_us),
            Class::Good | Class::Poor => Pace::Steady,
        };
        let next = pace::interval_us(pace, role, self.round_trip());
        let from = if self.first_us.is_some() { self.pinged_us } else { 0 };
        next.map_or(u64::MAX, |interval| from + interval)
    }

    /// Whether a ping of the ping interval is due at a tick. A path that has just been pinged needs none.
    pub fn is_idle(&self, now_us: u64) -> bool {
        self.first_us.is_none() || now_us >= self.pinged_us + self.idle_us / 2
    }

    /// Time at which the class may change without an answer, apart from pings; `u64::MAX` for none.
    pub fn due_us(&self) -> u64 {
        if self.class == Class::Dead {
            return u64::MAX;
        }
        let overdue_us = pace::overdue_us(self.round_trip());
        let overdue = self.unanswered.front().filter(|_| !self.doubtful).map(|ping| ping.since_us + overdue_us);
        let held = (self.class == Class::Proving).then_some(self.since_us + self.hold_us);
        overdue.unwrap_or(u64::MAX).min(held.unwrap_or(u64::MAX))
    }

    /// Writes the evidence into a report.
    pub fn report(&self, now_us: u64, report: &mut PathReport) {
        (report.rtt_us, report.jitter_us) = (self.rtt.srtt_us(), self.rtt.var_us());
        (report.loss_to_peer, report.loss_from_peer) = (self.to_peer.share(), self.from_peer.share());
        report.change =
            self.change.map(|(reason, at_us)| LastChange { reason, age_ms: now_us.saturating_sub(at_us) / 1000 });
    }
}
