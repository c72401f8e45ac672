//! What is promised about a process that has been taken over, proved by processes that behave as if they were.

mod endurance;
mod helper;
mod helper_tables;
mod neighbour;
mod resolver;
mod table;
mod worker;
