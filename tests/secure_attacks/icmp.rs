//! Forged ICMP messages: kernel state that any host can write which knows the addresses and ports of a tunnel.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::LIMIT;
use crate::lab::{Running, Scratch, Sites, Wire, assert_tcp, frame, wait_for};
use crate::secure::KEYS;

/// The Internet checksum.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    u16::try_from(!((folded & 0xffff) + (folded >> 16)) & 0xffff).unwrap().to_be_bytes()
}

/// A packet with this header and payload, over the IP version of the addresses.
fn packet(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = [&[0x45, 0][..], &(20 + length).to_be_bytes(), &[0, 0, 0, 0, 64, protocol, 0, 0]].concat();
            header.extend([from.octets(), to.octets()].concat());
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum);
            [&header[..], payload].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = [&[0x60, 0, 0, 0][..], &length.to_be_bytes(), &[protocol, 64]].concat();
            [&header[..], &from.octets(), &to.octets(), payload].concat()
        }
        _ => panic!("{from} and {to}"),
    }
}

/// "Fragmentation needed, MTU 552" or "packet too big, MTU 1280", from a host that is neither end, about a datagram of A to B.
fn too_big(port: u16, addresses: [IpAddr; 3]) -> Vec<u8> {
    error(port, addresses, 4)
}

/// "Destination unreachable" with this code of IPv4, or what IPv6 says instead: host, port, packet too big.
fn error(port: u16, addresses: [IpAddr; 3], code: u8) -> Vec<u8> {
    let [a, b, stranger] = addresses;
    let ports = [port.to_be_bytes(), port.to_be_bytes(), 1400_u16.to_be_bytes(), [0, 0]].concat();
    let about = packet(a, b, 17, &ports);
    if a.is_ipv4() {
        let mut icmp = [&[3, code, 0, 0, 0, 0][..], &552_u16.to_be_bytes(), &about].concat();
        let sum = checksum(&icmp);
        icmp[2..4].copy_from_slice(&sum);
        return packet(stranger, a, 1, &icmp);
    }
    let kind = match code {
        1 => [1, 3],
        3 => [1, 4],
        _ => [2, 0],
    };
    let mut icmp = [&kind[..], &[0, 0], &1280_u32.to_be_bytes(), &about].concat();
    // Over a pseudo header, whose sum is that of the addresses, length and protocol (RFC 4443, 2.3).
    let addresses = packet(stranger, a, 0, &[])[8..].to_vec();
    let length = u32::try_from(icmp.len()).unwrap().to_be_bytes();
    let sum = checksum(&[&addresses[..], &length, &[0, 0, 0, 58], &icmp].concat());
    icmp[2..4].copy_from_slice(&sum);
    packet(stranger, a, 58, &icmp)
}

/// Packets that a host has cut into fragments: IPv4, IPv6.
fn cut(sites: &Sites) -> (String, String) {
    let [v4, v6] = sites.a.inside(|| {
        ["snmp", "snmp6"].map(|name| std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap())
    });
    let mut ip = v4.lines().filter(|line| line.starts_with("Ip:")).map(|line| line.split_whitespace());
    let mut columns = ip.next().unwrap().zip(ip.next().unwrap());
    let v4 = columns.find(|(name, _)| *name == "FragCreates").unwrap().1.to_owned();
    let v6 = v6.lines().find_map(|line| line.strip_prefix("Ip6FragCreates")).unwrap().trim().to_owned();
    (v4, v6)
}

/// An end of a tunnel with an interface `eu0`.
fn start(sites: &Sites, which: usize, wire: &str, local: SocketAddr, theirs: IpAddr) -> Running {
    let (scratch, site, name) = (Scratch::new(), [&sites.a, &sites.b][which], ["a", "b"][which]);
    scratch.write("end.key", KEYS[which].0, 0o600);
    let secure = format!("[secure]\nprivate-key-file = \"end.key\"\npeer-public-key = \"{}\"\n", KEYS[1 - which].1);
    let text = format!(
        "mode = \"tap\"\nwire = \"{wire}\"\n[tap]\nname = \"eu0\"\naddress = [\"10.8.0.{}/24\"]\n[[path]]\nlocal = \"{}\"\n\
         remote = \"{}\"\n{}",
        1 + which,
        local,
        SocketAddr::new(theirs, 6000),
        if wire == "secure" { &secure } else { "" }
    );
    let file = scratch.write(&format!("{name}.toml"), &text, 0o644);
    Running::start(site, scratch, name, &[], &["up", file.to_str().unwrap()])
}

/// Both ends, of which A has this local address, or its own where that is not given.
fn both(sites: &Sites, wire: &str, local: Option<&str>, [a, b, _]: [IpAddr; 3]) -> (Running, Running) {
    let local = SocketAddr::new(local.map_or(a, |local| local.parse().unwrap()), 6000);
    let ends = (start(sites, 0, wire, local, b), start(sites, 1, wire, SocketAddr::new(b, 6000), a));
    for end in [&ends.0, &ends.1] {
        end.wait_state("up", LIMIT);
    }
    ends
}

fn a_forged_message_cuts_no_datagram(wire: &str, local: Option<&str>, addresses: [&str; 3]) {
    let sites = Sites::new();
    let addresses @ [a, b, _] = addresses.map(|address| address.parse::<IpAddr>().unwrap());
    let kind = if a.is_ipv4() { vec![8, 0] } else { vec![0x86, 0xdd] };
    let header = [sites.a.mac("wan"), sites.b.mac("wan"), kind].concat();
    let intruder = Wire::new(&sites.b, "wan");
    let forge = |port| intruder.send(&[&header[..], &too_big(port, addresses)].concat());
    // Before it starts: the kernel believes the message, on behalf of another socket.
    let other = sites.a.inside(|| UdpSocket::bind((a, 7000)).unwrap());
    other.connect((b, 7000)).unwrap();
    wait_for("a cached route with the forged MTU", LIMIT, || {
        forge(7000);
        let _ = other.send(b"x");
        let route = sites.a.ip(&format!("route get {b}"));
        route.contains(if a.is_ipv4() { "mtu 552" } else { "mtu 1280" }).then_some(())
    });
    let (of_a, _of_b) = both(&sites, wire, local, addresses);
    let before = cut(&sites);
    let mtus =
        || [&sites.a, &sites.b].map(|site| site.ip("-o link show eu0").split(" mtu ").nth(1).unwrap()[..5].to_owned());
    let mtu_of = mtus();
    assert_eq!(mtu_of[0], mtu_of[1], "it was believed at the start");
    // While it runs.
    for _ in 0..20 {
        forge(6000);
    }
    let (sender, mut arrives) = (Wire::new(&sites.a, "eu0"), Wire::new(&sites.b, "eu0"));
    for number in 0..20 {
        forge(6000);
        sender.send(&frame(number, 1300));
        let came =
            std::iter::from_fn(|| arrives.receive(Duration::from_secs(5))).any(|came| came == frame(number, 1300));
        assert!(came, "frame {number}: {}", of_a.status());
    }
    if wire == "secure" {
        assert_tcp(&sites.a, &sites.b, "10.8.0.2", 2_000_000);
        assert_eq!(cut(&sites), before, "{}", of_a.status());
        assert_eq!(of_a.status()["paths"][0]["mtu"], 1500);
    } else {
        assert_eq!(cut(&sites), before, "{}", of_a.status());
    }
    assert_eq!((mtus(), of_a.count("/worker_restarts")), (mtu_of, 0));
}

/// Messages of every kind at a high rate: no frame is lost, no datagram is refused, the end does not rest.
fn a_flood_of_forged_messages_loses_nothing(local: Option<&str>, addresses: [&str; 3]) {
    let sites = Sites::new();
    let addresses: [IpAddr; 3] = addresses.map(|address| address.parse().unwrap());
    let kind = if addresses[0].is_ipv4() { vec![8, 0] } else { vec![0x86, 0xdd] };
    let header = [sites.a.mac("wan"), sites.b.mac("wan"), kind].concat();
    let (of_a, of_b) = both(&sites, "secure", local, addresses);
    let intruder = Wire::new(&sites.b, "wan");
    let forged = [1, 3, 4].map(|code| [&header[..], &error(6000, addresses, code)].concat());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (over, forged) = (&over, &forged);
        scope.spawn(move || {
            while !over.load(Relaxed) {
                // 64 at a time, and room for the ends on a machine with few processors.
                (0..64).for_each(|number| intruder.send(&forged[number % 3]));
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let (sender, mut arrives) = (Wire::new(&sites.a, "eu0"), Wire::new(&sites.b, "eu0"));
        let lost = (0..1000).find(|&number| {
            let sent = frame(number, 1300);
            sender.send(&sent);
            !std::iter::from_fn(|| arrives.receive(Duration::from_secs(5))).any(|came| came == sent)
        });
        if lost.is_none() {
            assert_tcp(&sites.a, &sites.b, "10.8.0.2", 2_000_000);
        }
        over.store(true, Relaxed);
        assert_eq!(lost, None, "{local:?}: {}", of_a.status());
    });
    let count = |name: &str| of_a.count(&format!("/paths/0/{name}"));
    assert_eq!(["tx_errors", "tx_dropped_oversize"].map(count), [0, 0], "{local:?}: {}", of_a.status());
    assert_eq!(count("rx_errors") > 0, local.is_none(), "a socket that is not connected hears of no message");
    assert_eq!([&of_a, &of_b].map(|end| end.count("/worker_restarts")), [0, 0]);
}

const V4: [&str; 3] = ["192.0.2.1", "192.0.2.2", "192.0.2.55"];
const V6: [&str; 3] = ["2001:db8::1", "2001:db8::2", "2001:db8::55"];
/// Local addresses of an end that reaches an IPv4 peer, and an IPv6 one.
const LOCALS: [Option<&str>; 3] = [None, Some("0.0.0.0"), Some("::")];
const LOCALS_V6: [Option<&str>; 2] = [None, Some("::")];

#[test]
fn forged_icmp_cuts_no_datagram() {
    for local in LOCALS {
        a_forged_message_cuts_no_datagram("secure", local, V4);
    }
}

#[test]
fn forged_icmpv6_cuts_no_datagram() {
    for local in LOCALS_V6 {
        a_forged_message_cuts_no_datagram("secure", local, V6);
    }
}

#[test]
fn forged_icmp_cuts_no_classic_datagram() {
    for local in LOCALS {
        a_forged_message_cuts_no_datagram("classic", local, V4);
    }
}

#[test]
fn forged_icmp_flood_loses_nothing() {
    for local in LOCALS {
        a_flood_of_forged_messages_loses_nothing(local, V4);
    }
}

#[test]
fn forged_icmpv6_flood_loses_nothing() {
    for local in LOCALS_V6 {
        a_flood_of_forged_messages_loses_nothing(local, V6);
    }
}
