//! Simulation of two ends of a tunnel. The network loses, reorders, duplicates, delays and cuts; a NAT forgets and moves; workers
//! are replaced and processes stopped. Minutes of tunnel time take milliseconds, and all of it follows from a seed.
//!
//! Invariants for any seed:
//!
//! 1. No frame is invented: a delivered frame was sent by the other end, byte for byte.
//! 2. The ends duplicate no frame: it is delivered at most as often as its datagrams arrive, one whole or both fragments.
//! 3. A preferred path that has worked for [`SETTLED`] ticks is up and used at both ends. If only the other path works, that one is
//!    used. A path that has never answered, or not for five ticks, is neither up nor used. In the first five ticks only the
//!    preferred path is used. A new worker continues with the path of the previous one.
//! 4. If nothing is lost on the path in use, every frame arrives.
//! 5. Nothing grows: the outbox always has room for answers, and no end sends more than its PINGs, its password and its answers.
//! 6. Time advances: after each call the next deadline is in the future, ticks never go back, and there is one a second.
//! 7. A sequence number is on one fragment, and on no other of the next minute, even if the worker is replaced.
//! 8. With a password, a stranger who does not know it is never the peer, and gets no delivery and no answer, even with the key and
//!    copies of all datagrams. Without a password a new worker knows the learned peer.
//! 9. With a PING each 100 ms, both ends leave a cut path within a second, and return within a second.
//!
//! `ETHUDP_SEEDS` sets the number of seeds (200), `ETHUDP_SEED` selects one.

#![allow(clippy::cast_possible_truncation)] // Small numbers, in a test.

mod end;
mod healing;
mod net;
mod secure;
mod secure_end;

use std::collections::HashMap;

use end::{Datagram, End, Frame, STRANGER};
use net::{Net, Random, Sky};

/// Ticks after which both ends have noticed that a path works, or has ceased to: five without an answer, one of phase, and one more
/// each if a password must be sent again.
const SETTLED: u64 = 12;
const SECOND: u64 = 1_000_000;
/// Time in which a fragment's number does not repeat: far longer than fragments wait and the network delays.
const UNIQUE: u64 = 60 * SECOND;
/// Phases of a run, each with its own sky.
const PHASES: usize = 12;

/// Identification and progress of a run.
struct Run {
    wire: &'static str,
    seed: u64,
    now: u64,
}

impl Run {
    fn new(wire: &'static str, seed: u64) -> Self {
        Self { wire, seed, now: 0 }
    }

    /// Fails with the seed and the violated invariant.
    fn check(&self, holds: bool, what: &str) {
        let Self { wire, seed, now } = self;
        assert!(holds, "{wire}, seed {seed}, second {}: {what} (run it alone with ETHUDP_SEED={seed})", now / SECOND);
    }
}

/// Two ends and the network between them.
trait World {
    fn run(&mut self) -> &mut Run;

    /// Time of the next deadline.
    fn due(&self) -> u64;

    /// Does the due work.
    fn step(&mut self);

    /// Runs everything that is due within `time`.
    fn advance(&mut self, time: u64) {
        let until = self.run().now + time;
        loop {
            let due = self.due();
            let now = &mut self.run().now;
            if due > until {
                *now = until;
                return;
            }
            *now = due.max(*now);
            self.step();
        }
    }
}

/// Simulation of the classic wire.
struct Classic {
    run: Run,
    random: Random,
    ends: [End; 2],
    stranger: Option<End>,
    net: Net,
    /// Time at which each end last used a number for a fragment.
    numbers: [HashMap<u16, u64>; 2],
}

impl World for Classic {
    fn run(&mut self) -> &mut Run {
        &mut self.run
    }

    fn due(&self) -> u64 {
        let stopped = [0, 1].map(|which: usize| self.ends[which].stopped_until);
        self.ends.iter().chain(&self.stranger).map(End::due).fold(self.net.due(stopped), u64::min)
    }

    fn step(&mut self) {
        let now = self.run.now;
        for which in 0..2 {
            if self.ends[which].is_stopped(now) {
                continue;
            }
            while let Some(datagram) = self.net.take(which, now) {
                let delivered = self.ends[which].receive(&datagram, now);
                if let Some(bytes) = delivered {
                    self.on_delivery(which, &bytes);
                }
            }
            self.on_time(which);
            if self.ends[which].frame_due(now) {
                self.ends[which].send_frame(now, &mut self.random);
            }
            self.run.check(self.ends[which].due() > now, "what was due still is");
            for datagram in std::mem::take(&mut self.ends[which].sent) {
                self.check_number(which, &datagram);
                self.overhear(which, &datagram);
                self.net.send(which, datagram, now, &mut self.random);
            }
        }
        self.intrude();
    }
}

impl Classic {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let shape = end::Shape::any(&mut random);
        Self::shaped(seed, random, &shape)
    }

    fn shaped(seed: u64, random: Random, shape: &end::Shape) -> Self {
        let net = Net::new(shape.paths, shape.nat);
        #[allow(clippy::large_stack_arrays)] // Two machines in a test.
        let ends = [End::new(0, shape), End::new(1, shape)];
        let stranger = shape.has_stranger().then(|| End::new(STRANGER, shape));
        let run = Run::new("classic", seed);
        Self { run, ends, stranger, net, random, numbers: Default::default() }
    }

    fn live(&mut self) {
        for _ in 0..PHASES {
            self.phase();
        }
        for end in &self.ends {
            self.run.check(end.refused == 0, "an outbox was full");
        }
    }

    /// Cuts the preferred path and restores it, some times: invariant 9.
    fn fail_over(&mut self) {
        self.advance(SETTLED * SECOND);
        for _ in 0..PHASES {
            let clear = [Sky::clear(&mut self.random), Sky::clear(&mut self.random)];
            let cut = [clear[0].cut(&mut self.random), clear[1]];
            for skies in [clear, cut, clear] {
                self.net.set(&skies);
                self.advance(SECOND);
                self.check_paths(&skies);
                let moment = self.random.below(SECOND);
                self.advance(moment);
            }
        }
    }

    /// Runs some time under one sky, with random mishaps of the ends.
    fn phase(&mut self) {
        let skies: Vec<Sky> = (0..self.net.paths()).map(|_| Sky::any(&mut self.random)).collect();
        self.net.set(&skies);
        let length = SETTLED + self.random.below(30);
        let mishap = self.random.below(4);
        let begin = self.run.now;
        let moment = self.random.below(2 * SECOND);
        self.advance(moment);
        match mishap {
            0 => self.restart(),
            1 => self.stop(),
            2 => self.net.move_nat(&mut self.random),
            _ => {}
        }
        self.advance(begin + length * SECOND - self.run.now.min(begin + length * SECOND));
        // A mishap takes its time from the phase. The settling time stays whole.
        self.advance(SETTLED * SECOND);
        self.check_paths(&skies);
        self.check_traffic(&skies);
    }

    /// Replaces one end's worker, after a moment without any.
    fn restart(&mut self) {
        let which = usize::from(self.random.chance(2));
        let now = self.run.now;
        let goes_on = self.ends[which].restart(now);
        self.run.check(goes_on, "a new worker does not know where frames went");
        let moment = self.random.below(SECOND / 10);
        self.advance(moment);
    }

    /// Stops one end for a while: datagrams queue meanwhile.
    fn stop(&mut self) {
        let which = usize::from(self.random.chance(2));
        let time = self.random.below(8) * SECOND;
        self.ends[which].stop(self.run.now, time);
        self.advance(time);
    }

    /// Does the due work of an end: invariants 3, 5, 6 and 8.
    fn on_time(&mut self, which: usize) {
        let now = self.run.now;
        let (tick, active) = (self.ends[which].tick(), self.ends[which].active());
        self.ends[which].on_time(now);
        let end = &self.ends[which];
        self.run.check(end.tick() >= tick, "a tick went back");
        self.run.check(end.keeps_time(now), "there were not as many ticks as seconds");
        self.run.check(end.up().all(|path| end.answers(path)), "a path is up that does not answer");
        self.run.check(end.waits_for_the_first(), "the preferred path has not had its time");
        self.run.check(end.active() == active || end.answers(end.active()), "a path was taken that does not answer");
        self.run.check(end.says_no_more_than_it_must(), "more was said than is due");
        self.run.check(!end.has_learned(STRANGER), "a stranger is the peer");
    }

    /// Invariant 7.
    fn check_number(&mut self, which: usize, datagram: &Datagram) {
        if let Some([first, second]) = datagram.bytes.strip_prefix(b"UDPFRG").and_then(|rest| rest.first_chunk()) {
            let before = self.numbers[which].insert(u16::from_be_bytes([*first, *second]), self.run.now);
            let again = before.is_some_and(|before| self.run.now < before + UNIQUE);
            self.run.check(!again, "a fragment has the number of another");
        }
    }

    /// Lets the stranger answer the datagrams of end 1.
    fn overhear(&mut self, from: usize, datagram: &Datagram) {
        if let Some(stranger) = self.stranger.as_mut().filter(|_| from == 1) {
            stranger.receive(datagram, self.run.now);
        }
    }

    /// Delivers the stranger's datagrams to end 1 as if they were the peer's.
    fn intrude(&mut self) {
        let Some(stranger) = &mut self.stranger else { return };
        stranger.on_time(self.run.now);
        if stranger.frame_due(self.run.now) {
            stranger.send_frame(self.run.now, &mut self.random);
        }
        for datagram in stranger.sent.drain(..) {
            self.net.put(1, datagram, self.run.now + 1);
        }
    }

    /// Invariants 1 and 2.
    fn on_delivery(&mut self, which: usize, bytes: &[u8]) {
        let number = Frame::number(bytes);
        let frame = self.ends[1 - which].frames.get_mut(&number);
        self.run.check(frame.is_some(), "a frame was invented");
        let Some(frame) = frame else { return };
        frame.delivered += 1;
        let (same, delivered) = (frame.bytes == bytes, frame.delivered);
        self.run.check(same, "a frame was changed on its way");
        let copies = self.net.copies(1 - which, number);
        self.run.check(delivered <= copies, "a frame was doubled by us");
    }

    /// Invariant 3.
    fn check_paths(&mut self, skies: &[Sky]) {
        let Some(expected) = net::first_that_works(skies) else { return };
        let now = self.run.now;
        for which in 0..2 {
            let state = self.ends[which].report(now);
            let right = usize::from(state.active) == expected;
            let text = format!("end {which} uses path {}, {:?}, under {skies:?}", state.active, state.paths);
            self.run.check(right, &text);
        }
    }

    /// Invariant 4.
    fn check_traffic(&mut self, skies: &[Sky]) {
        let clear = net::first_that_works(skies).is_some_and(|path| skies[path].loses_nothing());
        let (from, until) = (self.run.now - 4 * SECOND, self.run.now - 2 * SECOND);
        for which in 0..2 {
            let sent = self.ends[which].frames.values().filter(|frame| (from..until).contains(&frame.sent));
            let lost = sent.filter(|frame| frame.delivered == 0).count();
            self.run.check(!clear || lost == 0, &format!("{lost} frames of end {which} were lost"));
            // Older frames are already judged.
            let now = self.run.now;
            self.ends[which].frames.retain(|_, frame| frame.sent + 10 * SECOND > now);
        }
        self.net.forget(&self.ends);
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: must be a number")))
}

#[test]
fn classic_promises_hold_on_any_network() {
    for_seeds(|seed| {
        let mut world = Classic::new(seed);
        world.live();
        world.run.now
    });
}

#[test]
fn classic_fast_pings_fail_over_within_a_second() {
    for_seeds(|seed| {
        let mut random = Random::new(seed);
        let shape = end::Shape::fast(&mut random);
        let mut world = Classic::shaped(seed, random, &shape);
        world.fail_over();
        world.run.now
    });
}

/// Runs each seed, on two threads, or the selected one. A run returns the lifetime of its tunnel.
fn for_seeds(run: impl Fn(u64) -> u64 + Sync) {
    if let Some(seed) = number("ETHUDP_SEED") {
        run(seed);
        return;
    }
    let seeds = number("ETHUDP_SEEDS").unwrap_or(200);
    let (started, next) = (std::time::Instant::now(), std::sync::atomic::AtomicU64::new(0));
    let simulated = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    simulated.fetch_add(run(seed) / SECOND, std::sync::atomic::Ordering::Relaxed);
                }
            });
        }
    });
    let (hours, took) = (simulated.into_inner() / 3600, started.elapsed());
    println!("{seeds} seeds: {hours} hours of tunnel time in {:.1} s", took.as_secs_f64());
}
