//! Probes of a session: each path has a [`Prober`](super::probes::Prober), whose probes leave here, on queue 0.

use super::probes::Probe;
use super::{MILLISECOND, QUEUE, SECOND, Session};
use crate::endpoint::Target;
use crate::wire::counters::Counters;
use crate::wire::outbox::Outbox;
use crate::wire::secure::content;
use crate::wire::secure::crypt::{HEADER, TAG};

/// Time in microseconds to wait for an answer where no round trip is known.
const UNKNOWN_US: u64 = SECOND;
/// Time in microseconds in addition to the round trip and four deviations, and the longest time.
const MARGIN_US: u64 = 50 * MILLISECOND;
const LONGEST_US: u64 = 3 * SECOND;

impl Session {
    /// Longest time in microseconds to wait for the answer to a probe.
    fn probe_timeout_us(&self, path: usize) -> u64 {
        let rtt = self.paths.all[path].wire.evidence.round_trip();
        if rtt.is_known() { (rtt.srtt_us() + 4 * rtt.var_us() + MARGIN_US).min(LONGEST_US) } else { UNKNOWN_US }
    }

    /// Sends the probes that are due.
    pub(super) fn probe_all(&mut self, now_us: u64, counters: &Counters, out: &mut Outbox) {
        for (number, counts) in counters.paths.iter().enumerate().take(self.paths.all.len()) {
            let timeout_us = self.probe_timeout_us(number);
            let path = &mut self.paths.all[number];
            let (target, link) = (path.remote.target(), &mut path.wire);
            if target == Target::Unknown || self.slots.current.is_none() {
                continue;
            }
            link.prober.begin(now_us);
            if std::mem::replace(&mut link.probed, target.address()).is_some_and(|was| Some(was) != target.address()) {
                link.prober.moved(now_us);
            }
            link.note_traffic(counts, now_us);
            while let Some(probe) = self.paths.all[number].wire.prober.next(now_us, timeout_us, &mut self.random) {
                if !self.say_probe(number, target, probe, out) {
                    self.paths.all[number].wire.prober.abandon(now_us);
                }
            }
        }
    }

    /// Sends a probe. False if it does not leave.
    fn say_probe(&mut self, path: usize, target: Target, Probe { token, size }: Probe, out: &mut Outbox) -> bool {
        let Some(current) = &self.slots.current else { return false };
        let every_path = self.paths.all[path].wire.evidence.asks_every_path();
        let Some(datagram) = self.probe.get_mut(..usize::from(size)) else { return false };
        datagram.fill(0);
        let probe = content::probe(token, size, every_path);
        let Some(content) = datagram.get_mut(HEADER..HEADER + probe.len()) else { return false };
        content.copy_from_slice(&probe);
        datagram.len() >= HEADER + probe.len() + TAG
            && current.sending.seal(QUEUE, datagram).is_ok()
            && out.post_in_run(path, target, datagram)
    }

    /// Time at which a prober has work.
    pub(super) fn probes_due_us(&self) -> u64 {
        if self.slots.current.is_none() {
            return u64::MAX;
        }
        let known = self.paths.all.iter().enumerate().filter(|(_, path)| path.remote.target() != Target::Unknown);
        known.map(|(number, path)| path.wire.prober.due_us(self.probe_timeout_us(number))).fold(u64::MAX, u64::min)
    }
}
