//! AES-CBC with a zero IV and PKCS#7 padding, as the classic wire has it (NIST SP 800-38A, RFC 5652 section 6.3).
//!
//! CBC encryption is a chain inside one frame, so a batch is encrypted block by block *across* frames: eight chains at a
//! time fill the pipeline of the CPU's AES unit. Decryption has no such chain and is left to the `cbc` crate.

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{Block, BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, InnerIvInit, KeyInit, KeySizeUser};
use zeroize::Zeroizing;

use crate::batch::{Batch, Span};

/// AES block size in bytes.
pub const BLOCK: usize = 16;
/// Chains that are encrypted at a time.
const LANES: usize = 8;

/// Both directions of one AES key.
pub struct Key<E, D> {
    encrypt: E,
    decrypt: D,
}

impl<E, D> Key<E, D>
where
    E: KeyInit + KeySizeUser + BlockCipherEncrypt<BlockSize = aes::cipher::consts::U16>,
    D: KeyInit + KeySizeUser + BlockCipherDecrypt<BlockSize = aes::cipher::consts::U16>,
{
    /// From a key of any length, which is cut or padded with zeros.
    pub fn new(key: &[u8]) -> Self {
        let mut padded = Zeroizing::new([0_u8; 32]);
        let size = E::key_size();
        let length = key.len().min(size);
        padded[..length].copy_from_slice(&key[..length]);
        // The slice has the key's size by construction, so neither can fail.
        let (Ok(encrypt), Ok(decrypt)) = (E::new_from_slice(&padded[..size]), D::new_from_slice(&padded[..size]))
        else {
            unreachable!("AES key of {size} bytes")
        };
        Self { encrypt, decrypt }
    }

    /// Pads and encrypts every frame in place.
    pub fn seal(&self, batch: &mut Batch) {
        for index in 0..batch.len() {
            let length = batch.frame(index).len();
            let padding = BLOCK - length % BLOCK;
            #[allow(clippy::cast_possible_truncation)] // 1..=16
            batch.grow_back(index, padding)[length..].fill(padding as u8);
        }
        let (memory, spans) = batch.parts_mut();
        self.encrypt_chains(memory, spans);
    }

    /// Encrypts the spans, each a chain of whole blocks of its own.
    fn encrypt_chains(&self, memory: &mut [u8], spans: &[Span]) {
        let mut waiting = spans.iter().map(Span::range).filter(|range| range.len() >= BLOCK);
        let mut lanes: [_; LANES] = std::array::from_fn(|_| waiting.next().unwrap_or(0..0));
        let mut state: [Block<E>; LANES] = Default::default();
        // Lanes 0..active are in use; one that ends takes the next chain, or is closed up by the last.
        let mut active = lanes.iter().filter(|range| !range.is_empty()).count();
        while active > 0 {
            for (block, range) in state.iter_mut().zip(&lanes[..active]) {
                let plain = &memory[range.start..range.start + BLOCK];
                block.iter_mut().zip(plain).for_each(|(chained, byte)| *chained ^= byte);
            }
            if active == 1 {
                self.encrypt.encrypt_block(&mut state[0]);
            } else {
                // All lanes, even idle ones: eight at once take hardly longer than one.
                self.encrypt.encrypt_blocks(&mut state);
            }
            let mut lane = 0;
            while lane < active {
                let range = &mut lanes[lane];
                memory[range.start..range.start + BLOCK].copy_from_slice(&state[lane]);
                range.start += BLOCK;
                if range.start == range.end {
                    if let Some(next) = waiting.next() {
                        (lanes[lane], state[lane]) = (next, Block::<E>::default());
                    } else {
                        active -= 1;
                        lanes.swap(lane, active);
                        state.swap(lane, active);
                        // What was moved here has not been written yet.
                        continue;
                    }
                }
                lane += 1;
            }
        }
    }

    /// Decrypts a datagram in place and returns the length of the frame, `None` where length or padding is wrong.
    pub fn open(&self, datagram: &mut [u8]) -> Option<usize> {
        let decryptor = cbc::Decryptor::inner_iv_init(&self.decrypt, &Block::<D>::default());
        decryptor.decrypt_padded::<Pkcs7>(datagram).ok().map(<[u8]>::len)
    }
}
