//! Classic wire, `EthUDP`'s format: its settings and its warnings.

use privsep::ipc::{self, Cipher, ClassicSecrets, Secret, Secrets};

use super::{WireFormat, cipher};
use crate::tunnel::resolve::Resolved;
use crate::tunnel::{Path, Port, Remote, Tunnel};

/// Settings of the classic wire.
#[derive(Debug, Default)]
pub struct Classic {
    /// Cipher.
    pub cipher: Cipher,
    /// Key; empty without a cipher.
    pub key: Secret,
    /// Password; empty for none.
    pub password: Secret,
    /// LZ4 level of EthUDP, 0 to 9. 0 is off; a worker treats all others alike.
    pub lz4: u8,
    /// `-mtu`: MTU in bytes over which a datagram leaves as two.
    pub fragment_mtu: Option<u16>,
    /// Milliseconds from one PING to the next; `None` for EthUDP's interval.
    pub keepalive_ms: Option<u16>,
}

/// Interval of EthUDP's PINGs in milliseconds.
const KEEPALIVE_MS: u16 = 1000;

impl Classic {
    /// Settings for a worker that sends no keepalive.
    fn without_keepalive(&self) -> ipc::Classic {
        let Self { cipher, fragment_mtu, .. } = *self;
        ipc::Classic { cipher, compress: self.compresses(), fragment_mtu, keepalive_ms: None }
    }

    fn is_clear(&self) -> bool {
        matches!(self.cipher, Cipher::None | Cipher::Xor)
    }

    fn has_password(&self) -> bool {
        !self.password.expose().is_empty()
    }

    /// Limits of the protection.
    fn protection_warning(&self) -> String {
        let what = match self.cipher {
            Cipher::None => "frames are not encrypted, and",
            Cipher::Xor => "xor is not encryption, and",
            Cipher::Aes128 | Cipher::Aes192 | Cipher::Aes256 | Cipher::Aes256Ethudp2023 => {
                "frames can be changed and replayed on the path:"
            }
        };
        format!("wire classic: {what} nothing is authenticated")
    }

    fn key_warning(&self) -> Option<String> {
        let (key, size) = (self.key.expose(), cipher::key_size(self.cipher));
        let (length, cipher) = (key.len(), cipher::name(self.cipher));
        if key == cipher::DEFAULT_KEY.as_bytes() {
            Some(format!("key is EthUDP's default {:?}, which is public: set another key", cipher::DEFAULT_KEY))
        } else if length < size {
            Some(format!("key has {length} bytes, {cipher} takes {size}: the rest is filled with zeros"))
        } else if size > 0 && length > size {
            Some(format!("key has {length} bytes, {cipher} takes {size}: the rest is ignored"))
        } else {
            None
        }
    }

    /// Warning about a password of a mirror. `EthUDP`'s newest source sends none from a mirror. Its releases do, and their
    /// receivers may wait for it.
    fn mirror_password_warning(&self, tunnel: &Tunnel) -> Option<String> {
        let told = tunnel.port.is_mirror() && tunnel.paths.iter().any(|path| matches!(path.remote, Remote::Fixed(_)));
        (told && self.has_password()).then(|| {
            "password: a mirror does not send it, unlike EthUDP v20230202 and older: a receiver that waits for it \
             receives nothing; set a fixed remote at the receiver"
                .into()
        })
    }

    /// Warning about a path of which any sender becomes the peer, because it needs no secret.
    fn unknown_peer_warning(&self, tunnel: &Tunnel, path: &Path) -> Option<String> {
        let open = matches!(path.remote, Remote::Learned { .. }) && !self.has_password();
        let (local, who) =
            (&path.local, if tunnel.port.is_mirror() { "receives the mirror" } else { "becomes the peer" });
        (self.is_clear() && open).then(|| {
            format!("path {local}: any sender of a datagram {who}; set a password and an AES cipher at both ends")
        })
    }
}

impl WireFormat for Classic {
    fn name(&self) -> &'static str {
        "classic"
    }

    fn protection(&self) -> &'static str {
        match self.cipher {
            Cipher::None => "clear",
            Cipher::Xor => "obfuscated, not encrypted",
            Cipher::Aes128 | Cipher::Aes192 | Cipher::Aes256 | Cipher::Aes256Ethudp2023 => {
                "encrypted, not authenticated"
            }
        }
    }

    fn cipher(&self) -> Option<Cipher> {
        Some(self.cipher)
    }

    fn is_authenticated(&self) -> bool {
        false
    }

    fn compresses(&self) -> bool {
        self.lz4 > 0
    }

    fn is_answered(&self, port: &Port) -> bool {
        !port.is_mirror()
    }

    /// A worker could have reported any address. With a password, the peer proves its identity every second.
    fn peer_survives_worker(&self) -> bool {
        !self.has_password()
    }

    fn opens_in_place(&self) -> bool {
        self.without_keepalive().in_place()
    }

    /// The datagrams are those of EthUDP.
    fn announces(&self) -> bool {
        false
    }

    fn splits(&self) -> bool {
        self.fragment_mtu.is_some()
    }

    fn largest_frame(&self, payload: u32) -> u32 {
        self.without_keepalive().largest_frame(payload)
    }

    /// A longer datagram leaves as two fragments.
    fn payload(&self, path: &Resolved) -> Option<u32> {
        let whole = self.without_keepalive().whole().map_or(u32::MAX, u32::from);
        path.underlay_mtu.map(|mtu| path.payload(mtu).min(whole))
    }

    fn datagram(&self, _path: &Resolved) -> Option<u16> {
        None
    }

    fn settings(&self, tunnel: &Tunnel, _datagram: u16) -> ipc::Wire {
        let keepalive_ms = self.is_answered(&tunnel.port).then(|| self.keepalive_ms.unwrap_or(KEEPALIVE_MS));
        ipc::Wire::Classic(ipc::Classic { keepalive_ms, ..self.without_keepalive() })
    }

    fn secrets(&self) -> Secrets {
        Secrets::Classic(ClassicSecrets { key: self.key.clone(), password: self.password.clone() })
    }

    fn warnings(&self, tunnel: &Tunnel) -> Vec<String> {
        let mut lines = vec![self.protection_warning()];
        lines.extend(self.key_warning());
        lines.extend(self.mirror_password_warning(tunnel));
        lines.extend(tunnel.paths.iter().filter_map(|path| self.unknown_peer_warning(tunnel, path)));
        lines
    }
}
