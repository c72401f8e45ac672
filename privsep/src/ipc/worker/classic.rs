//! Classic wire between supervisor and worker: settings, secrets and state.

use serde::{Deserialize, Serialize};

use super::Secret;
use super::settings::header;

/// Cipher of the classic wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cipher {
    /// Clear text.
    #[default]
    None,
    /// Repeated XOR with the key.
    Xor,
    /// AES-128-CBC.
    Aes128,
    /// AES-192-CBC.
    Aes192,
    /// AES-256-CBC.
    Aes256,
    /// AES-192-CBC, which the releases of `EthUDP` (v20181024 to v20230202) run under the name aes-256.
    Aes256Ethudp2023,
}

/// Settings of the classic wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Classic {
    /// Cipher.
    pub cipher: Cipher,
    /// Whether datagrams are LZ4 blocks with a trailer.
    pub compress: bool,
    /// MTU above which a datagram, with IPv4 and UDP headers, leaves as two fragments. `None` neither splits nor joins.
    pub fragment_mtu: Option<u16>,
    /// Milliseconds from one PING to the next. `None` sends neither PING nor password without a request.
    pub keepalive_ms: Option<u16>,
}

impl Classic {
    /// Longest datagram in bytes that leaves unsplit, if datagrams are split. The format assumes IPv4 headers on any underlay.
    pub fn whole(&self) -> Option<u16> {
        self.fragment_mtu.map(|mtu| mtu.saturating_sub(header::IPV4 + header::UDP))
    }

    /// Whether a datagram is opened within its own bytes, so that many can lie side by side: it neither inflates nor is joined.
    pub fn in_place(&self) -> bool {
        !self.compress && self.fragment_mtu.is_none()
    }

    /// Longest frame in bytes that always fits into `payload` bytes once sealed.
    pub fn largest_frame(&self, payload: u32) -> u32 {
        const BLOCK: u32 = 16;
        let sealed = match self.cipher {
            Cipher::None | Cipher::Xor => payload,
            // Padding takes at least one byte.
            Cipher::Aes128 | Cipher::Aes192 | Cipher::Aes256 | Cipher::Aes256Ethudp2023 => {
                (payload / BLOCK * BLOCK).saturating_sub(1)
            }
        };
        // The trailer of LZ4.
        sealed.saturating_sub(u32::from(self.compress))
    }
}

/// Secrets of the classic wire.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassicSecrets {
    /// Key as configured, before padding or truncation; empty for [`Cipher::None`].
    pub key: Secret,
    /// Password; empty if none is configured.
    pub password: Secret,
}

/// State of the classic wire that survives a worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassicState {
    /// Sequence number of the next fragment.
    pub fragment: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn largest_frame_leaves_room_for_padding() {
        for (cipher, compress, frame) in [
            (Cipher::None, false, 1472),
            (Cipher::Xor, true, 1471),
            // 92 blocks, of which padding takes at least one byte.
            (Cipher::Aes128, false, 1471),
            (Cipher::Aes256, true, 1470),
        ] {
            assert_eq!(Classic { cipher, compress, ..Classic::default() }.largest_frame(1472), frame);
        }
        assert_eq!(Classic { cipher: Cipher::Aes128, ..Classic::default() }.largest_frame(7), 0);
    }
}
