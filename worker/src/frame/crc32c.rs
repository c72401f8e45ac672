//! CRC of SCTP (RFC 9260 appendix A). It is not the internet checksum, but is left to an interface like one.

/// Polynomial with reversed bits.
const POLYNOMIAL: u32 = 0x82f6_3b78;

const TABLE: [u32; 256] = {
    let (mut table, mut byte) = ([0; 256], 0_u32);
    while byte < 256 {
        let (mut value, mut bit) = (byte, 0);
        while bit < 8 {
            value = value >> 1 ^ (if value & 1 == 1 { POLYNOMIAL } else { 0 });
            bit += 1;
        }
        table[byte as usize] = value;
        byte += 1;
    }
    table
};

/// CRC of the concatenated parts, as the four bytes in a packet.
pub fn crc32c(parts: &[&[u8]]) -> [u8; 4] {
    let bytes = parts.iter().copied().flatten();
    let value = bytes.fold(u32::MAX, |value, byte| {
        let [low, ..] = value.to_le_bytes();
        value >> 8 ^ TABLE[usize::from(low ^ byte)]
    });
    (!value).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_matches_rfc_3720() {
        let counting: Vec<u8> = (0..32).collect();
        for (bytes, crc) in [
            (&[0; 32][..], [0xaa, 0x36, 0x91, 0x8a]),
            (&[0xff; 32], [0x43, 0xab, 0xa8, 0x62]),
            (&counting, [0x4e, 0x79, 0xdd, 0x46]),
            (b"123456789", [0x83, 0x92, 0x06, 0xe3]),
            (b"", [0; 4]),
        ] {
            assert_eq!(crc32c(&[bytes]), crc, "{bytes:02x?}");
            let (first, second) = bytes.split_at(bytes.len() / 3);
            assert_eq!(crc32c(&[first, second]), crc, "{bytes:02x?}");
        }
    }
}
