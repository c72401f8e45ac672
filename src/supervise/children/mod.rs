//! Child processes of a running tunnel: the helper, one worker after the other, and the resolver if a peer has a name.

pub mod helper;
pub mod memory;
pub mod resolver;
pub mod restart;
pub mod resume;
pub mod worker;
