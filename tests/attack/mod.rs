//! What is promised about a process that has been taken over, proved by processes that behave as if they were.

mod helper;
mod neighbour;
mod table;
mod worker;
