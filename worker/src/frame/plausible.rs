//! Plausibility of frames. Datagrams decoded with a wrong key, or without one, are rarely plausible.

use super::HEADER;
use super::ethernet::{IPV4, IPV6, TPID_8021AD, TPID_8021Q, payload, word};

/// Greatest value of the type field that is a length (IEEE 802.3).
const LENGTH: u16 = 1500;
/// Length in bytes of the shortest padded frame. An LLC payload may be shorter than its frame.
const PADDED: usize = 60;
/// From here up to [`FIRST_TYPE`] the value is neither a length nor a type.
const NO_TYPE: u16 = LENGTH + 1;
/// Least value that is a type.
const FIRST_TYPE: u16 = 0x0600;
/// Provider tag from before the standard.
const TPID_OLD: u16 = 0x9100;
/// Ethertypes in use between switches and hosts (IEEE and IANA registries), IPv4 and IPv6 excepted.
const KNOWN: [u16; 46] = [
    0x0806, 0x0842, 0x22ea, 0x22f0, 0x22f3, 0x4305, 0x6002, 0x6003, 0x6004, 0x6558, 0x8035, 0x809b, 0x80f3, 0x8137,
    0x8808, 0x8809, 0x8847, 0x8848, 0x8863, 0x8864, 0x8870, 0x887b, 0x888e, 0x8892, 0x88a2, 0x88a4, 0x88ab, 0x88b5,
    0x88b6, 0x88b7, 0x88b8, 0x88b9, 0x88ba, 0x88cc, 0x88cd, 0x88e3, 0x88e5, 0x88e7, 0x88f5, 0x88f7, 0x8902, 0x8906,
    0x8914, 0x8915, 0x893a, 0x9000,
];

/// Whether bytes can be an Ethernet frame: a known type, behind tags or not, and a matching length. Private types are unknown, so a
/// single implausible frame proves nothing.
pub fn is_plausible(frame: &[u8]) -> bool {
    if frame.len() < HEADER {
        return false;
    }
    let Some((kind, at)) = payload(frame, 4, &[TPID_8021Q, TPID_8021AD, TPID_OLD]) else { return false };
    let rest = frame.len() - at.min(frame.len());
    match kind {
        0..=LENGTH => usize::from(kind) == rest || (usize::from(kind) < rest && frame.len() <= PADDED + (at - HEADER)),
        NO_TYPE..FIRST_TYPE => false,
        IPV4 => frame.get(at).is_some_and(|first| (0x45..=0x4f).contains(first)) && fits(frame, at, 2, 0, 20),
        IPV6 => frame.get(at).is_some_and(|first| first >> 4 == 6) && fits(frame, at, 4, 40, 40),
        known => KNOWN.contains(&known),
    }
}

/// Whether the packet at `at` is complete and at least `shortest` bytes long. Its length without `header` is in the field at offset
/// `field`.
fn fits(frame: &[u8], at: usize, field: usize, header: usize, shortest: usize) -> bool {
    let length = word(frame, at + field).map_or(0, usize::from) + header;
    length >= shortest && length <= frame.len() - at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::classic::codec::{Codec, PING, Scratch};
    use privsep::ipc::Cipher;

    fn frame(kind: &[u8], rest: &[u8]) -> Vec<u8> {
        [&[2; 12], kind, rest].concat()
    }

    fn ipv4(length: u16, total: usize) -> Vec<u8> {
        let mut packet = vec![0x45, 0];
        packet.extend_from_slice(&length.to_be_bytes());
        packet.resize(total, 0);
        packet
    }

    #[test]
    fn frames_are_told_from_noise() {
        for (frame, plausible) in [
            (frame(&[8, 0], &ipv4(84, 84)), true),
            (frame(&[8, 0], &ipv4(28, 46)), true), // padded
            (frame(&[8, 0], &ipv4(100, 84)), false),
            (frame(&[8, 0], &[0x65; 60]), false),
            (frame(&[0x86, 0xdd], &[&[0x60, 0, 0, 0, 0, 8], &[0; 42][..]].concat()), true),
            (frame(&[0x86, 0xdd], &[0x45; 60]), false),
            (frame(&[8, 6], &[0; 28]), true),
            (frame(&[0x81, 0, 0, 7, 8, 0], &ipv4(84, 84)), true),
            (frame(&[0x88, 0xa8, 0, 7, 0x81, 0, 0, 9, 8, 6], &[0; 28]), true),
            (frame(&[0, 38], &[0x42; 46]), true), // spanning tree, padded
            (frame(&[1, 0], &[0; 256]), true),
            (frame(&[1, 0], &[0; 300]), false),
            (frame(&[5, 0xe0], &[0; 1504]), false),
            (frame(&[0x12, 0x34], &[0; 60]), false),
            (vec![0; 13], false),
        ] {
            assert_eq!(is_plausible(&frame), plausible, "{frame:02x?}");
        }
    }

    #[test]
    fn wrong_key_yields_no_frame() {
        let (mut whole, mut noise) = (0, 0);
        for key in 0..200_u8 {
            for (cipher, other) in
                [(Cipher::Xor, Cipher::Xor), (Cipher::Aes128, Cipher::None), (Cipher::Xor, Cipher::None)]
            {
                let (ours, theirs) = (Codec::new(other, b"our key", false), Codec::new(cipher, &[key, 1, 2], false));
                for message in [PING, &frame(&[8, 0], &ipv4(84, 84))] {
                    let datagram = theirs.seal_message(message).to_vec();
                    let (mut buffer, length) = (datagram.clone(), datagram.len());
                    buffer.resize(9300, 0);
                    if let Some(length) = ours.open(&mut buffer, length, &mut Scratch::default()) {
                        whole += 1;
                        noise += u32::from(!is_plausible(&buffer[..length]));
                    }
                }
            }
        }
        assert_eq!((whole, noise), (1200, 1200));
    }

    #[test]
    fn captured_traffic_is_plausible() {
        let captures = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/captures");
        let mut frames = 0;
        for file in std::fs::read_dir(captures).unwrap().map(|entry| entry.unwrap().path()) {
            if file.extension().is_none_or(|ending| ending != "pcap") {
                continue;
            }
            let bytes = std::fs::read(&file).unwrap();
            // pcap: a header of 24 bytes, then records with headers of 16 bytes, which have the length at offset 8, in the writer's
            // byte order.
            assert_eq!(bytes[..4], 0xa1b2_c3d4_u32.to_le_bytes(), "{}", file.display());
            let mut rest = &bytes[24..];
            while let Some((header, behind)) = rest.split_first_chunk::<16>() {
                let length = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
                assert!(is_plausible(&behind[..length]), "{}: {:02x?}", file.display(), &behind[..length.min(40)]);
                (rest, frames) = (&behind[length..], frames + 1);
            }
        }
        assert!(frames > 50, "{frames}");
    }
}
