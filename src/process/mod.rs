//! Child processes, and waiting for descriptors and signals.

mod child;
mod events;

pub use child::Child;
pub use events::{Readable, WaitResult, end_requested, take_signals, wait};
