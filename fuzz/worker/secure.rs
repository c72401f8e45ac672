//! Fuzzing of the secure wire: messages, the content of datagrams, and keys.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use aws_lc_rs::agreement::{PrivateKey, X25519};
use privsep::ipc::Timestamp;

use crate::batch::{Batch, MAX_FRAME};
use crate::wire::secure::content::{self, Content, Fragment};
use crate::wire::secure::crypt::receiver;
use crate::wire::secure::handshake::{Answered, Initiator, Random, respond};
use crate::wire::secure::keys::{KEY, MACS, Pair, public};
use crate::wire::secure::message::{self, Form, Initiation, Message};
use crate::wire::secure::unpack::{Control, Lost, Unpacker};

/// Key pair of an end, with a pre-shared key.
pub(super) fn pair_of(end: u8) -> Pair {
    let private = |end| [1 + end; KEY];
    let peer = PrivateKey::from_private_key(&X25519, &private(1 - end)).unwrap();
    Pair::new(&private(end), public(&peer).unwrap(), &[7; KEY], [8; 8]).unwrap()
}

/// Deterministic random bytes from a seed.
pub(super) fn random(seed: u64) -> Random {
    let mut state = seed;
    Box::new(move |to| {
        for byte in to {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = state.to_be_bytes()[0];
        }
    })
}

/// Parses a datagram: the result agrees with docs/WIRE.md, and is written again. An attacker who can make the MACs, as only the
/// peer can, gets no response and does not disturb a handshake.
pub fn message(data: &[u8]) {
    let parsed = message::parse(data);
    assert_eq!(parsed.as_ref().map(kind), specified(data), "{:02x?}", &data[..data.len().min(24)]);
    match &parsed {
        Some(Message::Initiation(initiation)) => {
            let Initiation { form, offer, sender, timestamp, .. } = *initiation;
            let receiver = u32::from_be_bytes(std::array::from_fn(|byte| data[8 + byte]));
            let again = message::begin_initiation(form, offer, sender, receiver, timestamp);
            assert!(again.len() == data.len() && data.starts_with(&again[..message::INITIATION_HEADER]));
            assert_eq!(data[message::INITIATION_HEADER..data.len() - MACS], *initiation.noise());
            refused_initiation(data);
        }
        Some(Message::Response(response)) => {
            let again = message::begin_response(response.form, response.cipher, response.sender, response.receiver);
            assert!(again.len() == data.len() && data.starts_with(&again[..message::RESPONSE_HEADER]));
            assert_eq!(data[message::RESPONSE_HEADER..data.len() - MACS], *response.noise());
            refused_response(data);
        }
        Some(Message::KemKey(kem) | Message::KemCiphertext(kem)) => {
            assert_eq!(data[..message::KEM_HEADER], message::begin_kem(data[0], kem.receiver, &[]));
            assert!(data.ends_with(&kem.tag()));
        }
        Some(Message::Data(index)) => assert_eq!(receiver(data), Some(*index)),
        Some(Message::Other(version)) => assert_eq!(data[1], *version),
        None => {}
    }
}

/// Kind of a message: the first byte, or zero for another version or length.
fn kind(message: &Message) -> u8 {
    match message {
        Message::Initiation(_) => message::INITIATION,
        Message::Response(_) => message::RESPONSE,
        Message::KemKey(_) => message::KEM_KEY,
        Message::KemCiphertext(_) => message::KEM_CIPHERTEXT,
        Message::Data(_) => message::DATA,
        Message::Other(_) => 0,
    }
}

/// As [`kind`], written after the diagrams of docs/WIRE.md, with literal numbers.
fn specified(data: &[u8]) -> Option<u8> {
    let number = |at: usize| u32::from_be_bytes(data[at..at + 4].try_into().unwrap());
    let right = match (data.first()?, data.len()) {
        (5, 32..) => data[1] < 4 && data[2..4] == [0, 0],
        (1 | 2, 64..) if data[1] != 1 => return Some(0),
        (1, length @ (1336 | 152)) => {
            let time = number(12) < 1 << 31;
            data[2] == u8::from(length == 152) && [1, 3].contains(&data[3]) && number(4) != 0 && time
        }
        (2, 1184 | 96) => data[2] < 2 && data[3] == 0 && number(4) != 0,
        (1 | 2, 64..) => return Some(0),
        (3, 1208) | (4, 1112) => data[1..4] == [1, 0, 0],
        _ => false,
    };
    right.then_some(data[0])
}

/// Checks that a responder rejects a made-up initiation.
fn refused_initiation(data: &[u8]) {
    static PAIRS: OnceLock<[Pair; 2]> = OnceLock::new();
    let [them, us] = PAIRS.get_or_init(|| [0, 1].map(pair_of));
    let mut bytes = data.to_vec();
    them.put_macs(&mut bytes);
    assert!(us.is_of_the_pair(&bytes) && us.is_for_us(&bytes) && !them.is_of_the_pair(&bytes));
    let Some(Message::Initiation(initiation)) = message::parse(&bytes) else { panic!("its MACs made it another") };
    assert!(respond(us, &initiation, 3, 9, &mut random(1)).is_err());
}

/// Checks that an initiator accepts the right response after a wrong one.
fn refused_response(data: &[u8]) {
    let Some(Message::Response(response)) = message::parse(data) else { unreachable!() };
    let [us, them] = [0, 1].map(pair_of);
    let timestamp = Timestamp(1);
    for form in [Form::Long, Form::Short] {
        let mut initiator = Initiator::new(&us, form, 3, (7, 0), timestamp, &mut random(2)).unwrap();
        assert!(initiator.take(&response).is_err());
        let Some(Message::Initiation(initiation)) = message::parse(initiator.bytes()) else { unreachable!() };
        let (right, _) = respond(&them, &initiation, 3, 9, &mut random(3)).unwrap();
        let Some(Message::Response(right)) = message::parse(&right) else { unreachable!() };
        let taken = initiator.take(&right).unwrap();
        assert_eq!(matches!(taken, Answered::Keys(_)), form == Form::Long);
    }
}

/// Content of an opened datagram: all ranges lie within the datagram, and the parsed content is written again.
pub fn content(data: &[u8]) {
    match content::parse(data) {
        Some(Content::Frame(frame)) => {
            assert_eq!(data[..content::FRAME_HEADER], content::frame_header(frame.checksum));
            assert!(frame.range.end == data.len() && frame.range.len() <= MAX_FRAME);
        }
        Some(Content::Bundle(bundle)) => {
            let mut again = content::bundle_header().to_vec();
            for frame in bundle.frames() {
                again.extend_from_slice(&content::item_header(frame.range.len(), frame.checksum));
                again.extend_from_slice(&data[frame.range]);
            }
            assert_eq!(again, data);
        }
        Some(Content::Fragment(Fragment { number, each, whole, identification, range })) => {
            assert_eq!(data[..range.start], content::fragment_header(number, each, whole, identification));
            assert!(range.end == data.len() && number * each + range.len() <= whole && whole <= content::WHOLE);
        }
        Some(Content::Ping(pinged, every_path)) => {
            let again = content::ping(pinged.token, pinged.counts, every_path);
            assert!(data[4..content::PINGED] == again[4..] && data[0] == again[0] && data[1] & 1 == again[1]);
        }
        Some(Content::Pong(pinged)) => {
            let again = content::pong(pinged.token, pinged.counts);
            assert!(data[4..content::PINGED] == again[4..] && data[0] == again[0]);
        }
        Some(Content::Probe(token, size, _) | Content::Arrived(token, size)) => {
            assert!(data.len() >= content::PROBED && data[4..12] == token && data[2..4] == size.to_be_bytes());
        }
        Some(Content::Unknown) => assert!(data[0] == 6 || data[0] > 7),
        None => {}
    }
}

/// Series of contents, each preceded by two bytes of length, one of session and queue, and one of time. Up to four arrive at once.
/// Frames and losses agree with a plain model.
pub fn unpack(mut data: &[u8]) {
    const AT_ONCE: usize = 4;
    let (mut unpacker, mut model, mut now_us) = (Unpacker::default(), Model::default(), 0);
    let mut batch = Batch::with_slots(2 * AT_ONCE + 1);
    while !data.is_empty() {
        let (mut contents, mut expected) = (Vec::new(), Vec::new());
        while let ([high, low, from, time, rest @ ..], true) = (data, contents.len() < AT_ONCE) {
            let length = usize::from(u16::from_be_bytes([*high, *low])) % (content::WHOLE + 20);
            let (one, next) = rest.split_at(length.min(rest.len()));
            let pause = if *time < 200 { u64::from(*time) } else { 100_000 * u64::from(*time - 199) };
            contents.push((one, (u32::from(*from >> 4), from & 3), pause));
            data = next;
        }
        if contents.is_empty() {
            return;
        }
        batch.clear();
        for (content, ..) in &contents {
            batch.append_copy(content);
        }
        let mut each = contents.iter();
        batch.expand(|_, memory, datagram, found| {
            let Some(&(content, from, pause)) = each.next() else { unreachable!() };
            self::content(content);
            // Two contents never arrive at the same time. Otherwise the model would need to know the slots of the reassembly.
            now_us += 1 + pause;
            let taken = unpacker.take(from, memory, datagram, now_us, found);
            assert_eq!(taken, model.take(from, content, now_us, &mut expected));
        });
        assert!(batch.frames(0).eq(&expected));
        assert_eq!(unpacker.expire(now_us), model.expire(now_us));
    }
}

/// Model of the reassembly: unfinished frames, the oldest first, in memory that grows.
#[derive(Default)]
struct Model {
    waiting: Vec<Pieces>,
    lost: u64,
}

struct Pieces {
    key: ((u32, u8), u32),
    since_us: u64,
    sizes: (usize, usize),
    came: BTreeMap<usize, Vec<u8>>,
}

impl Model {
    fn expire(&mut self, now_us: u64) -> u64 {
        let before = self.waiting.len();
        self.waiting.retain(|pieces| now_us <= pieces.since_us + 1_000_000);
        self.lost += (before - self.waiting.len()) as u64;
        std::mem::take(&mut self.lost)
    }

    fn take(
        &mut self,
        from: (u32, u8),
        bytes: &[u8],
        now_us: u64,
        frames: &mut Vec<Vec<u8>>,
    ) -> Result<Option<Control>, Lost> {
        match content::parse(bytes).ok_or(Lost::Wrong)? {
            Content::Ping(pinged, every_path) => return Ok(Some(Control::Ping(pinged, every_path))),
            Content::Pong(pinged) => return Ok(Some(Control::Pong(pinged))),
            Content::Probe(token, size, every_path) => return Ok(Some(Control::Probe(token, size, every_path))),
            Content::Arrived(token, size) => return Ok(Some(Control::Arrived(token, size))),
            Content::Unknown => return Ok(None),
            Content::Frame(frame) => frames.push(bytes[frame.range].to_vec()),
            Content::Bundle(bundle) => frames.extend(bundle.frames().map(|frame| bytes[frame.range].to_vec())),
            Content::Fragment(piece) => {
                self.lost = self.expire(now_us);
                if let Some(whole) = self.join((from, piece.identification), &piece, bytes, now_us)? {
                    let frame = content::frame(&whole).ok_or(Lost::Wrong)?;
                    frames.push(whole[frame.range].to_vec());
                }
            }
        }
        Ok(None)
    }

    fn join(
        &mut self,
        key: ((u32, u8), u32),
        piece: &Fragment,
        bytes: &[u8],
        now_us: u64,
    ) -> Result<Option<Vec<u8>>, Lost> {
        let sizes = (piece.each, piece.whole);
        let at = self.waiting.iter().position(|pieces| pieces.key == key).unwrap_or_else(|| {
            if self.waiting.len() == 16 {
                self.waiting.remove(0);
                self.lost += 1;
            }
            self.waiting.push(Pieces { key, since_us: now_us, sizes, came: BTreeMap::new() });
            self.waiting.len() - 1
        });
        let pieces = &mut self.waiting[at];
        if pieces.sizes != sizes {
            self.waiting.remove(at);
            return Err(Lost::Wrong);
        }
        if pieces.came.contains_key(&piece.number) {
            return Err(Lost::Wrong);
        }
        pieces.came.insert(piece.number, bytes[piece.range.clone()].to_vec());
        let whole = pieces.came.values().map(Vec::len).sum::<usize>() == piece.whole;
        Ok(whole.then(|| self.waiting.remove(at).came.into_values().flatten().collect()))
    }
}

/// Private key and public key of the peer. Returns whether the worker accepts the pair, `None` if the data is too short. MACs made
/// with an accepted pair are not for this end itself.
pub fn pair(data: &[u8]) -> Option<bool> {
    let (private, rest) = data.split_first_chunk::<KEY>()?;
    let peer = rest.first_chunk::<KEY>()?;
    let pair = Pair::new(private, *peer, &[0; KEY], [0; 8]).ok();
    if let Some(pair) = &pair {
        let mut message = [5; 70];
        pair.put_macs(&mut message);
        assert!(!pair.has_head_of_the_pair(&message) && !pair.is_of_the_pair(&message) && !pair.is_for_us(&message));
        assert_eq!(pair.gives_way(), pair.public < pair.peer);
    }
    Some(pair.is_some())
}
