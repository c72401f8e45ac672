//! Readiness and status for systemd (`sd_notify(3)`).
//!
//! The socket is connected while it can still be reached: later the process is in an empty network namespace, where an
//! abstract address would no longer be found. So the words are the crate's, and the connection is ours.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use nix::sys::socket::MsgFlags;
use privsep::sys::scm;
use sd_notify::NotifyState;

use crate::log;

/// How long a manager that is busy is waited for with what it must know.
const PATIENCE: Duration = Duration::from_secs(5);

/// Shortest time from one sign of life to the next: whoever wants more would have nothing else done.
const OFTEN: Duration = Duration::from_millis(10);

/// A connection to the service manager, or none.
pub struct Notify {
    socket: Option<UnixDatagram>,
    /// How often it wants to hear that we live (`WatchdogSec=`), and when next.
    watchdog: Option<(Duration, Instant)>,
}

impl Notify {
    /// Connects to the socket that `NOTIFY_SOCKET` names, if it is set.
    pub fn connect() -> Self {
        let connect = |name: std::ffi::OsString| {
            let socket = UnixDatagram::unbound()?;
            match name.as_bytes().strip_prefix(b"@") {
                Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
                None => socket.connect(name)?,
            }
            socket.set_write_timeout(Some(PATIENCE))?;
            Ok::<_, std::io::Error>(socket)
        };
        let socket = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()).and_then(|name| {
            let shown = log::untrusted(&name.to_string_lossy());
            let told =
                |error| log::warning(&format!("NOTIFY_SOCKET={shown}: {error}; the service manager is told nothing"));
            connect(name).map_err(told).ok()
        });
        // Thrice within the limit, so that a late one does no harm.
        let watchdog = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero());
        Self { socket, watchdog: watchdog.map(|limit| ((limit / 3).max(OFTEN), Instant::now())) }
    }

    /// The test in the place of a service manager.
    #[cfg(test)]
    pub fn to(socket: UnixDatagram) -> Self {
        Self { socket: Some(socket), watchdog: None }
    }

    /// Whether there is a service manager.
    pub fn is_connected(&self) -> bool {
        self.socket.is_some()
    }

    /// Has the service manager keep a descriptor under this name in the place of what it has kept so far; without one, only
    /// forget that.
    pub fn store(&self, name: &str, descriptor: Option<OwnedFd>) {
        let name = format!("FDNAME={name}");
        let tell = |order, descriptor| self.tell(&[NotifyState::Custom(order), NotifyState::Custom(&name)], descriptor);
        tell("FDSTOREREMOVE=1", None);
        if let Some(descriptor) = descriptor {
            tell("FDSTORE=1", Some(descriptor.as_fd()));
        }
    }

    /// Says that we live, if that is due; returns when it is next.
    pub fn keep_alive(&mut self, now: Instant) -> Option<Instant> {
        let (interval, due) = self.watchdog?;
        if now < due {
            return Some(due);
        }
        self.watchdog = Some((interval, now + interval));
        self.send(&NotifyState::Watchdog);
        Some(now + interval)
    }

    /// Has the manager wait so long for the next such message, or for readiness, before it takes the start for one that hangs.
    pub fn extend_timeout(&self, time: Duration) {
        self.send(&NotifyState::ExtendTimeoutUsec(u32::try_from(time.as_micros()).unwrap_or(u32::MAX)));
    }

    /// Says something; false when the manager does not take it now, which is no reason to stop.
    pub fn send(&self, state: &NotifyState<'_>) -> bool {
        let text = state.to_string();
        let send = |socket: &UnixDatagram| scm::send(socket.as_fd(), text.as_bytes(), &[], MsgFlags::MSG_DONTWAIT);
        self.socket.as_ref().is_some_and(|socket| send(socket).is_ok())
    }

    /// Says in one message what the manager must know, waiting for it a little.
    pub fn tell(&self, states: &[NotifyState<'_>], descriptor: Option<BorrowedFd<'_>>) {
        let Some(socket) = &self.socket else { return };
        let lines: Vec<_> = states.iter().map(ToString::to_string).collect();
        let text = lines.join("\n");
        if let Err(error) = scm::send(socket.as_fd(), text.as_bytes(), descriptor.as_slice(), MsgFlags::empty()) {
            log::warning(&format!("service manager: {error}: it has not been told {}", lines.join(", ")));
        }
    }
}
