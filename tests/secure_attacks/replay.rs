//! Datagrams that were recorded, or held back.

use std::thread::sleep;
use std::time::Duration;

use ethudp_worker::wire::secure::message::{DATA, INITIATION, RESPONSE};

use super::{A, B, LIMIT, Middle, Seen, Victim, arrived, carries, cut, next, pass, replace_worker};
use crate::lab::{Running, frame, wait_for};

/// How many of a kind there are.
fn count(counts: &std::collections::BTreeMap<u8, u64>, kind: u8) -> u64 {
    counts.get(&kind).copied().unwrap_or(0)
}

/// Waits until an end has this many sessions behind it.
fn wait_handshakes(end: &Running, least: u64) {
    wait_for("another session", 2 * LIMIT, || {
        let status = end.status();
        let session = &status["session"];
        (session["established"] == true && session["handshakes"].as_u64() >= Some(least)).then_some(())
    });
}

#[test]
fn replayed_datagrams_are_dropped() {
    let middle = Middle::new();
    let (a, b) = middle.both();
    let mut wires = [middle.wire(A), middle.wire(B)];
    for number in 0..50 {
        for which in [A, B] {
            wires[which].send(&frame(number, 200));
            assert_eq!(next(&mut wires[1 - which]), Some(frame(number, 200)));
        }
    }
    let seen = middle.seen();

    let (of_a, of_b) = (Victim::new(&a), Victim::new(&b));
    let [to_a, to_b] = middle.repeat(&seen);
    assert!(count(&to_a, DATA) >= 50 && count(&to_b, DATA) >= 50);
    assert!(count(&to_a, RESPONSE) >= 1 && count(&to_b, INITIATION) >= 1);
    of_a.wait_dropped([("replays", count(&to_a, DATA)), ("dropped_messages", count(&to_a, RESPONSE))]);
    of_b.wait_dropped([("replays", count(&to_b, DATA)), ("dropped_initiations", count(&to_b, INITIATION))]);
    for victim in [&of_a, &of_b] {
        victim.assert_unharmed(0);
        victim.assert_same_session();
    }
    assert!(wires.iter_mut().all(|wire| arrived(wire).is_empty()), "a frame came twice");

    // A new worker has no session, and knows the time of what its predecessor had answered.
    middle.set(cut());
    replace_worker(&b);
    let of_b = Victim::new(&b);
    let [_, to_b] = middle.repeat(&seen);
    of_b.wait_dropped([("rx_dropped_invalid", count(&to_b, DATA)), ("dropped_initiations", count(&to_b, INITIATION))]);
    assert!(!middle.seen().iter().any(|seen| seen.is(B, RESPONSE)), "an old initiation was answered");
    of_b.assert_unharmed(0);

    // With the next session, the one before is still open at A for what is under way.
    let handshakes = a.count("/session/handshakes");
    middle.set(pass());
    wait_handshakes(&a, handshakes + 1);
    middle.wait_up(&a, &b);
    let (of_a, of_b) = (Victim::new(&a), Victim::new(&b));
    let [to_a, to_b] = middle.repeat(&seen);
    of_a.wait_dropped([("replays", count(&to_a, DATA)), ("dropped_messages", count(&to_a, RESPONSE))]);
    of_b.wait_dropped([("rx_dropped_invalid", count(&to_b, DATA)), ("dropped_initiations", count(&to_b, INITIATION))]);
    for victim in [&of_a, &of_b] {
        victim.assert_unharmed(0);
        victim.assert_same_session();
    }
    assert!(wires.iter_mut().all(|wire| arrived(wire).is_empty()), "a frame came twice");
    middle.assert_frames_pass();
}

/// Neither worker is replaced: after five seconds of silence both ends make a new session, as they do after two minutes.
#[test]
fn old_session_data_is_dropped() {
    let middle = Middle::new();
    let (a, b) = middle.both();
    let mut wires = [middle.wire(A), middle.wire(B)];
    let (of_a, of_b) = (Victim::new(&a), Victim::new(&b));
    for number in 0..20 {
        wires[A].send(&frame(number, 200));
        assert_eq!(next(&mut wires[B]), Some(frame(number, 200)));
    }
    let seen = middle.set(cut());
    // Two that are held back, one of them for too long.
    let held: Vec<Seen> = [20, 21]
        .into_iter()
        .flat_map(|number| {
            middle.set(cut());
            wires[A].send(&frame(number, 200));
            wait_for("a datagram", LIMIT, || {
                Some(middle.seen()).filter(|seen| seen.iter().any(|seen| seen.from == A && carries(&seen.bytes, 200)))
            })
        })
        .filter(|seen| seen.from == A && carries(&seen.bytes, 200))
        .collect();
    assert_eq!(held.len(), 2);
    // Until both make attempts, so that neither worker has to be asked.
    let from_b = || middle.seen().iter().any(|seen| seen.is(B, INITIATION));
    wait_for("attempts", 2 * LIMIT, || {
        (middle.seen().iter().any(|seen| seen.is(A, INITIATION)) && from_b()).then_some(())
    });
    middle.set(pass());
    for victim in [&of_a, &of_b] {
        wait_handshakes(victim.end, victim.handshakes + 1);
        assert!(victim.end.count("/session/rekeys") >= 1);
        victim.assert_unharmed(2);
    }
    middle.wait_up(&a, &b);
    arrived(&mut wires[B]);

    let (of_a, of_b) = (Victim::new(&a), Victim::new(&b));
    let [to_a, to_b] = middle.repeat(&seen);
    of_a.wait_dropped([("replays", count(&to_a, DATA)), ("dropped_messages", count(&to_a, RESPONSE))]);
    of_b.wait_dropped([("replays", count(&to_b, DATA)), ("dropped_initiations", count(&to_b, INITIATION))]);
    // What was under way when there was a new session is not lost by that.
    middle.relay.send(B, &held[0].bytes);
    assert_eq!(next(&mut wires[B]), Some(frame(20, 200)));

    // Ten ping intervals.
    sleep(Duration::from_millis(20_500));
    let of_b = Victim::new(&b);
    middle.relay.send(B, &held[1].bytes);
    let [_, to_b] = middle.repeat(&seen);
    of_b.wait_dropped([
        ("rx_dropped_invalid", 1 + count(&to_b, DATA)),
        ("dropped_initiations", count(&to_b, INITIATION)),
    ]);
    assert!(arrived(&mut wires[B]).is_empty());
    of_b.assert_unharmed(0);
    of_b.assert_same_session();
    middle.assert_frames_pass();
}

#[test]
fn delayed_initiation_is_ignored() {
    let middle = Middle::new();
    let b = middle.start(B);
    middle.set(cut());
    let a = middle.start(A);
    let held = middle.wait_seen(A, INITIATION);
    replace_worker(&a);
    middle.set(pass());
    middle.wait_up(&a, &b);

    let of_b = Victim::new(&b);
    for _ in 0..10 {
        middle.relay.send(B, &held);
        middle.relay.send_foreign(B, &held);
    }
    of_b.wait_dropped([("dropped_initiations", 20)]);
    of_b.assert_same_session();
    of_b.assert_unharmed(0);

    middle.set(cut());
    replace_worker(&b);
    let of_b = Victim::new(&b);
    for _ in 0..10 {
        middle.relay.send(B, &held);
        middle.relay.send_foreign(B, &held);
    }
    of_b.wait_dropped([("dropped_initiations", 20)]);
    of_b.assert_unharmed(0);
    assert!(!middle.set(pass()).iter().any(|seen| seen.is(B, RESPONSE)), "an old initiation was answered");
    // B lacks a session: what it refuses because of its time it answers by an initiation that is no longer, ten times a second at most.
    let to_stranger = middle.relay.heard_as_foreign(B);
    assert!(
        to_stranger.len() <= 10 && to_stranger.iter().all(|bytes| bytes[0] == INITIATION && bytes.len() <= held.len())
    );
    middle.wait_up(&a, &b);
}

/// The end that an initiation is for may not have been there when it was sent: then it counts, once, and makes no session.
#[test]
fn unheard_initiation_makes_no_session() {
    let middle = Middle::new();
    middle.set(cut());
    let a = middle.start(A);
    let held = middle.wait_seen(A, INITIATION);
    drop(a);
    let b = middle.start(B);
    let of_b = Victim::new(&b);
    middle.set(cut());
    middle.relay.send_foreign(B, &held);
    let answers = middle.relay.heard_as_foreign(B);
    assert_eq!(answers.iter().map(|answer| (answer[0], answer.len())).collect::<Vec<_>>(), [(RESPONSE, 1184)]);
    assert!(answers[0].len() < held.len(), "the answer is longer than the question");
    assert_eq!((b.status()["session"]["established"].as_bool(), b.count("/session/handshakes")), (Some(false), 0));
    of_b.wait_dropped([]);
    of_b.assert_unharmed(0);
    middle.set(pass());
    let a = middle.start(A);
    middle.wait_up(&a, &b);
}
