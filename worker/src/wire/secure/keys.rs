//! Keys of an end from its file: its own key, the peer's key, the pre-shared key, and keys derived from them.

use std::hash::Hasher;
#[expect(deprecated, reason = "as a hasher for tables; it is SipHash-2-4 with a key, which is what is wanted")]
use std::hash::SipHasher;
use std::ops::Range;

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::{digest, hmac};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Bytes of a key.
pub const KEY: usize = 32;
/// Identifier that separates tunnels with the same pair of keys; zeros without one.
pub type Tunnel = [u8; 8];
/// Bytes at the start of a handshake message that `mac0` covers.
pub const HEAD: usize = 32;
/// Bytes of `mac0`, and of `mac1`, which follows.
const SHORT_MAC: usize = 8;
/// Bytes of `mac2`, the last one.
pub const MAC: usize = 16;
/// Bytes of all three MACs.
pub const MACS: usize = 2 * SHORT_MAC + MAC;

/// 2^255 - 19 (RFC 7748), little-endian.
const PRIME: [u8; KEY] = {
    let mut prime = [0xff; KEY];
    (prime[0], prime[31]) = (0xed, 0x7f);
    prime
};

/// Reason why a pair of keys is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadKey {
    /// The library refuses the private key.
    Private,
    /// The peer's public key is this end's own.
    Own,
    /// The peer's key is not the canonical encoding of its point: 2^255 - 19 or more.
    NotCanonical,
    /// The shared secret is all zero with any private key.
    ZeroExchange,
}

impl std::fmt::Display for BadKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Private => "the private key cannot be used",
            Self::Own => "the peer's public key is this end's own",
            Self::NotCanonical => "the peer's public key is 2^255 - 19 or more",
            Self::ZeroExchange => "the peer's public key is a point of small order",
        })
    }
}

/// X25519 key exchange; `None` if the shared secret is all zero (RFC 7748, 6.1).
pub fn exchange(private: &PrivateKey, public: &[u8]) -> Option<Zeroizing<[u8; KEY]>> {
    agree(private, UnparsedPublicKey::new(&X25519, public), (), |secret| {
        let secret: [u8; KEY] = secret.try_into().map_err(|_| ())?;
        // Checked here as well as in the library.
        if bool::from(secret.ct_eq(&[0; KEY])) { Err(()) } else { Ok(Zeroizing::new(secret)) }
    })
    .ok()
}

/// Public key of a private key.
pub fn public(private: &PrivateKey) -> Option<[u8; KEY]> {
    private.compute_public_key().ok()?.as_ref().try_into().ok()
}

/// Whether a public key is less than 2^255 - 19.
fn is_canonical(key: &[u8; KEY]) -> bool {
    key.iter().rev().lt(PRIME.iter().rev())
}

/// Keys of both ends, known before any message is sent.
pub struct Pair {
    /// This end's private key.
    pub(super) private: Zeroizing<[u8; KEY]>,
    /// This end's public key.
    pub public: [u8; KEY],
    /// The peer's public key.
    pub peer: [u8; KEY],
    /// Pre-shared key.
    pub(super) psk: Zeroizing<[u8; KEY]>,
    /// Identifier of the tunnel.
    pub(super) tunnel: Tunnel,
    /// Features of this end, as in [`message::features`](super::message::features).
    pub features: u32,
    to_us: MacKeys,
    to_them: MacKeys,
}

/// Keys of the three MACs of messages in one direction.
struct MacKeys {
    mac0: Zeroizing<[u64; 2]>,
    mac1: hmac::Key,
    mac2: hmac::Key,
}

impl MacKeys {
    fn new(receiver: &[u8; KEY], shared: &[u8; KEY], tunnel: Tunnel, psk: &[u8; KEY]) -> Self {
        let key = |parts: &[&[u8]]| {
            let mut hash = digest::Context::new(&digest::SHA256);
            for part in parts {
                hash.update(part);
            }
            hash.finish()
        };
        let hmac = |parts: &[&[u8]]| hmac::Key::new(hmac::HMAC_SHA256, key(parts).as_ref());
        let mac0 = key(&[b"ethudp mac0", receiver, shared, &tunnel]);
        let (words, _) = mac0.as_ref().as_chunks::<8>();
        Self {
            mac0: Zeroizing::new([0, 1].map(|word: usize| u64::from_le_bytes(words[word]))),
            mac1: hmac(&[b"ethudp mac1", receiver]),
            mac2: hmac(&[b"ethudp mac2", receiver, shared, &tunnel, psk]),
        }
    }

    /// Computes MAC `number`, 0 to 2, of a message that has room for it. `mac0` covers the head; the others cover everything before
    /// them.
    fn mac(&self, number: usize, message: &[u8]) -> [u8; MAC] {
        let before = &message[..message.len() - MACS + place(number).start];
        let mut mac = [0; MAC];
        match number {
            0 => mac[..SHORT_MAC].copy_from_slice(&siphash(&self.mac0, &message[..HEAD])),
            1 => mac[..SHORT_MAC].copy_from_slice(&hmac::sign(&self.mac1, before).as_ref()[..SHORT_MAC]),
            _ => mac.copy_from_slice(&hmac::sign(&self.mac2, before).as_ref()[..MAC]),
        }
        mac
    }

    fn is_right(&self, number: usize, message: &[u8]) -> bool {
        if message.len() < HEAD + MACS {
            return false;
        }
        let place = place(number);
        let (_, macs) = message.split_at(message.len() - MACS);
        self.mac(number, message)[..place.len()].ct_eq(&macs[place]).into()
    }
}

/// Position of a MAC in the last bytes of a message.
fn place(number: usize) -> Range<usize> {
    [0..SHORT_MAC, SHORT_MAC..2 * SHORT_MAC, 2 * SHORT_MAC..MACS][number].clone()
}

/// SipHash-2-4, in the byte order of its authors.
fn siphash(key: &[u64; 2], bytes: &[u8]) -> [u8; SHORT_MAC] {
    #[expect(deprecated, reason = "see above")]
    let mut hasher = SipHasher::new_with_keys(key[0], key[1]);
    hasher.write(bytes);
    hasher.finish().to_le_bytes()
}

impl Pair {
    /// Takes the keys of the file; a `psk` of zeros means none.
    ///
    /// # Errors
    /// Reason why a key is unusable.
    pub fn new(private: &[u8; KEY], peer: [u8; KEY], psk: &[u8; KEY], tunnel: Tunnel) -> Result<Self, BadKey> {
        let key = PrivateKey::from_private_key(&X25519, private).map_err(|_| BadKey::Private)?;
        let public = public(&key).ok_or(BadKey::Private)?;
        if public == peer {
            return Err(BadKey::Own);
        }
        if !is_canonical(&peer) {
            return Err(BadKey::NotCanonical);
        }
        let shared = exchange(&key, &peer).ok_or(BadKey::ZeroExchange)?;
        let [to_us, to_them] = [&public, &peer].map(|receiver| MacKeys::new(receiver, &shared, tunnel, psk));
        let (private, psk) = (Zeroizing::new(*private), Zeroizing::new(*psk));
        Ok(Self { private, public, peer, psk, tunnel, features: 0, to_us, to_them })
    }

    /// Writes the MACs into the last 32 bytes of a message to the peer.
    ///
    /// # Panics
    /// Panics if the message has fewer than 64 bytes.
    pub fn put_macs(&self, message: &mut [u8]) {
        let at = message.len() - MACS;
        for number in 0..3 {
            let (mac, place) = (self.to_them.mac(number, message), place(number));
            message[at..][place.clone()].copy_from_slice(&mac[..place.len()]);
        }
    }

    /// Whether `mac0` of a message to this end is right: one of both ends made its first 32 bytes. The check costs the same for any
    /// length.
    pub fn has_head_of_the_pair(&self, message: &[u8]) -> bool {
        self.to_us.is_right(0, message)
    }

    /// Whether `mac2` of a message to this end is right: one of both ends made the whole message.
    pub fn is_of_the_pair(&self, message: &[u8]) -> bool {
        self.to_us.is_right(2, message)
    }

    /// Whether `mac1` of a message to this end is right: its sender knows this end's public key.
    pub fn is_for_us(&self, message: &[u8]) -> bool {
        self.to_us.is_right(1, message)
    }

    /// Whether this end gives way when both ends begin at once.
    pub fn gives_way(&self) -> bool {
        self.public < self.peer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public_of(private: [u8; KEY]) -> [u8; KEY] {
        public(&PrivateKey::from_private_key(&X25519, &private).unwrap()).unwrap()
    }

    #[test]
    fn weak_peer_keys_are_refused() {
        let private = [7; KEY];
        let bad = |peer| Pair::new(&private, peer, &[0; KEY], [0; 8]).err();
        assert_eq!(bad(public_of(private)), Some(BadKey::Own));
        let mut top = public_of([8; KEY]);
        assert_eq!(bad(top), None);
        top[31] |= 0x80;
        assert_eq!(bad(top), Some(BadKey::NotCanonical));
        let mut one_less = PRIME;
        one_less[0] -= 1;
        // Canonical points of small order on RFC 7748's curve: 0, 1, p - 1 and two of order 8.
        let mut one = [0; KEY];
        one[0] = 1;
        let order_8 = [
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
            "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        ];
        let order_8 = order_8.map(|text| {
            let mut key = [0; KEY];
            for (at, byte) in key.iter_mut().enumerate() {
                *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap();
            }
            key
        });
        for key in [[0; KEY], one, one_less, order_8[0], order_8[1]] {
            assert_eq!(bad(key), Some(BadKey::ZeroExchange), "{key:02x?}");
        }
        for key in [PRIME, [0xff; KEY]] {
            assert_eq!(bad(key), Some(BadKey::NotCanonical), "{key:02x?}");
        }
    }

    #[test]
    fn macs_verify_at_peer_only() {
        let (ours, theirs, strangers) = ([1; KEY], [2; KEY], [3; KEY]);
        let pair = |private: &[u8; KEY], peer| Pair::new(private, public_of(peer), &[0; KEY], [0; 8]).unwrap();
        let (us, them, stranger) = (pair(&ours, theirs), pair(&theirs, ours), pair(&strangers, theirs));
        let right = |pair: &Pair, message: &[u8]| {
            [pair.has_head_of_the_pair(message), pair.is_for_us(message), pair.is_of_the_pair(message)]
        };
        let mut message = [9; 100];
        us.put_macs(&mut message);
        assert_eq!(right(&them, &message), [true; 3]);
        // A reflected message passes no check.
        assert_eq!(right(&us, &message), [false; 3]);
        for byte in 0..100 {
            let mut changed = message;
            changed[byte] ^= 1;
            let head = (HEAD..68).contains(&byte) || byte >= 76;
            assert_eq!(right(&them, &changed), [head, byte >= 84, false], "byte {byte}");
        }
        stranger.put_macs(&mut message);
        assert_eq!(right(&them, &message), [false, true, false]);
        // Another tunnel identifier fails `mac0`. Another pre-shared key fails only `mac2`.
        for (psk, tunnel, expected) in
            [([0; KEY], [1; 8], [false, true, false]), ([1; KEY], [0; 8], [true, true, false])]
        {
            Pair::new(&ours, public_of(theirs), &psk, tunnel).unwrap().put_macs(&mut message);
            assert_eq!(right(&them, &message), expected);
        }
        for short in [&message[..63], &[]] {
            assert_eq!(right(&them, short), [false; 3]);
        }
        assert_ne!(us.gives_way(), them.gives_way());
    }

    /// The example in appendix A of the authors' paper.
    #[test]
    fn siphash_matches_reference() {
        let bytes: Vec<u8> = (0..15).collect();
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        assert_eq!(siphash(&key, &bytes), 0xa129_ca61_49be_45e5_u64.to_le_bytes());
    }
}
