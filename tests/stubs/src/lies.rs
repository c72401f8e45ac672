//! Attacks on the supervisor by what is said on the channel, or not said.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use privsep::ipc::{
    Address, Carries, ChangeReason, ClassicState, Confinement, FromWorker, LastChange, PathCounters, PathHealth,
    PathReport, PortCounters, Report, Reports, SealCounters, SecureState, State, ToWorker, WireState,
};

use crate::{Attack, Loot, Needs, sleep};

const OUT_OF_PLACE: &str = "message out of place";
const UNDECODABLE: &str = "channel: message cannot be decoded";
const TOO_LONG: &str = "channel: truncated message";
const DESCRIPTORS: &str = "channel: wrong number of descriptors for this kind of message";
const TOO_MANY: &str = "channel: too many messages";
/// What is allowed changes nothing: the stub ends by itself.
const HARMLESS: &str = "ended: exit status 66";

const fn lie(name: &'static str, expected: &'static str, run: fn(&Loot)) -> Attack {
    Attack { name, needs: Needs::Nothing, expected, run }
}

/// The table.
pub const LIES: &[Attack] = &[
    // Within the rules, and without end.
    Attack { name: "babble", needs: Needs::Endurance, expected: "", run: babble },
    // Messages out of place.
    // One has perhaps been asked for.
    lie("unasked-reports", OUT_OF_PLACE, |loot| (0..3).for_each(|_| report(loot, honest()))),
    lie("tick-twice", OUT_OF_PLACE, |loot| {
        (0..3).for_each(|_| report(loot, State { tick: loot.tick + 1, ..honest() }));
    }),
    // The first is its second tick; its fourth is not due yet.
    lie("tick-that-has-not-come", OUT_OF_PLACE, |loot| {
        for ticks in [2, 4] {
            report(loot, State { tick: loot.tick + ticks, ..honest() });
        }
    }),
    lie("report-twice", OUT_OF_PLACE, |loot| {
        answer_report(loot, &honest());
        report(loot, honest());
    }),
    lie("health-of-path-9", OUT_OF_PLACE, |loot| say(loot, &FromWorker::Health(9, PathHealth::Up))),
    lie("active-path-9", OUT_OF_PLACE, |loot| say(loot, &FromWorker::Active(9, None))),
    lie("learned-on-path-9", OUT_OF_PLACE, |loot| say(loot, &FromWorker::Learned(9, stranger()))),
    lie("confined-twice", OUT_OF_PLACE, |loot| say(loot, &FromWorker::Confined(Confinement::default()))),
    lie("finished-without-an-end", OUT_OF_PLACE, |loot| say(loot, &FromWorker::Finished)),
    lie("report-of-no-path", OUT_OF_PLACE, |loot| answer_report(loot, &State { paths: Vec::new(), ..honest() })),
    lie("report-of-many-paths", OUT_OF_PLACE, |loot| {
        answer_report(loot, &State { paths: vec![PathReport::default(); 20], ..honest() });
    }),
    lie("state-of-another-wire", OUT_OF_PLACE, |loot| {
        answer_report(loot, &State { wire: WireState::Secure(SecureState::default()), ..honest() });
    }),
    lie("report-of-a-path-alone", OUT_OF_PLACE, |loot| {
        loot.wait_for_report();
        say(loot, &FromWorker::Report(Report::Path(0, PathReport::default())));
    }),
    lie("report-that-begins-again", OUT_OF_PLACE, |loot| {
        loot.wait_for_report();
        for _ in 0..2 {
            say(loot, &FromWorker::Report(Report::Tunnel(State::default(), 1)));
        }
    }),
    lie("report-from-the-future", OUT_OF_PLACE, |loot| answer_report(loot, &State { tick: 1 << 31, ..honest() })),
    // No messages at all.
    lie("garbage", UNDECODABLE, |loot| packet(loot, &[0xff; 100], &[])),
    lie("a-vector-longer-than-its-packet", UNDECODABLE, |loot| packet(loot, &[6, 0xff, 0xff, 0xff, 0xff, 0x0f], &[])),
    lie("bytes-behind-a-message", "channel: bytes after the message", |loot| packet(loot, &[5, 0], &[])),
    lie("one-byte-too-long", TOO_LONG, |loot| packet(loot, &[0; 2049], &[])),
    lie("as-long-as-the-socket-takes", TOO_LONG, |loot| packet(loot, &[0; 100_000], &[])),
    lie("its-own-descriptor", DESCRIPTORS, |loot| packet(loot, &[3, 0, 0], &[loot.port.as_raw_fd()])),
    lie("very-many-descriptors", DESCRIPTORS, |loot| packet(loot, &[3, 0, 0], &[loot.port.as_raw_fd(); 253])),
    // Too many of them.
    lie("flood-of-health", TOO_MANY, |loot| flood(loot, &FromWorker::Health(0, PathHealth::Down))),
    lie("flood-of-last-words", "worker still runs after its fatal error", |loot| {
        flood(loot, &FromWorker::Dying("x".repeat(2000)));
    }),
    lie("flood-of-addresses", TOO_MANY, |loot| flood(loot, &FromWorker::Learned(0, stranger()))),
    // None: silent for longer than three seconds; deaf to the end of the channel.
    lie("silence", "did not report", |_| sleep(Duration::from_secs(10))),
    lie("end-of-the-channel", "channel: closed, but the worker still runs", |loot| {
        packet(loot, &[], &[]);
        sleep(Duration::from_secs(10));
    }),
    // As if it had never been executed.
    lie("an-innocent-end", "ended: exit status 127", |_| std::process::exit(127)),
    // What is within the rules does no harm.
    lie("numbers-beyond-all-measure", HARMLESS, |loot| answer_report(loot, &absurd())),
    lie("another-peer-on-a-fixed-path", HARMLESS, |loot| say(loot, &FromWorker::Learned(0, stranger()))),
    lie("words-without-receiver", HARMLESS, |loot| {
        // The helper has closed its end, or would never read it.
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        let words = [IoSlice::new(b"serve me once more")];
        while sendmsg::<()>(loot.helper.as_raw_fd(), &words, &[], flags, None).is_ok() {}
    }),
    lie("words-that-break-the-log", "first second [31mred", |loot| {
        say(loot, &FromWorker::Dying(format!("first\nsecond\x1b[31mred\r{}", "x".repeat(1900))));
    }),
];

/// Sends a message. A closed channel is what the tests want.
fn say(loot: &Loot, message: &FromWorker) {
    let _ = loot.supervisor.send(message, &[]);
}

/// Sends any bytes with any descriptors.
fn packet(loot: &Loot, bytes: &[u8], descriptors: &[RawFd]) {
    let rights = [ControlMessage::ScmRights(descriptors)];
    let control = if descriptors.is_empty() { &[][..] } else { &rights[..] };
    let socket = loot.supervisor.as_fd().as_raw_fd();
    let _ = sendmsg::<()>(socket, &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None);
}

/// Sends a message again and again until the channel is closed.
fn flood(loot: &Loot, message: &FromWorker) {
    while loot.supervisor.send(message, &[]).is_ok() {}
}

/// Reports each tick, and says as much besides as is allowed.
fn babble(loot: &Loot) {
    for tick in loot.tick + 1.. {
        report(loot, State { tick, ..honest() });
        (0..20).for_each(|_| say(loot, &FromWorker::Active(0, None)));
        sleep(Duration::from_secs(1));
    }
}

/// Waits until the supervisor asks for a report, and answers.
fn answer_report(loot: &Loot, state: &State) {
    loot.wait_for_report();
    report(loot, state.clone());
}

impl Loot {
    /// Waits until the supervisor asks for a report.
    fn wait_for_report(&self) {
        while let Ok(Some((message, _))) = self.supervisor.recv() {
            if matches!(message, ToWorker::Report) {
                return;
            }
        }
    }
}

/// Says how it is, in pieces.
fn report(loot: &Loot, state: State) {
    for piece in Reports::pieces(state) {
        say(loot, &FromWorker::Report(piece));
    }
}

/// A report that is taken.
fn honest() -> State {
    State { paths: vec![PathReport::default()], ..State::default() }
}

/// A report that is accepted, although no worker can have these counts.
fn absurd() -> State {
    const MAX: u64 = u64::MAX;
    let port =
        PortCounters { rx_frames: MAX, rx_bytes: MAX, tx_frames: MAX, tx_errors: MAX, rx_errors: MAX, ..honest().port };
    let seal = SealCounters { bytes: MAX, compress_saved: MAX, compress_overhead: MAX, encrypt_overhead: MAX };
    let counters = PathCounters {
        tx_datagrams: MAX,
        rx_datagrams: MAX,
        rx_dropped_invalid: MAX,
        rx_dropped_foreign: MAX,
        rx_implausible: MAX,
        rx_errors: MAX,
        tx_errors: MAX,
        pings_sent: MAX,
        ..PathCounters::default()
    };
    let health = PathHealth::Down;
    let path = PathReport {
        active: true,
        health,
        learned: Some(stranger()),
        last_pong: MAX,
        rtt_us: MAX,
        last_rx_ms: Some(MAX),
        local: Some(stranger().0.ip()),
        carries: Carries { datagram: u16::MAX, searched: true, loses: Some(true), runs: Some(false) },
        jitter_us: MAX,
        loss_to_peer: Some(u16::MAX),
        loss_from_peer: Some(u16::MAX),
        change: Some(LastChange { reason: ChangeReason::Silent, age_ms: MAX }),
        counters,
    };
    let wire = WireState::Classic(ClassicState { fragment: u16::MAX });
    State { tick: 0, active: 255, blocked: true, port, seal, wire, paths: vec![path] }
}

/// An address that is no peer's.
fn stranger() -> Address {
    Address(([203, 0, 113, 1], 9).into())
}
