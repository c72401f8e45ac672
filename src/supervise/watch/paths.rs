//! Evaluation of reports about paths: the silence of each path, the sense of received datagrams, and the lines of a tunnel that is
//! not up.

use std::time::{Duration, Instant};

use privsep::ipc::{Cipher, PathCounters, PathHealth, PathReport, Remote, State};

use super::mismatch::{Change, Detector};
use super::not_up::{self, Schedule};
use crate::status::{self, Mismatch, Seen};
use crate::tunnel::Tunnel;

/// Observer of the paths of a tunnel.
pub struct Observer {
    started: Instant,
    /// Whether a peer must answer, which is false for a mirror of the classic wire.
    answered: bool,
    /// Whether received datagrams are authenticated, so that noise never decodes to frames.
    authenticated: bool,
    /// Cipher of a wire without authentication, and whether frames of noise are written to the local side.
    coding: (Cipher, bool),
    /// Length in bytes of the longest datagram that leaves in one packet, on the secure wire.
    longest: Option<u16>,
    paths: Vec<Path>,
    schedule: Schedule,
}

struct Path {
    fixed: bool,
    detector: Detector,
    last_rx: Option<Instant>,
    /// Whether the longest datagrams are lost.
    drops_longest: bool,
    /// Counters when the path was last up, or at the start.
    then: PathCounters,
}

impl Observer {
    pub fn new(now: Instant, tunnel: &Tunnel, longest: Option<u16>, remotes: impl Iterator<Item = Remote>) -> Self {
        let path = |remote| Path {
            fixed: matches!(remote, Remote::Fixed(_)),
            detector: Detector::default(),
            last_rx: None,
            drops_longest: false,
            then: PathCounters::default(),
        };
        Self {
            started: now,
            answered: tunnel.is_answered(),
            authenticated: tunnel.wire.is_authenticated(),
            coding: (tunnel.wire.cipher().unwrap_or_default(), tunnel.rules.receive),
            longest,
            paths: remotes.map(path).collect(),
            schedule: Schedule::new(now),
        }
    }

    /// Evaluates a report. Returns log lines with their paths.
    pub fn note(&mut self, now: Instant, state: &State) -> Vec<(usize, String)> {
        let mut lines = Vec::new();
        let (cipher, written) = self.coding;
        for (number, (path, report)) in self.paths.iter_mut().zip(&state.paths).enumerate() {
            let age = report.last_rx_ms.map(Duration::from_millis);
            path.last_rx = age.and_then(|age| now.checked_sub(age)).or(path.last_rx);
            let change = if self.authenticated { Change::None } else { path.detector.note(now, report) };
            match change {
                Change::Begins(found, true) => {
                    lines.push((number, format!("mismatch: {}", found.with(cipher, written))));
                }
                Change::Ends(true) if report.health == PathHealth::Up => {
                    lines.push((number, "mismatch ended: the peer answers".into()));
                }
                Change::Ends(true) => lines.push((number, "mismatch ended: no more wrong datagrams".into())),
                Change::Begins(_, false) | Change::Ends(false) | Change::None => {}
            }
            if let Some(drops) = report.drops_longest
                && std::mem::replace(&mut path.drops_longest, drops) != drops
                && let Some(longest) = self.longest
            {
                lines.push((
                    number,
                    if drops {
                        status::lost_size_sentence(longest)
                    } else {
                        format!("datagrams of {longest} bytes reach the peer again")
                    },
                ));
            }
            if report.health == PathHealth::Up {
                path.then = report.counters;
            }
        }
        let up = !self.answered || state.paths.iter().any(|report| report.health == PathHealth::Up);
        if let Some(time) = self.schedule.note(now, up) {
            let each = self.paths.iter().zip(&state.paths).enumerate();
            let say =
                |path: &Path, report| format!("not up for {} s: {}", time.as_secs(), self.known(path, report, state));
            lines.extend(each.map(|(number, (path, report))| (number, say(path, report))));
        }
        lines
    }

    /// Reason why a path is not up, as far as it is known.
    fn known(&self, path: &Path, report: &PathReport, state: &State) -> String {
        if self.authenticated {
            not_up::known_of_secure(
                report,
                &path.then,
                path.fixed,
                state.secure().is_some_and(|secure| secure.session.is_some()),
            )
        } else {
            let (cipher, written) = self.coding;
            let sentence = |found: Mismatch| found.with(cipher, written);
            not_up::known(report, &path.then, path.detector.found(), path.fixed, sentence)
        }
    }

    /// Reason why the active path is not up, as in the log. `None` in the first seconds, in which a peer answers.
    pub fn reason(&self, now: Instant, state: &State) -> Option<String> {
        let active = usize::from(state.active);
        let (path, report) = (self.paths.get(active)?, state.paths.get(active)?);
        self.schedule.is_late(now).then(|| self.known(path, report, state))
    }

    /// Time for which the tunnel has run.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Observations of each path for the status.
    pub fn seen(&self) -> Vec<Seen> {
        let seen = |path: &Path| Seen {
            last_rx: path.last_rx.map(|instant| instant.elapsed()),
            mismatch: path.detector.found(),
        };
        self.paths.iter().map(seen).collect()
    }
}

#[cfg(test)]
mod tests {
    use privsep::ipc::{Address, PathReport};

    use super::*;

    /// The next worker has measured nothing yet, which is no news.
    #[test]
    fn only_probes_clear_lost_long_datagrams() {
        let text = "mode = \"tap\"\nwire = \"classic\"\n[[path]]\nlocal = \"0.0.0.0:1\"\nremote = \"192.0.2.2:1\"\n";
        let tunnel = crate::tunnel::file::from_text(text, "a", std::path::Path::new("")).unwrap();
        let remote = Remote::Fixed(Address(([192, 0, 2, 2], 1).into()));
        let mut observer = Observer {
            authenticated: true,
            ..Observer::new(Instant::now(), &tunnel, Some(1472), [remote].into_iter())
        };
        let mut lines = |drops_longest| {
            let paths = vec![PathReport { drops_longest, ..PathReport::default() }];
            observer.note(Instant::now(), &State { paths, ..State::default() }).len()
        };
        let said = [None, Some(false), Some(true), None, Some(true), None, Some(false), None].map(&mut lines);
        assert_eq!(said, [0, 0, 1, 0, 0, 0, 1, 0]);
    }
}
