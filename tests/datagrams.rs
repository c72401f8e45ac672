//! Datagrams of every length and of no sense: counted and dropped, nothing logged, nothing broken.

use std::net::UdpSocket;
use std::time::Duration;

use crate::lab::{Namespace, PATIENCE, Running, Sites, Wire, allowed, frame, wait_for};

/// Our end of the tunnel, and the peer's socket in our hands.
fn end(sites: &Sites, options: &str) -> (Running, UdpSocket) {
    let peer = sites.b.inside(|| UdpSocket::bind("192.0.2.2:6000").unwrap());
    peer.connect("192.0.2.1:6000").unwrap();
    peer.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let arguments = format!("-i -dev eu0 {options} 192.0.2.1 6000 192.0.2.2 6000 10.8.0.1 24");
    (Running::classic(&sites.a, "a", &arguments), peer)
}

/// Waits until `count` more datagrams than before have been handled.
fn settle(end: &Running, count: u64) {
    let handled = || end.count("/paths/0/rx_datagrams") + end.count("/paths/0/rx_dropped_oversize");
    let start = std::time::Instant::now();
    while handled() < count {
        assert!(start.elapsed() < PATIENCE, "{} of {count} datagrams: {}", handled(), end.status());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn every_datagram_length_is_survived() {
    // So large that no datagram is fragmented on the way.
    let sites = Sites::with_mtu(65535);
    for options in ["", "-k 0123456789abcdef"] {
        let (end, peer) = end(&sites, options);
        // A slow machine needs more than ten seconds, after which the silent peer is reported once.
        let lines = || end.log().lines().filter(|line| !line.contains("not up for 10 s")).count();
        let before = lines();
        let garbage: Vec<u8> = (0..65507_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for length in 0..=65507 {
            peer.send(&garbage[..length]).unwrap();
            if length % 50 == 0 {
                // Not faster than it reads, so that none is lost in a queue.
                settle(&end, length as u64 + 1);
            }
        }
        settle(&end, 65508);
        let status = end.status();
        let (path, port) = (&status["paths"][0], &status["port"]);
        let sum = |fields: &[&serde_json::Value]| fields.iter().map(|field| field.as_u64().unwrap()).sum::<u64>();
        assert_eq!(path["rx_dropped_oversize"], 65507 - 9270, "{path}");
        let all = [&path["rx_dropped_invalid"], &port["tx_dropped_short"], &port["tx_frames"], &port["tx_errors"]];
        assert_eq!(sum(&all), 9271, "{status}");
        if options.is_empty() {
            // Only the empty one is no frame; from 9235 on it is over the limit.
            assert_eq!((&path["rx_dropped_invalid"], &port["tx_dropped_short"]), (&37.into(), &13.into()), "{status}");
        }
        assert_eq!(lines(), before, "{}", end.log());
        assert_eq!(end.count("/worker_restarts"), 0);
    }
}

#[test]
fn truncated_ciphertext_is_dropped() {
    let sites = Sites::new();
    let (end, peer) = end(&sites, "-enc xor -k x");
    drop(end);
    // What one of our ends has sealed, another opens; cut anywhere it is dropped.
    let sealed = sealed_frame(&sites, &peer);
    let (end, mut wire) = {
        let arguments = "-i -dev eu0 -k key 192.0.2.1 6000 192.0.2.2 6000 10.8.0.1 24";
        (Running::classic(&sites.a, "a", arguments), Wire::new(&sites.a, "eu0"))
    };
    let whole =
        |wire: &mut Wire| std::iter::from_fn(|| wire.receive(Duration::from_millis(300))).any(|f| f == frame(1, 100));
    for length in 0..sealed.len() {
        peer.send(&sealed[..length]).unwrap();
    }
    settle(&end, sealed.len() as u64);
    assert!(!whole(&mut wire), "a cut datagram gave the whole frame");
    // Cut at a block's end, 1 in 256 has padding that looks right; 6 blocks are cut here.
    assert!(end.count("/paths/0/rx_dropped_invalid") >= sealed.len() as u64 - 6);
    peer.send(&sealed).unwrap();
    assert!(whole(&mut wire));
}

/// The datagram that an end with this test's key makes of `frame(1, 100)`.
fn sealed_frame(sites: &Sites, peer: &UdpSocket) -> Vec<u8> {
    let arguments = "-i -dev eu0 -k key 192.0.2.1 6000 192.0.2.2 6000 10.8.0.1 24";
    let _end = Running::classic(&sites.a, "a", arguments);
    Wire::new(&sites.a, "eu0").send(&frame(1, 100));
    let mut buffer = [0; 2000];
    wait_for("sealed frame", PATIENCE, || {
        // Everything shorter is a PING.
        peer.recv(&mut buffer).ok().filter(|&length| length > 100).map(|length| buffer[..length].to_vec())
    })
}

#[test]
fn strangers_are_ignored() {
    let sites = Sites::new();
    let (end, peer) = end(&sites, "");
    let others = |site: &Namespace, address: &'static str| site.inside(|| UdpSocket::bind(address).unwrap());
    sites.b.ip("addr add 192.0.2.3/24 dev wan");
    for stranger in [others(&sites.b, "192.0.2.2:6001"), others(&sites.b, "192.0.2.3:6000")] {
        stranger.send_to(b"PING:PING:", "192.0.2.1:6000").unwrap();
        stranger.send_to(&frame(1, 100), "192.0.2.1:6000").unwrap();
    }
    peer.send(b"PING:PING:").unwrap();
    settle(&end, 1);
    assert_eq!((end.count("/paths/0/rx_datagrams"), end.count("/port/tx_frames")), (1, 0));
}

/// An ICMP "destination unreachable" of this code, from another host, about a datagram from 192.0.2.1 to 192.0.2.2.
fn unreachable(code: u8) -> Vec<u8> {
    fn checksum(bytes: &[u8]) -> [u8; 2] {
        let words = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
        let sum: u32 = words.sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        u16::try_from(!((folded & 0xffff) + (folded >> 16)) & 0xffff).unwrap().to_be_bytes()
    }
    let ip = |protocol: u8, length: u8, from: [u8; 4], to: [u8; 4]| {
        let mut header = vec![0x45, 0, 0, length, 0, 0, 0, 0, 64, protocol, 0, 0];
        header.extend_from_slice(&[from, to].concat());
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum);
        header
    };
    let about = [ip(17, 40, [192, 0, 2, 1], [192, 0, 2, 2]), vec![0x17, 0x70, 0x17, 0x70, 0, 20, 0, 0]].concat();
    let mut icmp = [&[3, code, 0, 0, 0, 0, 0, 0], &about[..]].concat();
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum);
    [ip(1, 56, [192, 0, 2, 55], [192, 0, 2, 1]), icmp].concat()
}

#[test]
fn forged_icmp_slows_nothing() {
    let sites = Sites::new();
    let (end, peer) = end(&sites, "");
    let (underlay, mut wire) = (Wire::new(&sites.b, "wan"), Wire::new(&sites.a, "eu0"));
    let header = [sites.a.mac("wan"), sites.b.mac("wan"), vec![8, 0]].concat();
    let start = std::time::Instant::now();
    for number in 0..200 {
        // Protocol, port, source route, network and host unknown, host isolated, ...
        let code = [2, 3, 5, 6, 7, 8][number as usize % 6];
        underlay.send(&[&header[..], &unreachable(code)].concat());
        peer.send(&frame(number, 100)).unwrap();
        assert_eq!(wire.receive(PATIENCE), Some(frame(number, 100)), "code {code}");
    }
    // Each used to cost a pause of 100 ms.
    assert!(start.elapsed() < allowed(Duration::from_secs(5)), "{:?}", start.elapsed());
    assert!(end.count("/paths/0/rx_errors") > 20, "the messages did not arrive: {}", end.status());
}
