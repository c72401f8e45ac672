//! VLAN tags (IEEE 802.1Q).

use privsep::sys::worker::mmsg::VlanTag;

use super::ethernet::{TPID_8021AD, TPID_8021Q, word};

/// Length of a tag in bytes.
pub const TAG: usize = 4;
/// Bits of a tag for the VLAN id.
const VID: u16 = 0x0fff;
/// Offset of a tag in a frame, behind the two addresses.
const POSITION: usize = 12;

/// Restores a tag that the kernel has removed. `frame` begins with [`TAG`] bytes of room.
///
/// # Panics
/// Panics if `frame` is shorter than the room and two addresses.
pub fn restore(frame: &mut [u8], tag: VlanTag) {
    frame.copy_within(TAG..TAG + POSITION, 0);
    frame[POSITION..POSITION + 2].copy_from_slice(&tag.tpid.to_be_bytes());
    frame[POSITION + 2..POSITION + TAG].copy_from_slice(&tag.tci.to_be_bytes());
}

/// Map of VLAN ids in one direction. An id without an entry maps to itself.
pub struct Map(Box<[u16]>);

impl Map {
    /// Makes it from pairs of ids below 4096: `from`, `to`.
    pub fn new(pairs: impl Iterator<Item = (u16, u16)>) -> Self {
        let mut ids: Box<[u16]> = (0..4096).collect();
        for (from, to) in pairs {
            ids[usize::from(from & VID)] = to & VID;
        }
        Self(ids)
    }

    /// Replaces the VLAN id of a frame's outer tag. Priority, DEI, inner tags and untagged frames stay unchanged.
    pub fn apply(&self, frame: &mut [u8]) {
        let tag = (word(frame, POSITION), word(frame, POSITION + 2));
        if let (Some(TPID_8021Q | TPID_8021AD), Some(tci)) = tag {
            let tci = tci & !VID | self.0[usize::from(tci & VID)];
            frame[POSITION + 2..POSITION + TAG].copy_from_slice(&tci.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restored_tag_follows_addresses() {
        let mut frame = *b"....ddddddssssssTTpayload";
        restore(&mut frame, VlanTag { tpid: 0x88a8, tci: 0xe063 });
        assert_eq!(&frame, b"ddddddssssss\x88\xa8\xe0\x63TTpayload");
    }

    #[test]
    fn only_outer_vlan_id_is_mapped() {
        let map = Map::new([(100, 200), (7, 4000)].into_iter());
        for (before, after) in [
            (&b"\x81\x00\x00\x64"[..], &b"\x81\x00\x00\xc8"[..]),
            (b"\x81\x00\xf0\x64", b"\x81\x00\xf0\xc8"),
            (b"\x88\xa8\x20\x07\x81\x00\x00\x64", b"\x88\xa8\x2f\xa0\x81\x00\x00\x64"),
            (b"\x81\x00\x00\xc8", b"\x81\x00\x00\xc8"),
            (b"\x08\x00\x00\x64", b"\x08\x00\x00\x64"),
            (b"\x81\x00\x00", b"\x81\x00\x00"),
        ] {
            let mut frame = [b"ddddddssssss", before].concat();
            map.apply(&mut frame);
            assert_eq!(&frame[12..], after, "{before:02x?}");
        }
    }
}
