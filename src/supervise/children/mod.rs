//! Child processes of a running tunnel: the helper, and one worker after the other.

pub mod helper;
pub mod memory;
pub mod restart;
pub mod resume;
pub mod worker;
