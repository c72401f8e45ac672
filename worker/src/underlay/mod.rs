//! The remote side: UDP sockets, opened by the helper.

mod inlet;
mod outlet;
mod socket;
#[cfg(test)]
mod tests;

pub use inlet::{Inlet, accept};
pub use outlet::Outlet;
pub use socket::Socket;
