//! Counters of a tunnel that both loops share.

use privsep::ipc::{SharedPath, SharedPort, SharedSeal, State};

/// Where a machine counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// The local side.
    pub port: SharedPort,
    /// What sealing did to the size of frames.
    pub seal: SharedSeal,
    /// Each path.
    pub paths: Vec<SharedPath>,
}

impl Counters {
    /// Goes on from where an earlier worker had come to.
    pub fn new(state: &State, paths: usize) -> Self {
        let path =
            |number: usize| state.paths.get(number).map(|path| SharedPath::new(&path.counters)).unwrap_or_default();
        Self {
            port: SharedPort::new(&state.port),
            seal: SharedSeal::new(&state.seal),
            paths: (0..paths).map(path).collect(),
        }
    }
}
