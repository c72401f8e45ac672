//! Wire formats: how frames become datagrams and back. Pure functions on slices, no I/O, no clock.

mod cbc;
pub mod classic;
