//! The worker: all crypto and forwarding, without a capability, a file or a way to make a socket.
//!
//! [`wire`] and [`frame`] are pure functions on slices; [`port`] is the local side, [`path`] the remote one; [`forward`]
//! joins them in two loops; [`control`] talks to the supervisor; [`seal`] confines the process before any of it runs.

pub mod batch;
mod benchmark;
mod control;
mod counters;
mod forward;
pub mod frame;
pub mod fuzzing;
mod io;
mod path;
mod port;
mod rules;
pub mod seal;
pub mod wire;

pub use control::run;
