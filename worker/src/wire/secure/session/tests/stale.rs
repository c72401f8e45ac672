//! Ends with a late clock, with a new address, or without state.

use super::*;

/// The peer of an ended session, restarted without state and with a clock of this many seconds.
fn started_again(seconds: u64) -> End {
    end(1, 2, 0, false, SecureState::default(), seconds)
}

/// Both ends; the second had a session with the first and has received nothing since.
fn forgotten(until_us: u64) -> End {
    let (mut first, mut second) = both();
    exchange([&mut first, &mut second], 0);
    second.on_time(until_us);
    assert_eq!(second.session.report_secure(0).heard, rounded(1000 * 1_000_000_000));
    second
}

/// "An end that refuses an initiation because of its timestamp alone answers with an initiation of its own, to the address that the
/// stale one came from."
#[test]
fn moved_peer_with_reset_clock_connects() {
    // At the peer's new address: its initiations are stale, and the other end does not know the address.
    let moved = home(7);
    for silent_us in [10 * SECOND, 200 * SECOND] {
        let (mut second, mut first, mut time_us) = (forgotten(silent_us), started_again(0), 0);
        while !(first.has_session() && second.session.route().now().1.target == at(moved)) {
            assert!(time_us < 12 * SECOND, "no session");
            let mut under_way: VecDeque<_> = first.on_time(time_us).into_iter().map(|(_, sent)| (0, sent)).collect();
            let to_it = |(target, sent)| (target == at(moved)).then_some((1, sent));
            under_way.extend(second.on_time(silent_us + time_us).into_iter().filter_map(to_it));
            while let Some((from, datagram)) = under_way.pop_front() {
                if from == 0 {
                    let answers = second.receive(&datagram, moved, silent_us + time_us);
                    under_way.extend(answers.into_iter().filter_map(to_it));
                } else {
                    let answers = first.receive(&datagram, home(2), time_us);
                    under_way.extend(answers.into_iter().map(|(_, sent)| (0, sent)));
                }
            }
            time_us += 50 * MILLISECOND;
        }
        assert!(second.session.report_secure(silent_us + time_us).session.unwrap().began_here);
    }
}

/// "Both false timestamps of an exploited worker heal in the same way."
#[test]
fn false_timestamp_blocks_no_session() {
    for lies in [1, 2] {
        let lied = |ours| SecureState {
            heard: if ours == lies { Timestamp::MAX } else { Timestamp(0) },
            ..SecureState::default()
        };
        let mut ends = [end(1, 2, 0, false, lied(1), 1000), end(2, 1, 0, true, lied(2), 1000)];
        let [first, second] = &mut ends;
        run([first, second], 0, 5 * SECOND, |_, _, _| true);
        assert!(ends.iter().all(End::has_session), "{lies}");
    }
}

/// "The answer is the initiation of the attempt under way, where that is not longer than the stale one"; "ten times a second at most".
#[test]
fn stale_answer_is_bounded() {
    let mut second = forgotten(200 * SECOND);
    let mut first = started_again(0);
    let long = only(first.on_time(0));
    let short = only(first.on_time(2_200_000));
    assert_eq!([long.len(), short.len()], [1336, 152]);
    // The end knows no address, and begins because of the stale initiation, in its first form.
    let now_us = 201 * SECOND;
    let answer = only(second.receive(&long, home(7), now_us));
    assert_eq!((answer[0], answer.len()), (message::INITIATION, 1336));
    second.on_time(now_us);
    assert!(second.receive(&short, home(7), now_us).is_empty(), "longer than what came");
    let count = (0..30).map(|_| second.receive(&long, home(8), now_us).len()).sum::<usize>();
    assert_eq!(count, 9, "ten in this second");
    // From now on all attempts are short; the third would be long otherwise.
    let (mut now_us, mut lengths) = (now_us, Vec::new());
    while lengths.len() < 4 {
        second.on_time(now_us);
        now_us += 100 * MILLISECOND;
        second.receive(&short, home(7), now_us);
        let length = second.session.attempts.initiation().map_or(0, <[u8]>::len);
        let index = second.session.attempts.index();
        if lengths.last() != Some(&(index, length)) {
            lengths.push((index, length));
        }
    }
    assert_eq!(lengths.iter().map(|(_, length)| *length).collect::<Vec<_>>(), [1336, 152, 152, 152]);
    assert_eq!(only(second.receive(&short, home(7), now_us + SECOND)).len(), 152);
}

/// "Only when it has no current session, or its session is five ping intervals old and no pong has counted for as long; only when
/// `mac2` of the stale initiation is right."
#[test]
fn stale_initiation_is_ignored_in_session() {
    let (mut first, mut second) = both();
    run([&mut first, &mut second], 0, 20 * SECOND, |_, _, _| true);
    let stale = only(started_again(0).on_time(0));
    assert!(second.receive(&stale, home(7), 20 * SECOND).is_empty());
    let mut second = forgotten(200 * SECOND);
    let mut changed = stale.clone();
    let last = changed.len() - 1;
    changed[last] ^= 1;
    assert!(second.receive(&changed, home(7), 200 * SECOND).is_empty(), "with a wrong mac2");
    assert_eq!(second.receive(&stale, home(7), 200 * SECOND).len(), 1);
}

/// "Nothing was opened by any session for 180 s. A learned address of the peer is forgotten."
#[test]
fn silent_peer_loses_learned_address() {
    let (mut first, mut second) = both();
    run([&mut first, &mut second], 0, 20 * SECOND, |_, _, _| true);
    assert_eq!(second.session.route().now().1.target, at(home(1)));
    let last = |end: &mut End, from_us, until_us| {
        let (mut now_us, mut last_us) = (from_us, 0);
        while now_us < until_us {
            if !end.on_time(now_us).is_empty() {
                last_us = now_us;
            }
            now_us = end.session.due_us();
        }
        last_us / SECOND
    };
    let sent = last(&mut second, 20 * SECOND, 1000 * SECOND);
    assert!((196..200).contains(&sent), "{sent}");
    assert_eq!(second.session.route().now().1.target, Target::Unknown);
    // A fixed address is not forgotten: attempts to it continue.
    assert!(last(&mut first, 20 * SECOND, 1000 * SECOND) > 990);
}

/// "A response to an attempt that is over does not count", and the end says so.
#[test]
fn late_answer_is_reported() {
    let (mut first, mut second) = both();
    let initiation = only(first.on_time(0));
    let response = only(second.receive(&initiation, home(1), 0));
    first.on_time(2_200_000);
    first.receive(&response, home(2), 3 * SECOND);
    assert_eq!((first.trouble(), first.has_session()), (Some(Trouble::Late { after_ms: 3000 }), false));
}

/// "More than five initiations a second with right MACs and new timestamps."
#[test]
fn thiefs_initiations_are_reported() {
    let mut second = both().1;
    let initiation = |seconds| only(end(1, 2, 0, false, SecureState::default(), seconds).on_time(0));
    for number in 0..6 {
        assert_eq!(second.trouble(), None, "{number}");
        second.receive(&initiation(2000 + number), home(9), number);
    }
    assert_eq!(second.trouble(), Some(Trouble::StolenKey));
}

/// "Only queue 0 determines the address of a peer."
#[test]
fn other_queues_move_no_peer() {
    let (mut first, mut second) = both();
    run([&mut first, &mut second], 0, SECOND, |_, _, _| true);
    for (queue, asks) in [(1, 0), (3, 0), (0, 1)] {
        let frame = first.frame_by(queue, 7);
        let answers = second.receive(&frame, home(9), 2 * SECOND);
        assert_eq!((answers.len(), second.frames.len()), (asks, 1), "queue {queue}");
    }
    // A ping of another queue is not answered either.
    let ping = |queue| {
        let mut datagram =
            [&[0; HEADER][..], &content::ping([7; 8], content::DatagramCounts::default(), false), &[0; TAG]].concat();
        first.session.route().sending.as_ref().unwrap().seal(queue, &mut datagram).unwrap();
        datagram
    };
    assert!(second.receive(&ping(2), home(1), 2 * SECOND).is_empty());
    assert_eq!(second.receive(&ping(0), home(1), 2 * SECOND).len(), 1);
}

/// "A receiver answers a probe only where its size is the length of the datagram."
#[test]
fn probe_of_wrong_size_is_ignored() {
    let (mut first, mut second) = both();
    run([&mut first, &mut second], 0, SECOND, |_, _, _| true);
    for (size, answers) in [(144, 1), (143, 0), (0, 0)] {
        let mut datagram = [&[0; HEADER][..], &content::probe([7; 8], size, false), &[0; 100], &[0; TAG]].concat();
        assert_eq!(datagram.len(), 144);
        first.session.route().sending.as_ref().unwrap().seal(0, &mut datagram).unwrap();
        assert_eq!(second.receive(&datagram, home(1), 2 * SECOND).len(), answers, "{size}");
    }
}

/// "Once in each ping interval"; the first ping without an answer tells that the path is down.
#[test]
fn ping_interval_follows_file() {
    let mut first = Kind { ping_interval: 10, ..Kind::new(1, 2, &[fixed()]) }.end();
    let mut second = Kind { ping_interval: 10, ..Kind::new(2, 1, &[LEARNED]) }.end();
    let mut sent = [0, 0];
    run([&mut first, &mut second], 0, 105 * SECOND, |from, now_us, datagram| {
        sent[from] += u32::from(now_us > 5 * SECOND && datagram.len() == HEADER + PINGED + TAG);
        true
    });
    // Ten pings and ten pongs each.
    assert_eq!(sent, [20, 20]);
    let up = |end: &mut End| end.session.report(0).paths[0].health == privsep::ipc::PathHealth::Up;
    let mut cut = |from_s, until_s| {
        run([&mut first, &mut second], from_s * SECOND, until_s * SECOND, |_, _, _| false);
        (up(&mut first), up(&mut second))
    };
    assert_eq!(cut(106, 109), (true, true));
    assert_eq!(cut(109, 112), (false, false));
}
