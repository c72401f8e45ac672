//! Watches over a running tunnel: log lines and status about the local side, the paths, the session and sizes.

pub mod carrier;
pub mod link;
pub mod mismatch;
pub mod news;
mod not_up;
pub mod oversize;
pub mod paths;
mod pause;
pub mod session;
pub mod storm;

use std::time::Instant;

use privsep::ipc::Settings;

use crate::tunnel::{Port, Tunnel};

/// Watches that evaluate each report of a worker.
pub struct Watches {
    /// Health and silence of the paths.
    pub paths: paths::Observer,
    /// Session of the secure wire.
    pub session: session::Watch,
    /// Frames and datagrams that are too long.
    pub oversize: oversize::Oversize,
    /// Looping frames.
    pub storm: storm::Detector,
    /// Carrier of a TAP that follows the paths.
    pub carrier: Option<carrier::Carrier>,
}

impl Watches {
    /// Watches of a tunnel with these settings. The start of the program `began` then; `carrier` is that of the local side now.
    pub fn new(now: Instant, began: Instant, tunnel: &Tunnel, settings: &Settings, carrier: bool) -> Self {
        let follows = matches!(tunnel.port, Port::Tap { follow: true, .. });
        Self {
            paths: paths::Observer::new(now, tunnel, settings),
            session: session::Watch::new(tunnel.wire.fingerprint().unwrap_or_default()),
            oversize: oversize::Oversize::default(),
            storm: storm::Detector::new(now),
            carrier: follows.then(|| carrier::Carrier::new(began, carrier)),
        }
    }
}
