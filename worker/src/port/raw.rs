//! Packet socket on an interface. Receiving and sending use the *same* socket: another socket on the interface would receive this
//! end's own frames and create a loop (packet(7): a socket does not receive the frames that it sends).

use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use privsep::ipc::SharedPort;
use privsep::sys::packet;
use privsep::sys::worker::mmsg::{Receiver, Sender, VlanTag};

use super::outgoing::{Outgoing, Packet};
use super::settle;
use crate::batch::{BATCH, Batch};
use crate::frame::ethernet::{TPID_8021Q, word};
use crate::frame::offload::{self, SHORT};
use crate::frame::{HEADER, ipv6, vlan};
use crate::io::{Received, Sent, forget_errors};

/// Interval between queries for the kernel's count of dropped frames.
const DROPS_EVERY: Duration = Duration::from_secs(1);

pub struct Source {
    handle: Arc<OwnedFd>,
    /// Whether partial checksums may stay.
    partial: bool,
    receiver: Receiver,
    drops_asked: Instant,
}

impl Source {
    pub fn new(handle: Arc<OwnedFd>, partial: bool) -> Self {
        Self { handle, partial, receiver: Receiver::with_control(BATCH), drops_asked: Instant::now() }
    }

    pub fn receive(&mut self, counters: &SharedPort, batch: &mut Batch) -> Received {
        self.count_kernel_drops(counters);
        let count = match self.receiver.receive(self.handle.as_fd(), batch.slots()) {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Received::Nothing;
            }
            // A superframe of a kind that the header cannot describe. The kernel has already dropped it from the queue
            // (`packet_recvmsg`), so the socket works, even after many of these errors.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                counters.rx_dropped_offload.add(1);
                batch.clear();
                return Received::Batch;
            }
            Err(_) => {
                counters.rx_errors.add(1);
                return Received::Error;
            }
        };
        for index in 0..count {
            let (length, tag) = (self.receiver.length(index), self.receiver.vlan_tag(index));
            accept(batch, index, length, tag, self.partial, counters);
        }
        Received::Batch
    }

    pub fn forget_errors(&mut self, batch: &mut Batch) {
        let _ = forget_errors(&mut self.receiver, self.handle.as_fd(), batch);
    }

    fn count_kernel_drops(&mut self, counters: &SharedPort) {
        if self.drops_asked.elapsed() < DROPS_EVERY {
            return;
        }
        self.drops_asked = Instant::now();
        if let Ok(drops) = packet::take_drops(self.handle.as_fd()) {
            counters.rx_dropped_kernel.add(drops.into());
        }
    }
}

/// Takes `length` bytes that were received into slot `index`: the kernel's header, and the frame without the removed tag. Restores
/// the tag, or drops and counts the frame.
pub(crate) fn accept(
    batch: &mut Batch,
    index: usize,
    length: usize,
    tag: Option<VlanTag>,
    partial: bool,
    counters: &SharedPort,
) {
    if length > batch.capacity() {
        return counters.rx_dropped_oversize.add(1);
    }
    batch.push(index, length);
    let last = batch.len() - 1;
    let (header, frame) = batch.frame(last).split_at(length.min(SHORT));
    let Ok(facts) = offload::parse(header, frame) else {
        counters.rx_dropped_offload.add(1);
        return batch.pop();
    };
    let tag = tag.filter(|_| frame.len() >= HEADER);
    batch.trim_front(last, SHORT);
    batch.set_facts(last, facts);
    if let Some(tag) = tag {
        vlan::restore(batch.grow_front(last, vlan::TAG), tag);
    }
    if facts.superframe.is_some() && offload::remove_jumbo(batch.frame_mut(last)) {
        batch.trim_front(last, ipv6::JUMBO);
        let facts = batch.span(last).facts.nearer_by(ipv6::JUMBO);
        batch.set_facts(last, facts);
    }
    settle(batch, partial, counters);
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

/// Batches for which a learned frame length of the interface is trusted.
const TRUSTED: u32 = 1000;

/// Sends frames; frames of a flow as superframes that the kernel or the interface segments.
pub struct Sink {
    handle: Arc<OwnedFd>,
    sender: Sender,
    outgoing: Outgoing,
    /// Greatest length, as [`length`] counts, of a frame that was sent alone. Only this keeps the frames of a superframe within the
    /// MTU.
    longest: usize,
    /// Batches until the length is learned again, because the MTU may change.
    trusted: u32,
}

impl Sink {
    pub fn new(handle: Arc<OwnedFd>, singly: bool) -> Self {
        let sender = Sender::new(BATCH, BATCH * 4);
        Self { handle, sender, outgoing: Outgoing::new(singly), longest: 0, trusted: 0 }
    }

    /// Delivers the remaining frames of the batch from number `next` on. The frames of a flow stay in order. If `next` is then not
    /// their number, the queue is full.
    pub fn send(&mut self, counters: &SharedPort, batch: &Batch, next: &mut usize) {
        if *next == 0 {
            self.trusted = self.trusted.checked_sub(1).unwrap_or_else(|| {
                self.longest = 0;
                TRUSTED
            });
            self.outgoing.begin(batch, 0, |frame| length(frame) <= self.longest);
        }
        let Self { handle, sender, outgoing, longest, .. } = self;
        let (mut sent, mut retried) = (Sent::default(), usize::MAX);
        while *next < batch.len() {
            let mut packets: [Option<Packet<'_>>; BATCH] = [const { None }; BATCH];
            packets.iter_mut().zip(outgoing.packets(batch)).for_each(|(to, packet)| *to = Some(packet));
            let messages = packets.iter().flatten().map(|packet| (packet.pieces(), None, 0));
            match sender.send(handle.as_fd(), messages, None) {
                Ok(count) => {
                    for packet in packets.iter().flatten().take(count) {
                        let alone = packet.frames().count() == 1;
                        for frame in packet.frames() {
                            *next += 1;
                            sent.packets += 1;
                            sent.bytes += frame.len() as u64;
                            *longest = if alone { length(frame).max(*longest) } else { *longest };
                        }
                    }
                    outgoing.advance(count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => {
                    let error = Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
                    let frames = packets[0].as_ref().map_or(1, |packet| packet.frames().count());
                    if outgoing.refuse(error).is_some() {
                        continue;
                    }
                    // Perhaps an earlier error, which this call has cleared; but not if a queue is full.
                    if retried != *next && error != Errno::ENOBUFS {
                        retried = *next;
                        continue;
                    }
                    *(if error == Errno::EMSGSIZE { &mut sent.oversize } else { &mut sent.errors }) += frames as u64;
                    *next += frames;
                    outgoing.advance(1);
                }
            }
        }
        counters.tx_frames.add(sent.packets);
        counters.tx_bytes.add(sent.bytes);
        counters.tx_dropped_oversize.add(sent.oversize);
        counters.tx_errors.add(sent.errors);
    }
}

/// Length of a frame as compared with the MTU by the kernel, without a tag of 802.1Q (`packet_extra_vlan_len_allowed`).
fn length(frame: &[u8]) -> usize {
    let tagged = word(frame, 12) == Some(TPID_8021Q);
    frame.len() - if tagged { vlan::TAG } else { 0 }
}

impl AsFd for Sink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    use super::super::outgoing::tests::segment;
    use crate::batch::MAX_FRAME;
    use crate::frame::offload::segment::Segmenter;

    const TAGGED: VlanTag = VlanTag { tpid: 0x88a8, tci: 0xe063 };

    #[test]
    fn tagged_frame_obeys_limit() {
        for (length, tag, oversize, short) in [
            (MAX_FRAME, None, 0, 0),
            (MAX_FRAME + 1, None, 1, 0),
            (MAX_FRAME - vlan::TAG, Some(TAGGED), 0, 0),
            (MAX_FRAME - vlan::TAG + 1, Some(TAGGED), 1, 0),
            // Longer than the slot: the kernel reports the length on the wire.
            (70_000, None, 1, 0),
            (HEADER, None, 0, 0),
            (HEADER - 1, None, 0, 1),
            (HEADER - 1, Some(TAGGED), 0, 1),
            (0, None, 0, 1),
        ] {
            let (mut batch, counters) = (Batch::for_runs(), SharedPort::default());
            accept(&mut batch, 0, SHORT + length, tag, false, &counters);
            let counted = (counters.rx_dropped_oversize.get(), counters.rx_dropped_short.get());
            assert_eq!(counted, (oversize, short), "{length}, {tag:?}");
            let expected = length + tag.map_or(0, |_| vlan::TAG);
            let left: Vec<_> = batch.frames(0).map(<[u8]>::len).collect();
            assert_eq!(left, vec![expected; 1 - usize::try_from(oversize + short).unwrap()], "{length}, {tag:?}");
        }
    }

    #[test]
    fn refused_size_is_judged_without_tag() {
        let tagged = |mut frame: Vec<u8>| {
            frame.splice(12..12, *b"\x81\x00\x00\x07");
            frame
        };
        let run = |payload: usize| [7, 7 + u32::try_from(payload).unwrap()].map(|number| segment(number, payload));
        let longer = tagged(vec![1; 154]);
        for (alone, two, together) in [
            (vec![1; 154], run(100), true),
            (vec![1; 154], run(100).map(tagged), true),
            (vec![1; 154], run(101), false),
            (longer.clone(), run(100), true),
            (longer.clone(), run(104), false),
            (longer, run(100).map(tagged), true),
        ] {
            let (ours, theirs) = UnixDatagram::pair().unwrap();
            theirs.set_nonblocking(true).unwrap();
            let (mut sink, mut next) = (Sink::new(Arc::new(ours.into()), false), 0);
            for frames in [&[alone][..], &two] {
                let mut batch = Batch::default();
                for frame in frames {
                    batch.append_copy(frame);
                }
                next = 0;
                sink.send(&SharedPort::default(), &batch, &mut next);
            }
            let sent = std::iter::from_fn(|| theirs.recv(&mut [0; 1000]).ok()).count() - 1;
            assert_eq!((next, sent), (2, if together { 1 } else { 2 }), "{} bytes", two[0].len());
        }
    }

    #[test]
    fn dropped_superframe_counts_its_frames() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        drop(theirs);
        let (mut sink, mut batch, counters) =
            (Sink::new(Arc::new(ours.into()), false), Batch::default(), SharedPort::default());
        for number in 0..3 {
            batch.append_copy(&segment(number * 100, 100));
        }
        (sink.longest, sink.trusted) = (1000, 1);
        let mut next = 0;
        sink.send(&counters, &batch, &mut next);
        assert_eq!((next, counters.tx_frames.get(), counters.tx_errors.get()), (3, 0, 3));
    }

    #[test]
    fn frames_beyond_offload_are_dropped() {
        // Reading from an unconnected stream socket gives the same error as such a frame.
        let (family, kind) = (nix::sys::socket::AddressFamily::Unix, nix::sys::socket::SockType::Stream);
        let socket = nix::sys::socket::socket(family, kind, nix::sys::socket::SockFlag::empty(), None).unwrap();
        let (mut source, counters) = (Source::new(Arc::new(socket), false), SharedPort::default());
        let mut batch = Batch::default();
        for _ in 0..3000 {
            assert_eq!(source.receive(&counters, &mut batch), Received::Batch);
        }
        assert_eq!((counters.rx_dropped_offload.get(), counters.rx_errors.get()), (3000, 0));
    }

    #[test]
    fn superframe_over_64_kib_is_split() {
        const PAYLOAD: usize = 130_000;
        for (jumbo, tag, v6) in
            [(true, None, true), (true, Some(TAGGED), true), (false, None, true), (false, None, false)]
        {
            let mut packet = if v6 { vec![0x60, 0, 0, 0, 0, 0, if jumbo { 0 } else { 6 }, 64] } else { vec![0x45; 8] };
            if v6 {
                packet.extend_from_slice(&[7; 32]);
            } else {
                packet[1..8].copy_from_slice(&[0, 0, 0, 0, 5, 0x40, 0]);
                packet.extend_from_slice(&[64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
            }
            if jumbo {
                packet.extend_from_slice(&[6, 0, 0xc2, 4]);
                packet.extend_from_slice(&u32::try_from(8 + 20 + PAYLOAD).unwrap().to_be_bytes());
            }
            let start = u16::try_from(HEADER + packet.len()).unwrap();
            packet.extend_from_slice(&[0, 9, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
            packet.resize(packet.len() + PAYLOAD, 5);
            let kind: u16 = if v6 { 4 } else { 1 };
            let said = [1 | kind << 8, start + 20, 1000, start, 16].into_iter().flat_map(u16::to_ne_bytes);
            let ethernet = [&[1; 12][..], if v6 { &[0x86, 0xdd] } else { &[8, 0] }].concat();
            let frame: Vec<u8> = said.chain(ethernet).chain(packet).collect();
            let (mut batch, counters) = (Batch::for_large_superframes(), SharedPort::default());
            batch.slots().next().unwrap()[..frame.len()].copy_from_slice(&frame);
            accept(&mut batch, 0, frame.len(), tag, false, &counters);
            let dropped = (counters.rx_dropped_oversize.get(), counters.rx_dropped_offload.get());
            assert_eq!((batch.len(), dropped), (1, (0, 0)), "{jumbo} {tag:?} {v6}");
            let mut segmenter = Segmenter::new(batch.frame(0), &batch.span(0).facts).unwrap();
            let network = HEADER + tag.map_or(0, |_| vlan::TAG);
            let mut payload = 0;
            while let Some((headers, part)) = segmenter.cut() {
                payload += part.len();
                let packet = &headers[network..];
                let (length, protocol) = if v6 { (word(packet, 4), packet[6]) } else { (word(packet, 2), packet[9]) };
                let said = usize::from(length.unwrap()) + if v6 { ipv6::HEADER } else { 0 };
                assert_eq!((said, protocol), (packet.len() + part.len(), 6), "{jumbo} {tag:?} {v6}");
            }
            assert_eq!(payload, PAYLOAD);
        }
    }

    #[test]
    fn each_tag_goes_into_its_frame() {
        let (mut batch, counters) = (Batch::with_slots(3), SharedPort::default());
        for (slot, byte) in batch.slots().zip(1..) {
            slot[SHORT..SHORT + 12].fill(byte);
            slot[SHORT + 12..SHORT + 20].copy_from_slice(b"\x08\x00within");
        }
        accept(&mut batch, 0, SHORT + 20, None, false, &counters);
        accept(&mut batch, 1, SHORT + 3, Some(VlanTag { tpid: 0x8100, tci: 1 }), false, &counters);
        accept(&mut batch, 2, SHORT + 20, Some(TAGGED), false, &counters);
        assert_eq!(batch.frame(0), [&[1; 12][..], b"\x08\x00within"].concat());
        assert_eq!(batch.frame(1), [&[3; 12][..], b"\x88\xa8\xe0\x63\x08\x00within"].concat());
        // The frame may grow behind as if it had been received with its tag.
        assert_eq!(batch.grow_back(1, 16)[..24], *[&[3; 12][..], b"\x88\xa8\xe0\x63\x08\x00within"].concat());
    }

    #[test]
    fn failed_read_is_no_empty_batch() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let (mut source, mut batch, counters) =
            (Source::new(Arc::new(ours.into()), false), Batch::default(), SharedPort::default());
        assert_eq!(source.receive(&counters, &mut batch), Received::Nothing);
        for frame in [&[1; 60][..], &[2; 13], &[3; 14]] {
            theirs.send(&[&[0; SHORT][..], frame].concat()).unwrap();
        }
        assert_eq!(source.receive(&counters, &mut batch), Received::Batch);
        assert!(batch.frames(0).eq([&[1; 60][..], &[3; 14]]));
        assert_eq!((counters.rx_dropped_short.get(), counters.rx_errors.get()), (1, 0));
        let no_socket = std::fs::File::open("/dev/null").unwrap();
        let mut source = Source::new(Arc::new(no_socket.into()), false);
        assert_eq!((source.receive(&counters, &mut batch), counters.rx_errors.get()), (Received::Error, 1));
    }
}
