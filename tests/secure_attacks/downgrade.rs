//! Attempts to have two ends agree on less than they could.

use ethudp_worker::wire::secure::message::{DATA, INITIATION, KEM_CIPHERTEXT, KEM_KEY, RESPONSE};

use super::forged::{ends_keys, put_macs, shared};
use super::{A, B, LIMIT, Middle, Rule, SILENCE, Victim, cut, pass, replace_worker};
use crate::lab::{udp_passes, wait_for};

/// Where the initiation says which ciphers its sender has, and the response which one it is.
const OFFER: usize = 3;
const CIPHER: usize = 2;

/// Says in each message of this kind that there is ChaCha20-Poly1305 alone, with both MACs made anew by who can do that.
fn weakens(kind: u8, can_make_macs: bool) -> Rule {
    Box::new(move |relay, from, bytes| {
        let mut bytes = bytes.to_vec();
        if bytes[0] == kind {
            if kind == INITIATION {
                bytes[OFFER] = 1;
            } else {
                bytes[CIPHER] = 0;
            }
            if can_make_macs {
                put_macs(&mut bytes, &ends_keys(1 - from).1, &shared());
            }
        }
        relay.send(1 - from, &bytes);
    })
}

/// The cipher of an undisturbed session; none where this processor has the weaker one alone.
fn cipher(end: &crate::lab::Running) -> Option<String> {
    let cipher = end.status()["session"]["cipher"].as_str().unwrap().to_owned();
    if cipher == "chacha20-poly1305" {
        crate::lab::not_run("downgrade of the cipher", "a processor that has AES");
        return None;
    }
    assert_eq!(cipher, "aes-256-gcm");
    Some(cipher)
}

#[test]
fn attacker_cannot_force_weaker_cipher() {
    let middle = Middle::new();
    let (a, b) = middle.both();
    let Some(cipher) = cipher(&a) else { return };
    for (kind, which) in [(INITIATION, B), (RESPONSE, A)] {
        middle.set(cut());
        replace_worker(&a);
        middle.set(weakens(kind, false));
        let end = [&a, &b][which];
        let of = Victim::new(end);
        wait_for("messages that were changed", LIMIT, || (of.dropped().get("auth_failures") >= Some(&3)).then_some(()));
        assert!(!udp_passes(&middle.sites.a, &middle.sites.b, "10.8.0.2", SILENCE));
        assert_eq!(a.status()["session"]["established"], false);
        assert_eq!(middle.set(pass()).iter().filter(|seen| seen.is(A, DATA)).count(), 0);
        middle.wait_up(&a, &b);
        of.assert_unharmed(2);
        for end in [&a, &b] {
            assert_eq!(end.status()["session"]["cipher"], *cipher);
        }
    }
}

/// Who has stolen the private key of B can make the MACs anew. The offer is in what Noise has hashed, and the choice in the keys.
#[test]
fn stolen_key_cannot_force_weaker_cipher() {
    let middle = Middle::new();
    let (a, b) = middle.both();
    let Some(cipher) = cipher(&a) else { return };
    middle.set(weakens(INITIATION, true));
    replace_worker(&a);
    let of_b = Victim::new(&b);
    wait_for("messages that were changed", LIMIT, || (of_b.dropped().get("auth_failures") >= Some(&2)).then_some(()));
    assert_eq!(a.status()["session"]["established"], false);
    assert!(!middle.seen().iter().any(|seen| seen.is(B, RESPONSE)), "a changed offer was answered");

    // A takes the response, and comes to other keys than B: so nothing of B opens at A, and nothing of A at B.
    let handshakes = b.count("/session/handshakes");
    middle.set(weakens(RESPONSE, true));
    wait_for("a session of A's own", LIMIT, || (a.status()["session"]["cipher"] == "chacha20-poly1305").then_some(()));
    assert!(!udp_passes(&middle.sites.a, &middle.sites.b, "10.8.0.2", SILENCE));
    assert_eq!(b.count("/session/handshakes"), handshakes);
    middle.set(pass());
    // A hears nothing for five seconds, and begins anew.
    wait_for("the better cipher", 2 * LIMIT, || (a.status()["session"]["cipher"] == *cipher).then_some(()));
    middle.wait_up(&a, &b);
    assert_eq!(b.status()["session"]["cipher"], *cipher);
    of_b.assert_unharmed(4);
    assert_eq!(a.count("/worker_restarts"), 1);
}

/// The short form carries no KEM. Who suppresses the long one gains nothing but time: no data leaves before the KEM's messages have
/// passed.
#[test]
fn short_form_sends_nothing_before_kem() {
    let middle = Middle::new();
    // Nothing long, and not the first three of the KEM's keys either.
    let mut kem_keys = 0;
    middle.set(Box::new(move |relay, from, bytes| {
        let passes = match bytes[0] {
            INITIATION | RESPONSE => bytes.len() < 1000,
            KEM_KEY => {
                kem_keys += 1;
                kem_keys > 3
            }
            _ => true,
        };
        if passes {
            relay.send(1 - from, bytes);
        }
    }));
    let b = middle.start(B);
    let a = middle.start(A);
    middle.wait_up(&a, &b);
    let seen = middle.set(pass());
    let first = |kind| seen.iter().position(|seen| seen.bytes[0] == kind).unwrap();
    let short = seen.iter().position(|seen| seen.is(A, INITIATION) && seen.bytes.len() == 152).unwrap();
    assert!(short < first(RESPONSE) && first(RESPONSE) < first(KEM_KEY), "the short form is not the second one");
    assert!(first(KEM_KEY) < first(KEM_CIPHERTEXT) && first(KEM_CIPHERTEXT) < first(DATA));
    let lengths = [KEM_KEY, KEM_CIPHERTEXT].map(|kind| seen[first(kind)].bytes.len());
    assert_eq!(lengths, [8 + 1184 + 16, 8 + 1088 + 16]);
    let kem_keys: Vec<_> = seen[..first(KEM_CIPHERTEXT)].iter().filter(|seen| seen.is(A, KEM_KEY)).collect();
    assert!(kem_keys.len() >= 4, "only {} keys were needed", kem_keys.len());
    for end in [&a, &b] {
        assert_eq!((end.count("/session/handshakes"), end.count("/worker_restarts")), (1, 0));
    }
}

/// Of another version nothing is taken, and it is said to be one only to who has the MACs of the pair.
#[test]
fn other_version_is_refused_without_effect() {
    let middle = Middle::new();
    let (a, b) = middle.both();
    let of_b = Victim::new(&b);
    let mut forged = vec![0; 152];
    for version in [0, 2, 255] {
        (forged[0], forged[1]) = (INITIATION, version);
        middle.relay.send(B, &forged);
        put_macs(&mut forged, &ends_keys(B).1, &shared());
        middle.relay.send(B, &forged);
        // Messages that have no MACs are none.
        middle.relay.send(B, &[&[KEM_KEY, version, 0, 0], &[7; 1204][..]].concat());
    }
    // What has the right MACs is no failure, and no message of this version.
    wait_for("all of them", LIMIT, || {
        let dropped = of_b.dropped();
        (dropped.get("auth_failures") == Some(&3) && dropped.get("rx_dropped_invalid") >= Some(&3)).then_some(())
    });
    of_b.assert_same_session();
    of_b.assert_unharmed(0);
    assert!(b.status()["session"]["trouble"].is_null(), "{}", b.status());

    // Without a session it is said; and it is over when there is one.
    middle.set(cut());
    replace_worker(&b);
    middle.relay.send(B, &forged);
    wait_for("the version", LIMIT, || {
        middle.relay.send(B, &forged);
        (b.status()["session"]["trouble"] == "version").then_some(())
    });
    middle.set(pass());
    middle.wait_up(&a, &b);
    assert!(b.status()["session"]["trouble"].is_null(), "{}", b.status());
}
