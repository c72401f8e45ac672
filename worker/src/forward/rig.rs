//! Test rig: both loops of a tunnel around Unix sockets. Packets stay whole, and a socket that is not read fills up like a device's
//! queue.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Weak};
use std::time::Duration;

use nix::poll::PollFlags;
use privsep::ipc::{
    Address, Classic, ClassicSecrets, PathSettings, PortKind, Remote, Rules, Secrets, Settings, State, Wire,
};

use super::{Inward, Outward, Shared};
use crate::frame::checksum::Sum;
use crate::start;

/// Test ends of the network and the local side, and both loops.
pub struct Rig {
    pub port: UnixDatagram,
    pub paths: Vec<UnixDatagram>,
    pub inward: Inward,
    pub outward: Outward,
}

/// Handle that gives only errors.
pub fn broken() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

/// Address of a path's peer.
pub fn peer(path: u8) -> SocketAddr {
    ([192, 0, 2, 1], 6000 + u16::from(path)).into()
}

/// Both ends of a handle; the second is the test's.
fn pair() -> (OwnedFd, UnixDatagram) {
    let (theirs, ours) = UnixDatagram::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (theirs.into(), ours)
}

impl Rig {
    /// Makes a rig with this many paths and these rules, and with broken handles for the given port or path.
    pub fn new(count: u8, rules: Rules, broken_port: bool, broken_path: Option<usize>) -> Self {
        let wire = Wire::Classic(Classic { keepalive_ms: Some(1000), ..Classic::default() });
        Self::make(count, rules, wire, &Secrets::Classic(ClassicSecrets::default()), broken_port, broken_path)
    }

    /// Makes a rig with one path and this wire.
    pub fn with(rules: Rules, wire: Wire, secrets: &Secrets) -> Self {
        Self::make(1, rules, wire, secrets, false, None)
    }

    fn make(
        count: u8,
        rules: Rules,
        wire: Wire,
        secrets: &Secrets,
        broken_port: bool,
        broken_path: Option<usize>,
    ) -> Self {
        let longest = wire.longest().unwrap_or_default();
        let settings = Settings {
            port: PortKind::Raw,
            wire,
            remotes: (0..count).map(|path| Remote::Fixed(Address(peer(path)))).collect(),
            locals: (0..count).map(|path| Address(peer(path))).collect(),
            paths: vec![PathSettings { least: longest, most: longest, runs: true }; count.into()],
            rules,
            exit_after: None,
            announcement: None,
        };
        let (mut port, ours) = pair();
        let (mut handles, paths): (Vec<_>, Vec<_>) = (0..count).map(|_| pair()).unzip();
        if broken_port {
            port = broken();
        }
        if let Some(path) = broken_path {
            handles[path] = broken();
        }
        let (outward, inward) = start::loops(&settings, secrets, &State::default(), port, handles).unwrap();
        bound(Arc::downgrade(&inward.shared));
        Self { port: ours, paths, inward, outward }
    }

    /// Makes a rig that forwards both ways.
    pub fn plain(paths: u8) -> Self {
        Self::new(paths, both(), false, None)
    }
}

/// Aborts all tests if a loop is still in use after ten seconds: it would sleep or spin for ever.
fn bound(shared: Weak<Shared>) {
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(10));
        if shared.strong_count() > 0 {
            eprintln!("a loop did not come back to its test");
            std::process::abort();
        }
    });
}

/// Rules that forward both ways.
pub fn both() -> Rules {
    Rules { send: true, receive: true, ..Rules::default() }
}

/// Frame of this byte, one byte longer than that of the byte before: datagrams of equal length leave as one message, which only a
/// UDP socket segments.
pub fn frame(byte: u8) -> Vec<u8> {
    vec![byte; 60 + usize::from(byte)]
}

/// Datagrams queued at the test's end of a handle, without PINGs.
pub fn waiting(end: &UnixDatagram) -> Vec<Vec<u8>> {
    let mut buffer = [0; 10_000];
    let all = std::iter::from_fn(|| end.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec()));
    all.filter(|datagram| datagram != b"PING:PING:").collect()
}

/// Fills the queue towards the test's end, and returns the number of packets.
pub fn fill(socket: BorrowedFd<'_>) -> usize {
    let socket = UnixDatagram::from(socket.try_clone_to_owned().unwrap());
    socket.set_nonblocking(true).unwrap();
    std::iter::from_fn(|| socket.send(b"full").ok()).count()
}

/// Descriptors that an inward loop polls.
pub fn polled(inward: &Inward, now_us: u64) -> Vec<(i32, PollFlags)> {
    inward.interests(now_us).map(|(descriptor, events)| (descriptor.as_raw_fd(), events)).collect()
}

/// A [`frame`] as on a packet socket, after an empty `virtio_net_hdr`.
pub fn local(byte: u8) -> Vec<u8> {
    [&[0; crate::frame::offload::SHORT][..], &frame(byte)].concat()
}

/// TCP segment over IPv4 with this sequence number, complete except for the partial TCP checksum.
pub fn segment(sequence: usize, payload: usize) -> Vec<u8> {
    let mut frame = vec![5; 54 + payload];
    let total = u16::try_from(40 + payload).unwrap().to_be_bytes();
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14..34]
        .copy_from_slice(&[0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    frame[34..54].copy_from_slice(&[0, 9, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    frame[38..42].copy_from_slice(&u32::try_from(sequence).unwrap().to_be_bytes());
    let header = Sum::of(&frame[14..34]).checksum();
    frame[24..26].copy_from_slice(&header);
    let pseudo = [&frame[26..34], &[0, 6], &u16::try_from(20 + payload).unwrap().to_be_bytes()].concat();
    let partial = Sum::of(&pseudo).folded();
    frame[50..52].copy_from_slice(&partial);
    frame
}

/// Header before it: partial checksum, and segment size of a superframe.
pub fn header(kind: u16, size: u16) -> impl Iterator<Item = u8> {
    [1 | kind << 8, 54, size, 34, 16].into_iter().flat_map(u16::to_ne_bytes)
}
