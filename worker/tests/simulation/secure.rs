//! Simulation of two ends of the secure wire on the same network. Round trips take up to a second, ping intervals up to a minute,
//! and frames are sent now and then. An attacker records datagrams and replays them from elsewhere.
//!
//! 1. No frame is invented or changed.
//! 2. No frame is delivered twice, even if datagrams are duplicated or replayed.
//! 3. [`SETTLED`] after the network has recovered, or after a mishap, both ends have a session. From then on no frame is lost
//!    unless the network loses it: a rekey, a crossing or a replay costs none.
//! 4. An attacker who replays datagrams, once or sixty times, does not become the peer, and gets few answers and pings.
//! 5. No outbox is full; the next deadline is in the future; without trouble there is one handshake in two minutes.
//! 6. A program never sends a timestamp twice, after any change of its worker or of its clock, once the worker has reported the
//!    timestamp.
//! 7. [`SEARCHES`] after the network carries less, an end that searches sends no datagram that is longer, and no run if runs are lost.
//! 8. All of this also holds if the program restarts with any clock, such as 1970, and its NAT has changed meanwhile.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;

use ethudp_worker::endpoint::Target;
use ethudp_worker::wire::secure::message::{self, Message};
use privsep::ipc::{Address, PathReport, Policy};

use crate::end::Datagram;
use crate::net::{Net, Random, Sky, first_that_works};
use crate::secure_end::{End, Kind, SHORT, any_time};
use crate::{Run, SECOND, World, for_seeds};

/// Time until recovery: five seconds until silence is noticed, a lost attempt of each form, an attempt of the form that passes with
/// its two round trips, and a ping.
const SETTLED: u64 = 22 * SECOND;
/// The same after one end has lost its clock and its address: attempts of both forms at both ends, until one answers the other.
const STARTED: u64 = 45 * SECOND;
const PHASES: usize = 6;
/// Time until an end has noticed that a path carries less, or no runs: traffic, a check of runs every ten seconds, and three rounds.
const SEARCHES: u64 = 20 * SECOND;

/// Source address of replayed datagrams.
fn stranger() -> SocketAddr {
    ([198, 51, 100, 1], 666).into()
}

/// Intervals at which the ends send, and their policy.
#[derive(Clone, Copy)]
struct Pace {
    ping_intervals: [u8; 2],
    idle: bool,
    policy: Policy,
}

impl Pace {
    /// A NAT forgets a mapping after half a minute.
    fn any(nat: bool, random: &mut Random) -> Self {
        let longest = if nat { 20 } else { 60 };
        let mut any = |_: i32| [1, 10, longest][random.below(3) as usize];
        let (all, are_long) = ([0; 2].map(&mut any), random.chance(3));
        let ping_intervals = if are_long { all } else { [1, 1] };
        let policy = [Policy::Failover, Policy::Duplicate, Policy::Balance][random.below(3) as usize];
        Self { ping_intervals, idle: random.chance(4), policy }
    }

    /// Silence is noticed after five intervals, and attempts last up to a minute.
    fn slow(self) -> u64 {
        let longest = u64::from(self.ping_intervals[0].max(self.ping_intervals[1]));
        if longest == 1 { 0 } else { (5 * longest + 150) * SECOND }
    }
}

/// Simulation of the secure wire.
struct Secure {
    run: Run,
    random: Random,
    ends: [End; 2],
    net: Net,
    nat: bool,
    /// Recorded datagrams for each end.
    recorded: [Vec<Datagram>; 2],
    /// Longest datagram that the network carries, in bytes.
    carries: usize,
    /// Whether the network drops runs.
    drops_runs: bool,
    /// Time by which the ping intervals delay recovery.
    slow: u64,
}

impl World for Secure {
    fn run(&mut self) -> &mut Run {
        &mut self.run
    }

    fn due(&self) -> u64 {
        let stopped = [0, 1].map(|which: usize| self.ends[which].stopped_until);
        self.ends.iter().map(End::due).fold(self.net.due(stopped), u64::min)
    }

    fn step(&mut self) {
        let now = self.run.now;
        for which in 0..2 {
            if now < self.ends[which].stopped_until {
                continue;
            }
            while let Some(datagram) = self.net.take(which, now) {
                if !self.nat || which == 0 {
                    self.record(1 - which, &datagram);
                }
                if let Some(frame) = self.ends[which].receive(&datagram, now) {
                    self.delivered(which, &frame);
                }
            }
            self.ends[which].on_time(now);
            if now >= self.ends[which].frame_at {
                self.ends[which].send_frame(now, &mut self.random);
                self.repeat(which);
            }
            self.run.check(self.ends[which].due() > now, "what was due still is");
            self.run.check(!self.ends[which].refused, "an outbox was full");
            let is_strangers = |report: &PathReport| report.learned == Some(Address(stranger()));
            self.run.check(!self.ends[which].state.paths.iter().any(is_strangers), "a stranger is the peer");
            for datagram in std::mem::take(&mut self.ends[which].sent) {
                self.carry(which, datagram);
            }
        }
    }
}

impl Secure {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let (paths, nat, swapped) = (1 + random.below(2) as usize, random.chance(2), random.chance(2));
        let offers = [0; 2].map(|_: i32| if random.chance(3) { 1 } else { 3 });
        let pace = Pace::any(nat, &mut random);
        let ends = [0, 1].map(|which| {
            let datagram = if random.chance(2) { SHORT as u16 } else { 1472 };
            let kind = Kind {
                which,
                swapped,
                offer: offers[which],
                remotes: Kind::remotes(which, paths, nat),
                datagram,
                ping_interval: pace.ping_intervals[which],
                pause: if pace.idle { 30 * SECOND } else { SECOND / 2 },
                searches: !pace.idle && datagram == 1472 && random.chance(2),
                policy: pace.policy,
            };
            End::new(kind, &mut random)
        });
        let run = Run::new("secure", seed);
        Self {
            run,
            net: Net::new(paths, nat),
            nat,
            ends,
            recorded: Default::default(),
            carries: 9000,
            drops_runs: false,
            slow: pace.slow(),
            random,
        }
    }

    fn live(&mut self) {
        for _ in 0..PHASES {
            self.phase();
        }
    }

    fn phase(&mut self) {
        let skies: Vec<Sky> = (0..self.net.paths()).map(|_| Sky::far(&mut self.random)).collect();
        self.net.set(&skies);
        self.carries = if self.random.chance(4) { SHORT } else { 9000 };
        self.drops_runs = self.random.chance(4);
        let moment = self.random.below(3 * SECOND);
        self.advance(moment);
        let which = self.random.below(2) as usize;
        let mut settled = SETTLED + SEARCHES;
        match self.random.below(8) {
            6 => {
                let wall = if self.random.chance(2) { 0 } else { any_time(&mut self.random) };
                self.ends[which].start_again(wall, self.run.now);
                // It has received nothing yet: a replayed initiation counts again, and is newer than all later ones of a clock that
                // was set back.
                self.recorded[1 - which].retain(|datagram| datagram.bytes[0] != message::INITIATION);
                self.net.move_nat(&mut self.random);
                settled = STARTED + SEARCHES;
            }
            0 => {
                self.ends[which].restart(self.run.now);
                if self.random.chance(2) {
                    self.ends[1 - which].restart(self.run.now);
                }
            }
            1 => {
                let time = self.random.below(8) * SECOND;
                self.ends[which].stopped_until = self.run.now + time;
                self.advance(time);
            }
            2 => self.net.move_nat(&mut self.random),
            3 => self.ends[which].wall.store(any_time(&mut self.random), Relaxed),
            _ => {}
        }
        self.advance(settled + self.slow);
        if first_that_works(&skies).is_none() {
            let time = self.random.below(60 * SECOND);
            self.advance(time);
            return;
        }
        let (begin, handshakes) = (self.run.now, [0, 1].map(|which: usize| self.ends[which].handshakes()));
        for which in 0..2 {
            let route = self.ends[which].session.route().clone();
            self.run.check(route.sending.is_some(), &format!("end {which} has no session under {skies:?}"));
            self.run.check(
                route.now().1.target != Target::Unknown,
                &format!("end {which} does not know where its peer is"),
            );
        }
        let time = self.random.below(200 * SECOND);
        self.advance(time);
        let until = self.run.now;
        self.advance(2 * SECOND);
        for (which, handshakes) in handshakes.into_iter().enumerate() {
            let sent = self.ends[which].frames.iter().filter(|(_, frame)| (begin..until).contains(&frame.sent));
            // Longer ones did not fit.
            let route = self.ends[which].session.route();
            let egress = route.now().1;
            let in_pieces = route.egress.iter().all(|egress| egress.datagram <= self.carries);
            if skies.iter().all(Sky::loses_nothing) && self.ends[which].kind.searches {
                let said = format!("end {which} sends {egress:?} where {} bytes are carried", self.carries);
                self.run.check(in_pieces && !(egress.runs && self.drops_runs), &said);
            }
            let fits =
                sent.filter(|(_, frame)| (in_pieces || frame.bytes.len() + 36 <= self.carries) && frame.delivered == 0);
            let lost: Vec<_> = fits.map(|(number, frame)| (number, frame.sent / SECOND)).collect();
            // Frames may leave by a path whose other direction is cut.
            if skies.iter().all(|sky| sky.loses_nothing_from(which)) {
                let said = format!("frames of end {which} were lost under {skies:?}: {lost:?}");
                self.run.check(lost.is_empty(), &said);
                let new = self.ends[which].handshakes() - handshakes;
                let said = format!("end {which} made {new} handshakes in {} s", (self.run.now - begin) / SECOND);
                self.run.check(new <= 1 + 2 * ((self.run.now - begin) / (120 * SECOND)) + 1, &said);
            }
            self.ends[which].frames.retain(|_, frame| frame.sent >= until);
        }
    }

    fn carry(&mut self, which: usize, datagram: Datagram) {
        if let Some(Message::Initiation(initiation)) = message::parse(&datagram.bytes) {
            let (said, bytes) = (initiation.bytes[12..20].to_vec(), datagram.bytes.clone());
            let before = self.ends[which].timestamps.insert(said, bytes);
            self.run.check(before.is_none_or(|before| before == datagram.bytes), "a timestamp was sent twice");
        }
        if datagram.target == Some(stranger()) {
            // In any second: ten repeated answers, ten replies to stale initiations, ten pings by each path; and answers to
            // datagrams that the attacker delivers first, of which there are four a second.
            let (now, times) = (self.run.now, &mut self.ends[which].to_stranger);
            times.push_back(now);
            times.retain(|time| time + SECOND > now);
            self.run.check(times.len() <= 20 + 10 * self.net.paths() + 5, "much was said to a stranger");
            return;
        }
        if self.nat && which == 0 {
            self.record(which, &datagram);
        }
        if datagram.bytes.len() <= self.carries && !(self.drops_runs && datagram.in_run) {
            let now = self.run.now;
            self.net.send(which, datagram, now, &mut self.random);
        }
    }

    /// If the stranger is not distinguishable from the peer, he gets only delivered datagrams. Otherwise he would be a working
    /// network.
    fn record(&mut self, which: usize, datagram: &Datagram) {
        let recorded = &mut self.recorded[which];
        recorded.push(datagram.clone());
        if recorded.len() > 300 {
            let at = self.random.below(300) as usize;
            recorded.swap_remove(at);
        }
    }

    /// Replays a datagram of an end: from elsewhere if the other end accepts that, otherwise from the same address.
    fn repeat(&mut self, which: usize) {
        if self.recorded[which].is_empty() || !self.random.chance(2) {
            return;
        }
        let at = self.random.below(self.recorded[which].len() as u64) as usize;
        let mut datagram = self.recorded[which][at].clone();
        if self.nat && which == 0 {
            datagram.source = stranger();
        }
        let copies = if self.random.chance(20) { 60 } else { 1 };
        for _ in 0..copies {
            self.net.put(1 - which, datagram.clone(), self.run.now + 1);
        }
    }

    fn delivered(&mut self, which: usize, bytes: &[u8]) {
        self.ends[1 - which].delivered(&self.run, bytes);
    }
}

#[test]
fn secure_promises_hold_on_any_network() {
    for_seeds(|seed| {
        let mut world = Secure::new(seed);
        world.live();
        world.run.now
    });
}
