//! System calls of workers only; not part of the helper.

mod address;
pub mod heap;
pub mod mmsg;
pub mod option;
