//! Storm guard: limits on the frames that bridged sites exchange, and detection of a loop. Each limit is off unless the file sets it.
//! The clock is an argument.

mod bucket;
mod mark;
mod stations;

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use privsep::ipc::SharedPort;

use self::bucket::Bucket;
use self::stations::Stations;
use crate::batch::Batch;
use crate::frame::HEADER;
use crate::frame::ethernet::{TPID_8021AD, TPID_8021Q, payload};

pub use self::mark::{LENGTH, Mark};

/// Time in microseconds from one frame of the loop detection to the next.
const INTERVAL_US: u64 = 1_000_000;
/// Shortest time in microseconds for which a returned frame blocks the tunnel, and the greatest random addition.
const HOLD_US: u64 = 5_000_000;
const SPREAD_US: u64 = 10_000_000;
/// Last part of that time in microseconds, in which frames of other ends' loop detection pass. Of several ends that have detected one
/// loop, the first in this part lets the frames of the others return. These stay blocked, and the loop is never closed.
const TRIAL_US: u64 = 2_500_000;
/// Frames of other ends' loop detection a second, which have a limit of their own: a storm must not hide them.
const OTHER_MARKS: u32 = 100;
/// First EtherType; a smaller number is the length of an IEEE 802.3 frame.
const FIRST_TYPE: u16 = 0x0600;

/// Reason to drop a frame.
#[derive(Debug, Clone, Copy)]
enum Reason {
    Ethertype,
    Station,
    Broadcast,
    Multicast,
    /// A frame of this end's loop detection.
    Returned,
}

/// Packets dropped by each reason.
type Dropped = [u64; 5];

/// Storm guard of one direction. A loop calls [`outward`](Self::outward) or [`inward`](Self::inward) for each batch; the outward
/// loop also sends the frame that [`due_frame`](Self::due_frame) returns.
#[derive(Debug)]
pub struct Guard {
    ethertypes: Box<[u16]>,
    broadcast: Option<Bucket>,
    multicast: Option<Bucket>,
    stations: Option<Stations>,
    /// Mark of this end, with loop detection.
    own: Option<Mark>,
    others: Bucket,
    /// Time in microseconds at which the next frame of the loop detection is due.
    due_us: u64,
    random: RandomState,
}

impl Guard {
    /// Guard of the direction from the local side, and the one to it, with this mark for loop detection. `None` if nothing is
    /// limited.
    pub fn pair(limits: &privsep::ipc::Guard, own: Option<Mark>) -> Option<(Self, Self)> {
        let guard = |stations: Option<u16>| Self {
            ethertypes: limits.ethertypes.clone().into(),
            broadcast: limits.broadcast.map(Bucket::new),
            multicast: limits.multicast.map(Bucket::new),
            stations: stations.map(Stations::new),
            own,
            others: Bucket::new(OTHER_MARKS),
            due_us: 0,
            random: RandomState::new(),
        };
        (*limits != privsep::ipc::Guard::default()).then(|| (guard(None), guard(limits.stations)))
    }

    /// Screens frames from the local side. A frame of this end's loop detection among them blocks both directions:
    /// `blocked_until_us` is the time of the end.
    pub fn outward(&mut self, batch: &mut Batch, now_us: u64, blocked_until_us: &AtomicU64, counters: &SharedPort) {
        let [ethertype, _, broadcast, multicast, returned] = self.screen(batch, now_us);
        counters.rx_dropped_ethertype.add(ethertype);
        counters.rx_dropped_broadcast.add(broadcast);
        counters.rx_dropped_multicast.add(multicast);
        counters.rx_returned.add(returned);
        if returned > 0 {
            blocked_until_us.store(now_us + HOLD_US + self.random.hash_one(now_us) % SPREAD_US, Relaxed);
        }
        counters.rx_dropped_blocked.add(block(batch, now_us, blocked_until_us.load(Relaxed)));
    }

    /// Screens frames from the peer.
    pub fn inward(&mut self, batch: &mut Batch, now_us: u64, blocked_until_us: &AtomicU64, counters: &SharedPort) {
        let [ethertype, station, broadcast, multicast, returned] = self.screen(batch, now_us);
        counters.tx_dropped_ethertype.add(ethertype);
        counters.tx_dropped_station.add(station);
        counters.tx_dropped_broadcast.add(broadcast);
        counters.tx_dropped_multicast.add(multicast);
        // A loop at the peer's site. The frame must not reach the local side, where it would block this end.
        counters.tx_dropped_returned.add(returned);
        counters.tx_dropped_blocked.add(block(batch, now_us, blocked_until_us.load(Relaxed)));
    }

    /// Frame of the loop detection, if one is due.
    pub fn due_frame(&mut self, now_us: impl FnOnce() -> u64) -> Option<[u8; LENGTH]> {
        let (own, now_us) = (self.own?, now_us());
        (now_us >= self.due_us).then(|| {
            self.due_us = now_us + INTERVAL_US;
            mark::frame(&own)
        })
    }

    /// Time in microseconds at which the next frame of the loop detection is due.
    pub fn due_us(&self) -> Option<u64> {
        self.own.map(|_| self.due_us)
    }

    /// Drops the frames over a limit, and returns how many.
    fn screen(&mut self, batch: &mut Batch, now_us: u64) -> Dropped {
        let mut dropped = Dropped::default();
        batch.retain_spans(|frame, span| {
            let packets = span.packets().0;
            let reason = self.judge(frame, packets, now_us);
            if let Some(reason) = reason {
                dropped[reason as usize] += packets;
            }
            reason.is_none()
        });
        dropped
    }

    fn judge(&mut self, frame: &[u8], packets: u64, now_us: u64) -> Option<Reason> {
        // A shorter one is no frame, and is dropped elsewhere.
        let header = frame.first_chunk::<HEADER>()?;
        let group = header[0] & 1 == 1;
        if group && let Some(mark) = mark::of(frame) {
            if self.own == Some(mark) {
                return Some(Reason::Returned);
            }
            return (!self.others.admits(packets, now_us)).then_some(Reason::Multicast);
        }
        if !self.ethertypes.is_empty() && !self.is_allowed(frame) {
            return Some(Reason::Ethertype);
        }
        let source: [u8; 6] = std::array::from_fn(|at| header[6 + at]);
        if let Some(stations) = &mut self.stations
            // A bridge learns no group address.
            && source[0] & 1 == 0
            && !stations.admits(source, now_us / 1_000_000)
        {
            return Some(Reason::Station);
        }
        let (bucket, reason) = match *header {
            _ if !group => return None,
            // Broadcast, and the groups that every station and every bridge needs: link-local ones of IPv4, IPv6 and IEEE 802.1.
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, ..]
            | [0x01, 0x00, 0x5e, 0, 0, ..]
            | [0x33, 0x33, 0, 0, 0, ..]
            | [0x33, 0x33, 0xff, ..]
            | [0x01, 0x80, 0xc2, 0, 0, ..] => (&mut self.broadcast, Reason::Broadcast),
            _ => (&mut self.multicast, Reason::Multicast),
        };
        bucket.as_mut().is_some_and(|bucket| !bucket.admits(packets, now_us)).then_some(reason)
    }

    /// Whether the EtherType of a frame is in the list, behind at most two VLAN tags.
    fn is_allowed(&self, frame: &[u8]) -> bool {
        let kind = payload(frame, 2, &[TPID_8021Q, TPID_8021AD]);
        let listed = |kind: u16| if kind < FIRST_TYPE { privsep::ipc::Guard::LENGTHS } else { kind };
        kind.is_some_and(|(kind, _)| self.ethertypes.contains(&listed(kind)))
    }
}

/// Drops the frames of a batch until this time, and returns how many.
fn block(batch: &mut Batch, now_us: u64, until_us: u64) -> u64 {
    let before = batch.packets().0;
    if now_us < until_us {
        let trial = until_us - now_us <= TRIAL_US;
        batch.retain_spans(|frame, _| trial && mark::of(frame).is_some());
    }
    before - batch.packets().0
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: Mark = [7; 16];
    const SECOND: u64 = 1_000_000;

    fn frame(to: [u8; 6], from: u8, kind: u16) -> Vec<u8> {
        [&to[..], &[2, 0, 0, 0, 0, from], &kind.to_be_bytes(), &[0; 46]].concat()
    }

    fn batch(frames: &[Vec<u8>]) -> Batch {
        let mut batch = Batch::with_slots(frames.len());
        for frame in frames {
            batch.append_copy(frame);
        }
        batch
    }

    /// Guard of each direction.
    fn guards(limits: &privsep::ipc::Guard) -> (Guard, Guard) {
        Guard::pair(limits, Some(MARK)).unwrap()
    }

    /// Frames of these that are left in a batch from the peer.
    fn left(guard: &mut Guard, now_us: u64, frames: &[Vec<u8>], counters: &SharedPort) -> usize {
        let mut batch = batch(frames);
        guard.inward(&mut batch, now_us, &AtomicU64::new(0), counters);
        batch.len()
    }

    #[test]
    fn no_limit_is_no_guard() {
        assert!(Guard::pair(&privsep::ipc::Guard::default(), None).is_none());
    }

    #[test]
    fn group_frames_have_their_rates() {
        let (_, mut guard) =
            guards(&privsep::ipc::Guard { broadcast: Some(5), multicast: Some(3), ..Default::default() });
        let counters = SharedPort::default();
        let mut flood = |to: [u8; 6]| left(&mut guard, 0, &vec![frame(to, 1, 0x0800); 20], &counters);
        assert_eq!(flood([2, 0, 0, 0, 0, 9]), 20, "to one station");
        // All of them share one rate.
        assert_eq!(flood([0xff; 6]), 5);
        for to in
            [[0x01, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1], [0x33, 0x33, 0xff, 1, 2, 3], [1, 0x80, 0xc2, 0, 0, 0]]
        {
            assert_eq!(flood(to), 0, "{to:x?}");
        }
        assert_eq!((flood([0x01, 0, 0x5e, 1, 0, 1]), flood([0x33, 0x33, 0, 1, 0, 1])), (3, 0));
        let dropped = (counters.tx_dropped_broadcast.get(), counters.tx_dropped_multicast.get());
        assert_eq!(dropped, (15 + 4 * 20, 17 + 20));
        assert_eq!(left(&mut guard, SECOND, &vec![frame([0xff; 6], 1, 0x0806); 20], &counters), 5, "a second later");
    }

    #[test]
    fn ethertype_outside_list_is_dropped() {
        let listed = vec![0x0800, privsep::ipc::Guard::LENGTHS];
        let (mut guard, _) = guards(&privsep::ipc::Guard { ethertypes: listed, ..Default::default() });
        let plain = |kind| frame([2; 6], 1, kind);
        let tagged = |kind: u16| [&plain(0x88a8)[..14], &[0, 7, 0x81, 0, 0, 9], &kind.to_be_bytes(), &[0; 46]].concat();
        let cut = plain(0x8100)[..14].to_vec();
        let mut frames = batch(&[plain(0x0800), plain(38), tagged(0x0800), plain(0x86dd), tagged(0x0806), cut]);
        let counters = SharedPort::default();
        guard.outward(&mut frames, 0, &AtomicU64::new(0), &counters);
        assert_eq!((frames.len(), counters.rx_dropped_ethertype.get()), (3, 3));
    }

    #[test]
    fn only_peer_stations_are_limited() {
        let (mut outward, mut inward) = guards(&privsep::ipc::Guard { stations: Some(2), ..Default::default() });
        let frames: Vec<_> = (1..=5).map(|from| frame([2; 6], from, 0x0800)).collect();
        let (counters, mut sent) = (SharedPort::default(), batch(&frames));
        outward.outward(&mut sent, 0, &AtomicU64::new(0), &counters);
        assert_eq!((sent.len(), left(&mut inward, 0, &frames, &counters)), (5, 2));
        assert_eq!(counters.tx_dropped_station.get(), 3);
    }

    #[test]
    fn returned_frame_blocks_both_directions() {
        let loops = || guards(&privsep::ipc::Guard { loops: true, ..Default::default() });
        let ((mut outward, mut inward), counters, until) = (loops(), SharedPort::default(), AtomicU64::new(0));
        assert_eq!((outward.due_us(), inward.due_us()), (Some(0), Some(0)));
        let sent = outward.due_frame(|| 5).unwrap().to_vec();
        assert_eq!((outward.due_frame(|| 6), outward.due_us()), (None, Some(5 + INTERVAL_US)));
        // Of the own frame nothing comes through, from either side. From the peer it blocks nothing.
        let mut received = batch(&[sent.clone(), frame([2; 6], 1, 0x0800)]);
        inward.inward(&mut received, 10, &until, &counters);
        assert_eq!((received.len(), counters.tx_dropped_returned.get(), until.load(Relaxed)), (1, 1, 0));
        let mut read = batch(&[frame([2; 6], 1, 0x0800), sent]);
        outward.outward(&mut read, 10, &until, &counters);
        assert_eq!((read.len(), counters.rx_returned.get(), counters.rx_dropped_blocked.get()), (0, 1, 1));
        let until_us = until.load(Relaxed);
        assert!((10 + HOLD_US..10 + HOLD_US + SPREAD_US).contains(&until_us));
        for (now_us, passes) in
            [(until_us - TRIAL_US - 1, 0), (until_us - TRIAL_US, 1), (until_us - 1, 1), (until_us, 2)]
        {
            let mut other = batch(&[mark::frame(&[8; 16]).to_vec(), frame([2; 6], 1, 0x0800)]);
            inward.inward(&mut other, now_us, &until, &counters);
            assert_eq!(other.len(), passes, "at {now_us} of {until_us}");
        }
        assert_eq!(counters.tx_dropped_blocked.get(), 4);
    }

    #[test]
    fn limits_spare_other_ends_detection() {
        let limits = privsep::ipc::Guard {
            broadcast: Some(1),
            multicast: Some(1),
            stations: Some(1),
            ethertypes: vec![0x0800],
            loops: true,
        };
        let ((_, mut guard), counters) = (guards(&limits), SharedPort::default());
        let other = mark::frame(&[8; 16]).to_vec();
        assert_eq!(left(&mut guard, 0, &vec![other; 200], &counters), OTHER_MARKS as usize);
        assert_eq!(counters.tx_dropped_multicast.get(), 200 - u64::from(OTHER_MARKS));
    }
}
