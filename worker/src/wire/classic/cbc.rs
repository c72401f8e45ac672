//! AES-CBC of the classic wire, with a zero IV and PKCS#7 padding (NIST SP 800-38A, RFC 5652 section 6.3).
//!
//! CBC chains the blocks of one frame. So a batch is encrypted block by block *across* frames, in as many lanes as the AES unit
//! processes blocks at once: 64 or 30 with VAES, 8 with AES-NI. Decryption has no such chain. A single frame cannot share the
//! lanes: the package `cbc` encrypts it, without the cost of setting them up.
//!
//! All code that runs for each block is `inline(always)`: only inside the closure that the `aes` crate calls is it compiled for the
//! instructions of this processor.
#![allow(clippy::inline_always)]

use std::ops::Range;

use aes::cipher::array::Array;
use aes::cipher::consts::U16;
use aes::cipher::{
    BlockCipherDecBackend, BlockCipherDecClosure, BlockCipherDecrypt, BlockCipherEncBackend, BlockCipherEncClosure,
    BlockCipherEncrypt, BlockModeEncrypt, BlockSizeUser, InnerIvInit, KeyInit, KeySizeUser, ParBlocks,
};
use zeroize::Zeroizing;

use crate::batch::{Batch, Span};

/// AES block size in bytes.
pub const BLOCK: usize = 16;
/// Lanes that cost nothing while idle: this many blocks hardly take longer than one.
const FREE: usize = 8;

type Block = Array<u8, U16>;

/// Encryption and decryption state of one AES key.
pub struct Key<E, D> {
    encrypt: E,
    decrypt: D,
}

impl<E, D> Key<E, D>
where
    E: KeyInit + KeySizeUser + BlockCipherEncrypt<BlockSize = U16>,
    D: KeyInit + KeySizeUser + BlockCipherDecrypt<BlockSize = U16>,
{
    /// Takes a key of any length, truncated or padded with zeros.
    pub fn new(key: &[u8]) -> Self {
        let mut padded = Zeroizing::new([0_u8; 32]);
        let size = E::key_size();
        let length = key.len().min(size);
        padded[..length].copy_from_slice(&key[..length]);
        // The slice has the key's size, so neither call can fail.
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
        if let [span] = spans {
            let (blocks, _) = Block::slice_as_chunks_mut(&mut memory[span.range()]);
            return cbc::Encryptor::inner_iv_init(&self.encrypt, &Block::default()).encrypt_blocks(blocks);
        }
        self.encrypt.encrypt_with_backend(Chains { memory, spans });
    }

    /// Decrypts a datagram in place and returns the length of the frame; `None` if length or padding is wrong.
    pub fn open(&self, datagram: &mut [u8]) -> Option<usize> {
        let (blocks, []) = Block::slice_as_chunks_mut(datagram) else { return None };
        self.decrypt.decrypt_with_backend(Chain(blocks));
        let padding = usize::from(*datagram.last()?);
        let length = datagram.len().checked_sub(padding)?;
        let is_padded =
            (1..=BLOCK).contains(&padding) && datagram[length..].iter().all(|&byte| usize::from(byte) == padding);
        is_padded.then_some(length)
    }
}

/// Chains of whole blocks to encrypt in memory.
struct Chains<'a> {
    memory: &'a mut [u8],
    spans: &'a [Span],
}

impl BlockSizeUser for Chains<'_> {
    type BlockSize = U16;
}

impl BlockCipherEncClosure for Chains<'_> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        let Self { memory, spans } = self;
        let mut waiting = spans.iter().map(Span::range).filter(|range| range.len() >= BLOCK);
        let mut lanes = Lanes::<B>::default();
        loop {
            lanes.fill(&mut waiting);
            let (active, all) = (lanes.active, lanes.at.len());
            match active {
                0 => return,
                1 => lanes.one(backend, memory),
                _ if all <= FREE || active * 4 >= all * 3 => lanes.at_once(backend, memory),
                _ => lanes.in_turn(backend, memory),
            }
            lanes.retire();
        }
    }
}

/// Chains that the backend encrypts in parallel. The first `active` lanes are in use.
#[repr(align(64))] // No part of the state crosses a cache line.
struct Lanes<B: BlockCipherEncBackend<BlockSize = U16>> {
    /// Last encrypted block of each chain; while `at_once` runs, the next block to encrypt.
    state: ParBlocks<B>,
    /// Offset of each chain's next block. Its type cannot overflow when a small number is added, which saves a check.
    at: Array<u32, B::ParBlocksSize>,
    /// Number of remaining blocks of each chain.
    left: Array<u32, B::ParBlocksSize>,
    active: usize,
}

impl<B: BlockCipherEncBackend<BlockSize = U16>> Default for Lanes<B> {
    #[inline(always)]
    fn default() -> Self {
        Self { state: Array::default(), at: Array::default(), left: Array::default(), active: 0 }
    }
}

impl<B: BlockCipherEncBackend<BlockSize = U16>> Lanes<B> {
    /// Starts chains in all free lanes.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // A batch has some megabytes at most.
    fn fill(&mut self, waiting: &mut impl Iterator<Item = Range<usize>>) {
        while self.active < self.at.len() {
            let Some(range) = waiting.next() else { return };
            self.state[self.active] = Block::default();
            (self.at[self.active], self.left[self.active]) = (range.start as u32, (range.len() / BLOCK) as u32);
            self.active += 1;
        }
    }

    /// Frees the lanes of finished chains.
    #[inline(always)]
    fn retire(&mut self) {
        let mut lane = 0;
        while lane < self.active {
            if self.left[lane] > 0 {
                lane += 1;
            } else {
                self.active -= 1;
                self.state.swap(lane, self.active);
                self.at.swap(lane, self.active);
                self.left.swap(lane, self.active);
            }
        }
    }

    /// Number of remaining blocks of the shortest chain.
    #[inline(always)]
    fn steps(&self) -> u32 {
        self.left[..self.active].iter().copied().min().unwrap_or(0)
    }

    /// Advances each chain by this many blocks.
    #[inline(always)]
    fn advance(&mut self, steps: u32) {
        for (at, left) in self.at.iter_mut().zip(&mut self.left).take(self.active) {
            *at += steps * 16;
            *left -= steps;
        }
    }

    /// Runs the only chain to its end; its state stays in a register.
    #[inline(always)]
    fn one(&mut self, backend: &B, memory: &mut [u8]) {
        let (mut block, start, steps) = (self.state[0], self.at[0] as usize, self.left[0]);
        for memory in memory[start..].chunks_exact_mut(BLOCK).take(steps as usize) {
            xor(&mut block, memory);
            backend.encrypt_block_inplace(&mut block);
            memory.copy_from_slice(&block);
        }
        self.advance(steps);
    }

    /// Runs all chains until one ends, one block after the other. The blocks are independent, so the processor overlaps them. If
    /// most lanes are idle, this is faster than encrypting all lanes.
    #[inline(always)]
    fn in_turn(&mut self, backend: &B, memory: &mut [u8]) {
        let steps = self.steps();
        for step in 0..steps as usize {
            let rest = &mut memory[step * BLOCK..];
            for (state, &at) in self.state.iter_mut().zip(&self.at[..self.active]) {
                let memory = &mut rest[at as usize..at as usize + BLOCK];
                let mut block = *state;
                xor(&mut block, memory);
                backend.encrypt_block_inplace(&mut block);
                memory.copy_from_slice(&block);
                *state = block;
            }
        }
        self.advance(steps);
    }

    /// Runs all chains until one ends, all lanes in one call.
    #[inline(always)]
    fn at_once(&mut self, backend: &B, memory: &mut [u8]) {
        let steps = self.steps();
        for (state, &at) in self.state.iter_mut().zip(&self.at[..self.active]) {
            xor(state, &memory[at as usize..at as usize + BLOCK]);
        }
        backend.encrypt_par_blocks_inplace(&mut self.state);
        for step in 1..steps as usize {
            self.exchange(&mut memory[(step - 1) * BLOCK..]);
            backend.encrypt_par_blocks_inplace(&mut self.state);
        }
        self.advance(steps);
        for (state, &at) in self.state.iter().zip(&self.at[..self.active]) {
            memory[at as usize - BLOCK..at as usize].copy_from_slice(state);
        }
    }

    /// Writes the encrypted blocks to `memory`, and loads the next ones. Four at a time, so that the compiler passes them to the
    /// backend in one register; single stores would stall.
    #[inline(always)]
    fn exchange(&mut self, memory: &mut [u8]) {
        let (fours, others) = self.state[..self.active].as_chunks_mut::<4>();
        let (at_fours, at_others) = self.at[..self.active].as_chunks::<4>();
        fours.iter_mut().zip(at_fours).for_each(|(state, at)| exchange(memory, state, at));
        others.iter_mut().zip(at_others).for_each(|(state, at)| exchange(memory, array_of(state), &[*at]));
    }
}

#[inline(always)]
fn exchange<const N: usize>(memory: &mut [u8], state: &mut [Block; N], at: &[u32; N]) {
    let mut next = [[0; 2]; N];
    for ((state, &at), next) in state.iter().zip(at).zip(&mut next) {
        let (this, following) = memory[at as usize..at as usize + 2 * BLOCK].split_at_mut(BLOCK);
        this.copy_from_slice(state);
        *next = words(following);
    }
    state.iter_mut().zip(next).for_each(|(state, next)| xor_words(state, next));
}

fn array_of(block: &mut Block) -> &mut [Block; 1] {
    std::array::from_mut(block)
}

/// Blocks of one datagram to decrypt in place.
struct Chain<'a>(&'a mut [Block]);

impl BlockSizeUser for Chain<'_> {
    type BlockSize = U16;
}

impl BlockCipherDecClosure for Chain<'_> {
    #[inline(always)]
    fn call<B: BlockCipherDecBackend<BlockSize = U16>>(self, backend: &B) {
        let mut before = Block::default();
        let (groups, rest) = ParBlocks::<B>::slice_as_chunks_mut(self.0);
        for group in groups {
            let mut plain = ParBlocks::<B>::default();
            backend.decrypt_par_blocks((&*group, &mut plain).into());
            let last = group[group.len() - 1];
            // Backwards, so that the preceding block is still the received one.
            for index in (1..group.len()).rev() {
                let mut block = group[index - 1];
                xor(&mut block, &plain[index]);
                group[index] = block;
            }
            xor(&mut before, &plain[0]);
            (group[0], before) = (before, last);
        }
        for block in rest {
            let (sealed, mut plain) = (*block, *block);
            backend.decrypt_block_inplace(&mut plain);
            xor(&mut plain, &before);
            (*block, before) = (plain, sealed);
        }
    }
}

#[inline(always)]
fn xor(block: &mut Block, with: &[u8]) {
    xor_words(block, words(with));
}

#[inline(always)]
fn xor_words(block: &mut Block, with: [u64; 2]) {
    let words = words(block);
    block[..8].copy_from_slice(&(words[0] ^ with[0]).to_ne_bytes());
    block[8..].copy_from_slice(&(words[1] ^ with[1]).to_ne_bytes());
}

/// Halves of a block.
#[inline(always)]
fn words(block: &[u8]) -> [u64; 2] {
    let half = |at| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&block[at..at + 8]);
        u64::from_ne_bytes(bytes)
    };
    [half(0), half(8)]
}
