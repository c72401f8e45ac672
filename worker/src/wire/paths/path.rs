//! Path: address of the peer, estimate and datagram size of one path.

use privsep::ipc::PathReport;

use super::estimate::Estimate;
use super::remote::Remote;
use crate::endpoint::{Endpoint, Target};
use crate::wire::route::Egress;
use crate::wire::ticks::TICK_US;

/// Ping intervals without a datagram of the peer after which the local address is forgotten.
pub const QUIET: u64 = 3;

/// One path. `W` is the state of the wire for the path.
pub struct Path<W> {
    /// Address of the peer.
    pub remote: Remote,
    /// Estimate from pings and pongs.
    pub estimate: Estimate,
    /// Time of the last datagram in microseconds; on the secure wire of the last authentic one.
    pub received_us: Option<u64>,
    /// Datagrams that the path carries. The target is that of [`Path::remote`].
    pub egress: Egress,
    /// State of the wire.
    pub wire: W,
}

impl<W> Path<W> {
    /// Continues from the report of an earlier worker. A ping leaves every `interval` ticks.
    pub fn new(remote: &privsep::ipc::Remote, report: &PathReport, interval: u64, datagram: usize, wire: W) -> Self {
        Self {
            remote: Remote::new(remote, report.learned, report.local),
            estimate: Estimate::new(report, interval),
            received_us: None,
            egress: Egress::new(Target::Unknown, datagram),
            wire,
        }
    }

    /// Destination of this path, and the datagrams that it carries.
    pub fn egress(&self) -> Egress {
        Egress { target: self.remote.target(), ..self.egress }
    }

    /// Target of an answer to a datagram from this source; `None` if no answer may leave.
    pub fn answer_to(&self, source: Option<Endpoint>) -> Option<Target> {
        match &self.remote {
            Remote::Fixed(place) => {
                let local = source.and_then(|source| source.local).or(place.local);
                Some(Target::Fixed(Endpoint { local, ..*place }))
            }
            Remote::Named(named) => {
                let source = source.filter(|source| named.admits(source.remote))?;
                Some(Target::Fixed(Endpoint { local: source.local.or(self.remote.local()), ..source }))
            }
            Remote::Learned(learned) => source.filter(|&source| learned.admits(source)).map(Target::Learned),
        }
    }

    /// Whether this source is the current place of the peer. A fixed peer may use any local address, as long as it answers
    /// datagrams whose source address the kernel chose.
    pub fn is_from_peer(&self, source: Option<Endpoint>, tick: u64) -> bool {
        let is_at = |place: Endpoint, source: Endpoint| {
            let serves = place.local.is_none() && self.estimate.serves(tick);
            source == place || source.remote == place.remote && serves
        };
        match &self.remote {
            Remote::Fixed(place) => source.is_none_or(|source| is_at(*place, source)),
            Remote::Named(named) => named.place().zip(source).is_some_and(|(place, source)| is_at(place, source)),
            Remote::Learned(learned) => source.is_some() && learned.get() == source,
        }
    }

    /// Whether a source is the address in use of a peer that has a name. Other peers have one address.
    pub fn is_at(&self, source: Option<Endpoint>) -> bool {
        let Remote::Named(named) = &self.remote else { return true };
        named.place().zip(source).is_none_or(|(place, source)| place.remote == source.remote)
    }

    /// Forgets the local address if a fixed peer has been silent, and the address of a learned peer that is gone.
    pub fn on_tick(&mut self, now_us: u64, is_gone: bool) {
        if now_us >= self.received_us.unwrap_or(0) + QUIET * self.estimate.interval() * TICK_US {
            self.remote.forget_local();
        }
        if is_gone {
            self.remote.forget();
        }
    }

    /// Report of the fields that every wire has.
    pub fn report(&self, now_us: u64) -> PathReport {
        let mut report = PathReport {
            learned: self.remote.learned(),
            local: self.remote.local(),
            last_rx_ms: self.received_us.map(|received| now_us.saturating_sub(received) / 1000),
            ..PathReport::default()
        };
        self.estimate.report(&mut report);
        report
    }
}
