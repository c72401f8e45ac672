//! Mode raw forwards frames of the sizes that a kernel bridge forwards, and where the kernel does not let it, a larger MTU
//! of the interface does.

use std::time::Duration;

use crate::lab::{Namespace, Running, Sites, Wire, frame, join, wait_for};
use crate::secure::End;

const SILENCE: Duration = Duration::from_millis(300);
const TAGS: [&[u8]; 6] = [
    b"", b"\x81\x00\x00\x63", b"\x88\xa8\x00\x63", b"\x81\x00\x00\x63\x81\x00\x00\x07",
    b"\x88\xa8\x20\x63\x81\x00\x00\x07", b"\x88\xa8\x20\x63\x88\xa8\x00\x07",
];

/// Two LANs whose stations send larger frames than the ports of those who join them take.
fn stations(a: &Namespace, b: &Namespace) -> [Wire; 2] {
    [a, b].map(|lan| {
        lan.ip("link set eth0 mtu 9000");
        Wire::new(lan, "eth0")
    })
}

/// Frames around the border, with every kind of tag.
fn frames() -> Vec<Vec<u8>> {
    let kinds = (1500..=1530).flat_map(|length| TAGS.iter().map(move |tag| (length, tag)));
    let tagged = (0..).zip(kinds).map(|(number, (length, tag))| {
        let mut frame = frame(number, length - tag.len());
        frame.splice(12..12, tag.iter().copied());
        frame
    });
    tagged.collect()
}

/// What comes out at the other end of all frames in each direction.
fn pass([a, b]: &mut [Wire; 2]) -> [Vec<Vec<u8>>; 2] {
    let one_way = |from: &Wire, to: &mut Wire| {
        for frame in frames() {
            from.offer(&frame);
        }
        to.receive_all(SILENCE)
    };
    [one_way(a, b), one_way(b, a)]
}

/// What a kernel bridge forwards whose ports have an MTU of 1500.
fn bridged() -> [Vec<Vec<u8>>; 2] {
    let (bridge, a, b) = (Namespace::new(), Namespace::new(), Namespace::new());
    bridge.ip("link add br0 type bridge mcast_snooping 0");
    for (lan, port) in [(&a, "port1"), (&b, "port2")] {
        join((&bridge, port), (lan, "eth0"), 1500);
        bridge.ip(&format!("link set {port} master br0"));
    }
    bridge.ip("link set br0 up");
    pass(&mut stations(&a, &b))
}

#[test]
fn bridge_carries_full_size_frames() {
    let reference = bridged();
    for way in &reference {
        assert!(way.iter().eq(frames().iter().filter(|frame| frame.len() <= 1518)), "the bridge: {} frames", way.len());
    }
    // The datagrams do not fit through the underlay whole.
    let sites = Sites::new();
    let (lan_a, lan_b) = sites.lans(1500);
    let mut wires = stations(&lan_a, &lan_b);
    let end = |here, there| format!("-e 192.0.2.{here} 6000 192.0.2.{there} 6000 lan");
    let tunnel = [Running::classic(&sites.a, "a", &end(1, 2)), Running::classic(&sites.b, "b", &end(2, 1))];
    // Above the MTU the kernel allows for the tag of 802.1Q alone (`packet_extra_vlan_len_allowed`).
    let sent = |frame: &&Vec<u8>| frame.len() <= 1514 || frame[12..14] == [0x81, 0];
    for (got, bridged) in pass(&mut wires).iter().zip(&reference) {
        assert!(got.iter().eq(bridged.iter().filter(sent)), "{} of {} frames", got.len(), bridged.len());
    }
    let refused = reference[0].iter().filter(|frame| !sent(frame)).count() as u64;
    assert_eq!(tunnel.each_ref().map(|end| end.count("/port/tx_dropped_oversize")), [refused; 2]);
    for end in &tunnel {
        let said = || end.log().lines().filter(|line| line.contains("longer than its MTU")).count();
        wait_for("a line", crate::lab::PATIENCE, || (said() == 1).then_some(()));
    }
    for (mtu, longest) in [(1504, 1518), (1508, 1522)] {
        for site in [&sites.a, &sites.b] {
            site.ip(&format!("link set lan mtu {mtu}"));
        }
        for got in pass(&mut wires) {
            let up_to = got.iter().filter(|frame| frame.len() <= longest);
            assert!(
                up_to.eq(frames().iter().filter(|frame| frame.len() <= longest)),
                "MTU {mtu}: {} frames",
                got.len()
            );
        }
    }
}

#[test]
fn secure_wire_carries_full_size_frames() {
    const LIMIT: Duration = Duration::from_secs(10);
    let port = "mode = \"raw\"\n[raw]\ninterface = \"lan\"\n";
    let sites = Sites::new();
    let (lan_a, lan_b) = sites.lans(1500);
    let (a, b) = (End { port, ..End::A }.start(&sites, "a"), End { port, ..End::B }.start(&sites, "b"));
    a.wait_state("up", LIMIT);
    b.wait_state("up", LIMIT);
    // Where the two LANs differ, the end that cannot send the longer frames counts and says them.
    sites.a.ip("link set lan mtu 9000");
    let [near, mut far] = stations(&lan_a, &lan_b);
    for length in [1514, 9014] {
        near.send(&frame(1, length));
    }
    assert_eq!(far.receive(LIMIT), Some(frame(1, 1514)));
    wait_for("a line", LIMIT, || b.log().contains("longer than its MTU").then_some(()));
    assert_eq!(b.count("/port/tx_dropped_oversize"), 1);
    sites.b.ip("link set lan mtu 9000");
    near.send(&frame(2, 9014));
    assert_eq!(far.receive(LIMIT), Some(frame(2, 9014)));
}
