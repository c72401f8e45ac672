//! The words and sentences of a status, which the log has, too.

use privsep::ipc::{Cipher, PathHealth};

use super::ConfinementStatus;

/// What the two ends do not agree about, while what comes makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// How frames are coded: cipher, key, lz4.
    Coding,
    /// Who may be the peer.
    Password,
}

impl Mismatch {
    /// In a sentence; frames that are noise may be `written` to the local side.
    pub fn sentence(self, written: bool) -> &'static str {
        match self {
            Self::Password => "whoever sends does not tell our password: is it the same at both ends?",
            Self::Coding if written => {
                "what comes cannot be decoded, or is no frame when it is: are cipher, key and lz4 the same at both ends? \
                 What can be decoded is written to the local side even so, as by EthUDP"
            }
            Self::Coding => {
                "what comes cannot be decoded, or is no frame when it is: are cipher, key and lz4 the same at both ends?"
            }
        }
    }
}

/// What a cipher of the classic wire means.
pub fn protection(cipher: Cipher) -> &'static str {
    match cipher {
        Cipher::None => "clear",
        Cipher::Xor => "obfuscated, not encrypted",
        Cipher::Aes128 | Cipher::Aes192 | Cipher::Aes256 => "encrypted, not authenticated",
    }
}

/// What of a worker's confinement could not be had. A network namespace can be expected only `by_root`.
pub fn lacks(confinement: &ConfinementStatus, by_root: bool) -> Vec<&'static str> {
    let ConfinementStatus { netns, landlock_abi, mdwe, seccomp } = *confinement;
    let lacks = [
        (landlock_abi == 0, "Landlock"),
        (!mdwe, "memory-deny-write-execute"),
        (!seccomp, "seccomp"),
        (by_root && !netns, "an empty network namespace"),
    ];
    lacks.into_iter().filter_map(|(lacks, what)| lacks.then_some(what)).collect()
}

/// The word for a path's health.
pub fn health(health: PathHealth) -> &'static str {
    match health {
        PathHealth::Connecting => "connecting",
        PathHealth::Up => "up",
        PathHealth::Down => "down",
    }
}
