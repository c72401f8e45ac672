//! Words and sentences of a status, which the log uses as well.

use privsep::ipc::{ChangeReason, Cipher, SessionCipher, Trouble};

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
            return "wrong password in received datagrams: set the same password at both ends".into();
        }
        let written =
            if written { ". Until then wrongly decoded datagrams reach the local side, as with EthUDP" } else { "" };
        format!(
            "received datagrams do not decode to Ethernet frames: set the same cipher, key and lz4 at both ends{}{written}",
            other_aes_256(cipher)
        )
    }
}

/// Hint at the two meanings of aes-256: until 30 May 2026 EthUDP gave its constants for 192 and 256 bits the same value.
fn other_aes_256(cipher: Cipher) -> &'static str {
    match cipher {
        Cipher::Aes256 => {
            ". If the peer runs EthUDP v20230202 or older, set cipher aes-256-ethudp-2023: its aes-256 is AES-192"
        }
        Cipher::Aes256Ethudp2023 => {
            ". If the peer runs EthUDP built from source of June 2026 or later, set cipher aes-256"
        }
        Cipher::None | Cipher::Xor | Cipher::Aes128 | Cipher::Aes192 => "",
    }
}

/// Word for the last change of a path.
pub fn change_word(reason: ChangeReason) -> &'static str {
    match reason {
        ChangeReason::Answers => "answers",
        ChangeReason::Silent => "silent",
        ChangeReason::Loss => "loss",
        ChangeReason::Delay => "delay",
        ChangeReason::Good => "good",
    }
}

/// Reason why frames use another path, by the change of a path that caused it.
pub fn move_sentence(reason: ChangeReason) -> &'static str {
    match reason {
        ChangeReason::Answers => "the peer answers on this path",
        ChangeReason::Silent => "the peer does not answer on the path before",
        ChangeReason::Loss => "the path before loses more than 30 % of the datagrams",
        ChangeReason::Delay => "the round trip of the path before takes more than 1 s",
        ChangeReason::Good => "this path has been good for its hold time",
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
            "handshakes for this end's key come from another key or tunnel: set secure.peer-public-key to the output of \
             `ethudp pubkey` at the other end, and the same secure.tunnel-id at both ends"
                .into()
        }
        Trouble::OurKeyUnknown => {
            "handshakes from the peer's address are for another key: set secure.peer-public-key at the other end to the \
             output of `ethudp pubkey` here"
                .into()
        }
        Trouble::Psk => {
            "pre-shared keys differ, the public keys are right: use the same secure.psk-file at both ends, or at neither"
                .into()
        }
        Trouble::Clock { behind_ms } => format!(
            "clock of the peer went back by {}.{:03} s, or an attacker replays old messages: check NTP at the peer. Until \
             then only this end begins sessions",
            behind_ms / 1000,
            behind_ms % 1000
        ),
        Trouble::StolenKey => {
            "more handshakes with valid keys arrive than a peer sends: if this lasts for minutes, an attacker has a \
             private key of one end, and the pre-shared key if one is set: create new keys at both ends. In the first \
             minutes after a start it can also be a replay of old messages"
                .into()
        }
        Trouble::Late { after_ms } => format!(
            "handshake answer of the peer took {}.{:03} s, which is too late: reduce the delay of the underlay",
            after_ms / 1000,
            after_ms % 1000
        ),
        Trouble::Version(version) => format!(
            "peer uses version {version} of the wire, this end version 1: run the same release of ethudp at both ends"
        ),
        Trouble::Draft => {
            "peer uses a draft of version 1 of the wire: run the same release of ethudp at both ends".into()
        }
    }
}

/// Sentence for datagrams of `size` bytes that are lost while small ones arrive. `fixed` tells whether the file names the size.
pub fn lost_size_sentence(size: u16, fixed: bool) -> String {
    let remedy = if fixed {
        "set secure.path-mtu at both ends to the MTU of the path, such as 1400, or to \"auto\""
    } else {
        "the path must carry IP packets of 1280 bytes"
    };
    format!("datagrams of {size} bytes do not reach the peer, small ones do: {remedy}")
}

/// Sentence for runs of datagrams of `size` bytes that are lost while single datagrams arrive. The worker decides after three rounds.
pub fn lost_runs_sentence(size: u16, device: Option<&str>) -> String {
    let (long, device) = (privsep::ipc::Secure::long_run(size), device.unwrap_or("DEVICE"));
    format!(
        "runs of datagrams do not reach the peer (0 of 6 in runs of 2, 0 of {} in runs of {long}), single ones of {size} bytes do (3 \
         of 3): datagrams leave singly; run `ethtool -K {device} tx-udp-segmentation off` for the interface of the path, and update \
         its driver or the kernel",
        3 * long
    )
}
