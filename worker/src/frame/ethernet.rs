//! Header of an Ethernet frame: EtherType and VLAN tags.

/// IPv4 (RFC 894).
pub const IPV4: u16 = 0x0800;
/// IPv6 (RFC 2464).
pub const IPV6: u16 = 0x86dd;
/// Customer tag (IEEE 802.1Q).
pub const TPID_8021Q: u16 = 0x8100;
/// Service tag (IEEE 802.1ad).
pub const TPID_8021AD: u16 = 0x88a8;

/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;

/// Two big-endian bytes at `at`.
pub fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// EtherType of the payload and offset of the payload, behind at most `tags` tags of one of these types.
pub fn payload(frame: &[u8], tags: usize, types: &[u16]) -> Option<(u16, usize)> {
    let mut at = 12;
    let mut kind = word(frame, at)?;
    let last = at + 4 * tags;
    while at < last && types.contains(&kind) {
        at += 4;
        kind = word(frame, at)?;
    }
    Some((kind, at + 2))
}
