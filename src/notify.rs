//! Readiness and status for systemd (`sd_notify(3)`).
//!
//! The socket is connected while it can still be reached: later the process is in an empty network namespace, where an
//! abstract address would no longer be found. A crate that connects for every message would not work there.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use nix::sys::socket::MsgFlags;
use privsep::sys::scm;

use crate::log;

/// How long a manager that is busy is waited for with what it must know.
const PATIENCE: Duration = Duration::from_secs(5);

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
        let socket = std::env::var_os("NOTIFY_SOCKET").and_then(|name| connect(name).ok());
        let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        // Thrice within the limit, so that a late one does no harm.
        let watchdog = number("WATCHDOG_USEC").filter(|&limit| ours && limit > 0);
        Self { socket, watchdog: watchdog.map(|limit| (Duration::from_micros(limit) / 3, Instant::now())) }
    }

    /// Whether there is a service manager.
    pub fn is_connected(&self) -> bool {
        self.socket.is_some()
    }

    /// Has the service manager keep a descriptor under this name in the place of what it has kept so far; without one, only
    /// forget that.
    pub fn store(&self, name: &str, descriptor: Option<OwnedFd>) {
        self.tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), None);
        if let Some(descriptor) = descriptor {
            self.tell(&format!("FDSTORE=1\nFDNAME={name}"), Some(descriptor.as_fd()));
        }
    }

    /// Says that we live, if that is due; returns when it is next.
    pub fn keep_alive(&mut self, now: Instant) -> Option<Instant> {
        let (interval, due) = self.watchdog?;
        if now < due {
            return Some(due);
        }
        self.watchdog = Some((interval, now + interval));
        self.send("WATCHDOG=1");
        Some(now + interval)
    }

    /// Sends `state`, lines of `NAME=value`; false when the manager does not take it now, which is no reason to stop.
    pub fn send(&self, state: &str) -> bool {
        let send = |socket: &UnixDatagram| scm::send(socket.as_fd(), state.as_bytes(), &[], MsgFlags::MSG_DONTWAIT);
        self.socket.as_ref().is_some_and(|socket| send(socket).is_ok())
    }

    /// Sends what the manager must know, waiting for it a little.
    pub fn tell(&self, state: &str, descriptor: Option<BorrowedFd<'_>>) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = scm::send(socket.as_fd(), state.as_bytes(), descriptor.as_slice(), MsgFlags::empty()) {
            log::warning(&format!("service manager: {error}: it has not been told {}", state.replace('\n', ", ")));
        }
    }
}
