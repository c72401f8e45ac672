//! Look-up of the addresses of a tunnel.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use super::waiting::Waiting;
use crate::process::WaitResult;
use crate::service::notify::Notify;
use crate::supervise::children::resolver::{Resolver, Said};
use crate::supervise::policy::Missing;
use crate::supervise::renewal::late;
use crate::tunnel::Tunnel;
use crate::tunnel::resolve::{self, Answers, Resolved};
use crate::{Error, log};

/// Time between two attempts of a tunnel that waits for its names.
const AGAIN: Duration = Duration::from_secs(5);

/// Time after which a tunnel under a service manager starts without the missing names. The boot of the host may wait for the
/// tunnel.
const ENOUGH: Duration = Duration::from_secs(15);

/// Addresses of each path, or the reason why it has none; and the answers of the resolver.
type Addresses = (Vec<Result<Resolved, Error>>, Answers);

/// Resolves the addresses of each path. `None` when a signal asks for the end meanwhile.
pub fn paths(
    waiting: &Waiting<'_>,
    missing: Missing,
    notify: &Notify,
    mut resolver: Option<&mut Resolver>,
) -> Result<Option<Addresses>, Error> {
    let tunnel = waiting.tunnel;
    let (start, mut said) = (Instant::now(), String::new());
    loop {
        let Some(answers) = ask(waiting, resolver.as_deref_mut(), reason(&said))? else { return Ok(None) };
        let enough = notify.is_connected() && start.elapsed() >= ENOUGH;
        let error = match judge(tunnel, &answers, missing, enough) {
            Err(error) if missing == Missing::Start => error.to_string(),
            result => return result.map(|paths| Some((paths, answers))),
        };
        if error != said {
            log::warning(&format!("{error}; retrying every {} s", AGAIN.as_secs()));
            notify.send(&NotifyState::Status(&format!("connecting: {error}")));
            said = error;
        }
        // Otherwise the service manager would consider the start as hung.
        notify.extend_timeout(resolve::LIMIT + AGAIN * 2);
        if waiting.until(None, AGAIN, reason(&said))? == WaitResult::Interrupted {
            return Ok(None);
        }
    }
}

/// Asks for all names at once, and returns the answers within the limit. `None` when a signal asks for the end meanwhile.
fn ask(waiting: &Waiting<'_>, resolver: Option<&mut Resolver>, reason: Option<&str>) -> Result<Option<Answers>, Error> {
    let mut answers = Answers::new();
    let Some(resolver) = resolver else { return Ok(Some(answers)) };
    let (deadline, ended) = (Instant::now() + resolve::LIMIT, || Error::failure("resolver: ended"));
    for number in 0..resolver.names().len() {
        resolver.ask(number).map_err(|_| ended())?;
    }
    while resolver.is_waiting() {
        let left = deadline.saturating_duration_since(Instant::now());
        match waiting.until(Some(resolver.as_fd()), left, reason)? {
            WaitResult::Interrupted => return Ok(None),
            WaitResult::TimedOut => break,
            WaitResult::Ready => match resolver.take() {
                Ok(Some(Said::Answer(number, found))) => {
                    answers.insert(resolver.names()[number].clone(), found);
                }
                Ok(Some(Said::Lacks(lacks))) if waiting.tunnel.require_confinement => {
                    return Err(Error::configuration(format!(
                        "require-confinement: this kernel or container lacks {lacks} to confine the resolver"
                    )));
                }
                Ok(Some(Said::Failed(reason))) => return Err(Error::failure(format!("resolver: {reason}"))),
                _ => return Err(ended()),
            },
        }
    }
    Ok(Some(answers))
}

/// Reason for which a tunnel waits, once it has been logged.
fn reason(said: &str) -> Option<&str> {
    Some(said).filter(|said| !said.is_empty())
}

/// Paths to start with: all after `enough` time, or as soon as one can be opened. Otherwise the first name that does not resolve.
fn judge(
    tunnel: &Tunnel,
    answers: &Answers,
    missing: Missing,
    enough: bool,
) -> Result<Vec<Result<Resolved, Error>>, Error> {
    let paths: Vec<_> = tunnel.paths.iter().map(|path| resolve::path(path, answers)).collect();
    let usable = |(path, found): (_, &Result<_, _>)| found.as_ref().is_ok_and(|found| late::can_be_opened(path, found));
    if missing == Missing::Start && (enough || tunnel.paths.iter().zip(&paths).any(usable)) {
        let later = |(path, found): (_, Result<_, _>)| {
            found.or_else(|error| resolve::without_remote(path, answers).ok_or(error))
        };
        return Ok(tunnel.paths.iter().zip(paths).map(later).collect());
    }
    paths.into_iter().map(|path| path.map(Ok)).collect()
}
