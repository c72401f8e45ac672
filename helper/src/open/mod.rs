//! Opens the handles of a plan. Every error is one line for the user, with the wrong value and the right one.

mod packet;
mod path;
pub mod tap;

use std::os::fd::OwnedFd;

use nix::sys::socket::{setsockopt, sockopt};
use privsep::ipc::{Plan, PortPlan};

/// Requested size of socket buffers in bytes; the kernel doubles it for its bookkeeping. It holds a burst while the worker is not
/// scheduled or is replaced. A larger one only adds delay under overload. Measured in docs/decisions/0009-overload.md.
const BUFFER: usize = 4 << 20;

/// Open handles, kept for the life of the tunnel, so that no interface or port disappears with a worker.
pub struct Handles {
    /// TAP queue or packet socket.
    pub port: OwnedFd,
    /// Name of the local interface.
    pub interface: String,
    /// Index of the local interface.
    pub index: u32,
    /// One UDP socket for each path.
    pub paths: Vec<OwnedFd>,
}

/// Opens everything, in an order that leaves nothing behind when a later part fails: the kernel removes a new TAP interface with
/// its last descriptor, and a stored one stays stored.
pub fn everything(plan: &Plan, stored: Option<(OwnedFd, String)>) -> Result<Handles, String> {
    let paths = plan.paths.iter().map(path::open).collect::<Result<_, _>>()?;
    let (port, interface, index) = match &plan.port {
        PortPlan::Tap(plan) => tap::open(stored, plan)?,
        PortPlan::Raw { interface, promiscuous } => packet::both_ways(interface, *promiscuous)?,
        PortPlan::Mirror { interface, filter } => packet::open(interface, false, filter)?,
    };
    Ok(Handles { port, interface, index, paths })
}

/// Sets large buffers, beyond the system's limit if permitted.
fn buffers(socket: &OwnedFd) {
    // A smaller buffer is no reason to fail, so the result of the fallback is ignored.
    if setsockopt(socket, sockopt::RcvBufForce, &BUFFER).is_err() {
        let _ = setsockopt(socket, sockopt::RcvBuf, &BUFFER);
    }
    if setsockopt(socket, sockopt::SndBufForce, &BUFFER).is_err() {
        let _ = setsockopt(socket, sockopt::SndBuf, &BUFFER);
    }
}

#[cfg(test)]
mod tests {
    use privsep::ipc::{Address, PathPlan};

    use super::*;

    fn plan(local: &str) -> PathPlan {
        let local = Address(local.parse().unwrap());
        let (filter, class, reports_class) = (Vec::new(), 0, false);
        PathPlan {
            local,
            remote: None,
            filter,
            device: None,
            mark: None,
            runs: false,
            whole: false,
            class,
            reports_class,
        }
    }

    /// Plan whose port cannot be opened.
    fn without_port(paths: Vec<PathPlan>) -> Plan {
        let port = PortPlan::Raw { interface: "lo".into(), promiscuous: false };
        Plan { become_user: None, port, paths, stored: false, store: false }
    }

    #[test]
    fn paths_open_before_the_port() {
        let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let here = taken.local_addr().unwrap();
        let device = PathPlan { device: Some("no-such-device".into()), ..plan("127.0.0.1:0") };
        let fails = |paths: Vec<PathPlan>| everything(&without_port(paths), None).map(|_| ()).unwrap_err();
        let busy = plan(&here.to_string());
        assert!(
            fails(vec![busy.clone(), device.clone()]).starts_with(&format!("local address {here}: already in use"))
        );
        assert!(fails(vec![device, busy]).starts_with("device \"no-such-device\": no such interface"));
        let port = fails(vec![plan("127.0.0.1:0")]);
        assert_eq!(port, "interface \"lo\": does not carry Ethernet frames; name an Ethernet interface");
    }
}
