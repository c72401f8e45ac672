//! Supervisor's side of one worker. An attacker may have taken the worker over, so every message is checked.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use privsep::PROTOCOL;
use privsep::ipc::{
    self, Address, ChangeReason, Channel, Confinement, Counts, FromWorker, MAX_UNASKED, Moment, PathHealth, Reports,
    Secrets, Settings, State, ToWorker,
};
use privsep::sys::supervisor::start;

use super::helper::Helper;
use super::restart::Death;
use crate::log;
use crate::process::Child;

/// Time after a report at which the next one, due after a second, is late.
const LATE: Duration = Duration::from_millis(1200);
/// Time until a late report counts as late again.
const LATER: Duration = Duration::from_millis(900);
/// Longest time from a worker's start to its confinement.
const CONFINING: Duration = Duration::from_secs(5);
/// Consecutive late reports after which a worker counts as frozen, three seconds after its last report.
const MISSED: u32 = 3;
/// Longest time from the end of a worker's channel to the end of the worker.
const ENDING: Duration = Duration::from_millis(200);
/// Most requested reports that may still arrive after a tick's report has answered their requests.
const OWED: u64 = 64;

/// Input of a worker.
pub struct Setup {
    /// Executable of the worker, opened at the start.
    pub executable: File,
    /// Settings, the same for every worker.
    pub settings: Settings,
    /// Secrets, the same for every worker.
    pub secrets: Secrets,
    /// State of the tunnel, kept up to date from reports.
    pub state: State,
    /// Whether the next worker drops the frames that wait.
    pub drain: bool,
}

/// Supervisor's side of a running worker.
///
/// **Start and end**: [`Worker::start`] spawns the process and has the helper pass the handles. [`Worker::end`] kills it, waits for
/// it and tells how it died. Dropping a worker kills it as well.
///
/// **Messages in**: [`Worker::receive`] reads one message when [`Worker::channel`] is readable. It checks everything that a hostile
/// worker could send, and returns an [`Event`] that the supervisor may act on. After an error the worker must be ended.
///
/// **Messages out**: [`Worker::ask_report`], [`Worker::reset`] and [`Worker::tell`]. None waits for the worker.
///
/// **Time**: at [`Worker::late_at`] the confinement or the next report is late. [`Worker::miss_report`] counts that, and tells when
/// the worker is frozen.
///
/// The worker owns its process and its channel. The state of the tunnel belongs to [`Setup`], which outlives it.
pub struct Worker {
    child: Child,
    /// Channel to the worker.
    pub channel: Channel<ToWorker, FromWorker>,
    /// Tick at the start of the worker.
    first_tick: u64,
    /// Start time, by the clock that the worker uses.
    started: Moment,
    /// Time since which the worker forwards.
    pub confined: Option<Instant>,
    /// Whether a requested report has not arrived yet.
    report_pending: bool,
    /// Reports that may arrive without a tick, because they were requested.
    reports_owed: u64,
    /// Received pieces of a report.
    reports: Reports,
    /// Tick of the last report.
    tick: u64,
    /// Time at which the next report is late.
    late_at: Instant,
    missed: u32,
    unasked: u32,
}

/// Meaning of a worker's message for the tunnel.
#[allow(clippy::large_enum_variant)] // One at a time.
pub enum Event {
    /// The worker forwards, with this confinement.
    Confined(Confinement),
    /// Health of a path.
    Health(usize, PathHealth),
    /// Frames now leave by this path.
    Active(usize, Option<ChangeReason>),
    /// A path has learned this address.
    Learned(usize, Address),
    /// The ticks of the worker are over.
    Finished,
    /// A whole report.
    Report(State),
    /// Nothing to do.
    Nothing,
}

impl Worker {
    /// Starts a worker, sends its settings, and has the helper send the handles.
    pub fn start(helper: &Helper, setup: &Setup) -> Result<Self, ipc::Error> {
        let (ours, theirs) = ipc::pair()?;
        let (to_helper, to_worker) = ipc::pair()?;
        let pid = start::spawn(setup.executable.as_fd(), c"ethudp-worker", theirs.as_fd(), Some(to_worker.as_fd()))?;
        drop((theirs, to_worker));
        let now = Instant::now();
        let worker = Self {
            child: Child::new(pid),
            channel: Channel::new(ours),
            first_tick: setup.state.tick,
            started: Moment::now(),
            confined: None,
            report_pending: false,
            reports_owed: 0,
            reports: Reports::default(),
            tick: setup.state.tick,
            late_at: now + CONFINING,
            missed: 0,
            unasked: 0,
        };
        let Setup { settings, state, secrets, drain, .. } = setup;
        let (settings, state) = (Box::new(settings.clone()), Box::new(state.clone()));
        let start = ToWorker::Start { protocol: PROTOCOL, settings, state, drain: *drain };
        for message in [start, ToWorker::Secrets(secrets.clone())] {
            match worker.channel.try_send(&message) {
                // The worker was killed. The end of its channel shows that.
                Err(ipc::Error::Io(error)) if error.kind() == ErrorKind::BrokenPipe => {}
                result => result?,
            }
        }
        helper.serve(&to_helper)?;
        Ok(worker)
    }

    /// Process id.
    pub fn pid(&self) -> Pid {
        self.child.pid()
    }

    /// Whether the worker can have run all its ticks up to this one: the first at once, each further one a second later.
    pub fn has_run(&self, ticks: u64) -> bool {
        let own = ticks.saturating_sub(self.first_tick).saturating_sub(1);
        self.confined.is_some() && self.started.elapsed().as_secs() >= own
    }

    /// Time at which the next report or the confinement is late.
    pub fn late_at(&self) -> Instant {
        self.late_at
    }

    /// Counts a late report or confinement. Returns whether the worker is frozen.
    pub fn miss_report(&mut self, now: Instant) -> bool {
        // Only time in which the supervisor itself ran counts. After a stop of the whole service no worker is frozen.
        let on_time = now.duration_since(self.late_at) < LATER;
        if self.confined.is_none() {
            self.late_at = now + CONFINING;
            return on_time;
        }
        if on_time {
            self.missed += 1;
            log::debug(&format!("worker {}: report late, {} times in a row", self.pid(), self.missed));
        }
        self.late_at = now + LATER;
        self.missed >= MISSED
    }

    /// Asks for a report now, unless one is pending.
    pub fn ask_report(&mut self) {
        if !self.report_pending {
            // A full queue belongs to a worker that does not read. Its silence shows that.
            self.report_pending = self.channel.try_send(&ToWorker::Report).is_ok();
            self.reports_owed = OWED.min(self.reports_owed + u64::from(self.report_pending));
        }
    }

    /// Accepts a whole report, of a tick or requested.
    fn on_report(&mut self, state: State, before: &State) -> Result<Event, ipc::Error> {
        let of_a_tick = state.tick > self.tick;
        if !state.is_shaped_like(before) || !self.has_run(state.tick) || !(of_a_tick || self.reports_owed > 0) {
            return Err(ipc::Error::Violation("message out of place"));
        }
        if of_a_tick {
            (self.tick, self.unasked, self.missed) = (state.tick, 0, 0);
            self.late_at = Instant::now() + LATE;
        } else {
            self.reports_owed -= 1;
        }
        self.report_pending = false;
        Ok(Event::Report(state))
    }

    /// Has the worker reset counters.
    pub fn reset(&self, counts: Counts) {
        // A full queue belongs to a worker that will be replaced soon.
        let _ = self.channel.try_send(&ToWorker::Reset(counts));
    }

    /// Tells the worker the address of a path's peer, whose name was looked up.
    pub fn tell(&self, path: usize, address: Address) {
        // As for a reset.
        let _ = self.channel.try_send(&ToWorker::Remote(u8::try_from(path).unwrap_or(u8::MAX), address));
    }

    /// Reads one message. `before` is the state of the tunnel. `Ok(None)` at the end of the channel.
    ///
    /// # Errors
    /// When the worker has broken the rules; it must be killed.
    pub fn receive(&mut self, before: &State) -> Result<Option<Event>, ipc::Error> {
        let paths = before.paths.len();
        let Some((message, _)) = self.channel.recv()? else {
            // The kernel closes the channel of an ended process. A worker that closes it and goes on breaks the rules.
            let goes_on = ipc::Error::Violation("closed, but the worker still runs");
            return if self.child.ends_within(ENDING) { Ok(None) } else { Err(goes_on) };
        };
        // Reports are limited by ticks and requests. All other messages need a limit.
        if !matches!(message, FromWorker::Confined(_) | FromWorker::Report(_)) {
            self.unasked += 1;
            if self.unasked > MAX_UNASKED {
                return Err(ipc::Error::Violation("too many messages"));
            }
        }
        Ok(Some(match message {
            FromWorker::Confined(confinement) if self.confined.is_none() => {
                let now = Instant::now();
                (self.confined, self.late_at) = (Some(now), now + LATE);
                Event::Confined(confinement)
            }
            FromWorker::Report(piece) if self.confined.is_some() => match self.reports.take(piece)? {
                None => Event::Nothing,
                Some(state) => self.on_report(state, before)?,
            },
            FromWorker::Health(path, health) if usize::from(path) < paths && self.confined.is_some() => {
                Event::Health(path.into(), health)
            }
            FromWorker::Active(path, reason) if usize::from(path) < paths => Event::Active(path.into(), reason),
            FromWorker::Learned(path, address) if usize::from(path) < paths => Event::Learned(path.into(), address),
            FromWorker::Finished => Event::Finished,
            FromWorker::Dying(text) => {
                log::error(&format!("worker {}: {}", self.pid(), log::untrusted(&text)));
                let goes_on = ipc::Error::Violation("worker still runs after its fatal error");
                return if self.child.ends_within(ENDING) { Ok(None) } else { Err(goes_on) };
            }
            _ => return Err(ipc::Error::Violation("message out of place")),
        }))
    }

    /// Kills the worker if it still runs, waits for its end and returns how it died.
    pub fn end(self) -> Death {
        let (pid, forwarded) = (self.pid(), self.confined.map(|since| since.elapsed()));
        let (how, crash) = cause(self.child.end(), forwarded.is_some());
        log::warning(&format!("worker {pid} ended: {how}"));
        Death { forwarded, crash }
    }
}

/// Cause of death in words, and whether the worker itself was responsible. An unknown cause counts as its own.
fn cause(end: nix::Result<WaitStatus>, forwarded: bool) -> (String, bool) {
    match end {
        Ok(WaitStatus::Signaled(_, signal, _)) => {
            // Only another process ends a worker by one of these signals.
            (signal.to_string(), !matches!(signal, Signal::SIGKILL | Signal::SIGTERM))
        }
        // A worker that has run may exit with this status as well, and is not believed.
        Ok(WaitStatus::Exited(_, start::EXEC_FAILED)) if !forwarded => ("could not be executed".into(), false),
        Ok(WaitStatus::Exited(_, status)) => (format!("exit status {status}"), true),
        other => (format!("{other:?}"), true),
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn report_requests_are_bounded() {
        #[allow(clippy::zombie_processes)] // The handle waits for the process.
        let child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let ((ours, theirs), now) = (ipc::pair().unwrap(), Instant::now());
        let theirs = Channel::<FromWorker, ToWorker>::new(theirs);
        let mut worker = Worker {
            child: Child::new(Pid::from_raw(child.id().cast_signed())),
            channel: Channel::new(ours),
            first_tick: 1000,
            started: Moment::now(),
            confined: Some(now),
            report_pending: false,
            reports_owed: 0,
            reports: Reports::default(),
            tick: 0,
            late_at: now,
            missed: 0,
            unasked: 0,
        };
        let report =
            |worker: &mut Worker, tick| worker.on_report(State { tick, ..State::default() }, &State::default()).is_ok();
        for tick in 1..1000 {
            worker.ask_report();
            theirs.recv().unwrap();
            assert!(report(&mut worker, tick));
        }
        assert_eq!((0..1000).take_while(|_| report(&mut worker, 999)).count() as u64, OWED);
    }

    #[test]
    fn unexplained_exit_is_a_crash() {
        let pid = Pid::from_raw(7);
        let signal = |signal| Ok(WaitStatus::Signaled(pid, signal, false));
        for (end, forwarded, crash) in [
            (signal(Signal::SIGKILL), true, false),
            (signal(Signal::SIGTERM), true, false),
            (signal(Signal::SIGSYS), true, true),
            (signal(Signal::SIGABRT), false, true),
            (Ok(WaitStatus::Exited(pid, start::EXEC_FAILED)), false, false),
            (Ok(WaitStatus::Exited(pid, start::EXEC_FAILED)), true, true),
            (Ok(WaitStatus::Exited(pid, 0)), true, true),
            (Ok(WaitStatus::StillAlive), true, true),
            (Err(Errno::ECHILD), true, true),
        ] {
            assert_eq!(cause(end, forwarded).1, crash, "{end:?}, forwarded {forwarded}");
        }
    }
}
