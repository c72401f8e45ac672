//! DSCP and ECN: from frames to datagrams, and congestion marks back into frames.

use std::time::{Duration, Instant};

use crate::lab::{Namespace, Running, Sites, Wire, assert_tcp, frame, wait_for};
use crate::secure::End;

const LIMIT: Duration = crate::lab::PATIENCE;
const BOTH: &str = "mode = \"raw\"\n[raw]\ninterface = \"lan\"\n[rules]\ndscp = \"copy\"\necn = true\n";
const TAPS: [&str; 2] = [
    "mode = \"tap\"\n[tap]\naddress = [\"10.8.0.1/24\"]\n[rules]\necn = true\n",
    "mode = \"tap\"\n[tap]\naddress = [\"10.8.0.2/24\"]\n[rules]\necn = true\n",
];
const TAG: &[u8] = b"\x81\x00\x00\x63";

/// Sites whose underlay shows each datagram by itself.
fn sites() -> Sites {
    let sites = Sites::new();
    for site in [&sites.a, &sites.b] {
        site.run("ethtool", "-K wan tx-udp-segmentation off");
    }
    sites
}

/// Frame of `length` bytes with a packet of this traffic class, and a tag if there is one.
fn packet(number: u32, is_v6: bool, tag: &[u8], class: u8, length: usize) -> Vec<u8> {
    let mut frame = frame(number, length);
    let total = u16::try_from(length - 14 - tag.len()).unwrap();
    let header = if is_v6 {
        let [high, low] = (total - 40).to_be_bytes();
        [&[0x86, 0xdd, 0x60 | class >> 4, class << 4, 0, 0, high, low, 59, 64][..], &[0xfd; 32]].concat()
    } else {
        let [high, low] = total.to_be_bytes();
        let mut header = vec![0x45, class, high, low, 0, 0, 0x40, 0, 64, 253, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let sum: u32 = header.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
        let sum = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
        header[10..12].copy_from_slice(&(!sum).to_be_bytes());
        [&[8, 0][..], &header].concat()
    };
    frame[12..12 + tag.len()].copy_from_slice(tag);
    frame[12 + tag.len()..12 + tag.len() + header.len()].copy_from_slice(&header);
    frame
}

/// Traffic classes of the next UDP datagrams over IPv4 from host 1 that have such a length on the underlay, as many as asked for.
fn classes(underlay: &mut Wire, length: impl Fn(usize) -> bool, count: usize) -> Vec<u8> {
    let start = Instant::now();
    let mut next = || underlay.receive(LIMIT.checked_sub(start.elapsed()).unwrap()).expect("a datagram");
    let is_data = |datagram: &Vec<u8>| {
        datagram[12..14] == [8, 0] && datagram[23] == 17 && datagram[29] == 1 && length(datagram.len())
    };
    std::iter::repeat_with(&mut next).filter(is_data).take(count).map(|datagram| datagram[15]).collect()
}

/// Marks the datagrams that arrive at a site as congested, all or those of senders that react to marks.
fn congest(site: &Namespace, all: bool) {
    site.run("nft", "add table netdev router");
    site.run("nft", "add chain netdev router in { type filter hook ingress device wan priority 0 ; }");
    let which = if all { "" } else { "ip ecn { ect0, ect1 }" };
    site.run("nft", &format!("add rule netdev router in ip protocol udp {which} ip ecn set ce"));
}

#[test]
fn datagram_has_class_of_its_frame() {
    let sites = sites();
    let (lan_a, lan_b) = sites.lans(1500);
    let (near, mut far, mut underlay) =
        (Wire::new(&lan_a, "eth0"), Wire::new(&lan_b, "eth0"), Wire::new(&sites.b, "wan"));
    let (a, b) = (End { port: BOTH, ..End::A }.start(&sites, "a"), End { port: BOTH, ..End::B }.start(&sites, "b"));
    a.wait_state("up", LIMIT);
    b.wait_state("up", LIMIT);
    let mut number = 0;
    for (is_v6, tag) in [(false, &b""[..]), (true, b""), (false, TAG), (true, TAG)] {
        for class in [0, 0xb8, 0x02, 0xbb] {
            // Whole, and in two fragments.
            for (length, outer, count) in [(700, 42 + 36 + 700, 1), (1514, 42 + 44 + 759, 2)] {
                number += 1;
                let sent = packet(number, is_v6, tag, class, length);
                near.send(&sent);
                assert_eq!(far.receive(LIMIT), Some(sent), "{is_v6}, {tag:02x?}, {class:02x}");
                let outside = classes(&mut underlay, |length| length == outer, count);
                assert_eq!(outside, vec![class; count], "{is_v6}, {tag:02x?}, {class:02x}, {length} bytes");
            }
        }
    }
}

#[test]
fn congestion_mark_reaches_the_frame() {
    let sites = Sites::new();
    let (lan_a, lan_b) = sites.lans(1500);
    let (near, mut far) = (Wire::new(&lan_a, "eth0"), Wire::new(&lan_b, "eth0"));
    let (a, b) = (End { port: BOTH, ..End::A }.start(&sites, "a"), End { port: BOTH, ..End::B }.start(&sites, "b"));
    a.wait_state("up", LIMIT);
    b.wait_state("up", LIMIT);
    congest(&sites.b, true);
    let (mut number, mut dropped) = (0, 0);
    for (is_v6, tag) in [(false, &b""[..]), (true, b""), (false, TAG), (true, TAG)] {
        for length in [700, 1514] {
            for (class, expected) in [(0x02, Some(0x03)), (0xb9, Some(0xbb)), (0x03, Some(0x03)), (0xb8, None)] {
                number += 1;
                near.send(&packet(number, is_v6, tag, class, length));
                if let Some(expected) = expected {
                    let marked = packet(number, is_v6, tag, expected, length);
                    assert!(far.receive(LIMIT) == Some(marked), "{is_v6}, {tag:02x?}, {class:02x}, {length} bytes");
                } else {
                    dropped += 1;
                    let is_counted = || (b.count("/port/tx_dropped_congestion") == dropped).then_some(());
                    wait_for("the dropped frame", LIMIT, is_counted);
                }
            }
        }
    }
    // Frames without an IP packet pass.
    near.send(&frame(number, 700));
    assert_eq!(far.receive(LIMIT), Some(frame(number, 700)));
}

#[test]
fn congestion_marks_reach_tcp() {
    let sites = Sites::new();
    let ends = (End { port: TAPS[0], ..End::A }.start(&sites, "a"), End { port: TAPS[1], ..End::B }.start(&sites, "b"));
    ends.0.wait_state("up", LIMIT);
    ends.1.wait_state("up", LIMIT);
    for site in [&sites.a, &sites.b] {
        site.inside(|| std::fs::write("/proc/sys/net/ipv4/tcp_ecn", "1").unwrap());
    }
    congest(&sites.b, false);
    assert_tcp(&sites.a, &sites.b, "10.8.0.2", 200_000);
    // The receiver has told the sender of marked segments.
    let text = sites.a.run("cat", "/proc/thread-self/net/netstat");
    let rows: Vec<Vec<_>> =
        text.lines().filter(|line| line.starts_with("TcpExt")).map(|line| line.split(' ').collect()).collect();
    let column = rows[0].iter().position(|&name| name == "TCPDeliveredCE").unwrap();
    assert!(rows[1][column].parse::<u64>().unwrap() > 0, "{text}");
    assert_eq!(ends.1.count("/port/tx_dropped_congestion"), 0);
}

/// Ends on the classic wire with these rules.
fn classic(sites: &Sites, rules: &str) -> (Running, Running) {
    let file = |here: u8, there: u8| {
        format!(
            "mode = \"raw\"\nwire = \"classic\"\n[raw]\ninterface = \"lan\"\n[rules]\n{rules}\n[classic]\nfragment-mtu = 1400\n\
             [[path]]\nlocal = \"192.0.2.{here}:6000\"\nremote = \"192.0.2.{there}:6000\"\n"
        )
    };
    let ends = (Running::up(&sites.a, "a", &file(1, 2)), Running::up(&sites.b, "b", &file(2, 1)));
    ends.0.wait_state("up", LIMIT);
    ends
}

#[test]
fn fixed_class_is_on_every_datagram() {
    for (rules, expected) in [("dscp = 46", [0xb8, 0xb8]), ("dscp = \"copy\"", [0x20, 0]), ("", [0, 0])] {
        let sites = sites();
        let (lan_a, lan_b) = sites.lans(1500);
        let (near, mut far) = (Wire::new(&lan_a, "eth0"), Wire::new(&lan_b, "eth0"));
        let mut underlay = Wire::new(&sites.b, "wan");
        let _ends = classic(&sites, rules);
        for (number, length, count) in [(1, 700, 1), (2, 1514, 2)] {
            let sent = packet(number, false, b"", 0x22, length);
            near.send(&sent);
            assert_eq!(far.receive(LIMIT), Some(sent), "{rules}");
            assert_eq!(
                classes(&mut underlay, |length| length > 60, count),
                vec![expected[0]; count],
                "{rules}, {length} bytes"
            );
        }
        // PINGs.
        assert_eq!(classes(&mut underlay, |_| true, 1), [expected[1]], "{rules}");
    }
}
