//! Attacks on the secure wire, between real processes. An attacker is between the two ends: he sees every datagram, and forwards,
//! delays, changes, repeats or forges datagrams, also from his own addresses.
//!
//! Of each attack four things are asked: no worker is replaced, the counts say what was dropped, the log has no line for each
//! datagram, and frames pass afterwards.

mod changed;
mod downgrade;
mod flood;
mod foreign;
mod forged;
mod icmp;
mod lies;
mod observed;
mod replay;
mod thieves;

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ethudp_worker::wire::secure::message;
use nix::unistd::Pid;

use crate::lab::{Namespace, Running, Sites, Wire, assert_udp, join, wait_for};
use crate::secure::End;

const LIMIT: Duration = crate::lab::PATIENCE;
/// For how long nothing must come.
const SILENCE: Duration = Duration::from_millis(300);
/// The ends.
const A: usize = 0;
const B: usize = 1;
/// Datagrams that are sent without a pause: fewer than fit where they wait.
const BURST: usize = 64;

/// What is done with a datagram from one of the ends.
type Rule = Box<dyn FnMut(&Relay, usize, &[u8]) + Send>;

/// A datagram that the attacker in the middle has seen.
#[derive(Clone)]
struct Seen {
    from: usize,
    bytes: Vec<u8>,
}

impl Seen {
    /// Whether it is of this kind and from there.
    fn is(&self, from: usize, kind: u8) -> bool {
        self.from == from && self.bytes.first() == Some(&kind)
    }
}

/// The sockets of the one in the middle, by the end that they face.
#[derive(Clone)]
struct Relay {
    /// At the address where that end takes the other one to be.
    facing: Arc<[UdpSocket; 2]>,
    /// At an unused address.
    foreign: Arc<[UdpSocket; 2]>,
}

impl Relay {
    /// Sends to an end.
    fn send(&self, to: usize, bytes: &[u8]) {
        // The first call returns the error of an earlier datagram, if its receiver did not exist.
        let _ = self.facing[to].send(bytes).or_else(|_| self.facing[to].send(bytes));
    }

    /// Sends to an end all of these.
    fn send_all(&self, to: usize, all: impl IntoIterator<Item = Vec<u8>>) {
        for (number, bytes) in all.into_iter().enumerate() {
            self.send(to, &bytes);
            if number % BURST == BURST - 1 {
                thread::sleep(Duration::from_millis(2));
            }
        }
    }

    /// Sends to an end from a foreign address.
    fn send_foreign(&self, to: usize, bytes: &[u8]) {
        let _ = self.foreign[to].send(bytes);
    }

    /// What an end has sent to the foreign address, until it has been silent for a while.
    fn heard_as_foreign(&self, from: usize) -> Vec<Vec<u8>> {
        let mut buffer = [0; 2000];
        std::iter::from_fn(|| self.foreign[from].recv(&mut buffer).ok().map(|length| buffer[..length].to_vec()))
            .collect()
    }
}

/// What the one in the middle does now, and has seen since he does it.
struct Mind {
    rule: Rule,
    seen: Vec<Seen>,
}

/// Two ends that know each other by the addresses of the one between them, in a namespace that his sockets keep: A has a fixed peer
/// and begins, B learns where it is.
struct Middle {
    sites: Sites,
    relay: Relay,
    mind: Arc<Mutex<Mind>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Middle {
    fn new() -> Self {
        let (sites, host) = (Sites { a: Namespace::new(), b: Namespace::new() }, Namespace::new());
        for (site, side, net, number) in [(&sites.a, "left", "192.0.2", 1), (&sites.b, "right", "198.51.100", 2)] {
            join((site, "wan"), (&host, side), 1500);
            site.ip(&format!("addr add {net}.{number}/24 dev wan"));
            host.ip(&format!("addr add {net}.9/24 dev {side}"));
            host.ip(&format!("addr add {net}.66/24 dev {side}"));
        }
        let socket = |from: &str, to: &str, patience: Duration| {
            let socket = host.inside(|| UdpSocket::bind(from).unwrap());
            socket.connect(to).unwrap();
            socket.set_read_timeout(Some(patience)).unwrap();
            socket
        };
        let (left, right, short) = ("192.0.2.1:6000", "198.51.100.2:6000", Duration::from_millis(50));
        let facing = [socket("192.0.2.9:6000", left, short), socket("198.51.100.9:6000", right, short)];
        let foreign = [socket("192.0.2.66:7000", left, SILENCE), socket("198.51.100.66:7000", right, SILENCE)];
        let relay = Relay { facing: Arc::new(facing), foreign: Arc::new(foreign) };
        let mind = Arc::new(Mutex::new(Mind { rule: pass(), seen: Vec::new() }));
        let stop = Arc::<AtomicBool>::default();
        let threads = [A, B].map(|from| {
            let (relay, mind, stop) = (relay.clone(), Arc::clone(&mind), Arc::clone(&stop));
            thread::spawn(move || listen(from, &relay, &mind, &stop))
        });
        Self { sites, relay, mind, stop, threads: threads.into() }
    }

    /// Does something else from now on, and returns what was seen before.
    fn set(&self, rule: Rule) -> Vec<Seen> {
        let mut mind = self.mind.lock().unwrap();
        mind.rule = rule;
        std::mem::take(&mut mind.seen)
    }

    /// What was seen since the rule was set.
    fn seen(&self) -> Vec<Seen> {
        self.mind.lock().unwrap().seen.clone()
    }

    /// Waits until something of this kind has been seen, and returns the first.
    fn wait_seen(&self, from: usize, kind: u8) -> Vec<u8> {
        wait_for("a datagram", LIMIT, || self.seen().into_iter().find(|seen| seen.is(from, kind))).bytes
    }

    /// Sends again what was seen, where it went, and returns how often each kind went to each end.
    fn repeat(&self, seen: &[Seen]) -> [BTreeMap<u8, u64>; 2] {
        let mut counts = [const { BTreeMap::new() }; 2];
        for from in [A, B] {
            let all = seen.iter().filter(|seen| seen.from == from).map(|seen| seen.bytes.clone());
            for bytes in all.clone() {
                *counts[1 - from].entry(bytes[0]).or_default() += 1;
            }
            self.relay.send_all(1 - from, all);
        }
        counts
    }

    fn site(&self, which: usize) -> &Namespace {
        [&self.sites.a, &self.sites.b][which]
    }

    fn start(&self, which: usize) -> Running {
        let (remote, end) = if which == A { ("192.0.2.9:6000", End::A) } else { ("any", End::B) };
        self.start_as(&End { remote, ..end }, which)
    }

    fn start_as(&self, end: &End, which: usize) -> Running {
        end.start_at(self.site(which), ["a", "b"][which])
    }

    /// Starts both, B first, so that A's first initiation arrives.
    fn both(&self) -> (Running, Running) {
        let b = self.start(B);
        let a = self.start(A);
        self.wait_up(&a, &b);
        (a, b)
    }

    fn wait_up(&self, a: &Running, b: &Running) {
        for end in [a, b] {
            end.wait_state("up", 2 * LIMIT);
        }
        self.assert_frames_pass();
    }

    fn assert_frames_pass(&self) {
        assert_udp(&self.sites.a, &self.sites.b, "10.8.0.2");
    }

    fn wire(&self, which: usize) -> Wire {
        Wire::new(self.site(which), "eu0")
    }
}

impl Drop for Middle {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            assert!(thread.join().is_ok() || thread::panicking(), "the one in the middle has failed");
        }
    }
}

fn listen(from: usize, relay: &Relay, mind: &Mutex<Mind>, stop: &AtomicBool) {
    let mut buffer = [0; 2000];
    while !stop.load(Relaxed) {
        let Ok(length) = relay.facing[from].recv(&mut buffer) else { continue };
        let bytes = &buffer[..length];
        let mut mind = mind.lock().unwrap();
        mind.seen.push(Seen { from, bytes: bytes.to_vec() });
        (mind.rule)(relay, from, bytes);
    }
}

/// Kills the worker and waits until all has been said of it.
fn replace_worker(end: &Running) {
    let forwards = || end.log().matches(" forwards\n").count();
    let before = forwards();
    end.replace_worker();
    wait_for("a worker that forwards", LIMIT, || (forwards() > before).then_some(()));
}

/// Passes everything on.
fn pass() -> Rule {
    Box::new(|relay, from, bytes| relay.send(1 - from, bytes))
}

/// Passes nothing on.
fn cut() -> Rule {
    Box::new(|_, _, _| {})
}

/// The next frame of a test that arrives within a while.
fn next(wire: &mut Wire) -> Option<Vec<u8>> {
    std::iter::from_fn(|| wire.receive(LIMIT)).find(|frame| is_ours(frame))
}

/// All frames of a test that arrive, until none comes for a while.
fn arrived(wire: &mut Wire) -> Vec<Vec<u8>> {
    wire.receive_all(SILENCE).into_iter().filter(|frame| is_ours(frame)).collect()
}

/// Whether [`crate::lab::frame`] has made it.
fn is_ours(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[0x88, 0xb5])
}

/// What is dropped of what comes from the network.
const DROPS: [&str; 7] = [
    "/session/replays", "/session/auth_failures", "/session/dropped_initiations", "/session/dropped_messages",
    "/session/dropped_content", "/paths/0/rx_dropped_invalid", "/paths/0/rx_dropped_foreign",
];

fn drops(end: &Running) -> BTreeMap<&'static str, u64> {
    let status = end.status();
    let count = |pointer: &&'static str| {
        (pointer.rsplit('/').next().unwrap(), status.pointer(pointer).and_then(serde_json::Value::as_u64).unwrap())
    };
    DROPS.iter().map(count).collect()
}

/// An end that is attacked from now on.
struct Victim<'a> {
    end: &'a Running,
    worker: Pid,
    handshakes: u64,
    lines: usize,
    before: BTreeMap<&'static str, u64>,
}

impl<'a> Victim<'a> {
    fn new(end: &'a Running) -> Self {
        let (worker, handshakes) = (end.pid("worker"), end.count("/session/handshakes"));
        if handshakes > 0 {
            wait_for("the line of the first session", LIMIT, || end.log().contains("first session").then_some(()));
        }
        Self { end, worker, handshakes, lines: end.log().lines().count(), before: drops(end) }
    }

    /// What was dropped since, by the count that says so.
    fn dropped(&self) -> BTreeMap<&'static str, u64> {
        let all = drops(self.end).into_iter().map(|(name, count)| (name, count - self.before[name]));
        all.filter(|(_, count)| *count > 0).collect()
    }

    /// Waits until this is what was dropped, and nothing else.
    fn wait_dropped<const N: usize>(&self, expected: [(&'static str, u64); N]) {
        let expected: BTreeMap<_, _> = expected.into_iter().filter(|(_, count)| *count > 0).collect();
        let mut dropped = BTreeMap::new();
        for _ in 0..LIMIT.as_millis() / 20 {
            dropped = self.dropped();
            if dropped == expected {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(dropped, expected, "{}", self.end.status());
    }

    /// Waits until as many datagrams have been dropped in all, by whichever of these counts.
    fn wait_sum<const N: usize>(&self, names: [&str; N], expected: u64) {
        let mut dropped = BTreeMap::new();
        for _ in 0..LIMIT.as_millis() / 20 {
            dropped = self.dropped();
            let sum: u64 = dropped.iter().filter(|(name, _)| names.contains(name)).map(|(_, count)| count).sum();
            if sum == expected && dropped.values().sum::<u64>() == sum {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("not {expected} dropped as {names:?}: {dropped:?}");
    }

    /// The worker is the same, and the log has not grown by more than so many lines.
    fn assert_unharmed(&self, lines: usize) {
        let log = self.end.log();
        assert_eq!(self.end.pid("worker"), self.worker, "the worker was replaced: {log}");
        assert!(log.lines().count() <= self.lines + lines, "{log}");
    }

    /// Nor is there another session.
    fn assert_same_session(&self) {
        let status = self.end.status();
        let is_same = status["session"]["handshakes"] == self.handshakes && status["session"]["established"] == true;
        assert!(is_same && status["state"] == "up", "{status}");
    }
}

/// Whether a datagram has one frame of this length in it, as an observer can tell.
fn carries(bytes: &[u8], length: usize) -> bool {
    bytes[0] == message::DATA && bytes.len() == length + 36
}
