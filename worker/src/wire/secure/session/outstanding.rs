//! Outstanding pings, and the secure wire's state of each path.

use std::collections::VecDeque;
use std::net::SocketAddr;

use privsep::ipc::{MAX_PATHS, PathHealth, PathReport, PathSettings, SharedPath};

use super::SECOND;
use super::limits::Recent;
use super::probes::{Counts, Prober};
use crate::endpoint::{Endpoint, Target};
use crate::wire::paths::Paths;
use crate::wire::paths::choose::Class;
use crate::wire::paths::evidence::Evidence;
use crate::wire::secure::content::{DatagramCounts, Pinged};

/// Most outstanding pings. In five seconds a path sends up to 64 pings without an answer to the peer before it is dead or probed
/// slowly, and ten a second to new addresses. Pings to new addresses thus never displace pings to the peer.
const PINGS: usize = MAX_PATHS * (64 + 5 * 10);
/// Least time in microseconds between two pings to a new address that its datagrams cause. A peer that sends many datagrams from an
/// address would otherwise use up the limit of pings to new addresses, and could not move again within the same second.
const ASKED: u64 = 50_000;
/// Time in microseconds within which a pong counts.
const ANSWERED: u64 = 5 * SECOND;

/// State of a path on this wire.
pub struct Link {
    /// Limit of pings to new addresses.
    pub probes: Recent<10>,
    /// Datagrams that the path carries.
    pub prober: Prober,
    /// Address of the peer that was probed last.
    pub probed: Option<SocketAddr>,
    /// Data datagrams received on the path and opened, modulo 2^32.
    pub opened: u32,
    /// Evidence from pings.
    pub evidence: Evidence,
    /// Frames read from the local side at the time of the last ping.
    pub frames: u64,
}

impl Link {
    /// Continues from the report of an earlier worker. A ping leaves every `interval` ticks.
    pub fn new(settings: PathSettings, report: &PathReport, interval: u64) -> Self {
        Self {
            probes: Recent::default(),
            prober: Prober::new(settings, interval),
            probed: None,
            opened: 0,
            evidence: Evidence::new(report, interval),
            frames: 0,
        }
    }

    /// Passes the counters of the path on to the prober.
    pub fn note_traffic(&mut self, counts: &SharedPath, now_us: u64) {
        self.prober.note_traffic(counts.tx_bytes.get(), counts.tx_dropped_oversize.get(), now_us);
    }

    /// Takes the answer to a ping that was sent at `sent_us`, from this path or `elsewhere`.
    fn answered(&mut self, sent_us: u64, now_us: u64, elsewhere: bool) {
        match self.evidence.standing().class {
            Class::New => self.prober.hasten(now_us),
            Class::Dead => self.prober.moved(now_us),
            Class::Good | Class::Proving | Class::Poor => {}
        }
        self.evidence.answered(sent_us, now_us, elsewhere);
    }

    /// Takes counts of the peer, which show the loss on the way from it.
    pub fn received(&mut self, peer: DatagramCounts, now_us: u64) {
        self.evidence.from_peer.take(peer.sent, self.opened, now_us);
    }
}

impl AsRef<Evidence> for Link {
    fn as_ref(&self) -> &Evidence {
        &self.evidence
    }
}

impl AsMut<Evidence> for Link {
    fn as_mut(&mut self) -> &mut Evidence {
        &mut self.evidence
    }
}

/// A ping that was sent.
pub struct Ping {
    pub token: [u8; 8],
    pub path: usize,
    pub to: Target,
    pub sent_us: u64,
    /// Datagrams that had been sent by the path, and pings and pongs among them.
    pub passed: u32,
    pub pings: u32,
    /// Whether the pong leaves by every path.
    pub every_path: bool,
}

/// Arrival of a pong.
pub struct Pong {
    pub pinged: Pinged,
    pub path: usize,
    pub source: Option<Endpoint>,
    pub now_us: u64,
}

/// Way by which the answer to a ping came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// By the path and from the address that the ping went to.
    Directly,
    /// By another path.
    Elsewhere,
}

/// Pings that were sent and may still be answered.
pub struct Outstanding(VecDeque<Ping>);

impl Default for Outstanding {
    fn default() -> Self {
        Self(VecDeque::with_capacity(PINGS))
    }
}

impl Outstanding {
    /// Records a ping.
    pub fn pinged(&mut self, ping: Ping) {
        while self.0.len() == PINGS || self.0.front().is_some_and(|first| ping.sent_us >= first.sent_us + ANSWERED) {
            self.0.pop_front();
        }
        self.0.push_back(ping);
    }

    /// Whether the address was asked just now, and may still answer.
    pub fn just_asked(&self, path: usize, target: Target, now_us: u64) -> bool {
        let mut recent = self.0.iter().rev().take_while(|ping| now_us < ping.sent_us + ASKED);
        recent.any(|ping| ping.path == path && ping.to == target)
    }

    /// Forgets the pings of a path to other targets: the peer has another address.
    pub fn forget(&mut self, path: usize, target: Target) {
        self.0.retain(|ping| ping.path != path || ping.to.address() == target.address());
    }

    /// Takes a pong in time. From the ping's target, the path answers and the peer is there. By another path, it proves that the
    /// peer can be reached by the ping's path, where the ping asked for that; the direct answer may still follow.
    pub fn ponged(&mut self, paths: &mut Paths<Link>, pong: &Pong, tick: u64) -> Option<Answered> {
        let &Pong { pinged, path: number, source, now_us } = pong;
        let is_answered = |ping: &Ping| ping.token == pinged.token && now_us < ping.sent_us + ANSWERED;
        let at = self.0.iter().position(is_answered)?;
        let ping = self.0.get_mut(at)?;
        let path = paths.all.get_mut(ping.path)?;
        let way = if ping.path == number {
            let is_there = match ping.to {
                Target::Learned(to) => source.is_some_and(|source| source.remote == to.remote),
                // The kernel reports the source unless the socket is connected.
                Target::Fixed(to) => source.is_none_or(|source| source.remote == to.remote),
                Target::Unknown => true,
            };
            if !is_there {
                return None;
            }
            Answered::Directly
        } else if std::mem::take(&mut ping.every_path) && ping.to == path.remote.target() {
            Answered::Elsewhere
        } else {
            return None;
        };
        let (sent_us, passed, pings, to) = (ping.sent_us, ping.passed, ping.pings, ping.to);
        if way == Answered::Directly {
            self.0.remove(at);
            // The peer is where the pong came from. If the ping's source address no longer existed, that is another local address.
            // If the kernel chooses the source address towards a fixed peer, it continues to choose.
            let before = path.remote.target();
            if let Some(to) = to.address() {
                path.remote.answered_at(to, path.estimate.health() == PathHealth::Up);
            }
            if let Some(source) = source.filter(|_| !matches!(to, Target::Fixed(Endpoint { local: None, .. }))) {
                path.remote.set_place(source);
            }
            let place = path.remote.target().address();
            if place != before.address() {
                path.wire.evidence.moved();
            }
            // An answer from an earlier address of the peer does not speak for the present one.
            if place != to.address() {
                return Some(way);
            }
            path.estimate.answered(tick, now_us.saturating_sub(sent_us));
        }
        path.wire.evidence.to_peer.take(passed, pinged.counts.opened, now_us);
        path.wire.prober.note_counts(Counts { sent: passed, pings, opened: pinged.counts.opened }, now_us);
        path.wire.received(pinged.counts, now_us);
        path.wire.answered(sent_us, now_us, way == Answered::Elsewhere);
        Some(way)
    }
}

#[cfg(test)]
mod tests {
    use privsep::ipc::{Address, Remote};

    use super::*;
    use crate::wire::paths::Path;
    use crate::wire::paths::estimate::SERVES;
    use crate::wire::paths::path::QUIET;

    /// Paths, and pings sent on them.
    struct Sent {
        paths: Paths<Link>,
        pings: Outstanding,
    }

    impl Sent {
        fn pinged(&mut self, token: [u8; 8], path: usize, to: Target, sent_us: u64) {
            self.pings.pinged(Ping { token, path, to, sent_us, passed: 0, pings: 0, every_path: true });
        }

        fn ponged(&mut self, token: [u8; 8], path: usize, source: Option<Endpoint>, tick: u64, now_us: u64) -> bool {
            let pinged = Pinged { token, counts: DatagramCounts::default() };
            let pong = Pong { pinged, path, source, now_us };
            self.pings.ponged(&mut self.paths, &pong, tick) == Some(Answered::Directly)
        }
    }

    /// "It counts once, within 5 s, and by the path and from the address that the ping went to."
    #[test]
    fn pong_counts_once() {
        let [there, elsewhere] = [1, 2].map(|last| SocketAddr::from(([192, 0, 2, last], 6000)));
        let learned = Remote::ANY;
        let paths = [learned, learned, Remote::Fixed(Address(there))];
        let fixed = Target::Fixed(there.into());
        let [there, elsewhere] = [there, elsewhere].map(Endpoint::from);
        let other_local = Endpoint { local: Some([192, 0, 2, 9].into()), ..there };
        let path = |remote| {
            let report = PathReport::default();
            Path::new(remote, &report, 1, 1472, Link::new(PathSettings::default(), &report, 1))
        };
        let new = || Sent { paths: Paths::new(paths.iter().map(path).collect(), 0), pings: Outstanding::default() };
        let token = [7; 8];
        let asked = |path, target| {
            let mut pinged = new();
            pinged.pinged(token, path, target, 1_000_000);
            pinged
        };
        let mut right = asked(0, Target::Learned(there));
        assert!(right.ponged(token, 0, Some(there), 9, 5_999_999));
        assert_eq!(right.paths.all[0].remote.target(), Target::Learned(there));
        let report = right.paths.all[0].report(0);
        assert_eq!((report.last_pong, report.rtt_us), (9, 4_999_999));
        assert!(!right.ponged(token, 0, Some(there), 10, 1_000_001), "twice");
        for (token, path, source, now_us) in [
            (token, 0, Some(there), 6_000_000),
            (token, 0, Some(elsewhere), 1_000_001),
            (token, 0, None, 1_000_001),
            (token, 1, Some(there), 1_000_001),
            ([8; 8], 0, Some(there), 1_000_001),
        ] {
            let mut wrong = asked(0, Target::Learned(there));
            assert!(!wrong.ponged(token, path, source, 9, now_us), "{token:?} {path} {source:?} {now_us}");
            assert!(wrong.paths.all.iter().all(|path| path.report(0).last_pong == 0));
            assert!(!wrong.paths.all.iter().any(|path| path.remote.target() == Target::Learned(there)));
            // The right pong still counts.
            assert_eq!(wrong.ponged([7; 8], 0, Some(there), 9, now_us), now_us < 6_000_000);
        }
        // The peer's place then includes another local address.
        let mut moved = asked(0, Target::Learned(there));
        assert!(moved.ponged(token, 0, Some(other_local), 9, 1_000_001));
        assert_eq!(moved.paths.all[0].remote.target(), Target::Learned(other_local));
        assert!(
            moved.paths.all[0].is_from_peer(Some(other_local), 9) && !moved.paths.all[0].is_from_peer(Some(there), 9)
        );
        // The source address of a fixed peer is not reported.
        assert!(asked(2, fixed).ponged(token, 2, None, 9, 1_000_000));
        assert!(!new().ponged(token, 0, Some(there), 9, 0));
    }

    #[test]
    fn fixed_peer_falls_back_to_asked_address() {
        let remote = SocketAddr::from(([192, 0, 2, 1], 6000));
        let new = |report: &PathReport| {
            let link = Link::new(PathSettings::default(), &PathReport::default(), 1);
            Path::new(&Remote::Fixed(Address(remote)), report, 1, 1472, link)
        };
        let path = new(&PathReport::default());
        let [any, asked, other] =
            [None, Some([192, 0, 2, 9].into()), Some([192, 0, 2, 8].into())].map(|local| Endpoint { remote, local });
        // At the start the kernel chooses the local address, except for answers.
        assert!(path.is_from_peer(Some(asked), SERVES) && !path.is_from_peer(Some(asked), SERVES + 1));
        assert_eq!(
            (path.answer_to(Some(asked)), path.remote.target()),
            (Some(Target::Fixed(asked)), Target::Fixed(any))
        );
        let mut pinged = Sent { paths: Paths::new(vec![path], 0), pings: Outstanding::default() };
        for (number, to, then) in [(0, any, any), (1, asked, asked), (2, any, asked), (3, asked, other)] {
            pinged.pinged([number; 8], 0, Target::Fixed(to), 0);
            let source = if then == any { asked } else { then };
            assert!(pinged.ponged([number; 8], 0, Some(source), 1, 1));
            assert_eq!(pinged.paths.all[0].remote.target(), Target::Fixed(then), "{number}");
        }
        let path = &mut pinged.paths.all[0];
        assert!(path.is_from_peer(Some(other), 9) && !path.is_from_peer(Some(asked), 1));
        // The next worker starts with the local address, and forgets it if the peer is silent.
        let mut path = new(&path.report(0));
        let quiet_us = QUIET * SECOND;
        path.on_tick(quiet_us - 1, false);
        assert_eq!(path.remote.target(), Target::Fixed(other));
        path.received_us = Some(1);
        path.on_tick(quiet_us, false);
        assert_eq!(path.remote.target(), Target::Fixed(other));
        path.on_tick(quiet_us + 1, true);
        assert_eq!(path.remote.target(), Target::Fixed(any));
    }
}
