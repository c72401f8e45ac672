//! Loop of the supervisor after it has dropped its privileges.

mod carrier;
mod names;
mod report;

use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signalfd::SignalFd;
use privsep::ipc::{Address, Confinement, Counts, PathHealth, Remote, Timestamp};
use sd_notify::NotifyState;

use crate::error::Context;
use crate::process::{Readable, take_signals, wait};
use crate::service::control_socket::ControlSocket;
use crate::service::descriptor_store::Starts;
use crate::service::notify::Notify;
use crate::status;
use crate::supervise::children::helper::Helper;
use crate::supervise::children::memory::Shortage;
use crate::supervise::children::resolver::Resolver;
use crate::supervise::children::restart::{Death, History, Verdict};
use crate::supervise::children::resume;
use crate::supervise::children::worker::{Event, Setup, Worker};
use crate::supervise::log_budget::LogBudget;
use crate::supervise::policy::{OnSignal, Policies, TicksOver};
use crate::supervise::renewal::names::Names;
use crate::supervise::renewal::repair::{self, Need};
use crate::supervise::renewal::{late, starts};
use crate::supervise::requests::Requests;
use crate::supervise::watch::Watches;
use crate::supervise::watch::carrier::Carrier;
use crate::supervise::watch::link::{Fate, LinkWatch, Trouble};
use crate::supervise::watch::session::Line;
use crate::tunnel::Tunnel;
use crate::tunnel::resolve::Resolved;
use crate::{Error, log};

/// Age over which waiting frames are not delivered.
const STALE: Duration = Duration::from_millis(200);
/// Longest sleep when nothing is due.
const IDLE: Duration = Duration::from_secs(5);

/// Interval of unrequested statistics.
const HOUR: Duration = Duration::from_secs(3600);

/// State of a running tunnel, and the inputs of its workers.
pub struct Parts {
    /// Start of the program.
    pub began: Instant,
    /// Input of each worker.
    pub setup: Setup,
    /// The paths.
    pub paths: Vec<Resolved>,
    /// Whether privileges came from root, which can give workers an empty network namespace.
    pub by_root: bool,
    /// Whether the workers run in an empty network namespace.
    pub in_empty_network: bool,
    /// Watch over the local interface.
    pub link: LinkWatch,
    /// Watch over faults that only a new start repairs.
    pub late: late::Watch,
    /// Names of peers.
    pub names: Names,
    /// Watch over kills by the kernel for lack of memory.
    pub shortage: Shortage,
    /// Policies of the tunnel's user.
    pub policies: Policies,
}

/// Supervisor of a running tunnel: one thread, one loop, no privileges.
///
/// **Life**: [`Supervisor::new`] takes the results of the start, and [`Supervisor::run`] owns them until the tunnel ends. Returning
/// drops the helper and the worker, which ends both. Each `step` first handles deadlines, then waits for a descriptor, and then handles
/// readable ones.
///
/// **Due by time**: `on_time` calls `repair` (a new start of the program), `look_up` (names of peers), `start_worker`, and handles a late report.
///
/// **Events**: `on_signals`, `on_worker` for one message of the worker, `on_helper` for the end of the helper, `on_resolver` for the
/// addresses of a name, `on_request` for a status request, `on_name` and `on_local_side` for the local interface. They run in this
/// order.
///
/// **Workers**: `start_worker` → `on_confined` → reports → `worker_ended` or `worker_finished` → `replace` sets when the next one
/// starts. A report first passes [`resume::accept`]; only then does it become the state of the tunnel, and the watches look at it.
///
/// **Owners**: `children` owns the processes, `parts` the state of the tunnel and the input of the next worker, `watches` the
/// observations of paths, session and sizes, `renewal` the schedule of new starts of the program. Service manager and signals
/// outlive the supervisor.
pub struct Supervisor<'a> {
    tunnel: &'a Tunnel,
    parts: Parts,
    children: Children,
    watches: Watches,
    renewal: Renewal<'a>,
    /// Name of the local interface in the last log line about it.
    interface: String,
    signals: &'a SignalFd,
    control: ControlSocket,
    requests: Requests,
    notify: &'a mut Notify,
    /// Status line at the service manager.
    status_line: String,
    /// Budget of log lines that workers cause.
    budget: LogBudget,
    /// Whether statistics are logged with the next report.
    statistics_wanted: bool,
    /// Time of the next unrequested statistics.
    statistics_due: Instant,
}

/// Processes of the tunnel, and the replacement of its workers.
struct Children {
    /// `None` once the helper has ended.
    helper: Option<Helper>,
    /// `None` without a name, and once the resolver has ended.
    resolver: Option<Resolver>,
    worker: Option<Worker>,
    /// Start time of the next worker, while none runs.
    start_at: Instant,
    /// Time since which no frame is forwarded, while none is.
    stopped: Option<Instant>,
    history: History,
    restarts: u64,
    confinement: Confinement,
}

/// New starts of the program.
struct Renewal<'a> {
    schedule: repair::Schedule,
    /// Starts in a row before this one, until they are forgotten.
    starts: &'a mut Starts,
}

/// Whether the supervisor ends a worker because of its behaviour.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blame {
    None,
    Worker,
}

impl<'a> Supervisor<'a> {
    pub fn new(
        tunnel: &'a Tunnel,
        parts: Parts,
        (helper, resolver): (Helper, Option<Resolver>),
        signals: &'a SignalFd,
        control: ControlSocket,
        notify: &'a mut Notify,
        starts: &'a mut Starts,
    ) -> Self {
        let now = Instant::now();
        Self {
            watches: Watches::new(now, parts.began, tunnel, &parts.setup.settings, parts.link.has_carrier()),
            children: Children {
                helper: Some(helper),
                resolver,
                worker: None,
                start_at: now,
                stopped: None,
                history: History::new(),
                restarts: 0,
                confinement: Confinement::default(),
            },
            renewal: Renewal {
                schedule: repair::Schedule::new(now, tunnel.repair, notify.is_connected(), *starts),
                starts,
            },
            interface: parts.link.link().name.clone(),
            tunnel,
            parts,
            signals,
            control,
            requests: Requests::default(),
            notify,
            status_line: String::new(),
            budget: LogBudget::new(now),
            statistics_wanted: false,
            statistics_due: now + HOUR,
        }
    }

    /// Runs until a signal or a hopeless state ends the tunnel. Calls `ready` when the first worker forwards.
    pub fn run(mut self, ready: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let mut ready = Some(ready);
        self.on_local_side();
        // Returning drops both children, which kills them and waits. Interface and sockets vanish with their last descriptor.
        loop {
            if self.step().inspect_err(|error| self.end_carrier(error))?.is_break() {
                return Ok(());
            }
            self.follow_paths();
            self.say_status();
            let forwards = self.children.worker.as_ref().is_some_and(|worker| worker.confined.is_some());
            if let Some(ready) = ready.take_if(|_| forwards) {
                self.notify.tell(&[NotifyState::Ready], None);
                ready()?;
            }
        }
    }

    /// Waits for the next event and handles it.
    fn step(&mut self) -> Result<ControlFlow<()>, Error> {
        let now = Instant::now();
        self.on_time(now)?;
        let keep_alive = self.notify.keep_alive(now);
        let due = self.next_deadline(now);
        let limit = keep_alive.map_or(due, |next| next.min(due)).saturating_duration_since(now);
        // Rounded up, so that a deadline has passed when the wait ends.
        let limit = u16::try_from(limit.as_millis() + 1).unwrap_or(u16::MAX);
        let signals = self.signals.as_fd();
        // The signal descriptor stands in for a missing process.
        let worker = self.children.worker.as_ref().map_or(signals, |worker| worker.channel.as_fd());
        let helper = self.children.helper.as_ref().map_or(signals, |helper| helper.channel.as_fd());
        let resolver = self.children.resolver.as_ref().map_or(signals, AsFd::as_fd);
        let control = self.control.listener.as_fd();
        let descriptors = [signals, worker, helper, resolver, control, self.parts.link.as_fd()];
        let Readable([signal, worker, helper, resolver, request, link]) =
            wait(descriptors, limit).context(|| "waiting for events".into())?;
        if signal && self.on_signals().is_break() {
            return Ok(ControlFlow::Break(()));
        }
        if worker && self.children.worker.is_some() && self.on_worker()?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        if helper && self.children.helper.is_some() {
            self.on_helper()?;
        }
        if resolver && self.children.resolver.is_some() {
            self.on_resolver(now);
        }
        if request {
            self.on_request();
        }
        match if link { self.parts.link.take() } else { Fate::Same } {
            Fate::Same => self.on_name(),
            Fate::Changed => {
                self.on_name();
                self.on_local_side();
            }
            Fate::Gone => {
                // A TAP vanishes when helper and worker are dead. Then the missing helper is the error.
                self.helper()?;
                return Err(Error::failure(format!("interface {:?}: removed", self.interface)));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn next_deadline(&self, now: Instant) -> Instant {
        let worker = match &self.children.worker {
            None => self.children.start_at,
            Some(worker) => worker.late_at(),
        };
        let names = self.parts.names.due(|path| self.in_use(path));
        let answer = self.children.resolver.as_ref().and_then(Resolver::late_at);
        // While frames pass, each report puts the end of the carrier off.
        let carrier = self.watches.carrier.as_ref().and_then(Carrier::due).filter(|due| *due > now);
        let due = [self.requests.due(now), names, answer, carrier].into_iter().flatten().fold(worker, Instant::min);
        due.min(now + IDLE)
    }

    /// Handles deadlines: a new worker, a late report, statistics, and requests that have waited long enough.
    fn on_time(&mut self, now: Instant) -> Result<(), Error> {
        self.repair(now)?;
        self.look_up(now);
        if self.children.worker.is_none() && now >= self.children.start_at {
            self.start_worker()?;
        }
        let silent = |worker: &mut Worker| now >= worker.late_at() && worker.miss_report(now);
        if let Some(worker) = &mut self.children.worker
            && silent(worker)
        {
            let what = if worker.confined.is_some() { "report for three seconds" } else { "confine itself in time" };
            log::error(&format!("worker {}: killed, it did not {what}", worker.pid()));
            self.worker_ended(Blame::Worker)?;
        }
        if let Some(count) = self.budget.left_out(now) {
            log::warning(&format!("{count} more messages about paths and addresses suppressed"));
        }
        if now >= self.statistics_due {
            self.statistics_due = now + HOUR;
            self.want_statistics();
            self.reset(Counts::Pings);
        }
        if self.requests.is_due(now) {
            self.answer_requests();
        }
        self.requests.go_on(now);
        Ok(())
    }

    /// Ends the tunnel for a new start when one is due.
    fn repair(&mut self, now: Instant) -> Result<(), Error> {
        for line in self.parts.late.look(now, &mut self.parts.link) {
            log::warning(&line);
        }
        let late = self.parts.late.need(now, &self.parts.setup.state.paths);
        let local = match self.parts.link.trouble() {
            Some(Trouble::OutOfBridge { .. }) => Some(Need::Bridge),
            Some(Trouble::NoAddress { .. }) => Some(Need::Address),
            _ => None,
        };
        let needs = self.children.helper.is_none().then_some(Need::Helper).into_iter().chain(local).chain(late);
        if let Some(need) = self.renewal.schedule.note(now, SystemTime::now(), needs) {
            return Err(Error::Again(need.cause(), need.reason().into()));
        }
        starts::keep(self.notify, self.renewal.starts, self.renewal.schedule.starts(now));
        Ok(())
    }

    /// Logs a new name of the interface.
    fn on_name(&mut self) {
        let name = &self.parts.link.link().name;
        if *name != self.interface {
            log::info(&format!("local side: interface {:?} renamed to {name:?}", self.interface));
            self.interface.clone_from(name);
        }
    }

    /// Logs a fault of the local side, or its end.
    fn on_local_side(&self) {
        match self.parts.link.trouble() {
            Some(trouble) => log::warning(&format!("local side: {trouble}")),
            None if self.children.worker.is_some() => log::info("local side: up again"),
            None => {}
        }
    }

    /// The helper, while it runs.
    fn helper(&self) -> Result<&Helper, Error> {
        let error = || Error::failure("helper ended: a new worker cannot get its handles");
        self.children.helper.as_ref().ok_or_else(error)
    }

    fn start_worker(&mut self) -> Result<(), Error> {
        self.parts.setup.drain |= self.children.stopped.is_some_and(|since| since.elapsed() > STALE);
        match Worker::start(self.helper()?, &self.parts.setup) {
            Ok(worker) => {
                log::debug(&format!("worker {} started", worker.pid()));
                self.children.worker = Some(worker);
            }
            // Memory or processes may be short for a moment.
            Err(error) => {
                log::error(&format!("cannot start a worker: {error}"));
                self.replace(Death { forwarded: None, crash: false })?;
            }
        }
        Ok(())
    }

    fn on_worker(&mut self) -> Result<ControlFlow<()>, Error> {
        let Some(worker) = &mut self.children.worker else { return Ok(ControlFlow::Continue(())) };
        match worker.receive(&self.parts.setup.state) {
            Ok(Some(Event::Confined(confinement))) => {
                log::info(&format!("worker {} forwards", worker.pid()));
                self.on_confined(confinement)?;
            }
            Ok(Some(Event::Health(path, health))) => self.on_health(path, health),
            Ok(Some(Event::Report(state))) => {
                self.parts.setup.state =
                    resume::accept(&self.parts.setup.state, state, &self.parts.paths, Timestamp::now());
                self.on_session();
                for (path, line) in self.watches.paths.note(Instant::now(), &self.parts.setup.state, &self.parts.names)
                {
                    self.say(log::warning, &format!("{}: {line}", self.path(path)));
                }
                if let Some(line) = self.watches.storm.note(
                    Instant::now(),
                    &self.parts.setup.state.port,
                    self.parts.setup.state.blocked,
                ) {
                    self.say(log::warning, &format!("local side: {line}"));
                }
                for line in self.watches.oversize.note(&self.parts.setup.state, &self.interface) {
                    log::warning(&line);
                }
                if self.statistics_wanted {
                    self.log_statistics();
                }
                self.answer_requests();
            }
            Ok(Some(Event::Active(path, reason))) => {
                self.parts.setup.state.active = u8::try_from(path).unwrap_or(u8::MAX);
                let reason = reason.map_or_else(String::new, |reason| format!(": {}", status::move_sentence(reason)));
                self.say(log::info, &format!("frames use {}{reason}", self.path(path)));
            }
            Ok(Some(Event::Learned(path, address))) => self.on_learned(path, address),
            Ok(Some(Event::Finished)) if !self.tunnel.exit_after.is_some_and(|ticks| worker.has_run(ticks)) => {
                log::error(&format!("worker {}: message out of place", worker.pid()));
                self.worker_ended(Blame::Worker)?;
            }
            Ok(Some(Event::Finished)) if self.parts.policies.ticks_over == TicksOver::End => {
                return Ok(ControlFlow::Break(()));
            }
            Ok(Some(Event::Finished)) => self.worker_finished(),
            Ok(Some(Event::Nothing)) => {}
            Ok(None) => self.worker_ended(Blame::None)?,
            Err(error) => {
                log::error(&format!("worker {}: {error}", worker.pid()));
                self.worker_ended(Blame::Worker)?;
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Logs news about the session of the secure wire.
    fn on_session(&mut self) {
        let Some(secure) = self.parts.setup.state.secure() else { return };
        match self.watches.session.note(Instant::now(), secure) {
            Some(Line::Good(line)) => self.say(log::info, &line),
            Some(Line::Bad(line)) => self.say(log::warning, &line),
            None => {}
        }
    }

    fn on_confined(&mut self, confinement: Confinement) -> Result<(), Error> {
        self.children.confinement = confinement;
        (self.children.stopped, self.parts.setup.drain) = (None, false);
        let lacks = status::lacks(&self.status().confinement, self.parts.by_root);
        if self.tunnel.require_confinement && !lacks.is_empty() {
            let lacks = lacks.join(", ");
            return Err(Error::configuration(format!("require-confinement: this kernel or container lacks {lacks}")));
        }
        Ok(())
    }

    fn worker_finished(&mut self) {
        self.children.worker = None;
        self.children.restarts += 1;
        let lasting = self.lasting();
        resume::begin_anew(&mut self.parts.setup.state, lasting);
        self.children.start_at = Instant::now();
    }

    fn on_learned(&mut self, path: usize, address: Address) {
        let Resolved { local, remote, .. } = self.parts.paths[path];
        if resume::may_be_peer(local, &remote, address.0)
            && let Some(report) = self.parts.setup.state.paths.get_mut(path)
        {
            // The local address in the report belongs to the earlier peer address.
            let before = report.learned.replace(address);
            report.local = None;
            match remote {
                Remote::Named { .. } if before.is_none_or(|before| before == address) => {}
                Remote::Named { .. } => self.say(log::info, &format!("{}: the name has this address", self.path(path))),
                _ => self.say(log::info, &format!("{}: peer address learned", self.path(path))),
            }
        }
    }

    /// Logs a line that a worker caused, within the budget.
    fn say(&mut self, log: fn(&str), text: &str) {
        if self.budget.may_say(Instant::now()) {
            log(text);
        }
    }

    /// Name of a path in messages.
    fn path(&self, path: usize) -> String {
        let (local, remote) = self.addresses(path);
        format!("path {local} to {remote}")
    }

    /// Local and remote address of a path. A learned address has precedence.
    fn addresses(&self, path: usize) -> (String, String) {
        let Resolved { local, remote, .. } = self.parts.paths[path];
        let learned = self.parts.setup.state.paths.get(path).and_then(|report| report.learned);
        let remote = match (remote, learned) {
            (Remote::Fixed(Address(address)), _)
            | (_, Some(Address(address)))
            | (Remote::Named { now: Some(Address(address)), .. }, None) => address.to_string(),
            (_, None) => self.tunnel.paths[path].remote.to_string(),
        };
        (local.to_string(), remote)
    }

    fn on_health(&mut self, path: usize, health: PathHealth) {
        if let Some(report) = self.parts.setup.state.paths.get_mut(path) {
            report.health = health;
        }
        let text = format!("{} is {}", self.path(path), status::PathState::from(health));
        self.say(if health == PathHealth::Down { log::warning } else { log::info }, &text);
    }

    /// Parts of a worker's state that may outlive it.
    fn lasting(&self) -> resume::Lasting {
        resume::Lasting { peer: self.tunnel.wire.peer_survives_worker(), health: self.tunnel.is_answered() }
    }

    /// Ends the worker and decides about the next one.
    fn worker_ended(&mut self, blame: Blame) -> Result<(), Error> {
        let Some(worker) = self.children.worker.take() else { return Ok(()) };
        let mut death = worker.end();
        let too_much = self.parts.shortage.has_killed();
        if too_much {
            log::warning(
                "out of memory: the kernel killed a process; raise the memory limit of the unit, or add memory",
            );
        }
        death.crash |= blame == Blame::Worker || too_much;
        let lasting = self.lasting();
        resume::carry_over(&mut self.parts.setup.state, lasting);
        // Frames that queued behind a frozen worker are too old by now.
        self.parts.setup.drain |= blame == Blame::Worker;
        self.replace(death)
    }

    /// Decides when the next worker starts, while there is none.
    fn replace(&mut self, death: Death) -> Result<(), Error> {
        let ready_once = self.children.restarts > 0 || death.forwarded.is_some();
        if !ready_once {
            return Err(Error::failure("worker ended before it was confined"));
        }
        self.children.restarts += 1;
        let now = Instant::now();
        self.children.stopped.get_or_insert(now);
        match self.children.history.note(now, death) {
            Verdict::Replace(delay) => self.children.start_at = now + delay,
            Verdict::GiveUp(reason) => return Err(Error::failure(reason)),
            Verdict::Attacked(reason) => return Err(Error::Attacked(reason.into())),
        }
        Ok(())
    }

    /// Handles the end of the helper. It sends nothing once all is open, so any event is its end.
    fn on_helper(&mut self) -> Result<(), Error> {
        self.children.helper = None;
        if self.watches.carrier.as_ref().is_some_and(|carrier| !carrier.is_on()) {
            return Err(Error::failure("helper ended: the interface has no carrier, and only the helper can set it"));
        }
        log::error("helper ended: forwarding continues, but a worker that dies cannot be replaced");
        Ok(())
    }

    fn on_signals(&mut self) -> ControlFlow<()> {
        let asked = take_signals(self.signals);
        if asked.end {
            log::info("stopping: signal received");
            return ControlFlow::Break(());
        }
        let Policies { on_user, on_hangup, .. } = self.parts.policies;
        for (comes, answer) in [(asked.user, on_user), (asked.hangup, on_hangup)] {
            match answer {
                _ if !comes => {}
                OnSignal::LogStatistics => self.want_statistics(),
                OnSignal::ResetCounts => self.reset(Counts::Traffic),
                OnSignal::Reload => {
                    log::warning("SIGHUP: reload is not supported; restart the tunnel instead");
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn reset(&mut self, counts: Counts) {
        self.parts.setup.state.reset(counts);
        if let Some(worker) = &mut self.children.worker {
            worker.reset(counts);
        }
    }
}
