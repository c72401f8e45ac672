//! The promises of ethudp, one module each, on real interfaces in network namespaces. They need root.

mod lab;

mod background;
mod bad_input;
mod bridge;
mod confinement;
mod datagrams;
mod interop;
mod raw;
mod recovery;
mod status;
mod tap;
