//! Remote side: UDP sockets, opened by the helper.

pub(crate) mod inlet;
mod outlet;
mod socket;
#[cfg(test)]
mod tests;

pub use inlet::Inlet;
pub use outlet::Outlet;
pub use socket::Socket;
