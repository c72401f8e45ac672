//! Forwarding allocates nothing, once it has begun: neither a frame nor a superframe, in either direction, by any cipher.

use allocation_counter::measure;
use privsep::ipc::{Cipher, Classic, Rules, Secret, Secrets};

use super::rig::{Rig, both, header, segment, waiting};
use crate::frame::offload::SHORT;

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
