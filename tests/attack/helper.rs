//! An attacker in the supervisor's place: the helper, which has privileges at first, ends at the first thing that is not in
//! its rules, and leaves nothing behind.

use std::collections::VecDeque;
use std::fs::File;
use std::io::IoSlice;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessage, MsgFlags, recv, sendmsg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, User};
use privsep::PROTOCOL;
use privsep::ipc::{
    self, Address, Channel, FromHelper, Handle, Handles, Identity, Never, PathPlan, Plan, PortPlan, TapPlan, ToHelper,
};
use privsep::sys::supervisor::start;

use crate::lab::{Namespace, allowed, built, wait_for};

const LIMIT: Duration = crate::lab::PATIENCE;
/// Where its one path is bound.
const LOCAL: &str = "127.0.0.1:6000";

/// A helper whose supervisor we are.
struct Victim {
    pid: Pid,
    channel: Channel<ToHelper, FromHelper>,
    ended: bool,
}

impl Victim {
    /// Starts one in the namespace of this thread.
    fn start() -> Self {
        let executable = File::open(built("ethudp-helper")).unwrap();
        let (ours, theirs) = ipc::pair().unwrap();
        let pid = start::spawn(executable.as_fd(), c"ethudp-helper", theirs.as_fd(), None).unwrap();
        Self { pid, channel: Channel::new(ours), ended: false }
    }

    /// One that has opened its handles and given up its privileges.
    fn opened() -> Self {
        Self::opened_with(plan())
    }

    /// One that sets the carrier of its TAP.
    fn following() -> Self {
        let port = PortPlan::Tap(TapPlan { name: Some("eu0".into()), follow: true, ..TapPlan::default() });
        Self::opened_with(Plan { port, ..plan() })
    }

    fn opened_with(plan: Plan) -> Self {
        let victim = Self::start();
        victim.channel.send(&ToHelper::Plan(PROTOCOL, plan), &[]).unwrap();
        let answer = victim.channel.recv().unwrap();
        assert!(matches!(answer, Some((FromHelper::Opened { .. }, _))), "{answer:?}");
        victim
    }

    /// Sends any bytes with any descriptors.
    fn packet(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let raw: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[][..] } else { &rights[..] };
        let socket = self.channel.as_fd().as_raw_fd();
        sendmsg::<()>(socket, &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None).unwrap();
    }

    /// Has it send its handles down this socket.
    fn serve(&self, socket: &OwnedFd) {
        self.channel.send(&ToHelper::Serve, &[socket.as_fd()]).unwrap();
    }

    /// How it has ended, if it has.
    fn end(&mut self) -> Option<WaitStatus> {
        match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)).unwrap() {
            WaitStatus::StillAlive => None,
            status => {
                self.ended = true;
                Some(status)
            }
        }
    }

    /// Value of a field of its `status` in /proc, in kilobytes.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next());
        peak.unwrap().parse().unwrap()
    }

    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid)).unwrap().count()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        if !self.ended {
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = waitpid(self.pid, None);
        }
    }
}

/// A plan that can be carried out.
fn plan() -> Plan {
    let user = User::from_name("ethudp").unwrap().expect("user ethudp");
    Plan {
        become_user: Some(Identity { uid: user.uid.as_raw(), gid: user.gid.as_raw() }),
        port: PortPlan::Tap(TapPlan { name: Some("eu0".into()), ..TapPlan::default() }),
        paths: vec![PathPlan {
            local: Address(LOCAL.parse().unwrap()),
            remote: None,
            filter: Vec::new(),
            device: None,
            mark: None,
            runs: true,
            whole: true,
            class: 0,
            reports_class: false,
        }],
        stored: false,
        store: false,
    }
}

/// As [`plan`], but to become this user and group.
fn plan_as(uid: u32, gid: u32) -> ToHelper {
    ToHelper::Plan(PROTOCOL, Plan { become_user: Some(Identity { uid, gid }), ..plan() })
}

/// Bytes of a request to serve.
fn serve() -> Vec<u8> {
    bytes(&ToHelper::Serve, &[File::open("/dev/null").unwrap().as_fd()])
}

#[test]
fn protocol_violation_ends_helper() {
    type Case = (&'static str, fn() -> Victim, fn(&Victim));
    const FRESH: fn() -> Victim = Victim::start;
    const OPENED: fn() -> Victim = Victim::opened;
    const FOLLOWING: fn() -> Victim = Victim::following;
    let cases: &[Case] = &[
        ("a kind that there is not", FRESH, |v| v.packet(&[9, 9, 9], &[])),
        ("noise", FRESH, |v| v.packet(&[0xff; 100], &[])),
        ("half a plan", FRESH, |v| v.packet(&[0, 1, 1], &[])),
        ("longer than the limit", FRESH, |v| v.packet(&vec![0; (48 << 10) + 1], &[])),
        ("another version", FRESH, |v| send(v, &ToHelper::Plan(PROTOCOL + 1, plan()))),
        ("a request before the plan", FRESH, |v| v.serve(&ipc::pair().unwrap().0)),
        ("a plan with a descriptor", FRESH, |v| v.packet(&encoded(), &[v.channel.as_fd()])),
        ("a plan without the TAP it announces", FRESH, |v| v.packet(&announcing(), &[])),
        ("a plan with bytes behind it", FRESH, |v| v.packet(&[&encoded()[..], &[0]].concat(), &[])),
        ("to become root", FRESH, |v| send(v, &plan_as(0, 1000))),
        ("to become group root", FRESH, |v| send(v, &plan_as(1000, 0))),
        ("a second plan", OPENED, |v| send(v, &ToHelper::Plan(PROTOCOL, plan()))),
        ("a kind that there is not, later", OPENED, |v| v.packet(&[3, 0], &[])),
        ("a carrier before the plan", FRESH, |v| v.packet(&[2, 1], &[])),
        ("a carrier that the plan does not allow", OPENED, |v| v.packet(&[2, 1], &[])),
        ("half a carrier", FOLLOWING, |v| v.packet(&[2], &[])),
        ("a carrier that is neither on nor off", FOLLOWING, |v| v.packet(&[2, 2], &[])),
        ("bytes behind a carrier", FOLLOWING, |v| v.packet(&[2, 1, 0], &[])),
        ("a carrier with a descriptor", FOLLOWING, |v| v.packet(&[2, 1], &[v.channel.as_fd()])),
        ("no descriptor", OPENED, |v| v.packet(&serve(), &[])),
        ("two descriptors", OPENED, |v| v.packet(&serve(), &[v.channel.as_fd(); 2])),
        ("very many descriptors", OPENED, |v| v.packet(&serve(), &[v.channel.as_fd(); 253])),
        ("bytes behind a request", OPENED, |v| v.packet(&[&serve()[..], &[0]].concat(), &[v.channel.as_fd()])),
        ("longer than the limit, later", OPENED, |v| v.packet(&vec![0; (48 << 10) + 1], &[])),
        ("a file in place of a socket", OPENED, |v| v.serve(&File::open("/dev/null").unwrap().into())),
    ];
    let namespace = Namespace::new();
    for (name, start, attack) in cases {
        namespace.inside(|| {
            let mut victim = start();
            attack(&victim);
            let status = wait_for(name, LIMIT, || victim.end());
            assert!(matches!(status, WaitStatus::Exited(_, 1)), "{name}: {status:?}");
            assert_nothing_left(name);
        });
        assert_eq!(namespace.interfaces(), ["lo"], "{name}");
    }
}

fn send(victim: &Victim, message: &ToHelper) {
    victim.channel.send(message, &[]).unwrap();
}

/// The bytes of a good plan.
fn encoded() -> Vec<u8> {
    bytes(&ToHelper::Plan(PROTOCOL, plan()), &[])
}

/// The bytes of a plan with which a TAP comes.
fn announcing() -> Vec<u8> {
    let plan = Plan { stored: true, ..plan() };
    bytes(&ToHelper::Plan(PROTOCOL, plan), &[File::open("/dev/null").unwrap().as_fd()])
}

fn bytes(message: &ToHelper, descriptors: &[BorrowedFd<'_>]) -> Vec<u8> {
    let (ours, theirs) = ipc::pair().unwrap();
    Channel::<ToHelper, Never>::new(ours).send(message, descriptors).unwrap();
    let mut bytes = vec![0; 4096];
    let length = nix::unistd::read(&theirs, &mut bytes).unwrap();
    bytes.truncate(length);
    bytes
}

/// Its port is free again, in the namespace of this thread.
fn assert_nothing_left(name: &str) {
    UdpSocket::bind(LOCAL).unwrap_or_else(|error| panic!("{name}: {LOCAL}: {error}"));
}

#[test]
fn helper_ends_with_supervisor() {
    let namespace = Namespace::new();
    for start in [Victim::start, Victim::opened] {
        namespace.inside(|| {
            let mut victim = start();
            victim.channel = Channel::new(ipc::pair().unwrap().0);
            let status = wait_for("end", LIMIT, || victim.end());
            assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
            assert_nothing_left("end of the supervisor");
        });
        assert_eq!(namespace.interfaces(), ["lo"]);
    }
}

#[test]
fn request_flood_is_bounded() {
    const REQUESTS: usize = 2000;
    let namespace = Namespace::new();
    namespace.inside(|| {
        let victim = Victim::opened();
        let (memory, descriptors, start) = (victim.memory(), victim.descriptors(), Instant::now());
        // The last hundred stay open, and are never read.
        let mut unread = VecDeque::new();
        for _ in 0..REQUESTS {
            let (ours, served) = ipc::pair().unwrap();
            victim.serve(&served);
            unread.push_back(ours);
            unread.drain(..unread.len().saturating_sub(100));
        }
        assert_eq!(handles(&victim).len(), 2);
        assert!(victim.memory() < memory + 2000, "{} kB after {memory} kB", victim.memory());
        assert_eq!(victim.descriptors(), descriptors);
        assert!(start.elapsed() < allowed(Duration::from_secs(5)), "{:?}", start.elapsed());
    });
}

/// The handles, as a worker gets them.
fn handles(victim: &Victim) -> Vec<OwnedFd> {
    let (ours, theirs) = ipc::pair().unwrap();
    victim.serve(&theirs);
    drop(theirs);
    let worker = Channel::<Never, Handles>::new(ours);
    let (Handles(kinds), handles) = worker.recv().unwrap().expect("handles");
    assert_eq!((kinds[0], kinds.len()), (Handle::Port, handles.len()));
    // One packet, and then the end.
    assert!(worker.recv().unwrap().is_none());
    handles
}

#[test]
fn helper_reads_nothing_from_worker() {
    let namespace = Namespace::new();
    namespace.inside(|| {
        let victim = Victim::opened();
        // A single word, after which a reader would see a clean end, and as many as the queue takes.
        for most in [1, usize::MAX] {
            let (worker, served) = ipc::pair().unwrap();
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            let request = serve();
            let write = || sendmsg::<()>(worker.as_raw_fd(), &[IoSlice::new(&request)], &[], flags, None).is_ok();
            let words = (0..most).take_while(|_| write()).count();
            assert!(words == most || words > 10, "{words} words");
            victim.serve(&served);
            drop(served);
            // What comes back are the handles, once at most, and a reset, by which the kernel tells that words were left
            // unread. A channel would take it for an end like any other.
            let (mut answers, mut resets) = (0, 0);
            loop {
                match recv(worker.as_raw_fd(), &mut [0; 64], MsgFlags::empty()) {
                    Ok(0) => break,
                    Ok(_) => answers += 1,
                    Err(Errno::ECONNRESET) => resets += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            assert!(answers <= 1, "{answers} answers");
            assert_eq!(resets, 1, "something of {words} words has been read");
        }
        assert_eq!(handles(&victim).len(), 2, "the helper serves the next one");
    });
}

#[test]
fn carrier_request_changes_carrier_alone() {
    let namespace = Namespace::new();
    namespace.inside(|| {
        let victim = Victim::following();
        let flags = || namespace.ip("-o link show eu0").split(['<', '>']).nth(1).unwrap().to_owned();
        for on in [true, true, false, true] {
            victim.channel.send(&ToHelper::Carrier(on), &[]).unwrap();
            // The kernel tells of a change up to a second later.
            let shown = if on { "BROADCAST,MULTICAST,UP,LOWER_UP" } else { "NO-CARRIER,BROADCAST,MULTICAST,UP" };
            wait_for(shown, LIMIT, || (flags() == shown).then_some(()));
        }
        assert_eq!(handles(&victim).len(), 2);
    });
}

/// Lets the helper go on up to the return of the call that makes its TAP, and no further.
fn stop_behind_the_making_of_the_tap(victim: &Victim) {
    // "NUMBER DESCRIPTOR REQUEST ..."
    let making = format!("{} 0x", libc::SYS_ioctl);
    let request = format!(" {:#x} ", libc::TUNSETIFF);
    let mut stops = 0;
    while stops < 2 {
        ptrace::syscall(victim.pid, None).unwrap();
        let stop = waitpid(victim.pid, Some(WaitPidFlag::__WALL)).unwrap();
        assert!(matches!(stop, WaitStatus::PtraceSyscall(_)), "{stop:?}");
        let call = std::fs::read_to_string(format!("/proc/{}/syscall", victim.pid)).unwrap();
        // At its begin and at its end.
        stops += u32::from(call.starts_with(&making) && call.contains(&request));
    }
}

#[test]
fn replaced_interface_is_left_alone() {
    const REPLACED: &str = "moved or replaced while it was set up";
    type Case = (&'static str, fn(&Namespace, &Namespace), Option<&'static str>);
    let cases: [Case; 4] = [
        ("nothing", |_, _| (), None),
        ("another address", |here, _| drop(here.ip("link set eu0 address 02:00:00:00:00:99")), None),
        ("moved", |here, there| here.move_to("eu0", there), Some("No such device")),
        ("replaced", replace, Some(REPLACED)),
    ];
    for (name, change, failure) in cases {
        let (here, there) = (Namespace::new(), Namespace::new());
        here.inside(|| {
            let victim = Victim::start();
            ptrace::seize(victim.pid, ptrace::Options::PTRACE_O_TRACESYSGOOD).unwrap();
            ptrace::interrupt(victim.pid).unwrap();
            waitpid(victim.pid, Some(WaitPidFlag::__WALL)).unwrap();
            victim.channel.send(&ToHelper::Plan(PROTOCOL, plan()), &[]).unwrap();
            stop_behind_the_making_of_the_tap(&victim);
            change(&here, &there);
            ptrace::detach(victim.pid, None).unwrap();
            let answer = victim.channel.recv().unwrap().unwrap().0;
            match (failure, &answer) {
                (None, FromHelper::Opened { index, .. }) => assert_eq!(*index, here.index("eu0"), "{name}"),
                (Some(expected), FromHelper::Failed(reason)) => assert!(reason.contains(expected), "{name}: {reason}"),
                _ => panic!("{name}: {answer:?}"),
            }
            if name == "replaced" {
                assert_untouched(&here);
            }
        });
    }
}

/// Moves the interface away and puts one of the same name in its place.
fn replace(here: &Namespace, there: &Namespace) {
    here.move_to("eu0", there);
    here.ip("link add eu0 type bridge");
}

/// The one in its place is as it was made.
fn assert_untouched(here: &Namespace) {
    let link = here.ip("-o link show eu0");
    assert!(!link.contains("UP") && link.contains("state DOWN"), "{link}");
}

#[test]
fn foreign_stored_queue_is_released() {
    let (here, there) = (Namespace::new(), Namespace::new());
    here.inside(|| {
        let device = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
        let (stored, _) = privsep::sys::tap::create(device, "eu0").unwrap();
        replace(&here, &there);
        let victim = Victim::start();
        victim.channel.send(&ToHelper::Plan(PROTOCOL, Plan { stored: true, ..plan() }), &[stored.as_fd()]).unwrap();
        let answer = || victim.channel.recv().unwrap().unwrap().0;
        let first = answer();
        assert!(matches!(first, FromHelper::LetGo), "{first:?}");
        let second = answer();
        assert!(matches!(&second, FromHelper::Failed(reason) if reason.contains("already exists")), "{second:?}");
        assert_untouched(&here);
    });
}
