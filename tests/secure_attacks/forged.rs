//! What an attacker makes who has keys: the MACs of a handshake, and an initiation in the name of A by the private key of B.

use std::cell::Cell;

use curve25519_dalek::MontgomeryPoint;
use ethudp_worker::wire::secure::keys::{KEY, MACS};
use ethudp_worker::wire::secure::message::{Form, INITIATION_HEADER, RESPONSE_HEADER, begin_initiation};
use ethudp_worker::wire::secure::noise::{self, Resolver};
use privsep::ipc::Timestamp;
use sha2::{Digest, Sha256};
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Error, HandshakeState};
use zeroize::Zeroizing;

use super::{A, B};

/// Private and public key of an end.
pub fn ends_keys(which: usize) -> ([u8; KEY], [u8; KEY]) {
    let private = [u8::try_from(which).unwrap() + 1; KEY];
    (private, MontgomeryPoint::mul_base_clamped(private).to_bytes())
}

/// What both static keys come to.
pub fn shared() -> [u8; KEY] {
    MontgomeryPoint(ends_keys(A).1).mul_clamped(ends_keys(B).0).to_bytes()
}

/// RFC 2104, over keys of 32 bytes.
fn hmac(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    let pad = |byte: u8| {
        let mut block = [byte; 64];
        block.iter_mut().zip(key).for_each(|(to, key)| *to ^= key);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}

/// Writes the three MACs into the last 32 bytes of a message, by their definition in `docs/WIRE.md`.
pub fn put_macs(message: &mut [u8], receiver: &[u8; KEY], shared: &[u8; KEY]) {
    let key = |label: &str, parts: &[&[u8]]| Sha256::digest([label.as_bytes(), &parts.concat()].concat());
    let at = message.len() - MACS;
    let (words, _) = message[..32].as_chunks::<8>();
    let words: Vec<_> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
    // Without a tunnel identifier and a pre-shared key.
    let mac0 = siphash(&key("ethudp mac0", &[receiver, shared, &[0; 8]]), &words);
    message[at..at + 8].copy_from_slice(&mac0);
    for (key, part) in [
        (key("ethudp mac1", &[receiver]), at + 8..at + 16),
        (key("ethudp mac2", &[receiver, shared, &[0; 40]]), at + 16..at + 32),
    ] {
        let mac = hmac(&key.into(), &message[..part.start]);
        message[part.clone()].copy_from_slice(&mac[..part.len()]);
    }
}

/// SipHash-2-4 of whole words.
fn siphash(key: &[u8], words: &[u64]) -> [u8; 8] {
    let key = |at: usize| u64::from_le_bytes(key[at..at + 8].try_into().unwrap());
    let mut v = [0x736f_6d65_7073_6575, 0x646f_7261_6e64_6f6d, 0x6c79_6765_6e65_7261, 0x7465_6462_7974_6573];
    v.iter_mut().zip([key(0), key(8), key(0), key(8)]).for_each(|(v, key)| *v ^= key);
    let rounds = |v: &mut [u64; 4], count| {
        for _ in 0..count {
            for [a, b, c, d, first, second] in [[0, 1, 2, 3, 13, 16], [2, 1, 0, 3, 17, 21]] {
                v[a] = v[a].wrapping_add(v[b]);
                v[c] = v[c].wrapping_add(v[d]);
                v[b] = v[b].rotate_left(u32::try_from(first).unwrap()) ^ v[a];
                v[d] = v[d].rotate_left(u32::try_from(second).unwrap()) ^ v[c];
                v[a] = v[a].rotate_left(32);
            }
        }
    };
    for word in words.iter().copied().chain([(8 * words.len() as u64) << 56]) {
        v[3] ^= word;
        rounds(&mut v, 2);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    rounds(&mut v, 4);
    (v[0] ^ v[1] ^ v[2] ^ v[3]).to_le_bytes()
}

/// A static key that its user does not have: A's public one, with the only exchange that the private key of B gives, the one with B.
struct Stolen;

impl Dh for Stolen {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        KEY
    }

    fn priv_len(&self) -> usize {
        KEY
    }

    fn set(&mut self, _: &[u8]) {}

    fn generate(&mut self, _: &mut dyn Random) -> Result<(), Error> {
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        static PUBLIC: std::sync::LazyLock<[u8; KEY]> = std::sync::LazyLock::new(|| ends_keys(A).1);
        &*PUBLIC
    }

    fn privkey(&self) -> &[u8] {
        &[]
    }

    fn dh(&self, with: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let with: [u8; KEY] = with[..KEY].try_into().unwrap();
        // With an ephemeral key of B he can only guess.
        let exchange = if with == ends_keys(B).1 {
            shared()
        } else {
            MontgomeryPoint(with).mul_clamped(ends_keys(B).0).to_bytes()
        };
        out[..KEY].copy_from_slice(&exchange);
        Ok(())
    }
}

/// Noise's primitives with [`Stolen`] for the static key, which is asked for first.
struct Thieves(Resolver, Cell<bool>);

impl CryptoResolver for Thieves {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        self.0.resolve_rng()
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        if self.1.replace(true) { self.0.resolve_dh(choice) } else { Some(Box::new(Stolen)) }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        self.0.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        self.0.resolve_cipher(choice)
    }
}

/// An attacker with the private key of B who begins a handshake with B in the name of A.
pub struct Impostor {
    noise: HandshakeState,
    pub initiation: Vec<u8>,
}

impl Impostor {
    /// With an initiation of this time.
    pub fn new(timestamp: Timestamp) -> Self {
        let mut ephemeral = Zeroizing::new([0; KEY]);
        getrandom::fill(&mut *ephemeral).unwrap();
        let mut bytes = begin_initiation(Form::Long, 3, 0x0bad_0bad, 0, timestamp);
        let prologue = [&b"ethudp secure wire"[..], &[0; 8], &bytes[..INITIATION_HEADER]].concat();
        let receiver = ends_keys(B).1;
        let resolver = Thieves(Resolver::new(ephemeral), Cell::default());
        let mut noise = snow::Builder::with_resolver(noise::NAME.parse().unwrap(), Box::new(resolver))
            .local_private_key(&[0; KEY])
            .and_then(|builder| builder.remote_public_key(&receiver))
            .and_then(|builder| builder.psk(2, &[0; KEY]))
            .and_then(|builder| builder.prologue(&prologue))
            .and_then(snow::Builder::build_initiator)
            .unwrap();
        let end = bytes.len() - MACS;
        // A KEM key of zeros is one; behind it there are no features.
        noise.write_message(&[0; 1188], &mut bytes[INITIATION_HEADER..end]).unwrap();
        put_macs(&mut bytes, &receiver, &shared());
        Self { noise, initiation: bytes }
    }

    /// Tries to read B's answer; the index at which B waits for data.
    pub fn read(&mut self, response: &[u8]) -> (Result<usize, Error>, [u8; 4]) {
        let sealed = &response[RESPONSE_HEADER..response.len() - MACS];
        (self.noise.read_message(sealed, &mut [0; 2000]), response[4..8].try_into().unwrap())
    }
}
