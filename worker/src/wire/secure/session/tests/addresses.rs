//! Location of the peer, and messages to other addresses.

use privsep::ipc::PathHealth;

use super::*;

/// "Where the file limits the addresses that are learned, a datagram from another one is dropped and counted."
#[test]
fn excluded_source_is_ignored() {
    let elsewhere = SocketAddr::from(([192, 0, 2, 1], 6001));
    for (address, port, other) in [(Some(home(1).ip()), None, home(9)), (None, Some(6000), elsewhere)] {
        let mut first = end(1, 2, 0, false, SecureState::default(), 1000);
        let mut second = Kind::new(2, 1, &[Remote::Learned { address, before: None, port }]).end();
        let mut foreign = 0;
        let mut refuses = |second: &mut End, datagram: &[u8]| {
            let before = (second.session.report_secure(0), second.has_session());
            assert!(second.receive(datagram, other, 5).is_empty() && second.frames.is_empty(), "{datagram:02x?}");
            assert_eq!((second.session.report_secure(0), second.has_session()), before);
            foreign += 1;
            assert_eq!(second.counters.paths[0].rx_dropped_foreign.get(), foreign);
        };
        let initiation = only(first.on_time(0));
        refuses(&mut second, &initiation);
        let response = only(second.receive(&initiation, home(1), 0));
        first.receive(&response, home(2), 1);
        // It neither confirms a waiting session, nor is its frame delivered by the current one.
        let frame = first.frame(1);
        refuses(&mut second, &frame);
        second.receive(&frame, home(1), 6);
        assert!(second.has_session() && second.frames == [[1; FRAME]]);
        let frame = first.frame(2);
        refuses(&mut second, &frame);
        second.receive(&frame, home(1), 7);
        assert_eq!(second.frames, [[2; FRAME]]);
        for nothing in [&[][..], &[9; 100], &[5; 20]] {
            refuses(&mut second, nothing);
        }
    }
}

/// "A datagram of queue 0 that is opened, by any session, from an address other than the path's known one is answered by a ping to
/// that address, at most ten times a second for each path."
#[test]
fn new_address_pings_are_rate_limited() {
    let learned = [LEARNED; 2];
    let (mut first, mut second) = (both().0, Kind::new(2, 1, &learned).end());
    let response = only(second.receive(&only(first.on_time(0)), home(1), 0));
    first.receive(&response, home(2), 0);
    let is_ping = |sent: Vec<(Target, Vec<u8>)>, to| match &sent[..] {
        [] => false,
        [(target, ping)] => *target == at(to) && ping.len() == HEADER + PINGED + TAG,
        more => panic!("{more:02x?}"),
    };
    // A frame confirms the session.
    assert!(is_ping(second.receive(&first.frame(0), home(8), 0), home(8)));
    exchange([&mut first, &mut second], 10);
    assert_eq!(
        second.session.route().egress.iter().map(|egress| egress.target).collect::<Vec<_>>(),
        [at(home(1)), Target::Unknown]
    );
    let mut frames: Vec<_> = (0..100).map(|byte| first.frame(byte)).collect();
    // The newest first, so that all others are older; and none from the peer's address.
    let mut take = |second: &mut End, path, from, now_us| {
        let sent = second.receive_by(path, &frames.pop().unwrap(), from, now_us);
        assert_eq!(second.frames.len(), 1);
        is_ping(sent, from)
    };
    assert!(!take(&mut second, 0, home(1), 2_000_000));
    for path in [0, 1] {
        let asked = (0..14).filter(|from| take(&mut second, path, home(9 + from), 2_000_000)).count();
        assert_eq!(asked, 10, "path {path}");
        assert!(!take(&mut second, path, home(9), 2_999_999));
    }
    assert!(take(&mut second, 0, home(9), 3_000_000) && take(&mut second, 1, home(9), 3_000_000));
    // The same in a replaced session.
    let mut first = end(1, 2, 0, false, first.session.report_secure(0), 1000);
    exchange([&mut first, &mut second], 4_000_000);
    assert_eq!((second.session.report_secure(0).counts.rekeys, second.session.slots.going.len()), (1, 1));
    assert!(take(&mut second, 0, home(9), 5_000_000) && !take(&mut second, 0, home(1), 5_000_000));
    assert_eq!(second.session.route().now().1.target, at(home(1)), "without a pong");
}

/// "Where it comes from the known address of the peer, the pong also leaves by every other path with a known address." The socket of
/// a wildcard address also reports the local address, which the known place of a fixed peer lacks.
#[test]
fn pong_leaves_by_other_paths() {
    let (mut first, mut second) = (Kind::new(1, 2, &[fixed(); 2]).end(), Kind::new(2, 1, &[LEARNED; 2]).end());
    exchange([&mut first, &mut second], 0);
    let local = Some([198, 51, 100, 1].into());
    for (source, copies) in [(home(2), 1), (home(9), 0)] {
        // Long after the last pong.
        let mut ping = [0; HEADER + PINGED + TAG];
        let content = content::ping([9; 8], content::DatagramCounts { opened: 0, sent: 0 }, true);
        ping[HEADER..HEADER + PINGED].copy_from_slice(&content);
        second.session.route().sending.as_ref().unwrap().seal(0, &mut ping).unwrap();
        let source = Endpoint { remote: source, local };
        let sent = first.receive_from(0, &ping, Some(source), 30_000_000);
        let elsewhere = |to: &Target| *to == Target::Fixed(home(2).into());
        assert_eq!(sent.iter().filter(|(to, _)| elsewhere(to)).count(), copies, "{source:?}: {sent:02x?}");
        assert!(sent.iter().any(|(to, _)| !elsewhere(to)), "{source:?}");
    }
}

/// Datagrams of strangers do not displace the outstanding pings to the peer.
#[test]
fn pong_counts_despite_new_addresses() {
    let learned = [LEARNED; privsep::ipc::MAX_PATHS];
    let (mut first, mut second) = (both().0, Kind::new(2, 1, &learned).end());
    exchange([&mut first, &mut second], 0);
    let ping = only(second.on_time(1_000_000));
    for (second_us, path) in (0..5).flat_map(|time| (0..learned.len()).map(move |path| (1_000_000 * time, path))) {
        for number in 0..10 {
            let sent = second.receive_by(path, &first.frame(0), home(100 + number), second_us + 1_000_001);
            assert_eq!(sent.len(), 1);
        }
    }
    let before = second.counters.paths[0].pongs_received.get();
    let pong = only(first.receive(&ping, home(2), 5_900_000));
    second.receive(&pong, home(1), 5_999_999);
    assert_eq!(second.counters.paths[0].pongs_received.get(), before + 1);
}

/// A peer that sends much, behind a NAT that moves twice a second.
#[test]
fn moving_peer_is_followed_under_load() {
    let (mut first, mut second) = both();
    exchange([&mut first, &mut second], 0);
    for number in 0..8 {
        let (from, start_us) = (home(20 + number), SECOND + u64::from(number) * SECOND / 2);
        let received = (0..100).flat_map(|time| second.receive(&first.frame(0), from, start_us + time * MILLISECOND));
        for (_, ping) in received.collect::<Vec<_>>() {
            for (_, pong) in first.receive(&ping, home(2), start_us + 120 * MILLISECOND) {
                second.receive(&pong, from, start_us + 150 * MILLISECOND);
            }
        }
        assert_eq!(second.session.route().now().1.target, at(from));
    }
}

/// "An answer from another address of the peer than the present one does not speak for the path."
#[test]
fn late_pong_does_not_feign_a_path() {
    let named = Remote::Named { now: Some(Address(home(2))), before: None };
    let (mut first, mut second) = (Kind::new(1, 2, &[named]).end(), both().1);
    let state =
        |end: &End| (end.session.paths.all[0].estimate.health(), end.session.route().egress[0].target.address());
    run([&mut first, &mut second], 0, 2_000_000, |_, _, _| true);
    assert_eq!(state(&first), (PathHealth::Up, Some(home(2))));
    let mut late = Vec::new();
    run([&mut first, &mut second], 2_000_001, 5_000_000, |from, _, datagram| {
        late.extend((from == 0 && datagram.len() == HEADER + PINGED + TAG).then(|| datagram.to_vec()));
        false
    });
    assert_eq!(state(&first), (PathHealth::Down, Some(home(2))));
    // The next address is tried. A ping to the earlier one is answered late.
    first.session.tell(0, home(9), 5_000_001, &first.counters, &mut first.outbox);
    assert!(first.sent().iter().all(|(target, _)| target.address() == Some(home(9))));
    let pong = only(second.receive(late.last().unwrap(), home(1), 5_000_002));
    let ping = first.receive(&pong, home(2), 5_000_003);
    first.on_time(5_000_004);
    assert_eq!(state(&first), (PathHealth::Down, Some(home(9))));
    // The late pong causes a ping there. Frames follow a peer that answers there now.
    assert_eq!(ping[0].0.address(), Some(home(2)));
    let pong = only(second.receive(&only(ping), home(1), 5_000_006));
    first.receive(&pong, home(2), 5_000_007);
    first.on_time(5_000_008);
    assert_eq!(state(&first), (PathHealth::Up, Some(home(2))));
}
