//! Waiting for several descriptors, signals among them.

use std::io;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;

use crate::log;

/// Which of the descriptors can be read (or have ended).
pub struct Readable<const N: usize>(pub [bool; N]);

/// Waits until one of the descriptors can be read, or for `limit_ms`.
pub fn wait<const N: usize>(descriptors: [BorrowedFd<'_>; N], limit_ms: u16) -> io::Result<Readable<N>> {
    let mut polled = descriptors.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
    match poll(&mut polled, PollTimeout::from(limit_ms)) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(Readable(polled.map(|descriptor| descriptor.any().unwrap_or(false))))
}

/// Takes the signals that have come and tells whether one asks to end.
pub fn to_end(signals: &SignalFd) -> bool {
    let mut end = false;
    while let Ok(Some(signal)) = signals.read_signal() {
        match i32::try_from(signal.ssi_signo).map(Signal::try_from) {
            Ok(Ok(Signal::SIGTERM | Signal::SIGINT)) => end = true,
            Ok(Ok(signal @ (Signal::SIGHUP | Signal::SIGUSR1))) => {
                log::warning(&format!("{signal}: is not supported by this version yet"));
            }
            // A child's end shows at its channel.
            _ => {}
        }
    }
    end
}
