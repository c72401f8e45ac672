//! The process on its host: its start, identity, control socket, files and confinement. This module knows no tunnels.

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
