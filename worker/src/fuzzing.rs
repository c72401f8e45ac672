//! What the fuzz targets and the replay of their seeds call: each takes any bytes and checks what must always hold.

#![allow(clippy::missing_panics_doc)] // To panic is what they are for.

use std::net::SocketAddr;

use privsep::ipc::Cipher;

use crate::batch::{Batch, MAX_DATAGRAM, MAX_FRAME};
use crate::frame::{loops, mss, udp, vlan};
use crate::wire::classic::codec::{Codec, Scratch, kind};
use crate::wire::classic::fragment::{self, Outcome, Reassembly, Splitter};

/// Decoding: the first byte chooses cipher and compression, the rest is a datagram. What is opened is never empty or
/// larger than a frame, and can be sealed and opened again.
pub fn open(data: &[u8]) {
    const CIPHERS: [Cipher; 5] = [Cipher::None, Cipher::Xor, Cipher::Aes128, Cipher::Aes192, Cipher::Aes256];
    let Some((&choice, datagram)) = data.split_first() else { return };
    let cipher = CIPHERS[usize::from(choice >> 1) % CIPHERS.len()];
    let (codec, mut scratch) = (Codec::new(cipher, b"0123456789abcdef", choice & 1 == 1), Scratch::default());
    let datagram = &datagram[..datagram.len().min(MAX_DATAGRAM + 1)];
    let mut batch = Batch::with_slots(1);
    batch.append_copy(datagram);
    batch.filter_map(|_, buffer, length| codec.open(buffer, length, &mut scratch));
    if batch.is_empty() {
        return;
    }
    let frame = batch.frame(0).to_vec();
    assert!((1..=MAX_FRAME).contains(&frame.len()));
    kind(&frame);
    codec.seal(&mut batch, &mut scratch);
    batch.filter_map(|_, buffer, length| codec.open(buffer, length, &mut scratch));
    assert_eq!(batch.frame(0), frame);
}

/// Rules on one frame: its length never changes, the MSS is lowered once, a map and its reverse cancel out.
pub fn frame(data: &[u8]) {
    let mut frame = data[..data.len().min(MAX_FRAME)].to_vec();
    let peers: [SocketAddr; 2] = [([10, 9, 0, 2], 2).into(), ([1_u16; 8], 1).into()];
    assert!(!loops::is_datagram(&frame, &peers) || loops::is_own(&frame, &peers));
    assert!(udp::inner(&frame).is_none_or(|range| range.start <= range.end && range.end <= frame.len()));
    let length = frame.len();
    mss::clamp(&mut frame, (1360, 1340));
    let clamped = frame.clone();
    assert!(!mss::clamp(&mut frame, (1360, 1340)) && frame == clamped && frame.len() == length);
    let swap = |from, to| vlan::Map::new([(from, to), (to, from)].into_iter());
    swap(100, 200).apply(&mut frame);
    swap(100, 200).apply(&mut frame);
    assert_eq!(frame, clamped);
}

/// Reassembly of datagrams that follow each other, each behind two bytes of length and one of time: whatever is joined
/// fits, and what we split is joined again.
pub fn fragment(mut data: &[u8]) {
    let (mut table, mut now) = (Reassembly::default(), 0);
    while let [high, low, time, rest @ ..] = data {
        let length = usize::from(u16::from_be_bytes([*high, *low]) % 1100).min(rest.len());
        let (piece, next) = rest.split_at(length);
        now += u64::from(*time) * 16;
        let mut buffer = [piece, &[0; fragment::TOO_LONG]].concat();
        if let Outcome::Joined(joined) = table.take(&mut buffer, length, now) {
            assert!(joined <= fragment::TOO_LONG);
        }
        if length > fragment::PIECE {
            let mut pieces = Vec::new();
            assert!(Splitter::new(1000, 40_000).split(piece, |half| {
                let mut to = vec![0; fragment::HEADER + 2 * fragment::PIECE];
                let length = fragment::write(&half, &mut to);
                pieces.push((to, length));
                true
            }));
            let Some((mut second, second_length)) = pieces.pop() else { unreachable!() };
            let Some((mut first, first_length)) = pieces.pop() else { unreachable!() };
            table.take(&mut second, second_length, now);
            assert_eq!(table.take(&mut first, first_length, now), Outcome::Joined(length));
            assert_eq!(&first[..length], piece);
        }
        data = next;
    }
}
