//! Long ping intervals, and a network that loses the first datagrams of a session.

use super::*;

/// Both ends with this interval; 1 has a fixed peer.
fn of_interval(ping_interval: u8, remote: Remote) -> (End, End) {
    let first = Kind { ping_interval, ..Kind::new(1, 2, &[fixed()]) }.end();
    (first, Kind { ping_interval, ..Kind::new(2, 1, &[remote]) }.end())
}

/// "Messages may cross so that the ends send by two sessions. Each opens the other's, until the next rekey."
#[test]
fn crossing_loses_no_frame() {
    for interval in [1, 9, 10, 60] {
        let (mut a, mut b) = of_interval(interval, Remote::Fixed(Address(home(1))));
        let [by_a, by_b] = [&mut a, &mut b].map(|end| only(end.on_time(0)));
        let to_a = only(b.receive(&by_a, home(1), 1));
        a.receive(&to_a, home(2), 2);
        // The first ping in A's session is lost, and the second one is late.
        a.on_time(2);
        let to_b = only(a.receive(&by_b, home(2), 3));
        let late = a.on_time(100_002);
        b.receive(&to_b, home(1), 100_100);
        for (_, ping) in b.on_time(100_100) {
            for (_, pong) in a.receive(&ping, home(2), 100_200) {
                b.receive(&pong, home(1), 100_300);
            }
        }
        for (_, ping) in late {
            for (_, pong) in b.receive(&ping, home(1), 100_400) {
                a.receive(&pong, home(2), 100_500);
            }
        }
        let [of_a, of_b] = [&a, &b].map(|end| end.session.slots.current.as_ref().unwrap());
        let begun = [of_a.began_here, of_b.began_here];
        assert_eq!(begun, [false; 2], "they did not cross");
        for second in 1..200 {
            run([&mut a, &mut b], second * SECOND, second * SECOND + 999_000, |_, _, _| true);
            if second % 30 == 0 {
                let (to_b, to_a, now_us) = (a.frame(1), b.frame(1), second * SECOND + 999_500);
                b.receive(&to_b, home(1), now_us);
                a.receive(&to_a, home(2), now_us);
                assert_eq!([a.frames.len(), b.frames.len()], [1, 1], "interval {interval}, {second} s");
            }
        }
    }
}

/// "A ping ... at once and after 100, 200, 400, 800 ... ms more, until something has been opened by this session."
#[test]
fn lost_first_pings_are_repeated() {
    for interval in [1, 10, 60] {
        let (mut a, mut b) = of_interval(interval, LEARNED);
        run([&mut a, &mut b], 0, 4 * SECOND, |from, now_us, datagram| {
            !(from == 0 && datagram[0] == message::DATA && now_us < 800_000)
        });
        assert!(a.has_session() && b.has_session(), "interval {interval}");
    }
}

/// Wrong `mac2`s under a recorded head do not use up the replies to stale initiations.
#[test]
fn forged_rest_blocks_no_answer() {
    let (mut first, mut second) = both();
    exchange([&mut first, &mut second], 0);
    second.on_time(200 * SECOND);
    let mut seen = only(end(1, 2, 0, false, SecureState::default(), 900).on_time(0));
    seen[1300] ^= 1;
    for _ in 0..100 {
        assert!(second.receive(&seen, home(9), 200 * SECOND).is_empty());
    }
    let stale = only(end(1, 2, 0, false, SecureState::default(), 0).on_time(0));
    assert_eq!(second.receive(&stale, home(1), 200 * SECOND + 1).len(), 1);
    // "Checked 1000 times a second at most."
    let failures = |second: &End| second.session.report_secure(0).counts.auth_failures;
    let before = failures(&second);
    for _ in 0..3000 {
        second.receive(&seen, home(9), 210 * SECOND);
    }
    assert_eq!(failures(&second) - before, 1000);
}

/// "From the third of a series on 5 s, from the thirteenth on five ping intervals, 60 s at most; each up to a tenth more at random."
#[test]
fn attempt_time_grows_with_interval() {
    for (interval, late) in [(1, 5), (6, 30), (60, 60)] {
        let mut first = of_interval(interval, LEARNED).0;
        let (mut begun, mut last, mut now_us) = (Vec::new(), None, 0);
        while begun.len() < 16 {
            first.on_time(now_us);
            let index = first.session.attempts.index();
            if index.is_some() && std::mem::replace(&mut last, index) != index {
                begun.push(now_us);
            }
            now_us = first.session.due_us();
        }
        for (number, pair) in begun.windows(2).enumerate() {
            let least = SECOND * [2, 5, late][usize::from(number >= 2) + usize::from(number >= 12)];
            let lasted = pair[1] - pair[0];
            assert!((least..=least + least / 10 + 1).contains(&lasted), "interval {interval}, {number}: {lasted}");
        }
    }
}

/// "On an idle path an end confirms the size every sixty ping intervals."
#[test]
fn idle_confirmation_follows_ping_interval() {
    for passes in [true, false] {
        let (mut first, mut second) = of_interval(2, LEARNED);
        let mut long = Vec::new();
        run([&mut first, &mut second], 0, 300 * SECOND, |from, now_us, datagram| {
            let is_long = datagram.len() == 1472;
            if from == 0 && is_long && datagram[0] == message::DATA {
                long.push(now_us / SECOND);
            }
            passes || !is_long
        });
        // A lost confirmation is followed by six probes at once.
        let doubts = if passes { 1 } else { 7 };
        let expected: Vec<_> = [5, 125, 245].into_iter().flat_map(|time| vec![time; doubts]).collect();
        assert_eq!(long, expected, "{passes}");
    }
}
