//! Underlay of a tunnel: the MTU of each path, and the sizes of datagrams and frames that follow from it.
//!
//! The MTUs are read twice at the start. [`interface_mtu`] is the MTU of a TAP that the helper creates. [`Sizes::read`]
//! follows once the local side is open.

use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::{fs, io};

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrStorage;
use privsep::ipc::{Address, Remote, header};
use privsep::netlink::{Link, Netlink};

use super::route::{self, Way};
use crate::service::networks;
use crate::tunnel::resolve::Resolved;
use crate::tunnel::wire::secure::LEAST_MTU;
use crate::tunnel::{Path, Port, Tunnel, Wire, bounds};

/// Ethernet header with one VLAN tag, which a frame may have.
const ETHERNET: u32 = 18;
/// Ethernet header without a tag.
const UNTAGGED: u32 = 14;
/// Header of TCP without options.
const TCP: u16 = 20;

/// Reads the MTU of each path's underlay from the kernel, unless the file names one. `own` is the interface of the tunnel itself, which never carries a path.
fn read_mtus(tunnel: &Tunnel, paths: &mut [Resolved], own: &str) {
    for (path, resolved) in tunnel.paths.iter().zip(paths) {
        let given = path.mtu.map(u32::from);
        resolved.underlay_mtu = given.or_else(|| mtu(path, resolved.local, resolved.remote, own).ok());
    }
}

/// MTU in bytes of the way to the peer, as the host is configured. Cached routes are ignored: any host can lower the MTU of one for
/// ten minutes by an ICMP message.
fn mtu(path: &Path, local: SocketAddr, remote: Remote, own: &str) -> io::Result<u32> {
    let mut netlink = Netlink::open()?;
    let device = path.device.as_deref().map(|device| netlink.link(device)).transpose()?;
    let (to, scope) = match remote {
        Remote::Fixed(Address(SocketAddr::V6(remote))) => (Some((*remote.ip()).into()), remote.scope_id()),
        Remote::Fixed(Address(remote)) => (Some(remote.ip()), 0),
        Remote::Named { now, .. } => (now.map(|Address(now)| now.ip()), 0),
        Remote::Learned { address, .. } => (address.filter(|address| !address.is_unspecified()), 0),
    };
    if let Some(to) = to {
        let from = Some(local.ip()).filter(|ip| !ip.is_unspecified());
        let index = device.as_ref().map(|link| link.index).or((scope != 0).then_some(scope));
        let way = Way { to, from, device: index, mark: path.mark };
        let found = route::mtu(&mut netlink, way);
        // A bound device sends even without a route.
        return match &device {
            Some(link) => Ok(found.map_or(link.mtu, |mtu| mtu.min(link.mtu))),
            None => found,
        };
    }
    if let Some(link) = device {
        return Ok(link.mtu);
    }
    if let Some(interface) = interface_of(local) {
        return netlink.link(&interface).map(|link| link.mtu);
    }
    // The peer may arrive by any interface. TAPs are excluded: they belong to tunnels, whose MTU is smaller.
    let interfaces = getifaddrs()?.filter(|interface| {
        let up = interface.flags & (InterfaceFlags::IFF_UP | InterfaceFlags::IFF_LOOPBACK) == InterfaceFlags::IFF_UP;
        let other = name(interface) != own;
        up && other && interface.address.as_ref().is_some_and(|address| carries(address, local))
    });
    let links = interfaces.filter_map(|interface| netlink.link(name(&interface)).ok());
    let mtus = links.filter(|link| !(link.kind == "tun" && link.ethernet)).map(|link| link.mtu);
    mtus.min().ok_or(io::ErrorKind::NotFound.into())
}

/// Name of the interface of a TAP's queue, from `/proc/self/fdinfo` (proc(5), drivers/net/tun.c). Only the helper may query the
/// queue itself, which the SELinux policy enforces as well.
fn interface_of_queue(queue: BorrowedFd<'_>) -> Option<String> {
    let facts = fs::read_to_string(format!("/proc/self/fdinfo/{}", queue.as_raw_fd())).ok()?;
    facts.lines().find_map(|line| line.strip_prefix("iff:\t")).map(str::to_owned)
}

/// Name of an interface, without the label of an address.
fn name(interface: &InterfaceAddress) -> &str {
    interface.interface_name.split(':').next().unwrap_or_default()
}

/// Name of the interface that has this address.
fn interface_of(local: SocketAddr) -> Option<String> {
    let own = getifaddrs().ok()?.find(|own| own.address.as_ref().is_some_and(|a| networks::same_address(a, &local)));
    own.map(|own| name(&own).to_owned())
}

/// Whether a wildcard address stands for this address.
fn carries(own: &SockaddrStorage, wildcard: SocketAddr) -> bool {
    own.as_sockaddr_in().is_some() || own.as_sockaddr_in6().is_some() && wildcard.is_ipv6()
}

/// Sizes of a tunnel, and the lines about them in the log at the start.
#[derive(Debug)]
pub struct Sizes {
    /// Longest datagram in bytes, on a wire with a limit.
    pub datagram: u16,
    /// Upper limits of the MSS over IPv4 and IPv6 that fit the underlay, if the file asks for them.
    pub mss: Option<(u16, u16)>,
    /// Warning about frames that leave as IP fragments.
    pub warning: Option<String>,
    /// Line about the frames that leave in one datagram.
    pub line: Option<String>,
}

impl Sizes {
    /// Reads the MTU of each path once the local side is open, and derives the sizes.
    ///
    /// # Errors
    /// Line for the user when the MSS depends on a path of unknown MTU.
    pub fn read(tunnel: &Tunnel, paths: &mut [Resolved], own: &Link) -> Result<Self, String> {
        read_mtus(tunnel, paths, &own.name);
        let limit = datagram(&tunnel.wire, paths);
        Ok(Self {
            datagram: limit.unwrap_or_default(),
            mss: tunnel.auto_mss.then(|| mss(&tunnel.wire, paths)).transpose()?,
            warning: fragments(tunnel, own.mtu, paths),
            line: limit.map(|limit| unsplit(tunnel, limit, own.mtu)),
        })
    }
}

/// MTU of a TAP for which the file gives none: the greatest that fits every path, within the least MTU of IPv6 and the longest
/// frame. `queue` is a queue of a TAP from an earlier start. `None` for a wire without a limit, whose MTU the kernel chooses, as
/// with `EthUDP`, and in a bridge, whose MTU the helper reads.
pub fn interface_mtu(tunnel: &Tunnel, paths: &mut [Resolved], queue: Option<BorrowedFd<'_>>) -> Option<u32> {
    let Port::Tap { interface_mtu: None, bridge: None, .. } = &tunnel.port else { return None };
    datagram(&tunnel.wire, paths)?;
    read_mtus(tunnel, paths, &queue.and_then(interface_of_queue).unwrap_or_default());
    clamped_mtu(&tunnel.wire, paths)
}

fn clamped_mtu(wire: &Wire, paths: &[Resolved]) -> Option<u32> {
    let fits = unsplit_mtu(wire, datagram(wire, paths)?, false);
    let bound = |bound: u64| u32::try_from(bound).unwrap_or(u32::MAX);
    Some(fits.clamp(bound(*bounds::PATH_MTU.start()), bound(*bounds::INTERFACE_MTU.end())))
}

/// Greatest MSS over IPv4 and over IPv6 whose segments fit every path in one datagram.
///
/// # Errors
/// Line for the user when the MTU of a path is unknown.
fn mss(wire: &Wire, paths: &[Resolved]) -> Result<(u16, u16), String> {
    let mut frame = u32::MAX;
    for path @ Resolved { local, .. } in paths {
        let unknown = || format!("rules.mss = \"auto\": the MTU of path {local} is unknown; set a number");
        frame = frame.min(wire.largest_frame(wire.payload(path).ok_or_else(unknown)?));
    }
    let mss = |ip: u16| u16::try_from(frame.saturating_sub(ETHERNET + u32::from(ip + TCP)).max(1)).unwrap_or(u16::MAX);
    Ok((mss(header::IPV4), mss(header::IPV6)))
}

/// Longest datagram in bytes that leaves in one packet by every path, on a wire with a limit. All paths have the same limit, so
/// that a session need not know the path of a frame.
fn datagram(wire: &Wire, paths: &[Resolved]) -> Option<u16> {
    let unspecified = Remote::ANY;
    // Without paths nothing is sent. Any length will do, as that of a path of unknown MTU.
    let none = Resolved {
        local: (Ipv6Addr::UNSPECIFIED, 0).into(),
        remote: unspecified,
        underlay_mtu: Some(LEAST_MTU.into()),
    };
    let paths = if paths.is_empty() { std::slice::from_ref(&none) } else { paths };
    paths.iter().filter_map(|path| wire.datagram(path)).min()
}

/// Greatest MTU of a local side whose frames leave in one datagram of this many bytes.
fn unsplit_mtu(wire: &Wire, payload: impl Into<u32>, tagged: bool) -> u32 {
    wire.largest_frame(payload.into()).saturating_sub(if tagged { ETHERNET } else { UNTAGGED })
}

/// Line about the frames that leave in one datagram, for the log at the start; `own` is the MTU of the local side.
fn unsplit(tunnel: &Tunnel, datagram: u16, own: u32) -> String {
    let tagged = !matches!(&tunnel.port, Port::Tap { bridge: None, .. });
    let fits = unsplit_mtu(&tunnel.wire, datagram, tagged);
    let passes = if own > fits { ", so full frames leave in pieces" } else { "" };
    format!(
        "datagrams have up to {datagram} bytes: a frame of MTU {fits} fits in one, a longer frame leaves in pieces; local \
         side MTU {own}{passes}"
    )
}

/// Warning about the first path on which frames of a TAP's MTU, `own`, leave as IP fragments.
fn fragments(tunnel: &Tunnel, own: u32, paths: &[Resolved]) -> Option<String> {
    let Port::Tap { bridge, .. } = &tunnel.port else { return None };
    // With a clamped MSS, TCP fits. The underlay does not fragment datagrams that the worker has split.
    if tunnel.auto_mss || tunnel.rules.mss.is_some() || tunnel.wire.splits() {
        return None;
    }
    let known = paths.iter().filter_map(|path| Some((path, path.underlay_mtu?)));
    let mut short = known
        .map(|(path, under)| (path.local, under, unsplit_mtu(&tunnel.wire, path.payload(under), bridge.is_some())));
    let (local, under, fits) = short.find(|(_, _, fits)| *fits < own)?;
    let mss = fits.saturating_sub(40);
    // A bridge silently drops frames longer than its least MTU.
    let remedy = if bridge.is_some() {
        format!("set mss = \"auto\" for TCP (-mss {mss})")
    } else {
        format!("set tap.mtu to {fits} at both ends, or mss = \"auto\" for TCP (-mss {mss})")
    };
    Some(format!(
        "underlay MTU {under} of path {local} is too small for TAP MTU {own}, so long frames leave as IP fragments: {remedy}"
    ))
}

#[cfg(test)]
mod tests {
    use privsep::ipc::Cipher;

    use crate::tunnel::{Classic, example};

    use super::*;

    #[test]
    fn mss_leaves_room_for_headers() {
        let path = |local: &str, underlay_mtu| {
            let remote = Remote::ANY;
            Resolved { local: local.parse().unwrap(), remote, underlay_mtu }
        };
        let v4 = |mtu| path("192.0.2.1:1", Some(mtu));
        let v6 = |mtu| path("[2001:db8::1]:1", mtu);
        let classic =
            |cipher, lz4, fragment_mtu| Wire::Classic(Classic { cipher, lz4, fragment_mtu, ..Classic::default() });
        let (plain, aes) = (&classic(Cipher::None, 0, None), &classic(Cipher::Aes128, 1, None));
        // 1500 - 20 - 8 - 18 - 40 = 1414.
        assert_eq!(mss(plain, &[v4(1500)]), Ok((1414, 1394)));
        assert_eq!(mss(plain, &[v6(Some(1500))]), Ok((1394, 1374)));
        // 1472 bytes are 92 blocks, less one byte of padding and one of compression.
        assert_eq!(mss(aes, &[v4(1500)]), Ok((1412, 1392)));
        assert_eq!(mss(plain, &[v4(9000), v6(Some(1400))]), Ok((1294, 1274)));
        assert_eq!(mss(&classic(Cipher::None, 0, Some(1036)), &[v4(1500)]), Ok((950, 930)));
        assert!(mss(plain, &[v4(1500), v6(None)]).unwrap_err().contains("set a number"));
        let secure = example::secure("");
        // 1500 - 20 - 8 - 36 - 18 - 40 = 1378.
        assert_eq!(mss(&secure.wire, &[v4(1500)]), Ok((1378, 1358)));
        assert!(mss(&secure.wire, &[path("192.0.2.1:1", None)]).is_err());
    }

    #[test]
    fn secure_sizes_fit_every_path() {
        let path = |local: &str, underlay_mtu| {
            let remote = Remote::ANY;
            Resolved { local: local.parse().unwrap(), remote, underlay_mtu }
        };
        let (v4, v6) = (|mtu| path("192.0.2.1:1", mtu), |mtu| path("[2001:db8::1]:1", mtu));
        for (paths, given, longest, inner) in [
            (vec![v4(Some(1500))], None, 1472, 1422),
            (vec![v6(Some(1500))], None, 1452, 1402),
            (vec![v4(Some(9000)), v6(Some(1500))], None, 1452, 1402),
            (vec![v4(Some(1500))], Some(1400), 1372, 1322),
            (vec![v4(None)], None, 1252, 1280),
            (vec![v4(Some(576))], None, 1252, 1280),
            (vec![v6(Some(1280))], None, 1232, 1280),
            (vec![v4(Some(65536))], None, privsep::ipc::Secure::LONGEST, 9216),
        ] {
            let mut tunnel = example::secure("");
            let Wire::Secure(secure) = &mut tunnel.wire else { unreachable!() };
            secure.path_mtu = given;
            assert_eq!(datagram(&tunnel.wire, &paths), Some(longest), "{paths:?}");
            assert_eq!(clamped_mtu(&tunnel.wire, &paths), Some(inner), "{paths:?}");
        }
        assert_eq!(interface_mtu(&example::secure("[tap]\nmtu = 1400"), &mut [v4(Some(1500))], None), None);
    }

    #[test]
    fn secure_wire_reports_largest_frame() {
        let line = |own| unsplit(&example::secure(""), 1472, own);
        let fits = "datagrams have up to 1472 bytes: a frame of MTU 1422 fits in one, a longer frame leaves in pieces";
        assert_eq!(line(1422), format!("{fits}; local side MTU 1422"));
        assert_eq!(line(1500), format!("{fits}; local side MTU 1500, so full frames leave in pieces"));
    }

    #[test]
    fn oversize_tap_mtu_names_fitting_mtu() {
        let local = "192.0.2.1:6000".parse().unwrap();
        let remote = Remote::ANY;
        let with = |text: &str| {
            let file = format!(
                "mode = \"tap\"\nwire = \"classic\"\n{text}\n[[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"any\"\n"
            );
            crate::tunnel::file::from_text(&file, "a", std::path::Path::new("")).unwrap()
        };
        let line = |text: &str, underlay_mtu| {
            let tunnel = with(text);
            let Port::Tap { interface_mtu, .. } = tunnel.port else { panic!("{text}") };
            fragments(&tunnel, interface_mtu.unwrap_or(1500), &[Resolved { local, remote, underlay_mtu }])
        };
        let bridged = with("[tap]\nname = \"eu0\"");
        let port = Port::Tap {
            name: None,
            addresses: Vec::new(),
            interface_mtu: None,
            bridge: Some("br0".into()),
            groups: 0,
            follow: false,
        };
        let bridged = Tunnel { port, ..bridged };
        let advice = fragments(&bridged, 1500, &[Resolved { local, remote, underlay_mtu: Some(1500) }]).unwrap();
        assert!(advice.contains("set mss = \"auto\" for TCP") && !advice.contains("tap.mtu"), "{advice}");
        // 1500 less 20 bytes of IPv4, 8 of UDP and 14 of Ethernet.
        assert!(line("", Some(1500)).unwrap().contains("set tap.mtu to 1458 at both ends"));
        assert!(line("[tap]\nmtu = 1459", Some(1500)).is_some());
        for (text, underlay_mtu) in [
            ("[tap]\nmtu = 1458", Some(1500)),
            ("", Some(1542)),
            ("", None),
            ("[rules]\nmss = 1400", Some(1500)),
            ("[rules]\nmss = \"auto\"", Some(1500)),
            ("[classic]\nfragment-mtu = 1400", Some(1500)),
        ] {
            assert_eq!(line(text, underlay_mtu), None, "{text}");
        }
    }
}
