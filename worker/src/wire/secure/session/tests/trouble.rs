//! Troubles that an end reports about a peer without a session.

use super::*;

#[test]
fn troubles_are_distinguished() {
    let (mut first, mut second) = both();
    let initiation = only(first.on_time(0));
    // This end's file names another peer.
    let mut other = end(2, 3, 0, true, SecureState::default(), 1000);
    assert!(other.receive(&initiation, home(1), 0).is_empty());
    assert_eq!(other.trouble(), Some(Trouble::OtherPeerKey));
    // The peer's file has another key for this end. Reported only if the source is the peer's address.
    let mut other = end(4, 1, 0, true, SecureState::default(), 1000);
    assert!(other.receive(&initiation, home(1), 0).is_empty());
    assert_eq!(other.trouble(), None);
    let mut other = end(4, 1, 0, false, SecureState::default(), 1000);
    assert!(other.receive(&initiation, home(1), 0).is_empty());
    assert_eq!(other.trouble(), Some(Trouble::OurKeyUnknown));
    // The pre-shared keys differ.
    let mut other = end(2, 1, 9, true, SecureState::default(), 1000);
    assert!(other.receive(&initiation, home(1), 0).is_empty());
    assert_eq!((other.trouble(), other.session.report_secure(0).counts.auth_failures), (Some(Trouble::Psk), 1));
    // A draft of this version with another length.
    let mut draft = [&initiation[..], &[0; 4]].concat();
    first.session.pair.put_macs(&mut draft);
    assert!(second.receive(&draft, home(1), 0).is_empty());
    assert_eq!(second.trouble(), Some(Trouble::Draft));
    // An older draft has its MACs elsewhere. Reported only if the source is the peer's address.
    draft.fill(7);
    (draft[0], draft[1]) = (message::INITIATION, 1);
    for (source, expected) in [(home(9), None), (home(1), Some(Trouble::Draft))] {
        let mut other = Kind::new(2, 1, &[Remote::Fixed(Address(home(1)))]).end();
        other.reports_source = true;
        assert!(other.receive(&draft, source, 0).is_empty());
        assert_eq!(other.trouble(), expected, "{source}");
    }
    // Another version of any form: the MACs are the last 32 bytes.
    let mut message = vec![7; 70];
    for (kind, version, length) in
        [(message::RESPONSE, 0, 64), (message::INITIATION, 9, 1500), (message::INITIATION, 2, 70)]
    {
        message.resize(length, 7);
        (message[0], message[1]) = (kind, version);
        first.session.pair.put_macs(&mut message);
        assert!(second.receive(&message, home(1), 0).is_empty());
        assert_eq!(second.trouble(), Some(Trouble::Version(version)));
    }
    end(3, 2, 0, true, SecureState::default(), 1000).session.pair.put_macs(&mut message);
    assert!(second.receive(&message, home(7), 0).is_empty());
    assert_eq!(second.trouble(), Some(Trouble::OtherPeerKey));
}

/// "An end reports a trouble only while there is no current session."
#[test]
fn session_clears_trouble() {
    let (mut first, mut second) = both();
    let initiation = only(first.on_time(0));
    exchange([&mut first, &mut second], 0);
    // The response to the initiation, which was not sent again: as if the initiation had been lost.
    let response = only(second.receive(&initiation, home(1), 0));
    first.receive(&response, home(2), 0);
    exchange([&mut first, &mut second], 0);
    assert!(first.has_session() && second.has_session());
    let initiation_of = |ours, theirs| only(end(ours, theirs, 0, false, SecureState::default(), 1000).on_time(0));
    let (of_a_stranger, for_a_stranger) = (initiation_of(3, 2), initiation_of(3, 4));
    let mut other_version = vec![7; 70];
    (other_version[0], other_version[1]) = (message::INITIATION, 9);
    first.session.pair.put_macs(&mut other_version);
    let cases = [
        (&of_a_stranger, Trouble::OtherPeerKey),
        (&for_a_stranger, Trouble::OurKeyUnknown),
        (&other_version, Trouble::Version(9)),
        (&initiation, Trouble::Clock { behind_ms: 1 }),
    ];
    // An initiation of an end with another pre-shared key.
    let other_psk = only(end(1, 2, 9, false, SecureState::default(), 5000).on_time(0));
    let cases = [&cases[..], &[(&other_psk, Trouble::Psk)]].concat();
    for &(message, _) in &cases {
        assert!(second.receive(message, home(1), 1).is_empty());
        assert_eq!(second.trouble(), None);
    }
    let (failures, initiations) = {
        let SecureCounters { auth_failures, dropped_initiations, .. } = second.session.report_secure(0).counts;
        (auth_failures, dropped_initiations)
    };
    assert_eq!((failures, initiations), (3, 1), "they were taken for something else");
    second.receive(&first.frame(0), home(1), 10_000_000);
    // The session of the second end is over. A stale initiation is answered by an initiation.
    second.on_time(180_000_000);
    for (message, trouble) in cases {
        let answers = second.receive(message, home(1), 180_000_000);
        assert_eq!(answers.len(), usize::from(matches!(trouble, Trouble::Clock { .. })), "{trouble:?}");
        assert_eq!(second.trouble(), Some(trouble));
    }
    exchange([&mut first, &mut second], 180_000_000);
    assert!(second.has_session());
    assert_eq!(second.trouble(), None);
}

/// "`mac1` is then checked for a diagnosis, ten times a second at most."
#[test]
fn trouble_checks_are_rate_limited() {
    let mut second = both().1;
    let initiation_of = |ours, theirs| only(end(ours, theirs, 0, false, SecureState::default(), 1000).on_time(0));
    let (neither, of_a_stranger) = (initiation_of(3, 4), initiation_of(3, 2));
    for _ in 0..10 {
        second.receive(&neither, home(9), 7);
    }
    second.receive(&of_a_stranger, home(9), 1_000_006);
    assert_eq!(second.trouble(), None);
    second.receive(&of_a_stranger, home(9), 1_000_007);
    assert_eq!(second.trouble(), Some(Trouble::OtherPeerKey));
    assert_eq!(second.session.report_secure(0).counts.auth_failures, 12);
}
