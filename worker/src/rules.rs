//! What is done to frames between port and wire.

use std::net::SocketAddr;

use privsep::ipc::SharedPort;

use crate::batch::Batch;
use crate::frame::{loops, mss, udp, vlan};

/// Peers whose addresses the loop check compares at most.
pub const PEERS: usize = privsep::ipc::MAX_PATHS;

/// The rules of a tunnel, ready to be applied.
#[allow(clippy::struct_excessive_bools)] // Each is a rule of its own.
pub struct Rules {
    /// Frames are taken from the port and sent.
    pub send: bool,
    /// Our own tunnel's datagrams are not sent into it.
    pub loop_check: bool,
    /// Of UDP datagrams only the payload is sent, and nothing else.
    udp_payload: bool,
    mss: Option<(u16, u16)>,
    to_remote: Option<vlan::Map>,
    to_local: Option<vlan::Map>,
}

impl Rules {
    /// From what the supervisor says. A tunnel of one direction leaves the MSS alone, as the original does.
    pub fn new(rules: &privsep::ipc::Rules, udp_payload: bool) -> Self {
        let pairs = || rules.vlan_map.iter().copied();
        let map = |map| (!rules.vlan_map.is_empty()).then_some(map);
        Self {
            send: rules.send,
            loop_check: rules.loop_check,
            udp_payload,
            mss: rules.mss.filter(|_| rules.send && rules.receive),
            to_remote: map(vlan::Map::new(pairs())),
            to_local: map(vlan::Map::new(pairs().map(|(local, remote)| (remote, local)))),
        }
    }

    /// On the way from the port to the wire; `peers` are the addresses of all paths' remotes.
    pub fn outward(&self, batch: &mut Batch, peers: &[SocketAddr], counters: &SharedPort) {
        // Counted for the supervisor, which tells by it that frames go round in a circle.
        let count = |counted: &dyn Fn(&[u8]) -> bool| batch.frames(0).filter(|frame| counted(frame)).count() as u64;
        counters.rx_broadcast.add(count(&|frame| frame.starts_with(&[0xff; 6])));
        if !self.loop_check {
            counters.rx_own.add(count(&|frame| loops::is_datagram(frame, peers)));
        }
        if self.loop_check {
            let before = batch.len();
            batch.retain(|frame| !loops::is_own(frame, peers));
            counters.rx_dropped_loop.add((before - batch.len()) as u64);
        }
        self.change(batch, self.to_remote.as_ref());
        if self.udp_payload {
            batch.filter_map(|_, slot, length| {
                let payload = udp::inner(&slot[..length])?;
                let length = payload.len();
                slot.copy_within(payload, 0);
                Some(length)
            });
        }
    }

    /// On the way from the wire to the port.
    pub fn inward(&self, batch: &mut Batch) {
        self.change(batch, self.to_local.as_ref());
    }

    fn change(&self, batch: &mut Batch, map: Option<&vlan::Map>) {
        if self.mss.is_none() && map.is_none() {
            return;
        }
        for index in 0..batch.len() {
            let frame = batch.frame_mut(index);
            if let Some(limits) = self.mss {
                mss::clamp(frame, limits);
            }
            if let Some(map) = map {
                map.apply(frame);
            }
        }
    }
}
