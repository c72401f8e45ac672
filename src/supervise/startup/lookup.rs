//! Look-up of the addresses of a tunnel.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use super::waiting::Waiting;
use crate::error::Context;
use crate::process::WaitResult;
use crate::service::notify::Notify;
use crate::supervise::policy::Missing;
use crate::supervise::renewal::late;
use crate::tunnel::Tunnel;
use crate::tunnel::resolve::{self, LookUp, Resolved};
use crate::{Error, log};

/// Time between two attempts of a tunnel that waits for its names.
const AGAIN: Duration = Duration::from_secs(5);

/// Time after which a tunnel under a service manager starts without the missing names. The boot of the host may wait for the
/// tunnel.
const ENOUGH: Duration = Duration::from_secs(15);

/// Resolves the addresses of each path; a path without addresses has the reason. `None` when a signal asks for the end meanwhile.
pub fn paths(
    waiting: &Waiting<'_>,
    missing: Missing,
    notify: &Notify,
) -> Result<Option<Vec<Result<Resolved, Error>>>, Error> {
    let tunnel = waiting.tunnel;
    let (start, mut said, mut running) = (Instant::now(), String::new(), None);
    loop {
        let look_up = running.take().map_or_else(|| LookUp::start(tunnel), Ok).context(|| "looking up names".into())?;
        let waited = waiting.until(Some(look_up.done.as_fd()), resolve::LIMIT, reason(&said))?;
        let error = match waited {
            WaitResult::Interrupted => return Ok(None),
            WaitResult::Ready => {
                match judge(tunnel, look_up.finish(), missing, notify.is_connected() && start.elapsed() >= ENOUGH) {
                    Err(error) if missing == Missing::Start => error.to_string(),
                    result => return result.map(Some),
                }
            }
            WaitResult::TimedOut if missing == Missing::End => return Err(resolve::late(tunnel)),
            // The thread cannot be stopped, and must have ended before privileges are dropped.
            WaitResult::TimedOut => {
                running = Some(look_up);
                resolve::late(tunnel).to_string()
            }
        };
        if error != said {
            log::warning(&format!("{error}; retrying every {} s", AGAIN.as_secs()));
            notify.send(&NotifyState::Status(&format!("connecting: {error}")));
            said = error;
        }
        // Otherwise the service manager would consider the start as hung.
        notify.extend_timeout(resolve::LIMIT + AGAIN * 2);
        if running.is_none() && waiting.until(None, AGAIN, reason(&said))? == WaitResult::Interrupted {
            return Ok(None);
        }
    }
}

/// Reason for which a tunnel waits, once it has been logged.
fn reason(said: &str) -> Option<&str> {
    Some(said).filter(|said| !said.is_empty())
}

/// Paths to start with: all after `enough` time, or as soon as one can be opened. Otherwise the first name that does not resolve.
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
