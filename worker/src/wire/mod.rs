//! Wire formats: how frames become datagrams and back. Pure functions on slices, no I/O, no clock.

mod cbc;
pub mod classic;
pub mod fragment;
pub mod lz4;
pub mod password;
