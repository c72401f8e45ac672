//! Sealer of the secure wire.

use privsep::ipc::MAX_PATHS;

use super::content::{self, FRAGMENT_HEADER, FRAME_HEADER, ITEM_HEADER};
use super::crypt::{HEADER, Sending, TAG};
use super::fragment;
use crate::batch::{Batch, PACKETS};
use crate::endpoint::Target;
use crate::frame::flow;
use crate::wire::counters::Counters;
use crate::wire::route::{Departure, Egress, Route};
use crate::wire::spread::{self, Spread, Weights};

/// Most bytes of a content by each path.
type Limits = [usize; MAX_PATHS];

/// Queue of the loop that takes frames.
const QUEUE: u8 = 0;
/// Most bytes of a frame that shares a datagram with others that are already queued, such as acknowledgements, DNS and voice; no
/// frame is delayed. Too few longer frames fit to be worth the copy.
const SMALL: usize = 512;

/// Sealer of one loop.
pub struct Sealer {
    /// Memory for fragments.
    pieces: Batch,
    /// Identification of the next fragmented frame.
    identification: u32,
    route: Route,
    departures: Vec<Departure>,
}

impl Sealer {
    /// Makes a sealer with this first route, whose datagrams have the least length of each path.
    pub fn new(route: Route) -> Self {
        const HEADERS: usize = HEADER + FRAGMENT_HEADER + TAG;
        let (least, most) = (route.egress.iter().map(|egress| egress.datagram).min().unwrap_or(0), route.longest());
        let piece = least.saturating_sub(HEADERS).max(1);
        let each = content::WHOLE.div_ceil(piece).min(*content::PIECES.end());
        // Pieces of any length between both.
        let bytes = PACKETS * (content::WHOLE + each * (HEADERS + Batch::PACKED));
        let pieces = Batch::to_pack(bytes.div_ceil(most.max(1)) + 1, most, PACKETS * each);
        Self { pieces, identification: 0, route, departures: Vec::with_capacity(MAX_PATHS) }
    }

    /// See [`crate::wire::Sealer::seal`]. The counters of the queues are in [`Sending`], so they continue when the route changes.
    pub fn seal<'a>(&'a mut self, frames: &'a mut Batch, counters: &Counters) -> (&'a Batch, &'a [Departure]) {
        let (active, Egress { target, .. }) = self.route.now();
        self.departures.clear();
        let Some(counts) = counters.paths.get(active) else { return (frames, &[]) };
        let Some(sending) = self.route.sending.as_ref().filter(|_| target != Target::Unknown) else {
            counts.tx_dropped_unlearned.add(frames.len() as u64);
            return (frames, &[]);
        };
        let before = frames.bytes();
        let limits = limits(&self.route, self.pieces.capacity());
        if let Spread::Flows(weights) = &self.route.spread {
            assign(frames, weights);
            wrap(frames, &limits);
            frames.sort_by_path();
        } else {
            wrap(frames, &limits);
        }
        let sealed = if (0..frames.len()).any(|index| is_long(frames, index, &limits)) {
            let unfragmentable = cut(frames, &mut self.pieces, &limits, &mut self.identification);
            counts.tx_dropped_unfragmentable.add(unfragmentable);
            &mut self.pieces
        } else {
            frames
        };
        counts.tx_dropped_unlearned.add(seal_all(sending, sealed));
        counters.seal.bytes.add(before);
        counters.seal.encrypt_overhead.add(sealed.bytes().saturating_sub(before));
        depart(&mut self.departures, &self.route, sealed);
        (sealed, &self.departures)
    }

    /// See [`crate::wire::Sealer::set_route`].
    pub fn set_route(&mut self, route: &Route) {
        self.route.clone_from(route);
    }

    /// Current route.
    pub fn route(&self) -> &Route {
        &self.route
    }
}

/// Most bytes of a content by each path. Copies fit both their paths.
fn limits(route: &Route, capacity: usize) -> Limits {
    let room = |path: usize| {
        let datagram = route.egress.get(path).map_or(0, |egress| egress.datagram);
        datagram.min(capacity).saturating_sub(HEADER + TAG)
    };
    match route.spread {
        Spread::Active => [room(route.now().0); MAX_PATHS],
        Spread::Copies(other) => [room(route.now().0).min(room(other)); MAX_PATHS],
        Spread::Flows(_) => std::array::from_fn(room),
    }
}

/// Whether a content is too long for a datagram of its path.
fn is_long(contents: &Batch, index: usize, limits: &Limits) -> bool {
    contents.frame(index).len() > most(contents, index, limits)
}

/// Most bytes of a content by the path of frame `index`.
fn most(frames: &Batch, index: usize, limits: &Limits) -> usize {
    limits.get(usize::from(frames.span(index).path)).copied().unwrap_or(0)
}

/// Sets the path of each frame by its flow. Packets of a superframe have one flow.
fn assign(frames: &mut Batch, weights: &Weights) {
    let mut last = None;
    for index in 0..frames.len() {
        let flow = flow::hash(frames.frame(index));
        let path = match last {
            Some((known, path)) if known == flow => path,
            _ => u8::try_from(spread::path_of(flow, weights)).unwrap_or(0),
        };
        last = Some((flow, path));
        frames.set_path(index, path);
    }
}

/// Adds the departures of sealed datagrams. Where each flow has its path, the datagrams are sorted by path.
fn depart(departures: &mut Vec<Departure>, route: &Route, sealed: &Batch) {
    let mut depart = |path: usize, datagrams| {
        let egress = route.egress.get(path).filter(|egress| egress.target != Target::Unknown);
        departures.extend(egress.map(|&Egress { target, runs, .. }| Departure { path, target, runs, datagrams }));
    };
    let (active, all) = (route.now().0, 0..sealed.len());
    match route.spread {
        Spread::Active => depart(active, all),
        Spread::Copies(other) => [active, other].into_iter().for_each(|path| depart(path, all.clone())),
        Spread::Flows(_) => {
            let mut start = 0;
            while start < sealed.len() {
                let path = sealed.span(start).path;
                let count = (start..sealed.len()).take_while(|&index| sealed.span(index).path == path).count();
                depart(path.into(), start..start + count);
                start += count;
            }
        }
    }
}

/// Turns frames into contents, in place. Consecutive small frames of one path and traffic class become bundles; every other frame is
/// one content.
fn wrap(frames: &mut Batch, limits: &Limits) {
    let mut index = 0;
    while index < frames.len() {
        let (mut count, mut length, most) = (0, content::BUNDLE_HEADER, most(frames, index, limits));
        let (path, class) = (frames.span(index).path, frames.span(index).class);
        while index + count < frames.len() {
            let span = frames.span(index + count);
            length += ITEM_HEADER + span.range().len();
            let alike = (span.path, span.class) == (path, class);
            if span.alone || span.range().len() > SMALL || length > most || !alike {
                break;
            }
            count += 1;
        }
        if count > 1 {
            frames.join(index, count, |span| content::item_header(span.range().len(), span.facts.checksum));
            let header = content::bundle_header();
            frames.grow_front(index, header.len())[..header.len()].copy_from_slice(&header);
        } else {
            let header = content::frame_header(frames.span(index).facts.checksum);
            frames.grow_front(index, FRAME_HEADER)[..FRAME_HEADER].copy_from_slice(&header);
        }
        index += 1;
    }
}

/// Copies contents to `pieces`, those that are too long as fragments, each with room for header and tag. Returns the number of
/// contents that cannot be fragmented.
fn cut(contents: &Batch, pieces: &mut Batch, limits: &Limits, identification: &mut u32) -> u64 {
    pieces.clear();
    let mut lost = 0;
    for index in 0..contents.len() {
        let (whole, path, most) = (contents.frame(index), contents.span(index).path, most(contents, index, limits));
        let first = pieces.len();
        if whole.len() <= most {
            if !pieces.is_full() {
                pieces.pack_copy(&[whole]).path = path;
            }
            pieces.set_class(first.., contents.span(index).class);
            continue;
        }
        let piece = most.checked_sub(FRAGMENT_HEADER).and_then(|most| fragment::piece(whole.len(), most));
        let Some(each) = piece.filter(|&each| each >= content::PIECE) else {
            lost += 1;
            continue;
        };
        for (header, part) in fragment::split(whole, each, *identification) {
            if !pieces.is_full() {
                pieces.pack_copy(&[&header, part]).path = path;
            }
        }
        pieces.set_class(first.., contents.span(index).class);
        *identification = identification.wrapping_add(1);
    }
    lost
}

/// Seals all contents of a batch as datagrams, in place. Returns the number of contents not sealed because the session has sent as
/// many as it may.
fn seal_all(sending: &Sending, contents: &mut Batch) -> u64 {
    for index in 0..contents.len() {
        contents.grow_front(index, HEADER);
    }
    let before = contents.len();
    contents.filter_map(|_, room, length| {
        let datagram = room.get_mut(..length + TAG)?;
        sending.seal(QUEUE, datagram).ok().map(|()| datagram.len())
    });
    (before - contents.len()) as u64
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use privsep::ipc::SharedPath;
    use proptest::prelude::*;

    use super::super::crypt::tests::{CIPHERS, pair};
    use super::super::{Opening, Unpacker};
    use super::*;
    use crate::batch::MAX_FRAME;
    use crate::frame::offload::superframe::{Checksum, Facts};

    /// Frame, and its partial checksum.
    type Frame = (Vec<u8>, Option<Checksum>);

    /// A sealer for datagrams of this size, and the opener of its peer.
    fn ends(datagram: usize) -> (Sealer, Opening) {
        let (sending, opening) = pair(CIPHERS[1]);
        let target = Target::Fixed(std::net::SocketAddr::from(([192, 0, 2, 1], 6000)).into());
        let egress = vec![Egress::new(target, datagram)];
        (Sealer::new(Route { egress, sending: Some(Arc::new(sending)), ..Route::default() }), opening)
    }

    fn counters() -> Counters {
        Counters { paths: vec![SharedPath::default()], ..Counters::default() }
    }

    fn frame(length: usize, byte: u8) -> Vec<u8> {
        vec![byte; length]
    }

    fn batch(frames: &[Vec<u8>]) -> Batch {
        let mut batch = Batch::for_superframes();
        for frame in frames {
            batch.pack_copy(&[frame]);
        }
        batch
    }

    fn sealed(sealer: &mut Sealer, mut frames: Batch) -> Vec<Vec<u8>> {
        let (datagrams, departures) = sealer.seal(&mut frames, &counters());
        assert!(matches!(departures, [Departure { path: 0, datagrams: all, .. }] if *all == (0..datagrams.len())));
        datagrams.frames(0).map(<[u8]>::to_vec).collect()
    }

    /// Frames that the peer opens from datagrams, received as one run or each alone; and the number of losses.
    fn opened(opening: &mut Opening, datagrams: &[Vec<u8>], run: bool) -> (Vec<Frame>, usize) {
        let (mut batch, mut unpacker, mut lost) = (Batch::for_datagrams(true), Unpacker::default(), 0);
        if run {
            let all = datagrams.concat();
            batch.slots().next().unwrap()[..all.len()].copy_from_slice(&all);
            batch.push_run(0, all.len(), datagrams[0].len(), None);
        } else {
            for datagram in datagrams {
                batch.pack_copy(&[datagram]);
            }
        }
        batch.expand(|_, memory, datagram, found| {
            let content = opening.open(0, &mut memory[datagram.clone()], datagram.len()).unwrap();
            let content = datagram.start + content.start..datagram.start + content.end;
            lost += usize::from(unpacker.take((1, 0), memory, content, 5, found) != Ok(None));
        });
        let all = (0..batch.len()).map(|index| (batch.frame(index).to_vec(), batch.span(index).facts.checksum));
        (all.collect(), lost)
    }

    #[test]
    fn frame_is_sealed_in_place() {
        let (mut sealer, mut opening) = ends(1472);
        let mut frames = batch(&[frame(1400, 3), frame(600, 4)]);
        let checksum = Some(Checksum { start: 34, offset: 16 });
        frames.set_facts(1, Facts { checksum, ..Facts::default() });
        let counters = counters();
        let datagrams: Vec<_> = sealer.seal(&mut frames, &counters).0.frames(0).map(<[u8]>::to_vec).collect();
        assert_eq!(datagrams.iter().map(Vec::len).collect::<Vec<_>>(), [1436, 636]);
        assert_eq!((counters.seal.bytes.get(), counters.seal.encrypt_overhead.get()), (2000, 72));
        assert_eq!(datagrams[1][..16], [5, 0, 0, 0, 0xa0, 0xb0, 0xc0, 0xd0, 0, 0, 0, 0, 0, 0, 0, 1]);
        let all = opened(&mut opening, &datagrams, false);
        assert_eq!(all, (vec![(frame(1400, 3), None), (frame(600, 4), checksum)], 0));
    }

    #[test]
    fn small_frames_are_bundled() {
        for (lengths, alone, datagram, expected) in [
            (&[60, 60, 60][..], None, 1472, &[36 + 3 * 66][..]),
            (&[60], None, 1472, &[36 + 60]),
            (&[60, 600, 60, 60], None, 1472, &[36 + 60, 36 + 600, 36 + 2 * 66]),
            (&[512, 512, 512], None, 1472, &[36 + 2 * 518, 36 + 512]),
            (&[513, 60, 513], None, 1472, &[36 + 513, 36 + 60, 36 + 513]),
            (&[60, 60, 60, 60], Some(2), 1472, &[36 + 2 * 66, 36 + 60, 36 + 60]),
            (&[60, 60, 60], None, 36 + 2 * 66, &[36 + 2 * 66, 36 + 60]),
            (&[60, 60, 60], None, 36 + 2 * 66 - 1, &[36 + 60, 36 + 60, 36 + 60]),
        ] {
            let (mut sealer, mut opening) = ends(datagram);
            let frames: Vec<_> = lengths.iter().zip(1..).map(|(&length, byte)| frame(length, byte)).collect();
            let mut made = batch(&frames);
            let checksum = Some(Checksum { start: 34, offset: 6 });
            made.set_facts(0, Facts { checksum, ..Facts::default() });
            if let Some(alone) = alone {
                made.set_alone(alone);
            }
            let datagrams = sealed(&mut sealer, made);
            assert_eq!(datagrams.iter().map(Vec::len).collect::<Vec<_>>(), expected, "{lengths:?}");
            let (all, lost) = opened(&mut opening, &datagrams, false);
            assert!(all.iter().map(|(frame, _)| frame).eq(&frames) && lost == 0);
            assert_eq!((all[0].1, all.last().unwrap().1.is_some()), (checksum, all.len() == 1));
        }
    }

    #[test]
    fn datagram_has_class_of_its_frames() {
        let (mut sealer, _) = ends(1472);
        let mut frames = batch(&[60, 60, 60, 1514, 700, 60, 60].map(|length| frame(length, 1)));
        for (first, class) in [(2, 0xb8), (4, 2), (5, 3)] {
            frames.set_class(first.., class);
        }
        let (datagrams, _) = sealer.seal(&mut frames, &counters());
        let all = (0..datagrams.len()).map(|index| (datagrams.frame(index).len(), datagrams.span(index).class));
        let split = [(44 + 759, 0xb8), (44 + 759, 0xb8)];
        let expected = [(36 + 2 * 66, 0), (96, 0xb8), split[0], split[1], (736, 2), (36 + 2 * 66, 3)];
        assert_eq!(all.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn long_frame_is_split_evenly() {
        let (mut sealer, mut opening) = ends(1472);
        let frames = [frame(60, 1), frame(1514, 2), frame(1437, 3), frame(1436, 4), frame(MAX_FRAME, 5)];
        let datagrams = sealed(&mut sealer, batch(&frames));
        let lengths: Vec<_> = datagrams.iter().map(Vec::len).collect();
        assert_eq!(lengths[..6], [96, 44 + 759, 44 + 759, 44 + 721, 44 + 720, 1472]);
        assert_eq!(lengths[6..], [44 + 1320, 44 + 1320, 44 + 1320, 44 + 1320, 44 + 1320, 44 + 1320, 44 + 1318]);
        let (all, lost) = opened(&mut opening, &datagrams, false);
        assert!(all.iter().map(|(frame, _)| frame).eq(&frames) && lost == 0);
    }

    #[test]
    fn fragment_run_reassembles_in_place() {
        let (mut sealer, mut opening) = ends(1472);
        let frames: Vec<_> = (0..20).map(|byte| frame(1514, byte)).collect();
        let datagrams = sealed(&mut sealer, batch(&frames));
        assert_eq!(datagrams.len(), 40);
        let (all, lost) = opened(&mut opening, &datagrams, true);
        assert!(all.iter().map(|(frame, _)| frame).eq(&frames) && lost == 0);
    }

    #[test]
    fn unsendable_frame_is_counted() {
        let (mut sealer, _) = ends(600);
        let counters = counters();
        let mut frames = batch(&[frame(MAX_FRAME, 1), frame(60, 2)]);
        assert_eq!(sealer.seal(&mut frames, &counters).0.len(), 1);
        assert_eq!(counters.paths[0].tx_dropped_unfragmentable.get(), 1);
        let route = sealer.route().clone();
        let unknown = vec![Egress::new(Target::Unknown, 600)];
        for route in [Route { sending: None, ..route.clone() }, Route { egress: unknown, ..route }] {
            sealer.set_route(&route);
            let mut frames = batch(&[frame(60, 1), frame(60, 2)]);
            assert!(sealer.seal(&mut frames, &counters).1.is_empty());
        }
        assert_eq!(counters.paths[0].tx_dropped_unlearned.get(), 4);
    }

    /// A repeated nonce reveals the key, so counters must continue over every change of route.
    #[test]
    fn returning_session_keeps_counters() {
        let (mut sealer, _) = ends(1472);
        let first = sealer.route().clone();
        let second = ends(1472).0.route().clone();
        let mut counter = |route: &Route| {
            sealer.set_route(route);
            sealed(&mut sealer, batch(&[frame(60, 1)]))[0][8..16].to_vec()
        };
        let numbers = [&first, &first, &second, &first].map(|route| counter(route)[7]);
        assert_eq!(numbers, [0, 1, 0, 2]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn frames_round_trip(
            lengths in proptest::collection::vec(prop_oneof![14..100_usize, 14..1600_usize, 14..MAX_FRAME], 1..24), datagram in 800..2000_usize,
        ) {
            let (mut sealer, mut opening) = ends(datagram);
            let frames: Vec<_> = lengths.iter().zip(0..).map(|(&length, byte)| frame(length, byte)).collect();
            let datagrams = sealed(&mut sealer, batch(&frames));
            prop_assert!(datagrams.iter().all(|one| one.len() <= datagram));
            let (all, lost) = opened(&mut opening, &datagrams, false);
            prop_assert!(all.iter().map(|(frame, _)| frame).eq(&frames) && lost == 0);
        }
    }

    /// A sealer with three paths for datagrams of these sizes.
    fn spreading(spread: Spread, datagrams: [usize; 3]) -> (Sealer, Opening) {
        let (sealer, opening) = ends(1472);
        let one = sealer.route().egress[0];
        let egress = datagrams.map(|datagram| Egress::new(one.target, datagram)).to_vec();
        (Sealer::new(Route { active: 1, spread, egress, ..sealer.route().clone() }), opening)
    }

    #[test]
    fn copies_leave_by_both_paths() {
        let (mut sealer, _) = spreading(Spread::Copies(2), [1472, 1400, 1300]);
        let counters = Counters { paths: (0..3).map(|_| SharedPath::default()).collect(), ..Counters::default() };
        let mut frames = batch(&[frame(60, 1), frame(1350, 2)]);
        let (datagrams, departures) = sealer.seal(&mut frames, &counters);
        // Pieces that fit the smaller of both paths.
        let lengths: Vec<_> = datagrams.frames(0).map(<[u8]>::len).collect();
        assert_eq!((lengths[0], lengths[1..].iter().all(|&length| length < 1300), lengths.len()), (96, true, 3));
        let all: Vec<_> = departures.iter().map(|departure| (departure.path, departure.datagrams.clone())).collect();
        assert_eq!(all, [(1, 0..3), (2, 0..3)]);
    }

    /// UDP over IPv4 from this port, with a number and a length.
    fn datagram(port: u16, number: u8, length: usize) -> Vec<u8> {
        let mut frame = frame(length, number);
        frame[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17]);
        frame[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        frame[34..36].copy_from_slice(&port.to_be_bytes());
        frame[36..38].copy_from_slice(&[0, 9]);
        frame
    }

    /// Small frames, a long one of the lesser path, and segments: each flow leaves by one path, in order.
    #[test]
    fn flows_keep_path_and_order() {
        let weights = [1, 0, 3, 0, 0, 0, 0, 0];
        let (mut sealer, mut opening) = spreading(Spread::Flows(weights), [1300, 1472, 1472]);
        let counters = Counters { paths: (0..3).map(|_| SharedPath::default()).collect(), ..Counters::default() };
        let (mut used, mut found) = ([0; 3], Vec::new());
        let sent: Vec<_> = (0..120)
            .map(|number| {
                let port = [7, 7, 8, 9, 10, 11, 12][usize::from(number) % 7];
                datagram(port, number, if number % 10 == 0 { 1420 } else { 70 })
            })
            .collect();
        for some in sent.chunks(30) {
            let mut frames = batch(some);
            let (datagrams, departures) = sealer.seal(&mut frames, &counters);
            assert!(departures.len() <= 2 && departures.is_sorted_by_key(|departure| departure.path));
            assert_eq!(departures.iter().map(|departure| departure.datagrams.len()).sum::<usize>(), datagrams.len());
            for departure in departures {
                let most = [1300, 0, 1472][departure.path];
                let of_path: Vec<_> =
                    departure.datagrams.clone().map(|index| datagrams.frame(index).to_vec()).collect();
                assert!(of_path.iter().all(|datagram| datagram.len() <= most));
                used[departure.path] += of_path.len();
                let (all, lost) = opened(&mut opening, &of_path, false);
                assert_eq!(lost, 0);
                for (frame, _) in all {
                    let flow = flow::hash(&frame);
                    assert_eq!(spread::path_of(flow, &weights), departure.path);
                    found.push(frame);
                }
            }
        }
        assert!(used[0] > 0 && used[1] == 0 && used[2] > 0, "{used:?}");
        let of = |all: &[Vec<u8>], port: u8| all.iter().filter(|frame| frame[35] == port).cloned().collect::<Vec<_>>();
        for port in 7..=12 {
            assert_eq!(of(&found, port), of(&sent, port), "{port}");
        }
        assert_eq!(found.len(), sent.len());
    }

    #[test]
    fn seal_and_open_allocate_nothing() {
        for spread in [Spread::Active, Spread::Copies(2), Spread::Flows([1, 1, 2, 0, 0, 0, 0, 0])] {
            seals_without_allocation(spread);
        }
    }

    fn seals_without_allocation(spread: Spread) {
        let (mut sealer, mut opening) = spreading(spread, [1472; 3]);
        let counters = Counters { paths: (0..3).map(|_| SharedPath::default()).collect(), ..Counters::default() };
        let (mut unpacker, mut received) = (Unpacker::default(), Batch::for_datagrams(true));
        let mut frames = batch(&[]);
        for round in 0..3 {
            frames.clear();
            for length in [60, 80, 1400, 1514, 60, 9000] {
                frames.pack_copy(&[&[7; 9000][..length]]);
            }
            let mut seal = 0;
            let mut datagrams = Vec::new();
            seal += allocation_counter::measure(|| {
                sealer.seal(&mut frames, &counters);
            })
            .count_total;
            datagrams.extend(sealer.pieces.frames(0).map(<[u8]>::to_vec));
            let open = allocation_counter::measure(|| {
                received.clear();
                for datagram in &datagrams {
                    received.pack_copy(&[datagram]);
                }
                received.expand(|_, memory, datagram, found| {
                    let content = opening.open(0, &mut memory[datagram.clone()], datagram.len()).unwrap();
                    let content = datagram.start + content.start..datagram.start + content.end;
                    unpacker.take((1, 0), memory, content, 5, found).unwrap();
                });
            })
            .count_total;
            assert_eq!(received.len(), 6);
            assert!(round == 0 || (seal, open) == (0, 0), "{seal} {open}");
        }
    }
}
