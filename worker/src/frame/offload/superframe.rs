//! Superframe: a frame that is several in one, as the kernel describes it (`linux/virtio_net.h`), and which descriptions are refused.

use std::fmt;

use privsep::sys::worker::mmsg::VlanTag;

use crate::frame::HEADER;
use crate::frame::ethernet::{TCP, UDP};

/// VLAN tags in front of a packet at most, as in the kernel.
pub(super) const TAGS: usize = 8;
/// Packets that a superframe is cut into at most. The kernel's own have segments of 36 bytes at least, with the usual options
/// (`TCP_MIN_SND_MSS`), which makes 1,820; a virtual machine can say one byte.
pub const PACKETS: usize = 2048;
/// Length in bytes of the header in front of a frame (`virtio_net_hdr`), without the number of buffers: what a TAP and a packet socket begin with.
pub const SHORT: usize = 10;
/// Least length of a TCP header in bytes.
pub const TCP_HEADER: usize = 20;
/// Length of a UDP header in bytes.
pub const UDP_HEADER: usize = 8;

pub(super) const NEEDS_CHECKSUM: u8 = 1;
/// The kernel has seen that the checksum is right; nothing follows from it here.
pub(super) const VALID: u8 = 2;
pub(super) const NONE: u8 = 0;
pub(super) const TCP4: u8 = 1;
pub(super) const TCP6: u8 = 4;
pub(super) const UDP_DATAGRAMS: u8 = 5;
/// The first segment has CWR, which its header says, too.
pub(super) const ECN: u8 = 0x80;

/// What the kernel says of a frame that is not yet as it would be on the wire (`linux/virtio_net.h`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    /// The checksum is still to be completed.
    pub checksum: Option<Checksum>,
    /// The frame is several in one.
    pub superframe: Option<Superframe>,
    /// The VLAN tag that the kernel has taken out.
    pub vlan: Option<VlanTag>,
}

/// A checksum over everything from `start` on, to be put at `start + offset`; both in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checksum {
    /// Where what is summed begins in the frame.
    pub start: u16,
    /// Where the sum goes, behind that.
    pub offset: u16,
}

/// How a frame is to be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superframe {
    /// What it carries.
    pub kind: Segments,
    /// Bytes of header that each segment begins with, or more: of what the kernel gives it is a hint.
    pub header: u16,
    /// Bytes of payload in each segment but the last.
    pub segment: u16,
}

/// What a superframe is made of.
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
    /// The same where the headers are `count` bytes nearer to the beginning of the frame.
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

    /// The headers are `count` bytes, which is less than the headroom, farther from the beginning of the frame.
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

/// Why a frame is not taken with what is said of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The header in front of the frame is cut: its length in bytes.
    NoHeader(usize),
    /// It has flags that are not known.
    Flags(u8),
    /// Its kind of superframe is not known.
    Kind(u8),
    /// Segments would have no payload, or more than a packet holds.
    SegmentSize(u16),
    /// Its headers end behind the frame: their length, and the frame's.
    HeaderLength(u16, usize),
    /// The checksum is not in what it sums, or that not in the frame.
    Checksum(Checksum, usize),
    /// A superframe's checksum is not to be completed, or not that of its kind.
    NotPartial(Segments),
    /// No IPv4 or IPv6 that leads to what the superframe claims to carry; as of a superframe inside a tunnel's headers.
    NotTransport(Segments),
    /// A packet or segment is not as long as its header says: where that is, in bytes.
    Length(usize),
    /// It is a fragment.
    Fragment,
    /// More bytes of headers than are copied to each segment.
    LongHeaders(usize),
    /// More packets than a superframe of sound mind has.
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
    /// Protocol number, least length of its header, and where in it the checksum is.
    pub(super) fn transport(self) -> (u8, usize, u16) {
        match self {
            Self::Tcp4 | Self::Tcp6 => (TCP, TCP_HEADER, 16),
            Self::Udp => (UDP, UDP_HEADER, 6),
        }
    }
}

/// Whether facts can be true of a frame of `length` bytes.
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
