//! Tests of the classic wire's pure functions against cases recorded from the original program.

use ethudp_worker::batch::{BATCH, Batch, MAX_FRAME};
use ethudp_worker::wire::classic::codec::{Codec, Kind, LONGEST, PING, PONG, Scratch, kind};
use privsep::ipc::Cipher;
use proptest::collection::vec;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::Value;

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/classic.jsonl");
const CIPHERS: [(&str, Cipher); 5] = [
    ("none", Cipher::None),
    ("xor", Cipher::Xor),
    ("aes-128", Cipher::Aes128),
    ("aes-192", Cipher::Aes192),
    ("aes-256", Cipher::Aes256),
];

#[derive(Deserialize)]
struct Case {
    id: String,
    feature: String,
    direction: String,
    codec: Recorded,
    /// Value of -mtu if the output may contain fragments.
    mtu: Option<u32>,
    input: Vec<Value>,
    output: Vec<Value>,
}

#[derive(Deserialize)]
struct Recorded {
    alg: String,
    key_hex: String,
    lz4: u8,
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn codec(recorded: &Recorded) -> Codec {
    let cipher = CIPHERS.iter().find(|(name, _)| *name == recorded.alg).unwrap().1;
    Codec::new(cipher, &unhex(&recorded.key_hex), recorded.lz4 > 0)
}

fn cases(features: &[&str], direction: &str) -> Vec<Case> {
    let text = std::fs::read_to_string(CASES).unwrap();
    let all = text.lines().map(|line| serde_json::from_str::<Case>(line).unwrap());
    let cases: Vec<_> = all
        .filter(|case| features.contains(&case.feature.as_str()) && case.direction == direction)
        .filter(|case| case.codec.lz4 == 0 && case.mtu.is_none())
        .collect();
    assert!(!cases.is_empty());
    cases
}

fn bytes(values: &[Value]) -> Vec<Vec<u8>> {
    let hex = |value: &Value| {
        let field = value.as_str().or_else(|| value["udp"].as_str()).or_else(|| value["inner"].as_str());
        unhex(field.unwrap())
    };
    values.iter().map(hex).collect()
}

fn seal(codec: &Codec, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut batch = Batch::default();
    for (slot, frame) in batch.slots().zip(frames) {
        slot[..frame.len()].copy_from_slice(frame);
    }
    for (index, frame) in frames.iter().enumerate() {
        batch.push(index, frame.len());
    }
    codec.seal(&mut batch, &mut Scratch::default());
    batch.frames(0).map(<[u8]>::to_vec).collect()
}

fn open(codec: &Codec, datagram: &[u8]) -> Option<Vec<u8>> {
    // Room behind the datagram, as in a batch.
    let mut buffer = [datagram, &[0x55; 10_000]].concat();
    codec.open(&mut buffer, datagram.len(), &mut Scratch::default()).map(|length| buffer[..length].to_vec())
}

const WIRE: &[&str] =
    &["plain", "enc-xor", "enc-aes-128", "enc-aes-192", "enc-aes-256", "limits", "underlay6", "mode-e", "mode-b"];

#[test]
fn recorded_frames_seal_as_original() {
    for case in cases(WIRE, "tx") {
        if case.input.iter().all(Value::is_string) {
            assert_eq!(seal(&codec(&case.codec), &bytes(&case.input)), bytes(&case.output), "{}", case.id);
        }
    }
}

#[test]
fn recorded_datagrams_open_as_original() {
    for case in cases(&[WIRE, &["rx-invalid"]].concat(), "rx") {
        if case.input.iter().all(Value::is_string) {
            let codec = codec(&case.codec);
            let datagrams = bytes(&case.input);
            let frames = datagrams.iter().filter_map(|datagram| open(&codec, datagram)).filter(|decoded| {
                // A wrong key can give any bytes, even those that no interface accepts.
                decoded.len() >= 14 && kind(decoded) == Kind::Frame
            });
            assert_eq!(frames.collect::<Vec<_>>(), bytes(&case.output), "{}", case.id);
        }
    }
}

#[test]
fn recorded_pings_and_pongs_match() {
    let mut pings = 0;
    for case in cases(&["control"], "control") {
        let codec = codec(&case.codec);
        for step in case.input.iter().filter(|step| step["udp"].is_string()) {
            let asked = open(&codec, &unhex(step["udp"].as_str().unwrap())).map(|decoded| kind(&decoded));
            if asked == Some(Kind::Ping) && !case.output.is_empty() {
                assert_eq!(codec.seal_message(PONG).as_slice(), bytes(&case.output)[0], "{}", case.id);
                pings += 1;
            }
        }
    }
    assert!(pings > 15, "only {pings} cases have a PING");
}

#[test]
fn control_words_match_by_prefix() {
    for (decoded, expected) in [
        (&b"PING:PING:"[..], Kind::Ping),
        (b"PING:PING:\0more", Kind::Ping),
        (b"PONG:PONG:x", Kind::Pong),
        (b"PASSWORD:", Kind::Password),
        (b"PING:", Kind::Frame),
        (b"ping:ping:", Kind::Frame),
        (b"", Kind::Frame),
    ] {
        assert_eq!(kind(decoded), expected, "{decoded:?}");
    }
    assert_eq!(kind(PING), Kind::Ping);
}

#[test]
fn empty_or_oversize_is_not_opened() {
    for (name, cipher) in CIPHERS {
        let codec = Codec::new(cipher, b"0123456789abcdef", false);
        assert_eq!(open(&codec, &[]), None, "{name}: empty");
        assert_eq!(open(&codec, &vec![0; LONGEST + 1]), None, "{name}: datagram over the limit");
        for (length, fits) in [(1, true), (MAX_FRAME, true), (MAX_FRAME + 1, false)] {
            let sealed = seal(&codec, &[vec![7; length]]);
            assert_eq!(open(&codec, &sealed[0]).is_some(), fits, "{name}: frame of {length} bytes");
        }
    }
}

/// AES of one block, with a key of 16, 24 or 32 bytes.
fn aes(key: &[u8], block: &mut aes::Block, encrypt: bool) {
    use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
    macro_rules! with {
        ($cipher:ty) => {{
            let cipher = <$cipher>::new_from_slice(key).unwrap();
            if encrypt { cipher.encrypt_block(block) } else { cipher.decrypt_block(block) }
        }};
    }
    match key.len() {
        16 => with!(aes::Aes128),
        24 => with!(aes::Aes192),
        _ => with!(aes::Aes256),
    }
}

fn xor(block: &mut aes::Block, with: &[u8]) {
    block.iter_mut().zip(with).for_each(|(byte, with)| *byte ^= with);
}

/// CBC by definition, one block at a time, as a reference for the work across frames.
fn cbc_by_definition(key: &[u8], frame: &[u8]) -> Vec<u8> {
    let padding = 16 - frame.len() % 16;
    let padded = [frame, &vec![u8::try_from(padding).unwrap(); padding]].concat();
    let mut chained = aes::Block::default();
    let mut sealed = Vec::new();
    for block in padded.chunks_exact(16) {
        xor(&mut chained, block);
        aes(key, &mut chained, true);
        sealed.extend_from_slice(&chained);
    }
    sealed
}

/// The inverse; `None` if length or padding is wrong.
fn opened_by_definition(key: &[u8], datagram: &[u8]) -> Option<Vec<u8>> {
    let (mut before, mut opened) = ([0; 16], Vec::new());
    for sealed in datagram.chunks(16) {
        let sealed: [u8; 16] = sealed.try_into().ok()?;
        let mut block = sealed.into();
        aes(key, &mut block, false);
        xor(&mut block, &before);
        opened.extend_from_slice(&block);
        before = sealed;
    }
    let (&padding, length) = (opened.last()?, opened.len());
    let is_padded = (1..=16).contains(&padding) && opened.ends_with(&vec![padding; padding.into()]);
    opened.truncate(length - usize::from(padding).min(length));
    is_padded.then_some(opened)
}

const AES: [(usize, Cipher); 4] =
    [(16, Cipher::Aes128), (24, Cipher::Aes192), (32, Cipher::Aes256), (24, Cipher::Aes256Ethudp2023)];

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mixed_batch_seals_as_single_frames(
        frames in vec(vec(any::<u8>(), 0..700), 0..=BATCH), key: [u8; 32]
    ) {
        for (size, cipher) in AES {
            let codec = Codec::new(cipher, &key[..size], false);
            let expected: Vec<_> = frames.iter().map(|frame| cbc_by_definition(&key[..size], frame)).collect();
            prop_assert_eq!(seal(&codec, &frames), expected);
        }
    }

    #[test]
    fn full_batch_seals_as_single_frames(length in 0_usize..200, count in 0..=BATCH, key: [u8; 32]) {
        let frames: Vec<_> = (0..count).map(|number| vec![u8::try_from(number).unwrap(); length]).collect();
        for (size, cipher) in AES {
            let codec = Codec::new(cipher, &key[..size], false);
            let expected: Vec<_> = frames.iter().map(|frame| cbc_by_definition(&key[..size], frame)).collect();
            prop_assert_eq!(seal(&codec, &frames), expected);
        }
    }

    #[test]
    fn opening_matches_definition(
        frame in vec(any::<u8>(), 1..3000), padding in vec(any::<u8>(), 16), wrong in 0..4_usize, key: [u8; 32]
    ) {
        for (size, cipher) in AES {
            let (codec, key) = (Codec::new(cipher, &key[..size], false), &key[..size]);
            let mut sealed = cbc_by_definition(key, &frame);
            prop_assert_eq!(open(&codec, &sealed), Some(frame.clone()));
            // Wrong padding bytes, and too few.
            let whole = frame.len() / 16 * 16;
            for last in [padding.clone(), vec![0; 16], vec![17; 16], [&padding[..14], &[3, 3]].concat()] {
                sealed = cbc_by_definition(key, &[&frame[..whole], &last].concat());
                sealed.truncate(whole + 16 - wrong);
                let expected = opened_by_definition(key, &sealed).filter(|opened| !opened.is_empty());
                prop_assert_eq!(open(&codec, &sealed), expected);
            }
        }
    }

    #[test]
    fn classic_frames_round_trip(frame in vec(any::<u8>(), 1..MAX_FRAME), key in vec(any::<u8>(), 1..40)) {
        for (_, cipher) in CIPHERS {
            let codec = Codec::new(cipher, &key, false);
            let sealed = seal(&codec, std::slice::from_ref(&frame));
            prop_assert_eq!(open(&codec, &sealed[0]), Some(frame.clone()));
        }
    }

    #[test]
    fn garbage_causes_no_panic(datagram in vec(any::<u8>(), 0..9400), key in vec(any::<u8>(), 0..40)) {
        for (_, cipher) in CIPHERS {
            let codec = Codec::new(cipher, &key, false);
            if let Some(decoded) = open(&codec, &datagram) {
                prop_assert!(!decoded.is_empty() && decoded.len() <= MAX_FRAME);
                kind(&decoded);
            }
        }
    }
}
