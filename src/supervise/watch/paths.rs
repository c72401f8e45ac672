//! Evaluation of reports about paths: the silence of each path, the sense of received datagrams, and the lines of a tunnel that is
//! not up.

use std::time::{Duration, Instant};

use privsep::ipc::{Carries, Cipher, PathCounters, PathHealth, PathReport, PathSettings, Remote, Settings, State};

use super::mismatch::{Change, Detector};
use super::not_up::{self, Schedule};
use crate::status::{self, Mismatch, Seen};
use crate::supervise::renewal::names::Names;
use crate::tunnel::Tunnel;

/// Time between two lines about the size of a path's datagrams.
const SIZES: Duration = Duration::from_secs(10);

/// Observer of the paths of a tunnel.
pub struct Observer {
    started: Instant,
    /// Whether a peer must answer, which is false for a mirror of the classic wire.
    answered: bool,
    /// Whether received datagrams are authenticated, so that noise never decodes to frames.
    authenticated: bool,
    /// Cipher of a wire without authentication, and whether frames of noise are written to the local side.
    coding: (Cipher, bool),
    /// Whether the file names the length of the datagrams.
    fixed_size: bool,
    paths: Vec<Path>,
    schedule: Schedule,
}

struct Path {
    remote: Remote,
    detector: Detector,
    last_rx: Option<Instant>,
    /// Interface to which the path is bound.
    device: Option<String>,
    /// Greatest length of its datagrams, the length in the last line about it, and the time of the next such line.
    most: u16,
    said: u16,
    next_line: Instant,
    /// Whether datagrams of the present length are lost, and whether runs are.
    loses: bool,
    loses_runs: bool,
    /// Counters when the path was last up, or at the start.
    then: PathCounters,
}

impl Observer {
    pub fn new(now: Instant, tunnel: &Tunnel, settings: &Settings) -> Self {
        let path = |(number, (remote, of_path)): (usize, (&Remote, &PathSettings))| Path {
            remote: *remote,
            detector: Detector::default(),
            last_rx: None,
            device: tunnel.paths.get(number).and_then(|path| path.device.clone()),
            most: of_path.most,
            said: of_path.most,
            next_line: now,
            loses: false,
            loses_runs: false,
            then: PathCounters::default(),
        };
        Self {
            started: now,
            answered: tunnel.is_answered(),
            authenticated: tunnel.wire.is_authenticated(),
            coding: (tunnel.wire.cipher().unwrap_or_default(), tunnel.rules.receive),
            fixed_size: tunnel.secure().is_some_and(|secure| secure.path_mtu.is_some()),
            paths: settings.remotes.iter().zip(&settings.paths).enumerate().map(path).collect(),
            schedule: Schedule::new(now),
        }
    }

    /// Evaluates a report. Returns log lines with their paths. The reason of a name without an address precedes others.
    pub fn note(&mut self, now: Instant, state: &State, names: &Names) -> Vec<(usize, String)> {
        let mut lines = Vec::new();
        let (cipher, written) = self.coding;
        for (number, (path, report)) in self.paths.iter_mut().zip(&state.paths).enumerate() {
            let age = report.last_rx_ms.map(Duration::from_millis);
            path.last_rx = age.and_then(|age| now.checked_sub(age)).or(path.last_rx);
            let change =
                if self.authenticated { Change::None } else { path.detector.note(now, &path.of_the_peer(report)) };
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
            lines.extend(path.sizes(now, report.carries, self.fixed_size).into_iter().map(|line| (number, line)));
            if report.health == PathHealth::Up {
                path.then = report.counters;
            }
        }
        let up = !self.answered || state.paths.iter().any(|report| report.health == PathHealth::Up);
        if let Some(time) = self.schedule.note(now, up) {
            let each = self.paths.iter().zip(&state.paths).enumerate();
            let say = |(number, (path, report))| {
                let reason = names.reason(number).unwrap_or_else(|| self.known(path, report, state));
                (number, format!("not up for {} s: {reason}", time.as_secs()))
            };
            lines.extend(each.map(say));
        }
        lines
    }

    /// Reason why a path is not up, as far as it is known.
    fn known(&self, path: &Path, report: &PathReport, state: &State) -> String {
        if self.authenticated {
            not_up::known_of_secure(
                report,
                &path.then,
                path.is_fixed(),
                state.secure().is_some_and(|secure| secure.session.is_some()),
            )
        } else {
            let (cipher, written) = self.coding;
            let sentence = |found: Mismatch| found.with(cipher, written);
            if let Some(text) = not_up::of_strangers(report, &path.then).filter(|_| path.is_named()) {
                return text;
            }
            not_up::known(report, &path.then, path.detector.found(), path.is_fixed(), sentence)
        }
    }

    /// Reason why the active path is not up, as in the log. `None` in the first seconds, in which a peer answers.
    pub fn reason(&self, now: Instant, state: &State, names: &Names) -> Option<String> {
        let active = usize::from(state.active);
        let (path, report) = (self.paths.get(active)?, state.paths.get(active)?);
        let known = || names.reason(active).unwrap_or_else(|| self.known(path, report, state));
        self.schedule.is_late(now).then(known)
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

impl Path {
    fn is_fixed(&self) -> bool {
        matches!(self.remote, Remote::Fixed(_))
    }

    /// Whether the remote is a name: the kernel does not drop datagrams of strangers.
    fn is_named(&self) -> bool {
        matches!(self.remote, Remote::Named { .. })
    }

    /// Report without the datagrams of strangers towards a name, which any host can send: they are no sign of a wrong password.
    fn of_the_peer(&self, report: &PathReport) -> PathReport {
        let mut report = *report;
        if self.is_named() {
            let foreign = std::mem::take(&mut report.counters.rx_dropped_foreign);
            report.counters.rx_datagrams = report.counters.rx_datagrams.saturating_sub(foreign);
        }
        report
    }

    /// Lines about the datagrams that the path carries, after a change.
    fn sizes(&mut self, now: Instant, carries: Carries, fixed: bool) -> Vec<String> {
        let Carries { datagram, searched, loses, runs } = carries;
        let mut lines = Vec::new();
        if searched && datagram != self.said && now >= self.next_line {
            (self.said, self.next_line) = (datagram, now + SIZES);
            let most = self.most;
            lines.push(if datagram < most {
                format!("the path carries datagrams of {datagram} bytes, less than the {most} of its underlay: longer frames leave in pieces")
            } else {
                format!("the path carries datagrams of {datagram} bytes again")
            });
        }
        if let Some(loses) = loses
            && std::mem::replace(&mut self.loses, loses) != loses
        {
            let again = || format!("datagrams of {datagram} bytes reach the peer again");
            lines.push(if loses { status::lost_size_sentence(datagram, fixed) } else { again() });
        }
        if let Some(arrive) = runs
            && std::mem::replace(&mut self.loses_runs, !arrive) == arrive
        {
            let lost = || status::lost_runs_sentence(datagram, self.device.as_deref());
            lines.push(if arrive { "runs of datagrams reach the peer again".into() } else { lost() });
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use privsep::ipc::{Address, PathReport};

    use super::*;

    #[test]
    fn strangers_at_a_name_are_no_mismatch() {
        let text = "mode = \"tap\"\nwire = \"classic\"\n[[path]]\nlocal = \"0.0.0.0:1\"\nremote = \"peer.example:1\"\n";
        let tunnel = crate::tunnel::file::from_text(text, "a", std::path::Path::new("")).unwrap();
        let path = PathSettings { least: 1252, most: 1472, runs: true };
        let start = Instant::now();
        let found = |remote| {
            let settings = Settings { remotes: vec![remote], paths: vec![path], ..Settings::default() };
            let mut observer = Observer::new(start, &tunnel, &settings);
            let mut state = State { paths: vec![PathReport::default()], ..State::default() };
            for second in 0..20 {
                state.paths[0].counters.rx_datagrams += 3;
                state.paths[0].counters.rx_dropped_foreign += 3;
                observer.note(start + Duration::from_secs(second), &state, &Names::default());
            }
            (
                observer.seen()[0].mismatch,
                observer.reason(start + Duration::from_secs(20), &state, &Names::default()).unwrap(),
            )
        };
        let (mismatch, reason) = found(Remote::Named { now: None, before: None });
        assert!(mismatch.is_none() && reason.contains("all from addresses that the file excludes"), "{reason}");
        let (mismatch, _) = found(Remote::Learned { address: None, before: None, port: Some(1) });
        assert_eq!(mismatch, Some(Mismatch::Password));
    }

    /// The next worker has measured nothing yet, which is no news.
    #[test]
    fn changes_of_carried_sizes_are_logged() {
        let text = "mode = \"tap\"\nwire = \"classic\"\n[[path]]\nlocal = \"0.0.0.0:1\"\nremote = \"192.0.2.2:1\"\n";
        let tunnel = crate::tunnel::file::from_text(text, "a", std::path::Path::new("")).unwrap();
        let remote = Remote::Fixed(Address(([192, 0, 2, 2], 1).into()));
        let path = PathSettings { least: 1252, most: 1472, runs: true };
        let settings = Settings { remotes: vec![remote], paths: vec![path], ..Settings::default() };
        let start = Instant::now();
        let new = || Observer { authenticated: true, ..Observer::new(start, &tunnel, &settings) };
        let lines = |observer: &mut Observer, seconds, carries| {
            let paths = vec![PathReport { health: PathHealth::Up, carries, ..PathReport::default() }];
            observer
                .note(start + Duration::from_secs(seconds), &State { paths, ..State::default() }, &Names::default())
                .len()
        };
        let mut observer = new();
        for states in [
            |loses| Carries { loses, ..Carries::default() },
            |loses: Option<bool>| Carries { runs: loses.map(|loses| !loses), ..Carries::default() },
        ] {
            let said = [None, Some(false), Some(true), None, Some(true), None, Some(false), None]
                .map(|loses| lines(&mut observer, 0, states(loses)));
            assert_eq!(said, [0, 0, 1, 0, 0, 0, 1, 0]);
        }
        // A size is news once the search is over, and not every second.
        let mut observer = new();
        let said =
            [(0, 1252, false), (1, 1472, true), (2, 1252, false), (3, 1252, true), (4, 1472, true), (13, 1472, true)]
                .map(|(seconds, datagram, searched)| {
                    lines(&mut observer, seconds, Carries { datagram, searched, ..Carries::default() })
                });
        assert_eq!(said, [0, 0, 0, 1, 0, 1]);
    }
}
