//! Noise's primitives for snow: X25519 and ChaCha20-Poly1305 from aws-lc, BLAKE2s, and a predrawn ephemeral key.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{PrivateKey, X25519};
use blake2::{Blake2s256, Digest};
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, Error, HandshakeState};
use zeroize::Zeroizing;

use super::keys::{KEY, Pair, exchange, public};

/// Name of the Noise protocol, which is part of the hash.
pub const NAME: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
/// Bytes of a tag.
pub const TAG: usize = 16;

/// Starts one end of a handshake with this prologue and ephemeral private key.
///
/// # Errors
/// Fails if a key is invalid.
pub fn begin(
    pair: &Pair,
    prologue: &[u8],
    ephemeral: Zeroizing<[u8; KEY]>,
    initiator: bool,
) -> Result<Box<HandshakeState>, Error> {
    let builder = Builder::with_resolver(NAME.parse()?, Box::new(Resolver::new(ephemeral)))
        .local_private_key(&*pair.private)?
        .psk(2, &pair.psk)?
        .prologue(prologue)?;
    let state =
        if initiator { builder.remote_public_key(&pair.peer)?.build_initiator() } else { builder.build_responder() };
    state.map(Box::new)
}

/// Resolver of exactly these primitives.
pub struct Resolver(Zeroizing<[u8; KEY]>);

impl Resolver {
    /// Takes the ephemeral key.
    pub fn new(ephemeral: Zeroizing<[u8; KEY]>) -> Self {
        Self(ephemeral)
    }
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Drawn(Some(self.0.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| Box::<Curve>::default() as _)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        matches!(choice, HashChoice::Blake2s).then(|| Box::<Blake2s>::default() as _)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        matches!(choice, CipherChoice::ChaChaPoly).then(|| Box::<ChaChaPoly>::default() as _)
    }
}

/// Random source that returns the ephemeral key once.
struct Drawn(Option<Zeroizing<[u8; KEY]>>);

impl Random for Drawn {
    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Error> {
        let drawn = self.0.take().filter(|drawn| drawn.len() == to.len()).ok_or(Error::Rng)?;
        to.copy_from_slice(&*drawn);
        Ok(())
    }
}

#[derive(Default)]
struct Curve {
    private: Option<PrivateKey>,
    public: [u8; KEY],
}

impl Curve {
    fn try_set(&mut self, private: &[u8]) -> Result<(), Error> {
        let private = PrivateKey::from_private_key(&X25519, private).map_err(|_| Error::Dh)?;
        self.public = public(&private).ok_or(Error::Dh)?;
        self.private = Some(private);
        Ok(())
    }
}

impl Dh for Curve {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        KEY
    }

    fn priv_len(&self) -> usize {
        KEY
    }

    fn set(&mut self, private: &[u8]) {
        // After an invalid key every exchange fails.
        let _ = self.try_set(private);
    }

    fn generate(&mut self, random: &mut dyn Random) -> Result<(), Error> {
        let mut private = Zeroizing::new([0; KEY]);
        random.try_fill_bytes(&mut *private)?;
        self.try_set(&*private)
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        // Never called.
        &[]
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let private = self.private.as_ref().ok_or(Error::Dh)?;
        let secret = exchange(private, public.get(..KEY).ok_or(Error::Dh)?).ok_or(Error::Dh)?;
        out.get_mut(..KEY).ok_or(Error::Dh)?.copy_from_slice(&*secret);
        Ok(())
    }
}

#[derive(Default)]
struct ChaChaPoly(Option<LessSafeKey>);

/// Noise's nonce: four zero bytes and the number, little-endian.
fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; KEY]) {
        self.0 = UnboundKey::new(&CHACHA20_POLY1305, key).ok().map(LessSafeKey::new);
    }

    fn encrypt(&self, number: u64, authenticated: &[u8], plain: &[u8], out: &mut [u8]) -> usize {
        let (text, rest) = out.split_at_mut(plain.len());
        text.copy_from_slice(plain);
        let key = self.0.as_ref().expect("snow sets a key before");
        let tag = key.seal_in_place_separate_tag(nonce(number), Aad::from(authenticated), text);
        rest[..TAG].copy_from_slice(tag.expect("shorter than any limit").as_ref());
        plain.len() + TAG
    }

    fn decrypt(&self, number: u64, authenticated: &[u8], sealed: &[u8], out: &mut [u8]) -> Result<usize, Error> {
        let key = self.0.as_ref().ok_or(Error::Decrypt)?;
        let (text, tag) = sealed.split_at_checked(sealed.len().wrapping_sub(TAG)).ok_or(Error::Decrypt)?;
        let out = out.get_mut(..text.len()).ok_or(Error::Decrypt)?;
        key.open_separate_gather(nonce(number), Aad::from(authenticated), text, tag, out)
            .map_err(|_| Error::Decrypt)?;
        Ok(text.len())
    }
}

#[derive(Default)]
struct Blake2s(Blake2s256);

impl Hash for Blake2s {
    fn name(&self) -> &'static str {
        "BLAKE2s"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.0 = Blake2s256::default();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        out[..32].copy_from_slice(&std::mem::take(&mut self.0).finalize());
    }
}
