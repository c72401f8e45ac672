//! LZ4 of the classic wire: a raw block and one trailer byte that tells whether it is one.

use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};

use crate::batch::MAX_FRAME;

/// Trailer of what is stored as it is.
const STORED: u8 = 0xaa;
/// Trailer of a block.
const BLOCK: u8 = 0xff;

/// Memory for one thread's compression, allocated once.
pub struct Scratch {
    table: CompressTable,
    buffer: Box<[u8]>,
}

impl Default for Scratch {
    fn default() -> Self {
        let buffer = vec![0; get_maximum_output_size(MAX_FRAME)].into();
        Self { table: CompressTable::small(), buffer }
    }
}

impl Scratch {
    /// Compresses `frame[..length]` in place, where `frame` has one byte more, and returns the length with trailer. What
    /// does not get shorter is stored.
    pub fn compress(&mut self, frame: &mut [u8], length: usize) -> usize {
        let block = compress_into_with_table(&frame[..length], &mut self.buffer, &mut self.table);
        match block {
            Ok(short) if short < length => {
                frame[..short].copy_from_slice(&self.buffer[..short]);
                frame[short] = BLOCK;
                short + 1
            }
            _ => {
                frame[length] = STORED;
                length + 1
            }
        }
    }

    /// Takes trailer and compression away in place; `buffer` may be longer than the `length` bytes received, and must be
    /// for a block that grows. `None` for what is neither form, malformed, or larger than any frame.
    pub fn decompress(&mut self, buffer: &mut [u8], length: usize) -> Option<usize> {
        let (trailer, body) = buffer[..length].split_last()?;
        match *trailer {
            STORED => Some(body.len()),
            BLOCK => {
                let limit = buffer.len().min(MAX_FRAME).min(self.buffer.len());
                let inflated = decompress_into(body, &mut self.buffer[..limit]).ok()?;
                buffer[..inflated].copy_from_slice(&self.buffer[..inflated]);
                Some(inflated)
            }
            _ => None,
        }
    }
}
