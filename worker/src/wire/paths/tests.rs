//! Evidence and order of paths over time: silent cuts, loss, jitter, delay, and peers that stop.

use super::choose::Class;
use super::evidence::Evidence;
use super::*;

const MILLISECOND: u64 = 1000;
const SECOND: u64 = 1_000_000;

struct Only(Evidence);

impl AsRef<Evidence> for Only {
    fn as_ref(&self) -> &Evidence {
        &self.0
    }
}

impl AsMut<Evidence> for Only {
    fn as_mut(&mut self) -> &mut Evidence {
        &mut self.0
    }
}

/// Network of one path.
#[derive(Clone, Copy)]
struct Sky {
    cut: bool,
    /// Round trip in microseconds, and the most that is added.
    rtt_us: u64,
    jitter_us: u64,
    /// Unanswered pings in a thousand.
    loss: u64,
}

const CLEAR: Sky = Sky { cut: false, rtt_us: MILLISECOND, jitter_us: 0, loss: 0 };

/// Paths under traffic, and answers on their way: time, path, time of the ping.
struct World {
    paths: Paths<Only>,
    skies: Vec<Sky>,
    answers: Vec<(u64, usize, u64)>,
    now_us: u64,
    random: u64,
    /// Pings of each path.
    pings: Vec<usize>,
    /// Changes of the active path: time and path.
    moves: Vec<(u64, usize)>,
    traffic: bool,
}

impl World {
    fn new(skies: &[Sky]) -> Self {
        let remote = privsep::ipc::Remote::Fixed(privsep::ipc::Address(([192, 0, 2, 1], 6000).into()));
        let path =
            |_| Path::new(&remote, &PathReport::default(), 1, 1472, Only(Evidence::new(&PathReport::default(), 1)));
        let mut world = Self {
            paths: Paths::new(skies.iter().map(path).collect(), 0),
            skies: skies.to_vec(),
            answers: Vec::new(),
            now_us: 0,
            random: 7,
            pings: vec![0; skies.len()],
            moves: Vec::new(),
            traffic: true,
        };
        world.run(6 * SECOND);
        world.moves.clear();
        world
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % limit.max(1)
    }

    /// Runs for a time in steps of a millisecond.
    fn run(&mut self, time_us: u64) {
        for _ in 0..time_us / MILLISECOND {
            self.now_us += MILLISECOND;
            let now_us = self.now_us;
            let (due, later) = std::mem::take(&mut self.answers).into_iter().partition(|answer| answer.0 <= now_us);
            self.answers = later;
            let due: Vec<(u64, usize, u64)> = due;
            for (_, path, sent_us) in due {
                self.paths.all[path].wire.0.answered(sent_us, now_us, false);
            }
            let active = self.paths.choice().active();
            self.paths.weigh(now_us, now_us <= 5 * SECOND);
            if self.paths.choice().active() != active {
                self.moves.push((now_us, self.paths.choice().active()));
            }
            for number in 0..self.paths.all.len() {
                let role = self.paths.role(number, self.traffic);
                let evidence = &mut self.paths.all[number].wire.0;
                let is_idle = now_us.is_multiple_of(SECOND) && evidence.is_idle(now_us);
                if now_us >= evidence.next_ping_us(role, now_us) || is_idle {
                    evidence.pinged(now_us, true);
                    self.pings[number] += 1;
                    let sky = self.skies[number];
                    let (lost, more) = (self.below(1000) < sky.loss, self.below(sky.jitter_us + 1));
                    if !sky.cut && !lost {
                        self.answers.push((now_us + sky.rtt_us + more, number, now_us));
                    }
                }
            }
        }
    }

    fn class(&self, path: usize) -> Class {
        self.paths.all[path].wire.0.standing().class
    }

    fn cut(&mut self, path: usize, cut: bool) {
        self.skies[path].cut = cut;
    }

    fn cut_all(&mut self, cut: bool) {
        self.skies.iter_mut().for_each(|sky| sky.cut = cut);
    }
}

/// Milliseconds from a silent cut of the first path until frames leave by the second one.
fn gaps(sky: Sky) -> Vec<u64> {
    let mut all: Vec<_> = (0..40)
        .map(|phase| {
            let mut world = World::new(&[sky, sky]);
            world.run((100 + phase) * MILLISECOND);
            let cut_us = world.now_us;
            world.cut(0, true);
            world.run(2 * SECOND);
            assert_eq!(world.moves.len(), 1, "{:?}", world.moves);
            (world.moves[0].0 - cut_us) / MILLISECOND
        })
        .collect();
    all.sort_unstable();
    all
}

/// "Within max(300 ms, 3 smoothed round trips + 4 deviations)."
#[test]
fn silent_cut_moves_frames() {
    for (rtt, jitter, most) in [
        (1, 0, 150),
        (10, 5, 200),
        (30, 0, 200),
        (50, 20, 300),
        (90, 0, 300),
        (200, 0, 600),
        (400, 0, 1200),
        (900, 0, 2700),
    ] {
        let gaps = gaps(Sky { rtt_us: rtt * MILLISECOND, jitter_us: jitter * MILLISECOND, ..CLEAR });
        println!("round trip {rtt} ms, jitter {jitter} ms: {} to {} ms, median {}", gaps[0], gaps[39], gaps[20]);
        assert!(gaps[39] <= most, "{rtt} {jitter}: {gaps:?}");
    }
}

/// Also while the path that frames move to has not been good for its hold time, which grows with each cut.
#[test]
fn repeated_cuts_move_frames_as_fast() {
    let mut world = World::new(&[CLEAR, CLEAR]);
    for number in 0..30 {
        let active = world.paths.choice().active();
        let cut_us = world.now_us;
        world.moves.clear();
        world.cut(active, true);
        world.run(400 * MILLISECOND);
        assert!(
            matches!(world.moves[..], [(at_us, _)] if at_us <= cut_us + 150 * MILLISECOND),
            "{number}: {cut_us} {:?}",
            world.moves
        );
        world.cut(active, false);
        world.run(1300 * MILLISECOND);
    }
}

/// While the cut of the shorter path is not certain, and where the longer one has not answered since.
#[test]
fn second_path_carries_copies_and_flows_through_cut() {
    for policy in [Policy::Duplicate, Policy::Balance] {
        let mut world = World::new(&[CLEAR, Sky { rtt_us: 300 * MILLISECOND, ..CLEAR }]);
        world.paths = world.paths.with_policy(policy, [1; MAX_PATHS]);
        world.run(SECOND);
        let cut_us = world.now_us;
        world.cut(0, true);
        for _ in 0..1000 {
            world.run(MILLISECOND);
            let route = world.paths.route();
            assert!(route.uses(1) && route.from_us < cut_us, "{policy:?} at {}", world.now_us);
        }
        assert_eq!(world.class(0), Class::Dead);
    }
}

/// Frames on the way by a longer path arrive before those that leave by a shorter one.
#[test]
fn return_waits_for_frames_on_the_way() {
    for (rtt_us, least_us) in [(CLEAR.rtt_us, 0), (41 * MILLISECOND, 20 * MILLISECOND)] {
        let mut world = World::new(&[CLEAR, Sky { rtt_us, ..CLEAR }]);
        world.cut(0, true);
        world.run(SECOND);
        assert_eq!((world.moves.len(), world.paths.route().from_us), (1, 0), "a dead path is left at once");
        world.cut(0, false);
        world.run(5 * SECOND);
        let [_, (back_us, 0)] = world.moves[..] else { panic!("{:?}", world.moves) };
        let pause_us = world.paths.route().from_us - back_us;
        assert!((least_us + 1..=least_us + 20 * MILLISECOND).contains(&pause_us), "{pause_us}");
    }
}

#[test]
fn loss_and_jitter_move_nothing() {
    // 5 % each way.
    let lossy = Sky { loss: 98, ..CLEAR };
    let unsteady = Sky { jitter_us: 40 * MILLISECOND, ..CLEAR };
    let far = Sky { rtt_us: 50 * MILLISECOND, jitter_us: 20 * MILLISECOND, loss: 98, ..CLEAR };
    for sky in [lossy, unsteady, far] {
        let mut world = World::new(&[sky, CLEAR]);
        world.run(600 * SECOND);
        assert_eq!((world.moves.len(), world.class(0)), (0, Class::Good));
    }
}

#[test]
fn stopped_peer_moves_nothing() {
    let mut world = World::new(&[CLEAR, CLEAR]);
    for _ in 0..5 {
        world.cut_all(true);
        world.run(400 * MILLISECOND);
        assert_eq!(world.moves, [], "no path answers");
        world.cut_all(false);
        world.run(400 * MILLISECOND);
        assert!(world.paths.all.iter().all(|path| path.estimate.health() == PathHealth::Up));
        world.run(3 * SECOND);
        // The first answer after a long stop may come by any path.
        world.moves.clear();
    }
    let (active, other) = (world.paths.choice().active(), 1 - world.paths.choice().active());
    world.cut_all(true);
    world.run(1200 * MILLISECOND);
    assert!(world.paths.choice().is_down());
    assert!(world.paths.all.iter().all(|path| path.estimate.health() == PathHealth::Down));
    // Recovery in one interval.
    assert_eq!((&world.moves[..], world.paths.choice().active()), (&[][..], active));
    world.cut(other, false);
    world.run(300 * MILLISECOND);
    assert_eq!((world.moves.len(), world.paths.choice().active()), (1, other));
}

#[test]
fn time_in_which_this_end_stopped_is_no_silence() {
    let mut world = World::new(&[CLEAR]);
    world.cut(0, true);
    world.run(90 * MILLISECOND);
    for _ in 0..20 {
        world.now_us += 100 * MILLISECOND;
        world.paths.all[0].wire.0.forgive(100 * MILLISECOND, world.now_us);
        world.paths.weigh(world.now_us, false);
        assert_eq!(world.class(0), Class::Good);
    }
    // A suspended machine.
    world.now_us += 60 * SECOND;
    world.paths.all[0].wire.0.forgive(60 * SECOND, world.now_us);
    world.paths.weigh(world.now_us, false);
    assert_eq!((world.class(0), world.paths.all[0].estimate.health()), (Class::Good, PathHealth::Up));
    world.run(100 * MILLISECOND);
    assert_eq!(world.class(0), Class::Dead);
}

#[test]
fn flapping_path_is_held_longer() {
    let mut world = World::new(&[CLEAR, CLEAR]);
    let mut returns = Vec::new();
    for _ in 0..6 {
        world.cut(0, true);
        world.run(SECOND);
        assert_eq!(world.paths.choice().active(), 1);
        world.cut(0, false);
        let from = world.now_us;
        while world.paths.choice().active() == 1 {
            world.run(100 * MILLISECOND);
        }
        returns.push((world.now_us - from) / SECOND);
        world.run(3 * SECOND);
    }
    assert_eq!(returns, [2, 4, 8, 16, 32, 64]);
    // A long time without trouble is a new beginning.
    world.run(1000 * SECOND);
    world.cut(0, true);
    world.run(SECOND);
    world.cut(0, false);
    world.run(3 * SECOND);
    assert_eq!(world.paths.choice().active(), 0);
}

#[test]
fn answers_by_other_path_keep_path_alive() {
    let mut evidence = Evidence::new(&PathReport::default(), 1);
    let mut now_us = 0;
    for round in 0..400 {
        now_us += 25 * MILLISECOND;
        evidence.pinged(now_us, true);
        // After a while answers come by a slower path only.
        let elsewhere = round >= 40;
        evidence.answered(now_us, now_us + if elsewhere { 60 } else { 2 } * MILLISECOND, elsewhere);
        evidence.judge(now_us + 60 * MILLISECOND);
        assert_eq!((evidence.standing().class, evidence.asks_every_path()), (Class::Good, elsewhere), "{round}");
    }
    let rtt_us = evidence.rtt().srtt_us();
    assert!((2000..2100).contains(&rtt_us), "{rtt_us}: not of the path");
}

#[test]
fn poor_path_gives_way() {
    // A delay of two seconds.
    let mut world = World::new(&[CLEAR, CLEAR]);
    world.skies[0].rtt_us = 2 * SECOND;
    world.run(20 * SECOND);
    assert_eq!(world.paths.choice().active(), 1);
    assert!(world.moves.len() <= 3, "{:?}", world.moves);
    world.skies[0].rtt_us = MILLISECOND;
    world.run(60 * SECOND);
    assert_eq!(world.paths.choice().active(), 0);
    // Loss on the way to the peer, as the peer's counts show.
    let (mut sent, mut opened) = (0, 0);
    let mut lose = |arrive: u32, windows: u32| {
        for _ in 0..windows {
            (sent, opened) = (sent + 100, opened + arrive);
            world.paths.all[0].wire.0.to_peer.take(sent, opened, world.now_us);
            world.run(200 * MILLISECOND);
        }
        world.paths.choice().active()
    };
    // 50 % for a moment, then 70 %, and none again.
    let active =
        [(100, 3), (50, 2), (100, 3), (30, 4), (100, 5), (100, 200)].map(|(arrive, windows)| lose(arrive, windows));
    assert_eq!(active, [0, 0, 0, 1, 1, 0]);
}

/// "Probes bounded: 2 kB/s on an idle path, 20 kB/s under traffic."
#[test]
fn pings_are_bounded() {
    for (sky, traffic, most) in [
        (CLEAR, false, 1),
        (CLEAR, true, 41),
        (Sky { cut: true, ..CLEAR }, false, 5),
        (Sky { cut: true, ..CLEAR }, true, 8),
        (Sky { loss: 300, ..CLEAR }, true, 80),
    ] {
        let mut world = World::new(&[CLEAR]);
        (world.skies[0], world.traffic) = (sky, traffic);
        let before = world.pings[0];
        world.run(10 * SECOND);
        let each = (world.pings[0] - before) / 10;
        assert!(each <= most, "{each} pings a second, at most {most}");
    }
}
