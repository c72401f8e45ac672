//! Probes of a session with two paths: a path whose way back is cut, and one that returns.

use super::*;

const SEARCHED: PathSettings = PathSettings { least: 1252, most: 1472, runs: true };

/// Two ends that are joined by two paths: home(1) and home(2), home(3) and home(4).
fn joined() -> [End; 2] {
    let remotes = |peer: u8| [peer, peer + 2].map(|host| Remote::Fixed(Address(home(host))));
    let end = |ours, theirs| Kind { paths: &[SEARCHED; 2], ..Kind::new(ours, theirs, &remotes(theirs)) }.end();
    [end(1, 2), end(2, 1)]
}

/// Runs the ends. The first one sends a datagram of a kilobyte by the first path each tenth of a second. Datagrams for which `passes`
/// returns false are lost; its arguments are the sender, the path and the length.
fn run(ends: &mut [End; 2], from_us: u64, until_us: u64, passes: impl Fn(usize, usize, usize) -> bool) {
    let (mut now_us, mut frame_us) = (from_us, from_us);
    while now_us <= until_us {
        if now_us >= frame_us {
            ends[0].counters.paths[0].tx_bytes.add(1000);
            frame_us += SECOND / 10;
        }
        let mut under_way = VecDeque::new();
        for (which, end) in ends.iter_mut().enumerate() {
            under_way.extend(end.on_time(now_us).into_iter().map(|sent| (which, sent)));
        }
        while let Some((from, (target, datagram))) = under_way.pop_front() {
            let path = usize::from([3, 4].map(home).contains(&target.address().unwrap()));
            if passes(from, path, datagram.len()) {
                let answers = ends[1 - from].receive_by(path, &datagram, home(0), now_us);
                under_way.extend(answers.into_iter().map(|sent| (1 - from, sent)));
            }
        }
        now_us = now_us.max(ends[0].session.due_us().min(ends[1].session.due_us()).min(frame_us));
    }
}

fn size(end: &End) -> usize {
    end.session.route().egress[0].datagram
}

#[test]
fn probes_are_answered_by_other_path() {
    let mut ends = joined();
    run(&mut ends, 0, 5 * SECOND, |_, _, _| true);
    assert_eq!(size(&ends[0]), 1472);
    let one_way = |most| move |from: usize, path: usize, length: usize| path == 1 || from == 0 && length <= most;
    run(&mut ends, 5 * SECOND, 15 * SECOND, one_way(1300));
    assert_eq!((size(&ends[0]), ends[0].session.route().active), (1300, 0));
    // From the start.
    let mut ends = joined();
    run(&mut ends, 0, 10 * SECOND, one_way(1400));
    assert_eq!((size(&ends[0]), ends[0].session.route().active), (1400, 0));
}

#[test]
fn returning_path_is_searched_at_once() {
    let mut ends = joined();
    run(&mut ends, 0, 5 * SECOND, |_, path, length| path == 1 || length <= 1300);
    assert_eq!(size(&ends[0]), 1300);
    run(&mut ends, 5 * SECOND, 25 * SECOND, |_, path, _| path == 1);
    assert_eq!((size(&ends[0]), ends[0].session.route().active), (1300, 1));
    // Pings reach a dead path within a second.
    run(&mut ends, 25 * SECOND, 27 * SECOND, |_, _, _| true);
    assert_eq!(size(&ends[0]), 1472);
}
