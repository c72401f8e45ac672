//! A small laboratory: network namespaces without a name, veth pairs, and programs that die with the test.
//!
//! A namespace lives as long as something is in it or holds it open, so nothing is left behind however a test ends.

mod captures;
mod frames;
mod processes;
mod program;
mod stream;
mod traffic;

use std::fs::{self, File};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};

pub use captures::{CAPTURES, capture, offline};
pub use frames::{Wire, frame};
pub use processes::{children, crash, freeze, resources, thread};
pub use program::{Background, ETHUDP, Running, Scratch, built, copy_built, ethudp, libpcap};
pub use stream::{Arrived, Stream};
pub use traffic::{assert_tcp, assert_udp, udp_passes};

/// Says that something is not run here, past the test harness, which would swallow it; `tests/parts` collects these lines.
pub fn not_run(what: &str, why: &str) {
    std::io::stderr().write_all(format!("NOT RUN: {what}: {why}\n").as_bytes()).unwrap();
}

/// A network namespace of its own, with the loopback interface up.
pub struct Namespace {
    file: File,
}

impl Namespace {
    pub fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test needs root, for network namespaces: sudo make check");
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        };
        let namespace = Self { file: thread::scope(|scope| scope.spawn(make).join().unwrap()) };
        // No frame that a test did not send: no router solicitation, no duplicate address detection.
        namespace.inside(|| fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").unwrap());
        namespace.quiet(true);
        namespace.ip("link set lo up");
        namespace
    }

    /// Switches IPv6 off, or on for interfaces made from now on.
    pub fn quiet(&self, quiet: bool) {
        let value = if quiet { "1" } else { "0" };
        self.inside(|| fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", value).unwrap());
    }

    /// Runs `work` in a thread that is in this namespace.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let entered = || {
            setns(&self.file, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        thread::scope(|scope| match scope.spawn(entered).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Starts a command in this namespace. Not from a thread that ends: the command would die with it.
    pub fn spawn(&self, command: &mut Command) -> std::process::Child {
        let home = File::open("/proc/thread-self/ns/net").unwrap();
        setns(&self.file, CloneFlags::CLONE_NEWNET).unwrap();
        let child = command.stdin(Stdio::null()).spawn();
        setns(&home, CloneFlags::CLONE_NEWNET).unwrap();
        child.unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// Runs `ip` with these arguments and returns what it prints.
    pub fn ip(&self, arguments: &str) -> String {
        self.run("ip", arguments)
    }

    /// Moves an interface to another namespace.
    pub fn move_to(&self, interface: &str, other: &Self) {
        let target = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&other.file));
        self.ip(&format!("link set {interface} netns {target}"));
    }

    /// Runs a program, which must succeed, and returns what it prints.
    pub fn run(&self, program: &str, arguments: &str) -> String {
        let mut command = Command::new(program);
        command.args(arguments.split_whitespace()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = self.spawn(&mut command).wait_with_output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Names of all interfaces.
    pub fn interfaces(&self) -> Vec<String> {
        let list = self.ip("-o link");
        list.lines()
            .map(|line| line.split([' ', ':', '@']).filter(|word| !word.is_empty()).nth(1).unwrap().into())
            .collect()
    }

    /// Index of an interface.
    pub fn index(&self, interface: &str) -> u32 {
        self.inside(|| nix::net::if_::if_nametoindex(interface).unwrap())
    }

    /// Its MAC address.
    pub fn mac(&self, interface: &str) -> Vec<u8> {
        let link = self.ip(&format!("-o link show {interface}"));
        let mac = link.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
        mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
    }
}

/// Joins two namespaces by a veth pair that is up, with the given MTU.
pub fn join(a: (&Namespace, &str), b: (&Namespace, &str), mtu: u32) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Made in the first namespace under a name of its own, then moved by file descriptor.
    let temporary = format!("mv{}", NEXT.fetch_add(1, Ordering::Relaxed));
    a.0.ip(&format!("link add {} type veth peer name {temporary}", a.1));
    a.0.move_to(&temporary, b.0);
    b.0.ip(&format!("link set {temporary} name {}", b.1));
    for (namespace, name) in [a, b] {
        namespace.ip(&format!("link set {name} mtu {mtu} up"));
    }
}

/// Two sites, their hosts joined by an underlay: 192.0.2.1 and 192.0.2.2, `2001:db8::1` and `2001:db8::2`.
pub struct Sites {
    pub a: Namespace,
    pub b: Namespace,
}

impl Sites {
    pub fn new() -> Self {
        Self::with_mtu(1500)
    }

    pub fn with_mtu(mtu: u32) -> Self {
        let (a, b) = (Namespace::new(), Namespace::new());
        for namespace in [&a, &b] {
            namespace.quiet(false);
        }
        join((&a, "wan"), (&b, "wan"), mtu);
        for (namespace, host) in [(&a, 1), (&b, 2)] {
            namespace.quiet(true);
            namespace.ip(&format!("addr add 192.0.2.{host}/24 dev wan"));
            namespace.ip(&format!("addr add 2001:db8::{host}/64 dev wan nodad"));
        }
        Self { a, b }
    }

    /// Gives each site a LAN: interface `lan` of its host, joined to `eth0` of the namespace returned.
    pub fn lans(&self, mtu: u32) -> (Namespace, Namespace) {
        let lan = |host: &Namespace| {
            let lan = Namespace::new();
            join((host, "lan"), (&lan, "eth0"), mtu);
            lan
        };
        (lan(&self.a), lan(&self.b))
    }
}

/// Longest time to wait for an event that an idle machine has within some seconds. A test waits for the event, and this long
/// only where it fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long `limit`, which holds with a CPU for each process that is ready to run, may be on this machine now.
pub fn allowed(limit: Duration) -> Duration {
    let text = fs::read_to_string("/proc/loadavg").unwrap();
    let fields: Vec<_> = text.split([' ', '/']).collect();
    let (minute, ready): (f64, f64) = (fields[0].parse().unwrap(), fields[3].parse().unwrap());
    let cpus = thread::available_parallelism().unwrap().get();
    limit.mul_f64((minute.max(ready) / f64::from(u32::try_from(cpus).unwrap())).max(1.0))
}

/// Waits until `ready` gives something, for at most `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, mut ready: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
