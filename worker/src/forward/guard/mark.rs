//! Frame of the loop detection. It goes to a group that every bridge floods, and has a random mark by which its sender knows it.

use crate::frame::ethernet::{TPID_8021AD, TPID_8021Q, payload};

/// Random number of one worker.
pub type Mark = [u8; 16];

/// Length of the frame in bytes: the shortest of Ethernet, without its checksum.
pub const LENGTH: usize = 60;
/// Length of two VLAN tags.
const TAGS: usize = 8;
/// Locally administered group.
const GROUP: [u8; 6] = *b"\x03ethud";
/// Local experimental EtherType 2 (IEEE 802).
const ETHERTYPE: u16 = 0x88b6;
/// First bytes of the payload. Other programs use the same EtherType.
const MAGIC: [u8; 8] = *b"ethudp\0\x01";

/// Frame with this mark. Its source is a locally administered address of the mark's bytes.
pub fn frame(mark: &Mark) -> [u8; LENGTH] {
    let mut frame = [0; LENGTH];
    frame[..6].copy_from_slice(&GROUP);
    frame[6] = 2;
    frame[7..12].copy_from_slice(&mark[..5]);
    frame[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
    frame[14..22].copy_from_slice(&MAGIC);
    frame[22..38].copy_from_slice(mark);
    frame
}

/// Mark in a frame, behind at most two VLAN tags that a bridge has added.
pub fn of(frame: &[u8]) -> Option<Mark> {
    if !frame.starts_with(&GROUP) || frame.len() > LENGTH + TAGS {
        return None;
    }
    let (kind, at) = payload(frame, 2, &[TPID_8021Q, TPID_8021AD])?;
    let rest = frame.get(at..)?.strip_prefix(&MAGIC).filter(|_| kind == ETHERTYPE)?;
    rest.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mark_is_found_behind_tags() {
        let mark = *b"a mark of 16 b. ";
        let mut frame = frame(&mark).to_vec();
        assert_eq!((frame.len(), frame[0] & 1, frame[6] & 3), (60, 1, 2));
        for _ in 0..3 {
            assert_eq!(of(&frame), Some(mark));
            assert!((0..38).all(|length| of(&frame[..length]).is_none()));
            for at in [0, 5, frame.len() - 48, frame.len() - 46] {
                let mut other = frame.clone();
                other[at] ^= 2;
                assert_eq!(of(&other), None, "{at}");
            }
            frame.splice(12..12, [0x81, 0, 0, 7]);
        }
        assert_eq!(of(&frame), None, "three tags");
        // Longer frames would pass the limits.
        let long = [&self::frame(&mark)[..], &[0; TAGS + 1]].concat();
        assert_eq!((of(&long[..LENGTH + TAGS]), of(&long)), (Some(mark), None));
    }
}
