//! Unpacks the content of opened datagrams: frames go to the batch, fragments are reassembled.

use std::ops::Range;

use super::content::{self, Content, Frame, Pinged};
use super::fragment::{Outcome, Reassembly};
use crate::batch::Collector;

/// Content for the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Ping to be answered, and whether by every path.
    Ping(Pinged, bool),
    /// Answer to a ping.
    Pong(Pinged),
    /// Probe to be answered with this token and size, if the datagram has that size; and whether by every path.
    Probe([u8; 8], u16, bool),
    /// Answer to the probe with this token and size.
    Arrived([u8; 8], u16),
}

/// Reason why content is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// The content is malformed.
    Wrong,
    /// The batch has no room for all frames.
    NoRoom,
}

/// Unpacker of one receiver, with reassembly memory that is allocated once.
#[derive(Default)]
pub struct Unpacker {
    reassembly: Reassembly,
}

impl Unpacker {
    /// Takes the content at range `content` of the memory of [`crate::batch::Batch::expand`], opened by this session and queue.
    ///
    /// # Errors
    /// Reason of the loss, which the caller counts.
    pub fn take(
        &mut self,
        from: (u32, u8),
        memory: &mut [u8],
        content: Range<usize>,
        now_us: u64,
        found: &mut Collector<'_>,
    ) -> Result<Option<Control>, Lost> {
        let base = content.start;
        let bytes = &memory[content.clone()];
        let mut push = |Frame { range, checksum }| found.frame(base + range.start..base + range.end, checksum);
        let fits = match content::parse(bytes).ok_or(Lost::Wrong)? {
            Content::Ping(pinged, every_path) => return Ok(Some(Control::Ping(pinged, every_path))),
            Content::Pong(pinged) => return Ok(Some(Control::Pong(pinged))),
            Content::Probe(token, size, every_path) => return Ok(Some(Control::Probe(token, size, every_path))),
            Content::Arrived(token, size) => return Ok(Some(Control::Arrived(token, size))),
            Content::Unknown => return Ok(None),
            Content::Frame(frame) => push(frame),
            Content::Bundle(bundle) => bundle.frames().all(push),
            Content::Fragment(fragment) => {
                let piece = &bytes[fragment.range.clone()];
                match self.reassembly.take(from, &fragment, piece, found.class, now_us) {
                    Outcome::Waits => true,
                    Outcome::Wrong => return Err(Lost::Wrong),
                    Outcome::Whole(whole, class) => {
                        found.class = class;
                        let frame = content::frame(whole).ok_or(Lost::Wrong)?;
                        found.copy(memory, content.end, &whole[frame.range], frame.checksum)
                    }
                }
            }
        };
        if fits { Ok(None) } else { Err(Lost::NoRoom) }
    }

    /// See [`Reassembly::expire`].
    pub fn expire(&mut self, now_us: u64) -> u64 {
        self.reassembly.expire(now_us)
    }
}
