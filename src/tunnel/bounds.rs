//! Bounds of the numbers in a tunnel's description, for command line and file.

use std::ops::RangeInclusive;

use privsep::ipc::MAX_FRAME;

/// Bytes of a frame.
pub const FRAME: RangeInclusive<u64> = 1..=MAX_FRAME as u64;
/// MTU of a TAP in bytes: from the least of IPv4 (RFC 791) to the longest frame less an Ethernet header with a VLAN tag.
pub const INTERFACE_MTU: RangeInclusive<u64> = 68..=MAX_FRAME as u64 - 18;
/// MTU in bytes over which the classic wire splits a datagram in two: EthUDP's bounds.
pub const FRAGMENT_MTU: RangeInclusive<u64> = 1036..=1500;
/// MTU of a path in bytes that the file sets for the secure wire: from the least of IPv6 (RFC 8200) to that of the greatest inner
/// MTU.
pub const PATH_MTU: RangeInclusive<u64> = 1280..=9216;
/// DSCP of datagrams: six bits.
pub const DSCP: RangeInclusive<u64> = 0..=63;
/// Slots of tunnels that share a port: 12 bits of a receiver index.
pub const SLOT: RangeInclusive<u64> = 0..=4095;
/// Seconds from one ping of the secure wire to the next on an idle path.
pub const PING_INTERVAL: RangeInclusive<u64> = 1..=60;
/// Milliseconds from one PING of the classic wire to the next. A dead path is noticed after five of them; EthUDP's interval is the
/// longest.
pub const KEEPALIVE_MS: RangeInclusive<u64> = 100..=1000;
/// Weight of a path.
pub const WEIGHT: RangeInclusive<u64> = 1..=100;
/// Frames a second of a storm guard.
pub const RATE: RangeInclusive<u64> = 1..=1_000_000;
/// MAC addresses of a peer's stations. A worker has memory for as many.
pub const STATIONS: RangeInclusive<u64> = 1..=8192;
/// LZ4 level: EthUDP's bounds.
pub const LZ4: RangeInclusive<u64> = 0..=9;

/// Parses a whole number within bounds.
pub fn number(what: &str, value: &str, bounds: RangeInclusive<u64>) -> Result<u64, String> {
    let (least, most) = bounds.clone().into_inner();
    let number = value.parse::<u64>().ok().filter(|number| bounds.contains(number));
    number.ok_or_else(|| format!("{what} {value:?}: must be a number from {least} to {most}"))
}
