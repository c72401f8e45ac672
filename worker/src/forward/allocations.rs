//! Tests that forwarding allocates nothing once it runs: for frames and superframes, in both directions, with every cipher, and for
//! bundles and fragments of the secure wire.

use std::os::unix::net::UnixDatagram;
use std::sync::atomic::AtomicU64;

use allocation_counter::measure;
use aws_lc_rs::agreement::{PrivateKey, X25519};
use privsep::ipc::{
    Cipher, Classic, ClassicSecrets, Guard, Rules, Secret, Secrets, Secure, SecureSecrets, SharedPort, Wire,
};

use super::guard;
use super::rig::{Rig, both, header, segment, waiting};
use crate::batch::{Batch, MAX_EXPANDED};
use crate::frame::offload::SHORT;
use crate::port::Outgoing;
use crate::wire::secure::keys::public;

/// Superframe of 20 segments, as the kernel delivers it.
fn superframe() -> Vec<u8> {
    header(1, 1000).chain(segment(7, 20_000)).collect()
}

/// Packet of 700 bytes.
fn packet(sequence: usize) -> Vec<u8> {
    header(0, 0).chain(segment(sequence, 700)).collect()
}

#[test]
fn classic_forwarding_allocates_nothing() {
    let ciphers = [Cipher::None, Cipher::Xor, Cipher::Aes128, Cipher::Aes256];
    for (cipher, compress) in ciphers.into_iter().flat_map(|cipher| [(cipher, false), (cipher, true)]) {
        let wire = Wire::Classic(Classic { cipher, compress, keepalive_ms: Some(1000), ..Classic::default() });
        let secrets =
            Secrets::Classic(ClassicSecrets { key: Secret::new(b"0123456789abcdef".to_vec()), ..Default::default() });
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
            // Leaves as one message: a Unix socket does not segment it.
            assert!(!send(&superframe()).is_empty());
            let datagrams = (0..8).flat_map(|number| send(&packet(7 + number * 700)));
            datagrams.for_each(|datagram| assert_eq!(far.paths[0].send(&datagram).unwrap(), datagram.len()));
            let received = measure(|| assert!(far.inward.turn(0))).count_total;
            let longest = waiting(&far.port).iter().map(Vec::len).max();
            // In the first round the longest frame of the interface is not known.
            if round > 0 {
                assert_eq!(longest, Some(SHORT + 54 + 8 * 700), "{cipher:?} {compress}");
                assert_eq!((sent, received), (0, 0), "{cipher:?} {compress}");
            }
        }
    }
}

#[test]
fn storm_guard_allocates_nothing() {
    let limits =
        Guard { broadcast: Some(5), multicast: Some(5), stations: Some(30), ethertypes: vec![0x0800], loops: true };
    let (_, mut guard) = guard::Guard::pair(&limits, Some([7; 16])).unwrap();
    let (mut batch, until_us, counters) = (Batch::with_slots(64), AtomicU64::new(0), SharedPort::default());
    let mut allocated = 0;
    for round in 0..2000_u32 {
        batch.clear();
        for number in 0..40 {
            let [.., a, b, c] = (round * 40 + number).to_be_bytes();
            let to = [[0xff; 6], [1, 0, 0x5e, 1, 1, 1], [2; 6]][number as usize % 3];
            batch.append_copy(&[&to[..], &[2, 0, 0, a, b, c, 8, 0], &[0; 46]].concat());
        }
        let now_us = u64::from(round) * 70_000_000;
        allocated += measure(|| guard.inward(&mut batch, now_us, &until_us, &counters)).count_total;
    }
    assert!(counters.tx_dropped_station.get() > 1000 && counters.tx_dropped_broadcast.get() > 1000);
    assert_eq!(allocated, 0);
}

/// End of the secure wire with this private key, for a peer with the other one.
fn end(ours: u8, theirs: u8) -> Rig {
    let theirs = PrivateKey::from_private_key(&X25519, &[theirs; 32]).unwrap();
    let secure = Secure { peer_key: public(&theirs).unwrap(), datagram: 1472, ..Secure::default() };
    let secrets = Secrets::Secure(SecureSecrets { private_key: Secret::new(vec![ours; 32]), ..Default::default() });
    Rig::with(both(), Wire::Secure(secure), &secrets)
}

/// Messages queued at the test's end of a handle, of any length.
fn messages(end: &UnixDatagram) -> Vec<Vec<u8>> {
    let mut buffer = vec![0; 1 << 17];
    std::iter::from_fn(|| end.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec())).collect()
}

/// Delivers the messages of one end to the other.
fn relay(from: &Rig, to: &mut Rig, now_us: u64) {
    for message in messages(&from.paths[0]) {
        to.paths[0].send(&message).unwrap();
        to.inward.turn(now_us);
    }
}

fn shake_hands(near: &mut Rig, far: &mut Rig) {
    for now_us in (0..2_000_000).step_by(50_000) {
        near.inward.on_time(now_us);
        far.inward.on_time(now_us);
        relay(near, far, now_us);
        relay(far, near, now_us);
    }
    for end in [near, far] {
        assert!(end.inward.session.route().sending.is_some(), "no session");
        messages(&end.paths[0]);
    }
}

/// Loads: a superframe, small frames queued together, and a frame that leaves as fragments. Each has the size in bytes of its
/// datagrams and their number.
fn loads() -> [(Vec<Vec<u8>>, usize, usize); 3] {
    let acknowledgement = |sequence| header(0, 0).chain(segment(sequence, 0)).collect();
    let large = header(0, 0).chain(segment(7, 5000)).collect();
    [
        (vec![superframe()], 1000 + 54 + 36, 20),
        (vec![acknowledgement(1), acknowledgement(2), acknowledgement(3)], 32 + 4 + 3 * (54 + 6), 1),
        (vec![large], 32 + 12 + (54 + 5000_usize + 4).div_ceil(4), 4),
    ]
}

/// Content of a datagram with as many frames as possible, of 14 bytes each.
fn tiny_frames() -> Vec<u8> {
    let item = [&[0, 18][..], &[0; 4], &[7; 14]].concat();
    [&[1, 0, 0, 0][..], &item.repeat(458)].concat()
}

/// More frames than in any batch before, without a warm-up.
#[test]
#[allow(clippy::large_stack_arrays)] // Two ends in a test.
fn large_bundles_allocate_nothing() {
    let [mut near, mut far] = [end(1, 2), end(2, 1)];
    shake_hands(&mut near, &mut far);
    let sending = near.inward.session.route().sending.clone().unwrap();
    for _ in 0..8 {
        let mut datagram = [&[0; 16][..], &tiny_frames(), &[0; 16]].concat();
        sending.seal(0, &mut datagram).unwrap();
        assert_eq!(far.paths[0].send(&datagram).unwrap(), datagram.len());
    }
    let (mut given, mut allocated) = (0, 0);
    while given < 8 * 458 {
        // The queue towards the test is short.
        allocated += measure(|| _ = far.inward.turn(2_000_000)).count_total;
        let frames = messages(&far.port).len();
        assert!(frames > 0, "{given} frames of {}", 8 * 458);
        given += frames;
    }
    assert_eq!((given, allocated), (8 * 458, 0));
}

/// Fills a batch with as many frames as it can have, and tries one more.
#[test]
fn batch_has_memory_for_all_frames() {
    let mut batch = Batch::for_datagrams(true);
    let mut outgoing = Outgoing::new(false);
    let mut kept = 0;
    let allocated = measure(|| {
        for slot in 0..32 {
            batch.push_run(slot, 6400, 50, None);
        }
        batch.expand(|_, _, datagram, found| {
            for _ in 0..5 {
                kept += usize::from(found.frame(datagram.clone(), None));
            }
        });
        outgoing.begin(&batch, 0, |_| true);
    });
    assert_eq!((kept, batch.len(), allocated.count_total), (MAX_EXPANDED, MAX_EXPANDED, 0));
}

#[test]
#[allow(clippy::large_stack_arrays)] // Two ends in a test.
fn secure_forwarding_allocates_nothing() {
    let [mut near, mut far] = [end(1, 2), end(2, 1)];
    shake_hands(&mut near, &mut far);
    for round in 0..3 {
        for (frames, size, count) in loads() {
            for frame in &frames {
                assert_eq!(near.port.send(frame).unwrap(), frame.len());
            }
            let sent = measure(|| near.outward.turn()).count_total;
            // Leaves as one message: a Unix socket does not segment it.
            let datagrams: Vec<_> =
                messages(&near.paths[0]).iter().flat_map(|run| run.chunks(size)).map(<[u8]>::to_vec).collect();
            assert_eq!(datagrams.len(), count, "{size}");
            let (mut received, mut given) = (0, Vec::new());
            for some in datagrams.chunks(8) {
                for datagram in some {
                    assert_eq!(far.paths[0].send(datagram).unwrap(), datagram.len());
                }
                received += measure(|| while far.inward.turn(2_000_000) {}).count_total;
                given.extend(messages(&far.port).iter().map(|frame| frame.len() - SHORT));
            }
            // In the first round the longest frame of the interface is not known.
            if round > 0 {
                let expected = match count {
                    20 => vec![54 + 8000, 54 + 8000, 54 + 4000],
                    1 => vec![54; 3],
                    _ => vec![54 + 5000],
                };
                assert_eq!((given, sent, received), (expected, 0, 0), "round {round}");
            }
        }
    }
}
