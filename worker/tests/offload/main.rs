//! Tests of offload against a plain reference: superframes are segmented as by the kernel, and coalesced only from frames that
//! segmentation restores.

mod coalesce;
mod reference;
mod segment;
