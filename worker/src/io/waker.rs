//! Waker: one loop wakes another.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Waker of a sleeping loop (eventfd(2)). Created before the worker is confined.
pub struct Waker(EventFd);

impl Waker {
    pub fn new() -> nix::Result<Self> {
        EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map(Self)
    }

    /// Wakes the loop, now or before its next sleep.
    pub fn wake(&self) {
        // A write fails only after 2^64 wakeups.
        let _ = self.0.write(1);
    }

    /// Clears recorded wakeups.
    pub fn clear(&self) {
        let _ = self.0.read();
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::poll::PollFlags;

    use super::*;
    use crate::io::wait;

    #[test]
    fn waker_ends_one_wait() {
        let waker = Waker::new().unwrap();
        waker.wake();
        waker.wake();
        let long = Some(Duration::from_secs(10));
        assert_eq!(wait([(waker.as_fd(), PollFlags::POLLIN)], long), [PollFlags::POLLIN]);
        waker.clear();
        let short = Some(Duration::from_millis(1));
        assert_eq!(wait([(waker.as_fd(), PollFlags::POLLIN)], short), [PollFlags::empty()]);
    }
}
