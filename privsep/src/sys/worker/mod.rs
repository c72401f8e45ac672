//! What only workers call; nothing of it is in the helper.

mod address;
pub mod heap;
pub mod mmsg;
pub mod option;
