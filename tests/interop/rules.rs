//! What is changed in a frame: VLAN ids, the MSS.

use crate::lab::{Scratch, frame};

use super::ends::{Ours, ROLES, carry, with_each_original};

#[test]
#[ignore = "they need the original, which ETHUDP_REFERENCE and ETHUDP_REFERENCE_RELEASE name"]
fn vlan_maps() {
    with_each_original(|lab| {
        let scratch = Scratch::new();
        let a = scratch.write("a", "10 20\n20 10\n100 4000\n", 0o644);
        let b = scratch.write("b", "30 20\n31 4000\n", 0o644);
        let tagged = |number, tags: &[u8]| {
            let mut tagged = frame(number, 100);
            tagged.splice(12..12, tags.iter().copied());
            tagged
        };
        // At A, at B. Only the first tag counts, its upper four bits stay; there is more of 802.1ad in the ledger.
        let both_ways: [(&[u8], &[u8]); 8] = [
            (b"", b""),
            (b"\x81\x00\x00\x0a", b"\x81\x00\x00\x1e"),
            (b"\x81\x00\xf0\x0a", b"\x81\x00\xf0\x1e"),
            (b"\x81\x00\x00\x64", b"\x81\x00\x00\x1f"),
            (b"\x81\x00\x20\x14", b"\x81\x00\x20\x0a"),
            (b"\x81\x00\x00\x63", b"\x81\x00\x00\x63"),
            (b"\x81\x00\x00\x0a\x81\x00\x00\x0a", b"\x81\x00\x00\x1e\x81\x00\x00\x0a"),
            (b"\x88\xa8\x00\x63\x81\x00\x00\x0a", b"\x88\xa8\x00\x63\x81\x00\x00\x0a"),
        ];
        for ours in ROLES {
            let map = |path: &std::path::Path| format!("-map {}", path.display());
            let _both = lab.join(ours, &map(&a), &map(&b));
            for (number, (at_a, at_b)) in (0..).zip(both_ways) {
                carry(&lab.a, &mut lab.b, &tagged(number, at_a), &tagged(number, at_b));
                carry(&lab.b, &mut lab.a, &tagged(number, at_b), &tagged(number, at_a));
            }
        }
        // The map of one end alone, so that no other can undo it.
        let one_way: [(&[u8], &[u8]); 4] = [
            (b"\x81\x00\x00\x0a", b"\x81\x00\x00\x14"),
            (b"\x81\x00\x00\x14", b"\x81\x00\x00\x0a"),
            (b"\x81\x00\x70\x64", b"\x81\x00\x7f\xa0"),
            (b"\x81\x00\x00\x1e", b"\x81\x00\x00\x1e"),
        ];
        for ours in ROLES {
            let _one = lab.join(ours, &format!("-map {}", a.display()), "");
            for (number, (at_a, at_b)) in (0..).zip(one_way) {
                carry(&lab.a, &mut lab.b, &tagged(number, at_a), &tagged(number, at_b));
                carry(&lab.b, &mut lab.a, &tagged(number, at_b), &tagged(number, at_a));
            }
        }
    });
}

/// The Internet checksum of these bytes.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap()).to_be_bytes()
}

const SYN: u8 = 2;
const ACK: u8 = 16;

/// A TCP segment with an MSS option and `data` bytes in an Ethernet frame, its checksums right.
fn segment(ipv6: bool, tags: &[u8], flags: u8, mss: u16, data: u8) -> Vec<u8> {
    let (ethertype, addresses) = if ipv6 {
        let host = |last| [b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0", &[last][..]].concat();
        (b"\x86\xdd", [host(8), host(9)].concat())
    } else {
        (b"\x08\x00", vec![10, 9, 0, 1, 10, 9, 0, 2])
    };
    // Ports, sequence and acknowledgement numbers, 10 words of header, window, checksum to be, no urgent data.
    let mut tcp =
        [b"\x30\x39\0\x50\x01\x02\x03\x04\x05\x06\x07\x08\xa0", &[flags, 0xfa, 0xf0, 0, 0, 0, 0][..]].concat();
    tcp.extend_from_slice(&[&[2, 4][..], &mss.to_be_bytes()].concat());
    // SACK permitted, timestamps, no operation, window scale.
    tcp.extend_from_slice(b"\x04\x02\x08\x0a\x11\x22\x33\x44\0\0\0\0\x01\x03\x03\x07");
    tcp.extend((0..data).map(|byte| byte ^ 0x5a));
    let length = u16::try_from(tcp.len()).unwrap();
    let pseudo = [&addresses[..], &length.to_be_bytes(), &[0, 6], &tcp].concat();
    tcp[16..18].copy_from_slice(&checksum(&pseudo));
    let ip = if ipv6 {
        [&[0x60, 0, 0, 0][..], &length.to_be_bytes(), &[6, 64], &addresses].concat()
    } else {
        let total = (length + 20).to_be_bytes();
        let mut ip = [&[0x45, 0][..], &total, &[0x12, 0x34, 0x40, 0, 64, 6, 0, 0], &addresses].concat();
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum);
        ip
    };
    [b"\x02\0\0\0\xbb\x02\x02\0\0\0\xaa\x01", tags, ethertype, &ip, &tcp].concat()
}

#[test]
#[ignore = "they need the original, which ETHUDP_REFERENCE and ETHUDP_REFERENCE_RELEASE name"]
fn mss_is_lowered_with_right_checksum() {
    with_each_original(|lab| {
        for ours in ROLES {
            // Only A does it: to what it sends and to what it receives.
            let _tunnel = lab.join(ours, "-mss 1300", "");
            let both = [false, true].into_iter().flat_map(|ipv6| [(ipv6, &b""[..]), (ipv6, b"\x81\x00\x00\x63")]);
            for (ipv6, tags) in both {
                let mut cases = vec![
                    (SYN, 1460, 1300, 0),
                    (SYN, 1301, 1300, 0),
                    (SYN, 0xffff, 1300, 200),
                    (SYN | ACK, 1460, 1300, 0),
                    (SYN | ACK, 1460, 1300, 2),
                    (SYN, 1300, 1300, 0),
                    (SYN, 536, 536, 0),
                    (ACK, 1460, 1460, 0),
                ];
                // The original's checksum is wrong when the length is odd.
                if matches!(ours, Ours::A) {
                    cases.extend([(SYN, 1460, 1300, 1), (SYN | ACK, 1460, 1300, 77)]);
                }
                for (flags, mss, lowered, data) in cases {
                    for padding in [&b""[..], b"padding"] {
                        let sent = [&segment(ipv6, tags, flags, mss, data), padding].concat();
                        let expected = [&segment(ipv6, tags, flags, lowered, data), padding].concat();
                        carry(&lab.a, &mut lab.b, &sent, &expected);
                        carry(&lab.b, &mut lab.a, &sent, &expected);
                    }
                }
                // What need not be lowered is not touched, a wrong checksum included.
                let mut wrong = segment(ipv6, tags, SYN, 1200, 0);
                *wrong.last_mut().unwrap() ^= 1;
                carry(&lab.a, &mut lab.b, &wrong, &wrong);
                carry(&lab.b, &mut lab.a, &wrong, &wrong);
            }
        }
    });
}
