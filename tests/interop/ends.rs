//! The two ends of a tunnel, one of them the original, and the frames that are sent through it.

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::{Namespace, Running, Sites, Wire, not_run, wait_for};

const LIMIT: Duration = crate::lab::PATIENCE;

/// An executable of the original.
pub struct Program {
    path: String,
    /// Whether it is a release, v20230202 or older, whose aes-256 is AES-192.
    pub released: bool,
}

impl Program {
    /// Arguments for our end, which names the release's aes-256 otherwise.
    pub fn ours(&self, arguments: &str) -> String {
        if self.released { arguments.replace("aes-256", "aes-256-ethudp-2023") } else { arguments.into() }
    }
}

/// The executables of the original that the environment names: of its newest source, and of its newest release.
pub fn originals() -> Vec<Program> {
    static SAID: std::sync::Once = std::sync::Once::new();
    let named = [("ETHUDP_REFERENCE", false), ("ETHUDP_REFERENCE_RELEASE", true)].map(|(variable, released)| {
        let path = std::env::var(variable).ok().filter(|path| !path.is_empty());
        if path.is_none() {
            SAID.call_once(|| not_run("interop", &format!("{variable} does not name an executable of EthUDP")));
        }
        path.map(|path| Program { path, released })
    });
    let named: Vec<_> = named.into_iter().flatten().collect();
    assert!(!named.is_empty(), "ETHUDP_REFERENCE or ETHUDP_REFERENCE_RELEASE must name an executable of EthUDP");
    named
}

/// Does this with sites for each original.
pub fn with_each_original(work: impl Fn(&mut Lab<'_>)) {
    for program in originals() {
        work(&mut Lab::new(&program));
    }
}

/// The original in the foreground.
pub struct Original(Child);

impl Original {
    pub fn start(program: &Program, site: &Namespace, arguments: &str) -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", &program.path, "-d"]).args(arguments.split_whitespace());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self(site.spawn(&mut command))
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

/// Waits until the original, which does not tell, has made its interface `eu0` with this address.
pub fn wait_interface(site: &Namespace, address: &str) {
    wait_for("the original's interface", LIMIT, || {
        let up = site.interfaces().contains(&"eu0".into()) && site.ip("addr show up dev eu0").contains(address);
        up.then_some(())
    });
}

/// Which end of the tunnel is ours.
#[derive(Clone, Copy, Debug)]
pub enum Ours {
    A,
    B,
}

pub const ROLES: [Ours; 2] = [Ours::A, Ours::B];

/// Both ends, running; they end when this goes.
pub type Tunnel = (Running, Original);

/// Two sites to be joined, and a wire to each of their inner sides.
pub struct Lab<'a> {
    pub program: &'a Program,
    pub sites: Sites,
    _lans: (Namespace, Namespace),
    pub a: Wire,
    pub b: Wire,
    probes: u32,
}

impl<'a> Lab<'a> {
    /// Sites with LANs, for mode raw.
    pub fn new(program: &'a Program) -> Self {
        let sites = Sites::with_mtu(9600);
        // So that what is looked at are datagrams, and not many of them in one.
        for site in [&sites.a, &sites.b] {
            site.run("ethtool", "-K wan tx-udp-segmentation off");
        }
        let lans = sites.lans(9300);
        let (a, b) = (Wire::new(&lans.0, "eth0"), Wire::new(&lans.1, "eth0"));
        Self { program, sites, _lans: lans, a, b, probes: 0 }
    }

    /// Starts both ends, with these arguments.
    pub fn start(&self, ours: Ours, a: &str, b: &str) -> Tunnel {
        let ((our_site, our_arguments), (its_site, its_arguments)) = match ours {
            Ours::A => ((&self.sites.a, a), (&self.sites.b, b)),
            Ours::B => ((&self.sites.b, b), (&self.sites.a, a)),
        };
        let original = Original::start(self.program, its_site, its_arguments);
        (Running::classic(our_site, "ours", &self.program.ours(our_arguments)), original)
    }

    /// Joins the LANs, with options of each end, and waits until frames pass.
    pub fn join(&mut self, ours: Ours, a: &str, b: &str) -> Tunnel {
        let end = |options, here, there| format!("-e {options} 192.0.2.{here} 6000 192.0.2.{there} 6000 lan");
        let tunnel = self.start(ours, &end(a, 1, 2), &end(b, 2, 1));
        self.wait_open();
        tunnel
    }

    /// Waits until frames pass in both directions.
    pub fn wait_open(&mut self) {
        wait_for("frames in both directions", LIMIT, || {
            self.probes += 1;
            (passes(&mut self.a, &mut self.b, self.probes) && passes(&mut self.b, &mut self.a, self.probes))
                .then_some(())
        });
    }

    /// No frame passes in any direction for as long as `time`.
    pub fn assert_closed(&mut self, time: Duration) {
        let start = std::time::Instant::now();
        while start.elapsed() < time {
            self.probes += 1;
            assert!(!passes(&mut self.b, &mut self.a, self.probes) && !passes(&mut self.a, &mut self.b, self.probes));
        }
    }

    /// All these frames pass in both directions, unchanged.
    pub fn carry(&mut self, frames: &[Vec<u8>]) {
        for frame in frames {
            carry(&self.a, &mut self.b, frame, frame);
            carry(&self.b, &mut self.a, frame, frame);
        }
    }
}

/// EtherType of frames that test whether anything passes.
const PROBE: [u8; 2] = *b"\x88\xb6";

/// Whether frame `number` passes.
fn passes(from: &mut Wire, to: &mut Wire, number: u32) -> bool {
    let probe = [b"\x02\0\0\0\xbb\x02\x02\0\0\0\xaa\x01", &PROBE[..], &number.to_be_bytes(), &[0; 42]].concat();
    from.send(&probe);
    let received = || to.receive(Duration::from_millis(100));
    std::iter::from_fn(received).any(|frame| frame == probe)
}

/// What is sent at one end as `frame` comes out of the other as `expected`, before anything else.
pub fn carry(from: &Wire, to: &mut Wire, frame: &[u8], expected: &[u8]) {
    from.send(frame);
    let received = std::iter::from_fn(|| to.receive(crate::lab::PATIENCE)).find(|frame| frame[12..14] != PROBE);
    let received = received.unwrap_or_else(|| panic!("{} bytes did not arrive: {frame:02x?}", frame.len()));
    assert!(received == expected, "sent     {frame:02x?}\nexpected {expected:02x?}\nreceived {received:02x?}");
}

/// Frames of these lengths, each with contents that compress well, by half and not at all. No two are the same.
pub fn frames(lengths: impl IntoIterator<Item = usize>) -> Vec<Vec<u8>> {
    let kinds = lengths.into_iter().flat_map(|length| [(length, 0), (length, length / 2), (length, length)]);
    let frame = |(number, (length, noisy)): (u32, (usize, usize))| {
        let mut frame = [b"\x02\0\0\0\xbb\x02\x02\0", &number.to_be_bytes()[..], b"\x88\xb5"].concat();
        let mut noise = 0x9e37_79b9 ^ number;
        frame.resize_with(length, || {
            // Xorshift.
            noise ^= noise << 13;
            noise ^= noise >> 17;
            noise ^= noise << 5;
            noise.to_be_bytes()[0]
        });
        frame[noisy.max(14)..].fill(0xee);
        frame
    };
    (1..).zip(kinds).map(frame).collect()
}

/// A NAT router between B, whose end has 127.0.0.1:6000 and knows it as 127.0.0.1:5000, and 192.0.2.1:6000.
pub struct Nat(SyncSender<UdpSocket>);

impl Nat {
    pub fn new(site: &Namespace) -> Self {
        let inside = site.inside(|| UdpSocket::bind("127.0.0.1:5000").unwrap());
        inside.connect("127.0.0.1:6000").unwrap();
        inside.set_nonblocking(true).unwrap();
        // Without a buffer: who sends a socket knows that it is in use.
        let (sender, sockets) = sync_channel::<UdpSocket>(0);
        let mut outside = outside(site);
        thread::spawn(move || {
            let mut buffer = vec![0; 65535];
            loop {
                match sockets.try_recv() {
                    Ok(socket) => outside = socket,
                    Err(TryRecvError::Empty) => {}
                    Err(TryRecvError::Disconnected) => break,
                }
                let mut both = [&inside, &outside].map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN));
                poll(&mut both, 5_u8).unwrap();
                for (from, to) in [(&inside, &outside), (&outside, &inside)] {
                    // An unused port is an error of the next call, which a router does not see.
                    if let Ok(length) = from.recv(&mut buffer) {
                        let _ = to.send(&buffer[..length]);
                    }
                }
            }
        });
        Self(sender)
    }

    /// From now on B appears with another port, and what is sent to the old one is lost.
    pub fn change_port(&self, site: &Namespace) {
        self.0.send(outside(site)).unwrap();
    }
}

fn outside(site: &Namespace) -> UdpSocket {
    let socket = site.inside(|| UdpSocket::bind("192.0.2.2:0").unwrap());
    socket.connect("192.0.2.1:6000").unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}
