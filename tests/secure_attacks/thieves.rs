//! Who has another key than the peer, another pre-shared key, or the key of the end that he attacks.

use std::thread::sleep;
use std::time::Duration;

use ethudp_worker::wire::secure::message::{INITIATION, RESPONSE};
use privsep::ipc::Timestamp;

use super::forged::{Impostor, ends_keys, put_macs, shared};
use super::{A, B, LIMIT, Middle, Victim, cut, pass, replace_worker};
use crate::lab::{Namespace, Running, join, wait_for};
use crate::secure::End;

/// A host that reaches B by a link of its own.
fn intruder(middle: &Middle) -> Namespace {
    let host = Namespace::new();
    join((&middle.sites.b, "other"), (&host, "wan"), 1500);
    middle.sites.b.ip("addr add 203.0.113.2/24 dev other");
    host.ip("addr add 203.0.113.3/24 dev wan");
    host
}

/// Runs another tunnel of this program against B for a while, in which it makes attempts of both forms.
fn intrude(middle: &Middle, end: &End) -> Running {
    let host = intruder(middle);
    let intruder = end.start_at(&host, "intruder");
    sleep(Duration::from_secs(3));
    assert_eq!(
        (intruder.status()["session"]["established"].as_bool(), intruder.count("/worker_restarts")),
        (Some(false), 0)
    );
    assert!(intruder.count("/paths/0/tx_datagrams") >= 2);
    intruder
}

#[test]
fn wrong_key_gets_no_session() {
    let middle = Middle::new();
    let (a, b) = middle.both();
    let of_b = Victim::new(&b);
    let intruder = intrude(&middle, &End { ours: 2, remote: "203.0.113.2:6000", ..End::A });
    drop(intruder);
    let dropped = of_b.dropped();
    assert!(dropped.keys().eq([&"auth_failures"]) && dropped["auth_failures"] >= 5, "{dropped:?}");
    of_b.assert_same_session();
    of_b.assert_unharmed(0);
    assert!(b.status()["session"]["trouble"].is_null(), "{}", b.status());
    middle.assert_frames_pass();
    drop(a);
}

#[test]
fn stolen_key_needs_pre_shared_key() {
    let middle = Middle::new();
    let b = middle.start_as(&End { remote: "any", psk: Some(2), ..End::B }, B);
    let a = middle.start_as(&End { remote: "192.0.2.9:6000", psk: Some(2), ..End::A }, A);
    middle.wait_up(&a, &b);
    let of_b = Victim::new(&b);
    for psk in [None, Some(1)] {
        let intruder = intrude(&middle, &End { remote: "203.0.113.2:6000", psk, ..End::A });
        // It is not answered.
        assert_eq!(intruder.count("/paths/0/rx_datagrams"), 0);
        drop(intruder);
        of_b.assert_same_session();
        middle.assert_frames_pass();
        // The name of the link is free again.
        wait_for("the end of the link", LIMIT, || {
            (!middle.sites.b.interfaces().contains(&"other".into())).then_some(())
        });
    }
    let dropped = of_b.dropped();
    assert!(dropped.keys().eq([&"auth_failures"]) && dropped["auth_failures"] >= 4, "{dropped:?}");
    of_b.assert_unharmed(0);
    // The peer's own new worker is heard as before.
    replace_worker(&a);
    middle.wait_up(&a, &b);
}

/// Key-compromise impersonation, as Noise defines it: with B's private key an attacker gets his initiation in A's name answered by
/// B, and no more: no session follows, and his timestamp does not outlast his attempt.
#[test]
fn stolen_key_cannot_impersonate_peer() {
    let middle = Middle::new();
    let (a, b) = middle.both();
    let of_b = Victim::new(&b);
    let far = |nanoseconds| Timestamp((1 << 62) + nanoseconds);
    for number in 0..5 {
        let mut impostor = Impostor::new(far(number));
        middle.relay.send_foreign(B, &impostor.initiation);
        let answers = middle.relay.heard_as_foreign(B);
        assert_eq!(answers.iter().map(|answer| (answer[0], answer.len())).collect::<Vec<_>>(), [(RESPONSE, 1184)]);
        let (read, index) = impostor.read(&answers[0]);
        assert_eq!(read, Err(snow::Error::Decrypt));
        // He can only guess what would confirm the session.
        for counter in 0..10_u64 {
            let header = [&[5, 0, 0, 0][..], &index, &counter.to_be_bytes()].concat();
            middle.relay.send_foreign(B, &[&header[..], &[7; 60]].concat());
        }
        of_b.wait_dropped([("auth_failures", 10 * (number + 1))]);
    }
    of_b.assert_same_session();
    of_b.assert_unharmed(0);
    assert!(middle.relay.heard_as_foreign(B).is_empty());
    assert_eq!(b.status()["paths"][0]["remote"], "198.51.100.9:6000");
    middle.assert_frames_pass();

    // A's own initiation is behind the time of that session as long as it waits, ten seconds, and not behind that of B.
    let handshakes = b.count("/session/handshakes");
    replace_worker(&a);
    wait_for("a session with A", 2 * LIMIT, || (b.count("/session/handshakes") > handshakes).then_some(()));
    middle.wait_up(&a, &b);
    // Nor is it what the next worker of B has heard: it answers A, who alone begins.
    middle.set(Box::new(|relay, from, bytes| {
        if (from, bytes[0]) != (B, INITIATION) {
            relay.send(1 - from, bytes);
        }
    }));
    replace_worker(&b);
    replace_worker(&a);
    middle.wait_up(&a, &b);
    assert_eq!(b.status()["session"]["began_here"], false);
}

/// And as the one that answers: with B's key he makes the MACs of a response to B, which is tried once, and does not open.
#[test]
fn stolen_key_cannot_answer_as_peer() {
    let middle = Middle::new();
    let (a, b) = middle.both();
    middle.set(cut());
    replace_worker(&b);
    let initiation = middle.wait_seen(B, INITIATION);
    let of_b = Victim::new(&b);
    let mut response = vec![7; 1184];
    response[..4].copy_from_slice(&[RESPONSE, 1, 0, 0]);
    response[8..12].copy_from_slice(&initiation[4..8]);
    put_macs(&mut response, &ends_keys(B).1, &shared());
    for _ in 0..5 {
        middle.relay.send(B, &response);
    }
    of_b.wait_dropped([("auth_failures", 1), ("dropped_messages", 4)]);
    assert_eq!((b.status()["session"]["established"].as_bool(), b.count("/worker_restarts")), (Some(false), 1));
    middle.set(pass());
    middle.wait_up(&a, &b);
    of_b.assert_unharmed(2);
    assert_eq!(a.count("/worker_restarts"), 0);
}
