//! Waits for several descriptors and for signals.

use std::io;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;

/// For each descriptor, whether it is readable (or closed by its peer).
pub struct Readable<const N: usize>(pub [bool; N]);

/// Waits until a descriptor is readable, for at most `limit_ms`.
pub fn wait<const N: usize>(descriptors: [BorrowedFd<'_>; N], limit_ms: u16) -> io::Result<Readable<N>> {
    let mut polled = descriptors.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
    match poll(&mut polled, PollTimeout::from(limit_ms)) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(Readable(polled.map(|descriptor| descriptor.any().unwrap_or(false))))
}

/// End of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitResult {
    /// A signal asked for the end of the program.
    Interrupted,
    /// The awaited descriptor is readable.
    Ready,
    /// The time limit has passed.
    TimedOut,
}

/// Requests by signals.
#[derive(Debug, Default, Clone, Copy)]
pub struct Signals {
    /// SIGTERM or SIGINT.
    pub end: bool,
    /// SIGHUP.
    pub hangup: bool,
    /// SIGUSR1.
    pub user: bool,
}

/// Takes the pending signals.
pub fn take_signals(signals: &SignalFd) -> Signals {
    let mut asked = Signals::default();
    while let Ok(Some(signal)) = signals.read_signal() {
        match i32::try_from(signal.ssi_signo).map(Signal::try_from) {
            Ok(Ok(Signal::SIGTERM | Signal::SIGINT)) => asked.end = true,
            Ok(Ok(Signal::SIGHUP)) => asked.hangup = true,
            Ok(Ok(Signal::SIGUSR1)) => asked.user = true,
            // The channel of a child shows its end.
            _ => {}
        }
    }
    asked
}

/// Takes the pending signals and returns whether one asks for the end. Others have no effect before the tunnel runs.
pub fn end_requested(signals: &SignalFd) -> bool {
    take_signals(signals).end
}
