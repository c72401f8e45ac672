//! Format of the messages, without their meaning. Lengths and zeros are exact.

use super::Timestamp;

use super::CipherKind;
use super::keys::{HEAD, MAC, MACS};

/// Version of the protocol.
pub const VERSION: u8 = 1;
/// First byte of an initiation.
pub const INITIATION: u8 = 1;
/// First byte of a response.
pub const RESPONSE: u8 = 2;
/// First byte of a KEM key.
pub const KEM_KEY: u8 = 3;
/// First byte of a KEM ciphertext.
pub const KEM_CIPHERTEXT: u8 = 4;
/// First byte of data.
pub const DATA: u8 = 5;

/// Bytes before Noise's part in an initiation, which the prologue includes.
pub const INITIATION_HEADER: usize = 20;
/// Bytes before Noise's part in a response.
pub const RESPONSE_HEADER: usize = 12;
/// Bytes before the sealed part of messages 3 and 4.
pub const KEM_HEADER: usize = 8;
/// Length of a datagram without content: header and tag.
pub const DATA_LEAST: usize = 32;
/// Queues of a sender.
pub const QUEUES: u8 = 4;

/// Length in bytes of an ML-KEM-768 public key (FIPS 203).
pub const PUBLIC: usize = 1184;
/// Length in bytes of an ML-KEM-768 ciphertext.
pub const CIPHERTEXT: usize = 1088;
const TAG: usize = 16;
/// Length in bytes of the features at the end of a sealed payload.
pub const FEATURES: usize = 4;

/// Features of an end.
pub mod features {
    /// The end carries congestion marks of datagrams into their frames (RFC 6040).
    pub const ECN: u32 = 1;
}
/// Lengths in bytes of Noise's ephemeral key, and of its sealed static key.
const EPHEMERAL: usize = 32;
const STATIC: usize = 48;

/// Form of a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The KEM travels inside messages 1 and 2.
    Long = 0,
    /// The KEM follows in messages 3 and 4.
    Short = 1,
}

/// Ciphers of an end, as bits.
pub mod offer {
    use super::CipherKind;

    /// ChaCha20-Poly1305, supported by every end.
    pub const CHACHA: u8 = 1;
    /// AES-256-GCM.
    pub const AES: u8 = 2;

    /// Best cipher in the common offer `both`.
    pub fn best(both: u8) -> CipherKind {
        if both & AES != 0 { CipherKind::Aes256Gcm } else { CipherKind::ChaCha20Poly1305 }
    }

    /// Whether a cipher is in an offer.
    pub fn has(offer: u8, cipher: CipherKind) -> bool {
        offer & (1 << cipher as u8) != 0
    }
}

impl Form {
    /// Length of an initiation in bytes.
    pub fn initiation(self) -> usize {
        let key = if self == Self::Long { PUBLIC } else { 0 };
        INITIATION_HEADER + EPHEMERAL + STATIC + key + FEATURES + TAG + MACS
    }

    /// Length of a response in bytes.
    pub fn response(self) -> usize {
        let ciphertext = if self == Self::Long { CIPHERTEXT } else { 0 };
        RESPONSE_HEADER + EPHEMERAL + ciphertext + FEATURES + TAG + MACS
    }
}

/// A message of valid format.
#[derive(Debug, Clone, Copy)]
pub enum Message<'a> {
    /// Message 1, the first of a handshake.
    Initiation(Initiation<'a>),
    /// Message 2, its answer.
    Response(Response<'a>),
    /// Message 3, in the short form.
    KemKey(Kem<'a>),
    /// Message 4, in the short form.
    KemCiphertext(Kem<'a>),
    /// Data for the session with this index.
    Data(u32),
    /// Message 1 or 2 of this other version, or of the same version with another length. It has room for the MACs.
    Other(u8),
}

/// Message 1.
#[derive(Debug, Clone, Copy)]
pub struct Initiation<'a> {
    /// The whole message.
    pub bytes: &'a [u8],
    /// Form of the handshake.
    pub form: Form,
    /// Ciphers of the sender.
    pub offer: u8,
    /// Index of the sender.
    pub sender: u32,
    /// Time of the sender.
    pub timestamp: Timestamp,
}

impl Initiation<'_> {
    /// Noise's part.
    pub fn noise(&self) -> &[u8] {
        &self.bytes[INITIATION_HEADER..self.bytes.len() - MACS]
    }

    /// Last MAC, which identifies the message.
    pub fn mac2(&self) -> [u8; MAC] {
        last(self.bytes)
    }
}

/// Message 2.
#[derive(Debug, Clone, Copy)]
pub struct Response<'a> {
    /// The whole message.
    pub bytes: &'a [u8],
    /// Form of the handshake.
    pub form: Form,
    /// Chosen cipher.
    pub cipher: CipherKind,
    /// Index of the sender.
    pub sender: u32,
    /// Index of the receiver.
    pub receiver: u32,
}

impl Response<'_> {
    /// Noise's part.
    pub fn noise(&self) -> &[u8] {
        &self.bytes[RESPONSE_HEADER..self.bytes.len() - MACS]
    }
}

/// Message 3 or 4.
#[derive(Debug, Clone, Copy)]
pub struct Kem<'a> {
    /// The whole message.
    pub bytes: &'a [u8],
    /// Index of the receiver.
    pub receiver: u32,
}

impl Kem<'_> {
    /// Tag, which identifies the message.
    pub fn tag(&self) -> [u8; MAC] {
        last(self.bytes)
    }
}

/// Last bytes, with the last MAC or the tag.
fn last(bytes: &[u8]) -> [u8; MAC] {
    bytes.last_chunk().copied().unwrap_or_default()
}

fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes)
}

/// Parses a datagram; `None` if it is no message.
pub fn parse(bytes: &[u8]) -> Option<Message<'_>> {
    let (&kind, &version) = (bytes.first()?, bytes.get(1)?);
    match kind {
        DATA => {
            let right = bytes.len() >= DATA_LEAST && version < QUEUES && bytes[2..4] == [0, 0];
            right.then(|| Message::Data(number(bytes, 4)))
        }
        INITIATION | RESPONSE if version != VERSION || !lengths(kind).contains(&bytes.len()) => {
            (bytes.len() >= HEAD + MACS).then_some(Message::Other(version))
        }
        _ if version != VERSION => None,
        INITIATION => initiation(bytes).map(Message::Initiation),
        RESPONSE => response(bytes).map(Message::Response),
        KEM_KEY | KEM_CIPHERTEXT => {
            let key = kind == KEM_KEY;
            let length = KEM_HEADER + if key { PUBLIC } else { CIPHERTEXT } + TAG;
            let kem =
                (bytes.len() == length && bytes[2..4] == [0, 0]).then(|| Kem { bytes, receiver: number(bytes, 4) })?;
            Some(if key { Message::KemKey(kem) } else { Message::KemCiphertext(kem) })
        }
        _ => None,
    }
}

/// Valid lengths of message 1 or 2.
fn lengths(kind: u8) -> [usize; 2] {
    [Form::Long, Form::Short].map(|form| if kind == INITIATION { form.initiation() } else { form.response() })
}

fn initiation(bytes: &[u8]) -> Option<Initiation<'_>> {
    let form = [Form::Long, Form::Short].into_iter().find(|&form| bytes.get(2) == Some(&(form as u8)))?;
    if bytes.len() != form.initiation() {
        return None;
    }
    let (offer, sender) = (bytes[3], number(bytes, 4));
    let timestamp = Timestamp(bytes.get(12..20).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes)?);
    let right = offer & offer::CHACHA != 0 && offer & !(offer::CHACHA | offer::AES) == 0 && sender != 0;
    (right && timestamp == timestamp.bounded()).then_some(Initiation { bytes, form, offer, sender, timestamp })
}

fn response(bytes: &[u8]) -> Option<Response<'_>> {
    let form = [Form::Long, Form::Short].into_iter().find(|form| bytes.len() == form.response())?;
    let cipher = [CipherKind::ChaCha20Poly1305, CipherKind::Aes256Gcm];
    let cipher = cipher.into_iter().find(|&cipher| bytes[2] == cipher as u8)?;
    let (sender, receiver) = (number(bytes, 4), number(bytes, 8));
    (bytes[3] == 0 && sender != 0).then_some(Response { bytes, form, cipher, sender, receiver })
}

/// Initiation without Noise's part and MACs. The receiver index is zero if none is known.
pub fn begin_initiation(form: Form, offer: u8, sender: u32, receiver: u32, timestamp: Timestamp) -> Vec<u8> {
    let mut bytes = vec![0; form.initiation()];
    bytes[..4].copy_from_slice(&[INITIATION, VERSION, form as u8, offer]);
    bytes[4..8].copy_from_slice(&sender.to_be_bytes());
    bytes[8..12].copy_from_slice(&receiver.to_be_bytes());
    bytes[12..20].copy_from_slice(&timestamp.0.to_be_bytes());
    bytes
}

/// Response without Noise's part and MACs.
pub fn begin_response(form: Form, cipher: CipherKind, sender: u32, receiver: u32) -> Vec<u8> {
    let mut bytes = vec![0; form.response()];
    bytes[..4].copy_from_slice(&[RESPONSE, VERSION, cipher as u8, 0]);
    bytes[4..8].copy_from_slice(&sender.to_be_bytes());
    bytes[8..12].copy_from_slice(&receiver.to_be_bytes());
    bytes
}

/// Message 3 or 4 without its tag.
pub fn begin_kem(kind: u8, receiver: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; KEM_HEADER];
    bytes[..2].copy_from_slice(&[kind, VERSION]);
    bytes[4..8].copy_from_slice(&receiver.to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_999_999_999);

    #[test]
    fn message_lengths_match_specification() {
        assert_eq!([Form::Long, Form::Short].map(Form::initiation), [1336, 152]);
        assert_eq!([Form::Long, Form::Short].map(Form::response), [1184, 96]);
        assert_eq!(
            (begin_kem(3, 7, &[0; PUBLIC]).len() + 16, begin_kem(4, 7, &[0; CIPHERTEXT]).len() + 16),
            (1208, 1112)
        );
    }

    /// One valid message of each kind, and the positions among its first bytes that may have any value.
    fn right() -> Vec<(Vec<u8>, &'static [usize])> {
        let mut data = vec![0; 40];
        data[0] = DATA;
        let kem = |kind, length| [begin_kem(kind, 9, &vec![0; length]), vec![0; 16]].concat();
        vec![
            (begin_initiation(Form::Long, 3, 7, 0, NOW), &[4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]),
            (begin_initiation(Form::Short, 1, 7, 9, NOW), &[4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]),
            (begin_response(Form::Long, CipherKind::Aes256Gcm, 7, 8), &[4, 5, 6, 7, 8, 9, 10, 11]),
            (begin_response(Form::Short, CipherKind::ChaCha20Poly1305, 7, 8), &[4, 5, 6, 7, 8, 9, 10, 11]),
            (kem(KEM_KEY, PUBLIC), &[4, 5, 6, 7]),
            (kem(KEM_CIPHERTEXT, CIPHERTEXT), &[4, 5, 6, 7]),
            (data, &[4, 5, 6, 7, 8, 9, 10, 11]),
        ]
    }

    #[test]
    fn reserved_bytes_are_zero() {
        for (bytes, any) in right() {
            let kind = bytes[0];
            let is_known = |bytes: &[u8]| parse(bytes).is_some_and(|message| !matches!(message, Message::Other(_)));
            assert!(is_known(&bytes), "{kind}");
            // The length of a response determines its form.
            let is_one = |length| kind == DATA && length >= DATA_LEAST || kind == RESPONSE && length == 96;
            for length in (0..bytes.len()).filter(|&length| !is_one(length)) {
                assert!(!is_known(&bytes[..length]), "{kind}, {length} bytes");
            }
            assert_eq!(is_known(&[&bytes[..], &[0]].concat()), kind == DATA);
            // The first four bytes determine the kind: with another value in one of them it is another message.
            for at in (0..4).filter(|at| !any.contains(at)) {
                for value in (0..=255).filter(|&value| value != bytes[at] && (at > 0 || !(1..=5).contains(&value))) {
                    let mut changed = bytes.clone();
                    changed[at] = value;
                    let fits = matches!(
                        (kind, at, value),
                        (INITIATION, 3, 1 | 3) | (RESPONSE, 2, 0 | 1) | (DATA, 1, 0..QUEUES)
                    );
                    assert_eq!(is_known(&changed), fits, "{kind}: byte {at} is {value}");
                }
            }
        }
    }

    /// "A type 1 or 2 with another version and at least 64 bytes is dropped." The same applies to version 1 with another length.
    #[test]
    fn other_version_needs_room_for_macs() {
        for (kind, version) in (0..=255).flat_map(|kind| [0, 1, 2, 255].map(|version| (kind, version))) {
            for length in [2, 63, 64, 65, 92, 148, 1180, 1332, 1500] {
                let mut bytes = vec![0xff; length];
                (bytes[0], bytes[1]) = (kind, version);
                let is_other = matches!(parse(&bytes), Some(Message::Other(other)) if other == version);
                assert_eq!(is_other, [INITIATION, RESPONSE].contains(&kind) && length >= 64, "{kind}, {length} bytes");
                assert!(is_other || parse(&bytes).is_none(), "{kind}, {length} bytes");
            }
        }
    }

    #[test]
    fn invalid_index_or_time_is_refused() {
        let begin = |sender, timestamp| begin_initiation(Form::Short, 3, sender, 6, timestamp);
        assert!(parse(&begin(0, NOW)).is_none());
        assert!(parse(&begin(1, Timestamp(1 << 63))).is_none());
        assert!(parse(&begin(1, Timestamp::MAX)).is_some());
        assert!(parse(&begin_response(Form::Short, CipherKind::Aes256Gcm, 0, 1)).is_none());
        let bytes = begin(5, NOW);
        let Some(Message::Initiation(initiation)) = parse(&bytes) else { panic!() };
        let Initiation { sender, timestamp, offer, form, .. } = initiation;
        assert_eq!((sender, timestamp, offer, form), (5, NOW, 3, Form::Short));
        // The receiver index is at the position where a response has it.
        assert_eq!(bytes[8..12], begin_response(Form::Short, CipherKind::Aes256Gcm, 9, 6)[8..12]);
    }
}
