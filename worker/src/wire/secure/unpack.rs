//! What is done with the content of a datagram that was opened: frames go to the batch, pieces are put together.

use std::ops::Range;

use super::content::{self, Content, Frame};
use super::fragment::{Outcome, Reassembly};
use crate::batch::Collector;

/// What is for the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// To be answered with this token.
    Ping([u8; 8]),
    /// The answer to a ping with this token.
    Pong([u8; 8]),
    /// To be answered with this token and size, if that is the datagram's.
    Probe([u8; 8], u16),
    /// The answer to a probe with this token and size.
    Arrived([u8; 8], u16),
}

/// Why something is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// It is no content.
    Wrong,
    /// The batch has no room for all frames.
    NoRoom,
}

/// One receiver's: pieces that wait, in memory that is allocated once.
#[derive(Default)]
pub struct Unpacker {
    reassembly: Reassembly,
}

impl Unpacker {
    /// Takes the content at `content` of the memory that [`crate::batch::Batch::expand`] gives, opened by this session and from this
    /// queue of it.
    ///
    /// # Errors
    /// What is lost, which is to be counted.
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
            Content::Ping(token) => return Ok(Some(Control::Ping(token))),
            Content::Pong(token) => return Ok(Some(Control::Pong(token))),
            Content::Probe(token, size) => return Ok(Some(Control::Probe(token, size))),
            Content::Arrived(token, size) => return Ok(Some(Control::Arrived(token, size))),
            Content::Unknown => return Ok(None),
            Content::Frame(frame) => push(frame),
            Content::Bundle(bundle) => bundle.frames().all(push),
            Content::Fragment(fragment) => {
                let piece = &bytes[fragment.range.clone()];
                match self.reassembly.take(from, &fragment, piece, now_us) {
                    Outcome::Waits => true,
                    Outcome::Wrong => return Err(Lost::Wrong),
                    Outcome::Whole(whole) => {
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
