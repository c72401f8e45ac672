//! Internet checksum (RFC 1071) of IPv4, TCP and UDP.

/// Unfolded sum of 16-bit words in native byte order. The order does not matter: the result in native order is the value in the
/// packet (RFC 1071 section 2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Sums bytes that begin at an even offset from the first summed byte. An odd last byte counts as if a zero followed.
    pub fn of(bytes: &[u8]) -> Self {
        // Words of 32 bits in eight lanes of 64 bits, which compilers turn into vector instructions. The lanes do not overflow
        // below 16 GiB in all.
        let mut lanes = [0_u64; 8];
        let (blocks, rest) = bytes.as_chunks::<32>();
        for block in blocks {
            for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<4>().0) {
                *lane += u64::from(u32::from_ne_bytes(*word));
            }
        }
        let (words, rest) = rest.as_chunks::<4>();
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        let rest: u64 = words.iter().chain([&last]).map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
        Self(lanes.iter().sum::<u64>() + rest)
    }

    /// Sums one 16-bit number.
    pub fn word(word: u16) -> Self {
        Self(u64::from(word.to_be()))
    }

    /// Sums a number, such as a length, as four words.
    pub fn number(number: usize) -> Self {
        Self((number as u64).to_be())
    }

    /// Sum of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let (sum, carry) = self.0.overflowing_add(other.0);
        Self(sum + u64::from(carry))
    }

    /// This sum without the other.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        self.plus(Self(!other.0))
    }

    /// Folded sum as two bytes, not complemented: 0xffff over a whole packet with a right checksum.
    pub fn folded(self) -> [u8; 2] {
        let mut sum = self.0;
        // At most 33 bits are left, then 18, 17, 16.
        for width in [32, 16, 16, 16] {
            sum = (sum & ((1 << width) - 1)) + (sum >> width);
        }
        #[allow(clippy::cast_possible_truncation)] // Folded.
        let sum = sum as u16;
        sum.to_ne_bytes()
    }

    /// Checksum of the summed bytes, in which its own field counted as zero.
    pub fn checksum(self) -> [u8; 2] {
        self.folded().map(|byte| !byte)
    }

    /// Checksum where zero means that there is none: uses the other zero instead (RFC 768).
    pub fn nonzero_checksum(self) -> [u8; 2] {
        match self.checksum() {
            [0, 0] => [0xff, 0xff],
            checksum => checksum,
        }
    }

    /// Whether the summed bytes include a right checksum.
    pub fn is_right(self) -> bool {
        self.folded() == [0xff, 0xff]
    }
}

/// Checksum after a change of one word (RFC 1624, equation 3).
pub fn updated(checksum: u16, old: u16, new: u16) -> u16 {
    let mut sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    #[allow(clippy::cast_possible_truncation)] // Folded twice.
    let sum = sum as u16;
    !sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As in RFC 1071, word by word.
    fn slow(bytes: &[u8]) -> [u8; 2] {
        let mut sum = 0_u64;
        for pair in bytes.chunks(2) {
            sum += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap().to_be_bytes()
    }

    #[test]
    fn checksum_matches_rfc_1071() {
        let sum = Sum::of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!((sum.folded(), sum.checksum()), ([0xdd, 0xf2], [0x22, 0x0d]));
    }

    proptest::proptest! {
        #[test]
        fn checksum_takes_any_alignment(bytes in proptest::collection::vec(0..=255_u8, 0..400), from in 0..40_usize, ones: bool) {
            let bytes = if ones { vec![0xff; bytes.len()] } else { bytes };
            let bytes = &bytes[from.min(bytes.len())..];
            assert_eq!(Sum::of(bytes).folded(), slow(bytes));
            // In parts, of which all but the last are even.
            let (first, second) = bytes.split_at((from * 2).min(bytes.len() / 2 * 2));
            assert_eq!(Sum::of(first).plus(Sum::of(second)).folded(), slow(bytes));
        }

        #[test]
        fn subtracted_words_are_gone(one: u16, other: u64, number: u32) {
            let (one, other) = (Sum::word(one), Sum::of(&other.to_ne_bytes()));
            let back = one.plus(other).minus(other);
            // Both zeros are the same number.
            assert!(back.folded() == one.folded() || one.folded() == [0, 0] && back.is_right());
            assert_eq!(Sum::number(number as usize).folded(), slow(&number.to_be_bytes()));
        }
    }

    #[test]
    fn zero_checksum_is_avoided_for_udp() {
        let sum = Sum::of(&[0xff, 0xff]);
        assert!(sum.is_right());
        assert_eq!((sum.checksum(), sum.nonzero_checksum()), ([0, 0], [0xff, 0xff]));
    }
}
