//! VLAN tags (IEEE 802.1Q).

use privsep::sys::mmsg::VlanTag;

/// Length of a tag in bytes.
pub const TAG: usize = 4;
/// Where a tag stands in a frame: behind the two addresses.
const POSITION: usize = 12;

/// Puts a tag that the kernel had taken out back in its place. `frame` begins with [`TAG`] bytes of room.
///
/// # Panics
/// When `frame` is shorter than that room and two addresses.
pub fn restore(frame: &mut [u8], tag: VlanTag) {
    frame.copy_within(TAG..TAG + POSITION, 0);
    frame[POSITION..POSITION + 2].copy_from_slice(&tag.tpid.to_be_bytes());
    frame[POSITION + 2..POSITION + TAG].copy_from_slice(&tag.tci.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restored_tag_stands_behind_the_addresses() {
        let mut frame = *b"....ddddddssssssTTpayload";
        restore(&mut frame, VlanTag { tpid: 0x88a8, tci: 0xe063 });
        assert_eq!(&frame, b"ddddddssssss\x88\xa8\xe0\x63TTpayload");
    }
}
