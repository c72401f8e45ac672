//! Readiness and status for systemd (`sd_notify(3)`).
//!
//! The socket is connected while it can still be reached: later the process is in an empty network namespace, where an
//! abstract address would no longer be found. A crate that connects for every message would not work there.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// A connection to the service manager, or none.
pub struct Notify(Option<UnixDatagram>);

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
        Self(std::env::var_os("NOTIFY_SOCKET").and_then(|name| connect(name).ok()))
    }

    /// Sends `state`, lines of `NAME=value`. A manager that does not listen is no reason to stop.
    pub fn send(&self, state: &str) {
        if let Some(socket) = &self.0 {
            let _ = socket.send(state.as_bytes());
        }
    }
}
