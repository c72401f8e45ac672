//! Messages with a right head and a wrong rest.

use super::*;

/// The message with another rest: head, `mac0` and `mac1` stay unchanged.
fn with_another_rest(message: &[u8]) -> Vec<u8> {
    let mut changed = message.to_vec();
    changed[message.len() - 40] ^= 1;
    changed[message.len() - 1] ^= 1;
    changed
}

/// Failures, and initiations and other messages dropped because of their numbers.
fn counts(end: &End) -> [u64; 3] {
    let SecureCounters { auth_failures, dropped_initiations, dropped_messages, .. } =
        end.session.report_secure(0).counts;
    [auth_failures, dropped_initiations, dropped_messages]
}

#[test]
fn spliced_head_takes_no_slot() {
    let (mut first, mut second) = both();
    let initiation = only(first.on_time(0));
    let changed = with_another_rest(&initiation);
    // An attacker is faster, and sends more than are processed in a second.
    for _ in 0..100 {
        assert!(second.receive(&changed, home(9), 0).is_empty());
    }
    assert_eq!(counts(&second), [100, 0, 0]);
    let response = only(second.receive(&initiation, home(1), 0));
    // Now the timestamp is old. The rest is not checked.
    assert!(second.receive(&changed, home(9), 1).is_empty());
    assert_eq!(counts(&second), [100, 1, 0]);
    // The same for a response.
    let changed = with_another_rest(&response);
    for _ in 0..100 {
        assert!(first.receive(&changed, home(2), 1).is_empty());
    }
    assert_eq!((counts(&first), first.trouble()), ([100, 0, 0], Some(Trouble::Psk)));
    first.receive(&response, home(2), 1);
    exchange([&mut first, &mut second], 1);
    assert!(first.has_session() && second.has_session());
    first.receive(&changed, home(2), 2);
    second.receive(&with_another_rest(&initiation), home(9), 2);
    assert_eq!([counts(&first), counts(&second)], [[100, 0, 1], [100, 2, 0]]);
}
