//! Notices when the local interface is removed (rtnetlink(7), `RTM_DELLINK`).
//!
//! The socket is opened in the host's network namespace and stays in it when the supervisor leaves.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};

/// Multicast group of link messages (`RTMGRP_LINK`, `linux/rtnetlink.h`).
const LINKS: u32 = 1;
/// Type of the message that an interface is gone.
const DELLINK: u16 = 17;
/// Lengths of `struct nlmsghdr` and of `struct ifinfomsg`.
const HEADER: usize = 16;
const IFINFO: usize = 16;

/// Attribute of an interface that has gone to another network namespace (`IFLA_NEW_NETNSID`).
const NEW_NETNSID: u16 = 45;

/// Attribute with an interface's MTU (`IFLA_MTU`).
const MTU: u16 = 4;

/// Watches one interface.
pub struct LinkWatch {
    socket: OwnedFd,
    /// For questions, when messages were lost.
    query: OwnedFd,
    index: u32,
    /// It may be moved to another namespace: a TAP works wherever it is.
    movable: bool,
    moved: Cell<bool>,
}

/// What a message says of our interface.
#[derive(Debug, PartialEq, Eq)]
enum News {
    None,
    Moved,
    Removed,
}

fn open(groups: u32, flags: SockFlag) -> io::Result<OwnedFd> {
    let flags = flags | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(socket)
}

impl LinkWatch {
    /// Starts to watch the interface of this index.
    ///
    /// # Errors
    /// `NotFound` when it has been removed already.
    pub fn new(index: u32, movable: bool) -> io::Result<Self> {
        let (socket, query) = (open(LINKS, SockFlag::SOCK_NONBLOCK)?, open(0, SockFlag::empty())?);
        let watch = Self { socket, query, index, movable, moved: Cell::new(false) };
        if watch.exists()? { Ok(watch) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Takes the messages that have come and tells whether the interface is gone.
    pub fn gone(&self) -> bool {
        let mut buffer = vec![0; 32 << 10];
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => match news(&buffer[..length], self.index) {
                    News::None => {}
                    News::Moved if self.movable => self.moved.set(true),
                    News::Moved | News::Removed => return !self.moved.get(),
                },
                // Messages were lost, perhaps the one that counts.
                Err(Errno::ENOBUFS) if !self.moved.get() => return !self.exists().unwrap_or(true),
                Err(Errno::ENOBUFS) => {}
                Err(_) => return false,
            }
        }
    }

    /// Asks the kernel (`RTM_GETLINK`), which answers with the interface or an error.
    fn exists(&self) -> io::Result<bool> {
        Ok(ask(&self.query, self.index)?.is_some())
    }
}

/// Asks the kernel for an interface (`RTM_GETLINK`); its attributes, or `None` when there is none of this index.
fn ask(socket: &OwnedFd, index: u32) -> io::Result<Option<Vec<u8>>> {
    const GETLINK: u16 = 18;
    const NEWLINK: u16 = 16;
    let mut request = vec![0; HEADER + IFINFO];
    request[4..6].copy_from_slice(&GETLINK.to_ne_bytes());
    request[HEADER + 4..HEADER + 8].copy_from_slice(&index.to_ne_bytes());
    request[..4].copy_from_slice(&32_u32.to_ne_bytes());
    request[6..8].copy_from_slice(&1_u16.to_ne_bytes()); // NLM_F_REQUEST
    send(socket.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut reply = vec![0; 32 << 10];
    let length = recv(socket.as_raw_fd(), &mut reply, MsgFlags::empty())?;
    let found = length >= HEADER + IFINFO && u16::from_ne_bytes([reply[4], reply[5]]) == NEWLINK;
    Ok(found.then(|| reply[HEADER + IFINFO..length].to_vec()))
}

/// MTU in bytes of the interface of this index.
pub fn mtu(index: u32) -> io::Result<u32> {
    let attributes = ask(&open(0, SockFlag::empty())?, index)?.ok_or(io::ErrorKind::NotFound)?;
    let value =
        attribute(&attributes, MTU).and_then(|value| Some(u32::from_ne_bytes(value.get(..4)?.try_into().ok()?)));
    value.ok_or(io::ErrorKind::InvalidData.into())
}

impl AsFd for LinkWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What the messages say of the interface of this index. Leaving a bridge is reported by the same type in another family,
/// which does not count.
fn news(mut messages: &[u8], index: u32) -> News {
    while messages.len() >= HEADER + IFINFO {
        let length = u32::from_ne_bytes([messages[0], messages[1], messages[2], messages[3]]) as usize;
        let kind = u16::from_ne_bytes([messages[4], messages[5]]);
        let info = &messages[HEADER..HEADER + IFINFO];
        let of = u32::from_ne_bytes([info[4], info[5], info[6], info[7]]);
        if kind == DELLINK && info[0] == 0 && of == index {
            let attributes = messages.get(HEADER + IFINFO..length).unwrap_or_default();
            return if attribute(attributes, NEW_NETNSID).is_some() { News::Moved } else { News::Removed };
        }
        messages = messages.get(length.next_multiple_of(4).max(HEADER)..).unwrap_or_default();
    }
    News::None
}

/// Value of the attribute (`struct rtattr`) of this name.
fn attribute(mut attributes: &[u8], name: u16) -> Option<&[u8]> {
    while let [low, high, name_low, name_high, ..] = *attributes {
        let length = usize::from(u16::from_ne_bytes([low, high])).max(4);
        if u16::from_ne_bytes([name_low, name_high]) & 0x3fff == name {
            return attributes.get(4..length);
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, family: u8, index: u32) -> Vec<u8> {
        let mut message = vec![32, 0, 0, 0];
        message.extend_from_slice(&kind.to_ne_bytes());
        message.resize(HEADER, 0);
        message.extend_from_slice(&[family, 0, 1, 0]);
        message.extend_from_slice(&index.to_ne_bytes());
        message.resize(HEADER + IFINFO, 0);
        message
    }

    #[test]
    fn only_the_removal_of_our_interface_counts() {
        let bridge = 7;
        let others = [message(16, 0, 5), message(DELLINK, 0, 4), message(DELLINK, bridge, 5)].concat();
        assert_eq!(news(&others, 5), News::None);
        assert_eq!(news(&[others, message(DELLINK, 0, 5)].concat(), 5), News::Removed);
        assert_eq!(news(&[0; 64], 0), News::None);
        let mut moved = message(DELLINK, 0, 5);
        moved[0] = 48;
        moved.extend_from_slice(&[8, 0, 1, 0, 0, 0, 0, 0, 8, 0, 45, 0, 1, 0, 0, 0]);
        assert_eq!(news(&moved, 5), News::Moved);
    }

    #[test]
    fn the_mtu_of_loopback_is_known() {
        assert_eq!(mtu(1).unwrap(), 65536);
        assert_eq!(mtu(u32::MAX >> 1).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_is_not_there_cannot_be_watched() {
        assert!(LinkWatch::new(1, false).is_ok_and(|watch| !watch.gone()));
        assert_eq!(LinkWatch::new(u32::MAX >> 1, false).err().unwrap().kind(), io::ErrorKind::NotFound);
    }
}
