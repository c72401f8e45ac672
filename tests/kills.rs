//! Workers killed again and again under a stream of 10,000 frames a second: the tunnel hardly stops, and nothing is left.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::lab::{
    Arrived, Namespace, Running, Sites, Stream, allowed, assert_udp, children, crash, resources, wait_for,
};

const LIMIT: Duration = crate::lab::PATIENCE;
/// A worker that has forwarded for a second is replaced at once; some more, for what our own measuring takes.
const SETTLED: Duration = Duration::from_millis(1050);
/// Longest gap in the stream, but for one kill in a hundred: for a loaded machine, an idle one needs a tenth of it.
const GAP: Duration = Duration::from_millis(300);
/// Longest time that a frame may have been under way: what has waited for longer when a worker starts is dropped.
const STALE: Duration = Duration::from_millis(1500);
/// Kills after which resources are first looked at: until then caches fill.
const WARM_UP: u32 = 10;
/// What a process may have grown by since, in KiB.
const GROWTH: u64 = 1024;

/// How many kills, half of them at each end.
fn kills() -> u32 {
    let kills = std::env::var("ETHUDP_KILLS").map_or(50, |number| number.parse().expect("ETHUDP_KILLS is a number"));
    assert!(kills > WARM_UP, "ETHUDP_KILLS is to be more than {WARM_UP}");
    kills
}

/// Whether this one crashes instead: far less than 60 times in ten minutes, which would end the tunnel.
fn crashes(number: u32) -> bool {
    [24, 49].contains(&(number % 50))
}

/// One end, and what must not change or go back.
struct End<'a> {
    running: Running,
    site: &'a Namespace,
    interface: u32,
    worker: Pid,
    /// Since when the worker forwards, or some milliseconds less.
    forwards: Instant,
    kills: u64,
    counters: BTreeMap<String, u64>,
}

impl<'a> End<'a> {
    fn start(site: &'a Namespace, here: u8, there: u8) -> Self {
        let arguments = format!("-i -dev eu0 -k key 192.0.2.{here} 6000 192.0.2.{there} 6000 10.8.0.{here} 24");
        let running = Running::classic(site, "end", &arguments);
        let (worker, interface) = (running.pid("worker"), site.index("eu0"));
        Self { running, site, interface, worker, forwards: Instant::now(), kills: 0, counters: BTreeMap::new() }
    }

    /// Kills the worker, or has it crash, and returns what arrived until some time after the next one forwards.
    fn kill(&mut self, crashes: bool, stream: &Stream) -> Arrived {
        sleep(SETTLED.saturating_sub(self.forwards.elapsed()));
        stream.take();
        if crashes {
            crash(self.worker);
        } else {
            kill(self.worker, Signal::SIGKILL).unwrap();
        }
        self.kills += 1;
        // The next one is not disturbed by questions while it starts.
        sleep(Duration::from_millis(100));
        self.worker = wait_for("next worker", LIMIT, || {
            let worker = self.running.status()["pids"]["worker"].as_i64()?;
            Some(Pid::from_raw(worker.try_into().unwrap())).filter(|&worker| worker != self.worker)
        });
        self.forwards = Instant::now();
        sleep(Duration::from_millis(200));
        // Those that waited for this worker come before those that are sent now.
        stream.wait_arrived();
        self.running.wait_state("up", LIMIT);
        self.check();
        let arrived = stream.take();
        // The socket of the other end is connected to this one's port: what arrives by it came from there.
        assert!(arrived.frames > 0 && arrived.disorder == 0 && arrived.oldest < allowed(STALE), "{arrived:?}");
        arrived
    }

    fn check(&mut self) {
        let status = self.running.status();
        assert_eq!((&status["state"], &status["worker_restarts"]), (&"up".into(), &self.kills.into()), "{status}");
        assert_eq!(self.site.index("eu0"), self.interface);
        let counters = counters(&status);
        for (name, before) in &self.counters {
            assert!(counters[name] >= *before, "{name} was {before}: {status}");
        }
        self.counters = counters;
    }

    fn pids(&self) -> [Pid; 2] {
        ["supervisor", "helper"].map(|process| self.running.pid(process))
    }

    /// Descriptors and memory of supervisor and helper.
    fn resources(&self) -> [(usize, u64); 2] {
        self.pids().map(resources)
    }

    /// Only what must be there is there, and no more of it than before.
    fn assert_nothing_leaked(&self, before: [(usize, u64); 2]) {
        let [supervisor, helper] = self.pids();
        let mut children = children(supervisor);
        assert!(children.iter().all(|(_, state)| state != "Z"), "{children:?}");
        children.sort();
        let mut expected = [helper, self.worker];
        expected.sort();
        assert_eq!(children.iter().map(|(pid, _)| *pid).collect::<Vec<_>>(), expected);
        for ((open, memory), (open_before, memory_before)) in self.resources().into_iter().zip(before) {
            eprintln!("    {open} descriptors, were {open_before}; {memory} KiB, were {memory_before}");
            assert!(open == open_before && memory <= memory_before + GROWTH);
        }
    }

    /// Nothing is left of it.
    fn stop(self) {
        let [supervisor, helper] = self.pids();
        assert!(self.running.stop().success());
        for pid in [supervisor, helper, self.worker] {
            assert_eq!(kill(pid, None), Err(Errno::ESRCH));
        }
        assert!(!self.site.interfaces().contains(&"eu0".into()));
    }
}

/// Every number of interface and path, by its place.
fn counters(status: &Value) -> BTreeMap<String, u64> {
    let places = [("port", &status["port"]), ("path", &status["paths"][0])];
    let numbers = places.iter().flat_map(|(place, object)| {
        // A time is no count.
        let fields = object.as_object().unwrap().iter().filter(|(name, _)| !name.ends_with("_ms"));
        fields.filter_map(move |(name, value)| Some((format!("{place} {name}"), value.as_u64()?)))
    });
    numbers.collect()
}

/// Prints how long the gaps were and returns the length that only one in a hundred exceeds, and one of fewer.
fn gaps(arrived: &[Arrived]) -> Duration {
    let mut gaps: Vec<_> = arrived.iter().map(|arrived| arrived.gap).collect();
    gaps.sort();
    let quantile = |percent: usize| gaps[gaps.len() - 1 - gaps.len() * (100 - percent) / 100];
    let (median, p90, p99, longest) = (quantile(50), quantile(90), quantile(99), quantile(100));
    let lost: u64 = arrived.iter().map(|arrived| arrived.lost).sum();
    let kills = gaps.len();
    eprintln!(
        "{kills} kills: median gap {median:.1?}, p90 {p90:.1?}, p99 {p99:.1?}, longest {longest:.1?}; lost {lost}"
    );
    // What else runs on the machine may delay one of a few.
    if arrived.len() < 100 { gaps[gaps.len().saturating_sub(2)] } else { p99 }
}

/// Both ends of a tunnel, and the stream that passes through it.
fn under_traffic(sites: &Sites) -> ([End<'_>; 2], Stream) {
    let ends = [End::start(&sites.a, 1, 2), End::start(&sites.b, 2, 1)];
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
    for end in &ends {
        end.running.wait_state("up", LIMIT);
    }
    (ends, Stream::start(&sites.a, &sites.b, "10.8.0.2"))
}

#[test]
fn stream_survives_worker_kills() {
    let sites = Sites::new();
    let (mut ends, stream) = under_traffic(&sites);
    let (mut arrived, mut before) = (Vec::new(), None);
    for number in 0..kills() {
        if number == WARM_UP {
            before = Some([ends[0].resources(), ends[1].resources()]);
        }
        arrived.push(ends[number as usize % 2].kill(crashes(number), &stream));
    }
    drop(stream);
    assert!(gaps(&arrived) <= allowed(GAP));
    for (end, before) in ends.iter().zip(before.unwrap()) {
        end.assert_nothing_leaked(before);
    }
    for end in ends {
        end.stop();
    }
}

#[test]
fn crash_is_named_at_once() {
    let sites = Sites::new();
    let (mut ends, stream) = under_traffic(&sites);
    for end in &mut ends {
        let arrived = end.kill(true, &stream);
        assert!(arrived.gap <= allowed(GAP), "{arrived:?}");
        let log = end.running.log();
        assert!(["SIGSEGV", "SIGILL"].iter().any(|signal| log.contains(&format!("ended: {signal}"))), "{log}");
    }
}
