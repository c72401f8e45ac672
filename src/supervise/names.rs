//! Waiting for the addresses of a tunnel, while signals and status requests are answered.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::signalfd::SignalFd;
use sd_notify::NotifyState;

use super::events::{Readable, to_end, wait};
use super::late;
use super::policy::Missing;
use super::requests::Requests;
use crate::error::Context;
use crate::service::control_socket::ControlSocket;
use crate::service::notify::Notify;
use crate::tunnel::Tunnel;
use crate::tunnel::resolve::{self, LookUp, Resolved};
use crate::{Error, log, status};

/// Time between two attempts of a tunnel that waits for its names.
const AGAIN: Duration = Duration::from_secs(5);

/// Time after which a tunnel under a service manager waits no longer for a name: a start of the machine may wait for it.
const ENOUGH: Duration = Duration::from_secs(15);

/// The addresses of each path, or why it has none; `None` when a signal asks to end meanwhile.
pub fn paths(
    tunnel: &Tunnel,
    missing: Missing,
    signals: &SignalFd,
    control: &ControlSocket,
    notify: &Notify,
) -> Result<Option<Vec<Result<Resolved, Error>>>, Error> {
    let (start, mut said, mut running) = (Instant::now(), String::new(), None);
    loop {
        let look_up = running.take().map_or_else(|| LookUp::start(tunnel), Ok).context(|| "looking up names".into())?;
        let waited = wait_until(tunnel, signals, control, waits(&said), Some(&look_up), resolve::LIMIT)?;
        let error = match waited {
            Waited::Interrupted => return Ok(None),
            Waited::Done => {
                match judge(tunnel, look_up.finish(), missing, notify.is_connected() && start.elapsed() >= ENOUGH) {
                    Err(error) if missing == Missing::Start => error.to_string(),
                    result => return result.map(Some),
                }
            }
            Waited::Enough if missing == Missing::End => return Err(resolve::late(tunnel)),
            // The thread cannot be told to stop, and must have ended before privileges are given up.
            Waited::Enough => {
                running = Some(look_up);
                resolve::late(tunnel).to_string()
            }
        };
        if error != said {
            log::warning(&format!("{error}; trying again every {} s", AGAIN.as_secs()));
            notify.send(&NotifyState::Status(&format!("connecting: {error}")));
            said = error;
        }
        // The service manager is not to take this for a start that hangs.
        let patience = u32::try_from((resolve::LIMIT + AGAIN * 2).as_micros()).unwrap_or(u32::MAX);
        notify.send(&NotifyState::ExtendTimeoutUsec(patience));
        if running.is_none() && wait_until(tunnel, signals, control, waits(&said), None, AGAIN)? == Waited::Interrupted
        {
            return Ok(None);
        }
    }
}

/// What a tunnel waits for, once that has been said.
fn waits(said: &str) -> Option<&str> {
    Some(said).filter(|said| !said.is_empty())
}

/// The paths to start with, which are all when there has been `enough` time, or the first name that does not resolve.
fn judge(
    tunnel: &Tunnel,
    paths: Vec<Result<Resolved, Error>>,
    missing: Missing,
    enough: bool,
) -> Result<Vec<Result<Resolved, Error>>, Error> {
    let usable = |(path, found): (_, &Result<_, _>)| found.as_ref().is_ok_and(|found| late::can_be_opened(path, found));
    if missing == Missing::Start && (enough || tunnel.paths.iter().zip(&paths).any(usable)) {
        return Ok(paths);
    }
    paths.into_iter().map(|path| path.map(Ok)).collect()
}

/// Why a wait has ended.
#[derive(PartialEq, Eq)]
enum Waited {
    /// A signal asks to end.
    Interrupted,
    /// The look-up is done.
    Done,
    /// The time is over.
    Enough,
}

/// Answers status requests until the look-up is done or `limit` is over.
fn wait_until(
    tunnel: &Tunnel,
    signals: &SignalFd,
    control: &ControlSocket,
    waits: Option<&str>,
    look_up: Option<&LookUp>,
    limit: Duration,
) -> Result<Waited, Error> {
    let (deadline, mut requests) = (Instant::now() + limit, Requests::default());
    loop {
        let now = Instant::now();
        requests.go_on(now);
        let next = requests.due(now).map_or(deadline, |due| due.min(deadline));
        let left = u16::try_from(next.saturating_duration_since(now).as_millis()).unwrap_or(u16::MAX);
        let done = look_up.map_or(signals.as_fd(), |look_up| look_up.done.as_fd());
        let Readable([signal, request, done]) =
            wait([signals.as_fd(), control.listener.as_fd(), done], left).context(|| "waiting for names".into())?;
        if signal && to_end(signals) {
            return Ok(Waited::Interrupted);
        }
        if request {
            control.accept_some().for_each(|(stream, user)| requests.push(stream, user, now));
            requests.answer(&status::before_start(tunnel, waits).json(), now);
        }
        if done && look_up.is_some() {
            return Ok(Waited::Done);
        }
        if now >= deadline {
            return Ok(Waited::Enough);
        }
    }
}
