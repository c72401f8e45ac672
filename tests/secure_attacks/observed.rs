//! Knowledge of an attacker who only listens.

use std::collections::HashMap;
use std::thread::sleep;
use std::time::Duration;

use ethudp_worker::wire::secure::message::{DATA, INITIATION, RESPONSE};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::forged::ends_keys;
use super::{A, B, LIMIT, Middle, Seen, next, pass};
use crate::lab::{frame, wait_for};

/// Length of a datagram with a ping or a pong.
const CONTROL: usize = 52;

/// Lengths of what A has sent besides pings and pongs.
fn lengths(seen: &[Seen]) -> Vec<usize> {
    let data = seen.iter().filter(|seen| seen.is(A, DATA)).map(|seen| seen.bytes.len());
    data.filter(|&length| length != CONTROL).collect()
}

/// Stops all threads of a process: one that runs does so until the signal comes to it.
fn stop(process: Pid) {
    kill(process, Signal::SIGSTOP).unwrap();
    wait_for("stopped", LIMIT, || {
        let mut threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
        threads
            .all(|thread| {
                let status = std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
                status.lines().any(|line| line.starts_with("State:\tT"))
            })
            .then_some(())
    });
}

#[test]
fn observer_sees_only_lengths() {
    let middle = Middle::new();
    let (a, _b) = middle.both();
    let (sender, mut wire) = (middle.wire(A), middle.wire(B));
    // The longest is that of an inner MTU of 1422.
    for length in [18, 60, 61, 64, 100, 512, 513, 1000, 1435, 1436] {
        middle.set(pass());
        sender.send(&frame(1, length));
        assert_eq!(next(&mut wire), Some(frame(1, length)));
        assert_eq!(lengths(&middle.set(pass())), [length + 36]);
    }
    // Frames that wait already share a datagram, if they are small.
    for bundled in [&[60, 61, 62][..], &[512, 60], &[60, 60, 60, 60, 60, 60, 60, 60]] {
        let worker = a.pid("worker");
        middle.set(pass());
        stop(worker);
        for &length in bundled {
            sender.send(&frame(2, length));
        }
        kill(worker, Signal::SIGCONT).unwrap();
        for &length in bundled {
            assert_eq!(next(&mut wire), Some(frame(2, length)));
        }
        let sum: usize = bundled.iter().map(|length| length + 6).sum();
        assert_eq!(lengths(&middle.set(pass())), [36 + sum], "{bundled:?}");
    }
}

#[test]
fn observer_sees_no_content() {
    let middle = Middle::new();
    let (a, b) = middle.both();
    let mut wires = [middle.wire(A), middle.wire(B)];
    let said = frame(7, 600);
    for _ in 0..20 {
        for which in [A, B] {
            wires[which].send(&said);
            assert_eq!(next(&mut wires[1 - which]), Some(said.clone()));
        }
    }
    // Pings say in each of them the same but for a token.
    wait_for("pings", LIMIT, || {
        sleep(Duration::from_millis(100));
        (middle.seen().iter().filter(|seen| seen.bytes.len() == CONTROL).count() >= 8).then_some(())
    });
    let seen = middle.seen();
    // No eight bytes of a frame, or of a key, stand anywhere; the middle of a frame is not zero.
    let secrets: Vec<&[u8]> = said.windows(8).collect();
    let keys = [A, B].map(ends_keys);
    let keys: Vec<&[u8]> = keys.iter().flat_map(|(private, public)| [&private[..8], &public[..8]]).collect();
    let mut places: HashMap<&[u8], usize> = HashMap::new();
    for seen in &seen {
        for window in seen.bytes.windows(8) {
            assert!(!keys.contains(&window), "a key is seen");
            assert!(!secrets.contains(&window), "a frame is seen");
        }
        // Sealed blocks: none comes twice.
        let sealed = match seen.bytes[0] {
            DATA => 16,
            INITIATION => 20,
            RESPONSE => 12,
            kind => panic!("a message {kind} of the short form"),
        };
        for block in seen.bytes[sealed..].chunks_exact(16) {
            *places.entry(block).or_default() += 1;
        }
    }
    // But an initiation that was sent again is the same.
    let initiations = seen.iter().filter(|seen| seen.bytes[0] == INITIATION).count();
    assert!(places.values().all(|&count| count <= initiations.max(1)), "a block comes twice");
    // What stands in the header of data: nothing but queue, index and counter, which is one more each time.
    for which in [A, B] {
        let mut counters = HashMap::<u8, Vec<u64>>::new();
        let mut indices = Vec::new();
        for seen in seen.iter().filter(|seen| seen.is(which, DATA)) {
            let (queue, index) = (seen.bytes[1], &seen.bytes[4..8]);
            assert!(queue < 4 && seen.bytes[2..4] == [0, 0]);
            let counter = u64::from_be_bytes(seen.bytes[8..16].try_into().unwrap());
            counters.entry(queue).or_default().push(counter);
            indices.push(index);
        }
        indices.dedup();
        assert_eq!(indices.len(), 1, "one session has one index");
        // Two threads send, so that datagrams overtake each other.
        for mut counters in counters.into_values() {
            counters.sort_unstable();
            assert!(counters.iter().copied().eq(0..counters.len() as u64), "{counters:?}");
        }
    }
    for end in [&a, &b] {
        assert_eq!((end.count("/session/handshakes"), end.count("/worker_restarts")), (1, 0));
    }
}
