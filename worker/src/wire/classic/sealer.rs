//! Sealer of the classic wire.

use std::sync::Arc;

use super::codec::{Codec, Scratch};
use super::fragment::{self, Splitter};
use crate::batch::{Batch, PACKETS};
use crate::endpoint::Target;
use crate::wire::counters::Counters;
use crate::wire::route::{Departure, Egress, Route};

/// Sealer of one loop.
pub struct Sealer {
    codec: Arc<Codec>,
    scratch: Scratch,
    splitter: Option<Splitter>,
    /// Memory for fragments: two for each datagram of a batch.
    pieces: Option<Batch>,
    route: Route,
    departures: Vec<Departure>,
}

impl Sealer {
    /// Makes a sealer with this first route.
    pub fn new(codec: Arc<Codec>, splitter: Option<Splitter>, route: Route) -> Self {
        let pieces = splitter
            .as_ref()
            .map(|_| Batch::with_room(2 * PACKETS, route.longest().max(fragment::HEADER + fragment::PIECE)));
        Self { codec, scratch: Scratch::default(), splitter, pieces, route, departures: Vec::with_capacity(1) }
    }

    /// See [`crate::wire::Sealer::seal`].
    pub fn seal<'a>(&'a mut self, frames: &'a mut Batch, counters: &Counters) -> (&'a Batch, &'a [Departure]) {
        let (path, Egress { target, datagram: whole, runs, .. }) = self.route.now();
        let sizes = self.codec.seal(frames, &mut self.scratch);
        counters.seal.bytes.add(sizes.bytes);
        counters.seal.compress_saved.add(sizes.compress_saved);
        counters.seal.compress_overhead.add(sizes.compress_overhead);
        counters.seal.encrypt_overhead.add(sizes.encrypt_overhead);
        self.departures.clear();
        let Some(counters) = counters.paths.get(path) else { return (frames, &[]) };
        if target == Target::Unknown {
            counters.tx_dropped_unlearned.add(frames.len() as u64);
            return (frames, &[]);
        }
        let datagrams = match (&self.splitter, &mut self.pieces) {
            (Some(splitter), Some(pieces)) if frames.frames(0).any(|datagram| datagram.len() > whole) => {
                pieces.clear();
                for index in 0..frames.len() {
                    let first = pieces.len();
                    let written = splitter.split(frames.frame(index), whole, |piece| {
                        pieces.append(|to| fragment::write(&piece, to));
                        true
                    });
                    pieces.set_class(first.., frames.span(index).class);
                    counters.tx_dropped_unfragmentable.add(u64::from(!written));
                }
                pieces
            }
            _ => frames,
        };
        self.departures.push(Departure { path, target, runs, datagrams: 0..datagrams.len() });
        (datagrams, &self.departures)
    }

    /// See [`crate::wire::Sealer::set_route`].
    pub fn set_route(&mut self, route: &Route) {
        self.route.clone_from(route);
    }

    /// Current route.
    pub fn route(&self) -> &Route {
        &self.route
    }
}

#[cfg(test)]
mod tests {
    use privsep::ipc::Cipher;

    use super::*;
    use crate::endpoint::Endpoint;

    #[test]
    fn fragment_batch_has_room() {
        let address = Endpoint::from(std::net::SocketAddr::from(([192, 0, 2, 1], 6000)));
        let route = Route { egress: vec![Egress::new(Target::Fixed(address), 1200)], ..Route::default() };
        let codec = Arc::new(Codec::new(Cipher::None, b"", false));
        let mut sealer = Sealer::new(codec, Some(Splitter::new(0)), route);
        let mut packets = Batch::for_packets();
        while !packets.is_full() {
            packets.pack_copy(&[&[7; 1300]]);
        }
        packets.set_class(1.., 0xb8);
        assert!(packets.len() >= PACKETS);
        let counters = Counters { paths: vec![privsep::ipc::SharedPath::default()], ..Counters::default() };
        let (pieces, ..) = sealer.seal(&mut packets, &counters);
        assert_eq!(
            (pieces.len(), pieces.bytes()),
            (2 * PACKETS, (1300 + 2 * fragment::HEADER) as u64 * PACKETS as u64)
        );
        assert_eq!([0, 1, 2, 3].map(|index| pieces.span(index).class), [0, 0, 0xb8, 0xb8]);
    }
}
