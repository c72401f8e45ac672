//! Waiting for several descriptors.

use std::io;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

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
