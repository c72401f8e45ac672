//! Watch over the local interface, its addresses and its bridge (rtnetlink(7)).
//!
//! The sockets are opened in the host's network namespace and stay in it when the supervisor leaves.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};
use privsep::netlink::{GROUP_FWD_MASK, IFINFO, Link, Netlink, Request, attributes};
use privsep::sys::option::lock_filter;

use super::news::{News, filter, news};
use crate::tunnel::{Port, bounds, link_local};

/// Multicast groups of messages about interfaces and addresses (`RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV6_IFADDR` of
/// `linux/rtnetlink.h`).
const LINKS: u32 = 1;
const ADDRESSES: u32 = 0x110;
/// Length of a `struct ifaddrmsg`.
const IFADDR: usize = 8;

/// Watches one interface, the addresses it should have, and the bridge that it belongs to.
pub struct LinkWatch {
    socket: OwnedFd,
    /// Socket for requests.
    query: Netlink,
    /// Interface at the last look.
    link: Link,
    expected: Expected,
    /// Name of the bridge, and its index at the last look.
    bridge: Option<(String, u32)>,
    moved: bool,
    trouble: Option<Trouble>,
}

/// Expected properties of the interface.
#[derive(Debug, Default)]
pub struct Expected {
    /// Addresses with prefix length.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Name of the bridge.
    pub bridge: Option<String>,
    /// Link-local groups that the bridge forwards.
    pub groups: u16,
    /// Whether the interface may be moved to another namespace. A TAP works in any.
    pub movable: bool,
    /// Whether the interface may lack a carrier.
    pub carrierless: bool,
}

impl Expected {
    /// Expected properties of a tunnel's local side.
    pub fn of(port: &Port) -> Self {
        match port {
            Port::Tap { addresses, bridge, groups, follow, .. } => Self {
                addresses: addresses.clone(),
                bridge: bridge.clone(),
                groups: *groups,
                movable: true,
                carrierless: *follow,
            },
            Port::Raw { .. } | Port::Mirror { .. } => Self::default(),
        }
    }
}

/// Change of the interface.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    Same,
    /// See [`LinkWatch::trouble`].
    Changed,
    Gone,
}

/// Fault of the local side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Interface or bridge of this name is down.
    Down(String),
    /// The interface has no carrier.
    NoCarrier(String),
    /// The bridge has been removed.
    NoBridge { interface: String, bridge: String },
    /// The bridge exists, but the interface is not in it.
    OutOfBridge { interface: String, bridge: String },
    /// The interface lacks an address, which has a prefix length here.
    NoAddress { interface: String, address: (IpAddr, u8) },
    /// The other ports of the bridge carry longer frames.
    LowMtu { interface: String, mtu: u32, bridge: String, others: u32 },
    /// The bridge drops frames of these link-local groups from its other ports, of which this is the first.
    DropsGroups { bridge: String, port: String, groups: u16 },
}

impl Trouble {
    /// Whether the local side does not work. Otherwise it carries less than it should.
    pub fn is_down(&self) -> bool {
        !matches!(self, Self::LowMtu { .. } | Self::DropsGroups { .. })
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down(name) => write!(f, "interface {name:?} is down: run `ip link set dev {name} up`"),
            Self::NoCarrier(name) => write!(
                f,
                "interface {name:?} has no carrier: check its cable and the device at the \
                                                other end"
            ),
            Self::NoBridge { interface, bridge } => {
                let join = format!("ip link set dev {interface} master {bridge}");
                write!(f, "bridge {bridge:?} is gone: create it again, then run `{join}`")
            }
            Self::OutOfBridge { interface, bridge } => {
                let join = format!("ip link set dev {interface} master {bridge}");
                write!(f, "interface {interface:?} left bridge {bridge:?}: run `{join}`")
            }
            Self::NoAddress { interface, address: (address, prefix) } => write!(
                f,
                "address {address}/{prefix} is missing on interface {interface:?}: run `ip addr add {address}/{prefix} \
                 dev {interface}`"
            ),
            Self::LowMtu { interface, mtu, bridge, others } => write!(
                f,
                "MTU {mtu} of interface {interface:?} is less than MTU {others} of the other ports of bridge {bridge:?}, \
                 which silently drops longer frames: run `ip link set dev {interface} mtu {others}` and remove tap.mtu \
                 from the file"
            ),
            Self::DropsGroups { bridge, port, groups } => write!(
                f,
                "bridge {bridge:?} drops frames of tap.pass-link-local ({}) from its other ports: run `ip link set dev \
                 {port} type bridge_slave group_fwd_mask {groups:#x}`",
                link_local::names(*groups)
            ),
        }
    }
}

impl LinkWatch {
    /// Starts to watch the interface of this index.
    ///
    /// # Errors
    /// `NotFound` when the interface has already been removed.
    pub fn new(index: u32, expected: Expected) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        // Attached before the socket is bound, so that no message bypasses it. Nothing can be attached once privileges are dropped.
        lock_filter(socket.as_fd(), &filter(index, expected.bridge.is_some()))?;
        let groups = if expected.addresses.is_empty() { LINKS } else { LINKS | ADDRESSES };
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        let mut query = Netlink::open()?;
        let link = link_at(&mut query, index).map_err(|error| match error.raw_os_error() {
            Some(libc::ENODEV) => io::ErrorKind::NotFound.into(),
            _ => error,
        })?;
        let bridge = expected.bridge.clone().map(|bridge| (bridge, 0));
        let mut watch = Self { socket, query, link, expected, bridge, moved: false, trouble: None };
        match watch.look() {
            Fate::Gone => Err(io::ErrorKind::NotFound.into()),
            Fate::Same | Fate::Changed => Ok(watch),
        }
    }

    /// Reads pending messages and returns the change of the interface.
    pub fn take(&mut self) -> Fate {
        let mut buffer = vec![0; 32 << 10];
        let mut changed = false;
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => match news(&buffer[..length], self.link.index, self.bridge.as_ref()) {
                    News::None => {}
                    News::Changed => changed = true,
                    News::Moved if self.expected.movable => self.moved = true,
                    News::Moved | News::Removed if self.moved => {}
                    News::Moved | News::Removed => return Fate::Gone,
                },
                // Messages were lost, perhaps a relevant one.
                Err(Errno::ENOBUFS) => changed = true,
                Err(_) if changed || self.moved => return self.look(),
                Err(_) => return Fate::Same,
            }
        }
    }

    /// Fault of the local side, if any.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// Interface at the last look.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Whether the interface had a carrier at the last look.
    pub fn has_carrier(&self) -> bool {
        has(self.link.flags, libc::IFF_LOWER_UP)
    }

    /// Index of the interface with this name now, in the host's network namespace.
    pub fn index_of(&mut self, name: &str) -> io::Result<Option<u32>> {
        match self.query.link(name) {
            Ok(link) => Ok(Some(link.index)),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All addresses of the host.
    pub fn all_addresses(&mut self) -> io::Result<HashSet<IpAddr>> {
        let mut request = Request::new(libc::RTM_GETADDR, libc::NLM_F_DUMP);
        request.extend(&[0; IFADDR]);
        Ok(self.query.dump(request, libc::RTM_NEWADDR, address)?.into_iter().collect())
    }

    /// Reads the state of interface and bridge from the kernel.
    fn look(&mut self) -> Fate {
        // In another namespace the interface cannot be read.
        let trouble = if self.moved { Ok(None) } else { self.ask() };
        match trouble {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Fate::Gone,
            Ok(trouble) if trouble != self.trouble => {
                self.trouble = trouble;
                Fate::Changed
            }
            _ => Fate::Same,
        }
    }

    fn ask(&mut self) -> io::Result<Option<Trouble>> {
        self.link = link_at(&mut self.query, self.link.index)?;
        let interface = self.link.name.clone();
        if !has(self.link.flags, libc::IFF_UP) {
            return Ok(Some(Trouble::Down(interface)));
        }
        if !self.has_carrier() && !self.expected.carrierless {
            return Ok(Some(Trouble::NoCarrier(interface)));
        }
        match self.ask_bridge()? {
            Some(trouble) if trouble.is_down() => Ok(Some(trouble)),
            trouble => Ok(self.missing_address()?.or(trouble)),
        }
    }

    /// First expected address that the interface lacks.
    fn missing_address(&mut self) -> io::Result<Option<Trouble>> {
        if self.expected.addresses.is_empty() {
            return Ok(None);
        }
        let present = self.query.addresses(self.link.index)?;
        let missing = self.expected.addresses.iter().find(|address| !present.contains(address));
        Ok(missing.map(|&address| Trouble::NoAddress { interface: self.link.name.clone(), address }))
    }

    fn ask_bridge(&mut self) -> io::Result<Option<Trouble>> {
        let Some((name, index)) = &mut self.bridge else { return Ok(None) };
        let (interface, mtu) = (self.link.name.clone(), self.link.mtu);
        // The bridge of the interface may have a new name.
        let found = if self.link.master == *index && *index != 0 {
            link_at(&mut self.query, *index)
        } else {
            self.query.link(name)
        };
        let found = match found {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
                return Ok(Some(Trouble::NoBridge { interface, bridge: name.clone() }));
            }
            found => found?,
        };
        (*name, *index) = (found.name.clone(), found.index);
        let bridge = found.name;
        if self.link.master != found.index {
            return Ok(Some(Trouble::OutOfBridge { interface, bridge }));
        }
        if !has(found.flags, libc::IFF_UP) {
            return Ok(Some(Trouble::Down(bridge)));
        }
        let mut ports = ports(&mut self.query, found.index)?;
        ports.retain(|(port, _)| port.index != self.link.index);
        let others = ports.iter().map(|(port, _)| u64::from(port.mtu)).min();
        let others = others.map(|mtu| mtu.min(*bounds::INTERFACE_MTU.end())).and_then(|mtu| u32::try_from(mtu).ok());
        if let Some(others) = others.filter(|&others| others > mtu) {
            return Ok(Some(Trouble::LowMtu { interface, mtu, bridge, others }));
        }
        let groups = self.expected.groups;
        let by_bridge = if groups == 0 { 0 } else { groups_of_bridge(&mut self.query, found.index)? };
        let pass = ports.iter().any(|(_, passed)| groups & !(passed | by_bridge) == 0);
        let first = ports.first().filter(|_| !pass);
        Ok(first.map(|(port, passed)| Trouble::DropsGroups {
            bridge,
            port: port.name.clone(),
            groups: groups | passed,
        }))
    }
}

/// Looks up an interface by index.
///
/// # Errors
/// `ENODEV` when no interface has that index.
pub fn link_at(netlink: &mut Netlink, index: u32) -> io::Result<Link> {
    Link::parse(&netlink.transact(request_at(index), libc::RTM_NEWLINK)?)
}

fn request_at(index: u32) -> Request {
    let mut request = Request::new(libc::RTM_GETLINK, 0);
    request.extend(&[[0; 4], index.to_ne_bytes(), [0; 4], [0; 4]].concat());
    request
}

/// Address of an `RTM_NEWADDR`; the local one, if the interface has a peer address.
fn address(payload: &[u8]) -> Option<IpAddr> {
    let all = payload.get(IFADDR..)?;
    let of = |wanted| attributes(all).find(|(name, _)| *name == wanted).map(|(_, value)| value);
    let value = of(libc::IFA_LOCAL).or_else(|| of(libc::IFA_ADDRESS))?;
    let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
}

/// Ports of a bridge, and the link-local groups that each passes.
fn ports(netlink: &mut Netlink, bridge: u32) -> io::Result<Vec<(Link, u16)>> {
    let mut request = Request::new(libc::RTM_GETLINK, libc::NLM_F_DUMP);
    request.extend(&[0; IFINFO]);
    request.attribute(libc::IFLA_MASTER, &bridge.to_ne_bytes());
    let port = |payload: &[u8]| {
        let link = Link::parse(payload).ok().filter(|link| link.master == bridge)?;
        let groups =
            nested(payload, libc::IFLA_INFO_SLAVE_DATA, GROUP_FWD_MASK).and_then(|groups| groups.first_chunk());
        Some((link, groups.map_or(0, |groups| u16::from_ne_bytes(*groups))))
    };
    netlink.dump(request, libc::RTM_NEWLINK, port)
}

/// Link-local groups that a bridge passes from every port. Without the spanning tree protocol it passes the group of that protocol.
fn groups_of_bridge(netlink: &mut Netlink, bridge: u32) -> io::Result<u16> {
    /// `IFLA_BR_STP_STATE` and `IFLA_BR_GROUP_FWD_MASK` of `linux/if_link.h`.
    const STP_STATE: u16 = 5;
    const GROUP_FWD_MASK: u16 = 9;
    let payload = netlink.transact(request_at(bridge), libc::RTM_NEWLINK)?;
    let of = |wanted| nested(&payload, libc::IFLA_INFO_DATA, wanted);
    let stp = of(STP_STATE).is_some_and(|state| state.iter().any(|byte| *byte != 0));
    let groups = of(GROUP_FWD_MASK).and_then(|groups| groups.first_chunk());
    Ok(groups.map_or(0, |groups| u16::from_ne_bytes(*groups)) | u16::from(!stp))
}

/// Attribute of a bridge, or of a bridge port, in an `RTM_NEWLINK`.
fn nested(payload: &[u8], data: u16, wanted: u16) -> Option<&[u8]> {
    let inner = |outer, wanted| attributes(outer).find(|(name, _)| *name == wanted).map(|(_, value)| value);
    [libc::IFLA_LINKINFO, data, wanted].into_iter().try_fold(payload.get(IFINFO..)?, inner)
}

fn has(flags: u32, flag: i32) -> bool {
    flags & flag.cast_unsigned() != 0
}

impl AsFd for LinkWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_is_found_by_index() {
        let mut netlink = Netlink::open().unwrap();
        assert_eq!(link_at(&mut netlink, 1).unwrap().name, "lo");
        assert!(ports(&mut netlink, 1).unwrap().is_empty());
        let mut watch = LinkWatch::new(1, Expected::default()).unwrap();
        assert!(watch.all_addresses().unwrap().contains(&IpAddr::from([127, 0, 0, 1])));
        assert_eq!(address(&[0; IFADDR - 1]).or(address(&[0; IFADDR])), None);
    }

    #[test]
    fn absent_interface_is_not_watched() {
        let lo = LinkWatch::new(1, Expected::default());
        assert!(lo.is_ok_and(|mut watch| watch.take() == Fate::Same && watch.link().name == "lo"));
        let none = LinkWatch::new(u32::MAX >> 1, Expected::default());
        assert_eq!(none.err().unwrap().kind(), io::ErrorKind::NotFound);
    }
}
