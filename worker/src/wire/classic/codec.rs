//! Codec of the classic wire. A datagram is a frame or one of three control words, first compressed, then encrypted.

use aes::{Aes128Dec, Aes128Enc, Aes192Dec, Aes192Enc, Aes256Dec, Aes256Enc};
use privsep::ipc::{Cipher, SealCounters};
use zeroize::{Zeroize, Zeroizing};

use super::{cbc, lz4};
use crate::batch::{Batch, MAX_FRAME};

/// Length in bytes of the longest datagram that is opened: AES pads the longest frame to 9248.
pub const LONGEST: usize = MAX_FRAME / 16 * 16 + 16;

/// Asks the peer for a [`PONG`].
pub const PING: &[u8] = b"PING:PING:";
/// Answers a [`PING`].
pub const PONG: &[u8] = b"PONG:PONG:";
/// Begins a message with the password.
pub const PASSWORD: &[u8] = b"PASSWORD:";

/// Kind of a decoded datagram. A control word is recognised by its first bytes; the rest does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// [`PING`].
    Ping,
    /// [`PONG`].
    Pong,
    /// [`PASSWORD`]; ignored if the remote is fixed.
    Password,
    /// An Ethernet frame.
    Frame,
}

/// Returns the kind of a decoded datagram.
pub fn kind(decoded: &[u8]) -> Kind {
    match decoded {
        _ if decoded.starts_with(PING) => Kind::Ping,
        _ if decoded.starts_with(PONG) => Kind::Pong,
        _ if decoded.starts_with(PASSWORD) => Kind::Password,
        _ => Kind::Frame,
    }
}

/// Cipher, key and compression of a tunnel.
pub struct Codec {
    cipher: Inner,
    compress: bool,
}

/// Memory of one thread for sealing and opening, allocated once.
#[derive(Default)]
pub struct Scratch(lz4::Scratch);

enum Inner {
    None,
    /// The key, repeated to the length of the longest datagram.
    Xor(Zeroizing<Vec<u8>>),
    Aes128(Box<cbc::Key<Aes128Enc, Aes128Dec>>),
    Aes192(Box<cbc::Key<Aes192Enc, Aes192Dec>>),
    Aes256(Box<cbc::Key<Aes256Enc, Aes256Dec>>),
}

impl Codec {
    /// Xor uses `key` unchanged. AES truncates it or pads it with zeros to the cipher's key length.
    pub fn new(cipher: Cipher, key: &[u8], compress: bool) -> Self {
        let cipher = match cipher {
            Cipher::Xor if !key.is_empty() => {
                Inner::Xor(Zeroizing::new(key.iter().copied().cycle().take(LONGEST).collect()))
            }
            Cipher::None | Cipher::Xor => Inner::None,
            Cipher::Aes128 => Inner::Aes128(Box::new(cbc::Key::new(key))),
            Cipher::Aes192 | Cipher::Aes256Ethudp2023 => Inner::Aes192(Box::new(cbc::Key::new(key))),
            Cipher::Aes256 => Inner::Aes256(Box::new(cbc::Key::new(key))),
        };
        Self { cipher, compress }
    }

    /// Seals every frame of the batch in place; a frame has at most [`MAX_FRAME`] bytes. Returns the changes of size.
    pub fn seal(&self, batch: &mut Batch, scratch: &mut Scratch) -> SealCounters {
        let mut sizes = SealCounters { bytes: batch.bytes(), ..SealCounters::default() };
        if self.compress {
            for index in 0..batch.len() {
                let length = batch.frame(index).len();
                let sealed = scratch.0.compress(batch.grow_back(index, 1), length);
                batch.truncate(index, sealed);
                if sealed > length {
                    sizes.compress_overhead += 1;
                } else {
                    sizes.compress_saved += (length - sealed) as u64;
                }
            }
        }
        let before = batch.bytes();
        match &self.cipher {
            Inner::None => {}
            Inner::Xor(key) => (0..batch.len()).for_each(|index| xor(batch.frame_mut(index), key)),
            Inner::Aes128(key) => key.seal(batch),
            Inner::Aes192(key) => key.seal(batch),
            Inner::Aes256(key) => key.seal(batch),
        }
        sizes.encrypt_overhead = batch.bytes() - before;
        sizes
    }

    /// Seals a control message. Because the IV is constant, a message always gives the same datagram.
    pub fn seal_message(&self, message: &[u8]) -> Zeroizing<Vec<u8>> {
        let mut batch = Batch::with_slots(1);
        batch.append_copy(message);
        self.seal(&mut batch, &mut Scratch::default());
        let datagram = Zeroizing::new(batch.frame(0).to_vec());
        batch.frame_mut(0).zeroize();
        datagram
    }

    /// Opens the datagram in `buffer[..length]` in place and returns the length of the content. `None` if the datagram is invalid,
    /// empty, or longer than any frame. Decompression may overwrite the bytes after the datagram.
    pub fn open(&self, buffer: &mut [u8], length: usize, scratch: &mut Scratch) -> Option<usize> {
        let datagram = &mut buffer[..length];
        let length = match &self.cipher {
            _ if length > LONGEST => None,
            Inner::None => Some(length),
            Inner::Xor(key) => {
                xor(datagram, key);
                Some(length)
            }
            Inner::Aes128(key) => key.open(datagram),
            Inner::Aes192(key) => key.open(datagram),
            Inner::Aes256(key) => key.open(datagram),
        };
        let length = if self.compress { scratch.0.decompress(buffer, length?) } else { length };
        length.filter(|length| (1..=MAX_FRAME).contains(length))
    }
}

/// XORs `bytes` with the repeated key.
fn xor(bytes: &mut [u8], key: &[u8]) {
    bytes.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
}
