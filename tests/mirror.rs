//! Modes mirror and mirror-udp: one-way copies, filters with VLAN tags, both directions, never more than was captured.

use std::net::UdpSocket;
use std::time::Duration;

use ethudp_worker::frame::checksum::Sum;
use nix::sys::signal::{Signal, kill};
use pcap::BpfProgram;

use crate::lab::{Background, CAPTURES, Running, Sites, Wire, capture, frame, offline, wait_for};

const LIMIT: Duration = crate::lab::PATIENCE;
const SILENCE: Duration = Duration::from_millis(300);

/// Where a frame on `lan` comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Side {
    /// The other end of the cable.
    Lan,
    /// The host itself.
    Host,
}

fn collector(sites: &Sites) -> UdpSocket {
    let collector = sites.b.inside(|| UdpSocket::bind("192.0.2.2:6000").unwrap());
    collector.set_read_timeout(Some(SILENCE)).unwrap();
    collector
}

fn collected(collector: &UdpSocket) -> Vec<Vec<u8>> {
    let mut buffer = [0; 10_000];
    std::iter::from_fn(|| collector.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec())).collect()
}

/// The next `count` datagrams, or fewer if no more come.
fn receive(collector: &UdpSocket, count: usize) -> Vec<Vec<u8>> {
    collector.set_read_timeout(Some(LIMIT)).unwrap();
    let mut buffer = [0; 10_000];
    let mut next = || collector.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec());
    let got = (0..count).map_while(|_| next()).collect();
    collector.set_read_timeout(Some(SILENCE)).unwrap();
    got
}

/// Plays each capture into `lan` of site A, from the LAN and then from the host itself, and compares what is mirrored with
/// what `expected` says of a frame from there. Returns how many frames or payloads those were.
fn compare(
    collector: &UdpSocket,
    wires: &[(Wire, Side); 2],
    expected: impl Fn(&[u8], Side) -> Option<Vec<u8>>,
) -> usize {
    let mut count = 0;
    for name in CAPTURES {
        let frames = capture(name);
        for (wire, side) in wires {
            let expected: Vec<_> = frames.iter().filter_map(|frame| expected(frame, *side)).collect();
            for frame in &frames {
                wire.send(frame);
            }
            // As many as are due; what comes besides shows in the next round, or at the end.
            let got = receive(collector, expected.len());
            let first = got.iter().zip(&expected).position(|(got, expected)| got != expected);
            assert_eq!((got.len(), first), (expected.len(), None), "{name} from {side:?}: number, first that differs");
            count += got.len();
        }
    }
    assert!(collected(collector).is_empty(), "more than was due");
    count
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
fn filter_sees_vlan_and_both_directions() {
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
        // The mirror also sees frames that the host itself sends.
        std::thread::sleep(Duration::from_millis(50));
        host.send(&syslog);
        let got = collected(&collector);
        assert!(got.iter().eq(expected.iter().copied()), "{filter}: {} frames", got.len());
    }
}

#[test]
fn filter_selects_as_libpcap_does() {
    let sites = Sites::new();
    let (lan, _) = sites.lans(1500);
    let collector = collector(&sites);
    let wires = [(Wire::new(&lan, "eth0"), Side::Lan), (Wire::new(&sites.a, "lan"), Side::Host)];
    for filter in [
        "",
        "udp port 514",
        "udp and ( port 53 or port 5353 ) and host 198.51.100.2",
        "udp portrange 67-68",
        "arp or icmp",
        "icmp6",
        "icmp6[0] = 135 or ip6[6] = 0",
        "tcp[tcpflags] & (tcp-syn|tcp-fin|tcp-rst) != 0",
        "ip6 and tcp port 80",
        "src net 2001:db8:1::/64 and not tcp",
        "ip[6:2] & 0x3fff != 0 or ip6[6] = 44",
        "ether broadcast or ether multicast",
        "ether src 02:00:00:00:00:0b and greater 1000",
        "not ip and not ip6",
        "vlan",
        "udp and not vlan",
        "vlan 77",
        "vlan 77 and udp port 514",
        "vlan 100 and vlan 77 and host 2001:db8:1::2",
    ] {
        let _mirror = Running::classic(&sites.a, "m", &format!("-t 192.0.2.1 6000 192.0.2.2 6000 lan {filter}"));
        let program = offline(filter);
        let count = compare(&collector, &wires, |frame, side| {
            // The kernel takes the outer tag out of what it receives, and only `vlan` looks for it where it then is.
            let hidden = side == Side::Lan && !filter.contains("vlan") && tagged(frame);
            let seen = if hidden { [&frame[..12], &frame[16..]].concat() } else { frame.to_vec() };
            program.filter(&seen).then(|| frame.to_vec())
        });
        assert_ne!(count, 0, "{filter:?} selects nothing");
    }
}

/// Whether a frame begins with a tag of either type.
fn tagged(frame: &[u8]) -> bool {
    matches!(frame[12..14], [0x81, 0] | [0x88, 0xa8])
}

#[test]
fn mirrored_payloads_are_unchanged() {
    let sites = Sites::new();
    let (lan, _) = sites.lans(1500);
    let wires = [(Wire::new(&lan, "eth0"), Side::Lan), (Wire::new(&sites.a, "lan"), Side::Host)];
    let (collector, kinds) = (collector(&sites), udp_kinds());
    let _mirror = Running::classic(&sites.a, "m", "-u 192.0.2.1 6000 192.0.2.2 6000 lan");
    let count = compare(&collector, &wires, |frame, _| {
        let (_, tags, start) = kinds.iter().find(|(program, ..)| program.filter(frame))?;
        Some(frame[*start..ip_end(frame, *tags)].to_vec())
    });
    assert_eq!(count, 2 * 38, "from both sides: 4 of syslog, 9 of dns, 6 of dhcp, 14 of datagrams, 5 of vlan");
}

#[test]
fn loop_check_stops_peer_datagrams_only() {
    let sites = Sites::new();
    let (lan, _) = sites.lans(1500);
    let wires = [(Wire::new(&lan, "eth0"), Side::Lan), (Wire::new(&sites.a, "lan"), Side::Host)];
    // The peer has the address that the captures' datagrams go to.
    for (site, host) in [(&sites.a, 1), (&sites.b, 2)] {
        site.ip(&format!("addr add 2001:db8:1::{host}/64 dev wan nodad"));
    }
    let collector = sites.b.inside(|| UdpSocket::bind("[2001:db8:1::2]:6000").unwrap());
    let own = "host 2001:db8:1::2 and (udp or ip6[6] = 60)";
    let own = offline(&format!("{own} or (vlan 77 and {own})"));
    let _mirror = Running::classic(&sites.a, "m", "-t -loopcheck 2001:db8:1::1 6000 2001:db8:1::2 6000 lan");
    compare(&collector, &wires, |frame, _| (!own.filter(frame)).then(|| frame.to_vec()));
}

/// Kinds of UDP in the captures, whole or a first fragment, behind at most one tag: a filter that only it passes, the length
/// of the tag, and where its payload begins.
fn udp_kinds() -> Vec<(BpfProgram, usize, usize)> {
    let kinds = [
        ("udp and ip[0] = 0x45 and ip[6:2] & 0x1fff = 0", 20),
        ("udp and ip[0] = 0x47 and ip[6:2] & 0x1fff = 0", 28),
        ("ip6[6] = 17", 40),
        ("ip6[6] = 60 and ip6[40] = 17", 48),
        ("ip6[6] = 44 and ip6[40] = 17 and ip6[42:2] & 0xfff8 = 0", 48),
        ("ip6[6] = 60 and ip6[40] = 44 and ip6[48] = 17 and ip6[50:2] & 0xfff8 = 0", 56),
    ];
    let tags = [("", 0), ("vlan and ", 4)];
    let both = tags.iter().flat_map(|tag| kinds.iter().map(move |kind| (tag, kind)));
    both.map(|((prefix, tag), (filter, header))| (offline(&format!("{prefix}{filter}")), *tag, 14 + tag + header + 8))
        .collect()
}

/// Where a packet behind `tag` bytes of tag ends, as its IP header says: padding is not of it, and in a first fragment the
/// UDP header claims more.
fn ip_end(frame: &[u8], tag: usize) -> usize {
    let packet = &frame[14 + tag..];
    let word = |at| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    14 + tag + if packet[0] >> 4 == 4 { word(2) } else { 40 + word(4) }
}

#[test]
fn mirror_sends_nothing_back() {
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

/// UDP with all checksums right, which may not be fragmented and has no identification.
fn uncounted(byte: u8) -> Vec<u8> {
    let mut frame = datagram(9, None, 108, &[byte; 100]);
    frame[20] = 0x40;
    let sum = Sum::of(&frame[14..34]).checksum();
    frame[24..26].copy_from_slice(&sum);
    let pseudo = Sum::of(&frame[26..34]).plus(Sum::of(&[0, 17, 0, 108]));
    let sum = pseudo.plus(Sum::of(&frame[34..])).checksum();
    frame[40..42].copy_from_slice(&sum);
    frame
}

/// Many that come at once are not put together: an interface that cuts them again would count, and order them by flow.
#[test]
fn receiving_end_writes_frames_unchanged() {
    for end in ["-e", "-e -k key -enc aes-128"] {
        let sites = Sites::new();
        let (lan_a, lan_b) = sites.lans(1500);
        let options = end.strip_prefix("-e").unwrap();
        let _mirror = Running::classic(&sites.a, "m", &format!("-t {options} 192.0.2.1 6000 192.0.2.2 6000 lan"));
        let b = Running::classic(&sites.b, "w", &format!("{end} -w 192.0.2.2 6000 192.0.2.1 6000 lan"));
        let (near, mut far) = (Wire::new(&lan_a, "eth0"), Wire::new(&lan_b, "eth0"));
        // A long one first: now it is known what the interface takes.
        near.send(&frame(9, 300));
        assert_eq!(far.receive(LIMIT).as_deref(), Some(&frame(9, 300)[..]));
        let worker = b.pid("worker");
        kill(worker, Signal::SIGSTOP).unwrap();
        let sent: Vec<_> =
            (0..10_u8).flat_map(|byte| [uncounted(byte), uncounted(byte + 100), frame(byte.into(), 80)]).collect();
        for frame in &sent {
            near.send(frame);
        }
        std::thread::sleep(SILENCE);
        kill(worker, Signal::SIGCONT).unwrap();
        let came: Vec<_> = (0..sent.len()).map_while(|_| far.receive(LIMIT)).collect();
        let first = came.iter().zip(&sent).position(|(came, sent)| came != sent);
        assert_eq!((came.len(), first), (sent.len(), None), "{end}: number, and the first that differs");
    }
}

#[test]
fn payloads_end_with_the_capture() {
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
fn unwritten_frames_are_counted() {
    let sites = Sites::new();
    let (lan_a, _lan_b) = sites.lans(1500);
    let path = |here, there| format!("[[path]]\nlocal = \"192.0.2.{here}:6000\"\nremote = \"192.0.2.{there}:6000\"\n");
    let mirror = "mode = \"mirror\"\nwire = \"classic\"\n[mirror]\ninterface = \"lan\"\n";
    let sender = "direction = \"send\"\nmode = \"tap\"\nwire = \"classic\"\n[tap]\nname = \"eu0\"\n";
    let _a = Running::up(&sites.a, "a", &(mirror.to_owned() + &path(1, 2)));
    let wire = Wire::new(&lan_a, "eth0");
    for end in [mirror, sender] {
        let b = Running::up(&sites.b, "b", &(end.to_owned() + &path(2, 1)));
        wait_for("count", LIMIT, || {
            wire.send(&frame(1, 300));
            (b.count("/port/tx_dropped_direction") > 0).then_some(())
        });
        assert_eq!(b.count("/port/tx_frames"), 0);
        let shown = Background::run(&sites.b, &b.scratch, &[], &["show", "b"]);
        assert!(shown.output.contains("this end writes none: at the receiver of a mirror set"), "{}", shown.output);
    }
}
