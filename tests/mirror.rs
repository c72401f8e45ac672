//! Modes mirror and mirror-udp: one-way copies, filters with VLAN tags, both directions, never more than was captured.

use std::net::UdpSocket;
use std::time::Duration;

use crate::lab::{Background, Running, Scratch, Sites, Wire, frame};

const LIMIT: Duration = Duration::from_secs(3);

fn collector(sites: &Sites) -> UdpSocket {
    let collector = sites.b.inside(|| UdpSocket::bind("192.0.2.2:6000").unwrap());
    collector.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    collector
}

fn collected(collector: &UdpSocket) -> Vec<Vec<u8>> {
    let mut buffer = [0; 10_000];
    std::iter::from_fn(|| collector.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec())).collect()
}

/// UDP from port 1 to `port`, tagged with `vlan` if given; `claimed` is the length in its header.
fn datagram(port: u16, vlan: Option<u16>, claimed: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = b"\x02\0\0\0\xbb\x02\x02\0\0\0\xaa\x01".to_vec();
    if let Some(vlan) = vlan {
        frame.extend_from_slice(&[0x81, 0]);
        frame.extend_from_slice(&vlan.to_be_bytes());
    }
    let total = u16::try_from(28 + payload.len()).unwrap().to_be_bytes();
    frame.extend_from_slice(&[8, 0, 0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, 17, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2]);
    frame.extend_from_slice(&[[0, 1], port.to_be_bytes(), claimed.to_be_bytes(), [0, 0]].concat());
    frame.extend_from_slice(payload);
    frame
}

#[test]
fn the_filter_selects_also_behind_vlan_tags_and_in_both_directions() {
    let sites = Sites::new();
    let (lan, _) = sites.lans(1500);
    let collector = collector(&sites);
    let (wire, host) = (Wire::new(&lan, "eth0"), Wire::new(&sites.a, "lan"));
    let (syslog, tagged) = (datagram(514, None, 11, b"abc"), datagram(514, Some(77), 11, b"def"));
    let other = datagram(53, None, 11, b"ghi");
    for (filter, expected) in [
        ("udp port 514", vec![&syslog, &tagged, &syslog]),
        ("udp and port 514 and not vlan", vec![&syslog, &syslog]),
        ("vlan 77", vec![&tagged]),
        ("vlan 77 and udp port 514", vec![&tagged]),
        ("udp", vec![&syslog, &tagged, &other, &syslog]),
    ] {
        let mirror = Running::classic(&sites.a, "m", &format!("-t 192.0.2.1 6000 192.0.2.2 6000 lan {filter}"));
        assert_eq!((&mirror.status()["state"], &mirror.status()["mode"]), (&"up".into(), &"mirror".into()));
        for frame in [&syslog, &tagged, &other] {
            wire.send(frame);
        }
        // What the host itself sends is seen, too.
        std::thread::sleep(Duration::from_millis(50));
        host.send(&syslog);
        let got = collected(&collector);
        assert!(got.iter().eq(expected.iter().copied()), "{filter}: {} frames", got.len());
    }
}

#[test]
fn nothing_is_ever_given_back() {
    let sites = Sites::new();
    let (lan, _) = sites.lans(1500);
    let collector = collector(&sites);
    let mut wire = Wire::new(&lan, "eth0");
    let mirror = Running::classic(&sites.a, "m", "-t 192.0.2.1 6000 192.0.2.2 6000 lan");
    collector.send_to(&frame(1, 100), "192.0.2.1:6000").unwrap();
    collector.send_to(b"PING:PING:", "192.0.2.1:6000").unwrap();
    assert_eq!(collected(&collector), [b"PONG:PONG:"]);
    assert_eq!(wire.receive(Duration::from_millis(300)), None);
    assert_eq!(mirror.count("/port/tx_frames"), 0);
}

#[test]
fn payloads_never_have_more_than_was_captured() {
    let sites = Sites::new();
    let (lan, _) = sites.lans(1500);
    let collector = collector(&sites);
    let wire = Wire::new(&lan, "eth0");
    let _mirror = Running::classic(&sites.a, "m", "-u 192.0.2.1 6000 192.0.2.2 6000 lan");
    // Something longer first, whose bytes must not come again.
    wire.send(&datagram(1, None, 508, &[7; 500]));
    assert_eq!(collected(&collector), [[7; 500]]);
    for (claimed, expected) in [(11, &b"abc"[..]), (10, b"ab"), (8, b""), (300, b"abc"), (65535, b"abc")] {
        wire.send(&datagram(1, None, claimed, b"abc"));
        assert_eq!(collected(&collector), [expected], "length {claimed} claimed");
    }
    wire.send(&datagram(1, None, 7, b"abc"));
    assert!(collected(&collector).is_empty());
    let mut v6 = b"\x02\0\0\0\xbb\x02\x02\0\0\0\xaa\x01\x86\xdd\x60\0\0\0\0\x0b\x11\x40".to_vec();
    v6.extend_from_slice(&[1; 32]);
    v6.extend_from_slice(b"\0\x01\0\x02\0\x0b\0\0abc");
    wire.send(&v6);
    assert_eq!(collected(&collector), [b"abc"]);
}

#[test]
fn a_filter_that_libpcap_does_not_take_is_an_error() {
    let sites = Sites::new();
    let _lans = sites.lans(1500);
    for (line, words) in [
        ("-d -t 192.0.2.1 6000 192.0.2.2 6000 lan udp prot 5", "filter \"udp prot 5\": "),
        ("-d -t 192.0.2.1 6000 192.0.2.2 6000 eth9 udp", "interface \"eth9\": no such interface"),
        ("-d -u 192.0.2.1 6000 192.0.2.2 6000", "operand INTERFACE is missing"),
    ] {
        let run = Background::run(&sites.a, &Scratch::new(), &[], &line.split(' ').collect::<Vec<_>>());
        assert!(!run.status.success() && run.output.contains(words), "{line}: {}", run.output);
        assert_eq!(run.output.lines().count(), 1, "{}", run.output);
        assert!(run.took < LIMIT);
    }
}
