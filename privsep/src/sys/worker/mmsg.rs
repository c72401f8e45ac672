//! Batches of datagrams and frames: `recvmmsg` and `sendmmsg` with headers that are allocated once.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use libc::{c_void, iovec, mmsghdr, msghdr, sockaddr_storage};

use super::address;

/// Room for one `tpacket_auxdata` control message: `CMSG_SPACE(20)` is 40 bytes, aligned as a `cmsghdr`.
type Control = [u64; 5];

const EMPTY: mmsghdr = mmsghdr {
    msg_hdr: msghdr {
        msg_name: ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: ptr::null_mut(),
        msg_iovlen: 0,
        msg_control: ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    },
    msg_len: 0,
};

/// A VLAN tag that the kernel has taken out of a frame (`struct tpacket_auxdata`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VlanTag {
    /// Tag protocol identifier: 0x8100 (802.1Q) or 0x88a8 (802.1ad).
    pub tpid: u16,
    /// Priority (3 bits), DEI (1 bit), VLAN id (12 bits).
    pub tci: u16,
}

/// Message headers with one I/O vector each. The pointers in them are set anew in every call and not used after it.
struct Headers {
    headers: Box<[mmsghdr]>,
    slices: Box<[iovec]>,
}

// SAFETY: the raw pointers inside are dead between calls; see `Headers`.
unsafe impl Send for Headers {}

impl Headers {
    fn new(batch: usize) -> Self {
        let empty = iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        Self { headers: vec![EMPTY; batch].into(), slices: vec![empty; batch].into() }
    }

    /// Points the first headers to the given memory and returns how many there are.
    fn fill(&mut self, buffers: impl Iterator<Item = (*mut c_void, usize)>) -> libc::c_uint {
        let mut count = 0;
        for ((header, slice), (base, length)) in self.headers.iter_mut().zip(self.slices.iter_mut()).zip(buffers) {
            *slice = iovec { iov_base: base, iov_len: length };
            header.msg_hdr.msg_iov = slice;
            header.msg_hdr.msg_iovlen = 1;
            count += 1;
        }
        count
    }
}

/// Receives batches.
pub struct Receiver {
    headers: Headers,
    /// Empty when no control messages are wanted.
    control: Box<[Control]>,
    /// Empty when no source addresses are wanted.
    sources: Box<[sockaddr_storage]>,
}

impl Receiver {
    /// For up to `batch` packets a call of which only the bytes count.
    pub fn new(batch: usize) -> Self {
        Self { headers: Headers::new(batch), control: Box::default(), sources: Box::default() }
    }

    /// As [`Receiver::new`], on a packet socket with `PACKET_AUXDATA`: with [`Receiver::vlan_tag`].
    pub fn with_auxdata(batch: usize) -> Self {
        Self { control: vec![Control::default(); batch].into(), ..Self::new(batch) }
    }

    /// As [`Receiver::new`], on a UDP socket that is not connected: with [`Receiver::source`].
    pub fn with_sources(batch: usize) -> Self {
        Self { sources: vec![address::EMPTY; batch].into(), ..Self::new(batch) }
    }

    /// Receives what is waiting, one packet into each buffer, without blocking, and returns how many came.
    ///
    /// # Errors
    /// `WouldBlock` when nothing waits; what recvmmsg(2) says otherwise (a connected UDP socket reports ICMP errors so).
    pub fn receive<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        buffers: impl Iterator<Item = &'a mut [u8]>,
    ) -> io::Result<usize> {
        self.take(socket, buffers, 0)
    }

    /// As [`Receiver::receive`], from the socket's error queue (`MSG_ERRQUEUE`, recv(2)), which shares its memory with what
    /// is received.
    ///
    /// # Errors
    /// `WouldBlock` when it is empty.
    pub fn receive_errors<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        buffers: impl Iterator<Item = &'a mut [u8]>,
    ) -> io::Result<usize> {
        self.take(socket, buffers, libc::MSG_ERRQUEUE)
    }

    fn take<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        buffers: impl Iterator<Item = &'a mut [u8]>,
        from: libc::c_int,
    ) -> io::Result<usize> {
        let count = self.headers.fill(buffers.map(|buffer| (buffer.as_mut_ptr().cast(), buffer.len())));
        for (header, control) in self.headers.headers.iter_mut().zip(self.control.iter_mut()) {
            header.msg_hdr.msg_control = control.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = size_of::<Control>();
        }
        for (header, source) in self.headers.headers.iter_mut().zip(self.sources.iter_mut()) {
            header.msg_hdr.msg_name = (&raw mut *source).cast();
            header.msg_hdr.msg_namelen = address::LENGTH;
        }
        let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC | from;
        let headers = self.headers.headers.as_mut_ptr();
        // SAFETY: `fill` has pointed `count` headers to vectors that live in self, those to distinct buffers that are
        // mutably borrowed through this call; control blocks and addresses are in self and of the length given.
        let received = unsafe { libc::recvmmsg(socket.as_raw_fd(), headers, count, flags, ptr::null_mut()) };
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }

    /// Length of packet `index` of the last batch as it was sent: more than its buffer's when it did not fit.
    pub fn length(&self, index: usize) -> usize {
        self.headers.headers[index].msg_len as usize
    }

    /// Where packet `index` of the last batch came from; `None` without [`Receiver::with_sources`].
    pub fn source(&self, index: usize) -> Option<SocketAddr> {
        address::decode(self.sources.get(index)?)
    }

    /// The tag that the kernel took out of packet `index` of the last batch.
    pub fn vlan_tag(&self, index: usize) -> Option<VlanTag> {
        const TPID_8021Q: u16 = 0x8100;
        let header = &self.headers.headers[index].msg_hdr;
        if self.control.is_empty() || header.msg_controllen == 0 {
            return None;
        }
        // SAFETY: msg_control points to a block in self.control, which the kernel has filled to msg_controllen.
        let first = unsafe { libc::CMSG_FIRSTHDR(header).as_ref() }?;
        #[allow(clippy::cast_possible_truncation)] // 20 bytes.
        let size = size_of::<libc::tpacket_auxdata>() as libc::c_uint;
        // SAFETY: CMSG_LEN only computes.
        let expected = unsafe { libc::CMSG_LEN(size) } as usize;
        if first.cmsg_level != libc::SOL_PACKET || first.cmsg_type != libc::PACKET_AUXDATA || first.cmsg_len < expected
        {
            return None;
        }
        // SAFETY: the message holds a whole tpacket_auxdata; it is read unaligned from initialised memory.
        let data = unsafe { libc::CMSG_DATA(first).cast::<libc::tpacket_auxdata>().read_unaligned() };
        let valid = data.tp_status & libc::TP_STATUS_VLAN_VALID != 0;
        let tpid_valid = data.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
        let tpid = if tpid_valid { data.tp_vlan_tpid } else { TPID_8021Q };
        (valid || data.tp_vlan_tci != 0).then_some(VlanTag { tpid, tci: data.tp_vlan_tci })
    }
}

/// Sends batches.
pub struct Sender {
    headers: Headers,
    target: Box<sockaddr_storage>,
}

impl Sender {
    /// For up to `batch` packets a call.
    pub fn new(batch: usize) -> Self {
        Self { headers: Headers::new(batch), target: Box::new(address::EMPTY) }
    }

    /// Sends each buffer as one packet to `target`, or without one to where the socket is connected or bound, without
    /// blocking, and returns how many were taken.
    ///
    /// # Errors
    /// What sendmmsg(2) says of the *first* packet, `WouldBlock` when the socket's queue is full; an error of a later
    /// packet shows in the next call.
    pub fn send<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        buffers: impl Iterator<Item = &'a [u8]>,
        target: Option<SocketAddr>,
    ) -> io::Result<usize> {
        let length = target.map_or(0, |target| address::encode(target, &mut self.target));
        let name = if length > 0 { (&raw mut *self.target).cast() } else { ptr::null_mut() };
        for header in &mut self.headers.headers {
            (header.msg_hdr.msg_name, header.msg_hdr.msg_namelen) = (name, length);
        }
        let count = self.headers.fill(buffers.map(|buffer| (buffer.as_ptr().cast_mut().cast(), buffer.len())));
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        let headers = self.headers.headers.as_mut_ptr();
        // SAFETY: `fill` has pointed `count` headers to vectors that live in self, those to buffers that are borrowed
        // through this call; the address is in self; sendmmsg reads them and writes only msg_len.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers, count, flags) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}
