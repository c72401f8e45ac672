//! Start and end of sessions, and pings and probes.

use super::*;
use crate::wire::secure::crypt::tests::spend;

/// Both ends with a session that began at 0. The first has these keys and a fixed peer; the second learns.
fn established(ours: u8, theirs: u8) -> (End, End) {
    let mut ends = (Kind::new(ours, theirs, &[fixed()]).end(), Kind::new(theirs, ours, &[LEARNED]).end());
    exchange([&mut ends.0, &mut ends.1], 0);
    assert!(ends.0.has_session() && ends.1.has_session());
    ends
}

/// Ends that begin a session in an interval, each with its first time. Datagrams for which `passes` returns false are lost.
fn begin(
    ends: &mut (End, End),
    from_us: u64,
    until_us: u64,
    mut passes: impl FnMut(usize, u64, bool) -> bool,
) -> Vec<(usize, u64)> {
    let mut all: Vec<(usize, u64)> = Vec::new();
    run([&mut ends.0, &mut ends.1], from_us, until_us, |from, now_us, datagram| {
        let is_initiation = datagram[0] == message::INITIATION;
        if is_initiation && all.iter().all(|(end, _)| *end != from) {
            all.push((from, now_us));
        }
        passes(from, now_us, is_initiation)
    });
    all
}

/// "The current session is 120 s old and was begun here; or is 130 s old, 135 s at the end with the smaller key."
#[test]
fn initiator_rekeys_first() {
    for (ours, theirs, other) in [(1, 2, 130), (2, 1, 135)] {
        let mut ends = established(ours, theirs);
        assert_eq!(ends.1.session.pair.gives_way(), other == 135);
        // The first end's initiations do not arrive.
        let began = begin(&mut ends, 1, 150 * SECOND, |from, _, is_initiation| from == 1 || !is_initiation);
        assert_eq!(began, [(0, 120 * SECOND), (1, other * SECOND)]);
        for end in [&ends.0, &ends.1] {
            let report = end.session.report_secure(150 * SECOND);
            assert_eq!(report.session.unwrap().age_ms, (150 - other) * 1000);
            assert_eq!((report.counts.handshakes, report.counts.rekeys), (2, 1));
        }
    }
}

/// "This end has sent 2^29 datagrams by a queue": either of both ends.
#[test]
fn sender_rekeys_after_volume() {
    for which in [0, 1] {
        let mut ends = established(1, 2);
        let end = if which == 0 { &ends.0 } else { &ends.1 };
        spend(end.session.route().sending.as_ref().unwrap(), 2, (1 << 29) - 1);
        assert!(begin(&mut ends, 1, 2 * SECOND, |_, _, _| true).is_empty());
        let end = if which == 0 { &ends.0 } else { &ends.1 };
        end.frame_by(2, 0);
        // The limit is checked each second.
        assert_eq!(begin(&mut ends, 3 * SECOND, 10 * SECOND, |_, _, _| true), [(which, 3 * SECOND)]);
        assert_eq!(ends.1.session.report_secure(0).counts.rekeys, 1);
    }
}

/// "Nothing was opened by any session for five ping intervals."
#[test]
fn silence_triggers_handshake() {
    let mut ends = established(1, 2);
    // The pings of the tenth second are the last.
    let began = begin(&mut ends, 1, 20 * SECOND, |_, now_us, _| now_us <= 10 * SECOND);
    assert_eq!(began, [(0, 15 * SECOND), (1, 15 * SECOND)]);
    assert!(ends.0.has_session() && ends.1.has_session(), "by which it still sends");
}

/// "A session waits for 10 s; or is going and has opened nothing for ten ping intervals; or is 180 s old."
#[test]
fn sessions_expire() {
    // The current session.
    let mut ends = established(1, 2);
    begin(&mut ends, 1, 180 * SECOND - 1, |_, _, is_initiation| !is_initiation);
    assert!(ends.0.has_session() && ends.1.has_session());
    begin(&mut ends, 180 * SECOND, 180 * SECOND, |_, _, is_initiation| !is_initiation);
    assert!(!ends.0.has_session() && !ends.1.has_session());
    // A waiting session.
    for (now_us, is_there) in [(10 * SECOND - 1, true), (10 * SECOND, false)] {
        let (mut first, mut second) = both();
        let response = only(second.receive(&only(first.on_time(0)), home(1), 0));
        first.receive(&response, home(2), 0);
        second.on_time(now_us);
        second.receive(&first.frame(0), home(1), now_us);
        assert_eq!((second.has_session(), second.frames.len()), (is_there, usize::from(is_there)));
        let heard = rounded(1000 * 1_000_000_000);
        assert_eq!(second.session.report_secure(0).heard, if is_there { heard } else { Timestamp::default() });
    }
    // Replaced sessions.
    let opens = |second: &mut End, frame: &[u8], now_us| {
        second.on_time(now_us);
        second.receive(frame, home(1), now_us);
        second.frames.len() == 1
    };
    let (first, mut second) = established(1, 2);
    let frames: Vec<_> = (0..4).map(|byte| first.frame(byte)).collect();
    let mut first = Kind { secure: first.session.report_secure(0), ..Kind::new(1, 2, &[fixed()]) }.end();
    exchange([&mut first, &mut second], SECOND);
    assert!(opens(&mut second, &frames[0], 11 * SECOND - 1));
    assert!(opens(&mut second, &frames[1], 21 * SECOND - 2));
    assert!(!opens(&mut second, &frames[2], 31 * SECOND - 2));
}

/// "Two that are going": "of three that are going the oldest ends."
#[test]
fn oldest_of_three_sessions_ends() {
    let (mut first, mut second) = established(1, 2);
    let mut frames = Vec::new();
    for generation in 1..=3 {
        frames.push(first.frame(0));
        first = Kind { secure: first.session.report_secure(0), ..Kind::new(1, 2, &[fixed()]) }.end();
        exchange([&mut first, &mut second], generation);
    }
    frames.push(first.frame(0));
    let opened = frames.iter().map(|frame| {
        second.receive(frame, home(1), 4);
        second.frames.len()
    });
    assert_eq!(opened.collect::<Vec<_>>(), [0, 1, 1, 1]);
}

/// Times of pings in milliseconds, with the path. One datagram is opened at `heard_us`, if given.
fn pings(heard_us: Option<u64>) -> Vec<(u64, usize)> {
    let mut first = Kind::new(1, 2, &[fixed(), fixed()]).end();
    let mut second = Kind::new(2, 1, &[LEARNED]).end();
    let initiations = first.on_time(0);
    let response = only(second.receive(&initiations[0].1, home(1), 0));
    first.receive(&response, home(2), 0);
    second.receive(&first.frame(0), home(1), 0);
    let frame = second.frame(0);
    let (mut all, mut now_us) = (Vec::new(), 0);
    while now_us < 4_500_000 {
        if heard_us == Some(now_us) {
            assert!(first.receive(&frame, home(2), now_us).is_empty() && first.frames.len() == 1);
        }
        first.session.on_time(now_us, &first.counters, &mut first.outbox);
        for Departure { path, datagrams: numbers, .. } in first.outbox.departures() {
            assert_eq!(first.outbox.batch().frame(numbers.start).len(), HEADER + PINGED + TAG);
            all.extend(numbers.map(|_| (now_us / 1000, path)));
        }
        first.outbox.clear();
        let due_us = first.session.due_us();
        now_us = heard_us.filter(|&heard_us| heard_us > now_us).map_or(due_us, |heard_us| due_us.min(heard_us));
    }
    all
}

/// "At once and after 100, 200, 400, 800, 1600, 3200 and 3200 ms more, until something has been opened by this session"; "each 200 ms
/// on a path that has not answered yet"; and then "once in each ping interval".
#[test]
fn unconfirmed_session_pings_faster() {
    let by_both = |times: &[u64]| times.iter().flat_map(|&time| [(time, 0), (time, 1)]).collect::<Vec<_>>();
    let new = [0, 100, 300, 500, 700, 900, 1100, 1300, 1500, 1700, 1900, 2100];
    assert_eq!(pings(None), by_both(&[&new[..], &[3000, 3100, 4000]].concat()));
    assert_eq!(pings(Some(200_000)), by_both(&[&new[..], &[3000, 4000]].concat()));
}

/// A path that drops long datagrams silently before the session, and from some time on. Both ends answer at once.
#[test]
fn datagram_length_follows_path() {
    let paths = [PathSettings { least: 1252, most: 1472, runs: false }];
    let mut first = Kind { paths: &paths, ..Kind::new(1, 2, &[fixed()]) }.end();
    let mut second = Kind { paths: &paths, ..Kind::new(2, 1, &[LEARNED]) }.end();
    let length = |end: &End| end.session.route().now().1.datagram;
    let carries = |limit: usize| move |_: usize, _: u64, datagram: &[u8]| datagram.len() <= limit;
    let reduced = |end: &End| end.session.route().now().1.reduced;
    run([&mut first, &mut second], 0, SECOND / 2, carries(1472));
    assert_eq!([&first, &second].map(length), [1472; 2]);
    assert_eq!([&first, &second].map(reduced), [false; 2]);
    // Data of one end make it confirm the length twice a second.
    let busy = |end: &End| end.counters.paths[0].tx_bytes.add(100_000);
    for until in 1..=8 {
        busy(&first);
        run([&mut first, &mut second], until * SECOND / 2, (until + 1) * SECOND / 2, carries(1300));
    }
    let found = length(&first);
    assert!((1296..=1300).contains(&found) && reduced(&first), "{found}");
    // An idle end notices within a minute.
    assert_eq!(length(&second), 1472);
    run([&mut first, &mut second], 5 * SECOND, 70 * SECOND, carries(1300));
    assert!((1296..=1300).contains(&length(&second)));
    // A larger size is tried every ten minutes.
    run([&mut first, &mut second], 70 * SECOND, 680 * SECOND, carries(1472));
    assert_eq!([&first, &second].map(length), [1472; 2]);
    assert_eq!(first.session.report_secure(0).counts.dropped_content, 0);
    assert_eq!(first.session.report(0).paths[0].carries.loses, Some(false));
}

#[test]
fn fixed_length_is_kept_and_reported() {
    let mut ends = established(1, 2);
    let loses = |end: &mut End| end.session.report(0).paths[0].carries.loses;
    let until = 75 * SECOND;
    run([&mut ends.0, &mut ends.1], 1, until, |from, _, datagram| datagram.len() < 1400 || from == 1);
    assert_eq!([&mut ends.0, &mut ends.1].map(loses), [Some(true), Some(false)]);
    assert_eq!(ends.0.session.route().now().1.datagram, 1472);
    run([&mut ends.0, &mut ends.1], until, 2 * until, |_, _, _| true);
    assert_eq!([&mut ends.0, &mut ends.1].map(loses), [Some(false); 2]);
}

/// Runs of two and of eight: the outbox marks them, and no other datagram of a session joins a run.
#[test]
fn lost_runs_end_runs() {
    let paths = [PathSettings { least: 1252, most: 1472, runs: true }];
    let mut first = Kind { paths: &paths, ..Kind::new(1, 2, &[fixed()]) }.end();
    let mut second = Kind { paths: &paths, ..Kind::new(2, 1, &[LEARNED]) }.end();
    let runs = |end: &End| end.session.route().now().1.runs;
    // Equal datagrams in a row are lost. Single probes of the longest length follow a small one.
    let mut before = [0; 2];
    let drops_runs = |from: usize, _: u64, datagram: &[u8]| {
        let before = std::mem::replace(&mut before[from], datagram.len());
        from == 1 || datagram.len() != 1468 && (datagram.len() != 1472 || before == 44)
    };
    run([&mut first, &mut second], 0, 3 * SECOND, drops_runs);
    assert_eq!([&first, &second].map(runs), [false, true]);
    let report = first.session.report(0).paths[0].carries;
    assert_eq!((report.datagram, report.runs, report.loses), (1472, Some(false), None));
    run([&mut first, &mut second], 3 * SECOND, 610 * SECOND, |_, _, _| true);
    assert_eq!([&first, &second].map(runs), [true; 2]);
}
