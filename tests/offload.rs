//! Superframes and checksums that are left to others: whatever the interfaces around do for their users, TCP passes, no receiver
//! sees a wrong checksum, and no host needs `ethtool`.

use std::fs::{self, File};
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use ethudp_stubs::raw::call;
use ethudp_worker::frame::checksum::Sum;
use privsep::sys::option;

use crate::lab::{Namespace, Running, Sites, Wire, assert_tcp, assert_udp, wait_for};

const BYTES: usize = 3_000_000;
/// Longest frame on an interface with an MTU of 1500.
const FRAME: usize = 1514;

/// Segments and datagrams that a host has refused for their checksum.
fn bad_checksums(host: &Namespace) -> u64 {
    host.inside(|| {
        let text = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
        let table = |name: &str| -> u64 {
            let mut lines = text.lines().filter_map(|line| line.strip_prefix(name)).map(str::split_whitespace);
            let (mut names, mut values) = (lines.next().unwrap(), lines.next().unwrap());
            let at = names.position(|name| name == "InCsumErrors").unwrap();
            values.nth(at).unwrap().parse().unwrap()
        };
        table("Tcp: ") + table("Udp: ")
    })
}

/// Sends 16 datagrams of 1000 bytes as one to the kernel, and receives them one by one at `address`.
fn datagrams_pass(from: &Namespace, to: &Namespace, address: &str) {
    let server = to.inside(|| UdpSocket::bind((address, 0)).unwrap());
    server.set_read_timeout(Some(crate::lab::PATIENCE)).unwrap();
    let client = from.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    client.connect(server.local_addr().unwrap()).unwrap();
    option::set_int(client.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, 1000).unwrap();
    let data: Vec<u8> = (0..16_000_u32).map(|at| (at / 1000 * 7 + at % 251).to_le_bytes()[0]).collect();
    assert_eq!(client.send(&data).unwrap(), data.len());
    let mut received = Vec::new();
    let mut buffer = [0; 2000];
    for _ in 0..16 {
        let length = server.recv(&mut buffer).unwrap();
        assert_eq!(length, 1000);
        received.extend_from_slice(&buffer[..length]);
    }
    received.sort_unstable();
    let mut data = data;
    data.sort_unstable();
    assert!(received == data);
}

#[test]
fn tap_offload_works_with_every_cipher() {
    let sites = Sites::new();
    let kinds = ["", "-enc aes-128 -k key", "-enc aes-256 -k key -lz4 1", "-mtu 1200 -enc xor -k key"];
    for (number, options) in kinds.into_iter().enumerate() {
        let (net, port) = (8 + number, 6000 + number);
        let end = |here, there| {
            format!("-i {options} -dev eu{number} 192.0.2.{here} {port} 192.0.2.{there} {port} 10.{net}.0.{here} 24")
        };
        let (a, b) = (Running::classic(&sites.a, "a", &end(1, 2)), Running::classic(&sites.b, "b", &end(2, 1)));
        let (address, device) = (format!("10.{net}.0.2"), format!("eu{number}"));
        assert_udp(&sites.a, &sites.b, &address);
        let (mut given, mut taken) = (Wire::new(&sites.a, &device), Wire::new(&sites.b, &device));
        assert_tcp(&sites.a, &sites.b, &address, BYTES);
        let longest = |wire: &mut Wire| wire.receive_all(Duration::from_millis(50)).iter().map(Vec::len).max().unwrap();
        assert!(longest(&mut given) > FRAME && longest(&mut taken) > FRAME, "{options}: no superframe");
        datagrams_pass(&sites.a, &sites.b, &address);
        for end in [&a, &b] {
            assert_eq!(end.count("/port/rx_dropped_offload") + end.count("/port/tx_errors"), 0, "{options}");
            assert_eq!(end.count("/worker_restarts"), 0);
        }
    }
    assert_eq!((bad_checksums(&sites.a), bad_checksums(&sites.b)), (0, 0));
}

/// What the interfaces at both ends of a cable do, and the tunnel's end of it.
const OFFLOADS: [(&str, &str); 4] = [
    // Nothing at all.
    ("tx off tso off gso off gro off tx-udp-segmentation off", "tx off tso off gso off gro off"),
    // A host somewhere behind a real card, which puts together what comes.
    ("tx off tso off gso off gro on tx-udp-segmentation off", "tso off gso off gro on tx-udp-segmentation off"),
    // One that also cuts.
    ("tx off tso off gso off gro on tx-udp-segmentation off", "tso on gso on gro on"),
    // A virtual machine.
    ("tx on tso on gso on gro on tx-udp-segmentation on", "tso on gso on gro on tx-udp-segmentation on"),
];

#[test]
fn raw_mode_works_with_all_offloads() {
    for (host, end) in OFFLOADS {
        let sites = Sites::with_mtu(1600);
        let lans = sites.lans(1500);
        for (number, (lan, site)) in [(&lans.0, &sites.a), (&lans.1, &sites.b)].into_iter().enumerate() {
            lan.run("ethtool", &format!("-K eth0 {host}"));
            site.run("ethtool", &format!("-K lan {end}"));
            lan.ip(&format!("addr add 10.9.0.{}/24 dev eth0", number + 1));
        }
        let start = |site, here, there| {
            Running::classic(site, "t", &format!("-e -k key 192.0.2.{here} 6000 192.0.2.{there} 6000 lan"))
        };
        let ends = [start(&sites.a, 1, 2), start(&sites.b, 2, 1)];
        assert!(ends.iter().all(|end| !end.log().contains("ethtool")));
        assert_udp(&lans.0, &lans.1, "10.9.0.2");
        assert_tcp(&lans.0, &lans.1, "10.9.0.2", BYTES);
        datagrams_pass(&lans.0, &lans.1, "10.9.0.2");
        let bad: u64 = [&lans.0, &lans.1].map(bad_checksums).into_iter().sum();
        assert_eq!(bad, 0, "{end}");
        // Each end receives the frames of the other end, and none of its own: those would circulate for ever.
        std::thread::sleep(Duration::from_millis(200));
        let count = |name: &str| ends.each_ref().map(|end| end.count(&format!("/port/{name}")));
        let (heard, sent, dropped) = (count("rx_frames"), count("tx_frames"), count("rx_dropped_offload"));
        let differ = |number: usize| heard[number].abs_diff(sent[1 - number]);
        assert!(differ(0) <= 20 && differ(1) <= 20 && dropped == [0, 0], "{end}: {heard:?} {sent:?} {dropped:?}");
        assert!(heard.iter().sum::<u64>() < 4 * (BYTES as u64 / 1000), "{end}: {heard:?}");
    }
}

/// Whether a frame is a packet of TCP over IPv4; if so, its checksums are to be right.
fn is_whole_tcp(frame: &[u8]) -> bool {
    if frame.len() < 54 || frame[12..15] != [8, 0, 0x45] || frame[23] != 6 {
        return false;
    }
    let length = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    let (header, content) = frame[14..14 + length].split_at(20);
    let pseudo = Sum::of(&header[12..20]).plus(Sum::word(6)).plus(Sum::number(content.len()));
    assert!(Sum::of(header).is_right() && pseudo.plus(Sum::of(content)).is_right(), "{frame:02x?}");
    true
}

#[test]
fn mirror_shows_frames_as_on_the_wire() {
    let sites = Sites::new();
    let lans = sites.lans(1500);
    lans.0.ip("addr add 10.9.0.1/24 dev eth0");
    sites.a.ip("addr add 10.9.0.2/24 dev lan");
    let collector = sites.b.inside(|| UdpSocket::bind("192.0.2.2:6000").unwrap());
    collector.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    option::set_int(collector.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 32 << 20).unwrap();
    let _mirror = Running::classic(&sites.a, "m", "-t 192.0.2.1 6000 192.0.2.2 6000 lan tcp");
    assert_tcp(&lans.0, &sites.a, "10.9.0.2", BYTES);
    let (mut buffer, mut longest, mut seen) = (vec![0; 70_000], 0, 0);
    while let Ok(length) = collector.recv(&mut buffer) {
        if is_whole_tcp(&buffer[..length]) {
            longest = longest.max(length);
            seen += length;
        }
    }
    assert!(longest <= FRAME && seen > 2 * BYTES, "{seen} bytes, the longest frame has {longest}");
}

#[test]
fn unsplittable_superframe_is_reported_once() {
    let sites = Sites::with_mtu(1600);
    let lans = sites.lans(1500);
    for (number, lan) in [(1, &lans.0), (2, &lans.1)] {
        lan.ip(&format!("addr add 10.9.0.{number}/24 dev eth0"));
        // Superframes leave as such, and no end receives its own.
        lan.run("ethtool", "-K eth0 gro off");
        lan.ip(&format!(
            "link add inner type vxlan id 5 dstport 4789 local 10.9.0.{number} remote 10.9.0.{}",
            3 - number
        ));
        lan.ip(&format!("addr add 10.10.0.{number}/24 dev inner"));
        lan.ip("link set inner up");
    }
    let start =
        |site, here, there| Running::classic(site, "t", &format!("-e 192.0.2.{here} 6000 192.0.2.{there} 6000 lan"));
    let ends = [start(&sites.a, 1, 2), start(&sites.b, 2, 1)];
    assert_udp(&lans.0, &lans.1, "10.10.0.2");
    // Slowly, because what is sent again is sent singly.
    assert_tcp(&lans.0, &lans.1, "10.10.0.2", 30_000);
    let said = || ends[0].log().lines().filter(|line| line.contains("ethtool -K lan gro off")).count();
    wait_for("a line", crate::lab::PATIENCE, || (said() > 0).then_some(()));
    let dropped = || ends.each_ref().map(|end| end.count("/port/rx_dropped_offload"));
    for lan in [&lans.0, &lans.1] {
        lan.run("ethtool", "-K inner gso off tso off");
    }
    let before = dropped();
    assert_tcp(&lans.0, &lans.1, "10.10.0.2", BYTES);
    assert_eq!((dropped(), said()), (before, 1));
}

/// What the kernel is told of a frame: flags and kind, then length of the headers, size of segments, and the checksum's place.
fn header(flags: u8, kind: u8, numbers: [u16; 4]) -> Vec<u8> {
    [&[flags, kind][..], &numbers.map(u16::to_ne_bytes).concat()].concat()
}

/// A packet of IPv4 in a frame with these addresses in front.
fn packet(macs: [&[u8]; 2], protocol: u8, content: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 192, 0, 2, 2, 192, 0, 2, 1];
    ip[2..4].copy_from_slice(&u16::try_from(20 + content.len()).unwrap().to_be_bytes());
    let sum = Sum::of(&ip).checksum();
    ip[10..12].copy_from_slice(&sum);
    [macs[0], macs[1], &[8, 0], &ip, content].concat()
}

#[test]
fn sctp_checksum_is_completed() {
    let sites = Sites::new();
    let lans = sites.lans(1500);
    let start =
        |site, here, there| Running::classic(site, "t", &format!("-e 192.0.2.{here} 6000 192.0.2.{there} 6000 lan"));
    let _ends = [start(&sites.a, 1, 2), start(&sites.b, 2, 1)];
    let (station, mut other) = (Wire::new(&lans.0, "eth0").with_offload(), Wire::new(&lans.1, "eth0"));
    // As of an interface that completes it (`NETIF_F_SCTP_CRC`): 32 zeros but for the sum, as in RFC 3720.
    let frame = packet([&[2; 6], &[4; 6]], 132, &[0; 32]);
    station.send(&[header(1, 0, [0, 0, 34, 8]), frame.clone()].concat());
    let got = std::iter::from_fn(|| other.receive(crate::lab::PATIENCE)).find(|got| got[..12] == frame[..12]).unwrap();
    assert_eq!(got, [&frame[..42], &[0xaa, 0x36, 0x91, 0x8a], &frame[46..]].concat());
}

#[test]
fn longest_gro_run_is_received() {
    let sites = Sites::new();
    let end = Running::classic(&sites.a, "a", "-i -dev eu0 192.0.2.1 6000 192.0.2.2 6000 10.8.0.1 24");
    let peer = sites.b.inside(|| UdpSocket::bind("192.0.2.2:6000").unwrap());
    peer.send_to(b"PING:PING:", "192.0.2.1:6000").unwrap();
    let underlay = Wire::new(&sites.b, "wan").with_offload();
    let (to, from) = (sites.a.mac("wan"), sites.b.mac("wan"));
    let received = || end.count("/paths/0/rx_datagrams") + end.count("/paths/0/rx_dropped_invalid");
    let mut expected = 1;
    // Older kernels know 64 at most, and newer ones refuse what is more than 128, as of a virtual machine.
    for (datagrams, worth) in [(64_u16, 64), (128, 128), (60_000, 0)] {
        let length = 8 + datagrams;
        let mut content = vec![7; length.into()];
        content[..8].copy_from_slice(&[0x17, 0x70, 0x17, 0x70, 0, 0, 0, 0]);
        content[4..6].copy_from_slice(&length.to_be_bytes());
        let pseudo = Sum::of(&[192, 0, 2, 2, 192, 0, 2, 1, 0, 17]).plus(Sum::number(length.into())).folded();
        content[6..8].copy_from_slice(&pseudo);
        let frame = [header(1, 5, [42, 1, 34, 6]), packet([&to, &from], 17, &content)].concat();
        let taken = (0..100).filter(|_| underlay.accepts(&frame)).count() as u64;
        expected += if worth > 0 { worth * taken } else { 60_000 * taken };
        wait_for("all of it", crate::lab::PATIENCE, || (received() >= expected).then_some(()));
    }
    assert_eq!((end.count("/worker_restarts"), received()), (0, expected));
}

/// A queue as another version has made it, without what the kernel says of a frame.
fn other_tap(site: &Namespace, name: &str) -> File {
    let device = site.inside(|| File::options().read(true).write(true).open("/dev/net/tun").unwrap());
    let mut request = [0_u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    let flags = u16::try_from(libc::IFF_TAP | libc::IFF_NO_PI).unwrap();
    request[16..18].copy_from_slice(&flags.to_ne_bytes());
    #[allow(clippy::cast_possible_wrap)]
    let arguments = [device.as_raw_fd().into(), libc::TUNSETIFF as i64, request.as_mut_ptr() as i64];
    site.inside(|| call(libc::SYS_ioctl, &arguments).unwrap());
    device
}

#[test]
fn unfit_stored_tap_is_replaced() {
    let sites = Sites::new();
    let manager = crate::service::Manager::new();
    let other = other_tap(&sites.a, "eu0");
    let index = sites.a.index("eu0");
    // The manager keeps its own copy until it has read that it is let go.
    let (service, stored, said) = manager.start(
        &sites.a,
        &crate::service::file("address = [\"10.8.0.1/24\"]"),
        Some(other.try_clone().unwrap().into()),
    );
    assert!(said.contains("FDSTOREREMOVE=1\nFDNAME=tap-0\n") && said.contains("FDSTORE=1"), "{said}");
    assert_ne!(sites.a.index("eu0"), index);
    let _b = Running::classic(&sites.b, "b", "-i 192.0.2.2 6000 192.0.2.1 6000 10.8.0.2 24");
    assert_udp(&sites.a, &sites.b, "10.8.0.2");
    drop((service, stored, other));
}
