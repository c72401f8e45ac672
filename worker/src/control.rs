//! Start, the conversation with the supervisor, and the tick.

use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use privsep::PROTOCOL;
use privsep::ipc::{Channel, Error, FromWorker, Handles, Never, PathReport, State, ToWorker, WorkerConfig};
use privsep::sys::process;

use crate::forward::{Egress, Ingress, Shared};
use crate::io::wait_readable;
use crate::path::{Outlet, Path, health};
use crate::port::Port;
use crate::wire::classic::Codec;
use crate::{counters, seal};

/// Length of a tick.
const TICK: Duration = Duration::from_secs(1);
/// Longest text of last words in bytes.
const LAST_WORDS: usize = 500;

type Supervisor = Channel<FromWorker, ToWorker>;

/// The whole worker. Ends when the supervisor does, with the process.
pub fn run() -> ExitCode {
    let supervisor = match seal::before_reading().and_then(|()| process::inherited(process::SUPERVISOR_FD)) {
        Ok(socket) => Arc::new(Supervisor::new(socket)),
        // Not started by the supervisor: there is somebody to read this.
        Err(error) => {
            eprintln!("ethudp-worker: not to be started by hand: {error}");
            return ExitCode::FAILURE;
        }
    };
    report_panics(Arc::clone(&supervisor));
    match work(&supervisor) {
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

fn work(supervisor: &Supervisor) -> Result<(), Error> {
    let Some((message, _)) = supervisor.recv()? else { return Ok(()) };
    let ToWorker::Start(PROTOCOL, config) = message else {
        return Err(Error::Violation("supervisor and worker are of different versions"));
    };
    let Some(handles) = receive_handles(&config)? else { return Ok(()) };
    let control = Control::new(*config, handles);
    let confinement = seal::before_threads()?;
    let gate = control.start_threads()?;
    let confinement = seal::for_good(confinement)?;
    gate.wait();
    supervisor.send(&FromWorker::Sealed(confinement), &[])?;
    control.run(supervisor)
}

/// Receives the handles and closes the helper's socket; `None` when it has ended.
fn receive_handles(config: &WorkerConfig) -> Result<Option<Vec<OwnedFd>>, Error> {
    let helper = Channel::<Never, Handles>::new(process::inherited(process::HANDLES_FD)?);
    match helper.recv()? {
        Some((Handles { paths }, handles)) if paths == config.paths && paths > 0 => Ok(Some(handles)),
        Some(_) => Err(Error::Violation("wrong number of handles")),
        None => Ok(None),
    }
}

/// What the main thread works with.
struct Control {
    shared: Arc<Shared>,
    state: State,
    outlet: Outlet,
    /// Passes of each loop at the last answered heartbeat.
    seen: Vec<u64>,
    /// Heartbeat that waits for an answer.
    heartbeat: Option<u64>,
}

impl Control {
    fn new(config: WorkerConfig, handles: Vec<OwnedFd>) -> Self {
        let WorkerConfig { port: kind, cipher, key, paths: count, mut state } = config;
        state.paths.resize(usize::from(count), PathReport::default());
        let codec = Codec::new(cipher, key.expose());
        drop(key);
        let mut handles = handles.into_iter();
        // The number of descriptors has been checked.
        let Some(handle) = handles.next() else { unreachable!("no port handle") };
        let port = Port { kind, handle, counters: counters::Port::new(&state.port) };
        let paths = handles.zip(&state.paths).map(|(socket, report)| Path {
            socket,
            counters: counters::Path::new(&report.counters),
            last_pong: AtomicU64::new(report.last_pong),
            ping_sent_us: AtomicU64::new(0),
            rtt_us: AtomicU64::new(report.rtt_us),
        });
        let shared = Shared::new(Arc::new(port), paths.collect(), codec, state.tick);
        let seen = vec![0; shared.passes.len()];
        Self { shared: Arc::new(shared), state, outlet: Outlet::new(), seen, heartbeat: None }
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
        let egress = Egress::new(Arc::clone(&self.shared));
        let wait = pass(&ready, &gate);
        thread::Builder::new().name("egress".into()).spawn(move || {
            wait();
            egress.run()
        })?;
        for index in 0..self.shared.paths.len() {
            let ingress = Ingress::new(Arc::clone(&self.shared), index);
            let wait = pass(&ready, &gate);
            thread::Builder::new().name(format!("ingress-{index}")).spawn(move || {
                wait();
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
                self.tick(supervisor)?;
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
                Some((ToWorker::Heartbeat(number), _)) => self.heartbeat = Some(number),
                Some((ToWorker::Report, _)) => supervisor.send(&FromWorker::Report(self.report()), &[])?,
                Some((ToWorker::Start(..), _)) => return Err(Error::Violation("second start")),
            }
        }
    }

    /// One PING on every path, then a look at its health, as the original's order is.
    fn tick(&mut self, supervisor: &Supervisor) -> Result<(), Error> {
        if self.shared.port_gone.load(Relaxed) {
            supervisor.send(&FromWorker::PortGone, &[])?;
        }
        self.state.tick += 1;
        self.shared.tick.store(self.state.tick, Relaxed);
        for (index, (path, report)) in self.shared.paths.iter().zip(&mut self.state.paths).enumerate() {
            path.ping_sent_us.store(self.shared.now_us(), Relaxed);
            if self.outlet.send_message(path, &self.shared.ping) {
                path.counters.pings_sent.add(1);
            }
            let health = health::next(report.health, self.state.tick, path.last_pong.load(Relaxed));
            if health != report.health {
                report.health = health;
                let index = u8::try_from(index).unwrap_or(u8::MAX);
                supervisor.send(&FromWorker::Health(index, health), &[])?;
            }
        }
        Ok(())
    }

    /// Answers a waiting heartbeat once every loop has passed since the one before.
    fn answer_heartbeat(&mut self, supervisor: &Supervisor) -> Result<(), Error> {
        let Some(number) = self.heartbeat else { return Ok(()) };
        let passes = || self.shared.passes.iter().map(|passes| passes.load(Relaxed));
        if passes().zip(&self.seen).all(|(now, &seen)| now != seen) {
            self.seen = passes().collect();
            self.heartbeat = None;
            supervisor.send(&FromWorker::Alive(number), &[])?;
        }
        Ok(())
    }

    fn report(&self) -> State {
        let paths = self.shared.paths.iter().zip(&self.state.paths).map(|(path, report)| PathReport {
            health: report.health,
            last_pong: path.last_pong.load(Relaxed),
            rtt_us: path.rtt_us.load(Relaxed),
            counters: path.counters.snapshot(),
        });
        State { tick: self.state.tick, port: self.shared.port.counters.snapshot(), paths: paths.collect() }
    }
}
