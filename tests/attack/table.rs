//! The worker's system calls: with its table the worker does all that it is for, and without any one line of it, it dies.
//!
//! We are supervisor and helper here; the worker is the real one, in `stub-worker`, which takes a line out of the table.

use std::ffi::CString;
use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use ethudp_worker::confine::ALLOWED;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use privsep::PROTOCOL;
use privsep::ipc::{
    self, Address, Channel, Cipher, Classic, ClassicSecrets, Counts, FromWorker, Handle, Handles, Never, PathSettings,
    PortKind, Remote, Rules, Secret, Secrets, Secure, SecureSecrets, Settings, State, ToWorker, Wire as Format,
};
use privsep::sys::supervisor::start;
use privsep::sys::{option, packet, tap};

use crate::lab::{Namespace, Wire, built, frame, join};

const LIMIT: Duration = crate::lab::PATIENCE;
/// Workers that run at a time; they mostly sleep.
const WORKERS: usize = 6;

/// A way for a worker to spend its life: what it is told, what happens to it, and how that ends.
struct Scenario {
    name: &'static str,
    run: fn(&Stage),
    port: PortKind,
    /// What the stub does at the end.
    last: &'static str,
    end: fn(WaitStatus) -> bool,
}

const SCENARIOS: [Scenario; 6] = [
    Scenario { name: "tap", run: tap, port: PortKind::Tap, last: "", end: well },
    Scenario { name: "secure", run: secure, port: PortKind::Tap, last: "", end: well },
    Scenario { name: "raw", run: raw, port: PortKind::Raw, last: "", end: well },
    Scenario {
        name: "panic",
        run: wait,
        port: PortKind::Tap,
        last: ", then panic",
        end: |end| signaled(end, Signal::SIGABRT),
    },
    // Blocked like all others, so that no handler runs.
    Scenario {
        name: "overflow",
        run: wait,
        port: PortKind::Tap,
        last: ", then overflow",
        end: |end| signaled(end, Signal::SIGSEGV),
    },
    Scenario { name: "memory", run: secure, port: PortKind::Tap, last: ", then memory", end: well },
];

fn well(end: WaitStatus) -> bool {
    matches!(end, WaitStatus::Exited(_, 0))
}

fn signaled(end: WaitStatus, signal: Signal) -> bool {
    matches!(end, WaitStatus::Signaled(_, with, _) if with == signal)
}

#[test]
fn worker_needs_each_table_line() {
    let needed: Vec<_> = ALLOWED.iter().filter(|allowed| !allowed.reason.starts_with("portable")).collect();
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let fail = |text: String| failures.lock().unwrap().push(text);
    let work = || {
        loop {
            match next.fetch_add(1, Relaxed) {
                number if number < SCENARIOS.len() => {
                    let scenario = &SCENARIOS[number];
                    let end = scenario.play("nothing");
                    if !(scenario.end)(end) {
                        fail(format!("{} with the whole table: {end:?}", scenario.name));
                    }
                }
                number if number < SCENARIOS.len() + needed.len() => {
                    let name = needed[number - SCENARIOS.len()].name;
                    let shown = SCENARIOS.iter().find(|scenario| signaled(scenario.play(name), Signal::SIGSYS));
                    match shown {
                        Some(scenario) => println!("{name}: {}", scenario.name),
                        None => fail(format!("{name}: nothing has needed it")),
                    }
                }
                _ => return,
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn heap_corruption_ends_worker() {
    let scenario = Scenario {
        name: "damage",
        run: wait,
        port: PortKind::Tap,
        last: ", then damage",
        end: |end| signaled(end, Signal::SIGABRT),
    };
    let end = scenario.play("nothing");
    assert!((scenario.end)(end), "{end:?}");
}

impl Scenario {
    /// Plays it to a worker without this line, and returns how that ended.
    fn play(&self, without: &str) -> WaitStatus {
        let stage = Stage::start(self.port, &format!("without {without}{}", self.last));
        (self.run)(&stage);
        stage.end()
    }
}

/// A worker, and all that is around it.
struct Stage {
    namespace: Namespace,
    /// The peer: it sends everything back.
    peer: UdpSocket,
    /// What the peer sends from and the worker to.
    path: OwnedFd,
    port: OwnedFd,
    /// The interface on which frames are sent to the worker.
    interface: &'static str,
    channel: Channel<ToWorker, FromWorker>,
    handles: Channel<Handles, Never>,
    pid: Pid,
    kind: PortKind,
}

impl Stage {
    fn start(kind: PortKind, name: &str) -> Self {
        let namespace = Namespace::new();
        let bind = |port: u16, peer: u16| {
            let socket = UdpSocket::bind(("127.0.0.1", port)).unwrap();
            socket.connect(("127.0.0.1", peer)).unwrap();
            socket
        };
        let (path, peer) = namespace.inside(|| (bind(6000, 6001), bind(6001, 6000)));
        path.set_nonblocking(true).unwrap();
        peer.set_nonblocking(true).unwrap();
        let (port, interface) = match kind {
            PortKind::Tap => (a_tap(&namespace), "t0"),
            _ => (a_packet_socket(&namespace), "peer"),
        };
        let (ours, theirs) = ipc::pair().unwrap();
        let (to_worker, handles) = ipc::pair().unwrap();
        let executable = File::open(built("stub-worker")).unwrap();
        let name = CString::new(name).unwrap();
        let pid = start::spawn(executable.as_fd(), &name, theirs.as_fd(), Some(handles.as_fd())).unwrap();
        let (channel, handles) = (Channel::new(ours), Channel::new(to_worker));
        Self { namespace, peer, path: path.into(), port, interface, channel, handles, pid, kind }
    }

    /// Sends a message; false if the channel is closed.
    fn say(&self, message: &ToWorker) -> bool {
        self.channel.send(message, &[]).is_ok()
    }

    /// Starts it as a supervisor and a helper would, and waits for its seal; false when it has died.
    fn forwards(&self) -> bool {
        let classic =
            Classic { cipher: Cipher::Aes128, compress: true, fragment_mtu: Some(1100), keepalive_ms: Some(1000) };
        let secret = |text: &[u8]| Secret::new(text.to_vec());
        let secrets =
            Secrets::Classic(ClassicSecrets { key: secret(b"0123456789abcdef"), password: secret(b"secret") });
        self.forwards_by(Format::Classic(classic), secrets)
    }

    /// The same by any wire.
    fn forwards_by(&self, wire: Format, secrets: Secrets) -> bool {
        let settings = Settings {
            port: self.kind,
            wire,
            remotes: vec![Remote::Fixed(Address("127.0.0.1:6001".parse().unwrap()))],
            locals: vec![Address("127.0.0.1:6000".parse().unwrap())],
            paths: vec![PathSettings { least: 1252, most: 1472, runs: true }],
            rules: Rules { send: true, receive: true, ..Rules::default() },
            exit_after: None,
            announcement: None,
        };
        let (settings, state) = (Box::new(settings), Box::<State>::default());
        let handles = Handles(vec![Handle::Port, Handle::Path(0)]);
        self.say(&ToWorker::Start { protocol: PROTOCOL, settings, state, drain: false })
            && self.say(&ToWorker::Secrets(secrets))
            && self.handles.send(&handles, &[self.port.as_fd(), self.path.as_fd()]).is_ok()
            && self.hear(|message| matches!(message, FromWorker::Confined(_)))
    }

    /// Waits until the worker says this; false when it has died.
    fn hear(&self, wanted: fn(&FromWorker) -> bool) -> bool {
        while let Ok(Some((message, _))) = self.channel.recv() {
            if wanted(&message) {
                return true;
            }
        }
        false
    }

    /// Frames to the worker, and all it sends back to it, for a while.
    fn traffic(&self, time: Duration) {
        let (wire, start) = (Wire::new(&self.namespace, self.interface), Instant::now());
        let mut buffer = vec![0; 10_000];
        let (mut number, mut noise) = (0, 1_u32);
        while start.elapsed() < time {
            // Some in one datagram, some in two.
            for length in [100, 1400] {
                let mut frame = frame(number, length);
                // No pattern, so that nothing of it can be compressed.
                for byte in &mut frame[18..] {
                    noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    *byte = noise.to_be_bytes()[0];
                }
                wire.send(&frame);
                number += 1;
            }
            while let Ok(length) = self.peer.recv(&mut buffer) {
                let _ = self.peer.send(&buffer[..length]);
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Stops it for a moment.
    fn stop(&self) {
        for signal in [Signal::SIGSTOP, Signal::SIGCONT] {
            let _ = kill(self.pid, signal);
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the conversation, and waits for the worker's end.
    fn end(self) -> WaitStatus {
        let Self { channel, pid, .. } = self;
        drop(channel);
        let start = Instant::now();
        loop {
            match waitpid(pid, Some(WaitPidFlag::WNOHANG)).unwrap() {
                WaitStatus::StillAlive if start.elapsed() > LIMIT => kill(pid, Signal::SIGKILL).unwrap(),
                WaitStatus::StillAlive => thread::sleep(Duration::from_millis(2)),
                status => return status,
            }
        }
    }
}

fn a_tap(namespace: &Namespace) -> OwnedFd {
    let (tap, _) = namespace.inside(|| {
        let device = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
        nix::fcntl::fcntl(&device, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
        tap::create(device, "t0").unwrap()
    });
    namespace.ip("link set t0 up");
    tap
}

fn a_packet_socket(namespace: &Namespace) -> OwnedFd {
    join((namespace, "lan"), (namespace, "peer"), 1500);
    let index = namespace.index("lan");
    namespace.inside(|| {
        let socket = packet::open().unwrap();
        for option in [libc::PACKET_AUXDATA, libc::PACKET_VNET_HDR] {
            option::set_int(socket.as_fd(), libc::SOL_PACKET, option, 1).unwrap();
        }
        packet::bind(socket.as_fd(), index).unwrap();
        socket
    })
}

/// Traffic, questions, a pause, and the end of the interface.
fn tap(stage: &Stage) {
    if !stage.forwards() {
        return;
    }
    stage.traffic(Duration::from_millis(300));
    stage.say(&ToWorker::Report);
    stage.say(&ToWorker::Reset(Counts::Traffic));
    stage.hear(|message| matches!(message, FromWorker::Report(_)));
    stage.stop();
    stage.traffic(Duration::from_millis(300));
    // From now on each read fails, and the worker rests between them.
    stage.namespace.ip("link del t0");
    let before = ticks(stage.pid);
    for _ in 0..5 {
        thread::sleep(Duration::from_millis(70));
        stage.stop();
    }
    let used = ticks(stage.pid) - before;
    assert!(used < 20, "an interface that is gone has cost {used} ticks of half a second");
}

/// CPU time of a process in clock ticks, a hundredth of a second each: fields 14 and 15 of `proc_pid_stat`(5).
fn ticks(pid: Pid) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Attempts at a session with a peer that sends back what comes.
fn secure(stage: &Stage) {
    // RFC 7748 section 5.2: nine is a point of the right order.
    let mut peer_key = [0; 32];
    peer_key[0] = 9;
    let wire = Format::Secure(Secure { peer_key, datagram: 1472, ..Secure::default() });
    if stage.forwards_by(
        wire,
        Secrets::Secure(SecureSecrets { private_key: Secret::new(vec![1; 32]), ..Default::default() }),
    ) {
        stage.traffic(Duration::from_millis(1300));
    }
}

/// Traffic for longer than a second, then the interface goes down.
fn raw(stage: &Stage) {
    if stage.forwards() {
        stage.traffic(Duration::from_millis(1300));
        stage.stop();
        stage.namespace.ip("link set lan down");
        thread::sleep(Duration::from_millis(200));
    }
}

/// The worker ends by itself.
fn wait(stage: &Stage) {
    if stage.forwards() {
        stage.hear(|_| false);
    }
}
