//! Single frames on an interface.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use privsep::sys::worker::mmsg::Receiver;
use privsep::sys::{option, packet};

use super::{Namespace, allowed};

/// A frame of `length` bytes with the local experimental EtherType 0x88b5, in which `number` can be found again.
pub fn frame(number: u32, length: usize) -> Vec<u8> {
    let mut frame = b"\x02\0\0\0\xbb\x02\x02\0\0\0\xaa\x01\x88\xb5".to_vec();
    frame.extend_from_slice(&number.to_be_bytes());
    frame.extend((frame.len()..length).map(|at| u8::try_from((at * 7 + number as usize) % 251).unwrap()));
    assert_eq!(frame.len(), length);
    frame
}

/// An interface on which frames are sent and received.
pub struct Wire {
    socket: OwnedFd,
    receiver: Receiver,
}

impl Wire {
    pub fn new(namespace: &Namespace, interface: &str) -> Self {
        let index = namespace.index(interface);
        let socket = namespace.inside(|| packet::open().unwrap());
        option::set_int(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_AUXDATA, 1).unwrap();
        option::set_int(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 64 << 20).unwrap();
        packet::bind(socket.as_fd(), index).unwrap();
        Self { socket, receiver: Receiver::with_control(1) }
    }

    /// From now on sent and received frames begin with their `virtio_net_hdr`.
    pub fn with_offload(self) -> Self {
        option::set_int(self.socket.as_fd(), libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1).unwrap();
        self
    }

    pub fn send(&self, frame: &[u8]) {
        assert!(self.offer(frame), "a frame of {} bytes is not taken", frame.len());
    }

    /// Sends a frame that the other end may refuse for its size, as veth reports it; whether it was taken.
    pub fn offer(&self, frame: &[u8]) -> bool {
        match send(self.socket.as_raw_fd(), frame, MsgFlags::empty()) {
            Err(Errno::ENOBUFS) => false,
            sent => sent.unwrap() == frame.len(),
        }
    }

    /// Sends what the kernel may refuse; whether it was taken.
    pub fn accepts(&self, frame: &[u8]) -> bool {
        send(self.socket.as_raw_fd(), frame, MsgFlags::empty()) == Ok(frame.len())
    }

    /// The next frame, its VLAN tag in place, that comes within `limit`.
    pub fn receive(&mut self, limit: Duration) -> Option<Vec<u8>> {
        let start = Instant::now();
        loop {
            let left = limit.checked_sub(start.elapsed())?;
            let timeout = PollTimeout::try_from(left).unwrap();
            poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], timeout).unwrap();
            let mut buffer = vec![0; 70_000];
            let slot = std::iter::once(&mut buffer[..]);
            if self.receiver.receive(self.socket.as_fd(), slot).is_ok_and(|count| count == 1) {
                buffer.truncate(self.receiver.length(0));
                if let Some(tag) = self.receiver.vlan_tag(0) {
                    let tag = [tag.tpid.to_be_bytes(), tag.tci.to_be_bytes()].concat();
                    buffer.splice(12..12, tag);
                }
                return Some(buffer);
            }
        }
    }

    /// All frames until none has come for `silence`, longer on a loaded machine.
    pub fn receive_all(&mut self, silence: Duration) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.receive(allowed(silence))).collect()
    }
}
