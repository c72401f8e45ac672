//! Datagrams from addresses where the peer is not.

use std::thread::sleep;
use std::time::{Duration, Instant};

use ethudp_worker::wire::secure::message::INITIATION;

use super::{A, B, LIMIT, Middle, Victim, arrived, carries, next, pass, replace_worker};
use crate::lab::{frame, wait_for};
use crate::secure::End;

/// Length of a datagram with a ping or a pong.
const CONTROL: usize = 52;

fn where_the_peer_is(end: &crate::lab::Running) -> String {
    end.status()["paths"][0]["remote"].as_str().unwrap().to_owned()
}

#[test]
fn forged_source_gets_no_answer() {
    let middle = Middle::new();
    let (a, b) = middle.both();
    let mut wire = middle.wire(B);
    let sender = middle.wire(A);
    for number in 0..20 {
        sender.send(&frame(number, 200));
        assert_eq!(next(&mut wire), Some(frame(number, 200)));
    }
    let seen = middle.seen();
    let of_b = Victim::new(&b);
    let (mut data, mut initiations, mut forged) = (0, 0, 0);
    for seen in seen.iter().filter(|seen| seen.from == A) {
        middle.relay.send_foreign(B, &seen.bytes);
        if seen.bytes[0] == INITIATION {
            initiations += 1;
            // With a wrong MAC over the head; and with that right, the one over all wrong, and a time that does not count.
            for (from_end, count) in [(32, &mut forged), (1, &mut initiations)] {
                let mut changed = seen.bytes.clone();
                changed[seen.bytes.len() - from_end] ^= 1;
                middle.relay.send_foreign(B, &changed);
                *count += 1;
            }
        } else {
            data += 1;
            let mut changed = seen.bytes.clone();
            // A counter that was not yet.
            changed[8] ^= 1;
            middle.relay.send_foreign(B, &changed);
            forged += 1;
        }
    }
    of_b.wait_dropped([("replays", data), ("dropped_initiations", initiations), ("auth_failures", forged)]);
    assert_eq!(middle.relay.heard_as_foreign(B), Vec::<Vec<u8>>::new());
    assert_eq!(where_the_peer_is(&b), "198.51.100.9:6000");
    of_b.assert_same_session();
    of_b.assert_unharmed(0);

    // Where the peer is fixed, the kernel drops datagrams of others, whatever is in them.
    let of_a = Victim::new(&a);
    let of_the_peer: Vec<_> = seen.iter().filter(|seen| seen.from == B).collect();
    for seen in &of_the_peer {
        middle.relay.send_foreign(A, &seen.bytes);
    }
    middle.relay.send_foreign(A, b"anything");
    sleep(Duration::from_millis(300));
    of_a.wait_dropped([]);
    assert_eq!(middle.relay.heard_as_foreign(A), Vec::<Vec<u8>>::new());
    of_a.assert_unharmed(0);
    assert!(arrived(&mut wire).is_empty());
    middle.assert_frames_pass();
}

/// An attacker on the path can make the peer's datagrams arrive from another address. They are authentic, so they are accepted. Frames go
/// to that address only after a pong from there.
#[test]
fn moved_peer_must_answer_before_frames() {
    let middle = Middle::new();
    let (_a, b) = middle.both();
    let mut wires = [middle.wire(A), middle.wire(B)];
    let of_b = Victim::new(&b);
    middle.set(Box::new(|relay, from, bytes| {
        if from == A && carries(bytes, 200) {
            relay.send_foreign(B, bytes);
        } else {
            relay.send(1 - from, bytes);
        }
    }));
    let start = Instant::now();
    let mut asked = Vec::new();
    for number in 0..60 {
        wires[A].send(&frame(number, 200));
        assert_eq!(next(&mut wires[B]), Some(frame(number, 200)));
        wires[B].send(&frame(1000 + number, 300));
        assert_eq!(next(&mut wires[A]), Some(frame(1000 + number, 300)));
        sleep(Duration::from_millis(10));
    }
    asked.extend(middle.relay.heard_as_foreign(B));
    let most = 10 * (start.elapsed().as_secs() + 1);
    assert!(!asked.is_empty() && asked.len() as u64 <= most, "{} datagrams to a stranger", asked.len());
    assert!(asked.iter().all(|bytes| bytes.len() == CONTROL), "more than pings to a stranger");
    assert_eq!(where_the_peer_is(&b), "198.51.100.9:6000");
    of_b.wait_dropped([]);
    of_b.assert_same_session();
    of_b.assert_unharmed(0);

    // Where everything goes by way of the other address, and pongs come back from there, the peer has moved.
    let relay = middle.relay.clone();
    middle.set(Box::new(|relay, from, bytes| {
        if from == A {
            relay.send_foreign(B, bytes);
        }
    }));
    wait_for("the new address", LIMIT, || {
        for bytes in relay.heard_as_foreign(B) {
            relay.send(A, &bytes);
        }
        (where_the_peer_is(&b) == "198.51.100.66:7000").then_some(())
    });
    middle.set(pass());
    wait_for("the address before", LIMIT, || (where_the_peer_is(&b) == "198.51.100.9:6000").then_some(()));
    middle.assert_frames_pass();
    // At most a line for each of the two moves, and two where the path was down meanwhile.
    of_b.assert_unharmed(6);
}

#[test]
fn excluded_address_is_ignored() {
    let middle = Middle::new();
    let b = middle.start_as(&End { remote: "198.51.100.9:0", ..End::B }, B);
    let a = middle.start(A);
    middle.wait_up(&a, &b);
    let (sender, mut wire) = (middle.wire(A), middle.wire(B));
    let of_b = Victim::new(&b);
    middle.set(Box::new(|relay, from, bytes| {
        if from == A && (bytes[0] == INITIATION || carries(bytes, 600)) {
            relay.send_foreign(B, bytes);
        } else {
            relay.send(1 - from, bytes);
        }
    }));
    for number in 0..20 {
        // Too long for a bundle.
        sender.send(&frame(number, 600));
    }
    wait_for("all of them", LIMIT, || {
        let sent = middle.seen().iter().filter(|seen| seen.from == A && carries(&seen.bytes, 600)).count() as u64;
        (sent == 20 && of_b.dropped().get("rx_dropped_foreign") == Some(&sent)).then_some(())
    });
    assert!(arrived(&mut wire).is_empty(), "a frame from an address that the file excludes");
    of_b.assert_same_session();
    replace_worker(&a);
    let before = of_b.dropped()["rx_dropped_foreign"];
    wait_for("initiations", LIMIT, || (of_b.dropped()["rx_dropped_foreign"] > before).then_some(()));
    assert_eq!(middle.relay.heard_as_foreign(B), Vec::<Vec<u8>>::new());
    assert_eq!(a.status()["session"]["established"], false);
    assert!(of_b.dropped().keys().eq([&"rx_dropped_foreign"]), "{:?}", of_b.dropped());
    // The new worker of the peer does not answer, so the path is down.
    of_b.assert_unharmed(1);
    middle.set(pass());
    middle.wait_up(&a, &b);
}
