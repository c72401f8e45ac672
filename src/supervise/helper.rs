//! The supervisor's side of the helper.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::signalfd::SignalFd;
use privsep::PROTOCOL;
use privsep::ipc::{self, Channel, FromHelper, Plan, ToHelper, Variant};
use privsep::sys::process;

use super::child::Child;
use super::events::{Readable, to_end, wait};
use crate::Error;
use crate::error::Context;

/// Longest time to open every handle.
const OPENING: Duration = Duration::from_secs(10);

/// A helper that has opened every handle of its plan.
pub struct Helper {
    /// Its process.
    pub child: Child,
    /// The conversation with it.
    pub channel: Channel<ToHelper, FromHelper>,
    /// Name of the local interface.
    pub interface: String,
    /// Its index.
    pub index: u32,
    /// The queue of its TAP, to be stored.
    pub to_store: Option<OwnedFd>,
}

impl Helper {
    /// Starts the helper and waits until everything is open; `None` when a signal asks to end meanwhile.
    pub fn start(
        executable: &File,
        plan: Plan,
        stored_tap: Option<&OwnedFd>,
        signals: &SignalFd,
    ) -> Result<Option<Self>, Error> {
        let say = || "helper".to_owned();
        let (ours, theirs) = ipc::pair().context(say)?;
        let pid = process::spawn(executable.as_fd(), c"ethudp-helper", theirs.as_fd(), None).context(say)?;
        let child = Child::new(pid);
        drop(theirs);
        let channel = Channel::<ToHelper, FromHelper>::new(ours);
        let stored: Vec<_> = stored_tap.iter().map(|tap| tap.as_fd()).collect();
        channel.send(&ToHelper::Plan(PROTOCOL, plan), &stored).context(say)?;
        let deadline = Instant::now() + OPENING;
        loop {
            let left =
                u16::try_from(deadline.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(u16::MAX);
            match wait([channel.as_fd(), signals.as_fd()], left).context(say)? {
                Readable([true, _]) => break,
                Readable([false, true]) if to_end(signals) => return Ok(None),
                _ if left == 0 => return Err(Error::failure("helper: has not opened all handles within 10 s")),
                _ => {}
            }
        }
        match channel.recv().context(say)? {
            Some((FromHelper::Opened { interface, index, .. }, to_store)) => {
                Ok(Some(Self { child, channel, interface, index, to_store: to_store.into_iter().next() }))
            }
            Some((FromHelper::Failed(reason), _)) => Err(Error::Failure(reason)),
            None => Err(Error::failure("helper: ended before it had opened the handles")),
        }
    }

    /// Has the helper send all handles to the worker that holds the other end of `socket`.
    pub fn serve(&self, socket: &OwnedFd) -> Result<(), ipc::Error> {
        self.channel.send(&ToHelper::Serve(Variant::Plain), &[socket.as_fd()])
    }
}
