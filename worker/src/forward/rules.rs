//! Rules on frames between port and wire.

use std::net::SocketAddr;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering::Relaxed;

use privsep::ipc::{Dscp, Secure, SharedPort, header};

use crate::batch::Batch;
use crate::endpoint::Target;
use crate::frame::{class, loops, mss, udp, vlan};
use crate::wire::Route;

/// Most peers whose addresses the loop check compares.
pub const PEERS: usize = privsep::ipc::MAX_PATHS;

/// Rules of a tunnel in a form to apply.
#[allow(clippy::struct_excessive_bools)] // Each is a rule of its own.
pub struct Rules {
    /// Whether frames are taken from the port and sent.
    pub send: bool,
    /// Whether datagrams of this tunnel are kept out of it.
    pub loop_check: bool,
    /// Whether only the payload of UDP datagrams is sent.
    udp_payload: bool,
    mss: Option<Mss>,
    /// Bits of a frame's traffic class that its datagram gets, and the DSCP of all datagrams.
    copied: u8,
    dscp: u8,
    to_remote: Option<vlan::Map>,
    to_local: Option<vlan::Map>,
}

impl Rules {
    /// Takes the rules of the supervisor. Like the original, a tunnel of one direction does not clamp the MSS.
    pub fn new(rules: &privsep::ipc::Rules, udp_payload: bool) -> Self {
        let pairs = || rules.vlan_map.iter().copied();
        let map = |map| (!rules.vlan_map.is_empty()).then_some(map);
        Self {
            send: rules.send,
            loop_check: rules.loop_check,
            udp_payload,
            mss: rules.mss.filter(|_| rules.send && rules.receive).map(|limits| Mss::new(limits, rules.mss_follows)),
            copied: if rules.dscp == Some(Dscp::Copy) { class::DSCP } else { 0 }
                | if rules.ecn { class::ECN } else { 0 },
            dscp: rules.dscp.map_or(0, Dscp::class),
            to_remote: map(vlan::Map::new(pairs())),
            to_local: map(vlan::Map::new(pairs().map(|(local, remote)| (remote, local)))),
        }
    }

    /// Whether a superframe can be treated as one frame.
    pub fn takes_superframes(&self) -> bool {
        !self.udp_payload
    }

    /// Adapts the limits of the MSS to the paths of a route.
    pub fn follow(&self, route: &Route) {
        let Some(mss) = self.mss.as_ref().filter(|mss| mss.follows) else { return };
        let reduced = route.egress.iter().filter(|egress| egress.reduced && egress.target != Target::Unknown);
        let frame = reduced.map(|egress| Secure::largest_frame(egress.datagram.try_into().unwrap_or(u32::MAX))).min();
        let fits = |limit: u16, ip: u16| {
            let fits = frame.map_or(u32::MAX, |frame| frame.saturating_sub((Mss::HEADERS + ip).into()).max(1));
            u16::try_from(fits).map_or(limit, |fits| fits.min(limit))
        };
        mss.v4.store(fits(mss.configured.0, header::IPV4), Relaxed);
        mss.v6.store(fits(mss.configured.1, header::IPV6), Relaxed);
    }

    /// Applies the rules from the port to the wire. `peers` are the addresses of all paths' remotes. `ecn` tells whether the peer
    /// carries congestion marks into frames: otherwise routers must drop datagrams instead of marking them.
    pub fn outward(&self, batch: &mut Batch, peers: &[SocketAddr], ecn: bool, counters: &SharedPort) {
        // The supervisor detects circulating frames by this counter.
        counters.rx_broadcast.add(packets(batch, |frame| frame.starts_with(&[0xff; 6])));
        if self.loop_check {
            let before = batch.packets().0;
            batch.retain(|frame| !loops::is_own(frame, peers));
            counters.rx_dropped_loop.add(before - batch.packets().0);
        } else {
            counters.rx_own.add(packets(batch, |frame| loops::is_datagram(frame, peers)));
        }
        self.change(batch, self.to_remote.as_ref());
        let copied = if ecn { self.copied } else { self.copied & class::DSCP };
        if copied != 0 {
            for index in 0..batch.len() {
                let bits = class::of(batch.frame(index)) & copied;
                // The socket has the DSCP of all datagrams.
                batch.set_class(index..=index, if bits == 0 { 0 } else { bits | self.dscp });
            }
        }
        if self.udp_payload {
            batch.filter_map(|_, slot, length| {
                let payload = udp::inner(&slot[..length])?;
                let length = payload.len();
                slot.copy_within(payload, 0);
                Some(length)
            });
        }
    }

    /// Applies the rules from the wire to the port.
    pub fn inward(&self, batch: &mut Batch, counters: &SharedPort) {
        // Other marks change no frame.
        const MARKED: u8 = 0b01;
        if self.copied & class::ECN != 0 && batch.has_class(MARKED) {
            let before = batch.len();
            batch.retain_spans(|frame, span| class::carry_in(frame, span.class));
            counters.tx_dropped_congestion.add((before - batch.len()) as u64);
        }
        self.change(batch, self.to_local.as_ref());
    }

    fn change(&self, batch: &mut Batch, map: Option<&vlan::Map>) {
        if self.mss.is_none() && map.is_none() {
            return;
        }
        let limits = self.mss.as_ref().map(Mss::get);
        for index in 0..batch.len() {
            let partial = batch.span(index).facts.checksum;
            let frame = batch.frame_mut(index);
            if let Some(limits) = limits {
                mss::clamp(frame, limits, partial);
            }
            if let Some(map) = map {
                map.apply(frame);
            }
        }
    }
}

/// Upper limits of the MSS over IPv4 and over IPv6, which the session lowers while a path carries less than its underlay promised.
struct Mss {
    configured: (u16, u16),
    follows: bool,
    v4: AtomicU16,
    v6: AtomicU16,
}

impl Mss {
    /// Headers before a TCP segment: Ethernet with a VLAN tag, TCP without options.
    const HEADERS: u16 = 18 + 20;

    fn new(configured: (u16, u16), follows: bool) -> Self {
        Self { configured, follows, v4: configured.0.into(), v6: configured.1.into() }
    }

    fn get(&self) -> (u16, u16) {
        (self.v4.load(Relaxed), self.v6.load(Relaxed))
    }
}

/// Number of packets of the frames for which `counted` returns true.
fn packets(batch: &Batch, counted: impl Fn(&[u8]) -> bool) -> u64 {
    let numbers = (0..batch.len()).filter(|&index| counted(batch.frame(index)));
    numbers.map(|index| batch.span(index).packets().0).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::offload::superframe::{Facts, Segments, Superframe};

    const LIMITS: (u16, u16) = (1360, 1340);

    fn batch(frames: &[&[u8]]) -> Batch {
        let mut batch = Batch::with_slots(frames.len());
        for frame in frames {
            batch.append_copy(frame);
        }
        batch
    }

    /// Rules that forward both ways and do nothing else.
    fn both() -> privsep::ipc::Rules {
        privsep::ipc::Rules { send: true, receive: true, ..Default::default() }
    }

    /// SYN over IPv4 behind a tag of this VLAN, with an MSS of 1460, and the position of the MSS.
    fn syn(vlan: u8) -> (Vec<u8>, std::ops::Range<usize>) {
        let ip = [0x45, 0, 0, 44, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let tcp = [0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x60, 2, 0, 0, 0, 0, 0, 0, 2, 4, 5, 180];
        ([&[1; 12][..], &[0x81, 0, 0, vlan, 8, 0], &ip, &tcp].concat(), 60..62)
    }

    /// UDP datagram over IPv4 from 192.0.2.9 to this host and port.
    fn datagram(to: u8, port: u8) -> Vec<u8> {
        let ip = [0x45, 0, 0, 33, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 9, 192, 0, 2, to];
        [&[1; 12][..], &[8, 0], &ip, &[0, 9, 0, port, 0, 13, 0, 0], b"hello"].concat()
    }

    #[test]
    fn mss_is_lowered_in_both_directions() {
        for (send, receive, lowered) in [(true, true, true), (true, false, false), (false, true, false)] {
            let rules = Rules::new(&privsep::ipc::Rules { send, receive, mss: Some(LIMITS), ..both() }, false);
            let (frame, at) = syn(7);
            let expected = if lowered { LIMITS.0 } else { 1460 }.to_be_bytes();
            let (mut outward, mut inward) = (batch(&[&frame]), batch(&[&frame]));
            rules.outward(&mut outward, &[], false, &SharedPort::default());
            rules.inward(&mut inward, &SharedPort::default());
            assert_eq!(outward.frame(0)[at.clone()], expected, "outward of {send}, {receive}");
            assert_eq!(inward.frame(0)[at], expected, "inward of {send}, {receive}");
        }
    }

    #[test]
    fn auto_mss_follows_reduced_paths() {
        use crate::wire::route::Egress;
        let target = Target::Fixed(SocketAddr::from(([192, 0, 2, 1], 6000)).into());
        let route = |datagrams: [(usize, bool); 2]| {
            let egress = datagrams.map(|(datagram, reduced)| Egress { reduced, ..Egress::new(target, datagram) });
            Route { active: 0, egress: egress.into(), ..Route::default() }
        };
        for (follows, datagrams, expected) in [
            (true, [(1472, false), (1472, false)], LIMITS),
            // A search in progress changes nothing.
            (true, [(1252, false), (1472, false)], LIMITS),
            // 1252 - 36 - 18 - 20 - 20 or 40.
            (true, [(1472, false), (1252, true)], (1158, 1138)),
            (true, [(1300, true), (1252, true)], (1158, 1138)),
            (true, [(1472, true), (1472, true)], LIMITS),
            (false, [(1252, true), (1252, true)], LIMITS),
        ] {
            let rules = privsep::ipc::Rules { mss: Some(LIMITS), mss_follows: follows, ..both() };
            let rules = Rules::new(&rules, false);
            rules.follow(&route([(1252, true), (1252, true)]));
            rules.follow(&route(datagrams));
            assert_eq!(rules.mss.as_ref().unwrap().get(), expected, "{datagrams:?}");
        }
    }

    #[test]
    fn vlan_map_is_reversed_inward() {
        let rules = Rules::new(&privsep::ipc::Rules { vlan_map: vec![(7, 9), (9, 11)], ..both() }, false);
        let vlan = |batch: &Batch| (0..batch.len()).map(|index| batch.frame(index)[15]).collect::<Vec<_>>();
        let mut frames = batch(&[&syn(7).0, &syn(9).0, &syn(8).0]);
        rules.outward(&mut frames, &[], false, &SharedPort::default());
        assert_eq!(vlan(&frames), [9, 11, 8]);
        rules.inward(&mut frames, &SharedPort::default());
        assert_eq!(vlan(&frames), [7, 9, 8]);
    }

    /// UDP datagram over IPv4 with this traffic class.
    fn classified(class: u8) -> Vec<u8> {
        let mut frame = datagram(2, 60);
        frame[15] = class;
        frame
    }

    #[test]
    fn class_of_datagram_follows_rules() {
        let arp = [&[1; 12][..], &[8, 6], &[0xff; 46]].concat();
        let frames = [classified(0xb8), classified(0xba), classified(0x03), classified(0), arp];
        for (dscp, ecn, peer, expected) in [
            (None, false, true, [0; 5]),
            (None, true, true, [0, 2, 3, 0, 0]),
            (None, true, false, [0; 5]),
            (Some(Dscp::Copy), false, true, [0xb8, 0xb8, 0, 0, 0]),
            (Some(Dscp::Copy), true, true, [0xb8, 0xba, 3, 0, 0]),
            (Some(Dscp::Copy), true, false, [0xb8, 0xb8, 0, 0, 0]),
            // The socket's own class is 0x20.
            (Some(Dscp::Fixed(8)), true, true, [0, 0x22, 0x23, 0, 0]),
            (Some(Dscp::Fixed(8)), true, false, [0; 5]),
        ] {
            let rules = Rules::new(&privsep::ipc::Rules { dscp, ecn, ..both() }, false);
            let mut batch = batch(&frames.each_ref().map(|frame| &frame[..]));
            rules.outward(&mut batch, &[], peer, &SharedPort::default());
            let classes: Vec<_> = (0..batch.len()).map(|index| batch.span(index).class).collect();
            assert_eq!(classes, expected, "{dscp:?}, {ecn}, {peer}");
        }
    }

    #[test]
    fn unmarkable_frame_is_dropped_and_counted() {
        for (ecn, left, dropped) in [(true, vec![0x03, 0xbb], 1), (false, vec![0x02, 0xbb, 0], 0)] {
            let (rules, counters) = (Rules::new(&privsep::ipc::Rules { ecn, ..both() }, false), SharedPort::default());
            let mut frames = batch(&[&classified(0x02), &classified(0xbb), &classified(0)]);
            frames.set_class(.., class::ECN);
            rules.inward(&mut frames, &counters);
            let classes: Vec<_> = frames.frames(0).map(class::of).collect();
            assert_eq!((classes, counters.tx_dropped_congestion.get()), (left, dropped), "{ecn}");
        }
    }

    #[test]
    fn own_datagrams_are_dropped_or_counted() {
        let peers = [SocketAddr::from(([192, 0, 2, 2], 60))];
        // Datagrams to the peer's port, to another port of the peer, to another host.
        let (own, beside, other) = (datagram(2, 60), datagram(2, 61), datagram(3, 60));
        for (loop_check, left, dropped, counted) in
            [(true, vec![&other], 2, 0), (false, vec![&own, &beside, &other], 0, 1)]
        {
            let rules = Rules::new(&privsep::ipc::Rules { loop_check, ..both() }, false);
            let (mut frames, counters) = (batch(&[&own, &beside, &other]), SharedPort::default());
            rules.outward(&mut frames, &peers, false, &counters);
            assert!(frames.frames(0).eq(left.iter().map(|frame| &frame[..])), "{loop_check}");
            assert_eq!((counters.rx_dropped_loop.get(), counters.rx_own.get()), (dropped, counted), "{loop_check}");
        }
    }

    #[test]
    fn broadcasts_are_counted_and_pass() {
        let (rules, counters) = (Rules::new(&both(), false), SharedPort::default());
        let broadcast = [&[0xff; 6][..], &[1; 54]].concat();
        let mut frames = batch(&[&broadcast, &[1; 60], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 1], &broadcast]);
        rules.outward(&mut frames, &[], false, &counters);
        assert_eq!((frames.len(), counters.rx_broadcast.get()), (4, 2));
    }

    #[test]
    fn superframe_counts_as_its_packets() {
        let peers = [SocketAddr::from(([192, 0, 2, 2], 60))];
        let (own, broadcast) = (datagram(2, 60), [&[0xff; 6][..], &[1; 54]].concat());
        for loop_check in [true, false] {
            let rules = Rules::new(&privsep::ipc::Rules { loop_check, ..both() }, false);
            let (mut frames, counters) = (batch(&[&own, &broadcast, &own]), SharedPort::default());
            for (index, header, segment) in [(0, 42, 2), (1, 50, 4)] {
                let superframe = Some(Superframe { kind: Segments::Udp, header, segment });
                frames.set_facts(index, Facts { superframe, ..Facts::default() });
            }
            rules.outward(&mut frames, &peers, false, &counters);
            // Five bytes in segments of two, ten bytes in segments of four, and a single one.
            let own = if loop_check { (4, 0) } else { (0, 4) };
            let counted = (counters.rx_dropped_loop.get(), counters.rx_own.get());
            assert_eq!((counted, counters.rx_broadcast.get()), (own, 3), "{loop_check}");
        }
    }

    #[test]
    fn mirror_udp_sends_payload_only() {
        let rules = Rules::new(&both(), true);
        let mut frames = batch(&[&syn(7).0, &datagram(2, 60), &[1; 60]]);
        rules.outward(&mut frames, &[], false, &SharedPort::default());
        assert!(frames.frames(0).eq([b"hello"]));
    }
}
