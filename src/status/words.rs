//! Words and sentences of a status, which the log uses as well.

use privsep::ipc::{Cipher, SessionCipher, Trouble};

use crate::tunnel::Tunnel;

/// Settings in which the two ends differ, as received datagrams show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// Coding of frames: cipher, key, lz4.
    Coding,
    /// Password of the peer.
    Password,
}

impl Mismatch {
    /// Sentence for a tunnel of the classic wire.
    pub fn sentence(self, tunnel: &Tunnel) -> String {
        self.with(tunnel.wire.cipher().unwrap_or_default(), tunnel.rules.receive)
    }

    /// Sentence for this cipher. With `written`, datagrams that decode to noise are written to the local side.
    pub fn with(self, cipher: Cipher, written: bool) -> String {
        if self == Self::Password {
            return "the sender does not send the password of this end: is it the same at both ends?".into();
        }
        let written =
            if written { " Datagrams that decode to noise are written to the local side, as by EthUDP" } else { "" };
        format!(
            "received datagrams do not decode to Ethernet frames: are cipher, key and lz4 the same at both ends?{}{written}",
            other_aes_256(cipher)
        )
    }
}

/// Hint at the two meanings of aes-256: until 30 May 2026 EthUDP gave its constants for 192 and 256 bits the same value.
fn other_aes_256(cipher: Cipher) -> &'static str {
    match cipher {
        Cipher::Aes256 => {
            " The aes-256 of EthUDP v20230202 and older is AES-192: for such a peer set the cipher aes-256-ethudp-2023."
        }
        Cipher::Aes256Ethudp2023 => {
            " The aes-256 of EthUDP built from source of June 2026 or later is AES-256: for such a peer set the cipher aes-256."
        }
        Cipher::None | Cipher::Xor | Cipher::Aes128 | Cipher::Aes192 => "",
    }
}

/// Name of a cipher of the secure wire.
pub fn cipher_of(cipher: SessionCipher) -> &'static str {
    match cipher {
        SessionCipher::Aes256Gcm => "aes-256-gcm",
        SessionCipher::ChaCha20Poly1305 => "chacha20-poly1305",
    }
}

/// Word for a fault that prevents a session.
pub fn trouble_word(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::OtherPeerKey => "other-peer-key",
        Trouble::OurKeyUnknown => "our-key-unknown",
        Trouble::Psk => "psk",
        Trouble::Clock { .. } => "clock",
        Trouble::StolenKey => "stolen-key",
        Trouble::Late { .. } => "late",
        Trouble::Version(_) => "version",
        Trouble::Draft => "draft",
    }
}

/// Sentence for a fault that prevents a session.
pub fn trouble_sentence(trouble: Trouble) -> String {
    match trouble {
        Trouble::OtherPeerKey => {
            "a host that knows this end's public key makes handshakes, but not as the peer of this tunnel: compare \
             secure.peer-public-key with what `ethudp pubkey` prints at the other end, and secure.tunnel-id of both ends"
                .into()
        }
        Trouble::OurKeyUnknown => {
            "handshakes from the peer's address are for another key than this end's: compare secure.peer-public-key \
             at the other end with what `ethudp pubkey` prints here"
                .into()
        }
        Trouble::Psk => {
            "the keys of both ends are right and their pre-shared keys differ: use the same secure.psk-file at both ends, or \
             at none"
                .into()
        }
        Trouble::Clock { behind_ms } => format!(
            "the clock of the peer is {}.{:03} s behind what it was before, or an attacker repeats old messages: check NTP at \
             the peer; this end begins sessions meanwhile",
            behind_ms / 1000,
            behind_ms % 1000
        ),
        Trouble::StolenKey => {
            "more handshakes arrive with right keys than a peer makes. If this goes on for minutes, an attacker has one of the two \
             private keys, and the pre-shared key if there is one: make new keys at both ends. In the first minutes of a run he may \
             only repeat old messages"
                .into()
        }
        Trouble::Late { after_ms } => format!(
            "the peer's answer took {}.{:03} s, longer than an attempt at a handshake lasts: the underlay delays datagrams too long",
            after_ms / 1000,
            after_ms % 1000
        ),
        Trouble::Version(version) => format!(
            "the peer speaks version {version} of the wire, this end version 1: run the same release of ethudp at both ends"
        ),
        Trouble::Draft => {
            "the peer speaks a draft of version 1 of the wire: install the same release of ethudp at both ends".into()
        }
    }
}

/// Sentence for datagrams of the greatest length, `size` bytes, that are lost while small ones arrive.
pub fn lost_size_sentence(size: u16) -> String {
    format!(
        "datagrams of {size} bytes do not arrive at the peer, small ones do: set secure.path-mtu at both ends to what the way \
         carries, such as 1400, or 1280"
    )
}
