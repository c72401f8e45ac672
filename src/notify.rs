//! Readiness and status for systemd (`sd_notify(3)`).
//!
//! The socket is connected while it can still be reached: later the process is in an empty network namespace, where an
//! abstract address would no longer be found. A crate that connects for every message would not work there.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

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
            socket.set_nonblocking(true)?;
            Ok::<_, std::io::Error>(socket)
        };
        let socket = std::env::var_os("NOTIFY_SOCKET").and_then(|name| connect(name).ok());
        let watchdog =
            std::env::var("WATCHDOG_USEC").ok().and_then(|limit| limit.parse().ok()).filter(|&limit| limit > 0);
        // Thrice within the limit, so that a late one does no harm.
        let watchdog = watchdog.map(|limit| (Duration::from_micros(limit) / 3, Instant::now()));
        Self { socket, watchdog }
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

    /// Sends `state`, lines of `NAME=value`. A manager that does not listen is no reason to stop.
    pub fn send(&self, state: &str) {
        if let Some(socket) = &self.socket {
            let _ = socket.send(state.as_bytes());
        }
    }
}
