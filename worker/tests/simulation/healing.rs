//! Simulation of paths that fail under traffic: two ends of the secure wire with two or three paths. Delays are constant, up to 50 ms.
//! The network duplicates datagrams. It loses those that are cut, too long, or sent to an old address. Uplinks flap, two paths die a
//! second apart, a NAT moves twice a second, paths carry less for a while, and the ends send no frames for a while.
//!
//! 1. No frame is invented, changed or delivered twice. The ends count each duplicated datagram once, as a replay or as a copy.
//! 2. Frames that leave by one path arrive in their order. A return to a preferred path changes no order. With policy `duplicate` a later
//!    frame may come first by another path.
//! 3. An end loses frames only within [`MOVES`] after a cut of its direction, within [`NOTICES`] after a path carries less, and within
//!    [`FOLLOWS`] after its peer has moved. Where no path works, it loses frames until [`RECOVERS`] after the first path works. With
//!    policy `duplicate` a cut of one path, or a path that carries less, costs no frame.
//! 4. No switch storm: frames leave a path that has worked for a second only for one that has worked for [`HOLD`]: a preferred one, or any
//!    where the path itself has failed before. They move [`MOST`] times while an uplink flaps. A cut of one direction moves only that
//!    direction.
//! 5. Pings, probes and answers of an end have at most 20 kB/s on a path with traffic and 2 kB/s on an idle one, averaged over ten
//!    seconds.
//! 6. Frames leave by no path in longer datagrams than it carries, except within [`NOTICES`].

use std::collections::HashSet;

use ethudp_worker::wire::secure::message;
use privsep::ipc::Policy;

use crate::net::{Net, Random, Sky};
use crate::secure_end::{End, Kind};
use crate::{Run, SECOND, World, for_seeds};

const MILLISECOND: u64 = SECOND / 1000;
/// Time until the tunnel is up and the paths are searched.
const STARTED: u64 = 8 * SECOND;
const PHASES: usize = 2;
/// Mean time from one frame to the next.
const PAUSE: u64 = 20 * MILLISECOND;
/// Longest time from a cut to the move of the frames: 300 ms, or three round trips and four deviations, which cuts increase.
const MOVES: u64 = 700 * MILLISECOND;
/// Longest time from the return of a path to frames that arrive, where no path worked: a ping each 500 ms, and a round trip.
const RECOVERS: u64 = 700 * MILLISECOND;
/// Longest time until an end knows the new address of its peer: a frame, a ping and a pong.
const FOLLOWS: u64 = 300 * MILLISECOND;
/// Longest time until an end has noticed that a path carries less: a confirmation each 750 ms, rounds of doubt two seconds apart.
const NOTICES: u64 = 4 * SECOND;
/// Least hold time of a path that has failed.
const HOLD: u64 = 2 * SECOND;
/// Longest cut that an end may overlook on a path that frames do not leave by, with a ping each 500 ms.
const OVERLOOKS: u64 = 3 * SECOND / 2;
/// Most moves within 30 s: four returns, after hold times that double, and a move away from the path before each and at the end.
const MOST: u64 = 10;
/// Limits of pings, probes and answers in bytes a second, and the seconds over which they are averaged.
const BUSY: u64 = 20_000;
const IDLE: u64 = 2000;
const WINDOW: usize = 10;
/// Greatest length of a datagram on a path without a limit.
const ANY: usize = 9000;

struct Healing {
    run: Run,
    random: Random,
    ends: [End; 2],
    net: Net,
    nat: bool,
    policy: Policy,
    skies: Vec<Sky>,
    /// Longest datagram that each path carries, in bytes.
    carries: Vec<usize>,
    /// Times of the last change of each path, of the last change of each direction, and since which each direction works. Ends may
    /// overlook a cut that is shorter than [`OVERLOOKS`].
    changed: Vec<u64>,
    turned: [Vec<u64>; 2],
    good: [Vec<u64>; 2],
    /// Time since which a direction is cut on all paths.
    down: Option<u64>,
    /// Time until which the ends may take any path: after a time without a path, and while the NAT moves and so causes loss.
    free: u64,
    /// Times at which each end may lose frames.
    excuses: [Vec<(u64, u64)>; 2],
    /// Active path of each end, and time since which frames leave by each path.
    active: [usize; 2],
    moves: [u64; 2],
    used: [Vec<Option<u64>>; 2],
    /// Number of the last delivered frame of each end and path.
    last: [Vec<Option<u64>>; 2],
    /// Greatest number of a delivered frame of each end.
    newest: [Option<u64>; 2],
    /// Heads of the datagrams that have arrived at each end, and number of repeated ones.
    arrived: [HashSet<Vec<u8>>; 2],
    again: [u64; 2],
}

impl World for Healing {
    fn run(&mut self) -> &mut Run {
        &mut self.run
    }

    fn due(&self) -> u64 {
        self.ends.iter().map(End::due).fold(self.net.due([0; 2]), u64::min)
    }

    fn step(&mut self) {
        let now = self.run.now;
        for which in 0..2 {
            while let Some(datagram) = self.net.take(which, now) {
                if datagram.bytes[0] == message::DATA {
                    self.again[which] += u64::from(!self.arrived[which].insert(datagram.bytes[..16].to_vec()));
                }
                if let Some(frame) = self.ends[which].receive(&datagram, now) {
                    self.delivered(1 - which, &frame);
                }
            }
            let end = &mut self.ends[which];
            end.on_time(now);
            if now >= end.frame_at {
                end.send_frame(now, &mut self.random);
            }
            self.run.check(end.due() > now, "what was due still is");
            self.run.check(!end.refused, "an outbox was full");
            self.check_route(which);
            for datagram in std::mem::take(&mut self.ends[which].sent) {
                if datagram.bytes.len() <= self.carries[datagram.path] {
                    self.net.send(which, datagram, now, &mut self.random);
                }
            }
        }
    }
}

impl Healing {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let (paths, nat) = (2 + random.below(2) as usize, random.chance(2));
        let policy = [Policy::Failover, Policy::Failover, Policy::Duplicate, Policy::Balance][random.below(4) as usize];
        let ends = [0, 1].map(|which| {
            let kind = Kind {
                which,
                swapped: false,
                offer: 3,
                remotes: Kind::remotes(which, paths, nat),
                datagram: 1472,
                ping_interval: 1,
                pause: PAUSE,
                searches: true,
                policy,
            };
            End::new(kind, &mut random)
        });
        Self {
            run: Run::new("healing", seed),
            net: Net::new(paths, nat),
            skies: (0..paths).map(|_| Sky::steady(&mut random)).collect(),
            random,
            ends,
            nat,
            policy,
            carries: vec![ANY; paths],
            changed: vec![0; paths],
            turned: [0; 2].map(|_: u64| vec![0; paths]),
            good: [0; 2].map(|_: u64| vec![0; paths]),
            down: None,
            free: 0,
            excuses: Default::default(),
            active: [0; 2],
            moves: [0; 2],
            used: [0; 2].map(|_: u64| vec![None; paths]),
            last: [0; 2].map(|_: u64| vec![None; paths]),
            newest: [None; 2],
            arrived: Default::default(),
            again: [0; 2],
        }
    }

    fn live(&mut self) {
        self.net.set(&self.skies);
        self.excuse(0, STARTED);
        self.excuse(1, STARTED);
        self.advance(STARTED);
        for _ in 0..PHASES {
            match self.random.below(5) {
                0 | 1 => self.flap(),
                2 => self.die(),
                3 if self.nat => self.roam(),
                3 => self.shrink(),
                _ => self.rest(),
            }
            self.advance(3 * SECOND);
        }
        self.judge();
    }

    /// A path is cut and restored many times.
    fn flap(&mut self) {
        self.run.wire = "healing, flapping path";
        let path = self.random.below(2) as usize;
        let until = self.run.now + 10 * SECOND + self.random.below(20 * SECOND);
        self.moves = [0; 2];
        while self.run.now < until {
            let cut = self.skies[path].cut(&mut self.random);
            self.change(path, cut);
            let time = 30 * MILLISECOND + self.random.below(2 * SECOND);
            self.advance(time);
            self.restore(path);
            let time = 30 * MILLISECOND + self.random.below(3 * SECOND);
            self.advance(time);
        }
        self.run.check(
            self.moves.iter().all(|&moves| moves <= MOST),
            &format!("the ends have moved {:?} times", self.moves),
        );
    }

    /// Two paths are cut a second apart.
    fn die(&mut self) {
        self.run.wire = "healing, two dead paths";
        let mut paths = [0, 1];
        if self.random.chance(2) {
            paths.swap(0, 1);
        }
        for path in paths {
            let cut = self.skies[path].cut(&mut self.random);
            self.change(path, cut);
            self.advance(SECOND);
        }
        let time = self.random.below(15 * SECOND);
        self.advance(time);
        for path in paths {
            self.restore(path);
            let time = self.random.below(3 * SECOND);
            self.advance(time);
        }
    }

    /// The NAT moves twice a second.
    fn roam(&mut self) {
        self.run.wire = "healing, moving NAT";
        for _ in 0..10 + self.random.below(20) {
            self.net.move_nat(&mut self.random);
            self.excuse(1, FOLLOWS);
            self.free = self.run.now + SECOND;
            self.advance(SECOND / 2);
        }
    }

    /// Paths carry less for a while.
    fn shrink(&mut self) {
        self.run.wire = "healing, less carried";
        let path = self.random.below(self.carries.len() as u64) as usize;
        let carries = 1252 + self.random.below(220) as usize;
        let all = self.random.chance(2);
        for number in (0..self.carries.len()).filter(|&number| all || number == path) {
            (self.carries[number], self.changed[number]) = (carries, self.run.now);
        }
        if all || self.policy != Policy::Duplicate {
            self.excuse(0, NOTICES);
            self.excuse(1, NOTICES);
        }
        let time = NOTICES + self.random.below(8 * SECOND);
        self.advance(time);
        self.carries.fill(ANY);
    }

    /// The ends send no frames.
    fn rest(&mut self) {
        self.run.wire = "healing, rest";
        self.ends.iter_mut().for_each(|end| end.frame_at = u64::MAX);
        if self.random.chance(2) {
            let cut = self.skies[0].cut(&mut self.random);
            self.change(0, cut);
            self.advance(5 * SECOND);
            self.restore(0);
        }
        self.advance((2 * WINDOW as u64 + 2) * SECOND);
        let until = (self.run.now / SECOND) as usize;
        for (which, end) in self.ends.iter_mut().enumerate() {
            for (path, bytes) in end.control.iter_mut().enumerate() {
                bytes.resize(until, 0);
                let each = bytes[until - WINDOW..].iter().sum::<u64>() / WINDOW as u64;
                self.run.check(each <= IDLE, &format!("end {which} sends {each} B/s by path {path}, which is idle"));
            }
            end.frame_at = self.run.now;
        }
    }

    fn restore(&mut self, path: usize) {
        let sky = self.skies[path].whole();
        self.change(path, sky);
    }

    /// Changes the conditions of a path.
    fn change(&mut self, path: usize, sky: Sky) {
        let (now, before) = (self.run.now, self.skies[path]);
        self.skies[path] = sky;
        self.net.set(&self.skies);
        self.changed[path] = now;
        for which in 0..2 {
            if sky.cut[which] != before.cut[which] {
                let turned = std::mem::replace(&mut self.turned[which][path], now);
                if before.cut[which] && now > turned + OVERLOOKS {
                    self.good[which][path] = now;
                }
            }
            if sky.cut[which] && !before.cut[which] && self.policy != Policy::Duplicate {
                self.excuse(which, MOVES);
            }
        }
        let is_down = (0..2).any(|which: usize| self.skies.iter().all(|sky| sky.cut[which]));
        match self.down {
            None if is_down => self.down = Some(now),
            Some(since) if !is_down => {
                (self.down, self.free) = (None, now + SECOND);
                self.excuses.iter_mut().for_each(|excuses| excuses.push((since, now + RECOVERS)));
            }
            _ => {}
        }
    }

    fn excuse(&mut self, which: usize, time: u64) {
        self.excuses[which].push((self.run.now, self.run.now + time));
    }

    /// Invariants 4 and 6.
    fn check_route(&mut self, which: usize) {
        let (now, route) = (self.run.now, self.ends[which].session.route());
        let before = std::mem::replace(&mut self.active[which], route.active);
        let (turned, good) = (&self.turned[which], &self.good[which]);
        let is_cut = |path: usize, time: u64| self.skies[path].cut[which] && now > turned[path] + time;
        let works = !self.skies[before].cut[which] && now > turned[before] + SECOND;
        let to = route.active;
        self.moves[which] += u64::from(before != to);
        if before != to && works && self.down.is_none() && now > self.free {
            let right = (to < before || self.changed[before].max(self.free) > 0)
                && !is_cut(to, OVERLOOKS)
                && now >= good[to] + HOLD;
            let said = format!("end {which} moves from path {before} to {to}: {:?}, {turned:?}, {good:?}", self.skies);
            self.run.check(right, &said);
        }
        for (path, egress) in route.egress.iter().enumerate() {
            let used = &mut self.used[which][path];
            *used = route.uses(path).then(|| used.unwrap_or(now));
            let noticed = used.is_some_and(|used| now > used.max(self.changed[path]) + NOTICES);
            let said = format!("end {which} sends {} bytes by path {path}", egress.datagram);
            self.run.check(!noticed || egress.datagram <= self.carries[path], &said);
        }
    }

    /// Invariants 1 and 2.
    fn delivered(&mut self, which: usize, bytes: &[u8]) {
        let number = self.ends[which].delivered(&self.run, bytes);
        let path = self.ends[which].frames[&number].path;
        let before = self.newest[which].is_none_or(|newest| newest < number);
        let last = self.last[which][path].replace(number);
        self.newest[which] = self.newest[which].max(Some(number));
        let forced = self.run.now <= (self.changed[path] + SECOND).max(self.free);
        let in_order = last.is_none_or(|last| last < number) && (before || forced);
        let said = format!("frame {number} of end {which} by path {path} after {last:?}, {:?}", self.newest[which]);
        self.run.check(in_order || self.policy == Policy::Duplicate, &said);
    }

    /// Invariants 1, 3 and 5 for the whole life.
    fn judge(&mut self) {
        let until = self.run.now - SECOND;
        for (which, end) in self.ends.iter().enumerate() {
            let excused = |sent: u64| self.excuses[which].iter().any(|&(from, until)| (from..until).contains(&sent));
            let missing =
                |frame: &&crate::secure_end::Frame| frame.delivered == 0 && frame.sent < until && !excused(frame.sent);
            let mut lost: Vec<_> = end.frames.values().filter(missing).map(|frame| (frame.sent, frame.path)).collect();
            lost.sort_unstable();
            self.run.check(
                lost.is_empty(),
                &format!("frames of end {which} were lost: {lost:?}, {:?}", self.excuses[which]),
            );
            let counts = end.state.secure().map(|secure| secure.counts).unwrap_or_default();
            let repeated = counts.replays + counts.copies;
            self.run.check(repeated == self.again[which], &format!("{repeated} repetitions of {}", self.again[which]));
            for (path, bytes) in end.control.iter().enumerate() {
                let most = bytes.windows(WINDOW).map(|window| window.iter().sum::<u64>() / WINDOW as u64).max();
                let most = most.unwrap_or(0);
                self.run.check(most <= BUSY, &format!("end {which} sends {most} B/s by path {path}"));
            }
        }
    }
}

#[test]
fn paths_heal_under_traffic() {
    for_seeds(|seed| {
        let mut world = Healing::new(seed);
        world.live();
        world.run.now
    });
}
