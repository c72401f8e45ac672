//! Opens a packet socket on an interface.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::socket::{setsockopt, sockopt};
use privsep::ipc::BpfInstruction;
use privsep::netlink::Netlink;
use privsep::sys::{option, packet};

/// Random mark that other frames are unlikely to have. A packet socket does not receive the frames that it sends, except for
/// superframes that the kernel has segmented. The segments lose their sender but keep the mark.
fn own_mark() -> u32 {
    let random = RandomState::new().build_hasher().finish();
    u32::try_from(random >> 32).unwrap_or(u32::MAX) | 1 << 31
}

/// Classic BPF program (`linux/filter.h`) that accepts all frames but outgoing ones with this mark.
fn all_but_own(mark: u32) -> [BpfInstruction; 6] {
    const LOAD: u16 = 0x20;
    const IS: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const KIND: u32 = libc::SKF_AD_OFF.wrapping_add(libc::SKF_AD_PKTTYPE).cast_unsigned();
    const MARK: u32 = libc::SKF_AD_OFF.wrapping_add(libc::SKF_AD_MARK).cast_unsigned();
    let instruction = |code, jt, jf, k| BpfInstruction { code, jt, jf, k };
    [
        instruction(LOAD, 0, 0, KIND),
        instruction(IS, 0, 2, libc::PACKET_OUTGOING.into()),
        instruction(LOAD, 0, 0, MARK),
        instruction(IS, 1, 0, mark),
        instruction(RETURN, 0, 0, u32::MAX),
        instruction(RETURN, 0, 0, 0),
    ]
}

/// Opens a packet socket that receives all frames of an interface but those it sends.
pub fn both_ways(interface: &str, promiscuous: bool) -> Result<(OwnedFd, String, u32), String> {
    let mark = own_mark();
    let opened = open(interface, promiscuous, &all_but_own(mark))?;
    setsockopt(&opened.0, sockopt::Mark, &mark)
        .map_err(|e| format!("interface {interface:?}: mark of frames: {}", e.desc()))?;
    Ok(opened)
}

/// Opens a packet socket on an Ethernet interface. Binds last: the socket must not receive before all options are set.
pub fn open(interface: &str, promiscuous: bool, filter: &[BpfInstruction]) -> Result<(OwnedFd, String, u32), String> {
    let mut netlink = Netlink::open().map_err(|e| format!("netlink socket: {e}"))?;
    let link = netlink.link(interface).map_err(|error| match error.raw_os_error() {
        Some(libc::ENODEV) => format!("interface {interface:?}: no such interface; `ip link` lists them"),
        _ => format!("interface {interface:?}: {error}"),
    })?;
    if !link.ethernet {
        return Err(format!("interface {interface:?}: does not carry Ethernet frames; name an Ethernet interface"));
    }
    let fail = |what: &str, error: io::Error| format!("interface {interface:?}: {what}: {error}");
    let socket = packet::open().map_err(|e| fail("packet socket", e))?;
    option::lock_filter(socket.as_fd(), filter).map_err(|e| fail("filter", e))?;
    // The kernel removes VLAN tags from frames and reports them as auxiliary data.
    option::set_int(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_AUXDATA, 1).map_err(|e| fail("VLAN tags", e))?;
    // Allows superframes and partial checksums in both directions.
    option::set_int(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1).map_err(|e| fail("offload", e))?;
    super::buffers(&socket);
    if promiscuous {
        packet::promiscuous(socket.as_fd(), link.index).map_err(|e| fail("promiscuous mode", e))?;
    }
    packet::bind(socket.as_fd(), link.index).map_err(|e| fail("bind", e))?;
    Ok((socket, interface.to_owned(), link.index))
}
