//! Log lines about a tunnel that is not up: their times, and the known reasons. Pure: the clock is an argument.

use std::time::{Duration, Instant};

use privsep::ipc::{Address, PathCounters, PathReport};

use crate::status::Mismatch;
use ethudp_status::{PROHIBITED, REFUSED};

/// Time from the start, or from when the tunnel was last up, to the first line.
const FIRST: Duration = Duration::from_secs(10);
/// Time from the same moment to the first reason in the status.
const LATE: Duration = Duration::from_secs(3);
/// From the first line to the second.
const SECOND: Duration = Duration::from_secs(60);
/// Time between two lines after that.
const FURTHER: Duration = Duration::from_secs(3600);

/// Schedule of the lines.
#[derive(Debug)]
pub struct Schedule {
    since: Instant,
    lines: u32,
    due: Instant,
}

impl Schedule {
    /// Schedule for a tunnel that is not up since `now`.
    pub fn new(now: Instant) -> Self {
        Self { since: now, lines: 0, due: now + FIRST }
    }

    /// Whether the tunnel has not been up for longer than a peer takes to answer.
    pub fn is_late(&self, now: Instant) -> bool {
        now >= self.since + LATE
    }

    /// Records whether the tunnel is up. When a line is due, returns for how long it has not been up.
    pub fn note(&mut self, now: Instant, up: bool) -> Option<Duration> {
        if up {
            *self = Self::new(now);
        }
        if now < self.due {
            return None;
        }
        self.lines += 1;
        self.due = now + if self.lines == 1 { SECOND } else { FURTHER };
        Some(now.duration_since(self.since))
    }
}

/// Reason why a path is not up. Inputs are its report now, its counters when it was last up or started, whether its remote is
/// fixed, and the sentence for a mismatch.
pub fn known(
    report: &PathReport,
    then: &PathCounters,
    mismatch: Option<Mismatch>,
    fixed: bool,
    sentence: impl Fn(Mismatch) -> String,
) -> String {
    let now = &report.counters;
    let grown = |of: fn(&PathCounters) -> u64| of(now).saturating_sub(of(then));
    let received = grown(|c| c.rx_datagrams);
    if let Some(mismatch) = mismatch {
        return sentence(mismatch);
    }
    if received == 0 {
        return nothing_comes(report, then, fixed);
    }
    let bad = grown(|c| c.rx_dropped_invalid).saturating_add(grown(|c| c.rx_implausible));
    match received {
        _ if grown(|c| c.rx_dropped_foreign) >= received => sentence(Mismatch::Password),
        _ if bad > 0 => format!("{bad} of {received} received datagrams do not decode to Ethernet frames"),
        _ => format!(
            "{received} datagrams received and decoded, but no PONG: check whether datagrams of this end reach the peer"
        ),
    }
}

/// Reason if all received datagrams came from addresses that the path excludes.
pub fn of_strangers(report: &PathReport, then: &PathCounters) -> Option<String> {
    let grown = |of: fn(&PathCounters) -> u64| of(&report.counters).saturating_sub(of(then));
    let received = grown(|c| c.rx_datagrams);
    (received > 0 && grown(|c| c.rx_dropped_foreign) >= received)
        .then(|| format!("{received} datagrams received, all from addresses that the file excludes: check path.remote"))
}

/// Reason on the secure wire, whose handshake often detects the fault. There may be a session without this path.
pub fn known_of_secure(report: &PathReport, then: &PathCounters, fixed: bool, has_session: bool) -> String {
    let now = &report.counters;
    let grown = |of: fn(&PathCounters) -> u64| of(now).saturating_sub(of(then));
    if let Some(text) = of_strangers(report, then) {
        return text;
    }
    match grown(|c| c.rx_datagrams) {
        0 if grown(|c| c.rx_errors) == 0 && grown(|c| c.tx_errors) == 0 => {
            let hint = if has_session { "" } else { WRONG_KEYS };
            nothing_comes(report, then, fixed) + hint
        }
        0 => nothing_comes(report, then, fixed),
        received if !has_session && grown(|c| c.rx_dropped_invalid) >= received => format!(
            "{received} datagrams received, all of an unknown session: after a restart of this end the peer begins a new \
             session within five ping intervals"
        ),
        received if has_session => format!(
            "{received} datagrams received and a session exists, but no PONG on this path: check whether datagrams of \
             this end reach the peer"
        ),
        received => format!(
            "{received} datagrams received, but no session: check the public keys at both ends, and whether datagrams of \
             this end reach the peer"
        ),
    }
}

/// Faults to which a peer does not respond, so that only its own end can tell.
const WRONG_KEYS: &str = ". A wrong `peer-public-key`, `tunnel-id` or pre-shared key here looks the same: compare `ethudp \
                          show` at the other end";

fn nothing_comes(report: &PathReport, then: &PathCounters, fixed: bool) -> String {
    let now = &report.counters;
    let grown = |of: fn(&PathCounters) -> u64| of(now).saturating_sub(of(then));
    match grown(|c| c.rx_errors) {
        0 if grown(|c| c.tx_errors) > 0 => {
            format!("no datagrams received, and {} could not be sent: check the route to the peer", grown(|c| c.tx_errors))
        }
        0 if fixed => {
            "no datagrams received. The kernel drops datagrams from any other address or port than the peer's: look for \
             them with tcpdump"
                .into()
        }
        0 => match report.learned {
            None => "no datagrams received, so the peer's address is not known yet".into(),
            Some(Address(peer)) => format!(
                "no more datagrams received from {peer}, the last address of the peer: check that ethudp runs there, and \
                 the firewalls"
            ),
        },
        errors => {
            let refused = grown(|c| c.rx_refused);
            let told = match grown(|c| c.rx_prohibited) {
                0 if refused == 0 => String::new(),
                prohibited if prohibited > refused => format!(": {PROHIBITED}"),
                _ => format!(": {REFUSED}"),
            };
            format!("no datagrams received, only {errors} ICMP errors for sent datagrams{told}")
        }
    }
}

#[cfg(test)]
mod tests {
    use privsep::ipc::Cipher;

    use super::*;

    #[test]
    fn down_tunnel_is_logged_ever_rarer() {
        let start = Instant::now();
        let lines = |up_at: u64| {
            let mut schedule = Schedule::new(start);
            let second = |second| schedule.note(start + Duration::from_secs(second), second == up_at).map(|_| second);
            (0..10_000).filter_map(second).collect::<Vec<_>>()
        };
        assert_eq!(lines(20_000), [10, 70, 3670, 7270]);
        assert_eq!(lines(9_995), [10, 70, 3670, 7270]);
        assert_eq!(lines(5_000), [10, 70, 3670, 5010, 5070, 8670]);
        assert_eq!(Schedule::new(start).note(start + FIRST, false), Some(FIRST));
        assert!(!Schedule::new(start).is_late(start) && Schedule::new(start).is_late(start + LATE));
    }

    #[test]
    fn reasons_for_down_are_named() {
        let report = |counters| PathReport { counters, ..PathReport::default() };
        let received = PathCounters { rx_datagrams: 12, ..PathCounters::default() };
        let sentence = |mismatch: Mismatch| mismatch.with(Cipher::Aes256, true);
        for (counters, fixed, expected) in [
            (PathCounters::default(), true, "no datagrams received. The kernel drops datagrams from any other"),
            (PathCounters::default(), false, "address is not known yet"),
            (PathCounters { rx_errors: 3, ..PathCounters::default() }, true, "only 3 ICMP errors"),
            (
                PathCounters { rx_errors: 3, rx_refused: 2, rx_prohibited: 1, ..PathCounters::default() },
                true,
                "ICMP errors for sent datagrams: port unreachable: ethudp does not listen",
            ),
            (
                PathCounters { rx_errors: 3, rx_prohibited: 3, ..PathCounters::default() },
                true,
                "sent datagrams: prohibited: a firewall",
            ),
            (PathCounters { tx_errors: 4, ..PathCounters::default() }, true, "4 could not be sent"),
            (PathCounters { rx_dropped_foreign: 12, ..received }, false, "wrong password in received datagrams"),
            (PathCounters { rx_dropped_invalid: 5, ..received }, true, "5 of 12 received datagrams do not decode"),
            (received, true, "12 datagrams received and decoded"),
        ] {
            let text = known(&report(counters), &PathCounters::default(), None, fixed, sentence);
            assert!(text.contains(expected), "{text}");
            // Earlier datagrams do not count.
            let text = known(&report(counters), &counters, None, fixed, sentence);
            assert!(text.contains("no datagrams received"), "{text}");
        }
        let secure = |counters| known_of_secure(&report(counters), &PathCounters::default(), false, false);
        let excluded = secure(PathCounters { rx_dropped_foreign: 12, ..received });
        assert!(excluded.contains("12 datagrams received, all from addresses that the file excludes"), "{excluded}");
        let others = secure(PathCounters { rx_dropped_foreign: 3, rx_dropped_invalid: 4, ..received });
        assert!(others.contains("12 datagrams received, but no session: check the public keys"), "{others}");
        let before = secure(PathCounters { rx_dropped_invalid: 12, ..received });
        assert!(before.contains("12 datagrams received, all of an unknown session"), "{before}");
        let beside = known_of_secure(&report(received), &PathCounters::default(), false, true);
        assert!(beside.contains("a session exists, but no PONG on this path"), "{beside}");
        let beside = known_of_secure(&report(PathCounters::default()), &PathCounters::default(), false, true);
        assert!(!beside.contains("wrong `peer-public-key`"), "{beside}");
        let nothing = secure(PathCounters::default());
        assert!(nothing.contains("no datagrams received") && nothing.contains("wrong `peer-public-key`"), "{nothing}");
        let learned = Some(Address("198.51.100.9:6000".parse().unwrap()));
        let silent = PathReport { learned, ..PathReport::default() };
        let gone = known_of_secure(&silent, &PathCounters::default(), false, false);
        assert!(gone.contains("no more datagrams received from 198.51.100.9:6000"), "{gone}");
        assert!(!secure(PathCounters { rx_errors: 3, ..PathCounters::default() }).contains("wrong `peer-public-key`"));
        let text = known(&report(received), &PathCounters::default(), Some(Mismatch::Coding), true, sentence);
        assert!(
            text.contains("cipher, key and lz4")
                && text.contains("aes-256-ethudp-2023")
                && text.contains("reach the local side"),
            "{text}"
        );
    }
}
