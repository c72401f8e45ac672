//! The process and what is around it on this host: how it was started and by whom, where it listens, whom it becomes, and what
//! is left to it then. Nothing here knows what a tunnel is.

pub mod confine;
pub mod control_socket;
pub mod descriptor_store;
pub mod directory;
pub mod executables;
pub mod files;
pub mod identity;
pub mod networks;
pub mod notify;

pub mod start;
