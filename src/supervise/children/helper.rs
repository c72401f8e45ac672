//! Supervisor's side of the helper.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::signalfd::SignalFd;
use privsep::PROTOCOL;
use privsep::ipc::{self, Channel, FromHelper, Plan, ToHelper};
use privsep::sys::supervisor::start;

use crate::Error;
use crate::error::Context;
use crate::process::{Child, Readable, end_requested, wait};
use crate::service::descriptor_store;
use crate::service::notify::Notify;

/// Longest time until every handle is open.
const OPENING: Duration = Duration::from_secs(10);

/// A helper that has opened every handle of its plan.
pub struct Helper {
    /// Channel to the helper. It precedes the process, so that it is closed first, which ends the helper.
    pub channel: Channel<ToHelper, FromHelper>,
    /// Process of the helper.
    pub child: Child,
    /// Name of the local interface.
    pub interface: String,
    /// Index of the local interface.
    pub index: u32,
    /// Queue of the TAP, to be stored by the service manager.
    pub to_store: Option<OwnedFd>,
}

impl Helper {
    /// Starts the helper and waits until everything is open. `None` when a signal asks for the end meanwhile.
    pub fn start(
        executable: &File,
        plan: Plan,
        stored_tap: Option<OwnedFd>,
        signals: &SignalFd,
        notify: &Notify,
    ) -> Result<Option<Self>, Error> {
        let say = || "helper".to_owned();
        let (ours, theirs) = ipc::pair().context(say)?;
        let pid = start::spawn(executable.as_fd(), c"ethudp-helper", theirs.as_fd(), None).context(say)?;
        let child = Child::new(pid);
        drop(theirs);
        let channel = Channel::<ToHelper, FromHelper>::new(ours);
        let stored: Vec<_> = stored_tap.iter().map(AsFd::as_fd).collect();
        channel.send(&ToHelper::Plan(PROTOCOL, plan), &stored).context(say)?;
        // An open queue keeps its interface alive.
        drop(stored_tap);
        let deadline = Instant::now() + OPENING;
        loop {
            match answer(&channel, signals, deadline)? {
                None => return Ok(None),
                Some((FromHelper::Opened { interface, index, .. }, to_store)) => {
                    let to_store = to_store.into_iter().next();
                    return Ok(Some(Self { channel, child, interface, index, to_store }));
                }
                Some((FromHelper::LetGo, _)) => notify.store(descriptor_store::TAP, None),
                Some((FromHelper::Failed(reason), _)) => return Err(Error::Failure(reason)),
            }
        }
    }

    /// Has the helper set or clear the carrier of the TAP. Fails at a helper that has ended, or does not read.
    pub fn set_carrier(&self, on: bool) -> Result<(), ipc::Error> {
        self.channel.try_send(&ToHelper::Carrier(on))
    }

    /// Has the helper send all handles to the worker that holds the other end of `socket`.
    pub fn serve(&self, socket: &OwnedFd) -> Result<(), ipc::Error> {
        self.channel.send(&ToHelper::Serve, &[socket.as_fd()])
    }
}

/// Waits for the next message of the helper. `None` when a signal asks for the end meanwhile.
fn answer(
    channel: &Channel<ToHelper, FromHelper>,
    signals: &SignalFd,
    deadline: Instant,
) -> Result<Option<(FromHelper, Vec<OwnedFd>)>, Error> {
    let say = || "helper".to_owned();
    loop {
        let left = u16::try_from(deadline.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(u16::MAX);
        match wait([channel.as_fd(), signals.as_fd()], left).context(say)? {
            Readable([true, _]) => {
                let ended = || Error::failure("helper: ended before it opened all handles");
                return channel.recv().context(say)?.ok_or_else(ended).map(Some);
            }
            Readable([false, true]) if end_requested(signals) => return Ok(None),
            _ if left == 0 => return Err(Error::failure("helper: did not open all handles within 10 s")),
            _ => {}
        }
    }
}
