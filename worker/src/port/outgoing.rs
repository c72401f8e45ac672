//! Outgoing frames of a batch for the local side: single frames, and superframes of consecutive frames of a flow.

use nix::errno::Errno;

use crate::batch::{Batch, MAX_EXPANDED};
use crate::frame::offload::coalesce::{Coalescer, Planned};
use crate::frame::offload::superframe::Facts;
use crate::frame::offload::{self, LONG, SHORT};

/// Outgoing frames of one batch at a time. Its memory is reused.
pub struct Outgoing {
    coalescer: Coalescer,
    /// Number of the first planned frame.
    first: usize,
    items: Vec<Item>,
    /// Number of finished items.
    done: usize,
    /// Whether frames are not coalesced, and all stay in order.
    singly: bool,
}

/// One item to write.
#[derive(Debug, Clone, Copy)]
enum Item {
    /// Superframe, by its number in the plan.
    Superframe(usize),
    /// Frame, by its number in the batch.
    Frame(usize),
}

/// Packet of an item, with its facts for the kernel before it.
pub struct Packet<'a> {
    batch: &'a Batch,
    first: usize,
    content: Result<Planned<'a>, usize>,
    header: [u8; LONG],
}

impl Packet<'_> {
    /// Pieces to write.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let (superframe, frame) = (self.content.ok(), self.content.err());
        let headers = superframe.map(|planned| planned.headers());
        let parts = superframe.into_iter().flat_map(|planned| planned.parts());
        let parts = parts.map(|(index, from)| &self.batch.frame(self.first + index)[from..]);
        let frame = frame.map(|index| self.batch.frame(index));
        std::iter::once(&self.header[..SHORT]).chain(headers).chain(parts).chain(frame)
    }

    /// Frames in the packet.
    pub fn frames(&self) -> impl Iterator<Item = &[u8]> {
        let planned = self.content.ok().into_iter().flat_map(|planned| planned.parts());
        let planned = planned.map(|(index, _)| self.first + index);
        planned.chain(self.content.err()).map(|index| self.batch.frame(index))
    }
}

impl Outgoing {
    /// Allocates memory for as many frames as a batch can have. With `singly`, frames are not coalesced.
    pub fn new(singly: bool) -> Self {
        let coalescer = if singly { Coalescer::default() } else { Coalescer::new(true).with_room(MAX_EXPANDED) };
        Self { coalescer, first: 0, items: Vec::with_capacity(MAX_EXPANDED), done: 0, singly }
    }

    /// Enables or disables superframes of UDP from the next batch on.
    pub fn make_udp(&mut self, udp: bool) {
        self.coalescer.make_udp(udp);
    }

    /// Begins with the frames of a batch from number `first` on. Frames that do not `fit` stay single.
    pub fn begin(&mut self, batch: &Batch, first: usize, fit: impl Fn(&[u8]) -> bool) {
        let Self { coalescer, items, .. } = self;
        (self.first, self.done) = (first, 0);
        items.clear();
        if self.singly {
            items.extend((first..batch.len()).map(Item::Frame));
            return;
        }
        let checksum = |index: usize| batch.span(first + index).facts.checksum;
        coalescer.plan_partial(batch.len() - first, |index| batch.frame(first + index), checksum);
        for (number, planned) in coalescer.planned().enumerate() {
            let frames = || planned.parts().map(|(index, _)| first + index);
            if planned.count() > 1 && frames().all(|index| fit(batch.frame(index))) {
                items.push(Item::Superframe(number));
            } else {
                items.extend(frames().map(Item::Frame));
            }
        }
    }

    /// Remaining packets.
    pub fn packets<'a>(&'a self, batch: &'a Batch) -> impl Iterator<Item = Packet<'a>> {
        self.items[self.done..].iter().map(move |&item| {
            let (content, facts) = match item {
                Item::Superframe(number) => {
                    let planned = self.coalescer.get(number);
                    (Ok(planned), planned.facts())
                }
                Item::Frame(index) => {
                    (Err(index), Facts { checksum: batch.span(index).facts.checksum, ..Facts::default() })
                }
            };
            Packet { batch, first: self.first, content, header: offload::write(&facts) }
        })
    }

    /// Marks this many items as finished.
    pub fn advance(&mut self, count: usize) {
        self.done += count;
    }

    /// Handles the refusal of the next item. If it is a superframe and the error may be due to that, replaces it by its frames and
    /// returns its facts. Other errors, such as an interface that is down or a full queue, would affect the single frames as well.
    pub fn refuse(&mut self, error: Errno) -> Option<Facts> {
        // Unknown kind or too long; or not segmentable, which packet sockets also report as a lack of memory.
        let singly = matches!(error, Errno::EINVAL | Errno::EMSGSIZE | Errno::ENOMEM);
        let Some(&Item::Superframe(number)) = self.items.get(self.done).filter(|_| singly) else { return None };
        let planned = self.coalescer.get(number);
        let frames = planned.parts().map(|(index, _)| Item::Frame(self.first + index));
        self.items.splice(self.done..=self.done, frames);
        Some(planned.facts())
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// TCP frame with this sequence number, right checksums, and a payload of this length.
    pub fn segment(sequence: u32, payload: usize) -> Vec<u8> {
        let mut frame = vec![0; 54 + payload];
        frame[12..14].copy_from_slice(&[8, 0]);
        let total = u16::try_from(40 + payload).unwrap().to_be_bytes();
        frame[14..34]
            .copy_from_slice(&[0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        frame[38..42].copy_from_slice(&sequence.to_be_bytes());
        (frame[46], frame[47]) = (0x50, 0x10);
        let sum = crate::frame::checksum::Sum::of(&frame[14..34]).checksum();
        frame[24..26].copy_from_slice(&sum);
        let pseudo = [&frame[26..34], &[0, 6], &u16::try_from(20 + payload).unwrap().to_be_bytes()].concat();
        let sum =
            crate::frame::checksum::Sum::of(&pseudo).plus(crate::frame::checksum::Sum::of(&frame[34..])).checksum();
        frame[50..52].copy_from_slice(&sum);
        frame
    }

    fn written(outgoing: &Outgoing, batch: &Batch) -> Vec<(usize, usize)> {
        outgoing
            .packets(batch)
            .map(|packet| (packet.frames().count(), packet.pieces().map(<[u8]>::len).sum()))
            .collect()
    }

    #[test]
    fn partial_checksum_is_passed_on() {
        let checksum = Some(crate::frame::offload::superframe::Checksum { start: 34, offset: 16 });
        let facts = Facts { checksum, ..Facts::default() };
        let mut batch = Batch::default();
        for number in 0..3_u32 {
            let mut frame = segment(number * 100, 100);
            let pseudo = crate::frame::checksum::Sum::of(&[&frame[26..34], &[0, 6, 0, 120]].concat()).folded();
            frame[50..52].copy_from_slice(&pseudo);
            batch.append_copy(&frame);
            batch.set_facts(batch.len() - 1, facts);
        }
        // A frame with a complete checksum stays separate, in its order.
        batch.append_copy(&segment(300, 100));
        let mut outgoing = Outgoing::new(false);
        outgoing.begin(&batch, 0, |_| true);
        let header = |outgoing: &Outgoing| -> Vec<_> {
            outgoing.packets(&batch).map(|packet| offload::parse(&packet.header, &[0; 1000]).unwrap()).collect()
        };
        let told = header(&outgoing);
        assert_eq!((told.len(), told[0].checksum, told[1]), (2, checksum, Facts::default()));
        assert!(told[0].superframe.is_some_and(|superframe| superframe.segment == 100));
        assert!(outgoing.refuse(Errno::EINVAL).is_some());
        assert_eq!(header(&outgoing), [facts, facts, facts, Facts::default()]);
    }

    #[test]
    fn mirror_sends_single_frames() {
        let mut batch = Batch::default();
        for frame in [segment(0, 100), vec![9; 60], segment(100, 100), segment(200, 50)] {
            batch.append_copy(&frame);
        }
        let mut outgoing = Outgoing::new(true);
        outgoing.begin(&batch, 0, |_| true);
        assert_eq!(written(&outgoing, &batch), [(1, 164), (1, 70), (1, 164), (1, 114)]);
        assert!(outgoing.packets(&batch).enumerate().all(|(at, packet)| packet.frames().eq([batch.frame(at)])));
    }

    #[test]
    fn refused_superframe_is_sent_as_frames() {
        let mut batch = Batch::default();
        for frame in [vec![9; 60], segment(0, 100), vec![7; 60], segment(100, 100), segment(200, 50)] {
            batch.append_copy(&frame);
        }
        let (mut outgoing, alone) = (Outgoing::new(false), [(1, 70), (1, 164), (1, 164), (1, 114), (1, 70)]);
        outgoing.begin(&batch, 0, |_| true);
        assert_eq!(written(&outgoing, &batch), [(1, 70), (3, 10 + 54 + 250), (1, 70)]);
        assert_eq!(outgoing.refuse(Errno::EINVAL), None);
        outgoing.advance(1);
        for error in [Errno::ENOBUFS, Errno::ENETDOWN, Errno::EIO, Errno::ECONNREFUSED] {
            assert_eq!(outgoing.refuse(error), None, "{error}: each of its frames would fail as well");
        }
        assert_eq!(written(&outgoing, &batch), [(3, 10 + 54 + 250), (1, 70)]);
        assert_eq!(outgoing.refuse(Errno::EINVAL).unwrap().superframe.unwrap().segment, 100);
        assert_eq!(written(&outgoing, &batch), alone[1..]);
        outgoing.advance(4);
        assert_eq!((written(&outgoing, &batch), outgoing.refuse(Errno::EINVAL)), (vec![], None));
        // Frames longer than `fit` allows are never coalesced, and finished frames are skipped.
        outgoing.begin(&batch, 0, |frame| frame.len() <= 153);
        assert_eq!(written(&outgoing, &batch), alone);
        outgoing.begin(&batch, 3, |frame| frame.len() <= 154);
        assert_eq!(written(&outgoing, &batch), [(2, 10 + 54 + 150)]);
        assert!(outgoing.packets(&batch).next().unwrap().frames().eq([batch.frame(3), batch.frame(4)]));
    }
}
