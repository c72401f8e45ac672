//! Secure wire (docs/WIRE.md): its settings, with the keys checked.

use privsep::ipc::{self, Cipher, Secret, Secrets, SecureSecrets};

use super::{WireFormat, identifier, keys};
use crate::tunnel::resolve::Resolved;
use crate::tunnel::{Path, Port, Tunnel};

/// Least MTU in bytes of an IPv6 underlay (RFC 8200).
pub const LEAST_MTU: u16 = 1280;

/// Settings of the secure wire.
#[derive(Debug)]
pub struct Secure {
    /// X25519 private key of this end.
    pub private_key: Secret,
    /// Public key of this end.
    pub public_key: keys::Public,
    /// Public key of the peer.
    pub peer_key: keys::Public,
    /// Pre-shared key; empty for none.
    pub psk: Secret,
    /// MTU in bytes for all paths, instead of the underlay's.
    pub path_mtu: Option<u16>,
    /// Tunnel identifier, the same at both ends.
    pub tunnel_id: identifier::Identifier,
    /// Slot of this tunnel at a peer that shares its port: the upper 12 bits of the receiver index of initiations; 0 for none.
    pub peer_slot: u16,
    /// Seconds from one ping to the next.
    pub ping_interval: u8,
}

impl Secure {
    /// Fingerprint of the key pair, the same at both ends.
    pub fn fingerprint(&self) -> String {
        keys::fingerprint(&self.public_key, &self.peer_key)
    }
}

impl WireFormat for Secure {
    fn name(&self) -> &'static str {
        "secure"
    }

    fn protection(&self) -> &'static str {
        "encrypted and authenticated"
    }

    fn cipher(&self) -> Option<Cipher> {
        None
    }

    fn is_authenticated(&self) -> bool {
        true
    }

    fn is_answered(&self, _port: &Port) -> bool {
        true
    }

    /// An impostor cannot answer a handshake, and the peer starts one within seconds.
    fn peer_survives_worker(&self) -> bool {
        true
    }

    fn opens_in_place(&self) -> bool {
        true
    }

    fn announces(&self) -> bool {
        true
    }

    fn splits(&self) -> bool {
        true
    }

    fn largest_frame(&self, payload: u32) -> u32 {
        ipc::Secure::largest_frame(payload)
    }

    fn payload(&self, path: &Resolved) -> Option<u32> {
        self.path_mtu.map(u32::from).or(path.underlay_mtu)?;
        self.datagram(path).map(u32::from)
    }

    /// Length by the MTU of the path; by the least MTU of IPv6 if that of the path is unknown or smaller.
    fn datagram(&self, path: &Resolved) -> Option<u16> {
        let mtu = self.path_mtu.map(u32::from).or(path.underlay_mtu).unwrap_or_default().max(LEAST_MTU.into());
        Some(u16::try_from(path.payload(mtu)).unwrap_or(u16::MAX).min(ipc::Secure::LONGEST))
    }

    /// With a fixed MTU there is nothing to search. An unknown MTU may be that of Ethernet.
    fn of_path(&self, path: &Path, resolved: &Resolved) -> ipc::PathSettings {
        const ETHERNET: u32 = 1500;
        let bytes = |mtu| u16::try_from(resolved.payload(mtu)).unwrap_or(u16::MAX).min(ipc::Secure::LONGEST);
        let unknown = self.path_mtu.is_none() && resolved.underlay_mtu.is_none();
        let most = if unknown { bytes(ETHERNET) } else { self.datagram(resolved).unwrap_or_default() };
        let least = if self.path_mtu.is_some() { most } else { bytes(LEAST_MTU.into()) };
        ipc::PathSettings { least, most, runs: path.runs }
    }

    fn settings(&self, tunnel: &Tunnel, datagram: u16) -> ipc::Wire {
        let Self { peer_key, tunnel_id, peer_slot, ping_interval, .. } = *self;
        let (peer_index, policy) = (u32::from(peer_slot) << 20, tunnel.policy);
        let mut weights = [1; ipc::MAX_PATHS];
        weights.iter_mut().zip(&tunnel.paths).for_each(|(weight, path)| *weight = path.weight);
        let tunnel = tunnel_id;
        ipc::Wire::Secure(ipc::Secure { peer_key, tunnel, peer_index, datagram, ping_interval, policy, weights })
    }

    fn secrets(&self) -> Secrets {
        Secrets::Secure(SecureSecrets { private_key: self.private_key.clone(), psk: self.psk.clone() })
    }

    fn public_key(&self) -> Option<keys::Public> {
        Some(self.public_key)
    }

    fn fingerprint(&self) -> Option<String> {
        Some(Self::fingerprint(self))
    }

    /// Effect of a ping interval other than the default.
    fn start_line(&self) -> Option<String> {
        let seconds = self.ping_interval;
        (seconds > 2)
            .then(|| format!("pings leave every {seconds} s: without traffic a dead path is noticed after {seconds} s"))
    }
}
