//! Opens the handles of a plan. Every error is one line for the user that names the value and what would be right.

use std::ffi::OsString;
use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use privsep::ipc::{Address, BpfInstruction, PathPlan, Plan, PortPlan};
use privsep::netlink::{Link, LinkChange, Netlink};
use privsep::sys::{option, packet, tap};

/// Requested size of socket buffers in bytes, which the kernel doubles for its bookkeeping: for bursts while the worker is not
/// scheduled or is replaced, and no more, because under overload whatever gets through waits behind a full one. Measured in
/// docs/decisions/0009-overload.md.
const BUFFER: usize = 4 << 20;

/// MTU of a new TAP interface in bytes (`ether_setup`).
const DEFAULT_MTU: u32 = 1500;

/// Open handles; kept for the life of the tunnel, so that no interface and no port goes away with a worker.
pub struct Handles {
    /// TAP queue or packet socket.
    pub port: OwnedFd,
    /// Name of the local interface.
    pub interface: String,
    /// Its index.
    pub index: u32,
    /// One UDP socket for each path.
    pub paths: Vec<OwnedFd>,
}

/// Opens everything, in an order that leaves nothing behind when a later part fails: the kernel removes a new TAP interface
/// with its last descriptor, and a stored one stays where it is kept.
pub fn everything(plan: &Plan, stored: Option<(OwnedFd, String)>) -> Result<Handles, String> {
    let paths = plan.paths.iter().map(path).collect::<Result<_, _>>()?;
    let (port, interface, index) = match &plan.port {
        PortPlan::Tap { name, addresses, bridge, interface_mtu } => {
            tap_interface(stored, name.as_deref(), addresses, bridge.as_deref(), *interface_mtu)?
        }
        PortPlan::Raw { interface, promiscuous } => {
            let mark = own_mark();
            let (socket, name, index) = raw(interface, *promiscuous, &all_but_own(mark))?;
            setsockopt(&socket, sockopt::Mark, &mark).map_err(|e| format!("mark of its frames: {}", e.desc()))?;
            (socket, name, index)
        }
        PortPlan::Mirror { interface, filter } => raw(interface, false, filter)?,
    };
    Ok(Handles { port, interface, index, paths })
}

/// A UDP socket, bound, and connected where the remote is fixed.
fn path(plan: &PathPlan) -> Result<OwnedFd, String> {
    let Address(local) = plan.local;
    let family = if local.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let udp = socket(family, SockType::Datagram, flags, None).map_err(|e| format!("UDP socket: {}", e.desc()))?;
    let fail = |what: &str, error: &dyn std::fmt::Display| format!("path from {local}: {what}: {error}");
    if let Some(device) = &plan.device {
        setsockopt(&udp, sockopt::BindToDevice, &OsString::from(device)).map_err(|error| match error {
            nix::Error::ENODEV => format!("device {device:?}: no such interface; `ip link` lists them"),
            error => format!("device {device:?}: {}", error.desc()),
        })?;
    }
    if let Some(mark) = plan.mark {
        setsockopt(&udp, sockopt::Mark, &mark).map_err(|e| fail("mark", &e.desc()))?;
    }
    // The classic wire never sets the don't-fragment bit.
    let (level, name) = if local.is_ipv6() {
        option::set_int(udp.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1).map_err(|e| fail("IPv6 only", &e))?;
        (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER)
    } else {
        (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER)
    };
    option::set_int(udp.as_fd(), level, name, libc::IP_PMTUDISC_DONT).map_err(|e| fail("path MTU", &e))?;
    buffers(&udp);
    if plan.runs {
        // Without it each datagram comes alone, as before.
        let _ = option::set_int(udp.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1);
    }
    // Between bind and connect anybody's datagram would be queued: none is accepted until the remote is fixed.
    option::reject_all(udp.as_fd()).map_err(|e| fail("filter", &e))?;
    bind(udp.as_raw_fd(), &SockaddrStorage::from(local)).map_err(|e| bind_error(local, e))?;
    if let Some(Address(remote)) = plan.remote {
        connect(udp.as_raw_fd(), &SockaddrStorage::from(remote)).map_err(|e| connect_error(local, remote, e))?;
    }
    option::accept_all(udp.as_fd()).map_err(|e| fail("filter", &e))?;
    Ok(udp)
}

fn bind_error(local: SocketAddr, error: nix::Error) -> String {
    let ip = local.ip();
    match error {
        nix::Error::EADDRINUSE => format!(
            "local address {local}: already in use; choose another port (`ss -ulpn 'sport = :{}'` shows by whom)",
            local.port()
        ),
        nix::Error::EADDRNOTAVAIL => format!(
            "local address {ip}: not an address of this host; use one that `ip addr` shows, or {}",
            if ip.is_ipv6() { "::" } else { "0.0.0.0" }
        ),
        nix::Error::EACCES => {
            format!("local port {}: ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher one", local.port())
        }
        error => format!("local address {local}: {}", error.desc()),
    }
}

fn connect_error(local: SocketAddr, remote: SocketAddr, error: nix::Error) -> String {
    match error {
        nix::Error::ENETUNREACH | nix::Error::EHOSTUNREACH => {
            format!("remote address {remote}: no route to it; `ip route get {}` should show one", remote.ip())
        }
        nix::Error::EINVAL => format!("remote address {remote}: cannot be reached from local address {local}"),
        error => format!("remote address {remote}: {}", error.desc()),
    }
}

/// Large buffers, past the system's limit where we may.
fn buffers(socket: &OwnedFd) {
    // A smaller buffer is no reason to fail, so the result of the fallback is not looked at.
    if setsockopt(socket, sockopt::RcvBufForce, &BUFFER).is_err() {
        let _ = setsockopt(socket, sockopt::RcvBuf, &BUFFER);
    }
    if setsockopt(socket, sockopt::SndBufForce, &BUFFER).is_err() {
        let _ = setsockopt(socket, sockopt::SndBuf, &BUFFER);
    }
}

/// Creates a TAP interface, or takes the stored one; gives it addresses and MTU, puts it into its bridge, brings it up.
fn tap_interface(
    stored: Option<(OwnedFd, String)>,
    name: Option<&str>,
    addresses: &[(IpAddr, u8)],
    bridge: Option<&str>,
    mtu: Option<u32>,
) -> Result<(OwnedFd, String, u32), String> {
    let mut netlink = Netlink::open().map_err(|e| format!("netlink socket: {e}"))?;
    let bridge = bridge.map(|name| bridge_index(&mut netlink, name)).transpose()?;
    let (tap, name) = stored.map_or_else(|| create_tap(name.unwrap_or("tap%d")), Ok)?;
    tap::offload(tap.as_fd()).map_err(|e| format!("offload of interface {name:?}: {e}"))?;
    let link = link_of(&mut netlink, tap.as_fd()).map_err(|e| format!("interface {name:?}: {e}"))?;
    let mtu = mtu.unwrap_or(DEFAULT_MTU);
    if link.mtu != mtu {
        let change = LinkChange { mtu: Some(mtu), ..LinkChange::default() };
        netlink.change(link.index, &change).map_err(|e| format!("MTU {mtu} of interface {name:?}: {e}"))?;
    }
    give_addresses(&mut netlink, link.index, addresses).map_err(|e| format!("interface {name:?}: {e}"))?;
    // The address that the kernel adds by itself need not be pending, either. Under a unit that protects the kernel's tunables
    // this cannot be written, and without IPv6 it is not there.
    let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/accept_dad"), "0");
    let change = LinkChange { master: new_master(link.master, bridge), up: true, ..LinkChange::default() };
    netlink.change(link.index, &change).map_err(|e| format!("bringing up interface {name:?}: {e}"))?;
    Ok((tap, name, link.index))
}

/// The bridge to join by its index, 0 for none; `None` where nothing changes. A stored TAP may be in one that it is to leave.
fn new_master(now: u32, bridge: Option<u32>) -> Option<u32> {
    bridge.or((now != 0).then_some(0))
}

/// Whether an address that an interface has is to go, where these are wanted. The link-local one is the kernel's.
fn goes(address: &(IpAddr, u8), wanted: &[(IpAddr, u8)]) -> bool {
    !wanted.contains(address) && !matches!(address.0, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// Gives an interface these addresses and takes other permanent ones away, as a stored TAP may have.
fn give_addresses(netlink: &mut Netlink, index: u32, wanted: &[(IpAddr, u8)]) -> Result<(), String> {
    let list = |netlink: &mut Netlink| netlink.addresses(index).map_err(|e| format!("its addresses: {e}"));
    for address in list(netlink)?.into_iter().filter(|address| goes(address, wanted)) {
        match netlink.remove_address(index, address.0, address.1) {
            // The kernel takes secondary addresses away with their primary one.
            Err(error) if error.raw_os_error() != Some(libc::EADDRNOTAVAIL) => {
                return Err(format!("address {}/{}: {error}", address.0, address.1));
            }
            _ => {}
        }
    }
    let present = list(netlink)?;
    for &(address, prefix) in wanted.iter().filter(|address| !present.contains(address)) {
        netlink.add_address(index, address, prefix).map_err(|e| format!("address {address}/{prefix}: {e}"))?;
    }
    Ok(())
}

/// The stored queue and the name of its interface, if that is what the plan asks for. One that is only made otherwise, by another
/// version, goes with its interface: whoever keeps it may let it go later than the new one is made.
pub fn same_tap(plan: &PortPlan, tap: OwnedFd) -> Option<(OwnedFd, String)> {
    let PortPlan::Tap { name: wanted, .. } = plan else { return None };
    let queue = tap::identify(tap.as_fd()).ok()?;
    let mut netlink = Netlink::open().ok()?;
    let link = link_of(&mut netlink, tap.as_fd()).ok()?;
    if wanted.as_ref().is_some_and(|wanted| *wanted != queue.name) {
        return None;
    }
    if !queue.ours {
        // What cannot be removed shows when the new one is made.
        let _ = netlink.remove(link.index);
        return None;
    }
    // Whoever has held it meanwhile may have changed this, and the worker must not block.
    fcntl(&tap, FcntlArg::F_SETFL(OFlag::O_NONBLOCK | OFlag::O_RDWR)).ok()?;
    Some((tap, queue.name))
}

/// The interface whose queue this is. The queue itself knows its name and MAC address, but not its index; and by the time that
/// a name is looked up, ours may have been moved to another namespace, and the one of that name here be somebody else's.
fn link_of(netlink: &mut Netlink, queue: BorrowedFd<'_>) -> io::Result<Link> {
    // Somebody may just be giving it another address, as udev does.
    for _ in 0..5 {
        let queue = tap::identify(queue)?;
        let link = netlink.link(&queue.name)?;
        if link.address == queue.address {
            return Ok(link);
        }
    }
    Err(io::Error::other("is not the one that was made; has it been moved or replaced meanwhile?"))
}

fn bridge_index(netlink: &mut Netlink, name: &str) -> Result<u32, String> {
    match netlink.link(name) {
        Ok(link) if link.kind == "bridge" => Ok(link.index),
        Ok(_) => Err(format!("bridge {name:?}: this interface is not a bridge; `ip link show type bridge` lists them")),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
            Err(format!("bridge {name:?}: no such interface; create it with `ip link add {name} type bridge`"))
        }
        Err(error) => Err(format!("bridge {name:?}: {error}")),
    }
}

fn create_tap(name: &str) -> Result<(OwnedFd, String), String> {
    const DEVICE: &str = "/dev/net/tun";
    let open = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(DEVICE);
    let device = open.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("{DEVICE}: not there; load the kernel module with `modprobe tun`"),
        _ if error.raw_os_error() == Some(libc::ENODEV) => {
            format!("{DEVICE}: the kernel has no TUN/TAP support; load the kernel module with `modprobe tun`")
        }
        _ => format!("{DEVICE}: {error}"),
    })?;
    tap::create(device, name).map_err(|error| match error.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST | libc::EINVAL) => {
            format!("interface {name:?}: exists already; choose another name or delete it")
        }
        Some(libc::EPERM) => format!("interface {name:?}: creating it needs CAP_NET_ADMIN"),
        _ => format!("interface {name:?}: {error}"),
    })
}

/// A mark that nobody else's frames have, most likely: a socket hears nothing of what it sends, but for superframes that the
/// kernel has cut, of which it no longer knows who sent them. The mark is on each part.
fn own_mark() -> u32 {
    let random = RandomState::new().build_hasher().finish();
    u32::try_from(random >> 32).unwrap_or(u32::MAX) | 1 << 31
}

/// A program of classic BPF (`linux/filter.h`) that takes everything but outgoing frames with this mark.
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

/// A packet socket on an Ethernet interface. Bound last: a passed socket must not hear before all else is set.
fn raw(interface: &str, promiscuous: bool, filter: &[BpfInstruction]) -> Result<(OwnedFd, String, u32), String> {
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
    // The kernel takes VLAN tags out of frames, and then reports them.
    option::set_int(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_AUXDATA, 1).map_err(|e| fail("VLAN tags", e))?;
    // Superframes come and go as one, and checksums may be left to others.
    option::set_int(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1).map_err(|e| fail("offload", e))?;
    buffers(&socket);
    if promiscuous {
        packet::promiscuous(socket.as_fd(), link.index).map_err(|e| fail("promiscuous mode", e))?;
    }
    packet::bind(socket.as_fd(), link.index).map_err(|e| fail("bind", e))?;
    Ok((socket, interface.to_owned(), link.index))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(local: &str, remote: Option<SocketAddr>) -> PathPlan {
        PathPlan {
            local: Address(local.parse().unwrap()),
            remote: remote.map(Address),
            device: None,
            mark: None,
            runs: false,
        }
    }

    fn int(socket: &OwnedFd, level: i32, name: i32) -> i32 {
        option::int(socket.as_fd(), level, name).unwrap()
    }

    /// A plan whose port cannot be opened by anybody.
    fn without_port(paths: Vec<PathPlan>) -> Plan {
        let port = PortPlan::Raw { interface: "lo".into(), promiscuous: false };
        Plan { become_user: None, port, paths, stored: false, store: false }
    }

    #[test]
    fn a_path_is_bound_and_connected_as_planned_and_may_be_fragmented() {
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for (remote, connected) in [(Some(peer), Ok(peer)), (None, Err(Some(libc::ENOTCONN)))] {
            let udp = path(&plan("127.0.0.1:0", remote)).unwrap();
            let fragments = int(&udp, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER);
            assert_eq!(fragments, libc::IP_PMTUDISC_DONT);
            let plain = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into();
            for buffer in [libc::SO_RCVBUF, libc::SO_SNDBUF] {
                assert!(int(&udp, libc::SOL_SOCKET, buffer) > int(&plain, libc::SOL_SOCKET, buffer));
            }
            let flags = OFlag::from_bits_retain(fcntl(&udp, FcntlArg::F_GETFL).unwrap());
            assert!(flags.contains(OFlag::O_NONBLOCK), "a worker would block");
            let udp = std::net::UdpSocket::from(udp);
            assert_eq!(udp.local_addr().unwrap().ip(), peer.ip());
            assert_eq!(udp.peer_addr().map_err(|error| error.raw_os_error()), connected);
        }
    }

    #[test]
    fn an_ipv6_path_hears_no_ipv4() {
        let udp = path(&plan("[::]:0", None)).unwrap();
        assert_eq!(int(&udp, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY), 1);
        assert_eq!(int(&udp, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER), libc::IP_PMTUDISC_DONT);
    }

    #[test]
    fn paths_come_first_in_their_order_so_that_nothing_is_made_for_one_that_cannot_be() {
        let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let here = taken.local_addr().unwrap();
        let device = PathPlan { device: Some("no-such-device".into()), ..plan("127.0.0.1:0", None) };
        let fails = |paths: Vec<PathPlan>| everything(&without_port(paths), None).map(|_| ()).unwrap_err();
        let busy = plan(&here.to_string(), None);
        assert!(
            fails(vec![busy.clone(), device.clone()]).starts_with(&format!("local address {here}: already in use"))
        );
        assert!(fails(vec![device, busy]).starts_with("device \"no-such-device\": no such interface"));
        let port = fails(vec![plan("127.0.0.1:0", None)]);
        assert_eq!(port, "interface \"lo\": does not carry Ethernet frames; name an Ethernet interface");
    }

    #[test]
    fn what_the_kernel_says_is_told_with_the_value_and_what_would_be_right() {
        let (v4, v6): (SocketAddr, SocketAddr) = ("192.0.2.1:80".parse().unwrap(), "[fd00::1]:80".parse().unwrap());
        for (text, words) in [
            (
                bind_error(v6, nix::Error::EADDRNOTAVAIL),
                "fd00::1: not an address of this host; use one that `ip addr` shows, or ::",
            ),
            (
                bind_error(v4, nix::Error::EACCES),
                "local port 80: ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher one",
            ),
            (bind_error(v4, nix::Error::ENOBUFS), "local address 192.0.2.1:80: No buffer space available"),
            (
                connect_error(v4, v6, nix::Error::EINVAL),
                "[fd00::1]:80: cannot be reached from local address 192.0.2.1:80",
            ),
            (connect_error(v4, v6, nix::Error::EPERM), "remote address [fd00::1]:80: Operation not permitted"),
        ] {
            assert!(text.ends_with(words) && !text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn a_stored_tap_leaves_a_bridge_that_is_not_planned_and_a_new_one_stays_without() {
        for (now, bridge, change) in [(0, None, None), (7, None, Some(0)), (0, Some(9), Some(9)), (7, Some(9), Some(9))]
        {
            assert_eq!(new_master(now, bridge), change, "{now} to {bridge:?}");
        }
    }

    #[test]
    fn addresses_go_that_are_not_planned_but_for_the_kernels_own() {
        let address = |text: &str, prefix| (text.parse::<IpAddr>().unwrap(), prefix);
        let wanted = [address("10.8.0.1", 24), address("fd00::1", 64)];
        for (present, expected) in [
            (address("10.8.0.1", 24), false),
            (address("10.8.0.1", 16), true),
            (address("10.8.0.2", 24), true),
            (address("fd00::1", 64), false),
            (address("fd00::2", 64), true),
            (address("fe80::1", 64), false),
            (address("169.254.0.1", 16), true),
        ] {
            assert_eq!(goes(&present, &wanted), expected, "{present:?}");
        }
    }

    #[test]
    fn what_is_no_tap_or_not_asked_for_is_not_taken_as_the_stored_one() {
        let (one, other) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let tap = PortPlan::Tap { name: None, addresses: Vec::new(), bridge: None, interface_mtu: None };
        assert!(same_tap(&tap, one.into()).is_none());
        assert!(same_tap(&without_port(Vec::new()).port, other.into()).is_none());
    }
}
