//! Forwarding allocates nothing, once it has begun: neither a frame nor a superframe, in either direction, by any cipher.

use allocation_counter::measure;
use privsep::ipc::{Cipher, Classic, Rules, Secret, Secrets};

use super::rig::{Rig, both, waiting};
use crate::frame::checksum::Sum;
use crate::frame::offload::SHORT;

/// A segment of TCP over IPv4 with this sequence number, all in it but the checksum of TCP.
fn segment(sequence: usize, payload: usize) -> Vec<u8> {
    let mut frame = vec![5; 54 + payload];
    let total = u16::try_from(40 + payload).unwrap().to_be_bytes();
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14..34]
        .copy_from_slice(&[0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    frame[34..54].copy_from_slice(&[0, 9, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    frame[38..42].copy_from_slice(&u32::try_from(sequence).unwrap().to_be_bytes());
    let header = Sum::of(&frame[14..34]).checksum();
    frame[24..26].copy_from_slice(&header);
    let pseudo = [&frame[26..34], &[0, 6], &u16::try_from(20 + payload).unwrap().to_be_bytes()].concat();
    let partial = Sum::of(&pseudo).folded();
    frame[50..52].copy_from_slice(&partial);
    frame
}

/// What stands in front: a checksum to be completed, and how large the segments are of a superframe.
fn header(kind: u16, size: u16) -> impl Iterator<Item = u8> {
    [1 | kind << 8, 54, size, 34, 16].into_iter().flat_map(u16::to_ne_bytes)
}

/// One of 20 segments, as the kernel gives it.
fn superframe() -> Vec<u8> {
    header(1, 1000).chain(segment(7, 20_000)).collect()
}

/// A packet of 700 bytes.
fn packet(sequence: usize) -> Vec<u8> {
    header(0, 0).chain(segment(sequence, 700)).collect()
}

#[test]
fn neither_direction_allocates_once_it_runs() {
    let ciphers = [Cipher::None, Cipher::Xor, Cipher::Aes128, Cipher::Aes256];
    for (cipher, compress) in ciphers.into_iter().flat_map(|cipher| [(cipher, false), (cipher, true)]) {
        let wire = Classic { cipher, compress, keepalive: true, ..Classic::default() };
        let secrets = Secrets { key: Secret::new(b"0123456789abcdef".to_vec()), ..Secrets::default() };
        let rules = Rules { mss: Some((1300, 1300)), vlan_map: vec![(7, 8)], loop_check: true, ..both() };
        let rig = || Rig::with(rules.clone(), wire, &secrets);
        let (Rig { port, paths, mut outward, .. }, mut far) = (rig(), rig());
        for round in 0..3 {
            let mut sent = 0;
            let mut send = |frame: &[u8]| {
                assert_eq!(port.send(frame).unwrap(), frame.len());
                sent += measure(|| outward.turn()).count_total;
                waiting(&paths[0])
            };
            // Leaves as one message, which a Unix socket does not cut.
            assert!(!send(&superframe()).is_empty());
            let datagrams = (0..8).flat_map(|number| send(&packet(7 + number * 700)));
            datagrams.for_each(|datagram| assert_eq!(far.paths[0].send(&datagram).unwrap(), datagram.len()));
            let received = measure(|| assert!(far.inward.turn(0))).count_total;
            let longest = waiting(&far.port).iter().map(Vec::len).max();
            // The first time it is not known what the interface takes.
            if round > 0 {
                assert_eq!(longest, Some(SHORT + 54 + 8 * 700), "{cipher:?} {compress}");
                assert_eq!((sent, received), (0, 0), "{cipher:?} {compress}");
            }
        }
    }
}
