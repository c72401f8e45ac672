//! Segmentation.

use ethudp_worker::frame::offload::segment::Segmenter;
use ethudp_worker::frame::offload::superframe::{Checksum, Facts, Segments, Superframe};
use ethudp_worker::frame::offload::{self, Refused};
use ethudp_worker::fuzzing;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::reference::Flow;

/// The kernel's facts about a superframe of this flow.
pub fn facts(flow: &Flow, segment: u16) -> Facts {
    let (_, transport, header) = flow.layout();
    let kind = match (flow.udp, flow.v6) {
        (true, _) => Segments::Udp,
        (false, false) => Segments::Tcp4,
        (false, true) => Segments::Tcp6,
    };
    let start = u16::try_from(transport).unwrap();
    Facts {
        checksum: Some(Checksum { start, offset: if flow.udp { 6 } else { 16 } }),
        superframe: Some(Superframe { kind, header: u16::try_from(header).unwrap(), segment }),
        vlan: None,
    }
}

fn cut(frame: &[u8], facts: &Facts) -> Result<Vec<Vec<u8>>, Refused> {
    // In the kernel's form.
    let facts = offload::parse(&offload::write(facts), frame)?;
    let mut segmenter = Segmenter::new(frame, &facts)?;
    let mut frames = Vec::new();
    while let Some((headers, payload)) = segmenter.cut() {
        frames.push([headers, payload].concat());
    }
    Ok(frames)
}

/// Extension headers that each segment repeats: hop-by-hop, routing, destination options.
fn extensions() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    let of = |kind: u8| (Just(kind), (1..4_usize).prop_map(|words| vec![0; words * 8]));
    prop_oneof![
        3 => Just(Vec::new()),
        1 => (of(0), of(60)).prop_map(|(one, other)| vec![one, other]),
        1 => (of(43), of(60)).prop_map(|(one, other)| vec![one, other]),
    ]
}

/// Flows of every kind that can be segmented.
pub fn flows() -> impl Strategy<Value = Flow> {
    let tags = vec(prop_oneof![Just([0x81, 0, 0x60, 7]), Just([0x88, 0xa8, 0, 9])], 0..4);
    let lengths = (0..=10_usize, 0..=10_usize);
    (any::<(bool, bool, u8, u8, u32, u16, bool)>(), tags, extensions(), lengths).prop_map(
        |((v6, udp, traffic_class, hops, acknowledged, window, df), tags, extensions, lengths)| Flow {
            tags: tags.concat(),
            extensions: if v6 { extensions } else { Vec::new() },
            ip_options: if v6 { Vec::new() } else { vec![1; lengths.0 * 4] },
            options: vec![1; lengths.1 * 4],
            traffic_class,
            hops,
            fragment: if df { 0x4000 } else { 0 },
            acknowledged,
            window,
            ..Flow::new(v6, udp)
        },
    )
}

proptest! {
    #[test]
    fn segments_match_reference(
        flow in flows(), id: u16, sequence: u32, flags: u8, segment in 1..3000_u16, payload in vec(any::<u8>(), 0..9000),
    ) {
        let segment = segment.max(u16::try_from(payload.len() / 100).unwrap());
        let frame = flow.superframe(id, sequence, flags, &payload);
        let frames = cut(&frame, &facts(&flow, segment)).unwrap();
        prop_assert_eq!(frames, flow.cut(id, sequence, flags, &payload, usize::from(segment)));
    }

    #[test]
    fn gro_superframe_needs_no_partial_checksum(
        flow in flows(), id: u16, checksum: [u8; 2], payload in vec(any::<u8>(), 1..9000),
    ) {
        let mut frame = flow.superframe(id, 2, 0x10, &payload);
        let told = facts(&flow, 1000);
        let Checksum { start, offset } = told.checksum.unwrap();
        frame[usize::from(start + offset)..][..2].copy_from_slice(&checksum);
        let frames = cut(&frame, &Facts { checksum: None, ..told });
        if flow.extensions.is_empty() {
            prop_assert_eq!(frames.unwrap(), flow.cut(id, 2, 0x10, &payload, 1000));
        } else {
            prop_assert!(frames.is_err(), "where it goes in the end is not known");
        }
    }

    #[test]
    fn damaged_superframe_is_harmless(flow in flows(), at: Index, to: u8, length: Index) {
        let mut frame = flow.superframe(1, 2, 0x10, &[5; 4000]);
        let at = at.index(flow.layout().2);
        frame[at] = to;
        let cut_off = length.index(frame.len());
        for frame in [&frame[..], &frame[..cut_off]] {
            if let Ok(frames) = cut(frame, &facts(&flow, 1000)) {
                // The change left the end of the headers as it was, or is not detectable.
                prop_assert!(frames.len() <= 5 && frames.concat().len() <= frame.len() + 4 * 256);
            }
        }
    }
}

#[test]
fn largest_superframe_is_split() {
    for (v6, udp) in [(false, false), (false, true), (true, false), (true, true)] {
        let flow = Flow::new(v6, udp);
        let payload: Vec<u8> = (0..65_400_u32).map(|number| number.to_be_bytes()[3]).collect();
        let frame = flow.superframe(65_500, u32::MAX - 5, 0x99, &payload);
        let frames = cut(&frame, &facts(&flow, 1400)).unwrap();
        assert_eq!(frames.len(), 47);
        assert!(frames == flow.cut(65_500, u32::MAX - 5, 0x99, &payload, 1400));
    }
}

/// In UDP a zero checksum means none, so the other zero replaces it. In TCP zero is an ordinary value.
#[test]
fn zero_checksum_follows_protocol() {
    for (v6, udp, zero) in
        [(false, true, [0xff; 2]), (true, true, [0xff; 2]), (false, false, [0; 2]), (true, false, [0; 2])]
    {
        let flow = Flow::new(v6, udp);
        let (_, transport, _) = flow.layout();
        let field = transport + if udp { 6 } else { 16 };
        let payload = |word: u16| [&word.to_be_bytes()[..], &[1; 98]].concat();
        let sum_is_zero = |word: &u16| flow.frame(1, 2, 0x10, &payload(*word)[..50])[field..field + 2] == zero;
        let payload = payload((0..=u16::MAX).find(sum_is_zero).unwrap());
        let frames = cut(&flow.superframe(1, 2, 0x10, &payload), &facts(&flow, 50)).unwrap();
        assert_eq!(frames[0][field..field + 2], zero);
        assert_eq!(frames, flow.cut(1, 2, 0x10, &payload, 50));
        assert_eq!(fuzzing::coalesce(&frames), [[0, 1]]);
        // The other zero is valid as well, but would not be written again.
        let mut other = frames;
        other[0][field..field + 2].copy_from_slice(&zero.map(|byte: u8| !byte));
        assert_eq!(fuzzing::coalesce(&other), [[0], [1]]);
    }
}

/// The kernel writes an IPv4 length of zero if the packet is longer than the field allows.
#[test]
fn zero_ipv4_length_means_frame_length() {
    let flow = Flow::new(false, false);
    let mut frame = flow.superframe(1, 2, 0x10, &[1; 3000]);
    frame[16..18].fill(0);
    assert_eq!(cut(&frame, &facts(&flow, 1400)), Ok(flow.cut(1, 2, 0x10, &[1; 3000], 1400)));
}

#[test]
fn unknown_superframe_is_refused() {
    let (tcp4, tcp6, udp) = (Flow::new(false, false), Flow::new(true, false), Flow::new(false, true));
    let check = |flow: &Flow, change: &dyn Fn(&mut Vec<u8>, &mut Facts), refused: Refused| {
        let (mut frame, mut facts) = (flow.superframe(1, 2, 0x10, &[1; 3000]), facts(flow, 1000));
        change(&mut frame, &mut facts);
        assert_eq!(cut(&frame, &facts), Err(refused), "{refused}");
    };
    let not = Refused::NotTransport;
    let byte = |at: usize, to: u8| move |frame: &mut Vec<u8>, _: &mut Facts| frame[at] = to;
    check(&tcp4, &byte(12, 0x86), not(Segments::Tcp4));
    check(&tcp4, &byte(14, 0x65), not(Segments::Tcp4));
    check(&tcp4, &byte(23, 4), not(Segments::Tcp4)); // IPIP
    check(&tcp6, &byte(20, 41), not(Segments::Tcp6)); // 6in4
    check(&tcp6, &byte(20, 51), not(Segments::Tcp6)); // authentication header
    check(&udp, &byte(23, 6), not(Segments::Udp));
    check(&tcp4, &byte(14, 0x44), Refused::Length(14));
    check(&tcp4, &byte(17, 1), Refused::Length(14));
    check(&tcp6, &byte(19, 1), Refused::Length(14));
    check(&udp, &byte(39, 1), Refused::Length(34));
    check(&tcp4, &byte(46, 0x40), Refused::Length(34));
    check(&tcp4, &byte(20, 0x20), Refused::Fragment);
    check(&tcp4, &byte(21, 1), Refused::Fragment);
    check(&tcp6, &byte(20, 44), Refused::Fragment);
    check(&tcp4, &|frame, _| frame.push(0), Refused::Length(14));
    // Inside a tunnel: the summed bytes begin behind these headers.
    let inner = |_: &mut Vec<u8>, facts: &mut Facts| facts.checksum = Some(Checksum { start: 70, offset: 16 });
    check(&tcp4, &inner, not(Segments::Tcp4));
    check(&tcp4, &|_, facts| facts.superframe = None, Refused::Kind(0));
    let kind = |kind| move |_: &mut Vec<u8>, facts: &mut Facts| facts.superframe.as_mut().unwrap().kind = kind;
    check(&tcp4, &kind(Segments::Tcp6), not(Segments::Tcp6));
    check(&tcp6, &kind(Segments::Tcp4), not(Segments::Tcp4));
    let long = Flow { extensions: vec![(60, vec![0; 200])], ..Flow::new(true, false) };
    check(&long, &|_, _| {}, Refused::LongHeaders(274));
}

#[test]
fn impossible_segments_are_refused() {
    let flow = Flow::new(false, false);
    let mut frame = flow.superframe(1, 2, 0x10, &vec![1; 60_000]);
    frame[16..18].fill(0);
    frame.extend_from_slice(&[1; 10_000]);
    assert_eq!(cut(&frame, &facts(&flow, 65_500)), Err(Refused::SegmentSize(65_500)));
    assert_eq!(cut(&frame, &facts(&flow, 65_495)).unwrap().len(), 2);
}
