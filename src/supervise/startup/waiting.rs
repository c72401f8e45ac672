//! Waits of a tunnel before it runs, during which signals and status requests are answered.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::sys::signalfd::SignalFd;

use crate::error::Context;
use crate::process::{Readable, WaitResult, end_requested, wait};
use crate::service::control_socket::ControlSocket;
use crate::supervise::requests::Requests;
use crate::tunnel::Tunnel;
use crate::{Error, status};

/// Sources of events during a wait.
pub struct Waiting<'a> {
    /// Tunnel of the status.
    pub tunnel: &'a Tunnel,
    /// Signals that may ask for the end.
    pub signals: &'a SignalFd,
    /// Socket of status requests.
    pub control: &'a ControlSocket,
}

impl Waiting<'_> {
    /// Waits until `done` is readable or `limit` has passed. `reason` is the cause of the wait in the status.
    pub fn until(
        &self,
        done: Option<BorrowedFd<'_>>,
        limit: Duration,
        reason: Option<&str>,
    ) -> Result<WaitResult, Error> {
        let Self { tunnel, signals, control } = self;
        let (deadline, mut requests) = (Instant::now() + limit, Requests::default());
        loop {
            let now = Instant::now();
            requests.go_on(now);
            let next = requests.due(now).map_or(deadline, |due| due.min(deadline));
            let left = u16::try_from(next.saturating_duration_since(now).as_millis()).unwrap_or(u16::MAX);
            let descriptors = [signals.as_fd(), control.listener.as_fd(), done.unwrap_or(signals.as_fd())];
            let Readable([signal, request, is_done]) = wait(descriptors, left).context(|| "waiting".into())?;
            if signal && end_requested(signals) {
                return Ok(WaitResult::Interrupted);
            }
            if request {
                control.accept_some().for_each(|(stream, user)| requests.push(stream, user, now));
                requests.answer(&status::before_start(tunnel, reason).json(), now);
            }
            if is_done && done.is_some() {
                return Ok(WaitResult::Ready);
            }
            if now >= deadline {
                return Ok(WaitResult::TimedOut);
            }
        }
    }
}
