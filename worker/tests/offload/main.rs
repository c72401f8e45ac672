//! Offload against a plain reference: superframes are cut as the kernel does it, and made only of what it would cut again.

mod coalesce;
mod reference;
mod segment;
