//! Watches over a running tunnel: what the log and the status say about the local side, the paths, the session and sizes.

pub mod link;
pub mod mismatch;
pub mod news;
mod not_up;
pub mod oversize;
pub mod paths;
mod pause;
pub mod session;
pub mod storm;
