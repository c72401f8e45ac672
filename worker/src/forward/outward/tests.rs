//! Tests of the outward loop: routes, waiting for room, and superframes.

use std::time::{Duration, Instant};

use privsep::ipc::Rules;

use super::*;
use crate::forward::rig::{Rig, both, fill, frame, header, local, segment, waiting};
use crate::wire::Route;
use crate::wire::secure;
use crate::wire::secure::crypt::tests::{CIPHERS, pair};
use crate::wire::spread::Spread;

const WAIT: Duration = Duration::from_micros(QUEUE_WAIT_US);

/// Requests a pass, as the main thread does.
fn ask(outward: &Outward) {
    outward.shared.asked.store(true, Relaxed);
    outward.shared.outward.wake();
}

/// Whether the main thread was woken since the last check.
fn main_woken(outward: &Outward) -> bool {
    let waker = &outward.shared.main;
    let [found] = wait([(waker.as_fd(), PollFlags::POLLIN)], Some(Duration::ZERO));
    waker.clear();
    !found.is_empty()
}

#[test]
fn frames_follow_latest_route() {
    let Rig { port, paths, mut outward, .. } = Rig::plain(2);
    let first = outward.sealer.route().clone();
    let second = Route { active: 1, ..first.clone() };
    for (told, path) in [(None, 0), (Some(&second), 1), (None, 1), (Some(&first), 0)] {
        if let Some(route) = told {
            outward.shared.route.set(route);
        }
        port.send(&local(1)).unwrap();
        outward.turn();
        assert_eq!([waiting(&paths[path]), waiting(&paths[1 - path])], [vec![frame(1)], vec![]]);
    }
    let counters = &outward.shared.counters;
    assert_eq!((counters.port.rx_frames.get(), counters.port.rx_bytes.get()), (4, 4 * 61));
    assert_eq!(counters.paths[1].tx_datagrams.get(), 2);
}

#[test]
fn frames_wait_for_route_that_begins_later() {
    let Rig { port, paths, mut outward, .. } = Rig::plain(2);
    let clock = outward.shared.clock;
    let from_us = clock.now_us() + 30_000;
    outward.shared.route.set(&Route { active: 1, from_us, ..outward.sealer.route().clone() });
    port.send(&local(1)).unwrap();
    ask(&outward);
    outward.turn();
    assert!(clock.now_us() >= from_us && main_woken(&outward), "reports do not wait");
    assert_eq!([waiting(&paths[1]), waiting(&paths[0])], [vec![frame(1)], vec![]]);
    // A later route ends the pause.
    let first = outward.sealer.route().clone();
    outward.shared.route.set(&Route { active: 1, from_us: u64::MAX, ..first.clone() });
    let shared = Arc::clone(&outward.shared);
    let later = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        shared.route.set(&Route { active: 0, from_us: 0, ..first });
        shared.outward.wake();
    });
    port.send(&local(2)).unwrap();
    outward.turn();
    later.join().unwrap();
    assert_eq!(waiting(&paths[0]), [frame(2)]);
}

#[test]
fn announcement_leaves_once() {
    let Rig { paths, outward, .. } = Rig::plain(1);
    let (bare, (sending, _)) = (outward.sealer.route().clone(), pair(CIPHERS[0]));
    let Outward { shared, source, .. } = outward;
    let sealer = Sealer::Secure(secure::Sealer::new(bare.clone()));
    let mut outward = Outward::new(Arc::clone(&shared), source, sealer, vec![vec![1; 60], vec![2; 600]], None);
    let turn = |outward: &mut Outward| {
        ask(outward);
        outward.turn();
        waiting(&paths[0]).len()
    };
    assert_eq!(turn(&mut outward), 0);
    shared.route.set(&Route { sending: Some(Arc::new(sending)), ..bare });
    assert_eq!((turn(&mut outward), turn(&mut outward)), (2, 0));
}

#[test]
fn old_keys_are_dropped_when_idle() {
    let Rig { outward, .. } = Rig::plain(1);
    let (sending, _) = pair(CIPHERS[0]);
    let bare = outward.sealer.route().clone();
    let route = Route { sending: Some(Arc::new(sending)), ..bare.clone() };
    let sending = Arc::downgrade(route.sending.as_ref().unwrap());
    let Outward { shared, source, .. } = outward;
    shared.route.set(&route);
    let mut outward = Outward::new(shared, source, Sealer::Secure(secure::Sealer::new(bare.clone())), Vec::new(), None);
    drop(route);
    // Each turn sleeps until it is woken.
    outward.shared.outward.wake();
    outward.turn();
    assert!(sending.strong_count() > 1, "the sealer keeps it as well");
    outward.shared.route.set(&bare);
    outward.shared.outward.wake();
    outward.turn();
    assert_eq!(sending.strong_count(), 0);
}

#[test]
fn messages_are_filled_across_superframes() {
    let Rig { port, paths, mut outward, .. } = Rig::plain(1);
    let superframe = |number: usize| header(1, 50).chain(segment(number * 2000, 2000)).collect::<Vec<_>>();
    for number in 0..4 {
        port.send(&superframe(number)).unwrap();
    }
    outward.turn();
    // Datagrams of 160 frames: a Unix socket does not segment messages as UDP does.
    assert_eq!(waiting(&paths[0]).iter().map(Vec::len).collect::<Vec<_>>(), [64, 64, 32].map(|count| count * 104));
}

#[test]
fn receive_only_port_is_drained() {
    let Rig { port, paths, mut outward, .. } = Rig::new(1, Rules { send: false, ..both() }, false, None);
    port.send(&local(1)).unwrap();
    outward.turn();
    assert_eq!((outward.shared.counters.port.rx_frames.get(), waiting(&paths[0])), (0, vec![]));
    ask(&outward);
    outward.turn();
    assert!(main_woken(&outward), "did not sleep: the frame still waits");
}

#[test]
fn sleeping_loop_answers_pass_request() {
    let Rig { mut outward, .. } = Rig::plain(1);
    ask(&outward);
    outward.turn();
    assert_eq!((outward.shared.passes.load(Relaxed), main_woken(&outward)), (2, true));
    // A wakeup without a request does not wake the main thread.
    outward.shared.outward.wake();
    outward.turn();
    assert_eq!((outward.shared.passes.load(Relaxed), main_woken(&outward)), (4, false));
}

/// Superframe of TCP over IPv4 from the port, with this many packets of one byte each.
fn superframe(packets: u16) -> Vec<u8> {
    let header = [1 | 1 << 8, 54, 1, 34, 16].into_iter().flat_map(u16::to_ne_bytes);
    let mut frame: Vec<u8> = header.chain(vec![7; 54 + usize::from(packets)]).collect();
    frame[22..44].copy_from_slice(&[8, 0, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    frame[26..28].copy_from_slice(&(40 + packets).to_be_bytes());
    frame[56..58].copy_from_slice(&[0x50, 0x10]);
    frame
}

#[test]
fn large_superframe_does_not_delay_passes() {
    let Rig { port, paths, mut outward, .. } = Rig::plain(2);
    port.send(&superframe(520)).unwrap();
    outward.shared.asked.store(true, Relaxed);
    outward.turn();
    assert_eq!(outward.shared.counters.port.rx_frames.get(), 520);
    let (passes, woken) = (outward.shared.passes.load(Relaxed), main_woken(&outward));
    // One pass a turn, and one before each of three parts.
    assert!(520 > 2 * PACKETS && passes >= 4 && woken, "{passes} {woken}");
    port.send(&superframe(520)).unwrap();
    outward.source.receive(&outward.shared.counters.port, &mut outward.batch);
    outward.shared.route.set(&Route { active: 1, ..outward.sealer.route().clone() });
    waiting(&paths[0]);
    outward.send_cut(|_| {});
    // Each message has up to 64 datagrams, which a Unix socket does not segment.
    assert_eq!([waiting(&paths[0]).len(), waiting(&paths[1]).len()], [0, 9]);
}

#[test]
fn secure_wire_keeps_partial_checksums() {
    let Rig { paths, outward, .. } = Rig::plain(1);
    let (sending, mut opening) = pair(CIPHERS[0]);
    let route = Route { sending: Some(Arc::new(sending)), ..outward.sealer.route().clone() };
    let sealer = Sealer::Secure(secure::Sealer::new(route.clone()));
    assert!(leaves_partial(&outward.shared, &sealer) && !leaves_partial(&outward.shared, &outward.sealer));
    outward.shared.route.set(&route);
    let (ours, port) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let source = Source::new(privsep::ipc::PortKind::Raw, Arc::new(ours.into()), true);
    let mut outward = Outward::new(Arc::clone(&outward.shared), source, sealer, Vec::new(), None);
    // Ten segments of one byte, each small enough for a bundle.
    port.send(&superframe(10)).unwrap();
    outward.turn();
    let message = waiting(&paths[0]).concat();
    assert_eq!(message.len(), 10 * (36 + 55));
    for (datagram, number) in message.chunks(36 + 55).zip(0..) {
        let mut datagram = datagram.to_vec();
        let content = opening.open(0, &mut datagram, 36 + 55).unwrap();
        let content = &datagram[content];
        assert_eq!(content[..4], [0, 16, 0, 34]);
        assert_eq!(content[42..46], (u32::from_be_bytes([7; 4]) + number).to_be_bytes()[..], "sequence");
        // Value of the field, minus the length of the whole, plus the length of one segment.
        assert_eq!(content[54..56], (0x0707_u16 - 30 + 21).to_be_bytes(), "the pseudo header's sum");
    }
    // A single packet stays unchanged, except for SCTP: its checksum is never partial.
    for (offset, left) in [(16, true), (8, false)] {
        let mut packet = superframe(100);
        packet[1] = 0;
        packet[8..10].copy_from_slice(&u16::to_ne_bytes(offset));
        port.send(&packet).unwrap();
        outward.turn();
        let mut datagram = waiting(&paths[0]).concat();
        let length = datagram.len();
        let content = opening.open(0, &mut datagram, length).unwrap();
        assert_eq!(datagram[content.clone()][..4] == [0, 16, 0, 34], left);
        assert_eq!(datagram[content][4..] == packet[10..], left);
    }
}

#[test]
fn failing_port_rests() {
    let Rig { mut outward, .. } = Rig::new(1, both(), true, None);
    let errors = |outward: &Outward| outward.shared.counters.port.rx_errors.get();
    let start = Instant::now();
    outward.turn();
    assert_eq!((errors(&outward), main_woken(&outward)), (1, false));
    // One sleep covers the whole rest.
    outward.turn();
    assert!(start.elapsed() >= Duration::from_micros(REST_US), "{:?}", start.elapsed());
    assert_eq!(errors(&outward), 1);
    outward.turn();
    assert_eq!(errors(&outward), 2);
    // A request meanwhile is answered and does not end the rest.
    ask(&outward);
    outward.turn();
    assert_eq!((errors(&outward), main_woken(&outward), outward.rests_until_us > 0), (2, true, true));
}

#[test]
fn full_path_drops_after_wait() {
    let Rig { port, paths, mut outward, .. } = Rig::plain(1);
    let before = fill(outward.shared.sockets[0].as_fd());
    port.send(&local(1)).unwrap();
    port.send(&local(2)).unwrap();
    // Passes on request while it waits.
    ask(&outward);
    let start = Instant::now();
    outward.turn();
    assert!(start.elapsed() >= WAIT, "{:?}", start.elapsed());
    assert_eq!((outward.shared.passes.load(Relaxed), main_woken(&outward)), (2, true));
    let counters = &outward.shared.counters.paths[0];
    assert_eq!((counters.tx_datagrams.get(), counters.tx_errors.get()), (0, 2));
    assert_eq!(waiting(&paths[0]).len(), before);
}

#[test]
fn freed_path_gets_rest_in_order() {
    let Rig { port, paths, mut outward, .. } = Rig::plain(1);
    let before = fill(outward.shared.sockets[0].as_fd());
    for byte in 1..=3 {
        port.send(&local(byte)).unwrap();
    }
    let received = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            // It most likely waits by now. Otherwise the test has nothing to check.
            std::thread::sleep(WAIT / 10);
            let mut all = Vec::new();
            let start = Instant::now();
            while all.len() < before + 3 && start.elapsed() < 20 * WAIT {
                all.extend(waiting(&paths[0]));
            }
            all.split_off(before)
        });
        outward.turn();
        assert_eq!(outward.shared.counters.paths[0].tx_datagrams.get(), 3);
        reader.join().unwrap()
    });
    assert_eq!(received, [frame(1), frame(2), frame(3)]);
}

#[test]
fn unused_path_is_not_waited_for() {
    let took = || {
        let Rig { port, paths, mut outward, .. } = Rig::plain(2);
        let before = fill(outward.shared.sockets[0].as_fd());
        port.send(&local(1)).unwrap();
        outward.source.receive(&outward.shared.counters.port, &mut outward.batch);
        let route = Route { active: 1, ..outward.sealer.route().clone() };
        outward.shared.route.set(&route);
        let start = Instant::now();
        outward.send();
        let took = start.elapsed();
        assert_eq!((outward.shared.counters.paths[0].tx_errors.get(), waiting(&paths[0]).len()), (1, before));
        took
    };
    // Three tries, for a busy machine.
    assert!((0..3).any(|_| took() < WAIT / 2));
}

#[test]
fn full_path_delays_no_other() {
    let took = || {
        let Rig { paths, outward, .. } = Rig::plain(2);
        let before = fill(outward.shared.sockets[0].as_fd());
        let (sending, _) = pair(CIPHERS[0]);
        let (spread, sending) = (Spread::Copies(1), Some(Arc::new(sending)));
        let route = Route { spread, sending, ..outward.sealer.route().clone() };
        let Outward { shared, mut outlet, mut batch, .. } = outward;
        let mut sealer = Sealer::Secure(secure::Sealer::new(route));
        batch.clear();
        batch.pack_copy(&[&frame(1)]);
        let start = Instant::now();
        seal_and_send(&shared, &mut sealer, &mut outlet, &mut batch, 0);
        let took = start.elapsed();
        assert_eq!((waiting(&paths[0]).len(), waiting(&paths[1]).len()), (before, 1));
        assert_eq!((shared.counters.paths[0].tx_errors.get(), shared.counters.paths[1].tx_errors.get()), (1, 0));
        took
    };
    // Three tries, for a busy machine.
    assert!((0..3).any(|_| took() < WAIT / 2));
}

#[test]
fn stale_backlog_is_dropped_and_counted() {
    let Rig { port, paths, mut outward, .. } = Rig::plain(1);
    port.send(&local(1)).unwrap();
    port.send(&local(2)).unwrap();
    outward.drain();
    let counters = &outward.shared.counters.port;
    assert_eq!((counters.rx_dropped_stale.get(), counters.rx_frames.get()), (2, 0));
    ask(&outward);
    outward.turn();
    assert!(main_woken(&outward) && waiting(&paths[0]).is_empty());
}
