//! Prober of a path: finds the longest datagrams that the path carries, notices when it carries less, and checks whether runs arrive.
//! A pure state machine. The session sends the probes and passes the answers on.
//!
//! [`Prober`] begins one [`round`] after another. A [`search`] follows the first session and a black hole. A confirmation repeats
//! the present size under traffic. If that is lost, or if a loss pattern raises suspicion, a round of doubt decides between random
//! loss and a black hole. [`runs`] compares single datagrams with runs.

mod round;
mod runs;
mod search;
#[cfg(test)]
mod tests;

use privsep::ipc::{Carries, PathSettings};

use super::{MILLISECOND, SECOND};
use crate::wire::secure::content::PROBED;
use crate::wire::secure::crypt::{HEADER, TAG};
use round::Round;
use runs::RunCheck;
use search::Search;

/// Length of a datagram with the shortest probe, which every path carries.
#[allow(clippy::cast_possible_truncation)] // 44.
const SMALL: u16 = (HEADER + PROBED + TAG) as u16;
/// Microseconds from the first session to the first confirmation. The search has shown the size by then.
const FIRST_US: u64 = 5 * SECOND;
/// Microseconds from one confirmation to the next under traffic, and ping intervals on an idle path. For packets of 1500 bytes that is
/// 2 kB/s, and 26 B/s with a ping each second. Longer packets have longer intervals.
const BUSY_US: u64 = 3 * SECOND / 4;
const IDLE: u64 = 60;
/// Packets of data within a second that make a path busy, so that a lost one is soon noticed. The pings of an idle path are fewer bytes.
const BUSY: u64 = 1;
/// Microseconds from one check of runs to the next under traffic.
const RUNS_US: u64 = 10 * SECOND;
/// Microseconds to the next round where the round before got no answer, doubled each time up to 8 s; and where it must be repeated.
const RETRY_US: u64 = 250 * MILLISECOND;
const REPEAT_US: u64 = 50 * MILLISECOND;
/// Least time in microseconds between two rounds of doubt that a suspicion causes.
const SUSPECTS_US: u64 = 2 * SECOND;
/// Least time in microseconds between two checks of runs that a suspicion causes, and the same where almost all datagrams are lost:
/// losses of congestion must not delay that check.
const SUSPECTS_RUNS_US: (u64, u64) = (6 * SECOND, 3 * SECOND);
/// Least time in microseconds between two searches, and two checks of runs, that a possible new way of the path causes. They cost up to
/// 50 kB.
const WAY_US: u64 = 30 * SECOND;
/// Microseconds after which a larger size, or runs, are tried again.
const AGAIN_US: u64 = 600 * SECOND;
/// A round of doubt: pairs of a small probe and one of the present size. A black hole loses all of the second kind and few of the
/// first. At 30 % random loss in each direction that happens once in 90 rounds, and the following search repairs the mistake.
const PAIRS: usize = 6;
const PAIR_US: u64 = 20 * MILLISECOND;
const SMALL_ANSWERED: usize = 3;
/// Least number of datagrams in a loss pattern, apart from pings and pongs. More than half of them lost while pings are answered raises suspicion; where one in so many
/// arrives at most, almost all are lost.
const PATTERN: u32 = 8;
/// Packet of Ethernet, by which intervals are measured.
const ETHERNET: u64 = 1500;

/// A probe to send: its token, and the length of its datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    pub token: [u8; 8],
    pub size: u16,
}

/// Counts at a ping, modulo 2^32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Datagrams that were sent by the path before the ping.
    pub sent: u32,
    /// Pings and pongs among them.
    pub pings: u32,
    /// Datagrams that the peer has opened by then.
    pub opened: u32,
}

/// Purpose of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Search,
    Confirm,
    Doubt,
    Runs,
}

/// Prober of one path.
#[derive(Debug)]
pub struct Prober {
    settings: PathSettings,
    /// Ping interval in microseconds.
    interval_us: u64,
    /// Whether a session has existed.
    begun: bool,
    /// Present length of the datagrams.
    size: u16,
    /// Search in progress.
    search: Option<Search>,
    /// Whether a search has ended since the size was last unknown.
    searched: bool,
    /// Whether datagrams of the least size are lost; `None` before the first confirmation.
    loses: Option<bool>,
    round: Option<(Purpose, Round)>,
    /// Whether the next round is one of doubt.
    doubts: bool,
    /// Times of the next round: of search or doubt, confirmation, larger size, runs.
    next_us: u64,
    confirm_us: u64,
    raise_us: u64,
    runs_us: u64,
    /// Times of the last confirmation, of the last check of runs, and of the last rounds that a suspicion caused.
    confirmed_us: u64,
    checked_us: Option<u64>,
    suspected_us: Option<u64>,
    suspected_runs_us: Option<u64>,
    /// Time of the last search and check of runs on a possible new way.
    moved_us: Option<u64>,
    /// Consecutive rounds of the search without any answer.
    silent: u32,
    runs: RunCheck,
    traffic: Traffic,
    /// Counts at the start of the present loss pattern.
    counts: Option<Counts>,
}

/// Bytes that a path has sent, without probes.
#[derive(Debug, Default)]
struct Traffic {
    /// Last value of the counters.
    bytes: u64,
    oversize: u64,
    /// Bytes of probes since then.
    probes: u64,
    /// Bytes in the present window, and its start.
    window: u64,
    since_us: u64,
}

impl Traffic {
    /// Takes the value of the counter. Returns whether the path is busy: whether `much` was sent within a second.
    fn note(&mut self, bytes: u64, much: u64, now_us: u64) -> bool {
        // A counter that has gone back was reset.
        let sent = bytes.checked_sub(self.bytes).unwrap_or(bytes);
        self.window += sent.saturating_sub(self.probes);
        (self.bytes, self.probes) = (bytes, 0);
        let is_busy = self.window >= much;
        if is_busy || now_us >= self.since_us + SECOND {
            (self.window, self.since_us) = (0, now_us);
        }
        is_busy
    }
}

impl Prober {
    /// Makes the prober of a path before the first session. A ping leaves every `interval` seconds.
    pub fn new(settings: PathSettings, interval: u64) -> Self {
        Self {
            settings,
            interval_us: interval * SECOND,
            begun: false,
            size: settings.least,
            search: None,
            searched: false,
            loses: None,
            round: None,
            doubts: false,
            next_us: 0,
            confirm_us: u64::MAX,
            raise_us: u64::MAX,
            runs_us: u64::MAX,
            confirmed_us: 0,
            checked_us: None,
            suspected_us: None,
            suspected_runs_us: None,
            moved_us: None,
            silent: 0,
            runs: RunCheck::default(),
            traffic: Traffic::default(),
            counts: None,
        }
    }

    /// Length in bytes of the longest datagrams that leave by the path.
    pub fn datagram(&self) -> usize {
        self.size.into()
    }

    /// Whether the search is over and has found less than the underlay promised.
    pub fn is_reduced(&self) -> bool {
        self.searched && self.size < self.settings.most
    }

    /// Whether datagrams may leave in runs.
    pub fn runs(&self) -> bool {
        self.settings.runs && self.runs.arrive() != Some(false)
    }

    /// Knowledge about the path, for reports.
    pub fn carries(&self) -> Carries {
        let runs = self.runs.arrive().filter(|_| self.settings.runs);
        Carries { datagram: self.size, searched: self.searched, loses: self.loses, runs }
    }

    /// Begins with the first session. A later session changes nothing.
    pub fn begin(&mut self, now_us: u64) {
        if !self.begun {
            self.begun = true;
            (self.confirm_us, self.confirmed_us) = (now_us + FIRST_US, now_us);
            self.search(now_us);
        }
    }

    /// Reacts to a path that may have another way: a new address of the peer, or an answer after a silence. The present size is
    /// confirmed. A larger size and runs are tried, also where the way before did not carry them.
    pub fn moved(&mut self, now_us: u64) {
        if !self.begun {
            return;
        }
        self.doubt(now_us);
        if self.moved_us.is_some_and(|scheduled_us| scheduled_us > now_us) {
            return;
        }
        let at_us = self.moved_us.map_or(0, |last| last + WAY_US).max(now_us);
        self.moved_us = Some(at_us);
        self.hasten(at_us);
        if self.search.is_none() && self.size < self.settings.most {
            self.raise_us = self.raise_us.min(at_us);
        }
        if self.checked_us.is_some() {
            self.runs_us = self.runs_us.min(at_us);
        }
    }

    /// Reacts to the first answer on a path: a search that got no answers need not wait longer.
    pub fn hasten(&mut self, at_us: u64) {
        if self.search.is_some() {
            (self.next_us, self.silent) = (self.next_us.min(at_us), 0);
        }
    }

    /// Reacts to a loss pattern that fits a black hole or lost runs, with almost `all` datagrams lost or not. Causes rounds of probes,
    /// and nothing else.
    pub fn suspect(&mut self, all: bool, now_us: u64) {
        let doubts = self.doubt(now_us);
        if (doubts || all) && self.checked_us.is_some() && self.runs() {
            let pause_us = if all { SUSPECTS_RUNS_US.1 } else { SUSPECTS_RUNS_US.0 };
            let at_us = self.suspected_runs_us.map_or(0, |last| last + pause_us).max(now_us);
            self.runs_us = self.runs_us.min(at_us);
        }
    }

    /// Schedules a round of doubt. False if one is scheduled, or where a search is in progress.
    fn doubt(&mut self, now_us: u64) -> bool {
        let schedules = self.begun && self.search.is_none() && !self.doubts;
        if schedules {
            self.doubts = true;
            self.next_us = self.suspected_us.map_or(0, |last| last + SUSPECTS_US).max(now_us);
            self.suspected_us = Some(self.next_us);
        }
        schedules
    }

    /// Takes the counters of the path: bytes sent, and datagrams that this host refuses as too long. Under traffic the next
    /// confirmation and the next check of runs are soon.
    pub fn note_traffic(&mut self, bytes: u64, oversize: u64, now_us: u64) {
        if self.traffic.note(bytes, BUSY * u64::from(self.size), now_us) {
            self.confirm_us = self.confirm_us.min(self.confirmed_us + self.interval(BUSY_US));
            if let Some(checked) = self.checked_us.filter(|_| self.runs()) {
                self.runs_us = self.runs_us.min(checked + self.interval(RUNS_US));
            }
        }
        if std::mem::replace(&mut self.traffic.oversize, oversize) < oversize {
            self.suspect(false, now_us);
        }
    }

    /// Takes the counts of an answered ping. Pings and pongs among the datagrams arrive singly, and would hide the loss of the others.
    pub fn note_counts(&mut self, counts: Counts, now_us: u64) {
        let from = *self.counts.get_or_insert(counts);
        let [sent, pings, opened] = [
            counts.sent.wrapping_sub(from.sent),
            counts.pings.wrapping_sub(from.pings),
            counts.opened.wrapping_sub(from.opened),
        ];
        let is_back = [sent, pings, opened].into_iter().any(|count| count > u32::MAX / 2);
        let (others, lost) = (sent.saturating_sub(pings), sent.saturating_sub(opened));
        if others >= PATTERN || is_back {
            self.counts = Some(counts);
            if !is_back && lost > others / 2 {
                self.suspect(opened <= sent / PATTERN, now_us);
            }
        }
    }

    /// An interval, longer for packets that are longer than Ethernet's.
    fn interval(&self, us: u64) -> u64 {
        us * u64::from(self.size).max(ETHERNET) / ETHERNET
    }

    /// Begins a search between the present size and the greatest.
    fn search(&mut self, now_us: u64) {
        let PathSettings { least, most, .. } = self.settings;
        self.search = Some(Search::new(least, self.size, most));
        (self.next_us, self.raise_us) = (now_us, u64::MAX);
    }

    /// Ends the search, and with it the uncertainty about the size.
    fn settle(&mut self, now_us: u64) {
        (self.search, self.searched) = (None, true);
        if self.size < self.settings.most {
            self.raise_us = now_us + AGAIN_US;
        }
        if self.settings.runs && self.checked_us.is_none() {
            self.runs_us = now_us;
        }
    }

    /// Next probe to send, if one is due. `timeout_us` is the longest time to wait for an answer. Called until it returns `None`.
    pub fn next(&mut self, now_us: u64, timeout_us: u64, random: &mut dyn FnMut(&mut [u8])) -> Option<Probe> {
        if !self.begun {
            return None;
        }
        if let Some((purpose, round)) = self.round.take_if(|(_, round)| round.is_over(now_us, timeout_us)) {
            self.judge(purpose, &round, now_us);
        }
        // A search without a size to try ends, and other work may then be due.
        while self.round.is_none() {
            let purpose = self.due(now_us)?;
            self.round = self.begin_round(purpose, now_us, random).map(|round| (purpose, round));
        }
        let probe = self.round.as_mut()?.1.next(now_us)?;
        self.traffic.probes += u64::from(probe.size);
        Some(probe)
    }

    /// Gives up a round whose probe could not be sent, and repeats it later.
    pub fn abandon(&mut self, now_us: u64) {
        if let Some((purpose, _)) = self.round.take() {
            match purpose {
                Purpose::Search => self.next_us = now_us + RETRY_US,
                Purpose::Doubt => (self.doubts, self.next_us) = (true, now_us + RETRY_US),
                Purpose::Confirm => self.confirm_us = now_us + RETRY_US,
                Purpose::Runs => self.runs_us = now_us + RETRY_US,
            }
        }
    }

    /// Purpose of the round that is due.
    fn due(&mut self, now_us: u64) -> Option<Purpose> {
        if now_us >= self.raise_us && self.search.is_none() && !self.doubts {
            self.search(now_us);
        }
        if (self.search.is_some() || self.doubts) && now_us >= self.next_us {
            return Some(if self.doubts { Purpose::Doubt } else { Purpose::Search });
        }
        let runs = self.settings.runs && now_us >= self.runs_us && self.search.is_none();
        if runs {
            return Some(Purpose::Runs);
        }
        (now_us >= self.confirm_us && self.search.is_none()).then_some(Purpose::Confirm)
    }

    /// A round of this purpose; `None` if it has no probe.
    fn begin_round(&mut self, purpose: Purpose, now_us: u64, random: &mut dyn FnMut(&mut [u8])) -> Option<Round> {
        let sizes = match purpose {
            Purpose::Search => {
                let sizes = self.search.as_ref().map(Search::sizes).filter(|sizes| !sizes.is_empty());
                let Some(sizes) = sizes else {
                    self.settle(now_us);
                    return None;
                };
                [vec![SMALL], sizes].concat()
            }
            Purpose::Confirm => vec![SMALL, self.size],
            Purpose::Doubt => [SMALL, self.size].repeat(PAIRS),
            Purpose::Runs => RunCheck::sizes(self.size),
        };
        match purpose {
            Purpose::Search => {}
            Purpose::Doubt => self.doubts = false,
            Purpose::Confirm => {
                (self.confirm_us, self.confirmed_us) = (now_us + self.interval(IDLE * self.interval_us), now_us);
            }
            Purpose::Runs => {
                self.runs_us = if self.runs() { u64::MAX } else { now_us + AGAIN_US };
                // The regular ones are further apart.
                if self.checked_us.is_some_and(|last| now_us < last + self.interval(RUNS_US)) {
                    self.suspected_runs_us = Some(now_us);
                }
                self.checked_us = Some(now_us);
            }
        }
        let mut id = [0; 7];
        random(&mut id);
        let round = Round::new(id, sizes);
        Some(if purpose == Purpose::Doubt { round.in_groups(2, PAIR_US) } else { round })
    }

    /// Takes an answer from the path.
    pub fn answered(&mut self, token: [u8; 8], size: u16, now_us: u64) {
        let Some((purpose, round)) = &mut self.round else { return };
        if !round.answer(token, size) {
            return;
        }
        match purpose {
            // A longer datagram has arrived.
            Purpose::Search if size > self.size => self.size = size,
            // The present size arrives.
            Purpose::Confirm | Purpose::Doubt if size == self.size => {
                self.loses = Some(false);
                if *purpose == Purpose::Doubt {
                    self.round = None;
                    self.confirmed_us = now_us;
                }
            }
            _ => {}
        }
    }

    fn judge(&mut self, purpose: Purpose, round: &Round, now_us: u64) {
        let answered =
            |small: bool| round.results().filter(|&(size, arrived)| arrived && small == (size == SMALL)).count();
        match purpose {
            Purpose::Search if answered(true) + answered(false) == 0 => {
                self.next_us = now_us + (RETRY_US << self.silent.min(5));
                self.silent += 1;
            }
            Purpose::Search => {
                self.silent = 0;
                let Some(search) = &mut self.search else { return };
                let is_over = search.judge(round.results());
                self.size = self.size.max(search.found());
                self.next_us = now_us;
                if is_over {
                    self.settle(now_us);
                }
            }
            Purpose::Confirm if answered(true) > 0 && answered(false) == 0 => self.suspect(false, now_us),
            Purpose::Confirm => {}
            Purpose::Doubt if answered(true) < SMALL_ANSWERED => {}
            // A black hole.
            Purpose::Doubt if self.size > self.settings.least => {
                (self.size, self.searched, self.loses) = (self.settings.least, false, None);
                self.search(now_us);
            }
            Purpose::Doubt => self.loses = Some(true),
            Purpose::Runs => {
                self.runs.judge(&round.results().map(|(_, arrived)| arrived).collect::<Vec<_>>());
                if self.runs.is_in_doubt() {
                    self.runs_us = now_us + REPEAT_US;
                } else {
                    self.runs_us = if self.runs() { u64::MAX } else { now_us + AGAIN_US };
                }
            }
        }
    }

    /// Time at which [`next`](Self::next) has work.
    pub fn due_us(&self, timeout_us: u64) -> u64 {
        if !self.begun {
            return u64::MAX;
        }
        if let Some((_, round)) = &self.round {
            return round.due_us(timeout_us);
        }
        let searches = self.search.is_some() || self.doubts;
        let next = if searches { self.next_us } else { u64::MAX };
        if self.search.is_some() {
            return next;
        }
        let raise = if self.doubts { u64::MAX } else { self.raise_us };
        next.min(self.confirm_us).min(self.runs_us).min(raise)
    }
}
