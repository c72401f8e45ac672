//! The rtnetlink(7) requests for interfaces: query, change, and parse notifications.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// Length of a `struct nlmsghdr` in bytes: length, type, flags, sequence, port id.
const HEADER: usize = 16;
/// Length of a `struct ifinfomsg` in bytes: family, padding, type, index, flags, change mask.
pub const IFINFO: usize = 16;
/// Length of a `struct ifaddrmsg` in bytes: family, prefix length, flags, scope, index.
const IFADDR: usize = 8;
/// Attribute of a bridge port: link-local groups to forward (`IFLA_BRPORT_GROUP_FWD_MASK` of `linux/if_link.h`).
pub const GROUP_FWD_MASK: u16 = 31;
/// Tries to get a list that does not change meanwhile.
const TRIES: usize = 5;

/// Properties of an interface.
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// Kind of a virtual interface ("bridge"), empty for others.
    pub kind: String,
    /// Whether it is an Ethernet interface. Loopback is not one: it returns every frame that is sent.
    pub ethernet: bool,
    /// MAC address.
    pub address: Vec<u8>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Index of its bridge, 0 for none.
    pub master: u32,
    /// Flags such as `IFF_UP` (netdevice(7)).
    pub flags: u32,
}

impl Link {
    /// Parses the payload of an `RTM_NEWLINK`.
    ///
    /// # Errors
    /// `InvalidData` if the payload is too short.
    pub fn parse(reply: &[u8]) -> io::Result<Self> {
        let (info, all) = reply.split_at_checked(IFINFO).ok_or(io::ErrorKind::InvalidData)?;
        let attribute = |wanted| attributes(all).find(|(name, _)| *name == wanted).map(|(_, value)| value);
        let text = |value: &[u8]| String::from_utf8_lossy(value).trim_end_matches('\0').to_owned();
        let kind = attribute(libc::IFLA_LINKINFO)
            .and_then(|nested| attributes(nested).find(|(name, _)| *name == libc::IFLA_INFO_KIND))
            .map(|(_, kind)| text(kind));
        Ok(Self {
            index: number(&info[4..]),
            name: attribute(libc::IFLA_IFNAME).map(text).unwrap_or_default(),
            kind: kind.unwrap_or_default(),
            ethernet: u16::from_ne_bytes([info[2], info[3]]) == libc::ARPHRD_ETHER,
            address: attribute(libc::IFLA_ADDRESS).unwrap_or_default().to_vec(),
            mtu: attribute(libc::IFLA_MTU).map_or(0, number),
            master: attribute(libc::IFLA_MASTER).map_or(0, number),
            flags: number(&info[8..]),
        })
    }
}

/// Changes to an interface.
#[derive(Default)]
pub struct LinkChange {
    /// MTU in bytes.
    pub mtu: Option<u32>,
    /// MAC address.
    pub address: Option<[u8; 6]>,
    /// Index of the bridge to join, 0 for none.
    pub master: Option<u32>,
    /// Link-local groups that the bridge of the interface forwards from it ([`crate::ipc::TapPlan`]).
    pub groups: Option<u16>,
    /// Whether to bring the interface up.
    pub up: bool,
}

/// A route netlink socket.
pub struct Netlink {
    socket: OwnedFd,
    buffer: Vec<u8>,
    /// Sequence number of the last request, repeated in its replies.
    sequence: u32,
}

impl Netlink {
    /// Opens the socket. Queries need no capability; changes need `CAP_NET_ADMIN`.
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        // A reply about one interface has a few kilobytes; libmnl advises 32 KiB for any reply.
        Ok(Self { socket, buffer: vec![0; 32 << 10], sequence: 0 })
    }

    /// Looks up an interface by name.
    ///
    /// # Errors
    /// `ENODEV` if no interface has this name.
    pub fn link(&mut self, name: &str) -> io::Result<Link> {
        let mut request = Request::new(libc::RTM_GETLINK, 0);
        request.extend(&[0; IFINFO]);
        request.attribute(libc::IFLA_IFNAME, &[name.as_bytes(), &[0]].concat());
        Link::parse(&self.transact(request, libc::RTM_NEWLINK)?)
    }

    /// Changes an interface.
    pub fn change(&mut self, index: u32, change: &LinkChange) -> io::Result<()> {
        let up = if change.up { libc::IFF_UP.cast_unsigned() } else { 0 };
        let mut request = Request::new(libc::RTM_NEWLINK, libc::NLM_F_ACK);
        request.extend(&[0; 4]);
        for field in [index, up, up] {
            request.extend(&field.to_ne_bytes());
        }
        for (name, value) in [(libc::IFLA_MTU, change.mtu), (libc::IFLA_MASTER, change.master)] {
            if let Some(value) = value {
                request.attribute(name, &value.to_ne_bytes());
            }
        }
        if let Some(address) = change.address {
            request.attribute(libc::IFLA_ADDRESS, &address);
        }
        if let Some(groups) = change.groups {
            let (mut data, mut info) = (Request(Vec::new()), Request(Vec::new()));
            data.attribute(GROUP_FWD_MASK, &groups.to_ne_bytes());
            info.attribute(libc::IFLA_INFO_SLAVE_KIND, b"bridge\0");
            info.attribute(libc::IFLA_INFO_SLAVE_DATA, &data.0);
            request.attribute(libc::IFLA_LINKINFO, &info.0);
        }
        self.transact(request, 0).map(drop)
    }

    /// Removes a virtual interface.
    pub fn remove(&mut self, index: u32) -> io::Result<()> {
        let mut request = Request::new(libc::RTM_DELLINK, libc::NLM_F_ACK);
        request.extend(&[0; 4]);
        request.extend(&index.to_ne_bytes());
        request.extend(&[0; 8]);
        self.transact(request, 0).map(drop)
    }

    /// Adds an address that is usable at once, without duplicate address detection.
    fn add_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        self.address(Request::new(libc::RTM_NEWADDR, flags), index, address, prefix)
    }

    /// Removes an address from an interface.
    fn remove_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        self.address(Request::new(libc::RTM_DELADDR, libc::NLM_F_ACK), index, address, prefix)
    }

    fn address(&mut self, mut request: Request, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        let (family, bytes) = match address {
            IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
            IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
        };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Both fit the kernel's u8 fields.
        let header = [family as u8, prefix, libc::IFA_F_NODAD as u8, libc::RT_SCOPE_UNIVERSE];
        request.extend(&header);
        request.extend(&index.to_ne_bytes());
        request.attribute(libc::IFA_LOCAL, &bytes);
        request.attribute(libc::IFA_ADDRESS, &bytes);
        self.transact(request, 0).map(drop)
    }

    /// Returns the permanent addresses of an interface with prefix length, without those that have a peer.
    pub fn addresses(&mut self, index: u32) -> io::Result<Vec<(IpAddr, u8)>> {
        let mut request = Request::new(libc::RTM_GETADDR, libc::NLM_F_DUMP);
        request.extend(&[0; IFADDR]);
        self.dump(request, libc::RTM_NEWADDR, |payload| permanent_address(payload, index))
    }

    /// Sets the permanent addresses of an interface: adds missing ones and removes others, which a stored TAP may have.
    ///
    /// # Errors
    /// The failed operation, with its address.
    pub fn set_addresses(&mut self, index: u32, wanted: &[(IpAddr, u8)]) -> Result<(), String> {
        let list = |netlink: &mut Self| netlink.addresses(index).map_err(|e| format!("its addresses: {e}"));
        for (address, prefix) in list(self)?.into_iter().filter(|address| goes(address, wanted)) {
            match self.remove_address(index, address, prefix) {
                // The kernel removes secondary addresses together with their primary one.
                Err(error) if error.raw_os_error() != Some(libc::EADDRNOTAVAIL) => {
                    return Err(format!("address {address}/{prefix}: {error}"));
                }
                _ => {}
            }
        }
        let present = list(self)?;
        for &(address, prefix) in wanted.iter().filter(|address| !present.contains(address)) {
            self.add_address(index, address, prefix).map_err(|e| format!("address {address}/{prefix}: {e}"))?;
        }
        Ok(())
    }

    /// Requests a list, and collects the results of `select` for the entries of type `of`.
    pub fn dump<T>(
        &mut self,
        mut request: Request,
        of: u16,
        select: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        for _ in 0..TRIES {
            let mut found = Vec::new();
            if self.ask(&mut request, of, |entry| found.extend(select(entry)))? {
                return Ok(found);
            }
        }
        Err(io::ErrorKind::Interrupted.into())
    }

    /// Sends a request and returns the payload of the reply of this type, which is empty for an acknowledgement.
    pub fn transact(&mut self, mut request: Request, of: u16) -> io::Result<Vec<u8>> {
        let mut payload = Vec::new();
        self.ask(&mut request, of, |reply| payload.extend(reply))?;
        Ok(payload)
    }

    /// Sends a request and takes its replies, skipping those of earlier requests. Returns whether the replies are consistent.
    fn ask(&mut self, request: &mut Request, of: u16, mut take: impl FnMut(&[u8])) -> io::Result<bool> {
        self.sequence = self.sequence.wrapping_add(1);
        send(self.socket.as_raw_fd(), request.finish(self.sequence), MsgFlags::empty())?;
        let mut whole = true;
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?;
            for reply in messages(&self.buffer[..length]).filter(|reply| reply.sequence == self.sequence) {
                whole &= i32::from(reply.flags) & libc::NLM_F_DUMP_INTR == 0;
                match (i32::from(reply.kind), number(reply.payload).cast_signed()) {
                    (libc::NLMSG_ERROR | libc::NLMSG_DONE, 0) => return Ok(whole),
                    (libc::NLMSG_ERROR | libc::NLMSG_DONE, error) => {
                        return Err(io::Error::from_raw_os_error(error.wrapping_neg()));
                    }
                    _ if reply.kind == of => take(reply.payload),
                    _ => {}
                }
                if i32::from(reply.flags) & libc::NLM_F_MULTI == 0 {
                    return Ok(whole);
                }
            }
        }
    }
}

/// Whether to remove an address that is not wanted. The link-local address belongs to the kernel and stays.
fn goes(address: &(IpAddr, u8), wanted: &[(IpAddr, u8)]) -> bool {
    !wanted.contains(address) && !matches!(address.0, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// Number at the beginning of `bytes`, 0 if they are too few.
fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

/// Address in an `RTM_NEWADDR`, if [`Netlink::addresses`] includes it.
pub fn permanent_address(message: &[u8], of: u32) -> Option<(IpAddr, u8)> {
    let (info, all) = message.split_at_checked(IFADDR)?;
    let permanent = u32::from(info[2]) & libc::IFA_F_PERMANENT != 0;
    let attribute = |wanted| attributes(all).find(|(name, _)| *name == wanted).map(|(_, value)| value);
    let address = attribute(libc::IFA_ADDRESS)?;
    if number(&info[4..]) != of || !permanent || attribute(libc::IFA_LOCAL).is_some_and(|local| local != address) {
        return None;
    }
    let v4 = <[u8; 4]>::try_from(address).map(IpAddr::from);
    Some((v4.or_else(|_| <[u8; 16]>::try_from(address).map(IpAddr::from)).ok()?, info[1]))
}

/// A request under construction.
pub struct Request(Vec<u8>);

impl Request {
    /// An empty request of this type (`RTM_GETLINK`), with flags in addition to `NLM_F_REQUEST`.
    pub fn new(kind: u16, flags: i32) -> Self {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Flags are 16 bits wide.
        let flags = (flags | libc::NLM_F_REQUEST) as u16;
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        Self(bytes)
    }

    /// Appends the header that belongs to the type.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Appends a `struct rtattr` with its value, padded to four bytes.
    pub fn attribute(&mut self, name: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.extend(&length.to_ne_bytes());
        self.extend(&name.to_ne_bytes());
        self.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn finish(&mut self, sequence: u32) -> &[u8] {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        &self.0
    }
}

/// Fields of a message.
#[allow(missing_docs)]
pub struct Message<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    pub payload: &'a [u8],
}

/// The messages (`struct nlmsghdr`) in `bytes`.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(number(bytes)).ok()?;
        let payload = bytes.get(HEADER..length)?;
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let message = Message { kind: word(4), flags: word(6), sequence: number(&bytes[8..]), payload };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes (`struct rtattr`) in `bytes`: name without its flag bits, and value.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]));
        let name = u16::from_ne_bytes([*bytes.get(2)?, *bytes.get(3)?]) & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((name, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_interface_is_found() {
        let mut netlink = Netlink::open().unwrap();
        let link = netlink.link("lo").unwrap();
        assert_eq!((link.index, link.kind.as_str(), link.ethernet, link.mtu, link.master), (1, "", false, 65536, 0));
        assert_eq!((link.name.as_str(), link.address), ("lo", vec![0; 6]));
        assert!(netlink.addresses(1).is_ok());
        assert_eq!(netlink.link("no-such-if").err().unwrap().raw_os_error(), Some(libc::ENODEV));
    }

    const LINK: u16 = libc::RTM_NEWLINK;
    /// `NLMSG_ERROR`, `NLMSG_DONE`; `NLM_F_MULTI`, the same with `NLM_F_DUMP_INTR`.
    const ERROR: u16 = 2;
    const DONE: u16 = 3;
    const MULTI: u16 = 2;
    const INTERRUPTED: u16 = 2 | 16;

    /// A socket whose other end answers each request with a script: type, flags, and age of the answered request in requests.
    fn scripted(script: Vec<Vec<(u16, u16, u32)>>) -> Netlink {
        let (own, kernel) = std::os::unix::net::UnixDatagram::pair().unwrap();
        std::thread::spawn(move || {
            let mut asked = [0; 100];
            for replies in script {
                kernel.recv(&mut asked).unwrap();
                for (kind, flags, before) in replies {
                    let mut reply = Request::new(kind, 0);
                    reply.extend(&[0; 4]);
                    let mut bytes = reply.finish(number(&asked[8..]) - before).to_vec();
                    bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
                    kernel.send(&bytes).unwrap();
                }
            }
        });
        Netlink { socket: own.into(), buffer: vec![0; 1000], sequence: 1 }
    }

    fn list(netlink: &mut Netlink) -> io::Result<usize> {
        netlink.dump(Request::new(libc::RTM_GETLINK, 0), LINK, |_| Some(())).map(|found| found.len())
    }

    #[test]
    fn stale_netlink_replies_are_skipped() {
        let entry = (LINK, MULTI, 0);
        let mut netlink = scripted(vec![
            vec![(LINK, MULTI, 1), (DONE, MULTI, 1), entry, entry, (DONE, MULTI, 0)],
            vec![(DONE, MULTI, 1), (LINK, 0, 0)],
            vec![(ERROR, 0, 1), (ERROR, 0, 0)],
        ]);
        assert_eq!(list(&mut netlink).unwrap(), 2);
        assert_eq!(netlink.transact(Request::new(libc::RTM_GETLINK, 0), LINK).unwrap(), [0; 4]);
        assert_eq!(netlink.transact(Request::new(libc::RTM_SETLINK, 0), 0).unwrap(), []);
    }

    #[test]
    fn interrupted_dump_is_repeated() {
        let torn = vec![(LINK, INTERRUPTED, 0), (DONE, MULTI, 0)];
        let whole = vec![(LINK, MULTI, 0), (LINK, MULTI, 0), (DONE, MULTI, 0)];
        assert_eq!(list(&mut scripted(vec![torn.clone(), torn.clone(), whole])).unwrap(), 2);
        assert_eq!(list(&mut scripted(vec![torn; TRIES])).unwrap_err().kind(), io::ErrorKind::Interrupted);
    }

    #[test]
    fn attributes_end_at_nonsense() {
        let mut request = Request::new(1, 0);
        request.attribute(3, b"abc");
        request.attribute(4, b"");
        let bytes = request.finish(7).to_vec();
        assert_eq!(attributes(&bytes[HEADER..]).collect::<Vec<_>>(), [(3, &b"abc"[..]), (4, b"")]);
        let twice = [&bytes[..], &bytes[..]].concat();
        assert_eq!(messages(&twice).map(|message| (message.kind, message.sequence)).collect::<Vec<_>>(), [(1, 7); 2]);
        assert_eq!(messages(&[0; 64]).count(), 0);
        assert_eq!(attributes(&[200, 0, 1, 0, 9]).count(), 0);
        assert_eq!(attributes(&[0, 0, 1, 0, 9]).count(), 0);
    }

    #[test]
    fn unplanned_addresses_are_removed() {
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
}
