//! LZ4 of the classic wire: raw block or stored bytes, and a trailer byte that tells which.

use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};

use crate::batch::MAX_FRAME;

/// Trailer of stored bytes.
const STORED: u8 = 0xaa;
/// Trailer of an LZ4 block.
const BLOCK: u8 = 0xff;

/// Memory of one thread for compression, allocated once.
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
    /// Compresses `frame[..length]` in place and returns the length with the trailer. `frame` has one more byte. A frame that does
    /// not get shorter is stored.
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

    /// Removes trailer and compression in place and returns the length. `buffer` has the received `length` bytes, and room for a
    /// block that grows. `None` if the trailer is unknown, the block malformed, or the result longer than any frame.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn roundtrip(plain: &[u8]) -> (u8, Vec<u8>) {
        let mut scratch = Scratch::default();
        let mut buffer = [plain, &[0; 9300]].concat();
        let length = scratch.compress(&mut buffer, plain.len());
        let trailer = buffer[length - 1];
        let length = scratch.decompress(&mut buffer, length).unwrap();
        (trailer, buffer[..length].to_vec())
    }

    #[test]
    fn incompressible_frame_is_stored() {
        let noise: Vec<u8> = (0..500_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for (plain, trailer) in [(&[7; 9000][..], BLOCK), (&noise, STORED), (b"PING:PING:", STORED), (b"", STORED)] {
            assert_eq!(roundtrip(plain), (trailer, plain.to_vec()));
        }
    }

    #[test]
    fn invalid_lz4_block_is_refused() {
        let mut scratch = Scratch::default();
        for (inflated, fits) in [(MAX_FRAME, true), (MAX_FRAME + 1, false), (60_000, false)] {
            let block = lz4_flex::block::compress(&vec![7; inflated]);
            let mut buffer = [&block[..], &[BLOCK], &[0; 10_000]].concat();
            assert_eq!(scratch.decompress(&mut buffer, block.len() + 1), fits.then_some(inflated));
        }
        for garbage in [&b"\xff\xff\xff\xff"[..], b"\x41\xbb", b""] {
            let mut buffer = [garbage, &[BLOCK], &[0; 10_000]].concat();
            assert_eq!(
                scratch.decompress(&mut buffer, garbage.len() + 1).filter(|&length| length > 0),
                None,
                "{garbage:02x?}"
            );
        }
    }
}
