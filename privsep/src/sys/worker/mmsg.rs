//! Batches of datagrams and frames: `recvmmsg` and `sendmmsg` with headers allocated once.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use libc::{c_void, iovec, mmsghdr, msghdr, sockaddr_storage};

use super::address;

/// Room for control messages, aligned as a `cmsghdr`: `tpacket_auxdata` (20 bytes), or a segment size, an address (20 bytes) and a
/// traffic class.
type Control = [u64; 11];
/// Most segments that every kernel cuts one message into (`UDP_MAX_SEGMENTS`; newer kernels allow twice as many).
pub const MAX_SEGMENTS: usize = 64;
/// Most packets in one call.
pub const MAX_BATCH: usize = 64;
/// Most pieces of one message (`UIO_MAXIOV`).
const MAX_PIECES: usize = 1024;

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

/// VLAN tag that the kernel has removed from a frame (`struct tpacket_auxdata`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VlanTag {
    /// Tag protocol identifier: 0x8100 (802.1Q) or 0x88a8 (802.1ad).
    pub tpid: u16,
    /// Priority (3 bits), DEI (1 bit), VLAN id (12 bits).
    pub tci: u16,
}

/// Destination of datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// Address and port of the receiver; `None` on a connected socket.
    pub to: Option<SocketAddr>,
    /// Source address; `None` lets the kernel choose. Only for a socket with a wildcard address.
    pub from: Option<IpAddr>,
    /// Whether the socket is an IPv6 socket, which takes IPv4 addresses as mapped ones.
    pub v6: bool,
}

/// Message headers and I/O vectors. Their pointers are set in every call and not used after it.
struct Headers {
    messages: Box<[mmsghdr]>,
    slices: Box<[iovec]>,
    control: Box<[Control]>,
}

// SAFETY: the raw pointers inside are dead between calls; see `Headers`.
unsafe impl Send for Headers {}

impl Headers {
    /// `control` is 0 if no control messages are used.
    fn new(batch: usize, pieces: usize, control: usize) -> Self {
        let slice = iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        let (messages, slices) = (vec![EMPTY; batch].into(), vec![slice; pieces].into());
        Self { messages, slices, control: vec![Control::default(); control].into() }
    }

    /// Points the headers to the memory of one packet each, of one or more pieces. Returns the number of packets, at most as many
    /// as fit.
    fn fill(&mut self, packets: impl Iterator<Item = impl Iterator<Item = (*mut c_void, usize)>>) -> libc::c_uint {
        let (mut count, mut used) = (0, 0);
        'packets: for (header, packet) in self.messages.iter_mut().zip(packets) {
            let first = used;
            for (base, length) in packet {
                if used == self.slices.len() || used - first == MAX_PIECES {
                    break 'packets;
                }
                self.slices[used] = iovec { iov_base: base, iov_len: length };
                used += 1;
            }
            header.msg_hdr.msg_iovlen = used - first;
            count += 1;
        }
        // All vectors are written before any pointer to them is taken. Each pointer derives from one pointer to all of them.
        let mut next = self.slices.as_mut_ptr();
        for header in &mut self.messages[..count] {
            header.msg_hdr.msg_iov = next;
            next = next.wrapping_add(header.msg_hdr.msg_iovlen);
        }
        // At most as many as headers.
        libc::c_uint::try_from(count).unwrap_or(0)
    }
}

/// Receives batches.
pub struct Receiver {
    headers: Headers,
    /// Empty if source addresses are not recorded.
    sources: Box<[sockaddr_storage]>,
}

impl Receiver {
    /// For up to `batch` packets a call, without control messages.
    pub fn new(batch: usize) -> Self {
        Self { headers: Headers::new(batch, batch, 0), sources: Box::default() }
    }

    /// As [`Receiver::new`], with a control message for each packet: for [`Receiver::vlan_tag`] on a packet socket with
    /// `PACKET_AUXDATA`, for [`Receiver::segment`] on a UDP socket with `UDP_GRO`.
    pub fn with_control(batch: usize) -> Self {
        Self { headers: Headers::new(batch, batch, batch), sources: Box::default() }
    }

    /// Also records [`Receiver::source`], on a UDP socket that is not connected, and [`Receiver::local`] if the socket reports
    /// local addresses (`IP_PKTINFO`, `IPV6_RECVPKTINFO`).
    #[must_use]
    pub fn with_sources(self) -> Self {
        Self { sources: vec![address::EMPTY; self.headers.messages.len()].into(), ..self }
    }

    /// Receives queued packets without blocking, one into each buffer. Returns the number of packets.
    ///
    /// # Errors
    /// `WouldBlock` if the queue is empty; otherwise the error of recvmmsg(2). A connected UDP socket reports ICMP errors this way.
    pub fn receive<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        buffers: impl Iterator<Item = &'a mut [u8]>,
    ) -> io::Result<usize> {
        self.take(socket, buffers, 0)
    }

    /// As [`Receiver::receive`], from the socket's error queue (`MSG_ERRQUEUE`, recv(2)). The error queue shares its memory limit
    /// with received datagrams.
    ///
    /// # Errors
    /// `WouldBlock` if the queue is empty.
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
        let packet = |buffer: &'a mut [u8]| std::iter::once((buffer.as_mut_ptr().cast(), buffer.len()));
        let count = self.headers.fill(buffers.map(packet));
        let Headers { messages, control, .. } = &mut self.headers;
        for (header, control) in messages.iter_mut().zip(control) {
            header.msg_hdr.msg_control = control.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = size_of::<Control>();
        }
        for (header, source) in self.headers.messages.iter_mut().zip(self.sources.iter_mut()) {
            header.msg_hdr.msg_name = (&raw mut *source).cast();
            header.msg_hdr.msg_namelen = address::LENGTH;
        }
        let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC | from;
        let headers = self.headers.messages.as_mut_ptr();
        // SAFETY: `fill` has pointed `count` headers to vectors that live in self, those to distinct buffers that are
        // mutably borrowed through this call; control blocks and addresses are in self and of the length given.
        let received = unsafe { libc::recvmmsg(socket.as_raw_fd(), headers, count, flags, ptr::null_mut()) };
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }

    /// Length of packet `index` of the last batch as sent. It exceeds the buffer's length if the packet was truncated.
    pub fn length(&self, index: usize) -> usize {
        self.headers.messages[index].msg_len as usize
    }

    /// Source address of packet `index` of the last batch; `None` without [`Receiver::with_sources`].
    pub fn source(&self, index: usize) -> Option<SocketAddr> {
        address::decode(self.sources.get(index)?)
    }

    /// VLAN tag that the kernel removed from packet `index` of the last batch.
    pub fn vlan_tag(&self, index: usize) -> Option<VlanTag> {
        const TPID_8021Q: u16 = 0x8100;
        let data: libc::tpacket_auxdata = self.control(index, libc::SOL_PACKET, libc::PACKET_AUXDATA)?;
        let valid = data.tp_status & libc::TP_STATUS_VLAN_VALID != 0;
        let tpid_valid = data.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
        let tpid = if tpid_valid { data.tp_vlan_tpid } else { TPID_8021Q };
        (valid || data.tp_vlan_tci != 0).then_some(VlanTag { tpid, tci: data.tp_vlan_tci })
    }

    /// Length in bytes of all but the last datagram that the kernel has merged into packet `index` of the last batch (udp(7),
    /// `UDP_GRO`); `None` for a single datagram.
    pub fn segment(&self, index: usize) -> Option<usize> {
        let size: libc::c_int = self.control(index, libc::SOL_UDP, libc::UDP_GRO)?;
        usize::try_from(size).ok().filter(|&size| size > 0)
    }

    /// Traffic class of packet `index` of the last batch, if the socket reports it (`IP_RECVTOS`, `IPV6_RECVTCLASS`); otherwise 0.
    /// All datagrams that the kernel has merged have the same.
    pub fn class(&self, index: usize) -> u8 {
        self.control(index, libc::IPPROTO_IP, libc::IP_TOS).unwrap_or_else(|| {
            let class: Option<libc::c_int> = self.control(index, libc::IPPROTO_IPV6, libc::IPV6_TCLASS);
            class.and_then(|class| u8::try_from(class).ok()).unwrap_or(0)
        })
    }

    /// Local address to which packet `index` of the last batch was sent, if the socket reports it. Also set for an IPv4 packet on
    /// an IPv6 socket.
    pub fn local(&self, index: usize) -> Option<IpAddr> {
        if let Some(info) = self.control::<libc::in_pktinfo>(index, libc::IPPROTO_IP, libc::IP_PKTINFO) {
            return Some(address::ipv4(info.ipi_spec_dst).into());
        }
        let info: libc::in6_pktinfo = self.control(index, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO)?;
        Some(IpAddr::from(info.ipi6_addr.s6_addr).to_canonical())
    }

    /// Control message of this kind that came with packet `index`.
    fn control<T: Plain>(&self, index: usize, level: libc::c_int, kind: libc::c_int) -> Option<T> {
        #[allow(clippy::cast_possible_truncation)] // A few bytes.
        const fn length_of<T>() -> usize {
            // SAFETY: CMSG_LEN only computes.
            unsafe { libc::CMSG_LEN(size_of::<T>() as libc::c_uint) as usize }
        }
        let header = &self.headers.messages[index].msg_hdr;
        if self.headers.control.is_empty() || header.msg_controllen == 0 {
            return None;
        }
        // SAFETY: it only computes, from a header that recvmmsg has filled.
        let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
        while !next.is_null() {
            // SAFETY: msg_control points to a block in self, aligned as a cmsghdr, which the kernel has filled to msg_controllen:
            // that is a whole header at least. Numbers alone are read, so that the pointer stays good for what is behind it.
            let (found, length) = unsafe { (((*next).cmsg_level, (*next).cmsg_type), (*next).cmsg_len) };
            if found == (level, kind) && length >= length_of::<T>() {
                // SAFETY: the message holds a whole T, for which any bytes are a value; it is read unaligned from initialised
                // memory.
                return Some(unsafe { libc::CMSG_DATA(next).cast::<T>().read_unaligned() });
            }
            // SAFETY: as for the first; it looks whether another whole header is there.
            next = unsafe { libc::CMSG_NXTHDR(header, next) };
        }
        None
    }
}

/// Types of plain numbers, for which any bytes are a value.
trait Plain {}
impl Plain for libc::tpacket_auxdata {}
impl Plain for u8 {}
impl Plain for libc::c_int {}
impl Plain for libc::in_pktinfo {}
impl Plain for libc::in6_pktinfo {}

/// Sends batches.
pub struct Sender {
    headers: Headers,
    target: Box<sockaddr_storage>,
}

impl Sender {
    /// For up to `batch` packets a call, with up to `pieces` pieces in all.
    pub fn new(batch: usize, pieces: usize) -> Self {
        Self { headers: Headers::new(batch, pieces, batch), target: Box::new(address::EMPTY) }
    }

    /// Sends packets without blocking, and returns how many the kernel took. Without a destination they go to the connected or
    /// bound address. A packet is the concatenation of its pieces. With a segment size it leaves as datagrams of that size, at most
    /// [`MAX_SEGMENTS`]; the last one may be shorter (udp(7), `UDP_SEGMENT`). A traffic class other than 0 takes the place of the
    /// socket's.
    ///
    /// # Errors
    /// Error of sendmmsg(2) for the *first* packet; `WouldBlock` if the socket's queue is full. An error of a later packet shows in
    /// the next call.
    pub fn send<'a, P: Iterator<Item = &'a [u8]>>(
        &mut self,
        socket: BorrowedFd<'_>,
        packets: impl Iterator<Item = (P, Option<u16>, u8)>,
        destination: Option<Destination>,
    ) -> io::Result<usize> {
        let to =
            destination.and_then(|Destination { to, v6, .. }| to.map(|to| if v6 { address::for_v6(to) } else { to }));
        let length = to.map_or(0, |to| address::encode(to, &mut self.target));
        // A datagram to a mapped address is one of IPv4.
        let is_v6 =
            |&Destination { to, v6, .. }: &Destination| v6 && to.is_none_or(|to| to.ip().to_canonical().is_ipv6());
        let class_kind = match destination.filter(is_v6) {
            Some(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
            None => (libc::IPPROTO_IP, libc::IP_TOS),
        };
        let from = destination.and_then(|Destination { from, v6, .. }| Some((from?, v6)));
        let name = if length > 0 { (&raw mut *self.target).cast() } else { ptr::null_mut() };
        let mut sizes = [(None, 0); MAX_BATCH];
        let packets = packets.zip(&mut sizes).map(|((pieces, segment, class), size)| {
            *size = (segment, class);
            pieces.map(|piece| (piece.as_ptr().cast_mut().cast(), piece.len()))
        });
        let count = self.headers.fill(packets);
        let Headers { messages, control, .. } = &mut self.headers;
        for ((header, control), (size, class)) in messages.iter_mut().zip(control).zip(sizes) {
            (header.msg_hdr.msg_name, header.msg_hdr.msg_namelen) = (name, length);
            let mut end = 0;
            if let Some(size) = size {
                end = append(control, end, (libc::SOL_UDP, libc::UDP_SEGMENT), size);
            }
            if class != 0 {
                end = append(control, end, class_kind, libc::c_int::from(class));
            }
            match from {
                Some((IpAddr::V4(from), false)) => {
                    let info = libc::in_pktinfo {
                        ipi_ifindex: 0,
                        ipi_spec_dst: address::in_addr(from),
                        ipi_addr: address::ANY,
                    };
                    end = append(control, end, (libc::IPPROTO_IP, libc::IP_PKTINFO), info);
                }
                Some((from, _)) => {
                    let info = libc::in6_pktinfo { ipi6_addr: address::in6_addr(from), ipi6_ifindex: 0 };
                    end = append(control, end, (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO), info);
                }
                None => {}
            }
            let block = if end > 0 { control.as_mut_ptr().cast() } else { ptr::null_mut() };
            (header.msg_hdr.msg_control, header.msg_hdr.msg_controllen) = (block, end);
        }
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        let headers = self.headers.messages.as_mut_ptr();
        // SAFETY: `fill` has pointed `count` headers to vectors that live in self, those to buffers that are borrowed
        // through this call; address and control messages are in self; sendmmsg reads them and writes only msg_len.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers, count, flags) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

/// Appends a control message of this level and kind at `end`, and returns its own end.
#[allow(clippy::cast_possible_truncation)] // A few bytes.
fn append<T: Copy>(control: &mut Control, end: usize, kind: (libc::c_int, libc::c_int), value: T) -> usize {
    let size = size_of::<T>() as libc::c_uint;
    // SAFETY: CMSG_SPACE only computes.
    let space = unsafe { libc::CMSG_SPACE(size) } as usize;
    assert!(end.is_multiple_of(align_of::<libc::cmsghdr>()) && end + space <= size_of::<Control>());
    // SAFETY: the block is aligned as a cmsghdr, so is `end` in it, and the message lies within it whole, as was just seen: both
    // writes are in bounds, that of the value unaligned; the macros compute.
    unsafe {
        let header = control.as_mut_ptr().byte_add(end).cast::<libc::cmsghdr>();
        ((*header).cmsg_level, (*header).cmsg_type) = kind;
        (*header).cmsg_len = libc::CMSG_LEN(size) as usize;
        libc::CMSG_DATA(header).cast::<T>().write_unaligned(value);
    }
    end + space
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::option;

    fn pair() -> (UdpSocket, UdpSocket) {
        let sockets = [0; 2].map(|_| UdpSocket::bind(("127.0.0.1", 0)).unwrap());
        let addresses = [0, 1].map(|number: usize| sockets[number].local_addr().unwrap());
        let [one, other] = sockets;
        one.connect(addresses[1]).unwrap();
        other.connect(addresses[0]).unwrap();
        (one, other)
    }

    /// Sends one packet of these pieces.
    fn send(socket: &UdpSocket, pieces: &[&[u8]], segment: Option<u16>) -> io::Result<usize> {
        Sender::new(4, 8).send(socket.as_fd(), std::iter::once((pieces.iter().copied(), segment, 0)), None)
    }

    #[test]
    fn segment_size_splits_a_message() {
        let (one, other) = pair();
        assert_eq!(send(&one, &[b"ab", b"", b"cde"], None).unwrap(), 1);
        assert_eq!(send(&one, &[b"abc", b"defg", b"h"], Some(3)).unwrap(), 1);
        let mut buffer = [0; 10];
        for expected in ["abcde", "abc", "def", "gh"] {
            let length = other.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], expected.as_bytes());
        }
    }

    #[test]
    fn received_run_reports_segment_size() {
        let (one, other) = pair();
        option::set_int(other.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1).unwrap();
        send(&one, &[&[7; 250]], Some(100)).unwrap();
        send(&one, &[b"alone"], None).unwrap();
        let (mut receiver, mut memory) = (Receiver::with_control(4).with_sources(), [[0; 1000]; 4]);
        // The loopback interface delivers the segments as one packet.
        let count = receiver.receive(other.as_fd(), memory.iter_mut().map(|buffer| &mut buffer[..])).unwrap();
        let came: Vec<_> = (0..count).map(|index| (receiver.length(index), receiver.segment(index))).collect();
        assert_eq!(came, [(250, Some(100)), (5, None)]);
        assert_eq!(receiver.source(1), Some(one.local_addr().unwrap()));
        assert_eq!(receiver.vlan_tag(0), None);
    }

    /// A socket with a wildcard address that reports the local address of each datagram.
    fn wildcard(address: &str) -> (UdpSocket, Receiver) {
        let socket = UdpSocket::bind(address).unwrap();
        let (level, name) = if address.starts_with('[') {
            (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)
        } else {
            (libc::IPPROTO_IP, libc::IP_PKTINFO)
        };
        option::set_int(socket.as_fd(), level, name, 1).unwrap();
        option::set_int(socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1).unwrap();
        (socket, Receiver::with_control(4).with_sources())
    }

    #[test]
    fn answers_leave_from_the_asked_address() {
        for (bound, client, asked) in [
            ("0.0.0.0:0", "127.0.0.5:0", "127.0.0.9"),
            ("[::]:0", "127.0.0.5:0", "127.0.0.9"),
            ("[::]:0", "[::1]:0", "::1"),
        ] {
            let ((socket, mut receiver), client) = (wildcard(bound), UdpSocket::bind(client).unwrap());
            let asked: IpAddr = asked.parse().unwrap();
            client.connect((asked, socket.local_addr().unwrap().port())).unwrap();
            client.send(b"question").unwrap();
            let mut memory = [[0; 100]; 4];
            assert_eq!(receiver.receive(socket.as_fd(), memory.iter_mut().map(|buffer| &mut buffer[..])).unwrap(), 1);
            let source = client.local_addr().unwrap();
            assert_eq!((receiver.source(0), receiver.local(0)), (Some(source), Some(asked)), "{bound}");
            let destination = Destination { to: Some(source), from: Some(asked), v6: bound.starts_with('[') };
            let run = (std::iter::once(&b"ananswer"[..]), Some(4), 0);
            assert_eq!(Sender::new(1, 1).send(socket.as_fd(), std::iter::once(run), Some(destination)).unwrap(), 1);
            // The client receives only from this address.
            let mut buffer = [0; 10];
            for _ in 0..2 {
                assert_eq!(client.recv(&mut buffer).unwrap(), 4, "{bound}");
            }
        }
    }

    #[test]
    fn traffic_class_travels_with_datagram() {
        for (bound, client, class) in [
            ("127.0.0.1:0", "127.0.0.1", 0xb9),
            ("[::1]:0", "::1", 0xb9),
            ("[::]:0", "::1", 0x02),
            // IPv4 on an IPv6 socket.
            ("[::]:0", "::ffff:127.0.0.1", 0x03),
        ] {
            let [one, other] = [bound, bound].map(|bound| UdpSocket::bind(bound).unwrap());
            for (level, name) in [(libc::IPPROTO_IP, libc::IP_RECVTOS), (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS)] {
                if level == libc::IPPROTO_IP || bound.starts_with('[') {
                    option::set_int(other.as_fd(), level, name, 1).unwrap();
                }
            }
            option::set_int(other.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1).unwrap();
            let to = SocketAddr::new(client.parse().unwrap(), other.local_addr().unwrap().port());
            let mut sender = Sender::new(4, 8);
            let from = Some(to.ip()).filter(|_| bound == "[::]:0");
            // A run, a datagram with the default class, and one of a connected socket.
            let packets = [(&b"aabb"[..], Some(2), class), (b"c", None, 0)];
            let packets = packets.map(|(bytes, size, class)| (std::iter::once(bytes), size, class));
            let destination = Destination { to: Some(to), from, v6: bound.starts_with('[') };
            assert_eq!(sender.send(one.as_fd(), packets.into_iter(), Some(destination)).unwrap(), 2, "{bound}");
            one.connect(to).unwrap();
            let packet = std::iter::once((std::iter::once(&b"d"[..]), None, class));
            let connected = Destination { to: None, from: None, v6: to.is_ipv6() && !client.contains('.') };
            assert_eq!(sender.send(one.as_fd(), packet, Some(connected)).unwrap(), 1, "{bound}");
            let (mut receiver, mut memory) = (Receiver::with_control(4).with_sources(), [[0; 100]; 4]);
            let count = receiver.receive(other.as_fd(), memory.iter_mut().map(|buffer| &mut buffer[..])).unwrap();
            let came: Vec<_> = (0..count).map(|index| (receiver.segment(index), receiver.class(index))).collect();
            assert_eq!(came, [(Some(2), class), (None, 0), (None, class)], "{bound}");
        }
    }

    #[test]
    fn excess_messages_wait_for_next_call() {
        let (one, _other) = pair();
        let mut sender = Sender::new(4, 5);
        let packets = [2, 2, 2].map(|count| (std::iter::repeat_n(&b"x"[..], count), None, 0));
        assert_eq!(sender.send(one.as_fd(), packets.into_iter(), None).unwrap(), 2);
        let packets = [1; 6].map(|count| (std::iter::repeat_n(&b"x"[..], count), None, 0));
        assert_eq!(sender.send(one.as_fd(), packets.into_iter(), None).unwrap(), 4);
    }
}
