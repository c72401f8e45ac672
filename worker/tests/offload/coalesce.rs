//! Coalescing.

use ethudp_worker::frame::offload;
use ethudp_worker::frame::offload::coalesce::Coalescer;
use ethudp_worker::frame::offload::segment::Segmenter;
use ethudp_worker::frame::offload::superframe::Checksum;
use ethudp_worker::fuzzing;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::reference::Flow;
use super::segment::{facts, flows};

const ACK: u8 = 0x10;
const PSH: u8 = 0x08;

/// Runs of frames that are sent as one. Each frame is sent once and in order within its flow, and segmentation yields the same
/// frames.
fn runs(frames: &[Vec<u8>]) -> Vec<Vec<usize>> {
    fuzzing::coalesce(frames)
}

fn both(frames: &[Vec<u8>]) -> bool {
    let runs = runs(frames);
    assert!(runs == [vec![0, 1]] || runs == [vec![0], vec![1]]);
    runs.len() == 1
}

fn kinds() -> impl Iterator<Item = Flow> {
    [(false, false), (false, true), (true, false), (true, true)].into_iter().map(|(v6, udp)| Flow::new(v6, udp))
}

proptest! {
    #[test]
    fn split_superframe_is_restored(
        flow in flows(), id: u16, sequence: u32, push: bool, byte: u8,
        count in 2..40_usize, size in 1..1500_usize, last in 1..=1500_usize,
    ) {
        let tags = flow.tags[..flow.tags.len().min(8)].to_vec();
        let flow = Flow { tags, extensions: Vec::new(), ip_options: Vec::new(), ..flow };
        let length = (count - 1) * size + last.min(size);
        let payload: Vec<u8> = (0..length).map(|at| byte.wrapping_mul(at.to_le_bytes()[0])).collect();
        let flags = if push { ACK | PSH } else { ACK };
        let whole = flow.superframe(id, sequence, flags, &payload);
        let cut = flow.cut(id, sequence, flags, &payload, size);
        prop_assume!(!cut.iter().any(|frame| unusual(&flow, frame)));
        let mut coalescer = Coalescer::new(true);
        coalescer.plan(cut.len(), |index| &cut[index]);
        let planned: Vec<_> = coalescer.planned().collect();
        prop_assert_eq!(planned.len(), 1);
        let mut frame = planned[0].headers().to_vec();
        planned[0].parts().for_each(|(index, from)| frame.extend_from_slice(&cut[index][from..]));
        prop_assert_eq!(frame, whole);
        prop_assert_eq!(planned[0].facts(), facts(&flow, u16::try_from(size).unwrap()));
        runs(&cut);
    }

    /// The same with partial checksums. If only one frame has a partial checksum, it stays separate.
    #[test]
    fn partial_superframe_is_restored(
        flow in flows(), id: u16, sequence: u32, push: bool, other: Index,
        count in 2..40_usize, size in 1..1500_usize, last in 1..=1500_usize,
    ) {
        let tags = flow.tags[..flow.tags.len().min(8)].to_vec();
        let flow = Flow { tags, extensions: Vec::new(), ip_options: Vec::new(), ..flow };
        let length = (count - 1) * size + last.min(size);
        let payload: Vec<u8> = (0..length).map(|at| at.to_le_bytes()[0]).collect();
        let flags = if push { ACK | PSH } else { ACK };
        let whole = flow.superframe(id, sequence, flags, &payload);
        let facts = facts(&flow, u16::try_from(size).unwrap());
        let mut segmenter = Segmenter::new(&whole, &facts).unwrap().leave_partial();
        let mut cut = Vec::new();
        while let Some((headers, payload)) = segmenter.cut() {
            cut.push([headers, payload].concat());
        }
        // Except for the checksum they equal the reference, and so they do once it is completed.
        let checksum = facts.checksum.unwrap();
        let complete = flow.cut(id, sequence, flags, &payload, size);
        prop_assume!(!complete.iter().any(|frame| unusual(&flow, frame)));
        for (frame, complete) in cut.iter().zip(&complete) {
            let mut completed = frame.clone();
            offload::complete_checksum(&mut completed, checksum).unwrap();
            let (mut expected, field) = (complete.clone(), usize::from(checksum.start + checksum.offset));
            // Completing a checksum writes the other zero, as the kernel does.
            if expected[field..field + 2] == [0, 0] {
                expected[field..field + 2].fill(0xff);
            }
            prop_assert!(completed == expected);
        }
        let mut coalescer = Coalescer::new(true);
        coalescer.plan_partial(cut.len(), |index| &cut[index], |_| Some(checksum));
        let planned: Vec<_> = coalescer.planned().collect();
        prop_assert_eq!(planned.len(), 1);
        let mut frame = planned[0].headers().to_vec();
        planned[0].parts().for_each(|(index, from)| frame.extend_from_slice(&cut[index][from..]));
        prop_assert_eq!(frame, whole);
        prop_assert_eq!(planned[0].facts(), facts);
        let other = other.index(count);
        cut[other].clone_from(&complete[other]);
        let runs = fuzzing::coalesce_partial(&cut, |index| (index != other).then_some(checksum));
        prop_assert!(runs.contains(&vec![other]));
    }

    /// A wrong sum of the pseudo header, or a checksum elsewhere, is not corrected by coalescing.
    #[test]
    fn wrong_partial_checksum_is_not_joined(v6: bool, udp: bool, wrong in 1..=u16::MAX, at in 0..2_usize) {
        let flow = Flow::new(v6, udp);
        let told = facts(&flow, 100);
        let checksum = told.checksum.unwrap();
        let whole = flow.superframe(1, 2, ACK, &[3; 200]);
        let mut segmenter = Segmenter::new(&whole, &told).unwrap().leave_partial();
        let mut cut = Vec::new();
        while let Some((headers, payload)) = segmenter.cut() {
            cut.push([headers, payload].concat());
        }
        prop_assert_eq!(fuzzing::coalesce_partial(&cut, |_| Some(checksum)), [[0, 1]]);
        let elsewhere = Checksum { start: checksum.start - 2, ..checksum };
        let runs = fuzzing::coalesce_partial(&cut, |index| Some(if index == at { elsewhere } else { checksum }));
        prop_assert_eq!(runs, [[0], [1]]);
        let field = usize::from(checksum.start + checksum.offset);
        let word = u16::from_be_bytes([cut[at][field], cut[at][field + 1]]) ^ wrong;
        cut[at][field..field + 2].copy_from_slice(&word.to_be_bytes());
        prop_assert_eq!(fuzzing::coalesce_partial(&cut, |_| Some(checksum)), [[0], [1]]);
    }

    /// Streams of several flows in one batch, in any order, with frames of any length and flags between them.
    #[test]
    fn mixed_flows_are_joined_apart(
        kinds in vec(any::<(bool, bool, bool)>(), 1..12),
        frames in vec((any::<Index>(), 0..4_usize, flags()), 0..64),
        noise in vec((any::<Index>(), any::<Index>(), any::<u8>()), 0..6),
    ) {
        let mut states: Vec<_> = kinds.iter().zip(0..).map(|(&(v6, udp, grows), host)| {
            (Flow { host, ..Flow::new(v6, udp) }, u16::from(grows), 65_530_u16, u32::MAX - 1000)
        }).collect();
        let mut all = Vec::new();
        for (of, size, flags) in frames {
            let at = of.index(states.len());
            let (flow, grows, id, sequence) = &mut states[at];
            let payload = vec![id.to_le_bytes()[0]; [0, 3, 300, 300][size]];
            all.push(flow.frame(*id, *sequence, flags, &payload));
            *id = id.wrapping_add(*grows);
            *sequence = sequence.wrapping_add(u32::try_from(payload.len()).unwrap());
        }
        runs(&all);
        for (frame, at, to) in noise {
            if !all.is_empty() {
                let frame = frame.index(all.len());
                let at = at.index(all[frame].len());
                all[frame][at] = to;
            }
        }
        runs(&all);
    }
}

/// Mostly the flags of data.
fn flags() -> impl Strategy<Value = u8> {
    prop_oneof![9 => Just(ACK), 2 => Just(ACK | PSH), 1 => any::<u8>()]
}

/// Whether a checksum has the representation that the kernel does not write.
fn unusual(flow: &Flow, frame: &[u8]) -> bool {
    let (network, transport, _) = flow.layout();
    !flow.udp && frame[transport + 16..transport + 18] == [0xff; 2]
        || !flow.v6 && frame[network + 10..network + 12] == [0xff; 2]
}

/// Corrects the checksums of `frame`, made by `flow`.
fn repair(flow: &Flow, frame: &mut [u8]) {
    let (network, transport, _) = flow.layout();
    let field = transport + if flow.udp { 6 } else { 16 };
    let mut put = |at: usize, sum: u16| frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    put(field, 0);
    if !flow.v6 {
        put(network + 10, 0);
        let sum = !super::reference::sum(&frame[network..transport]);
        frame[network + 10..network + 12].copy_from_slice(&sum.to_be_bytes());
    }
    let addresses = if flow.v6 { network + 8..network + 40 } else { network + 12..network + 20 };
    let protocol = if flow.udp { 17 } else { 6 };
    let length = u32::try_from(frame.len() - transport).unwrap().to_be_bytes();
    let sum = !super::reference::sum(&[&frame[addresses], &[0, protocol], &length, &frame[transport..]].concat());
    let sum = if flow.udp && sum == 0 { 0xffff } else { sum };
    frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Changes every bit of the second frame's headers and payload, and corrects the checksums.
#[test]
fn distinguishable_frames_are_not_joined() {
    for mut flow in kinds() {
        for (tags, options) in [(&[][..], &[][..]), (&[0x81, 0, 0, 7], &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2])] {
            (flow.tags, flow.options) = (tags.to_vec(), options.to_vec());
            let (network, transport, payload) = flow.layout();
            let frames = flow.cut(5, 9, ACK, &[3; 200], 100);
            assert!(both(&frames));
            for bit in 0..frames[1].len() * 8 {
                let mut changed = frames.clone();
                changed[1][bit / 8] ^= 1 << (bit % 8);
                repair(&flow, &mut changed[1]);
                let joined = both(&changed);
                // The payload; PSH; bits that the correction restores; a constant identification.
                let checksums = [transport + if flow.udp { 6 } else { 16 }, network + 10];
                let changed_back =
                    checksums[..if flow.v6 { 1 } else { 2 }].iter().any(|&at| (at..at + 2).contains(&(bit / 8)));
                let last = !flow.udp && bit == (transport + 13) * 8 + 3;
                let allowed = bit / 8 >= payload || last || changed_back;
                let stays = !flow.v6 && changed[1][network + 4..network + 6] == [0, 5];
                assert_eq!(joined, allowed || stays, "byte {}, bit {}: {flow:?}", bit / 8, bit % 8);
            }
        }
    }
}

/// Changes every bit of both frames: coalescing would make the checksum right again.
#[test]
fn wrong_checksum_stays_wrong() {
    for flow in kinds() {
        let frames = flow.cut(5, 9, ACK, &[3; 60], 30);
        for frame in 0..2 {
            for bit in 0..frames[frame].len() * 8 {
                let mut changed = frames.clone();
                changed[frame][bit / 8] ^= 1 << (bit % 8);
                // If no checksum covers the bit, the two frames differ.
                assert!(!both(&changed), "frame {frame}, bit {bit}: {flow:?}");
            }
        }
    }
}

#[test]
fn unfit_frames_are_sent_alone() {
    let tcp = Flow::new(false, false);
    for flags in (0..=255).filter(|flags| flags & !PSH != ACK) {
        assert!(!both(&[tcp.frame(1, 1, flags, &[1; 9]), tcp.frame(2, 10, flags, &[1; 9])]), "{flags:02x}");
    }
    for flow in kinds() {
        assert!(!both(&[flow.frame(1, 1, ACK, &[]), flow.frame(2, 1, ACK, &[])]), "empty");
        assert!(!both(&[flow.frame(1, 1, ACK, &[1; 9]), flow.frame(2, 10, ACK, &[1; 10])]), "the second longer");
        let mut padded = flow.cut(1, 1, ACK, &[1; 20], 10);
        padded[1].push(0);
        assert!(!both(&padded));
        let mut unsummed = flow.cut(1, 1, ACK, &[1; 20], 10);
        for frame in &mut unsummed {
            let field = flow.layout().1 + if flow.udp { 6 } else { 16 };
            frame[field..field + 2].fill(0);
        }
        assert!(!both(&unsummed));
    }
    for other in [
        Flow { tags: [0x81, 0, 0, 1].repeat(3), options: vec![1; 40], ..Flow::new(true, false) },
        Flow { ip_options: vec![1; 4], ..Flow::new(false, false) },
        Flow { extensions: vec![(60, vec![0; 8])], ..Flow::new(true, false) },
        Flow { fragment: 0x2000, ..Flow::new(false, false) },
        Flow { fragment: 0xc000, ..Flow::new(false, false) },
    ] {
        assert!(!both(&other.cut(1, 1, ACK, &[1; 20], 10)));
    }
}

#[test]
fn ipv4_identification_is_kept() {
    for (fragment, ids, expected) in [
        (0x4000, [65_535, 0, 1], vec![vec![0, 1, 2]]),
        (0x4000, [7, 7, 7], vec![vec![0, 1, 2]]),
        (0, [65_535, 0, 1], vec![vec![0, 1, 2]]),
        (0, [7, 7, 7], vec![vec![0], vec![1], vec![2]]),
        (0x4000, [7, 8, 8], vec![vec![0, 1], vec![2]]),
        (0x4000, [7, 7, 8], vec![vec![0, 1], vec![2]]),
        (0x4000, [7, 9, 10], vec![vec![0], vec![1, 2]]),
    ] {
        for udp in [false, true] {
            let flow = Flow { fragment, ..Flow::new(false, udp) };
            let frames: Vec<_> =
                ids.iter().zip([0, 10, 20]).map(|(&id, at)| flow.frame(id, at, ACK, &[1; 10])).collect();
            assert_eq!(runs(&frames), expected, "{fragment:04x} {ids:?} {udp}");
        }
    }
}

#[test]
fn flows_do_not_end_each_other() {
    let [one, other] = [1, 2].map(|host| Flow { host, ..Flow::new(false, false) });
    let arp = [&[0xff; 12][..], &[8, 6], &[0; 46]].concat();
    let (data, acks) =
        (|flow: &Flow, at: u16| flow.frame(at, u32::from(at) * 10, ACK, &[1; 10]), Flow { port: 9, ..one.clone() });
    let frames = [
        data(&one, 0),
        data(&other, 0),
        acks.frame(1, 1, ACK, &[]),
        data(&one, 1),
        arp,
        data(&other, 1),
        acks.frame(2, 1, ACK, &[]),
        data(&one, 2),
        data(&other, 2),
    ];
    assert_eq!(runs(&frames), [vec![0, 3, 7], vec![1, 5, 8], vec![2], vec![4], vec![6]]);
}

#[test]
fn ambiguous_frame_ends_run() {
    let flow = Flow::new(false, false);
    let [first, second] = [0, 1].map(|at: u16| flow.frame(at, u32::from(at) * 10, ACK, &[1; 10]));
    let (udp, tagged) = (Flow::new(false, true), Flow { tags: vec![0x81, 0, 0, 1], ..flow.clone() });
    let mut padded = flow.frame(9, 0, ACK, &[]);
    padded.extend_from_slice(&[0; 6]);
    for (between, ends) in [
        (flow.frame(9, 0, ACK, &[]), true),
        (padded, true),
        (flow.frame(9, 0, 0x04, &[]), true),
        (Flow { fragment: 1, ..udp.clone() }.frame(9, 0, 0, &[1; 10]), true),
        (Flow { ip_options: vec![1; 4], ..flow.clone() }.frame(9, 0, ACK, &[]), true),
        (Flow { extensions: vec![(60, vec![0; 8])], ..Flow::new(true, false) }.frame(9, 0, ACK, &[]), true),
        (udp.frame(9, 0, 0, &[1; 10]), false),
        (tagged.frame(9, 0, ACK, &[1; 10]), false),
        (first[..40].to_vec(), true),
        (first[..20].to_vec(), false),
        (Vec::new(), false),
    ] {
        let joined = runs(&[first.clone(), between.clone(), second.clone()])[0] == [0, 2];
        assert_eq!(joined, !ends, "{between:02x?}");
    }
}

#[test]
fn excess_flow_ends_oldest() {
    let flows: Vec<_> = (0..9).map(|host| Flow { host, ..Flow::new(true, true) }).collect();
    let twice = |flows: &[Flow]| -> Vec<Vec<u8>> {
        [flows, flows].concat().iter().map(|flow| flow.frame(0, 0, 0, &[1; 10])).collect()
    };
    assert_eq!(runs(&twice(&flows[..8])).len(), 8);
    assert_eq!(runs(&twice(&flows)).len(), 18);
}

#[test]
fn superframe_fits_a_packet() {
    for flow in kinds() {
        let frames = flow.cut(1, 1, ACK, &vec![5; 64_000], 1000);
        let more = flow.frame(65, 64_001, ACK, &[5; 1000]);
        assert_eq!(runs(&frames).len(), 1);
        let runs = runs(&[&frames[..], &[more.clone(), more]].concat());
        let headers = flow.layout().2 - flow.layout().0;
        assert_eq!(runs[0].len(), (if flow.udp { 64 } else { 65 }).min((65_535 - headers) / 1000), "{flow:?}");
        // 128 small frames, and for UDP the limit of every kernel.
        let frames = flow.cut(1, 1, ACK, &vec![5; 2000], 10);
        let lengths: Vec<_> = self::runs(&frames).iter().map(Vec::len).collect();
        assert_eq!(lengths, if flow.udp { vec![64, 64, 64, 8] } else { vec![128, 72] }, "{flow:?}");
    }
}

#[test]
fn udp_is_joined_only_if_supported() {
    let frames =
        [Flow::new(false, true).cut(1, 1, 0, &[1; 20], 10), Flow::new(false, false).cut(1, 1, ACK, &[1; 20], 10)]
            .concat();
    let mut coalescer = Coalescer::new(false);
    coalescer.plan(frames.len(), |index| &frames[index]);
    assert_eq!(coalescer.planned().map(|planned| planned.count()).collect::<Vec<_>>(), [1, 1, 2]);
}

/// A plan of fewer frames than the plan before has nothing left from it.
#[test]
fn reused_memory_has_no_old_plan() {
    let frames = Flow::new(false, false).cut(1, 1, ACK, &[1; 100], 10);
    let mut coalescer = Coalescer::new(true);
    for count in [10, 1, 3, 0, 2] {
        coalescer.plan(count, |index| &frames[index]);
        assert_eq!(
            coalescer.planned().map(|planned| planned.count()).collect::<Vec<_>>(),
            [count][..usize::from(count > 0)]
        );
    }
}

#[test]
fn captured_traffic_is_restored() {
    let captures = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/captures");
    let (mut all, mut joined) = (0, 0);
    for file in std::fs::read_dir(captures).unwrap().map(|entry| entry.unwrap().path()) {
        if file.extension().is_none_or(|ending| ending != "pcap") {
            continue;
        }
        let bytes = std::fs::read(&file).unwrap();
        let (mut frames, mut rest) = (Vec::new(), &bytes[24..]);
        while let Some((header, behind)) = rest.split_first_chunk::<16>() {
            let length = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
            frames.push(behind[..length].to_vec());
            rest = &behind[length..];
        }
        for batch in frames.chunks(64) {
            let runs = runs(batch);
            (all, joined) = (all + batch.len(), joined + batch.len() - runs.len());
        }
    }
    assert!(all > 150 && joined > 0, "{joined} of {all}");
}

/// Superframes of a kernel (Linux 6.18, `IFF_VNET_HDR`), with the header, in the byte order of that machine.
#[test]
#[cfg(target_endian = "little")]
fn kernel_superframes_are_restored() {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/offload");
    let mut superframes = 0;
    for file in std::fs::read_dir(seeds).unwrap().map(|entry| entry.unwrap().path()) {
        if !file.file_name().unwrap().to_str().unwrap().starts_with("kernel-") {
            continue;
        }
        let bytes = std::fs::read(&file).unwrap();
        let (header, frame) = bytes.split_at(offload::LONG);
        let facts = offload::parse(header, frame).unwrap();
        let mut segmenter = ethudp_worker::frame::offload::segment::Segmenter::new(frame, &facts).unwrap();
        let mut frames = Vec::new();
        while let Some((headers, payload)) = segmenter.cut() {
            frames.push([headers, payload].concat());
        }
        assert_eq!(runs(&frames), [(0..frames.len()).collect::<Vec<_>>()], "{}", file.display());
        superframes += 1;
    }
    assert!(superframes >= 4, "{superframes}");
}
