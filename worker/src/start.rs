//! Start of a worker: settings, handles, threads, confinement.

use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Barrier};
use std::{io, thread};

use privsep::PROTOCOL;
use privsep::confine::seccomp::Allowed;
use privsep::ipc::{Channel, Error, FromWorker, Handle, Handles, Never, PortKind, Secrets, Settings, State, ToWorker};
use privsep::sys::process;

use crate::confine;
use crate::control::{Control, SupervisorChannel};
use crate::forward::guard::Guard;
use crate::forward::published::Published;
use crate::forward::rules::Rules;
use crate::forward::{Answers, Inward, Outward, Shared, leaves_partial};
use crate::frame::announce;
use crate::io::{Clock, Waker};
use crate::port::{Sink, Source};
use crate::underlay::{Inlet, Socket};
use crate::wire::{self, Counters};

/// Most bytes of last words.
const LAST_WORDS: usize = 500;

/// Runs the whole worker, confined to this table of system calls. Ends with the supervisor, and with it the process.
pub fn run(table: &[Allowed]) -> ExitCode {
    let supervisor = match confine::before_reading().and_then(|()| process::inherited(process::SUPERVISOR_FD)) {
        Ok(socket) => Arc::new(SupervisorChannel::new(socket)),
        // Not started by the supervisor, so a user may read this.
        Err(error) => {
            eprintln!("ethudp-worker: {error}; do not start it by hand: `ethudp` starts it");
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

/// Makes a panic send its last words to the supervisor. The panic then aborts the process.
fn report_panics(supervisor: Arc<SupervisorChannel>) {
    std::panic::set_hook(Box::new(move |info| {
        let _ = supervisor.try_send(&FromWorker::Dying(last_words(&info.to_string())));
    }));
}

fn work(supervisor: &SupervisorChannel, table: &[Allowed]) -> Result<(), Error> {
    let Some((message, _)) = supervisor.recv()? else { return Ok(()) };
    let Some(secrets) = receive_secrets(supervisor)? else { return Ok(()) };
    let ToWorker::Start { protocol: PROTOCOL, settings, state, drain } = message else {
        return Err(Error::Violation("supervisor and worker are of different versions"));
    };
    let Some((port, paths)) = receive_handles(&settings)? else { return Ok(()) };
    let (outward, mut inward) = loops(&settings, &secrets, &state, port, paths)?;
    drop(secrets);
    let confinement = confine::before_threads()?;
    let gate = start_thread(outward, drain)?;
    let confinement = confine::for_good(confinement, table)?;
    gate.wait();
    if drain {
        inward.drain();
    }
    supervisor.send(&FromWorker::Confined(confinement), &[])?;
    Control::new(supervisor, inward, *state).run()
}

fn receive_secrets(supervisor: &SupervisorChannel) -> Result<Option<Secrets>, Error> {
    match supervisor.recv()? {
        None => Ok(None),
        Some((ToWorker::Secrets(secrets), _)) => Ok(Some(secrets)),
        Some(_) => Err(Error::Violation("no secrets after the start message")),
    }
}

/// Receives the handles of the port and of each path, and closes the helper's socket; `None` if the helper has ended.
fn receive_handles(settings: &Settings) -> Result<Option<(OwnedFd, Vec<OwnedFd>)>, Error> {
    let helper = Channel::<Never, Handles>::new(process::inherited(process::HANDLES_FD)?);
    let Some((Handles(kinds), handles)) = helper.recv()? else { return Ok(None) };
    let paths = (0..).take(settings.remotes.len()).map(Handle::Path);
    let alike = settings.remotes.len() == settings.locals.len() && settings.remotes.len() == settings.paths.len();
    if !alike || !kinds.into_iter().eq(std::iter::once(Handle::Port).chain(paths)) {
        return Err(Error::Violation("handles do not match this tunnel"));
    }
    let mut handles = handles.into_iter();
    Ok(handles.next().map(|port| (port, handles.collect())))
}

/// Makes both loops of a tunnel around its handles.
pub(crate) fn loops(
    settings: &Settings,
    secrets: &Secrets,
    state: &State,
    port: OwnedFd,
    paths: Vec<OwnedFd>,
) -> io::Result<(Outward, Inward)> {
    let (session, sealer) = wire::machines(settings, secrets, state)?;
    let ends = settings.locals.iter().zip(&settings.remotes);
    let sockets =
        paths.into_iter().zip(ends).map(|(path, (local, remote))| Arc::new(Socket::new(path, local.0, remote)));
    let (port, sockets): (_, Vec<_>) = (Arc::new(port), sockets.collect());
    let inlets = sockets.iter().map(|socket| Inlet::new(Arc::clone(socket)).with_ecn(settings.rules.ecn)).collect();
    let shared = Arc::new(Shared {
        counters: Counters::new(state, sockets.len()),
        sockets,
        rules: Rules::new(&settings.rules, settings.port == PortKind::Mirror { udp: true }),
        clock: Clock::start(),
        route: Published::new(session.route().clone()),
        blocked_until_us: AtomicU64::new(0),
        passes: AtomicU64::new(0),
        asked: AtomicBool::new(false),
        outward: Waker::new()?,
        main: Waker::new()?,
    });
    let source = Source::new(settings.port, Arc::clone(&port), leaves_partial(&shared, &sealer));
    let announcement = settings.announcement.as_ref().map(announce::frames).unwrap_or_default();
    let sink = || Sink::new(settings.port, Arc::clone(&port), !settings.rules.send);
    let answers = settings.rules.answers.then(|| Answers::new(sink()));
    let (guard_out, guard_in) = guards(&settings.rules)?.unzip();
    let outward = Outward::new(Arc::clone(&shared), source, sealer, announcement, answers).with_guard(guard_out);
    let sink = sink();
    Ok((outward, Inward::new(shared, session, inlets, sink, settings.wire.in_place()).with_guard(guard_in)))
}

/// Storm guard of each direction. A tunnel of one direction detects no loops: no frame comes back.
fn guards(rules: &privsep::ipc::Rules) -> io::Result<Option<(Guard, Guard)>> {
    let mut mark = [0; 16];
    aws_lc_rs::rand::fill(&mut mark).map_err(|_| io::Error::other("no random bytes"))?;
    Ok(Guard::pair(&rules.guard, (rules.guard.loops && rules.send && rules.receive).then_some(mark)))
}

/// Starts the outward loop and returns the gate at which it waits. The thread has finished its own start by then, so the table of a
/// confined worker needs no calls that only thread starts make.
fn start_thread(mut outward: Outward, drain: bool) -> io::Result<Arc<Barrier>> {
    let (ready, gate) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (is_ready, wait) = (Arc::clone(&ready), Arc::clone(&gate));
    thread::Builder::new().name("outward".into()).spawn(move || {
        is_ready.wait();
        wait.wait();
        if drain {
            outward.drain();
        }
        outward.run()
    })?;
    ready.wait();
    Ok(gate)
}
