//! The worker: all cryptography and forwarding, without capabilities, files or a way to create sockets.
//!
//! [`wire`] is the protocol: state machines without I/O. [`frame`] has pure functions on frames, and [`batch`] the memory of
//! frames. [`port`] is the local side, [`underlay`] the remote one. [`forward`] joins them in two loops and applies the rules.
//! [`control`] talks to the supervisor. [`start`] creates these parts, after [`confine`] has confined the process.

pub mod batch;
pub mod confine;
mod control;
pub mod endpoint;
mod forward;
pub mod frame;
/// Checks for the fuzz targets, the replay of their seeds, and other tests.
#[cfg(feature = "fuzzing")]
#[path = "../../fuzz/worker/mod.rs"]
pub mod fuzzing;
mod io;
mod port;
mod start;
mod underlay;
pub mod wire;

pub use start::run;
