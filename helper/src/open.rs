//! Opens the handles of a plan. Every error is one line for the user that names the value and what would be right.

use std::ffi::OsString;
use std::fs::File;
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
        PortPlan::Raw { interface, promiscuous } => raw(interface, *promiscuous, &[])?,
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
    let master = bridge.or((link.master != 0).then_some(0));
    let change = LinkChange { master, up: true, ..LinkChange::default() };
    netlink.change(link.index, &change).map_err(|e| format!("bringing up interface {name:?}: {e}"))?;
    Ok((tap, name, link.index))
}

/// Gives an interface these addresses and takes other permanent ones away, as a stored TAP may have.
fn give_addresses(netlink: &mut Netlink, index: u32, wanted: &[(IpAddr, u8)]) -> Result<(), String> {
    let list = |netlink: &mut Netlink| netlink.addresses(index).map_err(|e| format!("its addresses: {e}"));
    // The link-local one is the kernel's.
    let goes = |(ip, _): &(IpAddr, u8)| !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    for address in list(netlink)?.into_iter().filter(|address| !wanted.contains(address) && goes(address)) {
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

/// The stored queue and the name of its interface, if that is what the plan asks for.
pub fn same_tap(plan: &PortPlan, tap: OwnedFd) -> Option<(OwnedFd, String)> {
    let PortPlan::Tap { name: wanted, .. } = plan else { return None };
    let (name, _) = tap::identify(tap.as_fd()).ok()?;
    let here = Netlink::open().and_then(|mut netlink| link_of(&mut netlink, tap.as_fd())).is_ok();
    // Whoever has held it meanwhile may have changed this, and the worker must not block.
    fcntl(&tap, FcntlArg::F_SETFL(OFlag::O_NONBLOCK | OFlag::O_RDWR)).ok()?;
    (here && wanted.as_ref().is_none_or(|wanted| *wanted == name)).then_some((tap, name))
}

/// The interface whose queue this is. The queue itself knows its name and MAC address, but not its index; and by the time that
/// a name is looked up, ours may have been moved to another namespace, and the one of that name here be somebody else's.
fn link_of(netlink: &mut Netlink, queue: BorrowedFd<'_>) -> io::Result<Link> {
    // Somebody may just be giving it another address, as udev does.
    for _ in 0..5 {
        let (name, address) = tap::identify(queue)?;
        let link = netlink.link(&name)?;
        if link.address == address {
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
    buffers(&socket);
    if promiscuous {
        packet::promiscuous(socket.as_fd(), link.index).map_err(|e| fail("promiscuous mode", e))?;
    }
    packet::bind(socket.as_fd(), link.index).map_err(|e| fail("bind", e))?;
    Ok((socket, interface.to_owned(), link.index))
}
