//! Datagrams that are changed on their way, cut, or sent back to who sent them.

use std::sync::mpsc::channel;

use ethudp_worker::wire::secure::message::{DATA, INITIATION, RESPONSE};

use super::{A, B, LIMIT, Middle, Relay, Rule, Victim, arrived, carries, next, pass};
use crate::lab::frame;

/// Each byte of a datagram with one bit changed, each length that is less, and one that is more.
fn spoiled(bytes: &[u8]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let flipped = (0..bytes.len()).map(|at| {
        let mut changed = bytes.to_vec();
        changed[at] ^= 1 << (at % 8);
        changed
    });
    let cut = (0..bytes.len()).map(|length| bytes[..length].to_vec());
    (flipped.collect(), cut.chain([[bytes, &[0]].concat()]).collect())
}

#[test]
fn changed_datagram_is_dropped() {
    let middle = Middle::new();
    let (a, b) = middle.both();
    let mut wires = [middle.wire(A), middle.wire(B)];
    for (from, to, victim) in [(A, B, &b), (B, A, &a)] {
        let of = Victim::new(victim);
        middle.set(Box::new(move |relay, by, bytes| {
            if by == from && carries(bytes, 200) {
                let (flipped, cut) = spoiled(bytes);
                relay.send_all(to, flipped);
                relay.send_all(to, cut);
            }
            relay.send(1 - by, bytes);
        }));
        wires[from].send(&frame(7, 200));
        assert_eq!(next(&mut wires[to]), Some(frame(7, 200)));
        // Not a message of this wire by the first byte, a zero that is none, or an unused index; the queue is another, and
        // the counter a later one. And 32 bytes are the least.
        let invalid = [0, 2, 3, 4, 5, 6, 7].len() as u64;
        of.wait_dropped([("auth_failures", 236 - invalid + (236 - 32) + 1), ("rx_dropped_invalid", invalid + 32)]);
        assert_eq!(arrived(&mut wires[to]), Vec::<Vec<u8>>::new());
        of.assert_unharmed(0);
        of.assert_same_session();
    }
    middle.set(pass());
    middle.assert_frames_pass();
}

#[test]
fn changed_handshake_message_is_dropped() {
    let middle = Middle::new();
    let (sent, spoiled_ones) = channel();
    let mut done = [false; 2];
    middle.set(Box::new(move |relay, from, bytes| {
        if [INITIATION, RESPONSE].contains(&bytes[0]) && !std::mem::replace(&mut done[from], true) {
            let (flipped, cut) = spoiled(bytes);
            sent.send((from, bytes[0], flipped.len() + cut.len())).unwrap();
            relay.send_all(1 - from, flipped);
            relay.send_all(1 - from, cut);
        }
        relay.send(1 - from, bytes);
    }));
    let b = middle.start(B);
    let a = middle.start(A);
    middle.wait_up(&a, &b);
    let seen = middle.set(pass());
    let spoiled_ones: Vec<_> = spoiled_ones.iter().collect();
    assert_eq!(spoiled_ones, [(A, INITIATION, 1336 * 2 + 1), (B, RESPONSE, 1184 * 2 + 1)]);
    for (end, (from, kind, spoiled)) in [(&b, spoiled_ones[0]), (&a, spoiled_ones[1])] {
        // On a slow machine the request is repeated, and the second answer is dropped.
        let repeated = seen.iter().filter(|seen| seen.is(from, kind)).count() as u64 - 1;
        let spoiled = spoiled as u64;
        let drops = super::drops(end);
        let (forged, invalid) = (drops["auth_failures"], drops["rx_dropped_invalid"] + drops["dropped_messages"]);
        // All of another length are no message of this version, and few of those with another bit are not.
        assert!((spoiled..=spoiled + repeated).contains(&(forged + invalid)), "{drops:?}, {repeated} repeated");
        assert!((spoiled / 2 - 20..=spoiled / 2).contains(&forged), "{drops:?}");
        assert_eq!((end.count("/session/handshakes"), end.count("/worker_restarts")), (1, 0));
        assert!(!end.log().contains("mismatch"), "{}", end.log());
    }
}

#[test]
fn reflected_datagram_is_dropped() {
    let middle = Middle::new();
    middle.set(Box::new(|relay, from, bytes| {
        relay.send(from, bytes);
        relay.send(1 - from, bytes);
    }));
    let b = middle.start(B);
    let a = middle.start(A);
    middle.wait_up(&a, &b);
    let mut wires = [middle.wire(A), middle.wire(B)];
    for number in 0..20 {
        for which in [A, B] {
            wires[which].send(&frame(number + 100 * u32::try_from(which).unwrap(), 200));
        }
    }
    for which in [A, B] {
        let mut expected: Vec<_> =
            (0..20).map(|number| frame(number + 100 * u32::try_from(1 - which).unwrap(), 200)).collect();
        expected.sort();
        let mut came = arrived(&mut wires[which]);
        came.sort();
        assert!(came == expected, "not those of the other end alone: {} frames", came.len());
    }
    let seen = middle.set(pass());
    for (which, end) in [(A, &a), (B, &b)] {
        let count = |kinds: [u8; 2]| seen.iter().filter(|seen| kinds.iter().any(|&kind| seen.is(which, kind))).count();
        let (handshake, data) = (count([INITIATION, RESPONSE]) as u64, count([DATA, DATA]) as u64);
        assert!(handshake >= 1 && data >= 1);
        crate::lab::wait_for("all that came back", LIMIT, || {
            let drops = super::drops(end);
            ((drops["auth_failures"], drops["rx_dropped_invalid"]) == (handshake, data)).then_some(())
        });
    }
    for end in [&a, &b] {
        assert_eq!((end.count("/session/handshakes"), end.count("/worker_restarts")), (1, 0));
        assert!(!end.log().contains("mismatch"), "{}", end.log());
    }

    // With the index that leads it to a session, it is sealed with another key.
    let victims = [Victim::new(&a), Victim::new(&b)];
    middle.set(to_sender_with_his_index());
    for number in 200..220 {
        for which in [A, B] {
            wires[which].send(&frame(number, 200));
            assert_eq!(next(&mut wires[1 - which]), Some(frame(number, 200)));
        }
    }
    let seen = middle.set(pass());
    for (which, victim) in victims.iter().enumerate() {
        let first = seen.iter().position(|seen| seen.is(1 - which, DATA)).unwrap();
        let back = seen[first..].iter().filter(|seen| seen.is(which, DATA)).count() as u64;
        assert!(back >= 19);
        // The counter may be one that came from the other end.
        victim.wait_sum(["auth_failures", "replays"], back);
        victim.assert_unharmed(0);
        victim.assert_same_session();
        assert!(arrived(&mut wires[which]).is_empty());
    }
    middle.assert_frames_pass();
}

/// Sends data back to its sender with the index by which he receives, once that has been seen, and passes it on.
fn to_sender_with_his_index() -> Rule {
    let mut indices = [None; 2];
    Box::new(move |relay: &Relay, from: usize, bytes: &[u8]| {
        if bytes[0] == DATA {
            indices[1 - from] = Some(<[u8; 4]>::try_from(&bytes[4..8]).unwrap());
            if let Some(index) = indices[from] {
                relay.send(from, &[&bytes[..4], &index, &bytes[8..]].concat());
            }
        }
        relay.send(1 - from, bytes);
    })
}
