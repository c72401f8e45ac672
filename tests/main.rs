//! The promises of ethudp, one module each, on real interfaces in network namespaces. They need root.

mod lab;

mod attack;
mod audit;
mod background;
mod bad_input;
mod bridge;
mod check;
mod confinement;
mod datagrams;
mod demo;
mod failover;
mod files;
mod idle;
mod inherited;
mod init;
mod interop;
mod keys;
mod kills;
mod mirror;
mod mss;
mod nat;
mod offload;
mod overload;
mod parts;
mod raw;
mod recovery;
mod service;
mod show;
mod signals;
mod sizes;
mod states;
mod status;
mod storm;
mod tap;
mod unit;
