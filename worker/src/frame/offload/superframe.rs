//! Superframe: several frames in one, as the kernel describes it (`linux/virtio_net.h`); and the check of such descriptions.

use std::fmt;

use privsep::sys::worker::mmsg::VlanTag;

use crate::frame::HEADER;
use crate::frame::ethernet::{TCP, UDP};

/// Most VLAN tags before a packet, as in the kernel.
pub(super) const TAGS: usize = 8;
/// Most packets of a superframe. The kernel's own segments have at least 36 bytes with the usual options (`TCP_MIN_SND_MSS`), which
/// makes 1,820 packets. A virtual machine can specify one byte.
pub const PACKETS: usize = 2048;
/// Length in bytes of the header before a frame (`virtio_net_hdr`), without the number of buffers, as on TAPs and packet sockets.
pub const SHORT: usize = 10;
/// Least length of a TCP header in bytes.
pub const TCP_HEADER: usize = 20;
/// Length of a UDP header in bytes.
pub const UDP_HEADER: usize = 8;

pub(super) const NEEDS_CHECKSUM: u8 = 1;
/// The kernel has verified the checksum. The worker does not use this.
pub(super) const VALID: u8 = 2;
pub(super) const NONE: u8 = 0;
pub(super) const TCP4: u8 = 1;
pub(super) const TCP6: u8 = 4;
pub(super) const UDP_DATAGRAMS: u8 = 5;
/// The first segment has CWR, as its header shows as well.
pub(super) const ECN: u8 = 0x80;

/// Facts of the kernel about a frame that is not in its wire form (`linux/virtio_net.h`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    /// Checksum still to be completed.
    pub checksum: Option<Checksum>,
    /// Segmentation, if the frame is a superframe.
    pub superframe: Option<Superframe>,
    /// VLAN tag that the kernel has removed.
    pub vlan: Option<VlanTag>,
}

/// Partial checksum: covers all bytes from `start` on, and belongs at `start + offset`; both in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checksum {
    /// Offset in the frame of the first summed byte.
    pub start: u16,
    /// Offset of the field from `start`.
    pub offset: u16,
}

/// Segmentation of a superframe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superframe {
    /// Transport protocol.
    pub kind: Segments,
    /// Bytes of headers of each segment, or more: the kernel's value is a hint.
    pub header: u16,
    /// Payload bytes of each segment but the last.
    pub segment: u16,
}

/// Transport protocol of a superframe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segments {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP datagrams.
    Udp,
}

impl Facts {
    /// The facts with headers `count` bytes nearer to the start of the frame.
    #[must_use]
    pub fn nearer_by(mut self, count: usize) -> Self {
        let count = u16::try_from(count).unwrap_or(u16::MAX);
        if let Some(checksum) = &mut self.checksum {
            checksum.start = checksum.start.saturating_sub(count);
        }
        if let Some(superframe) = &mut self.superframe {
            superframe.header = superframe.header.saturating_sub(count);
        }
        self
    }

    /// Moves the headers `count` bytes, less than the headroom, away from the start of the frame.
    pub fn move_back(&mut self, count: usize) {
        let count = u16::try_from(count).unwrap_or(u16::MAX);
        if let Some(checksum) = &mut self.checksum {
            checksum.start = checksum.start.saturating_add(count);
        }
        if let Some(superframe) = &mut self.superframe {
            superframe.header = superframe.header.saturating_add(count);
        }
    }
}

/// Reason why a frame with these facts is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The header before the frame is truncated: its length in bytes.
    NoHeader(usize),
    /// The header has unknown flags.
    Flags(u8),
    /// The header has an unknown kind of superframe.
    Kind(u8),
    /// Segments would have no payload, or more than fits into a packet.
    SegmentSize(u16),
    /// The headers end behind the frame: their length, and the frame's.
    HeaderLength(u16, usize),
    /// The field is outside the summed bytes, or these are outside the frame.
    Checksum(Checksum, usize),
    /// The superframe's partial checksum is not that of its protocol.
    NotPartial(Segments),
    /// The headers do not lead over IPv4 or IPv6 to the claimed protocol, as with a superframe inside a tunnel's headers.
    NotTransport(Segments),
    /// The length of a packet or segment contradicts its header: offset of the header in bytes.
    Length(usize),
    /// It is a fragment.
    Fragment,
    /// The headers are longer than those copied to each segment.
    LongHeaders(usize),
    /// The superframe has too many packets.
    Packets(usize),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHeader(length) => write!(f, "offload header of {length} bytes, less than {SHORT}"),
            Self::Flags(flags) => {
                write!(f, "unknown offload flags {flags:#04x}: known are {NEEDS_CHECKSUM} and {VALID}")
            }
            Self::Kind(kind) => {
                write!(
                    f,
                    "superframe of unknown kind {kind:#04x}: known are {TCP4}, {TCP6}, {UDP_DATAGRAMS} and bit {ECN:#04x}"
                )
            }
            Self::SegmentSize(size) => write!(f, "superframe with impossible segment size {size}"),
            Self::HeaderLength(header, frame) => write!(f, "headers of {header} bytes in a frame of {frame}"),
            Self::Checksum(Checksum { start, offset }, frame) => {
                write!(f, "checksum from {start} with field at {start}+{offset} in a frame of {frame} bytes")
            }
            Self::NotPartial(kind) => {
                write!(f, "superframe {kind:?} with a foreign checksum offset")
            }
            Self::NotTransport(kind) => write!(f, "superframe {kind:?} with headers of another protocol"),
            Self::Length(at) => write!(f, "superframe with a wrong length in the header at {at}"),
            Self::Fragment => write!(f, "superframe of an IP fragment"),
            Self::LongHeaders(length) => write!(f, "superframe with {length} bytes of headers"),
            Self::Packets(packets) => write!(f, "superframe of {packets} packets, more than {PACKETS}"),
        }
    }
}

impl Segments {
    /// Protocol number, least length of the header in bytes, and offset of the checksum in it.
    pub(super) fn transport(self) -> (u8, usize, u16) {
        match self {
            Self::Tcp4 | Self::Tcp6 => (TCP, TCP_HEADER, 16),
            Self::Udp => (UDP, UDP_HEADER, 6),
        }
    }
}

/// Checks facts against a frame of `length` bytes.
pub(super) fn check(facts: &Facts, length: usize) -> Result<(), Refused> {
    if let Some(checksum @ Checksum { start, offset }) = facts.checksum
        && (usize::from(start) < HEADER || usize::from(start) + usize::from(offset) + 2 > length)
    {
        return Err(Refused::Checksum(checksum, length));
    }
    let Some(Superframe { kind, header, segment }) = facts.superframe else { return Ok(()) };
    let (_, least, offset) = kind.transport();
    match facts.checksum {
        _ if segment == 0 || segment == u16::MAX => Err(Refused::SegmentSize(segment)),
        _ if usize::from(header) > length => Err(Refused::HeaderLength(header, length)),
        Some(checksum) if usize::from(checksum.start) + least > length => Err(Refused::Checksum(checksum, length)),
        Some(checksum) if checksum.offset != offset => Err(Refused::NotPartial(kind)),
        _ => Ok(()),
    }
}
