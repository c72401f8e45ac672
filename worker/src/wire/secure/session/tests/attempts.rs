//! Attempts: their start, form and end.

use super::*;

/// "At once and after 250, 500, 1000 and 2000 ms more, until the message is answered or the attempt is over." "An attempt lasts 2
/// s, from the third of a series on 5 s", "each up to a tenth more at random".
#[test]
fn attempts_alternate_forms() {
    let mut first = both().0;
    let (mut times, mut now_us) = (Vec::new(), 0);
    while now_us < 30_000_000 {
        times.extend(first.on_time(now_us).into_iter().map(|(_, sent)| (now_us / 1000, sent.len())));
        assert!(first.session.due_us() > now_us);
        now_us = first.session.due_us();
    }
    let mut lasted = Vec::new();
    for length in [1336, 152, 1336, 152, 1336] {
        let begin = times[0].0;
        let count = times.iter().take_while(|sent| sent.1 == length).count();
        let attempt: Vec<_> = times.drain(..count).map(|(time, _)| time - begin).collect();
        assert_eq!(attempt, [0, 250, 750, 1750, 3750][..if lasted.len() < 2 { 4 } else { 5 }]);
        lasted.push(times[0].0 - begin);
    }
    for (number, lasted) in lasted.iter().enumerate() {
        let least = if number < 2 { 2000 } else { 5000 };
        assert!((least..=least + least / 10).contains(lasted), "{number}: {lasted}");
    }
    // The times of the KEM key are the same.
    let (mut first, mut second) = both();
    let (kem_key, begin_us) = to_kem_key(&mut first, &mut second, 0);
    let (mut times, mut now_us) = (vec![0], begin_us);
    while now_us < begin_us + 2_200_000 {
        now_us = first.session.due_us();
        let sent = first.on_time(now_us);
        times.extend(sent.iter().filter(|(_, sent)| *sent == kem_key).map(|_| (now_us - begin_us) / 1000));
    }
    assert_eq!(times, [0, 250, 750, 1750]);
}

/// "The first attempt has the form that succeeded last in this worker, in either role; else the short one where an underlay's MTU
/// is too small or unknown; else the long one."
#[test]
fn attempts_begin_with_last_good_form() {
    let (long, short) = (1336, 152);
    let next = |end: &mut End, now_us| only(end.on_time(now_us)).len();
    let [mut narrow, mut wide] =
        [1335, 1336].map(|datagram| Kind { datagram, ..Kind::new(1, 2, &[Remote::Fixed(Address(home(2)))]) }.end());
    assert_eq!([next(&mut narrow, 0), next(&mut wide, 0)], [short, long]);
    assert_eq!([next(&mut narrow, 2_200_000), next(&mut wide, 2_200_000)], [long, short]);
    // Either end may have begun the successful attempt. Both begin again when the session is over: 180 s later, or after 5 s of
    // silence.
    for form in [Form::Short, Form::Long] {
        let (mut first, mut second) = both();
        let now_us = if form == Form::Short {
            let (kem_key, now_us) = to_kem_key(&mut first, &mut second, 0);
            let ciphertext = only(second.receive(&kem_key, home(1), now_us));
            first.receive(&ciphertext, home(2), now_us);
            now_us
        } else {
            0
        };
        exchange([&mut first, &mut second], now_us);
        assert!(first.has_session() && second.session.route().now().1.target == at(home(1)));
        for end in [&mut first, &mut second] {
            let sent = end.on_time(now_us + 5_000_000);
            let initiations: Vec<_> = sent.iter().filter(|(_, sent)| sent[0] == message::INITIATION).collect();
            assert_eq!(initiations.len(), 1);
            assert_eq!(initiations[0].1.len(), form.initiation());
        }
        // A new worker does not know the form.
        let state = first.session.report_secure(0);
        assert_eq!(next(&mut end(1, 2, 0, false, state, 1000), 0), long);
    }
}

/// "The end with the smaller public key, compared as bytes, forgets what it has sent in an attempt of its own, once between two
/// confirmed sessions, and goes on when the next attempt is due."
#[test]
fn smaller_key_yields_once() {
    let fixed = |ours, theirs| end(ours, theirs, 0, false, SecureState::default(), 1000);
    for (ours, theirs, smaller) in [(1, 2, true), (2, 1, false)] {
        let (mut first, mut second) = (fixed(ours, theirs), fixed(theirs, ours));
        assert_eq!(first.session.pair.gives_way(), smaller);
        // For each attempt: whether the peer's response is accepted although the peer has begun as well.
        let attempt = |first: &mut End, second: &mut End, now_us| {
            let initiations = [&mut *first, &mut *second].map(|end| only(end.on_time(now_us)));
            assert_eq!(first.receive(&initiations[1], home(theirs), now_us).len(), 1);
            let response = only(second.receive(&initiations[0], home(ours), now_us));
            let dropped = first.session.report_secure(0).counts.dropped_messages;
            first.receive(&response, home(theirs), now_us);
            first.session.report_secure(0).counts.dropped_messages == dropped
        };
        assert_eq!(attempt(&mut first, &mut second, 0), !smaller);
        assert_eq!(first.has_session(), !smaller);
        if smaller {
            // It sends nothing of the attempt again, and makes the next one in the short form.
            assert_eq!(first.session.due_us(), SECOND);
            assert!(first.on_time(1_999_999).is_empty() && second.on_time(1_999_999).len() == 1);
            assert!(attempt(&mut first, &mut second, 2_200_000));
            assert_eq!(first.on_time(2_200_001)[0].1.len(), 1208, "the KEM key");
        }
    }
}

/// "The sender's clock, rounded down to a multiple of 2^20 (about 1 ms), or its last timestamp plus one, whichever is greater."
#[test]
fn timestamps_follow_the_clock() {
    let fixed = [Remote::Fixed(Address(home(2)))];
    let made = |secure, wall| Kind { secure, wall, ..Kind::new(1, 2, &fixed) }.end();
    let timestamp = |end: &mut End, now_us| {
        let sent = only(end.on_time(now_us));
        let Some(Message::Initiation(initiation)) = message::parse(&sent) else { panic!("{sent:02x?}") };
        initiation.timestamp
    };
    // A clock that is an hour slow, is corrected, and then goes back.
    let late = |now_us| [7200, 10_800, 3600][usize::try_from(now_us / 3_000_000).unwrap().min(2)] * 1_000_000_000;
    let mut first = made(SecureState::default(), Box::new(move |now_us| Timestamp(late(now_us) + 999_999_999)));
    let [hour_late, right] = [7200, 10_800].map(|seconds| rounded(seconds * 1_000_000_000 + 999_999_999).0);
    assert_eq!(timestamp(&mut first, 0).0, hour_late);
    assert_eq!(timestamp(&mut first, 2_200_000).0, hour_late + 1);
    assert_eq!(timestamp(&mut first, 4_400_000).0, right);
    assert_eq!(timestamp(&mut first, 9_900_000).0, right + 1);
    assert_eq!(timestamp(&mut made(first.session.report_secure(0), wall(5)), 0).0, right + 2);
}
