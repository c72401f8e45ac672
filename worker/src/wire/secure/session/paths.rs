//! The paths of a session: where the peer is by each, whether it answers, and which frames leave by.

use std::collections::VecDeque;

use privsep::ipc::{MAX_PATHS, PathHealth, PathReport};

use super::carries::Carries;
use super::limits::Recent;
use crate::endpoint::{Endpoint, Target};
use crate::wire::health;
use crate::wire::outbox::Outbox;
use crate::wire::remote::Remote;

/// Pings that may be answered: by each path those of five seconds, which are one and ten to new addresses each second, and of a new
/// session six, and as many to where its handshake ended. Who causes those to new addresses does not push out those to the peer.
const PINGS: usize = MAX_PATHS * (5 * (1 + 10) + 2 * 6);
/// Time in which a ping is answered, or is not.
const ANSWERED: u64 = 5 * super::SECOND;
/// Ping intervals without a datagram of the peer after which our address that it asked is forgotten.
const QUIET: u64 = 3;
/// Ping intervals since the last pong in which the kernel's choice of our address serves.
const SERVES: u64 = 2;
/// Ping intervals since the last pong in which the peer counts as one that answers.
const ANSWERS: u64 = 5;

pub struct Path {
    pub remote: Remote,
    health: PathHealth,
    /// Tick in which the last pong came; 0 before the first.
    last_pong: u64,
    /// From a ping to its pong; 0 before the first.
    rtt_us: u64,
    /// When the last datagram came that was the peer's.
    pub received_us: Option<u64>,
    /// Pings to addresses that are new.
    pub probes: Recent<10>,
    /// Whether it carries the longest datagrams.
    pub carries: Carries,
    /// Datagrams of data that came by it and were opened, modulo 2^32.
    pub opened: u32,
    /// Ticks from one ping to the next.
    interval: u64,
}

/// A ping that has left.
struct Ping {
    token: [u8; 8],
    path: usize,
    to: Target,
    sent_us: u64,
}

/// All of them.
pub struct Paths {
    pub all: Vec<Path>,
    pings: VecDeque<Ping>,
}

impl Path {
    pub fn new(remote: &privsep::ipc::Remote, report: &PathReport, interval: u64) -> Self {
        Self {
            remote: Remote::new(remote, report.learned, report.local),
            health: report.health,
            last_pong: report.last_pong,
            rtt_us: report.rtt_us,
            received_us: None,
            probes: Recent::default(),
            carries: Carries::new(interval),
            opened: 0,
            interval,
        }
    }

    /// Where an answer to a datagram from there goes; `None` where nothing may.
    pub fn answer_to(&self, source: Option<Endpoint>) -> Option<Target> {
        match &self.remote {
            Remote::Fixed(place) => {
                let local = source.and_then(|source| source.local).or(place.local);
                Some(Target::Fixed(Endpoint { local, ..*place }))
            }
            Remote::Learned(learned) => source.filter(|&source| learned.admits(source)).map(Target::Learned),
        }
    }

    /// Whether a datagram from there is from where the peer is. A fixed peer may ask any address of ours, as long as it answers
    /// what leaves by the kernel's choice.
    pub fn is_from_peer(&self, source: Option<Endpoint>, tick: u64) -> bool {
        match &self.remote {
            Remote::Fixed(place) => source.is_none_or(|source| {
                let serves = place.local.is_none() && tick <= self.last_pong + SERVES * self.interval;
                source == *place || source.remote == place.remote && serves
            }),
            Remote::Learned(learned) => source.is_some() && learned.get() == source,
        }
    }

    /// The peer has shown to be there.
    pub fn is_at(&mut self, source: Option<Endpoint>) {
        if let Some(source) = source {
            self.remote.is_at(source);
        }
    }

    /// Forgets our address that a fixed peer asked, when the peer has been quiet; and the address of a learned one that is gone.
    pub fn on_tick(&mut self, now_us: u64, is_gone: bool) {
        if now_us >= self.received_us.unwrap_or(0) + QUIET * self.interval * super::SECOND {
            self.remote.is_quiet();
        }
        if is_gone {
            self.remote.is_gone();
        }
    }

    pub fn report(&self, now_us: u64) -> PathReport {
        PathReport {
            health: self.health,
            learned: self.remote.learned(),
            local: self.remote.local(),
            last_pong: self.last_pong,
            rtt_us: self.rtt_us,
            drops_longest: self.carries.drops_the_longest(),
            last_rx_ms: self.received_us.map(|received| now_us.saturating_sub(received) / 1000),
            ..PathReport::default()
        }
    }
}

impl Paths {
    pub fn new(all: Vec<Path>) -> Self {
        Self { all, pings: VecDeque::with_capacity(PINGS) }
    }

    /// Takes note of a ping.
    pub fn pinged(&mut self, token: [u8; 8], path: usize, target: Target, now_us: u64) {
        if self.pings.len() == PINGS {
            self.pings.pop_front();
        }
        self.pings.push_back(Ping { token, path, to: target, sent_us: now_us });
    }

    /// Takes a pong: if it comes from where its ping went, and in time, the path answers and the peer is there. Whether it does.
    pub fn ponged(&mut self, token: [u8; 8], number: usize, source: Option<Endpoint>, tick: u64, now_us: u64) -> bool {
        let answers = |ping: &Ping| {
            let in_time = now_us < ping.sent_us + ANSWERED;
            ping.token == token
                && ping.path == number
                && in_time
                && match ping.to {
                    Target::Learned(to) => source.is_some_and(|source| source.remote == to.remote),
                    Target::Fixed(_) | Target::Unknown => true,
                }
        };
        let Some(at) = self.pings.iter().position(answers) else { return false };
        let (Some(ping), Some(path)) = (self.pings.remove(at), self.all.get_mut(number)) else { return false };
        path.last_pong = tick;
        path.rtt_us = now_us.saturating_sub(ping.sent_us).max(1);
        // To the place it has come from: where the ping's source address was gone, that is another one of ours. Of a fixed peer the
        // kernel's choice stays the kernel's.
        if !matches!(ping.to, Target::Fixed(Endpoint { local: None, .. })) {
            path.is_at(source);
        }
        true
    }

    /// Decides about the health of every path; by which one frames leave.
    pub fn judge(&mut self, tick: u64, active: usize) -> usize {
        for path in &mut self.all {
            path.health = health::next(path.health, tick, path.last_pong, path.interval);
        }
        let both = [0, 1].map(|number| self.all.get(number).map(|path| path.health));
        health::active(both, tick, active)
    }

    /// Whether the peer answers by any of them.
    pub fn answer(&self, tick: u64) -> bool {
        self.all.iter().any(|path| path.last_pong > 0 && tick <= path.last_pong + ANSWERS * path.interval)
    }

    /// Whether it is known where the peer is by any of them.
    pub fn lead_somewhere(&self) -> bool {
        self.all.iter().any(|path| path.remote.target() != Target::Unknown)
    }
}

/// Puts a datagram into the outbox; false where it does not leave.
pub fn post(path: usize, target: Target, datagram: &[u8], out: &mut Outbox) -> bool {
    target != Target::Unknown
        && out.push(path, target, |to| {
            to[..datagram.len()].copy_from_slice(datagram);
            datagram.len()
        })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use privsep::ipc::{Address, Remote};

    use super::*;

    /// "It counts once, within 5 s, and by the path and from the address that the ping went to."
    #[test]
    fn a_pong_counts_once_and_in_time_and_from_where_its_ping_went() {
        let [there, elsewhere] = [1, 2].map(|last| SocketAddr::from(([192, 0, 2, last], 6000)));
        let learned = Remote::Learned { address: None, port: None };
        let paths = [learned, learned, Remote::Fixed(Address(there))];
        let fixed = Target::Fixed(there.into());
        let [there, elsewhere] = [there, elsewhere].map(Endpoint::from);
        let other_local = Endpoint { local: Some([192, 0, 2, 9].into()), ..there };
        let new = || Paths::new(paths.iter().map(|remote| Path::new(remote, &PathReport::default(), 1)).collect());
        let token = [7; 8];
        let asked = |path, target| {
            let mut paths = new();
            paths.pinged(token, path, target, 1_000_000);
            paths
        };
        let mut right = asked(0, Target::Learned(there));
        assert!(right.ponged(token, 0, Some(there), 9, 5_999_999));
        assert_eq!(right.all[0].remote.target(), Target::Learned(there));
        assert_eq!((right.all[0].last_pong, right.all[0].rtt_us), (9, 4_999_999));
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
            assert!(wrong.all.iter().all(|path| path.last_pong == 0));
            assert!(!wrong.all.iter().any(|path| path.remote.target() == Target::Learned(there)));
            // The right one still counts.
            assert_eq!(wrong.ponged([7; 8], 0, Some(there), 9, now_us), now_us < 6_000_000);
        }
        // Another of our addresses is where the peer is heard from now on.
        let mut moved = asked(0, Target::Learned(there));
        assert!(moved.ponged(token, 0, Some(other_local), 9, 1_000_001));
        assert_eq!(moved.all[0].remote.target(), Target::Learned(other_local));
        assert!(moved.all[0].is_from_peer(Some(other_local), 9) && !moved.all[0].is_from_peer(Some(there), 9));
        // Where the peer is fixed, it is not told from where.
        assert!(asked(2, fixed).ponged(token, 2, None, 9, 1_000_000));
        assert!(!new().ponged(token, 0, Some(there), 9, 0));
    }

    #[test]
    fn a_fixed_peer_is_answered_from_where_it_asks_while_nothing_else_serves() {
        let remote = SocketAddr::from(([192, 0, 2, 1], 6000));
        let path = Path::new(&Remote::Fixed(Address(remote)), &PathReport::default(), 1);
        let [any, asked, other] =
            [None, Some([192, 0, 2, 9].into()), Some([192, 0, 2, 8].into())].map(|local| Endpoint { remote, local });
        // At the start the kernel's choice has its time, but for answers.
        assert!(path.is_from_peer(Some(asked), SERVES) && !path.is_from_peer(Some(asked), SERVES + 1));
        assert_eq!(
            (path.answer_to(Some(asked)), path.remote.target()),
            (Some(Target::Fixed(asked)), Target::Fixed(any))
        );
        let mut paths = Paths::new(vec![path]);
        for (number, to, then) in [(0, any, any), (1, asked, asked), (2, any, asked), (3, asked, other)] {
            paths.pinged([number; 8], 0, Target::Fixed(to), 0);
            let source = if then == any { asked } else { then };
            assert!(paths.ponged([number; 8], 0, Some(source), 1, 1));
            assert_eq!(paths.all[0].remote.target(), Target::Fixed(then), "{number}");
        }
        let path = &mut paths.all[0];
        assert!(path.is_from_peer(Some(other), 9) && !path.is_from_peer(Some(asked), 1));
        // The next worker begins with it, and it is forgotten when nothing of the peer comes.
        let mut path = Path::new(&Remote::Fixed(Address(remote)), &path.report(0), 1);
        let quiet_us = QUIET * crate::wire::secure::session::SECOND;
        path.on_tick(quiet_us - 1, false);
        assert_eq!(path.remote.target(), Target::Fixed(other));
        path.received_us = Some(1);
        path.on_tick(quiet_us, false);
        assert_eq!(path.remote.target(), Target::Fixed(other));
        path.on_tick(quiet_us + 1, true);
        assert_eq!(path.remote.target(), Target::Fixed(any));
    }
}
