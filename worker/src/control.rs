//! Start, the conversation with the supervisor, and the tick.

use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use privsep::PROTOCOL;
use privsep::confine::seccomp::Allowed;
use privsep::ipc::{
    Address, Channel, Counts, Error, FromWorker, Handles, Never, PathReport, PortKind, State, ToWorker, WorkerConfig,
};
use privsep::sys::process;

use crate::batch::Batch;
use crate::forward::{Clock, Egress, Ingress, Shared};
use crate::io::wait_readable;
use crate::path::remote::{Remote, To};
use crate::path::{Outlet, Path, Splitting, health};
use crate::port::Port;
use crate::rules::Rules;
use crate::wire::classic::{Codec, PING, PONG};
use crate::wire::password::Password;
use crate::{benchmark, counters, seal};

/// Length of a tick.
const TICK: Duration = Duration::from_secs(1);
/// Longest text of last words in bytes.
const LAST_WORDS: usize = 500;

type Supervisor = Channel<FromWorker, ToWorker>;

/// The whole worker, sealed with this table of system calls. Ends when the supervisor does, with the process.
pub fn run(table: &[Allowed]) -> ExitCode {
    let supervisor = match seal::before_reading().and_then(|()| process::inherited(process::SUPERVISOR_FD)) {
        Ok(socket) => Arc::new(Supervisor::new(socket)),
        // Not started by the supervisor: there is somebody to read this.
        Err(error) => {
            eprintln!("ethudp-worker: not to be started by hand: {error}");
            return ExitCode::FAILURE;
        }
    };
    report_panics(Arc::clone(&supervisor));
    match work(&supervisor, table) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = supervisor.send(&FromWorker::Dying(last_words(&error.to_string())), &[]);
            ExitCode::FAILURE
        }
    }
}

fn last_words(text: &str) -> String {
    text.chars().take(LAST_WORDS / 4).collect()
}

/// A panic says its last words to the supervisor; then it aborts the process.
fn report_panics(supervisor: Arc<Supervisor>) {
    std::panic::set_hook(Box::new(move |info| {
        let _ = supervisor.try_send(&FromWorker::Dying(last_words(&info.to_string())));
    }));
}

fn work(supervisor: &Supervisor, table: &[Allowed]) -> Result<(), Error> {
    let Some((message, _)) = supervisor.recv()? else { return Ok(()) };
    let config = match message {
        ToWorker::Start(PROTOCOL, config) => config,
        ToWorker::Benchmark(PROTOCOL, config, sizes) => {
            seal::for_good(seal::before_threads()?, table)?;
            return supervisor.send(&FromWorker::Benchmark(benchmark::measure(&config, &sizes)), &[]);
        }
        _ => return Err(Error::Violation("supervisor and worker are of different versions")),
    };
    let Some(handles) = receive_handles(&config)? else { return Ok(()) };
    let control = Control::new(*config, handles);
    let confinement = seal::before_threads()?;
    let gate = control.start_threads()?;
    let confinement = seal::for_good(confinement, table)?;
    gate.wait();
    supervisor.send(&FromWorker::Sealed(confinement), &[])?;
    control.run(supervisor)
}

/// Receives the handles and closes the helper's socket; `None` when it has ended.
fn receive_handles(config: &WorkerConfig) -> Result<Option<Vec<OwnedFd>>, Error> {
    let helper = Channel::<Never, Handles>::new(process::inherited(process::HANDLES_FD)?);
    match helper.recv()? {
        Some((Handles { paths }, handles)) if usize::from(paths) == config.remotes.len() && paths > 0 => {
            Ok(Some(handles))
        }
        Some(_) => Err(Error::Violation("wrong number of handles")),
        None => Ok(None),
    }
}

/// What the main thread works with.
struct Control {
    shared: Arc<Shared>,
    state: State,
    /// The sealed message with our password.
    secret: Option<Batch>,
    keepalive: bool,
    drain: bool,
    exit_after: Option<u64>,
    outlet: Outlet,
    /// Passes of each loop when the heartbeat came.
    seen: Vec<u64>,
    /// Heartbeat that waits for an answer.
    heartbeat: Option<u64>,
}

impl Control {
    fn new(config: WorkerConfig, handles: Vec<OwnedFd>) -> Self {
        let WorkerConfig {
            port: kind,
            cipher,
            key,
            compress,
            fragment_mtu,
            password,
            remotes,
            rules,
            keepalive,
            drain,
            exit_after,
            mut state,
        } = config;
        state.paths.resize(remotes.len(), PathReport::default());
        let codec = Codec::new(cipher, key.expose(), compress);
        let password = Password::new(password.expose());
        drop(key);
        let mut handles = handles.into_iter();
        // The number of descriptors has been checked.
        let Some(handle) = handles.next() else { unreachable!("no port handle") };
        let port = Port { kind, handle, counters: counters::Port::new(&state.port) };
        let paths = handles.zip(&state.paths).zip(&remotes).map(|((socket, report), remote)| Path {
            socket,
            remote: Remote::new(remote, report.learned),
            counters: counters::Path::new(&report.counters),
            last_pong: AtomicU64::new(report.last_pong),
            ping_sent_us: AtomicU64::new(0),
            rtt_us: AtomicU64::new(report.rtt_us),
            received_us: AtomicU64::new(0),
        });
        // 28 bytes of IPv4 and UDP header, whatever the underlay is: that is the format.
        let splitting = fragment_mtu.map(|mtu| Splitting {
            limit: usize::from(mtu).saturating_sub(28),
            sequence: AtomicU16::new(state.fragment & !1),
        });
        let clock = Clock::new(remotes.len(), state.tick, state.active.into());
        let (ping, pong) = (codec.seal_message(PING), codec.seal_message(PONG));
        let secret = password.as_ref().map(|password| codec.seal_message(password.message()));
        let shared = Shared {
            port: Arc::new(port),
            paths: paths.collect(),
            codec,
            seal: counters::Seal::new(&state.seal),
            rules: Rules::new(&rules, kind == PortKind::Mirror { udp: true }),
            splitting,
            password,
            ping,
            pong,
            clock,
        };
        Self {
            shared: Arc::new(shared),
            state,
            secret,
            keepalive,
            drain,
            exit_after,
            outlet: Outlet::new(),
            seen: Vec::new(),
            heartbeat: None,
        }
    }

    /// Starts every forwarding thread and returns the gate behind which they wait: all their own start is done by then,
    /// so that the seal needs no call that only starting threads make.
    fn start_threads(&self) -> std::io::Result<Arc<Barrier>> {
        let threads = 1 + self.shared.paths.len();
        let (ready, gate) = (Arc::new(Barrier::new(threads + 1)), Arc::new(Barrier::new(threads + 1)));
        let pass = |ready: &Arc<Barrier>, gate: &Arc<Barrier>| {
            let (ready, gate) = (Arc::clone(ready), Arc::clone(gate));
            move || {
                ready.wait();
                gate.wait();
            }
        };
        let drain = self.drain;
        let mut egress = Egress::new(Arc::clone(&self.shared));
        let wait = pass(&ready, &gate);
        thread::Builder::new().name("egress".into()).spawn(move || {
            wait();
            if drain {
                egress.drain();
            }
            egress.run()
        })?;
        for index in 0..self.shared.paths.len() {
            let mut ingress = Ingress::new(Arc::clone(&self.shared), index);
            let wait = pass(&ready, &gate);
            thread::Builder::new().name(format!("ingress-{index}")).spawn(move || {
                wait();
                if drain {
                    ingress.drain();
                }
                ingress.run()
            })?;
        }
        ready.wait();
        Ok(gate)
    }

    /// Ticks, and answers the supervisor until it ends.
    fn run(mut self, supervisor: &Supervisor) -> Result<(), Error> {
        let mut next_tick = Instant::now();
        loop {
            let now = Instant::now();
            if now >= next_tick {
                if !self.tick(supervisor)? {
                    return Ok(());
                }
                // A process that was stopped does not make up for the ticks it missed.
                next_tick = (next_tick + TICK).max(now);
            }
            self.answer_heartbeat(supervisor)?;
            let mut sleep = next_tick.saturating_duration_since(Instant::now());
            if self.heartbeat.is_some() {
                sleep = sleep.min(Duration::from_millis(50));
            }
            if !wait_readable(supervisor.as_fd(), sleep) {
                continue;
            }
            match supervisor.recv()? {
                None => return Ok(()),
                Some((ToWorker::Heartbeat(number), _)) => {
                    (self.heartbeat, self.seen) = (Some(number), self.passes());
                }
                Some((ToWorker::Report, _)) => {
                    // An answer that has come since the tick counts: nobody sees a round trip on a path that connects.
                    self.judge(supervisor)?;
                    supervisor.send(&FromWorker::Report(self.report()), &[])?;
                }
                Some((ToWorker::Reset(counts), _)) => self.reset(counts),
                Some((ToWorker::Start(..) | ToWorker::Benchmark(..), _)) => {
                    return Err(Error::Violation("second start"));
                }
            }
        }
    }

    /// One pass of the keepalive, in the original's order; false when the last tick is over.
    fn tick(&mut self, supervisor: &Supervisor) -> Result<bool, Error> {
        let shared = Arc::clone(&self.shared);
        self.state.tick += 1;
        shared.clock.tick.store(self.state.tick, Relaxed);
        if self.exit_after.is_some_and(|last| self.state.tick > last) {
            supervisor.send(&FromWorker::Finished, &[])?;
            return Ok(false);
        }
        if self.keepalive {
            self.send_passwords();
        }
        if self.keepalive {
            shared.paths.iter().for_each(|path| self.ping(path));
        }
        self.judge(supervisor)?;
        Ok(true)
    }

    /// Decides about the health of every path, and by which frames leave.
    fn judge(&mut self, supervisor: &Supervisor) -> Result<(), Error> {
        for index in 0..self.shared.paths.len() {
            self.check_health(index, supervisor)?;
        }
        self.choose_active(supervisor)
    }

    /// Who has a fixed address is told our password; who is behind NAT must tell us theirs.
    fn send_passwords(&mut self) {
        let Some(secret) = &self.secret else { return };
        for path in self.shared.paths.iter().filter(|path| !path.remote.is_learned()) {
            self.outlet.send(path, secret, self.shared.splitting.as_ref());
        }
    }

    fn ping(&mut self, path: &Path) {
        if matches!(path.remote.to(), To::Nobody) {
            return;
        }
        path.ping_sent_us.store(self.shared.clock.now_us(), Relaxed);
        if self.outlet.send(path, &self.shared.ping, self.shared.splitting.as_ref()) {
            path.counters.pings_sent.add(1);
        }
    }

    fn check_health(&mut self, index: usize, supervisor: &Supervisor) -> Result<(), Error> {
        let (path, report) = (&self.shared.paths[index], &mut self.state.paths[index]);
        let number = u8::try_from(index).unwrap_or(u8::MAX);
        let learned = learned(path);
        if let Some(address) = learned.filter(|_| learned != report.learned) {
            report.learned = learned;
            supervisor.send(&FromWorker::Learned(number, address), &[])?;
        }
        let health = health::next(report.health, self.state.tick, path.last_pong.load(Relaxed));
        if health != report.health {
            report.health = health;
            supervisor.send(&FromWorker::Health(number, health), &[])?;
        }
        Ok(())
    }

    fn choose_active(&mut self, supervisor: &Supervisor) -> Result<(), Error> {
        let before = self.shared.clock.active.load(Relaxed);
        let health: Vec<_> = self.state.paths.iter().map(|report| report.health).collect();
        let active = health::active(&health, self.state.tick, before);
        if active != before {
            self.shared.clock.active.store(active, Relaxed);
            self.state.active = u8::try_from(active).unwrap_or(u8::MAX);
            supervisor.send(&FromWorker::Active(self.state.active), &[])?;
        }
        Ok(())
    }

    fn passes(&self) -> Vec<u64> {
        self.shared.clock.passes.iter().map(|passes| passes.load(Relaxed)).collect()
    }

    /// Answers a waiting heartbeat once every loop has passed since it came.
    fn answer_heartbeat(&mut self, supervisor: &Supervisor) -> Result<(), Error> {
        let Some(number) = self.heartbeat else { return Ok(()) };
        if self.passes().iter().zip(&self.seen).all(|(now, seen)| now != seen) {
            self.heartbeat = None;
            supervisor.send(&FromWorker::Alive(number), &[])?;
        }
        Ok(())
    }

    fn reset(&self, counts: Counts) {
        let Shared { port, seal, paths, .. } = &*self.shared;
        match counts {
            Counts::Pings => {
                for path in paths {
                    path.counters.reset_pings();
                }
            }
            Counts::Traffic => {
                port.counters.reset_traffic();
                seal.reset_traffic();
                for path in paths {
                    path.counters.reset_traffic();
                }
            }
        }
    }

    fn report(&self) -> State {
        let now = self.shared.clock.now_us();
        let age = |received: u64| (received > 0).then(|| now.saturating_sub(received) / 1000);
        let paths = self.shared.paths.iter().zip(&self.state.paths).map(|(path, report)| PathReport {
            health: report.health,
            learned: learned(path),
            last_pong: path.last_pong.load(Relaxed),
            rtt_us: path.rtt_us.load(Relaxed),
            last_rx_ms: age(path.received_us.load(Relaxed)),
            counters: path.counters.snapshot(),
        });
        State {
            tick: self.state.tick,
            active: self.state.active,
            fragment: self.shared.splitting.as_ref().map_or(0, |splitting| splitting.sequence.load(Relaxed)),
            port: self.shared.port.counters.snapshot(),
            seal: self.shared.seal.snapshot(),
            paths: paths.collect(),
        }
    }
}

/// The address of a path's peer where it is learned.
fn learned(path: &Path) -> Option<Address> {
    path.remote.address().filter(|_| path.remote.is_learned()).map(Address)
}
