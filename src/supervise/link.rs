//! Notices what becomes of the local interface and of its bridge (rtnetlink(7), `RTM_NEWLINK` and `RTM_DELLINK`).
//!
//! The sockets are opened in the host's network namespace and stay in it when the supervisor leaves.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};
use privsep::netlink::{IFINFO, Netlink, attributes, messages};

/// Multicast group of link messages (`RTMGRP_LINK`, `linux/rtnetlink.h`).
const LINKS: u32 = 1;
/// Attribute of an interface that has gone to another network namespace (`IFLA_NEW_NETNSID`).
const NEW_NETNSID: u16 = 45;

/// Watches one interface, and the bridge that it belongs to.
pub struct LinkWatch {
    socket: OwnedFd,
    /// For questions.
    query: Netlink,
    index: u32,
    interface: String,
    /// Name of its bridge, and the index that one had when we looked last.
    bridge: Option<(String, u32)>,
    /// It may be moved to another namespace: a TAP works wherever it is.
    movable: bool,
    moved: bool,
    trouble: Option<Trouble>,
}

/// What a message says of our interface or bridge.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    None,
    Changed,
    Moved,
    Removed,
}

/// What has become of the interface.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    Same,
    /// See [`LinkWatch::trouble`].
    Changed,
    Gone,
}

/// Why nothing passes the local side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Interface or bridge of this name is down.
    Down(String),
    /// Nothing is at the other end of the interface's cable.
    NoCarrier(String),
    /// The bridge has been removed.
    NoBridge { interface: String, bridge: String },
    /// The bridge is there, without the interface.
    OutOfBridge { interface: String, bridge: String },
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down(name) => write!(f, "{name:?} is down: `ip link set {name} up`"),
            Self::NoCarrier(name) => write!(f, "interface {name:?} has no carrier: what is at the other end of it?"),
            Self::NoBridge { interface, bridge } => {
                let join = format!("ip link set {interface} master {bridge}");
                write!(f, "bridge {bridge:?} has been removed: make it again, then `{join}`")
            }
            Self::OutOfBridge { interface, bridge } => {
                let join = format!("ip link set {interface} master {bridge}");
                write!(f, "interface {interface:?} is not in bridge {bridge:?} any more: `{join}`")
            }
        }
    }
}

impl LinkWatch {
    /// Starts to watch the interface of this index and name, which is a port of this bridge.
    ///
    /// # Errors
    /// `NotFound` when it has been removed already.
    pub fn new(index: u32, interface: &str, bridge: Option<&str>, movable: bool) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, LINKS))?;
        let (query, interface) = (Netlink::open()?, interface.to_owned());
        let bridge = bridge.map(|bridge| (bridge.to_owned(), 0));
        let mut watch = Self { socket, query, index, interface, bridge, movable, moved: false, trouble: None };
        match watch.look() {
            Fate::Gone => Err(io::ErrorKind::NotFound.into()),
            Fate::Same | Fate::Changed => Ok(watch),
        }
    }

    /// Takes the messages that have come and tells what has become of the interface.
    pub fn take(&mut self) -> Fate {
        let mut buffer = vec![0; 32 << 10];
        let mut changed = false;
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => match news(&buffer[..length], self.index, self.bridge.as_ref()) {
                    News::None => {}
                    News::Changed => changed = true,
                    News::Moved if self.movable => self.moved = true,
                    News::Moved | News::Removed if self.moved => {}
                    News::Moved | News::Removed => return Fate::Gone,
                },
                // Messages were lost, perhaps the one that counts.
                Err(Errno::ENOBUFS) => changed = true,
                Err(_) if changed || self.moved => return self.look(),
                Err(_) => return Fate::Same,
            }
        }
    }

    /// Why nothing passes the local side, if so.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// Asks the kernel how interface and bridge are.
    fn look(&mut self) -> Fate {
        // Where it has gone nothing is known of it.
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
        let link = self.query.link_at(self.index)?;
        let has = |flags: u32, flag: i32| flags & flag.cast_unsigned() != 0;
        let interface = self.interface.clone();
        if !has(link.flags, libc::IFF_UP) {
            return Ok(Some(Trouble::Down(interface)));
        }
        if !has(link.flags, libc::IFF_LOWER_UP) {
            return Ok(Some(Trouble::NoCarrier(interface)));
        }
        let Some((bridge, index)) = &mut self.bridge else { return Ok(None) };
        let name = bridge.clone();
        Ok(match self.query.link(&name) {
            Ok(bridge) => {
                *index = bridge.index;
                match bridge {
                    bridge if bridge.index != link.master => Some(Trouble::OutOfBridge { interface, bridge: name }),
                    bridge if !has(bridge.flags, libc::IFF_UP) => Some(Trouble::Down(name)),
                    _ => None,
                }
            }
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
                Some(Trouble::NoBridge { interface, bridge: name })
            }
            Err(_) => self.trouble.clone(),
        })
    }
}

impl AsFd for LinkWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What the messages say of the interface of this index, and of the bridge of this name and index that it is in. Leaving a
/// bridge is reported by `RTM_DELLINK` in another family, and once more in ours.
pub fn news(bytes: &[u8], index: u32, bridge: Option<&(String, u32)>) -> News {
    let mut news = News::None;
    for (kind, payload) in messages(bytes) {
        let Some((info, all)) = payload.split_at_checked(IFINFO) else { continue };
        let of = u32::from_ne_bytes([info[4], info[5], info[6], info[7]]);
        if info[0] != 0 {
            continue;
        }
        if kind == libc::RTM_DELLINK && of == index {
            let moved = attributes(all).any(|(name, _)| name == NEW_NETNSID);
            return if moved { News::Moved } else { News::Removed };
        }
        let is_bridge = |(name, bridge): &(String, u32)| {
            let named = |(attribute, value): (u16, &[u8])| {
                attribute == libc::IFLA_IFNAME && value.strip_suffix(&[0]) == Some(name.as_bytes())
            };
            of == *bridge || attributes(all).any(named)
        };
        if of == index || bridge.is_some_and(is_bridge) {
            news = News::Changed;
        }
    }
    news
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, family: u8, index: u32) -> Vec<u8> {
        let mut message = vec![32, 0, 0, 0];
        message.extend_from_slice(&kind.to_ne_bytes());
        message.resize(16, 0);
        message.extend_from_slice(&[family, 0, 1, 0]);
        message.extend_from_slice(&index.to_ne_bytes());
        message.resize(16 + IFINFO, 0);
        message
    }

    #[test]
    fn only_our_interface_and_bridge_count() {
        const DELLINK: u16 = libc::RTM_DELLINK;
        let br0 = ("br0".to_owned(), 9);
        let (plain, port) = (|bytes: &[u8]| news(bytes, 5, None), |bytes: &[u8]| news(bytes, 5, Some(&br0)));
        let bridge = 7;
        let others = [message(16, 0, 4), message(DELLINK, 0, 4), message(DELLINK, bridge, 5)].concat();
        assert_eq!(plain(&others), News::None);
        assert_eq!(plain(&[others.clone(), message(16, 0, 5)].concat()), News::Changed);
        assert_eq!(plain(&[others, message(DELLINK, 0, 5)].concat()), News::Removed);
        assert_eq!(plain(&[0; 64]), News::None);
        assert_eq!((plain(&message(DELLINK, 0, 9)), port(&message(DELLINK, 0, 9))), (News::None, News::Changed));
        let mut moved = message(DELLINK, 0, 5);
        moved[0] = 48;
        moved.extend_from_slice(&[8, 0, 1, 0, 0, 0, 0, 0, 8, 0, 45, 0, 1, 0, 0, 0]);
        assert_eq!(plain(&moved), News::Moved);
        let mut made = message(16, 0, 77);
        made[0] = 40;
        made.extend_from_slice(b"\x08\0\x03\0br0\0");
        assert_eq!((plain(&made), port(&made)), (News::None, News::Changed));
    }

    #[test]
    fn what_is_not_there_cannot_be_watched() {
        let lo = LinkWatch::new(1, "lo", None, false);
        assert!(lo.is_ok_and(|mut watch| watch.take() == Fate::Same));
        let none = LinkWatch::new(u32::MAX >> 1, "none", None, false);
        assert_eq!(none.err().unwrap().kind(), io::ErrorKind::NotFound);
    }
}
