//! Handshake: processing of both ends' messages, and derivation of the session keys.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::kem::{Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_768};
use aws_lc_rs::{digest, hkdf};
use snow::HandshakeState;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use super::keys::{KEY, MACS, Pair};
use super::message::{
    self, CIPHERTEXT, FEATURES, Form, INITIATION_HEADER, Initiation, KEM_CIPHERTEXT, KEM_HEADER, KEM_KEY, Kem, Message,
    PUBLIC, RESPONSE_HEADER, Response, offer,
};
use super::noise::{self, TAG};
use super::{CipherKind, Keys, Timestamp};

/// Source of random bytes. ML-KEM uses the library's own.
pub type Random = Box<dyn FnMut(&mut [u8]) + Send>;

/// Beginning of Noise's prologue, before the tunnel identifier and the header of the initiation.
const PROLOGUE: &[u8] = b"ethudp secure wire";

/// Reason why a handshake does not continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// A part sealed by Noise does not open.
    Sealed,
    /// The initiator's static key is not the peer's.
    Stranger,
    /// The cipher or form was not offered.
    NotOffered,
    /// The KEM key is invalid.
    Kem,
    /// The library failed.
    Library,
}

/// Initiator that waits for the response to its initiation.
pub struct Initiator {
    noise: Box<HandshakeState>,
    /// Secret and public key of the KEM, until the response arrives.
    kem: Option<(DecapsulationKey, Vec<u8>)>,
    form: Form,
    offer: u8,
    our_index: u32,
    bytes: Vec<u8>,
}

/// Result of a response.
pub enum Answered {
    /// The keys of the session.
    Keys(Keys),
    /// In the short form, the KEM key to send.
    Kem(Box<KemInitiator>),
}

/// Initiator of the short form that waits for the KEM ciphertext.
pub struct KemInitiator {
    kem: DecapsulationKey,
    kem_public: Vec<u8>,
    bare: Bare,
    bytes: Vec<u8>,
}

/// Result of a responder.
pub enum Responded {
    /// The keys of the session.
    Keys(Keys),
    /// In the short form, a responder that waits for the KEM key.
    Kem(Box<KemResponder>),
}

/// Responder of the short form that waits for the KEM key.
pub struct KemResponder(Bare);

impl Initiator {
    /// Makes an initiation. The indices are this end's for the session, and the peer's for initiations.
    ///
    /// # Errors
    /// When the library fails.
    pub fn new(
        pair: &Pair,
        form: Form,
        offer: u8,
        (our_index, their_index): (u32, u32),
        timestamp: Timestamp,
        random: &mut Random,
    ) -> Result<Self, Refused> {
        let kem = DecapsulationKey::generate(&ML_KEM_768).map_err(|_| Refused::Library)?;
        let kem_public = kem.encapsulation_key().and_then(|key| key.key_bytes()).map_err(|_| Refused::Library)?;
        let kem = (kem, kem_public.as_ref().to_vec());
        Self::with_kem(pair, message::begin_initiation(form, offer, our_index, their_index, timestamp), kem, random)
    }

    /// As [`Initiator::new`], with this key pair of the KEM and the header in `bytes`, from [`message::begin_initiation`].
    ///
    /// # Errors
    /// When the library fails, or the header is invalid.
    pub fn with_kem(
        pair: &Pair,
        mut bytes: Vec<u8>,
        kem: (DecapsulationKey, Vec<u8>),
        random: &mut Random,
    ) -> Result<Self, Refused> {
        let Some(Message::Initiation(Initiation { form, offer, sender, .. })) = message::parse(&bytes) else {
            return Err(Refused::Library);
        };
        let mut noise = begin(pair, &bytes, random, true)?;
        let public: &[u8] = if form == Form::Long { &kem.1 } else { &[] };
        let payload = [public, &pair.features.to_be_bytes()].concat();
        let end = bytes.len() - MACS;
        noise.write_message(&payload, &mut bytes[INITIATION_HEADER..end]).map_err(|_| Refused::Library)?;
        pair.put_macs(&mut bytes);
        Ok(Self { noise, kem: Some(kem), form, offer, our_index: sender, bytes })
    }

    /// Bytes of the initiation.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Receiver index of the answers.
    pub fn our_index(&self) -> u32 {
        self.our_index
    }

    /// Takes a response whose MACs are right.
    ///
    /// # Errors
    /// Reason to drop the response. After any error but [`Refused::NotOffered`] the caller must forget the initiator.
    pub fn take(&mut self, response: &Response) -> Result<Answered, Refused> {
        if response.form != self.form || !offer::has(self.offer, response.cipher) {
            return Err(Refused::NotOffered);
        }
        let mut payload = [0; CIPHERTEXT + FEATURES];
        let length = self.noise.read_message(response.noise(), &mut payload).map_err(|_| Refused::Sealed)?;
        let agreed = Agreed { cipher: response.cipher, initiator: self.our_index, responder: response.sender };
        let (ciphertext, features) = split_features(&payload, length)?;
        let bare = Bare::new(&mut self.noise, agreed, features)?;
        // Each initiation takes one response.
        let (kem, kem_public) = self.kem.take().ok_or(Refused::Sealed)?;
        if self.form == Form::Long {
            return Ok(Answered::Keys(bare.decapsulate(&kem, &kem_public, ciphertext)?));
        }
        let bytes = bare.seal(KEM_KEY, response.sender, &kem_public)?;
        Ok(Answered::Kem(Box::new(KemInitiator { kem, kem_public, bare, bytes })))
    }
}

impl KemInitiator {
    /// Bytes of the KEM key message.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes the KEM ciphertext.
    ///
    /// # Errors
    /// Reason to drop the message.
    pub fn take(&self, answer: &Kem) -> Result<Keys, Refused> {
        let ciphertext = self.bare.open(answer)?;
        self.bare.decapsulate(&self.kem, &self.kem_public, &ciphertext)
    }
}

/// Answers an initiation whose MACs are right, with this end's offer of ciphers. Returns the response and the next step.
///
/// # Errors
/// Reason to drop the initiation.
pub fn respond(
    pair: &Pair,
    initiation: &Initiation,
    offer: u8,
    our_index: u32,
    random: &mut Random,
) -> Result<(Vec<u8>, Responded), Refused> {
    let mut noise = begin(pair, initiation.bytes, random, false)?;
    let mut payload = [0; PUBLIC + FEATURES];
    let length = noise.read_message(initiation.noise(), &mut payload).map_err(|_| Refused::Sealed)?;
    let (key, features) = split_features(&payload, length)?;
    // Noise accepts any static key.
    let theirs = noise.get_remote_static().ok_or(Refused::Stranger)?;
    if !bool::from(theirs.ct_eq(&pair.peer)) {
        return Err(Refused::Stranger);
    }
    let cipher = offer::best(offer & initiation.offer);
    let agreed = Agreed { cipher, initiator: initiation.sender, responder: our_index };
    let mut bytes = message::begin_response(initiation.form, cipher, our_index, initiation.sender);
    let encapsulated = match initiation.form {
        Form::Long => Some(encapsulate(key)?),
        Form::Short => None,
    };
    let ciphertext = encapsulated.as_ref().map_or(&[][..], |(ciphertext, _)| ciphertext);
    let payload = [ciphertext, &pair.features.to_be_bytes()].concat();
    let end = bytes.len() - MACS;
    noise.write_message(&payload, &mut bytes[RESPONSE_HEADER..end]).map_err(|_| Refused::Library)?;
    pair.put_macs(&mut bytes);
    let bare = Bare::new(&mut noise, agreed, features)?;
    let responded = match encapsulated {
        Some((ciphertext, secret)) => Responded::Keys(bare.keys(key, &ciphertext, &secret, false)?),
        None => Responded::Kem(Box::new(KemResponder(bare))),
    };
    Ok((bytes, responded))
}

impl KemResponder {
    /// Takes the KEM key and returns its answer and the keys.
    ///
    /// # Errors
    /// Reason to drop the message.
    pub fn take(&self, message: &Kem) -> Result<(Vec<u8>, Keys), Refused> {
        let key = self.0.open(message)?;
        let (ciphertext, secret) = encapsulate(&key)?;
        let keys = self.0.keys(&key, &ciphertext, &secret, false)?;
        Ok((self.0.seal(KEM_CIPHERTEXT, self.0.agreed.initiator, &ciphertext)?, keys))
    }
}

/// Payload of this length without the features, and the features.
fn split_features(payload: &[u8], length: usize) -> Result<(&[u8], u32), Refused> {
    let (rest, features) = payload.get(..length).and_then(<[u8]>::split_last_chunk).ok_or(Refused::Sealed)?;
    Ok((rest, u32::from_be_bytes(*features)))
}

fn begin(pair: &Pair, initiation: &[u8], random: &mut Random, initiator: bool) -> Result<Box<HandshakeState>, Refused> {
    let mut ephemeral = Zeroizing::new([0; KEY]);
    random(&mut *ephemeral);
    let prologue = [PROLOGUE, &pair.tunnel, &initiation[..INITIATION_HEADER]].concat();
    noise::begin(pair, &prologue, ephemeral, initiator).map_err(|_| Refused::Library)
}

/// Ciphertext and secret for a KEM key. The library checks the key (FIPS 203, 7.2).
fn encapsulate(key: &[u8]) -> Result<(Vec<u8>, Zeroizing<[u8; KEY]>), Refused> {
    let key = EncapsulationKey::new(&ML_KEM_768, key).map_err(|_| Refused::Kem)?;
    let (ciphertext, secret) = key.encapsulate().map_err(|_| Refused::Kem)?;
    let secret = Zeroizing::new(secret.as_ref().try_into().map_err(|_| Refused::Library)?);
    Ok((ciphertext.as_ref().to_vec(), secret))
}

/// Parameters that the keys are bound to.
#[derive(Debug, Clone, Copy)]
pub struct Agreed {
    /// The cipher.
    pub cipher: CipherKind,
    /// Index of the initiator.
    pub initiator: u32,
    /// Index of the responder.
    pub responder: u32,
}

impl Agreed {
    fn bytes(self) -> [u8; 9] {
        let mut bytes = [0; 9];
        bytes[0] = self.cipher as u8;
        bytes[1..5].copy_from_slice(&self.initiator.to_be_bytes());
        bytes[5..].copy_from_slice(&self.responder.to_be_bytes());
        bytes
    }
}

/// Result of Noise, before the secret of the KEM is added.
pub struct Bare {
    /// Transcript hash of Noise.
    hash: [u8; KEY],
    /// Raw split of Noise, k1 and k2.
    split: Zeroizing<[u8; 2 * KEY]>,
    agreed: Agreed,
    /// Features of the peer.
    features: u32,
}

fn expand(secret: &hkdf::Prk, info: &[&[u8]]) -> Result<Zeroizing<[u8; KEY]>, Refused> {
    let mut key = Zeroizing::new([0; KEY]);
    let filled = secret.expand(info, hkdf::HKDF_SHA256).and_then(|okm| okm.fill(&mut *key));
    filled.map(|()| key).map_err(|_| Refused::Library)
}

impl Bare {
    fn new(noise: &mut HandshakeState, agreed: Agreed, features: u32) -> Result<Self, Refused> {
        let (mut first, mut second) = noise.dangerously_get_raw_split();
        let mut split = Zeroizing::new([0; 2 * KEY]);
        split[..KEY].copy_from_slice(&first);
        split[KEY..].copy_from_slice(&second);
        first.zeroize();
        second.zeroize();
        let hash = noise.get_handshake_hash().try_into().map_err(|_| Refused::Library)?;
        Ok(Self { hash, split, agreed, features })
    }

    /// Makes it from its parts, for a peer without features.
    pub fn from_parts(hash: [u8; KEY], split: [u8; 2 * KEY], agreed: Agreed) -> Self {
        Self { hash, split: Zeroizing::new(split), agreed, features: 0 }
    }

    /// Derives the keys from the secret `m` of a KEM with this public key and ciphertext.
    ///
    /// # Errors
    /// When the library fails.
    pub fn keys(&self, public: &[u8], ciphertext: &[u8], m: &[u8; KEY], initiator: bool) -> Result<Keys, Refused> {
        let mut salt = digest::Context::new(&digest::SHA256);
        for part in [&self.hash, public, ciphertext] {
            salt.update(part);
        }
        let mut together = Zeroizing::new([0; 3 * KEY]);
        together[..KEY].copy_from_slice(m);
        together[KEY..].copy_from_slice(&*self.split);
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, salt.finish().as_ref()).extract(&*together);
        let agreed = self.agreed.bytes();
        let to_responder = expand(&secret, &[b"ethudp data 1 initiator", &agreed])?;
        let to_initiator = expand(&secret, &[b"ethudp data 1 responder", &agreed])?;
        let Agreed { cipher, initiator: first, responder: second } = self.agreed;
        let (sending, receiving, our_index, their_index) = if initiator {
            (to_responder, to_initiator, first, second)
        } else {
            (to_initiator, to_responder, second, first)
        };
        let (sending, receiving, peer_features) = (*sending, *receiving, self.features);
        Ok(Keys { sending, receiving, cipher, our_index, their_index, peer_features })
    }

    fn decapsulate(&self, kem: &DecapsulationKey, public: &[u8], ciphertext: &[u8]) -> Result<Keys, Refused> {
        let secret = kem.decapsulate(Ciphertext::from(ciphertext)).map_err(|_| Refused::Kem)?;
        let secret = Zeroizing::new(secret.as_ref().try_into().map_err(|_| Refused::Library)?);
        self.keys(public, ciphertext, &secret, true)
    }

    /// Key of message 3 or 4. It seals only that message.
    fn kem_key(&self, kind: u8) -> Result<LessSafeKey, Refused> {
        let bare = hkdf::Salt::new(hkdf::HKDF_SHA256, &self.hash).extract(&*self.split);
        let info: &[u8] = if kind == KEM_KEY { b"ethudp kem 1 initiator" } else { b"ethudp kem 1 responder" };
        let key = expand(&bare, &[info])?;
        Ok(LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &*key).map_err(|_| Refused::Library)?))
    }

    /// Seals message 3 or 4.
    ///
    /// # Errors
    /// When the library fails.
    pub fn seal(&self, kind: u8, receiver: u32, body: &[u8]) -> Result<Vec<u8>, Refused> {
        let mut bytes = message::begin_kem(kind, receiver, body);
        let (header, body) = bytes.split_at_mut(KEM_HEADER);
        let (nonce, header) = (Nonce::assume_unique_for_key([0; 12]), Aad::from(&*header));
        let tag = self.kem_key(kind)?.seal_in_place_separate_tag(nonce, header, body).map_err(|_| Refused::Library)?;
        bytes.extend_from_slice(tag.as_ref());
        Ok(bytes)
    }

    fn open(&self, message: &Kem) -> Result<Vec<u8>, Refused> {
        let (header, sealed) = message.bytes.split_at(KEM_HEADER);
        let (text, tag) = sealed.split_at(sealed.len() - TAG);
        let mut body = vec![0; text.len()];
        let (nonce, header) = (Nonce::assume_unique_for_key([0; 12]), Aad::from(header));
        let key = self.kem_key(message.bytes[0])?;
        key.open_separate_gather(nonce, header, text, tag, &mut body).map_err(|_| Refused::Sealed)?;
        Ok(body)
    }
}
