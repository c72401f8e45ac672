//! Tests of the prober on a network that loses probes by size, in runs or at random.

use super::*;

const RTT_US: u64 = 10 * MILLISECOND;
const SETTINGS: PathSettings = PathSettings { least: 1252, most: 1472, runs: true };

/// A prober and its network. Probes arrive after a round trip, or are lost.
struct Run {
    prober: Prober,
    now_us: u64,
    seed: u64,
    under_way: Vec<(u64, Probe)>,
    /// Bytes sent by the path, and bytes of probes in each second.
    bytes: u64,
    probes: Vec<u64>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut prober = Prober::new(SETTINGS, 1);
        prober.begin(0);
        Self { prober, now_us: 0, seed, under_way: Vec::new(), bytes: 0, probes: vec![0; 2000] }
    }

    /// A number below 100.
    fn chance(&mut self) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % 100
    }

    /// Runs for some milliseconds. `data` bytes of frames leave in each. `arrives` tells whether a probe does; its arguments are the
    /// size, the probes sent before it in this millisecond, and a number below 100.
    fn run(&mut self, milliseconds: u64, data: u64, mut arrives: impl FnMut(u16, &[u16], u64) -> bool) {
        let until_us = self.now_us + milliseconds * MILLISECOND;
        while self.now_us < until_us {
            self.now_us += MILLISECOND;
            self.bytes += data;
            let now_us = self.now_us;
            self.prober.note_traffic(self.bytes, 0, now_us);
            for (_, Probe { token, size }) in self.under_way.extract_if(.., |(time, _)| *time <= now_us) {
                self.prober.answered(token, size, now_us);
            }
            let mut before = Vec::new();
            let mut id = 0;
            while let Some(probe) = self.prober.next(now_us, 5 * RTT_US, &mut |bytes| bytes.fill(7)) {
                id += 1;
                assert!(id < 100, "no end of probes");
                self.bytes += u64::from(probe.size);
                self.probes[usize::try_from(now_us / SECOND).unwrap()] += u64::from(probe.size);
                let chance = self.chance();
                if arrives(probe.size, &before, chance) {
                    self.under_way.push((now_us + RTT_US, probe));
                }
                before.push(probe.size);
            }
            assert!(self.prober.due_us(5 * RTT_US) > now_us || before.len() == 100);
        }
    }

    fn carries(&self) -> (u16, bool, Option<bool>) {
        let Carries { datagram, searched, runs, .. } = self.prober.carries();
        (datagram, searched, runs)
    }

    /// Greatest number of bytes of probes in ten seconds, for each second.
    fn most(&self, from: usize, until: usize) -> u64 {
        self.probes[from..until].windows(10).map(|window| window.iter().sum::<u64>() / 10).max().unwrap()
    }
}

#[test]
fn full_size_takes_one_round_trip() {
    let mut run = Run::new(1);
    run.run(12, 0, |_, _, _| true);
    assert_eq!(run.carries(), (1472, true, None));
    run.run(12, 0, |_, _, _| true);
    assert_eq!(run.carries(), (1472, true, Some(true)));
}

/// Neither at 5 % loss each way, in which a false black hole is repaired at once.
#[test]
fn random_loss_changes_nothing_for_long() {
    let (mut reduced, mut off) = (0, 0);
    for seed in 0..20 {
        let mut run = Run::new(seed);
        for _ in 0..600 {
            run.run(1000, 100, |_, _, chance| chance >= 10);
            reduced += u32::from(run.carries().0 < 1472);
            off += u32::from(run.carries().2 == Some(false));
        }
    }
    assert!(reduced <= 20 && off == 0, "{reduced} of 12,000 seconds reduced, {off} without runs");
}

#[test]
fn black_hole_is_found_within_half_a_second() {
    for limit in [1252, 1300, 1372, 1432] {
        let mut run = Run::new(3);
        run.run(5000, 1000, |_, _, _| true);
        run.prober.suspect(false, run.now_us);
        run.run(500, 0, |size, _, _| size <= limit);
        assert!(run.carries().0 <= limit, "{limit}: {:?}", run.carries());
        run.run(1000, 0, |size, _, _| size <= limit);
        let (found, searched, _) = run.carries();
        assert!(searched && found + 4 >= limit && found <= limit, "{limit}: {found}");
        assert!(run.prober.is_reduced());
        // It rises when the path carries more.
        run.run(601_000, 0, |_, _, _| true);
        assert_eq!(run.carries().0, 1472);
    }
}

#[test]
fn loss_pattern_raises_suspicion() {
    for (counts, suspects) in [
        (&[(0, 0, 0), (7, 0, 0), (8, 0, 4)][..], false),
        (&[(0, 0, 0), (7, 0, 0), (8, 0, 3)], true),
        (&[(u32::MAX, 3, 7), (3, 3, 7), (20, 3, 12)], true),
        (&[(100, 0, 100), (0, 0, 0), (8, 0, 8), (7, 0, 3)], false),
        (&[(100, 9, 100), (200, 9, 50)], false),
        // Pings and pongs arrive.
        (&[(0, u32::MAX, 0), (27, 19, 22)], false),
        (&[(0, u32::MAX, 0), (27, 18, 23)], false),
        (&[(0, u32::MAX, 0), (27, 18, 22)], true),
    ] {
        let mut run = Run::new(6);
        run.run(5000, 1000, |_, _, _| true);
        for &(sent, pings, opened) in counts {
            run.prober.note_counts(Counts { sent, pings, opened }, run.now_us);
        }
        assert_eq!(run.prober.doubts, suspects, "{counts:?}");
    }
}

/// The network card drops each run; then it is replaced.
#[test]
fn lost_runs_are_found_and_tried_again() {
    let mut run = Run::new(4);
    run.run(5000, 1000, |_, _, _| true);
    let sizes = RunCheck::sizes(1472);
    let is_run = |size, before: &[u16]| before.first() != Some(&SMALL) && size > sizes[0];
    run.prober.suspect(false, run.now_us);
    run.run(1000, 1000, |size, before, _| !is_run(size, before));
    assert_eq!(run.carries(), (1472, true, Some(false)));
    run.run(590_000, 1000, |size, before, _| !is_run(size, before));
    assert_eq!(run.carries().2, Some(false));
    run.run(12_000, 1000, |_, _, _| true);
    assert_eq!(run.carries().2, Some(true));
}

/// Losses of congestion have caused a check just before.
#[test]
fn lost_runs_are_found_after_congestion() {
    let mut run = Run::new(9);
    run.run(5000, 1000, |_, _, _| true);
    let sizes = RunCheck::sizes(1472);
    for _ in 0..20 {
        run.prober.suspect(false, run.now_us);
        run.run(100, 1000, |_, _, _| true);
    }
    for (sent, opened) in [(0, 0), (800, 100)] {
        run.prober.note_counts(Counts { sent, pings: 0, opened }, run.now_us);
    }
    run.run(2000, 1000, |size, before, _| before.first() == Some(&SMALL) || size <= sizes[0]);
    assert_eq!(run.carries(), (1472, true, Some(false)));
}

/// A path that has failed may return by another network, which carries more.
#[test]
fn new_way_is_tried_at_once() {
    let mut run = Run::new(7);
    let sizes = RunCheck::sizes(1300);
    run.run(5000, 1000, |size, before, _| size <= 1300 && (before.first() == Some(&SMALL) || size <= sizes[0]));
    assert_eq!(run.carries(), (1300, true, Some(false)));
    run.prober.moved(run.now_us);
    run.run(500, 0, |_, _, _| true);
    assert_eq!(run.carries(), (1472, true, Some(true)));
    // Which carries less.
    run.prober.moved(run.now_us + 40 * SECOND);
    run.run(41_000, 0, |size, _, _| size <= 1400);
    assert_eq!(run.carries(), (1400, true, Some(true)));
    // A search without answers waits up to eight seconds for its next round.
    let mut run = Run::new(8);
    run.run(60_000, 0, |_, _, _| false);
    run.prober.moved(run.now_us);
    run.run(100, 0, |_, _, _| true);
    assert_eq!(run.carries(), (1472, true, Some(true)));
}

/// A policer passes three full datagrams of each burst.
#[test]
fn policer_ends_no_runs() {
    let mut run = Run::new(5);
    for _ in 0..300 {
        run.run(1000, 1000, |_, before, _| before.iter().filter(|&&size| size > 1000).count() < 3);
        run.prober.suspect(false, run.now_us);
    }
    assert_eq!(run.carries().2, Some(true));
}

/// "2 kB/s on an idle path, 20 kB/s under traffic", measured over ten seconds.
#[test]
fn probes_are_bounded() {
    for (seed, limit) in [(0, 1472), (1, 1252), (2, 1400), (3, 0)] {
        let mut run = Run::new(seed);
        run.run(300_000, 0, |size, _, _| size <= limit);
        assert!(run.most(10, 300) <= 2000, "{limit}: {}", run.most(10, 300));
        for _ in 0..3000 {
            run.run(100, 1_000_000, |size, _, chance| size <= limit && chance >= 50);
            run.prober.suspect(false, run.now_us);
        }
        assert!(run.most(300, 600) <= 14_000, "{limit}: {}", run.most(300, 600));
        // A path whose way changes twice a second.
        for _ in 0..600 {
            run.prober.moved(run.now_us);
            run.run(500, 0, |size, _, _| size <= limit);
        }
        let mean = run.probes[610..900].iter().sum::<u64>() / 290;
        assert!(mean <= 2000 && run.most(610, 900) <= 5000, "{limit}: {mean}, {} at most", run.most(610, 900));
    }
}
