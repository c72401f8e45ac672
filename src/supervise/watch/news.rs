//! Messages about interfaces and their addresses (rtnetlink(7)): those that wake the supervisor, and their meaning.

use nix::libc;
use privsep::ipc::BpfInstruction;
use privsep::netlink::{IFINFO, Message, attributes, messages};

/// Attribute of an interface that was moved to another network namespace (`IFLA_NEW_NETNSID`).
const NEW_NETNSID: u16 = 45;
/// Offset in bytes of the interface index in a message about an interface or an address; offset of the attributes in the former.
const INDEX: u32 = 20;
const ATTRIBUTES: u32 = 32;
/// Loads the offset of the attribute of type X, searched from A on, or nested in the attribute at A; 0 without a match
/// (`SKF_AD_OFF + SKF_AD_NLATTR` and `SKF_AD_NLATTR_NEST` of `linux/filter.h`).
const FIND: u32 = 0xffff_f00c;
const FIND_NESTED: u32 = 0xffff_f010;

/// Meaning of a message for our interface or bridge.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    None,
    Changed,
    Moved,
    Removed,
}

/// Socket filter that passes messages about the interface of this index and its addresses. With `bridge` it also passes those about
/// every bridge and every bridge port, because a recreated bridge has another index and may have another name.
///
/// The kernel sends each change as a separate datagram, so only the first message in a datagram matters.
pub fn filter(index: u32, bridge: bool) -> Vec<BpfInstruction> {
    const LOAD: u16 = 0x20;
    const LOAD_AT_X: u16 = 0x40;
    const A: u16 = 0x00;
    const X: u16 = 0x01;
    const EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const A_TO_X: u16 = 0x07;
    let step = |code, k| BpfInstruction { code, jt: 0, jf: 0, k };
    let jump = |k, jt, jf| BpfInstruction { code: EQUAL, jt, jf, k };
    // The filter loads words in network byte order.
    let same = |k: u32| u32::from_be_bytes(k.to_ne_bytes());
    let (pass, drop) = (step(RETURN, u32::MAX), step(RETURN, 0));
    if !bridge {
        return vec![step(LOAD, INDEX), jump(same(index), 0, 1), pass, drop];
    }
    vec![
        step(LOAD, INDEX),
        jump(same(index), 13, 0),
        step(A, ATTRIBUTES),
        step(X, libc::IFLA_MASTER.into()),
        step(LOAD, FIND),
        jump(0, 0, 9),
        step(A, ATTRIBUTES),
        step(X, libc::IFLA_LINKINFO.into()),
        step(LOAD, FIND),
        jump(0, 6, 0),
        step(X, libc::IFLA_INFO_KIND.into()),
        step(LOAD, FIND_NESTED),
        step(A_TO_X, 0),
        // After the header of the attribute. Offset 0 is the length of the message.
        step(LOAD_AT_X, 4),
        jump(u32::from_be_bytes(*b"brid"), 0, 1),
        pass,
        drop,
    ]
}

/// Meaning of messages for the interface of this index, its addresses, and its bridge of this name and index with the ports. The
/// kernel reports leaving a bridge by `RTM_DELLINK` in another family, and once more in the family of interfaces.
pub fn news(bytes: &[u8], index: u32, bridge: Option<&(String, u32)>) -> News {
    let mut news = News::None;
    for Message { kind, payload, .. } in messages(bytes) {
        // Messages about interfaces and about addresses have the index at the same offset.
        let Some(of) = payload.get(4..8).and_then(|of| of.first_chunk()).map(|of| u32::from_ne_bytes(*of)) else {
            continue;
        };
        if matches!(kind, libc::RTM_NEWADDR | libc::RTM_DELADDR) {
            news = if of == index { News::Changed } else { news };
            continue;
        }
        let Some((info, all)) = payload.split_at_checked(IFINFO) else { continue };
        let attribute = |wanted| attributes(all).find(|(name, _)| *name == wanted).map(|(_, value)| value);
        let ours = info[0] == 0;
        if ours && kind == libc::RTM_DELLINK && of == index {
            return if attribute(NEW_NETNSID).is_some() { News::Moved } else { News::Removed };
        }
        let concerns = |(name, bridge): &(String, u32)| {
            let named = attribute(libc::IFLA_IFNAME).and_then(|name| name.strip_suffix(&[0])) == Some(name.as_bytes());
            let port = *bridge != 0 && attribute(libc::IFLA_MASTER) == Some(&bridge.to_ne_bytes()[..]);
            ours && (of == *bridge || named) || port
        };
        if ours && of == index || bridge.is_some_and(concerns) {
            news = News::Changed;
        }
    }
    news
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    use privsep::sys::option::lock_filter;

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
    fn only_own_interface_and_bridge_count() {
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
        let address = |kind, of| message(kind, 2, of);
        assert_eq!(
            (plain(&address(libc::RTM_NEWADDR, 5)), plain(&address(libc::RTM_DELADDR, 4))),
            (News::Changed, News::None)
        );
        assert_eq!(plain(&address(libc::RTM_DELADDR, 5)), News::Changed);
        let mut joined = message(16, bridge, 8);
        joined[0] = 40;
        joined.extend_from_slice(&[8, 0, 10, 0, 9, 0, 0, 0]);
        assert_eq!((plain(&joined), port(&joined)), (News::None, News::Changed));
        let mut made = message(16, 0, 77);
        made[0] = 40;
        made.extend_from_slice(b"\x08\0\x03\0br0\0");
        assert_eq!((plain(&made), port(&made)), (News::None, News::Changed));
    }
    /// Bytes of an attribute with padding.
    fn attribute(name: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [&length.to_ne_bytes()[..], &name.to_ne_bytes(), value].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn kernel_filters_netlink_messages() {
        const LINK: u16 = libc::RTM_NEWLINK;
        let kind = |kind: &[u8]| attribute(libc::IFLA_LINKINFO, &attribute(libc::IFLA_INFO_KIND, kind));
        let link = |index, attributes: &[Vec<u8>]| [message(LINK, 0, index), attributes.concat()].concat();
        let name = attribute(libc::IFLA_IFNAME, b"x\0");
        let master = attribute(libc::IFLA_MASTER, &9_u32.to_ne_bytes());
        for (message, plain, port) in [
            (message(LINK, 0, 5), true, true),
            (message(libc::RTM_DELLINK, 7, 5), true, true),
            (message(libc::RTM_NEWADDR, 2, 5), true, true),
            (message(LINK, 0, 4), false, false),
            (message(libc::RTM_NEWADDR, 2, 4), false, false),
            (link(4, &[name.clone(), kind(b"veth\0")]), false, false),
            (link(5 << 8, std::slice::from_ref(&name)), false, false),
            (link(4, &[name.clone(), master, kind(b"veth\0")]), false, true),
            (link(4, &[name.clone(), kind(b"bridge\0")]), false, true),
            (link(4, &[name, attribute(libc::IFLA_LINKINFO, &[])]), false, false),
            (vec![0; 8], false, false),
        ] {
            for (bridge, passes) in [(false, plain), (true, port)] {
                let (kernel, ours) = UnixDatagram::pair().unwrap();
                ours.set_nonblocking(true).unwrap();
                lock_filter(ours.as_fd(), &filter(5, bridge)).unwrap();
                let _ = kernel.send(&message);
                assert_eq!(ours.recv(&mut [0; 200]).is_ok(), passes, "bridge: {bridge}, {message:?}");
            }
        }
    }
}
