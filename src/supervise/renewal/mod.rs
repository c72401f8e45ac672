//! Renewal of a running tunnel: other addresses of names, and new starts of the program, for repairs that need the privileges of a
//! start.

pub mod late;
mod locals;
pub mod names;
pub mod repair;
pub mod starts;
