//! Creates the TAP interface of a tunnel, or takes the stored one.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use privsep::ipc::{PortPlan, TapPlan};
use privsep::netlink::{Link, LinkChange, Netlink};
use privsep::sys::tap;

/// MTU of a new TAP interface in bytes (`ether_setup`).
const DEFAULT_MTU: u32 = 1500;
/// Greatest MTU in bytes that a worker supports (docs/FILE.md).
const LARGEST_MTU: u32 = 9216;

/// Creates a TAP interface with the MAC address of the plan, or keeps the stored one with its own. Sets addresses, MTU and bridge,
/// and brings the interface up.
pub fn open(stored: Option<(OwnedFd, String)>, plan: &TapPlan) -> Result<(OwnedFd, String, u32), String> {
    let mut netlink = Netlink::open().map_err(|e| format!("netlink socket: {e}"))?;
    let bridge = plan.bridge.as_deref().map(|name| find_bridge(&mut netlink, name)).transpose()?;
    let is_stored = stored.is_some();
    // Neighbours know the MAC address of a stored TAP.
    let mac = plan.mac.filter(|_| !is_stored);
    let (tap, name) = stored.map_or_else(|| create_tap(plan.name.as_deref().unwrap_or("tap%d")), Ok)?;
    // A new TAP has a carrier. A stored one may lack it, and keeps what it has where the carrier follows the paths.
    match (plan.follow, is_stored) {
        (true, false) => {
            tap::set_carrier(tap.as_fd(), false).map_err(|e| format!("carrier of interface {name:?}: {e}"))?;
        }
        // A kernel that cannot set the carrier has not cleared it.
        (false, true) => drop(tap::set_carrier(tap.as_fd(), true)),
        _ => {}
    }
    tap::offload(tap.as_fd()).map_err(|e| format!("offload of interface {name:?}: {e}"))?;
    let link = link_of(&mut netlink, tap.as_fd()).map_err(|e| format!("interface {name:?}: {e}"))?;
    let mtu = plan.interface_mtu.unwrap_or_else(|| default_mtu(link.mtu, bridge.as_ref().map(|bridge| bridge.mtu)));
    let change = LinkChange { mtu: Some(mtu), address: mac, ..LinkChange::default() };
    netlink.change(link.index, &change).map_err(|e| format!("MTU {mtu} of interface {name:?}: {e}"))?;
    netlink.set_addresses(link.index, &plan.addresses).map_err(|e| format!("interface {name:?}: {e}"))?;
    // The kernel's own link-local address needs no duplicate address detection, and all addresses stay when the interface goes
    // down. The write fails without IPv6, or under a unit that protects the kernel's tunables; the tunnel works without it.
    for (variable, value) in [("accept_dad", "0"), ("keep_addr_on_down", "1")] {
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/{variable}"), value);
    }
    let bridge = bridge.map(|bridge| bridge.index);
    let change = LinkChange { master: new_master(link.master, bridge), ..LinkChange::default() };
    netlink.change(link.index, &change).map_err(|e| format!("bridge of interface {name:?}: {e}"))?;
    if bridge.is_some() {
        let change = LinkChange { groups: Some(plan.groups), ..LinkChange::default() };
        let fails =
            |error| format!("tap.pass-link-local of interface {name:?}: bridge refuses {:#x}: {error}", plan.groups);
        netlink.change(link.index, &change).map_err(fails)?;
    }
    let change = LinkChange { up: true, ..LinkChange::default() };
    netlink.change(link.index, &change).map_err(|e| format!("bringing up interface {name:?}: {e}"))?;
    Ok((tap, name, link.index))
}

/// MTU of a TAP without a configured one, given its present MTU. A bridge takes the lowest MTU of its ports, and drops longer
/// frames silently. A stored TAP may itself have lowered the bridge's MTU before a port with a greater one joined.
fn default_mtu(now: u32, bridge: Option<u32>) -> u32 {
    bridge.map_or(DEFAULT_MTU, |bridge| bridge.max(now).clamp(DEFAULT_MTU, LARGEST_MTU))
}

/// Index of the bridge to join, 0 to leave a bridge, `None` for no change. A stored TAP may have to leave its bridge.
fn new_master(now: u32, bridge: Option<u32>) -> Option<u32> {
    bridge.or((now != 0).then_some(0))
}

/// The stored queue and its interface name, if they match the plan. A TAP with the right name but other settings, as from another
/// version, is removed: the service manager may close its copy only after the new TAP is created.
pub fn same_tap(plan: &PortPlan, tap: OwnedFd) -> Option<(OwnedFd, String)> {
    let PortPlan::Tap(TapPlan { name: wanted, .. }) = plan else { return None };
    let queue = tap::identify(tap.as_fd()).ok()?;
    let mut netlink = Netlink::open().ok()?;
    let link = link_of(&mut netlink, tap.as_fd()).ok()?;
    if wanted.as_ref().is_some_and(|wanted| *wanted != queue.name) {
        return None;
    }
    if !queue.ours || !link.ethernet || tap::reset(tap.as_fd()).is_err() {
        // If the removal fails, creating the new TAP reports the error.
        let _ = netlink.remove(link.index);
        return None;
    }
    // A process that held the queue may have changed its flags, and the worker must not block.
    fcntl(&tap, FcntlArg::F_SETFL(OFlag::O_NONBLOCK | OFlag::O_RDWR)).ok()?;
    Some((tap, queue.name))
}

/// Interface of a queue. A queue knows its name and MAC address but not its index. By the time a name is looked up, the TAP may
/// have moved to another namespace, and another interface may have the name.
fn link_of(netlink: &mut Netlink, queue: BorrowedFd<'_>) -> io::Result<Link> {
    // Another program, such as udev, may be changing the MAC address at this moment.
    for _ in 0..5 {
        let queue = tap::identify(queue)?;
        let link = netlink.link(&queue.name)?;
        if link.address == queue.address {
            return Ok(link);
        }
    }
    Err(io::Error::other("moved or replaced while it was set up; start the tunnel again"))
}

fn find_bridge(netlink: &mut Netlink, name: &str) -> Result<Link, String> {
    match netlink.link(name) {
        Ok(link) if link.kind == "bridge" => Ok(link),
        Ok(_) => Err(format!("bridge {name:?}: not a bridge; `ip link show type bridge` lists bridges")),
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
        io::ErrorKind::NotFound => format!("{DEVICE}: does not exist; load the kernel module with `modprobe tun`"),
        _ if error.raw_os_error() == Some(libc::ENODEV) => {
            format!("{DEVICE}: no TUN/TAP support in the kernel; load the kernel module with `modprobe tun`")
        }
        _ => format!("{DEVICE}: {error}"),
    })?;
    tap::create(device, name).map_err(|error| match error.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST | libc::EINVAL) => {
            format!(
                "interface {name:?}: already exists; choose another name (tap.name, -dev), or delete it with `ip link \
                     del {name}`"
            )
        }
        Some(libc::EPERM) => format!("interface {name:?}: not created: needs CAP_NET_ADMIN"),
        _ => format!("interface {name:?}: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_tap_leaves_unplanned_bridge() {
        for (now, bridge, change) in [(0, None, None), (7, None, Some(0)), (0, Some(9), Some(9)), (7, Some(9), Some(9))]
        {
            assert_eq!(new_master(now, bridge), change, "{now} to {bridge:?}");
        }
    }

    #[test]
    fn tap_takes_mtu_of_its_bridge() {
        for (now, bridge, mtu) in [
            (1400, None, 1500),
            (1500, Some(1500), 1500),
            (1500, Some(1280), 1500),
            (1500, Some(9000), 9000),
            (9000, Some(1500), 9000),
            (1422, Some(1422), 1500),
            (1500, Some(65_535), 9216),
        ] {
            assert_eq!(default_mtu(now, bridge), mtu, "{now} in {bridge:?}");
        }
    }

    #[test]
    fn foreign_stored_tap_is_refused() {
        let (one, other) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let tap = PortPlan::Tap(TapPlan::default());
        assert!(same_tap(&tap, one.into()).is_none());
        let raw = PortPlan::Raw { interface: "lo".into(), promiscuous: false };
        assert!(same_tap(&raw, other.into()).is_none());
    }
}
