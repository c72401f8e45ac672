//! Readiness and status for systemd (`sd_notify(3)`).
//!
//! The socket is connected at the start. Later the process is in an empty network namespace, which hides abstract addresses. The
//! crate `sd_notify` formats messages; this module sends them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use nix::sys::socket::MsgFlags;
use privsep::sys::scm;
use sd_notify::NotifyState;

use crate::log;

/// Longest wait for a busy manager to take a message that it must have.
const PATIENCE: Duration = Duration::from_secs(5);

/// Shortest interval of keep-alive messages. A shorter one would leave no time for other work.
const OFTEN: Duration = Duration::from_millis(10);

/// Connection to the service manager, if there is one.
pub struct Notify {
    socket: Option<UnixDatagram>,
    /// Interval of keep-alive messages (a third of `WatchdogSec=`), and time of the next.
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
            let told = |error| {
                log::warning(&format!("NOTIFY_SOCKET={shown}: {error}; the service manager gets no notifications"));
            };
            connect(name).map_err(told).ok()
        });
        // A third of the limit, so that a late message does no harm.
        let watchdog = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero());
        Self { socket, watchdog: watchdog.map(|limit| ((limit / 3).max(OFTEN), Instant::now())) }
    }

    /// For a test that acts as service manager.
    #[cfg(test)]
    pub fn to(socket: UnixDatagram) -> Self {
        Self { socket: Some(socket), watchdog: None }
    }

    /// Whether there is a service manager.
    pub fn is_connected(&self) -> bool {
        self.socket.is_some()
    }

    /// Has the service manager keep a descriptor under this name, in place of the previous one. `None` only removes the previous
    /// one.
    pub fn store(&self, name: &str, descriptor: Option<OwnedFd>) {
        let name = format!("FDNAME={name}");
        let tell = |order, descriptor| self.tell(&[NotifyState::Custom(order), NotifyState::Custom(&name)], descriptor);
        tell("FDSTOREREMOVE=1", None);
        if let Some(descriptor) = descriptor {
            tell("FDSTORE=1", Some(descriptor.as_fd()));
        }
    }

    /// Sends a keep-alive message if it is due. Returns the time of the next one.
    pub fn keep_alive(&mut self, now: Instant) -> Option<Instant> {
        let (interval, due) = self.watchdog?;
        if now < due {
            return Some(due);
        }
        self.watchdog = Some((interval, now + interval));
        self.send(&NotifyState::Watchdog);
        Some(now + interval)
    }

    /// Has the manager wait `time` for the next such message or for readiness, before it considers the start as hung.
    pub fn extend_timeout(&self, time: Duration) {
        self.send(&NotifyState::ExtendTimeoutUsec(u32::try_from(time.as_micros()).unwrap_or(u32::MAX)));
    }

    /// Sends a state without waiting. Returns false when the manager does not take it now, which is no reason to stop.
    pub fn send(&self, state: &NotifyState<'_>) -> bool {
        let text = state.to_string();
        let send = |socket: &UnixDatagram| scm::send(socket.as_fd(), text.as_bytes(), &[], MsgFlags::MSG_DONTWAIT);
        self.socket.as_ref().is_some_and(|socket| send(socket).is_ok())
    }

    /// Sends states that the manager must have in one message, and waits up to [`PATIENCE`].
    pub fn tell(&self, states: &[NotifyState<'_>], descriptor: Option<BorrowedFd<'_>>) {
        let Some(socket) = &self.socket else { return };
        let lines: Vec<_> = states.iter().map(ToString::to_string).collect();
        let text = lines.join("\n");
        if let Err(error) = scm::send(socket.as_fd(), text.as_bytes(), descriptor.as_slice(), MsgFlags::empty()) {
            log::warning(&format!("service manager: {error}: notification not sent: {}", lines.join(", ")));
        }
    }
}
