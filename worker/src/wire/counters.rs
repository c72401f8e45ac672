//! Counters of a tunnel, shared by both loops.

use std::sync::atomic::AtomicBool;

use privsep::ipc::{SharedPath, SharedPort, SharedSeal, State};

/// Counters of sessions and sealers.
#[derive(Debug, Default)]
pub struct Counters {
    /// The local side.
    pub port: SharedPort,
    /// Changes of frame sizes by sealing.
    pub seal: SharedSeal,
    /// Each path.
    pub paths: Vec<SharedPath>,
    /// Whether the session probes its paths slowly. The next frames clear it and wake the main thread.
    pub resting: AtomicBool,
}

impl Counters {
    /// Continues from the counters of an earlier worker.
    pub fn new(state: &State, paths: usize) -> Self {
        let path =
            |number: usize| state.paths.get(number).map(|path| SharedPath::new(&path.counters)).unwrap_or_default();
        Self {
            port: SharedPort::new(&state.port),
            seal: SharedSeal::new(&state.seal),
            paths: (0..paths).map(path).collect(),
            resting: AtomicBool::new(false),
        }
    }
}
