//! Renewal of a tunnel by a new start of the program, for repairs that need the privileges of a start.

pub mod late;
mod locals;
pub mod repair;
pub mod starts;
