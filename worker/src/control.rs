//! Main thread: runs the inward loop and the timers, and talks to the supervisor.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use nix::poll::PollFlags;
use privsep::ipc::{
    Address, ChangeReason, Channel, Counts, Error, FromWorker, MAX_PATHS, MAX_UNASKED, PathReport, Report, Reports,
    State, ToWorker,
};

use crate::forward::Inward;
use crate::io::wait;

/// Longest time in microseconds that a message of the supervisor waits while there is traffic.
const SUPERVISOR_POLL_US: u64 = 10_000;
/// Ticks between wakeups of the outward loop while no frame waits for it.
const WAKE_TICKS: u64 = 3;
/// Interval of checks whether the outward loop has passed since a tick.
const PASS_POLL: Duration = Duration::from_millis(50);
/// Number of polled descriptors: supervisor, waker, each path, the port.
const POLLED: usize = 3 + MAX_PATHS;

/// Age in milliseconds up to which a change of a path is the reason of a move of the frames.
const RECENT_MS: u64 = 2000;

/// Most changes that are reported between the reports of two ticks; more would count as an attack. Two messages are reserved for
/// the end and for last words.
const CHANGES: u32 = MAX_UNASKED - 2;

pub type SupervisorChannel = Channel<FromWorker, ToWorker>;

/// State of the main thread.
pub struct Control<'a> {
    supervisor: &'a SupervisorChannel,
    inward: Inward,
    /// Health, active path and learned addresses that the supervisor knows.
    announced: State,
    /// Number of change messages since the report of a tick.
    changes: u32,
    /// Tick of the last complete report, and tick of the report in progress.
    reported: (u64, u64),
    /// Passes of the outward loop at the time a report became due, while the report waits for one more.
    due: Option<u64>,
    /// Pieces of a report that the supervisor had no room for.
    unsent: VecDeque<Report>,
}

impl<'a> Control<'a> {
    /// `state` is the state from the supervisor.
    pub fn new(supervisor: &'a SupervisorChannel, inward: Inward, state: State) -> Self {
        let reported = (state.tick, state.tick);
        Self { supervisor, inward, announced: state, changes: 0, reported, due: None, unsent: VecDeque::new() }
    }

    /// Forwards frames and answers the supervisor until it ends.
    pub fn run(mut self) -> Result<(), Error> {
        let clock = self.inward.shared.clock;
        let mut look_us = 0;
        loop {
            let mut now_us = clock.now_us();
            if self.inward.on_time(now_us) {
                if self.inward.session.is_over() {
                    return self.supervisor.send(&FromWorker::Finished, &[]);
                }
                if self.inward.session.has_news() {
                    self.send_changes(now_us)?;
                }
                now_us = clock.now_us();
            }
            let busy = self.inward.turn(now_us);
            self.report_when_due()?;
            if busy && now_us < look_us {
                continue;
            }
            look_us = now_us + SUPERVISOR_POLL_US;
            if self.sleep(busy) && self.receive()?.is_break() {
                return Ok(());
            }
        }
    }

    /// Sleeps until there is work. Returns whether the supervisor has sent a message.
    fn sleep(&mut self, busy: bool) -> bool {
        let (inward, shared) = (&self.inward, &self.inward.shared);
        let now_us = shared.clock.now_us();
        let limit = if busy {
            Some(Duration::ZERO)
        } else {
            let until = shared.clock.until(inward.due_us(now_us));
            if self.due.is_some() { Some(until.map_or(PASS_POLL, |until| until.min(PASS_POLL))) } else { until }
        };
        let mut polled = [(shared.main.as_fd(), PollFlags::POLLIN); POLLED];
        polled[1] = (self.supervisor.as_fd(), PollFlags::POLLIN);
        polled[2..].iter_mut().zip(inward.interests(now_us)).for_each(|(polled, interest)| *polled = interest);
        let found = wait(polled, limit);
        if !found[0].is_empty() {
            shared.main.clear();
        }
        let paths = shared.sockets.len().min(MAX_PATHS);
        for path in (0..paths).filter(|path| found[2 + path].contains(PollFlags::POLLERR)) {
            self.inward.forget_errors(path);
        }
        !found[1].is_empty()
    }

    /// Takes one message of the supervisor.
    fn receive(&mut self) -> Result<ControlFlow<()>, Error> {
        let shared = Arc::clone(&self.inward.shared);
        match self.supervisor.recv()? {
            None => return Ok(ControlFlow::Break(())),
            Some((ToWorker::Report, _)) => {
                shared.asked.store(true, Relaxed);
                self.request_report();
            }
            Some((ToWorker::Reset(counts), _)) => self.reset(counts),
            Some((ToWorker::Remote(path, Address(address)), _)) => self.inward.tell(path.into(), address),
            Some((ToWorker::Start { .. } | ToWorker::Secrets(_), _)) => {
                return Err(Error::Violation("second start"));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Requests a pass of the outward loop, for a report.
    fn request_report(&mut self) {
        let shared = &self.inward.shared;
        self.due.get_or_insert(shared.passes.load(Relaxed));
        shared.outward.wake();
    }

    /// Reports once the outward loop has passed since the report became due, or was found to be idle. The inward loop, which runs
    /// this, has passed as well.
    fn report_when_due(&mut self) -> Result<(), Error> {
        if self.due.is_some_and(|seen| self.inward.shared.passes.load(Relaxed) != seen) {
            self.due = None;
            self.report()?;
        }
        Ok(())
    }

    /// Sends a message unless the channel is full: a stopped supervisor must not stop forwarding.
    fn try_send(&self, message: &FromWorker) -> Result<bool, Error> {
        match self.supervisor.try_send(message) {
            Ok(()) => Ok(true),
            Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reports a change, unless there were too many. It is then reported later.
    fn try_send_change(&mut self, message: &FromWorker) -> Result<bool, Error> {
        let said = self.changes < CHANGES && self.try_send(message)?;
        self.changes += u32::from(said);
        Ok(said)
    }

    /// Reports changes: in each tick, and before a requested report. Network and requests raise the rate, up to [`CHANGES`].
    fn send_changes(&mut self, now_us: u64) -> Result<(), Error> {
        let state = self.inward.session.report(now_us);
        self.inward.after_session();
        self.announced.paths.resize(state.paths.len(), PathReport::default());
        for (path, now) in state.paths.iter().enumerate() {
            let number = u8::try_from(path).unwrap_or(u8::MAX);
            let said = self.announced.paths[path];
            if let Some(address) = now.learned.filter(|_| now.learned != said.learned)
                && self.try_send_change(&FromWorker::Learned(number, address))?
            {
                self.announced.paths[path].learned = now.learned;
            }
            if now.health != said.health && self.try_send_change(&FromWorker::Health(number, now.health))? {
                self.announced.paths[path].health = now.health;
            }
        }
        if state.tick != self.announced.tick {
            self.announced.tick = state.tick;
            if self.inward.port_has_something() || state.tick.is_multiple_of(WAKE_TICKS) {
                self.request_report();
            } else {
                // Counts as passed: the outward loop has nothing to do and stays asleep.
                self.due.get_or_insert(self.inward.shared.passes.load(Relaxed).wrapping_sub(1));
            }
        }
        let reason = move_reason(&state, self.announced.active);
        if state.active != self.announced.active && self.try_send_change(&FromWorker::Active(state.active, reason))? {
            self.announced.active = state.active;
        }
        Ok(())
    }

    /// Sends the report in pieces. Pieces without room precede the next report, so that the supervisor can assemble each report.
    fn report(&mut self) -> Result<(), Error> {
        let now_us = self.inward.shared.clock.now_us();
        self.send_changes(now_us)?;
        let counters = &self.inward.shared.counters;
        let mut state = self.inward.session.report(now_us);
        (state.port, state.seal) = (counters.port.snapshot(), counters.seal.snapshot());
        state.blocked = now_us < self.inward.shared.blocked_until_us.load(Relaxed);
        for (path, counters) in state.paths.iter_mut().zip(&counters.paths) {
            path.counters = counters.snapshot();
        }
        if self.unsent.is_empty() {
            self.reported.1 = state.tick;
            self.unsent.extend(Reports::pieces(state));
        }
        while let Some(piece) = self.unsent.front()
            && self.try_send(&FromWorker::Report(piece.clone()))?
        {
            self.unsent.pop_front();
        }
        let (whole, told) = &mut self.reported;
        if self.unsent.is_empty() && told > whole {
            (*whole, self.changes) = (*told, 0);
        }
        Ok(())
    }

    fn reset(&mut self, counts: Counts) {
        self.inward.session.reset(counts);
        let counters = &self.inward.shared.counters;
        counters.port.reset(counts);
        counters.seal.reset(counts);
        counters.paths.iter().for_each(|path| path.reset(counts));
    }
}

/// Reason why frames have left a path: its last change if that was just now, else the last one of their new path.
fn move_reason(state: &State, before: u8) -> Option<ChangeReason> {
    let change = |path: u8| state.paths.get(usize::from(path))?.change.filter(|change| change.age_ms < RECENT_MS);
    change(before).or_else(|| change(state.active)).map(|change| change.reason)
}

#[cfg(test)]
mod tests {
    use privsep::ipc::{self, PathHealth};

    use super::*;
    use crate::forward::rig::{Rig, local};

    /// Ticks of the reports that have arrived.
    fn ticks(from: &Channel<ToWorker, FromWorker>, reports: &mut Reports) -> Vec<u64> {
        let mut ticks = Vec::new();
        while !wait([(from.as_fd(), PollFlags::POLLIN)], Some(Duration::ZERO))[0].is_empty() {
            if let FromWorker::Report(piece) = from.recv().unwrap().unwrap().0 {
                ticks.extend(reports.take(piece).unwrap().map(|state| state.tick));
            }
        }
        ticks
    }

    #[test]
    fn report_waits_for_busy_loop() {
        let (ours, theirs) = ipc::pair().unwrap();
        let (ours, theirs) = (SupervisorChannel::new(ours), Channel::<ToWorker, FromWorker>::new(theirs));
        let Rig { inward, mut outward, port, .. } = Rig::plain(1);
        let (mut control, mut reports) = (Control::new(&ours, inward, State::default()), Reports::default());
        let mut next = (1..).map(|number| {
            let now_us = (number - 1) * 1_000_000;
            control.inward.on_time(now_us);
            control.send_changes(now_us).unwrap();
            control.report_when_due().unwrap();
            ticks(&theirs, &mut reports)
        });
        let mut some = |count| next.by_ref().take(count).collect::<Vec<_>>().concat();
        assert_eq!(some(2), [1, 2]);
        // The outward loop is woken every third tick. A due report waits for its pass.
        assert_eq!(some(2), []);
        outward.turn();
        assert_eq!(some(1), [5]);
        assert_eq!(some(1), []);
        outward.turn();
        assert_eq!(some(1), [7]);
        port.send(&local(1)).unwrap();
        assert_eq!(some(3), []);
        outward.turn();
        assert_eq!(some(1), [11]);
    }

    #[test]
    fn reported_changes_are_bounded() {
        let (ours, theirs) = ipc::pair().unwrap();
        let (ours, theirs) = (SupervisorChannel::new(ours), Channel::<ToWorker, FromWorker>::new(theirs));
        let Rig { inward, .. } = Rig::plain(2);
        let mut control = Control::new(&ours, inward, State::default());
        for tick in 0..3 {
            control.inward.on_time(tick * 1_000_000);
            // As in a network that changes faster than any reader.
            for _ in 0..30 {
                for path in &mut control.announced.paths {
                    path.health = PathHealth::Down;
                }
                control.report().unwrap();
            }
            let (mut seen, mut reported, mut ticks) = (0, Reports::default(), Vec::new());
            for _ in 0..CHANGES + 30 * 3 {
                match theirs.recv().unwrap().unwrap().0 {
                    FromWorker::Report(piece) => ticks.extend(reported.take(piece).unwrap().map(|state| state.tick)),
                    FromWorker::Health(..) => seen += 1,
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!((seen, ticks), (CHANGES, vec![tick + 1; 30]), "{tick}");
        }
    }
}
