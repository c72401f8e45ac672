//! Renewal of a tunnel by a new start of the program, for what only the privileges of a start can repair.

pub mod late;
mod locals;
pub mod repair;
pub mod starts;
