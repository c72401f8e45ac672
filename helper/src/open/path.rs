//! Opens the UDP socket of a path.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use privsep::ipc::{Address, PathPlan};
use privsep::sys::option;

/// `IP_PMTUDISC_OMIT` and `IP_PMTUDISC_PROBE`, the same numbers for IPv6 (linux/in.h, linux/in6.h).
const PMTUDISC_OMIT: i32 = 5;
const PMTUDISC_PROBE: i32 = libc::IP_PMTUDISC_PROBE;

/// Opens a UDP socket and connects it to the plan's remote. The filter is set before the bind, so that it sees every datagram.
pub fn open(plan: &PathPlan) -> Result<OwnedFd, String> {
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
    for (level, name, value) in ip_options(plan) {
        option::set_int(udp.as_fd(), level, name, value).map_err(|e| fail("IP options", &e))?;
    }
    super::buffers(&udp);
    if plan.runs {
        // Without `UDP_GRO`, the kernel delivers each datagram alone.
        let _ = option::set_int(udp.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1);
    }
    option::lock_filter(udp.as_fd(), &plan.filter).map_err(|e| fail("filter", &e))?;
    bind(udp.as_raw_fd(), &SockaddrStorage::from(local)).map_err(|e| bind_error(local, e))?;
    if let Some(Address(remote)) = plan.remote {
        connect(udp.as_raw_fd(), &SockaddrStorage::from(remote)).map_err(|e| connect_error(local, remote, e))?;
    }
    Ok(udp)
}

/// Options of a path's socket: level, name, value. A socket on `[::]` receives IPv4 as well as IPv6 and needs both kinds.
fn ip_options(plan: &PathPlan) -> Vec<(i32, i32, i32)> {
    let (local, class, reports) = (plan.local.0.ip(), plan.class.into(), plan.reports_class.into());
    let (v4, v6, wildcard) = (libc::IPPROTO_IP, libc::IPPROTO_IPV6, local.is_unspecified());
    let both = local.is_ipv6() && wildcard;
    let mut options = Vec::new();
    // Both ignore the MTU of a cached route, which any host can lower with an ICMP message. A datagram longer than the MTU of the
    // interface is fragmented, or refused. PROBE sets the don't-fragment bit.
    let discovery = if plan.whole { PMTUDISC_PROBE } else { PMTUDISC_OMIT };
    if local.is_ipv6() {
        options.extend([(v6, libc::IPV6_V6ONLY, i32::from(!both)), (v6, libc::IPV6_MTU_DISCOVER, discovery)]);
        options.extend([(v6, libc::IPV6_TCLASS, class), (v6, libc::IPV6_RECVTCLASS, reports)]);
    }
    if local.is_ipv4() || both {
        options.push((v4, libc::IP_MTU_DISCOVER, discovery));
        options.extend([(v4, libc::IP_TOS, class), (v4, libc::IP_RECVTOS, reports)]);
    }
    if wildcard {
        // Replies must leave from the address that the peer used.
        options.push(if both { (v6, libc::IPV6_RECVPKTINFO, 1) } else { (v4, libc::IP_PKTINFO, 1) });
    }
    options
}

fn bind_error(local: SocketAddr, error: nix::Error) -> String {
    let ip = local.ip();
    match error {
        nix::Error::EADDRINUSE => format!(
            "local address {local}: already in use{}; choose another port (`ss -ulpn 'sport = :{}'` shows the process)",
            if local.is_ipv6() && ip.is_unspecified() { " (for IPv6 or IPv4: [::] receives both)" } else { "" },
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
            format!("remote address {remote}: no route; `ip route get {}` should show one", remote.ip())
        }
        nix::Error::EINVAL => format!("remote address {remote}: not reachable from local address {local}"),
        error => format!("remote address {remote}: {}", error.desc()),
    }
}

#[cfg(test)]
mod tests {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::*;

    fn plan(local: &str, remote: Option<SocketAddr>) -> PathPlan {
        PathPlan {
            local: Address(local.parse().unwrap()),
            remote: remote.map(Address),
            filter: Vec::new(),
            device: None,
            mark: None,
            runs: false,
            whole: false,
            class: 0x20,
            reports_class: true,
        }
    }

    fn int(socket: &OwnedFd, level: i32, name: i32) -> i32 {
        privsep::sys::worker::option::int(socket.as_fd(), level, name).unwrap()
    }

    #[test]
    fn path_is_bound_and_connected() {
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for (remote, connected) in [(Some(peer), Ok(peer)), (None, Err(Some(libc::ENOTCONN)))] {
            let whole = open(&PathPlan { whole: true, ..plan("127.0.0.1:0", remote) }).unwrap();
            let udp = open(&plan("127.0.0.1:0", remote)).unwrap();
            let fragments = |udp| int(udp, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER);
            assert_eq!((fragments(&udp), fragments(&whole)), (PMTUDISC_OMIT, PMTUDISC_PROBE));
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
    fn wildcard_path_reports_local_address() {
        let (v4, v6) = (libc::IPPROTO_IP, libc::IPPROTO_IPV6);
        let udp = open(&plan("0.0.0.0:0", None)).unwrap();
        assert_eq!((int(&udp, v4, libc::IP_RECVERR), int(&udp, v4, libc::IP_PKTINFO)), (0, 1));
        assert_eq!((int(&udp, v4, libc::IP_TOS), int(&udp, v4, libc::IP_RECVTOS)), (0x20, 1));
        let udp = open(&plan("[::]:0", None)).unwrap();
        // This socket receives IPv4 as well.
        assert_eq!((int(&udp, v6, libc::IPV6_V6ONLY), int(&udp, v4, libc::IP_MTU_DISCOVER)), (0, PMTUDISC_OMIT));
        assert_eq!((int(&udp, v4, libc::IP_TOS), int(&udp, v4, libc::IP_RECVTOS)), (0x20, 1));
        assert_eq!((int(&udp, v6, libc::IPV6_TCLASS), int(&udp, v6, libc::IPV6_RECVTCLASS)), (0x20, 1));
        assert_eq!((int(&udp, v6, libc::IPV6_RECVERR), int(&udp, v4, libc::IP_RECVERR)), (0, 0));
        assert_eq!((int(&udp, v6, libc::IPV6_MTU_DISCOVER), int(&udp, v6, libc::IPV6_RECVPKTINFO)), (PMTUDISC_OMIT, 1));
        let whole = open(&PathPlan { whole: true, ..plan("[::]:0", None) }).unwrap();
        let discovery = [(v4, libc::IP_MTU_DISCOVER), (v6, libc::IPV6_MTU_DISCOVER)];
        assert_eq!(discovery.map(|(level, name)| int(&whole, level, name)), [PMTUDISC_PROBE; 2]);
        let udp = open(&plan("[::1]:0", None)).unwrap();
        assert_eq!((int(&udp, v6, libc::IPV6_V6ONLY), int(&udp, v6, libc::IPV6_RECVPKTINFO)), (1, 0));
    }

    #[test]
    fn socket_filter_is_locked() {
        let nothing = privsep::ipc::BpfInstruction { code: 0x06, jt: 0, jf: 0, k: 0 };
        let udp = open(&PathPlan { filter: vec![nothing], ..plan("0.0.0.0:0", None) }).unwrap();
        assert_eq!(int(&udp, libc::SOL_SOCKET, libc::SO_LOCK_FILTER), 1);
        assert!(option::lock_filter(udp.as_fd(), &[nothing]).is_err());
        let udp = std::net::UdpSocket::from(udp);
        let port = udp.local_addr().unwrap().port();
        std::net::UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", ("127.0.0.1", port)).unwrap();
        assert_eq!(udp.recv(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }

    #[test]
    fn open_errors_name_value_and_remedy() {
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
            (connect_error(v4, v6, nix::Error::EINVAL), "[fd00::1]:80: not reachable from local address 192.0.2.1:80"),
            (connect_error(v4, v6, nix::Error::EPERM), "remote address [fd00::1]:80: Operation not permitted"),
        ] {
            assert!(text.ends_with(words) && !text.contains('\n'), "{text}");
        }
    }
}
