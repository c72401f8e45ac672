//! The worker: all crypto and forwarding, without a capability, a file or a way to make a socket.
//!
//! [`wire`] is the protocol, state machines without I/O; [`frame`] has pure functions on frames, and [`batch`] the memory of frames.
//! [`port`] is the local side, [`underlay`] the remote one; [`forward`] joins them in two loops and applies the rules; [`control`]
//! talks to the supervisor. [`start`] makes all of it, and [`confine`] confines the process before any of it runs.

pub mod batch;
pub mod confine;
mod control;
pub mod endpoint;
mod forward;
pub mod frame;
/// Checks that the fuzz targets, the replay of their seeds and other tests run.
#[cfg(feature = "fuzzing")]
#[path = "../../fuzz/worker/mod.rs"]
pub mod fuzzing;
mod io;
mod port;
mod start;
mod underlay;
pub mod wire;

pub use start::run;
