//! Content of a datagram of data: a frame, a bundle of frames, a fragment, a ping or a pong, a probe or its answer. Ranges are in
//! bytes of the content.

use std::ops::Range;

use crate::batch::MAX_FRAME;
use crate::frame;
use crate::frame::offload::superframe::Checksum;
use crate::frame::offload::travels;

/// Bytes before a frame.
pub const FRAME_HEADER: usize = 4;
/// Bytes before the frames of a bundle.
pub const BUNDLE_HEADER: usize = 4;
/// Bytes before each frame of a bundle, the frame's own header included.
pub const ITEM_HEADER: usize = 2 + FRAME_HEADER;
/// Bytes before a fragment.
pub const FRAGMENT_HEADER: usize = 12;
/// Number of fragments of a frame.
pub const PIECES: std::ops::RangeInclusive<usize> = 2..=16;
/// Shortest fragment in bytes, except for the last one.
pub const PIECE: usize = 64;
/// Longest content of kind 0.
pub const WHOLE: usize = FRAME_HEADER + MAX_FRAME;
/// Length of the shortest probe, and of the answer to a probe.
pub const PROBED: usize = 12;
/// Length of a ping or a pong.
pub const PINGED: usize = 20;

/// Flag of a ping or a probe: the answer leaves by other paths as well.
const EVERY_PATH: u8 = 1;

const FRAME: u8 = 0;
const BUNDLE: u8 = 1;
const FRAGMENT: u8 = 2;
const PING: u8 = 3;
const PONG: u8 = 4;
const PROBE: u8 = 5;
const ARRIVED: u8 = 7;

/// Well-formed content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content<'a> {
    /// One frame.
    Frame(Frame),
    /// Several small frames.
    Bundle(Bundle<'a>),
    /// A fragment of a frame.
    Fragment(Fragment),
    /// Ping, and whether it asks for an answer by every path.
    Ping(Pinged, bool),
    /// Pong with the token of the ping.
    Pong(Pinged),
    /// Probe with its token, the size of the datagram, whether it asks for an answer by every path, and padding without meaning.
    Probe([u8; 8], u16, bool),
    /// Answer with token and size of the probe.
    Arrived([u8; 8], u16),
    /// Content of an unknown kind, which is ignored.
    Unknown,
}

/// Token of a ping, and counts of the sender of the ping or pong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pinged {
    /// Token of the ping.
    pub token: [u8; 8],
    /// Counts of the sender for the path of the ping.
    pub counts: DatagramCounts,
}

/// Number of data datagrams on a path, as counted by the sender of a ping or pong, modulo 2^32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DatagramCounts {
    /// Opened by that sender.
    pub opened: u32,
    /// Sent by that sender.
    pub sent: u32,
}

/// A frame, and its checksum if that is partial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Range of the frame's bytes.
    pub range: Range<usize>,
    /// Checksum still to be completed.
    pub checksum: Option<Checksum>,
}

/// Well-formed frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle<'a>(&'a [u8]);

/// Fragment of a content of kind 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    /// Number of the fragment, from zero.
    pub number: usize,
    /// Length in bytes of all fragments but the last.
    pub each: usize,
    /// Length in bytes of the whole content.
    pub whole: usize,
    /// Identification of the frame.
    pub identification: u32,
    /// Range of the fragment's bytes.
    pub range: Range<usize>,
}

impl Fragment {
    /// Number of fragments of the content.
    pub fn count(&self) -> usize {
        self.whole.div_ceil(self.each)
    }
}

/// Parses a content; `None` if it breaks the rules of its kind.
pub fn parse(content: &[u8]) -> Option<Content<'_>> {
    match content {
        [FRAME, ..] => frame(content).map(Content::Frame),
        [BUNDLE, 0, 0, 0, ..] => {
            let bundle = Bundle(content);
            let mut at = BUNDLE_HEADER;
            let mut count = 0;
            while at < content.len() {
                at = bundle.item(at)?.range.end;
                count += 1;
            }
            (count >= 2).then_some(Content::Bundle(bundle))
        }
        [FRAGMENT, ..] => fragment(content).map(Content::Fragment),
        [PING, flags, _, _, rest @ ..] => pinged(rest).map(|pinged| Content::Ping(pinged, flags & EVERY_PATH != 0)),
        [PONG, _, _, _, rest @ ..] => pinged(rest).map(Content::Pong),
        [PROBE, flags, high, low, rest @ ..] => {
            let size = u16::from_be_bytes([*high, *low]);
            Some(Content::Probe(*rest.first_chunk()?, size, flags & EVERY_PATH != 0))
        }
        [ARRIVED, _, high, low, rest @ ..] => {
            Some(Content::Arrived(*rest.first_chunk()?, u16::from_be_bytes([*high, *low])))
        }
        [] | [BUNDLE | PING | PONG | PROBE | ARRIVED, ..] => None,
        _ => Some(Content::Unknown),
    }
}

fn pinged(rest: &[u8]) -> Option<Pinged> {
    let (token, counts) = rest.split_first_chunk()?;
    let (opened, rest) = counts.split_first_chunk()?;
    let [opened, sent] = [opened, rest.first_chunk()?].map(|count| u32::from_be_bytes(*count));
    Some(Pinged { token: *token, counts: DatagramCounts { opened, sent } })
}

/// Parses a content of kind 0.
pub fn frame(content: &[u8]) -> Option<Frame> {
    let ([FRAME, offset, start @ ..], bytes) = content.split_first_chunk::<FRAME_HEADER>()? else { return None };
    if !(frame::HEADER..=MAX_FRAME).contains(&bytes.len()) {
        return None;
    }
    let (start, offset) = (u16::from_be_bytes(*start), u16::from(*offset));
    let checksum = (start != 0 || offset != 0).then_some(Checksum { start, offset });
    let lies = |checksum: Checksum| {
        let (start, offset) = (usize::from(checksum.start), usize::from(checksum.offset));
        start + offset + 2 <= bytes.len() && travels(checksum)
    };
    let range = FRAME_HEADER..content.len();
    checksum.is_none_or(lies).then_some(Frame { range, checksum })
}

fn fragment(content: &[u8]) -> Option<Fragment> {
    let (&[_, number, e0, e1, w0, w1, 0, 0, i0, i1, i2, i3], piece) = content.split_first_chunk::<FRAGMENT_HEADER>()?
    else {
        return None;
    };
    let fragment = Fragment {
        number: number.into(),
        each: u16::from_be_bytes([e0, e1]).into(),
        whole: u16::from_be_bytes([w0, w1]).into(),
        identification: u32::from_be_bytes([i0, i1, i2, i3]),
        range: FRAGMENT_HEADER..content.len(),
    };
    if fragment.each < PIECE || fragment.whole > WHOLE || !PIECES.contains(&fragment.count()) {
        return None;
    }
    let before = fragment.number * fragment.each;
    (before < fragment.whole && piece.len() == fragment.each.min(fragment.whole - before)).then_some(fragment)
}

impl Bundle<'_> {
    /// Frames of the bundle, in order.
    pub fn frames(&self) -> impl Iterator<Item = Frame> {
        let mut at = BUNDLE_HEADER;
        std::iter::from_fn(move || {
            let frame = self.item(at)?;
            at = frame.range.end;
            Some(frame)
        })
    }

    /// Frame whose length field is at `at`.
    fn item(&self, at: usize) -> Option<Frame> {
        let (length, rest) = self.0.get(at..)?.split_first_chunk()?;
        let found = frame(rest.get(..u16::from_be_bytes(*length).into())?)?;
        let from = at + length.len();
        Some(Frame { range: from + found.range.start..from + found.range.end, ..found })
    }
}

/// Header of a frame. The checksum is one that [`travels`].
pub fn frame_header(checksum: Option<Checksum>) -> [u8; FRAME_HEADER] {
    let Some(Checksum { start, offset }) = checksum else { return [FRAME, 0, 0, 0] };
    let [high, low] = start.to_be_bytes();
    [FRAME, offset.to_be_bytes()[1], high, low]
}

/// Header of a bundle.
pub fn bundle_header() -> [u8; BUNDLE_HEADER] {
    [BUNDLE, 0, 0, 0]
}

/// Header of a frame of `length` bytes in a bundle.
pub fn item_header(length: usize, checksum: Option<Checksum>) -> [u8; ITEM_HEADER] {
    let [high, low] = short(length + FRAME_HEADER);
    let [kind, offset, start, end] = frame_header(checksum);
    [high, low, kind, offset, start, end]
}

/// Header of a fragment.
pub fn fragment_header(number: usize, each: usize, whole: usize, identification: u32) -> [u8; FRAGMENT_HEADER] {
    let ([e0, e1], [w0, w1], [i0, i1, i2, i3]) = (short(each), short(whole), identification.to_be_bytes());
    [FRAGMENT, short(number)[1], e0, e1, w0, w1, 0, 0, i0, i1, i2, i3]
}

/// Content of a ping. With `every_path` the pong leaves by every path.
pub fn ping(token: [u8; 8], passed: DatagramCounts, every_path: bool) -> [u8; PINGED] {
    let mut ping = with_passed(PING, token, passed);
    ping[1] = if every_path { EVERY_PATH } else { 0 };
    ping
}

/// Content of a pong.
pub fn pong(token: [u8; 8], passed: DatagramCounts) -> [u8; PINGED] {
    with_passed(PONG, token, passed)
}

fn with_passed(kind: u8, token: [u8; 8], passed: DatagramCounts) -> [u8; PINGED] {
    let mut content = [0; PINGED];
    content[0] = kind;
    content[4..12].copy_from_slice(&token);
    content[12..16].copy_from_slice(&passed.opened.to_be_bytes());
    content[16..].copy_from_slice(&passed.sent.to_be_bytes());
    content
}

/// Content of a probe in a datagram of `size` bytes, without its padding. With `every_path` the answer leaves by every path.
pub fn probe(token: [u8; 8], size: u16, every_path: bool) -> [u8; PROBED] {
    let mut probe = with_size(PROBE, token, size);
    probe[1] = if every_path { EVERY_PATH } else { 0 };
    probe
}

/// Content of the answer to a probe.
pub fn arrived(token: [u8; 8], size: u16) -> [u8; PROBED] {
    with_size(ARRIVED, token, size)
}

fn with_size(kind: u8, token: [u8; 8], size: u16) -> [u8; PROBED] {
    let mut content = [0; PROBED];
    content[0] = kind;
    content[2..4].copy_from_slice(&size.to_be_bytes());
    content[4..].copy_from_slice(&token);
    content
}

/// Encodes a length that is known to fit.
fn short(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[allow(clippy::unnecessary_wraps)] // Beside None.
    fn checksum(start: u16, offset: u16) -> Option<Checksum> {
        Some(Checksum { start, offset })
    }

    /// Bytes of this length with this beginning.
    fn bytes(begin: &[u8], length: usize) -> Vec<u8> {
        let mut bytes = begin.to_vec();
        bytes.resize(length, 7);
        bytes
    }

    #[test]
    fn frame_content_is_checked() {
        let whole = |length: usize, checksum| Some(Content::Frame(Frame { range: 4..length, checksum }));
        for (content, expected) in [
            (bytes(&[0, 0, 0, 0], 18), whole(18, None)),
            (bytes(&[0, 0, 0, 0], 17), None),
            (bytes(&[0, 0, 0, 0], 4 + MAX_FRAME), whole(4 + MAX_FRAME, None)),
            (bytes(&[0, 0, 0, 0], 5 + MAX_FRAME), None),
            (bytes(&[0, 16, 0, 34], 4 + 52), whole(56, checksum(34, 16))),
            (bytes(&[0, 16, 0, 34], 4 + 51), None),
            (bytes(&[0, 0, 0, 34], 4 + 36), whole(40, checksum(34, 0))),
            (bytes(&[0, 0, 0, 33], 100), None),
            (bytes(&[0, 16, 0, 0], 100), None),
            (bytes(&[0, 8, 0, 34], 100), None),
            (bytes(&[0, 255, 0xff, 0xff], 1000), None),
            (vec![], None),
        ] {
            assert_eq!(parse(&content), expected, "{} bytes: {:?}", content.len(), content.first_chunk::<4>());
        }
        assert_eq!(frame_header(None), [0; 4]);
        assert_eq!(frame_header(checksum(0x0122, 16)), [0, 16, 1, 0x22]);
    }

    #[test]
    fn ping_may_have_padding() {
        let (token, passed) = ([1, 2, 3, 4, 5, 6, 7, 8], DatagramCounts { opened: 0x0a0b_0c0d, sent: 0xffff_fffe });
        for (content, kind) in [(ping(token, passed, false), 3), (pong(token, passed), 4)] {
            let expected = [kind, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 255, 255, 255, 254];
            assert_eq!(content, expected);
            let pinged = Pinged { token, counts: passed };
            let expected =
                |every_path| if kind == 3 { Content::Ping(pinged, every_path) } else { Content::Pong(pinged) };
            assert!((0..PINGED).all(|length| parse(&content[..length]).is_none()));
            let mut other = [&content[..], &[9]].concat();
            other[1..4].fill(0xff);
            assert_eq!([parse(&content), parse(&other)], [Some(expected(false)), Some(expected(true))]);
        }
        assert_eq!(ping(token, passed, true)[..4], [3, 1, 0, 0]);
    }

    #[test]
    fn probe_answer_names_its_size() {
        let token = [1, 2, 3, 4, 5, 6, 7, 8];
        for padding in [0, 1, 1428, 9226] {
            for every_path in [false, true] {
                let probe = bytes(&probe(token, 1472, every_path), PROBED + padding);
                assert_eq!(parse(&probe), Some(Content::Probe(token, 1472, every_path)));
            }
        }
        assert_eq!(probe(token, 1472, false)[..4], [5, 0, 5, 0xc0]);
        assert_eq!(probe(token, 1472, true)[..4], [5, 1, 5, 0xc0]);
        assert_eq!(arrived(token, 1472), [7, 0, 5, 0xc0, 1, 2, 3, 4, 5, 6, 7, 8]);
        let mut other = [&arrived(token, 1472)[..], &[9]].concat();
        other[1] = 0xff;
        assert_eq!(parse(&other), Some(Content::Arrived(token, 1472)));
        for content in [probe(token, 1472, false), arrived(token, 1472)] {
            assert!((0..PROBED).all(|length| parse(&content[..length]).is_none()));
        }
    }

    /// "A content of an unknown kind is ignored."
    #[test]
    fn unknown_content_is_ignored() {
        for kind in (0..=255).filter(|kind| ![0, 1, 2, 3, 4, 5, 7].contains(kind)) {
            for length in [1, 2, 12, 100] {
                assert_eq!(parse(&bytes(&[kind], length)), Some(Content::Unknown), "{kind}");
            }
        }
    }

    #[test]
    fn bundle_has_two_frames_or_more() {
        let item = |length: usize, checksum| bytes(&item_header(length, checksum), 6 + length);
        let (first, second) = (item(60, checksum(34, 16)), item(14, None));
        assert_eq!(first[..6], [0, 64, 0, 16, 0, 34]);
        let content = [&bundle_header()[..], &first, &second].concat();
        let Some(Content::Bundle(bundle)) = parse(&content) else { panic!() };
        let expected = [Frame { range: 10..70, checksum: checksum(34, 16) }, Frame { range: 76..90, checksum: None }];
        assert!(bundle.frames().eq(expected));
        // Truncated, extended, a bundle of fewer than two frames, or any wrong length or nonzero reserved byte.
        assert!((0..content.len()).all(|length| parse(&content[..length]).is_none()));
        assert_eq!(parse(&[&content[..], &[0]].concat()), None);
        assert_eq!(parse(&[&bundle_header()[..], &first].concat()), None);
        assert_eq!(parse(&bundle_header()), None);
        for at in [0, 1, 2, 3, 4, 5, 70, 71, 72] {
            for bit in 0..8 {
                let mut other = content.clone();
                other[at] ^= 1 << bit;
                // With another kind the bytes are a frame, a ping, a probe, or of an unknown kind.
                assert_eq!(parse(&other).is_some(), at == 0, "byte {at}");
            }
        }
        // A bundle contains neither a bundle nor a fragment.
        let mut other = content.clone();
        other[6] = 1;
        assert_eq!(parse(&other), None);
    }

    #[test]
    fn fragment_length_is_exact() {
        let piece =
            |number, each, whole, length: usize| bytes(&fragment_header(number, each, whole, 0x0102_0304), 12 + length);
        let content = piece(1, 1000, 1518, 518);
        assert_eq!(content[..12], [2, 1, 0x03, 0xe8, 0x05, 0xee, 0, 0, 1, 2, 3, 4]);
        let expected = Fragment { number: 1, each: 1000, whole: 1518, identification: 0x0102_0304, range: 12..530 };
        assert_eq!(parse(&content), Some(Content::Fragment(expected)));
        assert!((0..content.len()).all(|length| parse(&content[..length]).is_none()));
        for (number, each, whole, length, right) in [
            (0, 1000, 1518, 1000, true),
            (0, 1000, 1518, 999, false),
            (0, 1000, 1518, 1001, false),
            (1, 1000, 1518, 519, false),
            (2, 1000, 1518, 518, false),
            (1, 1000, 2000, 1000, true),
            (2, 1000, 2000, 0, false),
            (1, 1000, 1001, 1, true),
            (0, 1000, 1000, 1000, false), // one fragment
            (0, 64, 1024, 64, true),
            (15, 64, 1024, 64, true),
            (16, 64, 1025, 1, false), // seventeen
            (0, 64, 1025, 64, false),
            (0, 63, 126, 63, false),
            (0, 0, 100, 0, false),
            (0, 5000, WHOLE, 5000, true),
            (0, 5000, WHOLE + 1, 5000, false),
            (0, 1000, 0, 1000, false),
            (255, 1000, 1518, 518, false),
        ] {
            let parsed = parse(&piece(number, each, whole, length)).is_some();
            assert_eq!(parsed, right, "{number} {each} {whole} {length}");
        }
        for at in [6, 7] {
            let mut other = content.clone();
            other[at] = 1;
            assert_eq!(parse(&other), None);
        }
    }

    proptest! {
        #[test]
        fn parsed_ranges_are_in_bounds(mut content in proptest::collection::vec(any::<u8>(), 0..300), kind in 0..6_u8) {
            if let Some(first) = content.first_mut() {
                *first = kind;
            }
            crate::fuzzing::content(&content);
        }

        #[test]
        fn bundle_round_trips(lengths in proptest::collection::vec(14..200_usize, 2..20)) {
            let mut content = bundle_header().to_vec();
            for &length in &lengths {
                content.extend(item_header(length, None));
                content.extend(vec![length.to_le_bytes()[0]; length]);
            }
            let Some(Content::Bundle(bundle)) = parse(&content) else { panic!() };
            prop_assert!(bundle.frames().map(|frame| frame.range.len()).eq(lengths));
        }
    }
}
