//! Sealing and opening of a session's datagrams: the header, the nonce, the tag and the replay window.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ring::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::message::features;
use super::window::Window;
use super::{CipherKind, Keys};

/// First byte of a data datagram.
pub const DATA: u8 = 5;
/// Length of the header in bytes.
pub const HEADER: usize = 16;
/// Length of the tag in bytes.
pub const TAG: usize = 16;
/// Queues of a session, each with its own counter.
pub const QUEUES: usize = 4;
/// Datagrams of a queue after which the session must be replaced.
pub const REKEY: u64 = 1 << 29;
/// Datagrams of a queue after which the queue stops sending.
pub const STOP: u64 = 1 << 30;

/// Seals the datagrams that this end sends in one session. All senders share it, and each queue has its own counter. No nonce
/// repeats as long as a key has only one `Sending`.
pub struct Sending {
    their_index: u32,
    key: LessSafeKey,
    used: [AtomicU64; QUEUES],
    /// Whether the peer carries congestion marks into frames.
    pub carries_ecn: bool,
}

impl fmt::Debug for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending")
            .field("their_index", &self.their_index)
            .field("used", &self.used)
            .finish_non_exhaustive()
    }
}

/// Equal only to itself: keys are not compared.
impl PartialEq for Sending {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Sending {}

/// Error: a queue has sent as many datagrams as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent;

impl Sending {
    /// Makes the only `Sending` of these keys: a second one would count from zero again.
    pub fn new(keys: &Keys) -> Self {
        let used = [const { AtomicU64::new(0) }; QUEUES];
        let carries_ecn = keys.peer_features & features::ECN != 0;
        Self { their_index: keys.their_index, key: key(keys.cipher, &keys.sending), used, carries_ecn }
    }

    /// Datagrams that a queue has sent.
    ///
    /// # Panics
    /// If the queue does not exist.
    pub fn used(&self, queue: u8) -> u64 {
        self.used[usize::from(queue)].load(Relaxed)
    }

    /// Whether a queue has sent so many datagrams that the session must be replaced.
    pub fn is_worn(&self) -> bool {
        self.used.iter().any(|used| used.load(Relaxed) >= REKEY)
    }

    /// Seals `datagram` in place. The content lies between [`HEADER`] bytes and [`TAG`] bytes of any value.
    ///
    /// # Errors
    /// Fails if the queue may send no more. The datagram is then unchanged.
    ///
    /// # Panics
    /// Panics if the queue does not exist, or if header and tag do not fit.
    pub fn seal(&self, queue: u8, datagram: &mut [u8]) -> Result<(), Spent> {
        let used = &self.used[usize::from(queue)];
        if used.load(Relaxed) >= STOP {
            return Err(Spent);
        }
        let counter = used.fetch_add(1, Relaxed);
        let (header, rest) = datagram.split_at_mut(HEADER);
        let (content, tag) = rest.split_at_mut(rest.len() - TAG);
        header[..4].copy_from_slice(&[DATA, queue, 0, 0]);
        header[4..8].copy_from_slice(&self.their_index.to_be_bytes());
        header[8..].copy_from_slice(&counter.to_be_bytes());
        // Fails only for more than 2^36 bytes.
        let made = self.key.seal_in_place_separate_tag(nonce(queue, counter), Aad::from(&*header), content);
        tag.copy_from_slice(made.map_err(|_| Spent)?.as_ref());
        Ok(())
    }
}

/// Reason why a datagram was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// Length or header do not belong to this session.
    Malformed,
    /// The counter was seen before, or is too old.
    Replay,
    /// The datagram is authentic and has come by another path before.
    Copy,
    /// The tag is wrong.
    Forged,
}

/// Opens the datagrams that the peer sends in one session.
pub struct Opening {
    our_index: u32,
    /// On the heap, where freed memory is wiped: ring does not wipe its keys, and a moved value leaves copies.
    key: Box<LessSafeKey>,
    windows: Box<[Window; QUEUES]>,
    /// Replay windows of each path, if there are several. They tell a copy from a replay.
    paths: Box<[[Window; QUEUES]]>,
}

/// Receiver index of a data datagram.
pub fn receiver(datagram: &[u8]) -> Option<u32> {
    match datagram {
        [DATA, _, _, _, a, b, c, d, ..] => Some(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}

impl Opening {
    /// Makes it with empty replay windows, for a tunnel with this many paths.
    pub fn new(keys: &Keys, paths: usize) -> Self {
        let (our_index, key) = (keys.our_index, Box::new(key(keys.cipher, &keys.receiving)));
        let paths = (0..paths).filter(|_| paths > 1).map(|_| Default::default()).collect();
        Self { our_index, key, windows: Box::default(), paths }
    }

    /// Opens the datagram in `buffer[..length]`, received by this path, in place and returns the range of the content. After a
    /// failed authentication the bytes of the datagram are undefined.
    ///
    /// # Errors
    /// Reason to drop the datagram.
    ///
    /// # Panics
    /// Panics if `buffer` is shorter than `length`.
    pub fn open(&mut self, path: usize, buffer: &mut [u8], length: usize) -> Result<Range<usize>, Dropped> {
        let (header, rest) = buffer[..length].split_first_chunk_mut::<HEADER>().ok_or(Dropped::Malformed)?;
        let [DATA, queue, 0, 0, index @ .., _, _, _, _, _, _, _, _] = &*header else { return Err(Dropped::Malformed) };
        let (queue, index): (u8, [u8; 4]) = (*queue, *index);
        let counter = header[8..].iter().fold(0, |counter, &byte| counter << 8 | u64::from(byte));
        let window = self.windows.get_mut(usize::from(queue)).ok_or(Dropped::Malformed)?;
        if u32::from_be_bytes(index) != self.our_index || rest.len() < TAG {
            return Err(Dropped::Malformed);
        }
        let mut of_path = self.paths.get_mut(path).and_then(|windows| windows.get_mut(usize::from(queue)));
        let is_first = window.is_fresh(counter);
        // A datagram that came late may not have come before: it is no copy.
        if !is_first && (window.is_past(counter) || !of_path.as_ref().is_some_and(|window| window.is_fresh(counter))) {
            return Err(Dropped::Replay);
        }
        let opened = self.key.open_in_place(nonce(queue, counter), Aad::from(&*header), rest);
        opened.map_err(|_| Dropped::Forged)?;
        // A counter that no path has seen is above the window of each path, or free in it.
        if let Some(window) = &mut of_path {
            window.take(counter);
        }
        if !is_first {
            return Err(Dropped::Copy);
        }
        window.take(counter);
        Ok(HEADER..length - TAG)
    }
}

/// Nonce: the queue as 4 bytes, then the counter.
fn nonce(queue: u8, counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[3] = queue;
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn key(cipher: CipherKind, bytes: &[u8; 32]) -> LessSafeKey {
    let algorithm: &'static Algorithm = match cipher {
        CipherKind::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        CipherKind::Aes256Gcm => &AES_256_GCM,
    };
    // Both ciphers take keys of 32 bytes, and no other property of a key can be wrong.
    LessSafeKey::new(UnboundKey::new(algorithm, bytes).expect("a key of the cipher's length"))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::{Duration, Instant};

    use aws_lc_rs::aead as other;

    use super::*;

    pub const CIPHERS: [CipherKind; 2] = [CipherKind::ChaCha20Poly1305, CipherKind::Aes256Gcm];

    /// Sender of one end, and the opener of its peer.
    pub fn pair(cipher: CipherKind) -> (Sending, Opening) {
        let keys = |sending, receiving, our_index, their_index| Keys {
            sending,
            receiving,
            cipher,
            our_index,
            their_index,
            peer_features: 0,
        };
        let ours = keys([1; 32], [2; 32], 0x0102_0304, 0xa0b0_c0d0);
        let theirs = keys([2; 32], [1; 32], 0xa0b0_c0d0, 0x0102_0304);
        (Sending::new(&ours), Opening::new(&theirs, 1))
    }

    /// Sets the counter of a queue.
    pub fn spend(sending: &Sending, queue: u8, used: u64) {
        sending.used[usize::from(queue)].store(used, Relaxed);
    }

    /// Seals a content as a datagram.
    pub fn sealed(sending: &Sending, queue: u8, content: &[u8]) -> Vec<u8> {
        let mut datagram = [&[0xee; HEADER][..], content, &[0xee; TAG]].concat();
        sending.seal(queue, &mut datagram).unwrap();
        datagram
    }

    fn open(opening: &mut Opening, datagram: &[u8]) -> Result<Vec<u8>, Dropped> {
        let mut buffer = [datagram, &[7; 9]].concat();
        let range = opening.open(0, &mut buffer, datagram.len())?;
        assert_eq!(buffer[datagram.len()..], [7; 9]);
        Ok(buffer[range].to_vec())
    }

    /// Builds the header after the diagram and seals with another library. Tag and key stream must match the cipher with this nonce
    /// and these authenticated bytes.
    #[test]
    fn datagram_matches_specification() {
        for cipher in CIPHERS {
            let (sending, _) = pair(cipher);
            for (queue, counter) in [(0_u8, 0_u64), (0, 1), (3, 0), (0, 2)] {
                let datagram = sealed(&sending, queue, b"content");
                assert_eq!(datagram.len(), 32 + 7);
                let header = [&[5, queue, 0, 0, 0xa0, 0xb0, 0xc0, 0xd0][..], &counter.to_be_bytes()].concat();
                assert_eq!(datagram[..16], header);
                let mut expected = b"content".to_vec();
                let nonce = [&[0, 0, 0, queue][..], &counter.to_be_bytes()].concat();
                let algorithm = match cipher {
                    CipherKind::ChaCha20Poly1305 => &other::CHACHA20_POLY1305,
                    CipherKind::Aes256Gcm => &other::AES_256_GCM,
                };
                let key = other::LessSafeKey::new(other::UnboundKey::new(algorithm, &[1; 32]).unwrap());
                let nonce = other::Nonce::try_assume_unique_for_key(&nonce).unwrap();
                key.seal_in_place_append_tag(nonce, other::Aad::from(header), &mut expected).unwrap();
                assert_eq!(datagram[16..], expected, "{cipher:?}");
            }
        }
    }

    #[test]
    fn datagram_opens_once() {
        for cipher in CIPHERS {
            let (sending, mut opening) = pair(cipher);
            let all: Vec<_> =
                (0..40_u8).map(|byte| sealed(&sending, byte % 4, &vec![byte; usize::from(byte)])).collect();
            for (datagram, byte) in all.iter().zip(0..40_u8).rev() {
                assert_eq!(open(&mut opening, datagram), Ok(vec![byte; usize::from(byte)]));
                assert_eq!(open(&mut opening, datagram), Err(Dropped::Replay));
            }
        }
    }

    /// The first datagram by any path is opened. Each other path may bring one copy.
    #[test]
    fn copy_is_no_replay() {
        let (sending, opening) = pair(CIPHERS[1]);
        let mut opening = Opening { paths: (0..3).map(|_| Default::default()).collect(), ..opening };
        let mut open = |path, datagram: &[u8]| opening.open(path, &mut datagram.to_vec(), datagram.len()).map(drop);
        let all: Vec<_> = (0..20).map(|_| sealed(&sending, 0, b"content")).collect();
        for (number, datagram) in all.iter().enumerate().rev() {
            let path = number % 3;
            assert_eq!(open(path, datagram), Ok(()));
            let mut forged = datagram.clone();
            forged[20] ^= 1;
            assert_eq!(open((path + 1) % 3, &forged), Err(Dropped::Forged));
            for other in [1, 2] {
                let other = (path + other) % 3;
                assert_eq!([(); 2].map(|()| open(other, datagram)), [Err(Dropped::Copy), Err(Dropped::Replay)]);
            }
            assert_eq!(open(path, datagram), Err(Dropped::Replay));
        }
        // A datagram later than the window may be the first: nothing tells, so it is dropped as a replay, and not counted as opened.
        let [late, copied] = [(); 2].map(|()| sealed(&sending, 0, b"late"));
        assert_eq!(open(0, &copied), Ok(()));
        spend(&sending, 0, 20 + super::super::window::WINDOW);
        let next = sealed(&sending, 0, b"next");
        assert_eq!(
            [open(0, &next), open(1, &late), open(1, &copied), open(0, &copied)],
            [Ok(()), Err(Dropped::Replay), Err(Dropped::Copy), Err(Dropped::Replay)]
        );
    }

    #[test]
    fn changed_datagram_has_no_effect() {
        for cipher in CIPHERS {
            let (sending, mut opening) = pair(cipher);
            let datagram = sealed(&sending, 1, b"some content");
            for bit in 0..datagram.len() * 8 {
                let mut changed = datagram.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                // The changed queue may be a valid one, the changed counter any value.
                let expected = match bit / 8 {
                    0 | 2..=7 => Dropped::Malformed,
                    1 if changed[1] > 3 => Dropped::Malformed,
                    _ => Dropped::Forged,
                };
                assert_eq!(open(&mut opening, &changed), Err(expected), "bit {bit}");
            }
            for length in 0..datagram.len() {
                let expected = if length < 32 { Dropped::Malformed } else { Dropped::Forged };
                assert_eq!(open(&mut opening, &datagram[..length]), Err(expected), "{length} bytes");
            }
            assert_eq!(open(&mut opening, &[&datagram[..], &[0]].concat()), Err(Dropped::Forged));
            assert_eq!(open(&mut opening, &datagram), Ok(b"some content".to_vec()));
        }
    }

    #[test]
    fn wrong_direction_or_cipher_fails() {
        let (sending, _) = pair(CIPHERS[0]);
        let datagram = sealed(&sending, 0, b"content");
        let mut mirrored = datagram.clone();
        mirrored[4..8].copy_from_slice(&0x0102_0304_u32.to_be_bytes());
        let keys = |cipher, receiving| Keys {
            sending: [9; 32],
            receiving,
            cipher,
            our_index: 0x0102_0304,
            their_index: 1,
            peer_features: 0,
        };
        assert_eq!(open(&mut Opening::new(&keys(CIPHERS[0], [2; 32]), 1), &mirrored), Err(Dropped::Forged));
        assert_eq!(open(&mut Opening::new(&keys(CIPHERS[1], [1; 32]), 1), &mirrored), Err(Dropped::Forged));
        assert_eq!(open(&mut Opening::new(&keys(CIPHERS[0], [2; 32]), 1), &datagram), Err(Dropped::Malformed));
        assert_eq!(
            (receiver(&datagram), receiver(&datagram[..7]), receiver(b"\x01...1234")),
            (Some(0xa0b0_c0d0), None, None)
        );
    }

    #[test]
    fn exhausted_queue_stops_alone() {
        let (sending, mut opening) = pair(CIPHERS[0]);
        assert_eq!((REKEY, STOP), (1 << 29, 1 << 30));
        spend(&sending, 2, REKEY - 1);
        assert!(!sending.is_worn());
        sealed(&sending, 2, b"");
        assert!(sending.is_worn());
        spend(&sending, 2, STOP - 1);
        let last = sealed(&sending, 2, b"last");
        let mut more = vec![0; 40];
        assert_eq!(sending.seal(2, &mut more), Err(Spent));
        assert_eq!((more, sending.used(2)), (vec![0; 40], STOP));
        assert_eq!(open(&mut opening, &last), Ok(b"last".to_vec()));
        assert_eq!(open(&mut opening, &sealed(&sending, 0, b"other")), Ok(b"other".to_vec()));
    }

    /// Benchmark, not a test: `cargo test --release -p ethudp-worker -- --ignored --nocapture how_fast`.
    #[test]
    #[ignore = "measures, and wants a release build"]
    fn seal_and_open_speed() {
        for cipher in CIPHERS {
            for size in [64, 1400, 9000] {
                let (sending, mut opening) = pair(cipher);
                let mut datagram = vec![0; HEADER + size + TAG];
                let (start, mut count, mut open) = (Instant::now(), 0_u32, Duration::ZERO);
                while start.elapsed() < Duration::from_secs(1) {
                    for _ in 0..64 {
                        sending.seal(0, &mut datagram).unwrap();
                        let before = Instant::now();
                        let length = datagram.len();
                        opening.open(0, &mut datagram, length).unwrap();
                        open += before.elapsed();
                        count += 1;
                    }
                }
                let seal = start.elapsed().saturating_sub(open);
                #[allow(clippy::cast_precision_loss)] // A number for people.
                let rate = |time: Duration| f64::from(count) * (size * 8) as f64 / time.as_secs_f64() / 1e9;
                println!("{cipher:?} {size}: seal {:.2} Gbit/s, open {:.2} Gbit/s", rate(seal), rate(open));
            }
        }
    }
}
