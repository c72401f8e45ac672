//! Ciphers of the classic wire by name, and the bounds of its keys and passwords.

use privsep::ipc::{Cipher, Secret};

/// EthUDP's key for a cipher without one.
pub const DEFAULT_KEY: &str = "123456";
/// Longest key in bytes, as in EthUDP.
pub const MAX_KEY: usize = 2047;

/// Parses the name of a cipher.
pub fn parse(what: &str, name: &str) -> Result<Cipher, String> {
    match name {
        "none" => Ok(Cipher::None),
        "xor" => Ok(Cipher::Xor),
        "aes-128" => Ok(Cipher::Aes128),
        "aes-192" => Ok(Cipher::Aes192),
        "aes-256" => Ok(Cipher::Aes256),
        "aes-256-ethudp-2023" => Ok(Cipher::Aes256Ethudp2023),
        _ => Err(format!(
            "{what} {name:?}: unknown cipher; must be xor, aes-128, aes-192, aes-256 or aes-256-ethudp-2023"
        )),
    }
}

/// Name of a cipher.
pub fn name(cipher: Cipher) -> &'static str {
    match cipher {
        Cipher::None => "none",
        Cipher::Xor => "xor",
        Cipher::Aes128 => "aes-128",
        Cipher::Aes192 => "aes-192",
        Cipher::Aes256 => "aes-256",
        Cipher::Aes256Ethudp2023 => "aes-256-ethudp-2023",
    }
}

/// Bytes of key that a cipher takes; 0 if any number is right.
pub fn key_size(cipher: Cipher) -> usize {
    match cipher {
        Cipher::None | Cipher::Xor => 0,
        Cipher::Aes128 => 16,
        Cipher::Aes192 | Cipher::Aes256Ethudp2023 => 24,
        Cipher::Aes256 => 32,
    }
}

/// Checks the length of a key.
pub fn key(what: &str, bytes: Vec<u8>) -> Result<Secret, String> {
    match bytes.len() {
        0 => Err(format!("{what}: empty key; must have 1 to {MAX_KEY} bytes")),
        length if length > MAX_KEY => Err(format!("{what}: key of {length} bytes; must have 1 to {MAX_KEY}")),
        _ => Ok(Secret::new(bytes)),
    }
}

/// Checks the length of a password.
pub fn password(what: &str, bytes: Vec<u8>) -> Result<Secret, String> {
    match bytes.len() {
        0 => Err(format!("{what}: empty password; must have 1 to {MAX_KEY} bytes")),
        length if length > MAX_KEY => Err(format!("{what}: password of {length} bytes; must have 1 to {MAX_KEY}")),
        _ if bytes.contains(&0) => Err(format!("{what}: password with a NUL byte; remove the byte")),
        _ => Ok(Secret::new(bytes)),
    }
}
