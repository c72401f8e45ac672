//! Start of a tunnel, up to the loop of the supervisor: addresses are resolved, the underlay is measured, the user's command
//! runs. Signals and status requests are answered meanwhile.

pub mod command;
pub mod lookup;
pub mod route;
pub mod underlay;
pub mod waiting;
