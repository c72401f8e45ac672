//! An attacker in a confined worker: each attack is denied and named in the log, the next worker forwards, and no other process
//! has changed. The attacks are in `tests/stubs`.

use std::fs;
use std::os::unix::fs::symlink;
use std::thread;
use std::time::{Duration, Instant};

use ethudp_stubs::{Attack, Needs, attacks};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{User, chown};

use crate::lab::{Namespace, Running, Scratch, Sites, allowed, assert_udp, not_run, wait_for};

const LIMIT: Duration = crate::lab::PATIENCE;
/// Tunnels that are attacked at a time. Each attack begins with a second of peace.
const TUNNELS: usize = 8;
/// Bytes in a socket's receive buffer that may just be on their way.
const WAITING: u64 = 1 << 20;
/// Memory in kilobytes that no supervisor ever needs.
const MEMORY: u64 = 40_000;

#[test]
fn hostile_worker_is_contained() {
    let raw = attacks().filter(|attack| attack.needs == Needs::Raw);
    let apart = [Needs::Raw, Needs::Ipv6, Needs::Endurance, Needs::Haste];
    let others: Vec<_> = attacks().filter(|attack| !apart.contains(&attack.needs)).collect();
    thread::scope(|scope| {
        let raw: Vec<_> = raw.collect();
        scope.spawn(move || all(&Lab::raw(), &raw));
        for share in 0..TUNNELS - 1 {
            let share: Vec<_> = others.iter().skip(share).step_by(TUNNELS - 1).copied().collect();
            scope.spawn(move || all(&Lab::tap(), &share));
        }
    });
}

/// What is held back stays in the socket, with the address it is for: of the next datagram of a later worker on all kinds of UDP
/// sockets, and of all on a connected one of IPv4, which the test above has.
#[test]
fn worker_leaves_no_data_in_sockets() {
    let held_back = |needs| {
        let found = attacks().filter(move |attack| attack.needs == needs && attack.name.contains("with-more-to-come"));
        found.collect::<Vec<_>>()
    };
    let v4 = ["192.0.2.1 6000", "192.0.2.2 6000"];
    let v6 = ["2001:db8::1 6000", "2001:db8::2 6000"];
    let kinds = [(v4, "0.0.0.0 0", Needs::Nothing), (v6, v6[1], Needs::Ipv6), (v6, ":: 0", Needs::Ipv6)];
    thread::scope(|scope| {
        for ([here, there], remote, needs) in kinds {
            let attacks = held_back(needs);
            assert!(attacks.len() >= 2);
            scope.spawn(move || all(&Lab::over([here, remote], [there, here]), &attacks));
        }
    });
}

fn tunnel_user() -> User {
    User::from_name("ethudp").unwrap().unwrap()
}

/// A tunnel with the stub in its worker's place.
pub struct Lab {
    pub sites: Sites,
    lans: Option<(Namespace, Namespace)>,
    pub a: Running,
    _b: Running,
    /// The interface that must stay.
    interface: &'static str,
}

impl Lab {
    pub fn tap() -> Self {
        Self::over(["192.0.2.1 6000", "192.0.2.2 6000"], ["192.0.2.2 6000", "192.0.2.1 6000"])
    }

    /// A TAP whose path goes over this, local and remote address of the end that is attacked and of its peer.
    fn over(a: [&str; 2], b: [&str; 2]) -> Self {
        let end = |host, [local, remote]: [&str; 2]| format!("-i -dev eu0 {local} {remote} 10.8.0.{host} 24");
        Self::start(Sites::new(), None, "eu0", &[end(1, a), end(2, b)])
    }

    fn raw() -> Self {
        let sites = Sites::new();
        let lans = sites.lans(1400);
        for (lan, host) in [(&lans.0, 1), (&lans.1, 2)] {
            lan.ip(&format!("addr add 10.8.0.{host}/24 dev eth0"));
            // A packet socket hears frames before their checksum is filled in, where the interface would do that.
            lan.run("ethtool", "-K eth0 tx off");
        }
        let end = |here, there| format!("-e 192.0.2.{here} 6000 192.0.2.{there} 6000 lan");
        Self::start(sites, Some(lans), "lan", &[end(1, 2), end(2, 1)])
    }

    fn start(sites: Sites, lans: Option<(Namespace, Namespace)>, interface: &'static str, ends: &[String; 2]) -> Self {
        // What belongs to another tunnel of that user.
        let scratch = Scratch::with_worker("stub-worker");
        chown(&scratch.write("other.key", "secret", 0o640), None, Some(tunnel_user().gid)).unwrap();
        let arguments: Vec<_> = ["-d", "-n", "a"].into_iter().chain(ends[0].split(' ')).collect();
        let a = Running::start(&sites.a, scratch, "a", &[], &arguments);
        let b = Running::classic(&sites.b, "b", &ends[1]);
        Self { sites, lans, a, _b: b, interface }
    }

    fn assert_forwards(&self) {
        let (from, to) = self.lans.as_ref().map_or((&self.sites.a, &self.sites.b), |(a, b)| (a, b));
        assert_udp(from, to, "10.8.0.2");
    }

    /// Nothing that a worker has left fills the buffers of the sockets that the next one gets.
    fn assert_buffers_are_free(&self) {
        wait_for("free buffers", LIMIT, || {
            let sockets = self.sites.a.run("ss", "--no-header --udp --packet --all --memory --numeric");
            let waiting = |line: &str| line.split_once("skmem:(r")?.1.split(',').next()?.parse::<u64>().ok();
            let waiting: Vec<_> = sockets.lines().filter_map(waiting).collect();
            assert!(!waiting.is_empty(), "{sockets}");
            (waiting.iter().max() < Some(&WAITING)).then_some(())
        });
    }

    /// Has the next worker be this attacker.
    pub fn order(&self, attack: &str, [supervisor, helper]: [u32; 2]) {
        // A link, because a worker can read no file there.
        symlink(format!("{attack} {supervisor} {helper}"), self.a.scratch.path().join("attack")).unwrap();
    }

    /// Who must stay the same: supervisor, helper, interface.
    pub fn lasting(&self) -> [u32; 3] {
        let [supervisor, helper] = ["supervisor", "helper"].map(|name| self.a.pid(name).as_raw().cast_unsigned());
        [supervisor, helper, self.sites.a.index(self.interface)]
    }

    /// Waits until a worker that is not one of `before` forwards.
    pub fn next_worker(&self, before: &[&str]) -> String {
        wait_for("a worker that forwards", LIMIT, || {
            let log = self.a.log();
            let last = log.lines().filter_map(|line| line.strip_suffix(" forwards")?.rsplit(' ').next()).next_back()?;
            (!before.contains(&last)).then(|| last.to_owned())
        })
    }
}

fn all(lab: &Lab, attacks: &[&Attack]) {
    let lasting = lab.lasting();
    let mut worker = lab.next_worker(&[]);
    // Signals are in Landlock since its version 6.
    let landlock = lab.a.count("/confinement/landlock_abi") >= 6;
    for attack in attacks {
        if matches!(attack.needs, Needs::Landlock | Needs::Supervisor) && !landlock {
            not_run(&format!("attack {}", attack.name), "Landlock does not know signals here");
            continue;
        }
        worker = one(lab, attack, lasting, &worker);
    }
    let [supervisor, ..] = lasting;
    let status = fs::read_to_string(format!("/proc/{supervisor}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
    let peak: u64 = peak.unwrap();
    assert!(peak < MEMORY, "the supervisor has needed {peak} kB");
}

#[test]
fn unread_channel_blocks_nothing() {
    let lab = Lab::tap();
    let (lasting, before) = (lab.lasting(), lab.next_worker(&[]));
    let supervisor = lab.a.pid("supervisor");
    kill(lab.a.pid("worker"), Signal::SIGSTOP).unwrap();
    // Each asks for a message to the worker, more of them than its queue takes.
    for _ in 0..1000 {
        kill(supervisor, Signal::SIGUSR1).unwrap();
        thread::sleep(Duration::from_millis(1));
    }
    let asked = Instant::now();
    lab.a.status();
    assert!(asked.elapsed() < allowed(Duration::from_secs(1)), "answered after {:?}", asked.elapsed());
    lab.next_worker(&[&before]);
    lab.assert_forwards();
    assert_eq!(lab.lasting(), lasting);
}

/// How often an attack is made that takes more CPU time on a loaded machine than a worker has until it must report.
const TRIES: u32 = 10;

/// Makes one attack and returns the worker after it.
fn one(lab: &Lab, attack: &Attack, lasting: [u32; 3], before: &str) -> String {
    let [supervisor, helper, _] = lasting;
    let (a, name) = (&lab.a, attack.name);
    let (mut before, mut tries) = (before.to_owned(), 0);
    let (attacker, says) = loop {
        tries += 1;
        lab.order(name, [supervisor, helper]);
        kill(a.pid("worker"), Signal::SIGKILL).unwrap();
        let attacker = lab.next_worker(&[&before]);
        let says = [format!("worker {attacker}: "), format!("worker {attacker} ended: ")];
        let said = |line: &str| line.contains(attack.expected) && says.iter().any(|words| line.contains(words));
        let slow = |line: &str| line.contains("has not reported for three seconds") && line.contains(&says[0]);
        let is_done = wait_for(name, LIMIT, || {
            let asked = Instant::now();
            a.status();
            assert!(asked.elapsed() < allowed(Duration::from_secs(1)), "{name}: answered after {:?}", asked.elapsed());
            let log = a.log();
            log.lines().any(said).then_some(true).or_else(|| log.lines().any(slow).then_some(false))
        });
        if is_done {
            break (attacker, says);
        }
        assert!(tries < TRIES, "{name}: the attacker was too slow {tries} times: {}", a.log());
        before = lab.next_worker(&[&before, &attacker]);
    };
    let after = lab.next_worker(&[&before, &attacker]);
    lab.assert_forwards();
    lab.assert_buffers_are_free();
    // Statistics, with whatever numbers have been left.
    kill(a.pid("supervisor"), Signal::SIGHUP).unwrap();
    assert_eq!(lab.lasting(), lasting, "{name}");
    assert_eq!(a.log().lines().filter(|line| line.contains(&says[1])).count(), 1, "{name}: {}", a.log());
    after
}
