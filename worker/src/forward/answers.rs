//! Answers to packets that are too long for the path, in mode tap.

use privsep::ipc::SharedPort;

use crate::batch::Batch;
use crate::frame::too_big;
use crate::port::Sink;

/// Answers to packets that are too long for the path.
pub struct Answers {
    sink: Sink,
    batch: Batch,
    /// Time in microseconds of the next answers.
    next_us: u64,
}

impl Answers {
    /// Most answers at a time, and microseconds from one time to the next.
    const MOST: usize = 8;
    const PAUSE_US: u64 = 10_000;

    /// Answers go to this sink.
    pub fn new(sink: Sink) -> Self {
        Self { sink, batch: Batch::with_room(Self::MOST, too_big::CAPACITY), next_us: 0 }
    }

    /// Removes IP packets whose frames are longer than `most` bytes from the batch, and answers some of them with ICMP.
    pub fn take_too_long(&mut self, batch: &mut Batch, most: usize, now_us: u64, counters: &SharedPort) {
        let Self { sink, batch: replies, next_us } = self;
        replies.clear();
        let (mut scratch, mut dropped) = ([0; too_big::CAPACITY], 0);
        batch.retain_spans(|frame, span| {
            let length = span.facts.superframe.map_or(frame.len(), |superframe| {
                frame.len().min(usize::from(superframe.header) + usize::from(superframe.segment))
            });
            if length <= most {
                return true;
            }
            let Some(written) = too_big::answer(frame, length, most, &mut scratch) else { return true };
            dropped += span.packets().0;
            if !replies.is_full() {
                replies.append_copy(&scratch[..written]);
            }
            false
        });
        counters.rx_dropped_too_big.add(dropped);
        if !replies.is_empty() && now_us >= *next_us {
            *next_us = now_us + Self::PAUSE_US;
            // Never waits for room: the sender tries again.
            sink.send(counters, replies, &mut 0);
        }
    }
}
