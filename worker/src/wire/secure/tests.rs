//! Tests of the handshake between two ends, with and without interference.

use aws_lc_rs::agreement::{PrivateKey, X25519};

use super::handshake::{Agreed, Answered, Bare, Initiator, Random, Refused, Responded, respond};
use super::keys::{KEY, MACS, Pair, public};
use super::message::{self, Form, Initiation, Kem, Message, Response, parse};
use super::{CipherKind, Dropped, Keys, Opening, Sending, Timestamp};

const NOW: Timestamp = Timestamp(1_700_000_000_000_000_007);
const FORMS: [Form; 2] = [Form::Long, Form::Short];

pub fn public_of(private: u8) -> [u8; KEY] {
    public(&PrivateKey::from_private_key(&X25519, &[private; KEY]).unwrap()).unwrap()
}

fn pair(ours: u8, theirs: u8, psk: u8) -> Pair {
    Pair::new(&[ours; KEY], public_of(theirs), &[psk; KEY], [0; 8]).unwrap()
}

/// Deterministic bytes from a seed.
pub fn random(mut seed: u8) -> Random {
    Box::new(move |to| {
        to.fill(seed);
        seed = seed.wrapping_add(1);
    })
}

fn initiation(bytes: &[u8]) -> Initiation<'_> {
    let Some(Message::Initiation(initiation)) = parse(bytes) else { panic!("no initiation: {bytes:02x?}") };
    initiation
}

fn response(bytes: &[u8]) -> Response<'_> {
    let Some(Message::Response(response)) = parse(bytes) else { panic!("no response: {bytes:02x?}") };
    response
}

fn kem(bytes: &[u8]) -> Kem<'_> {
    let Some(Message::KemKey(kem) | Message::KemCiphertext(kem)) = parse(bytes) else { panic!("no KEM: {bytes:02x?}") };
    kem
}

fn begin(pair: &Pair, form: Form) -> Initiator {
    Initiator::new(pair, form, 3, (0x1111, 0), NOW, &mut random(0x40)).unwrap()
}

/// Runs a whole handshake and returns the keys of the initiator and of the responder.
fn shake(a: &Pair, b: &Pair, form: Form, offers: [u8; 2]) -> Result<(Keys, Keys), Refused> {
    let mut initiator = Initiator::new(a, form, offers[0], (0x1111, 0), NOW, &mut random(0x40))?;
    let (answer, responded) = respond(b, &initiation(initiator.bytes()), offers[1], 0x2222, &mut random(0x60))?;
    let same_psk = a.psk == b.psk;
    assert!(b.is_of_the_pair(initiator.bytes()) == same_psk && a.is_of_the_pair(&answer) == same_psk);
    match (initiator.take(&response(&answer))?, responded) {
        (Answered::Keys(ours), Responded::Keys(theirs)) => Ok((ours, theirs)),
        (Answered::Kem(first), Responded::Kem(second)) => {
            let (answer, theirs) = second.take(&kem(first.bytes()))?;
            Ok((first.take(&kem(&answer))?, theirs))
        }
        _ => panic!("the forms differ"),
    }
}

/// Checks that a datagram sealed with one set of keys opens with the other.
fn opens(sender: &Keys, receiver: &Keys) -> Result<(), Dropped> {
    let mut datagram = [0; 50];
    Sending::new(sender).seal(0, &mut datagram).unwrap();
    Opening::new(receiver, 1).open(0, &mut datagram, 50).map(drop)
}

#[test]
fn both_ends_derive_same_keys() {
    let (a, b) = (pair(1, 2, 5), pair(2, 1, 5));
    for form in FORMS {
        for (offers, cipher) in [
            ([3, 3], CipherKind::Aes256Gcm),
            ([1, 3], CipherKind::ChaCha20Poly1305),
            ([3, 1], CipherKind::ChaCha20Poly1305),
        ] {
            let (ours, theirs) = shake(&a, &b, form, offers).unwrap();
            assert_eq!((ours.cipher, theirs.cipher), (cipher, cipher));
            assert_eq!((ours.our_index, ours.their_index), (0x1111, 0x2222));
            assert_eq!((theirs.our_index, theirs.their_index), (0x2222, 0x1111));
            assert_eq!((ours.sending, ours.receiving), (theirs.receiving, theirs.sending));
            assert_ne!(ours.sending, ours.receiving);
            assert_eq!((opens(&ours, &theirs), opens(&theirs, &ours)), (Ok(()), Ok(())));
            // A reflected datagram does not open.
            assert!(opens(&ours, &ours).is_err());
        }
    }
}

#[test]
fn wrong_keys_fail_handshake() {
    let a = pair(1, 2, 5);
    for form in FORMS {
        // The responder's file names another peer. A stranger has no right mac2, and would be refused even with one.
        let other = pair(2, 3, 5);
        let initiator = begin(&a, form);
        assert!(!other.is_of_the_pair(initiator.bytes()) && other.is_for_us(initiator.bytes()));
        let answer = respond(&other, &initiation(initiator.bytes()), 3, 1, &mut random(1));
        assert_eq!(answer.err(), Some(Refused::Stranger));
        // The initiator has another key for the responder.
        let other = pair(4, 1, 5);
        assert!(!other.is_of_the_pair(initiator.bytes()) && !other.is_for_us(initiator.bytes()));
        let answer = respond(&other, &initiation(initiator.bytes()), 3, 1, &mut random(1));
        assert_eq!(answer.err(), Some(Refused::Sealed));
        // The pre-shared keys differ: mac2 is wrong, and even with a right one the response would not open.
        assert_eq!(shake(&a, &pair(2, 1, 6), form, [3, 3]).err(), Some(Refused::Sealed));
    }
}

#[test]
fn changed_handshake_fails_despite_macs() {
    let (a, b) = (pair(1, 2, 5), pair(2, 1, 5));
    for form in FORMS {
        let mut initiator = begin(&a, form);
        let first = initiator.bytes().to_vec();
        for at in 0..first.len() {
            let mut changed = first.clone();
            changed[at] ^= 1 << (at % 8);
            assert!(!b.is_of_the_pair(&changed), "byte {at}");
            let Some(Message::Initiation(changed)) = parse(&changed) else { continue };
            // Noise does not cover the MACs.
            if at < first.len() - MACS {
                let answer = respond(&b, &changed, 3, 1, &mut random(1)).err();
                assert_eq!(answer, Some(Refused::Sealed), "byte {at}");
            }
        }
        let (answer, responded) = respond(&b, &initiation(&first), 3, 0x2222, &mut random(0x60)).unwrap();
        for at in 0..answer.len() - MACS {
            let mut changed = answer.clone();
            changed[at] ^= 1 << (at % 8);
            assert!(!a.is_of_the_pair(&changed), "byte {at}");
            let Some(Message::Response(changed)) = parse(&changed) else { continue };
            // Only the MACs cover the receiver's index in the header; the keys depend on the other fields.
            if at >= message::RESPONSE_HEADER {
                assert_eq!(initiator.take(&changed).err(), Some(Refused::Sealed), "byte {at}");
            }
        }
        // The initiator still accepts the right response.
        let Answered::Kem(first) = initiator.take(&response(&answer)).unwrap() else { continue };
        let Responded::Kem(second) = responded else { panic!() };
        let flip = |bytes: &[u8], at: usize| {
            let mut changed = bytes.to_vec();
            changed[at] ^= 1 << (at % 8);
            changed
        };
        for at in 0..first.bytes().len() {
            let changed = flip(first.bytes(), at);
            if let Some(Message::KemKey(changed)) = parse(&changed) {
                assert_eq!(second.take(&changed).err(), Some(Refused::Sealed), "byte {at}");
            }
        }
        let (answer, _) = second.take(&kem(first.bytes())).unwrap();
        for at in 0..answer.len() {
            let changed = flip(&answer, at);
            if let Some(Message::KemCiphertext(changed)) = parse(&changed) {
                assert_eq!(first.take(&changed).err(), Some(Refused::Sealed), "byte {at}");
            }
        }
        // Reflected messages are rejected.
        let mut reflected = first.bytes().to_vec();
        reflected[0] = message::KEM_CIPHERTEXT;
        reflected.truncate(1112);
        assert_eq!(first.take(&kem(&reflected)).err(), Some(Refused::Sealed));
    }
}

#[test]
fn downgrade_yields_no_common_keys() {
    let (a, b) = (pair(1, 2, 5), pair(2, 1, 5));
    let mut initiator = begin(&a, Form::Long);
    // The prologue includes the offer.
    let mut worse = initiator.bytes().to_vec();
    worse[3] = 1;
    assert_eq!(respond(&b, &initiation(&worse), 3, 1, &mut random(1)).err(), Some(Refused::Sealed));
    // The keys depend on the cipher and the indices.
    let (answer, responded) = respond(&b, &initiation(initiator.bytes()), 3, 0x2222, &mut random(0x60)).unwrap();
    let Responded::Keys(theirs) = responded else { panic!() };
    let mut worse = answer.clone();
    worse[2] = 0;
    let Answered::Keys(ours) = initiator.take(&response(&worse)).unwrap() else { panic!() };
    assert!(opens(&ours, &theirs).is_err());
    assert!(theirs.receiving != ours.sending && theirs.sending != ours.receiving);
    // A cipher that was not offered is rejected, and so is the other form.
    let mut initiator = Initiator::new(&a, Form::Long, 1, (7, 0), NOW, &mut random(3)).unwrap();
    assert_eq!(initiator.take(&response(&answer)).err(), Some(Refused::NotOffered));
    let short = message::begin_response(Form::Short, CipherKind::ChaCha20Poly1305, 1, 7);
    assert_eq!(initiator.take(&response(&short)).err(), Some(Refused::NotOffered));
}

/// KCI, as Noise defines it: an attacker with the responder's private key can initiate as the peer, but does not get the keys.
#[test]
fn stolen_private_key_lacks_session_keys() {
    use snow::resolvers::CryptoResolver;
    use snow::types::{Cipher, Dh, Hash, Random as Draws};

    /// The peer's public key, whose exchanges use the victim's private key: right for the victim's key, which is `ss`.
    struct Stolen {
        peer: [u8; KEY],
        victim: [u8; KEY],
    }
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
        fn generate(&mut self, _: &mut dyn Draws) -> Result<(), snow::Error> {
            Ok(())
        }
        fn pubkey(&self) -> &[u8] {
            &self.peer
        }
        fn privkey(&self) -> &[u8] {
            &[]
        }
        fn dh(&self, with: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
            let key = PrivateKey::from_private_key(&X25519, &self.victim).unwrap();
            // The attacker can compute the exchange with the victim's own key, but not with an ephemeral one.
            let other = if with[..KEY] == public(&key).unwrap() { &self.peer } else { &with[..KEY] };
            out[..KEY].copy_from_slice(&*super::keys::exchange(&key, other).unwrap());
            Ok(())
        }
    }
    struct Resolver(super::noise::Resolver, std::cell::Cell<u8>);
    impl CryptoResolver for Resolver {
        fn resolve_rng(&self) -> Option<Box<dyn Draws>> {
            self.0.resolve_rng()
        }
        fn resolve_dh(&self, choice: &snow::params::DHChoice) -> Option<Box<dyn Dh>> {
            // snow first requests the static key.
            if self.1.replace(1) == 0 {
                return Some(Box::new(Stolen { peer: public_of(1), victim: [2; KEY] }));
            }
            self.0.resolve_dh(choice)
        }
        fn resolve_hash(&self, choice: &snow::params::HashChoice) -> Option<Box<dyn Hash>> {
            self.0.resolve_hash(choice)
        }
        fn resolve_cipher(&self, choice: &snow::params::CipherChoice) -> Option<Box<dyn Cipher>> {
            self.0.resolve_cipher(choice)
        }
    }

    let victim = pair(2, 1, 5);
    let mut bytes = message::begin_initiation(Form::Short, 3, 0x1111, 0, NOW);
    let prologue = [&b"ethudp secure wire"[..], &[0; 8], &bytes[..20]].concat();
    let ephemeral = zeroize::Zeroizing::new([0x40; KEY]);
    let mut his = snow::Builder::with_resolver(
        super::noise::NAME.parse().unwrap(),
        Box::new(Resolver(super::noise::Resolver::new(ephemeral), 0.into())),
    )
    .local_private_key(&[0; KEY])
    .and_then(|builder| builder.remote_public_key(&victim.public))
    .and_then(|builder| builder.psk(2, &[5; KEY]))
    .and_then(|builder| builder.prologue(&prologue))
    .and_then(snow::Builder::build_initiator)
    .unwrap();
    let end = bytes.len() - MACS;
    his.write_message(&[0; message::FEATURES], &mut bytes[20..end]).unwrap();
    // Without the pre-shared key the initiation does not count.
    put_macs_by_definition(&mut bytes, victim.public, [2; KEY], public_of(1), [0; KEY]);
    assert!(victim.has_head_of_the_pair(&bytes) && !victim.is_of_the_pair(&bytes));
    // With the pre-shared key it counts and is answered.
    put_macs_by_definition(&mut bytes, victim.public, [2; KEY], public_of(1), [5; KEY]);
    assert!(victim.is_of_the_pair(&bytes) && victim.is_for_us(&bytes));
    let (answer, _) = respond(&victim, &initiation(&bytes), 3, 9, &mut random(0x60)).unwrap();
    // But `se` needs the peer's private key.
    assert_eq!(his.read_message(response(&answer).noise(), &mut [0; 100]), Err(snow::Error::Decrypt));
}

/// Writes the MACs by their definition in the specification, with a tunnel identifier of zeros.
fn put_macs_by_definition(
    bytes: &mut [u8],
    receiver: [u8; KEY],
    private: [u8; KEY],
    public: [u8; KEY],
    psk: [u8; KEY],
) {
    use aws_lc_rs::{digest, hmac};
    use std::hash::Hasher;
    let private = PrivateKey::from_private_key(&X25519, &private).unwrap();
    let shared = super::keys::exchange(&private, &public).unwrap();
    let key = |label: &[u8], secret: &[u8]| digest::digest(&digest::SHA256, &[label, &receiver, secret].concat());
    let at = bytes.len() - MACS;
    let mac0 = key(b"ethudp mac0", &[&shared[..], &[0; 8]].concat());
    let word = |at: usize| u64::from_le_bytes(mac0.as_ref()[at..at + 8].try_into().unwrap());
    #[expect(deprecated, reason = "as a hasher for tables; it is SipHash-2-4 with a key")]
    let mut siphash = std::hash::SipHasher::new_with_keys(word(0), word(8));
    siphash.write(&bytes[..32]);
    bytes[at..at + 8].copy_from_slice(&siphash.finish().to_le_bytes());
    let mac2 = key(b"ethudp mac2", &[&shared[..], &[0; 8], &psk].concat());
    for (key, part) in [(key(b"ethudp mac1", &[]), at + 8..at + 16), (mac2, at + 16..at + 32)] {
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()), &bytes[..part.start]);
        bytes[part.clone()].copy_from_slice(&mac.as_ref()[..part.len()]);
    }
}

#[test]
fn both_ends_know_features() {
    let (mut a, b) = (pair(1, 2, 5), pair(2, 1, 5));
    a.features = 0x8000_0001;
    for form in FORMS {
        let (ours, theirs) = shake(&a, &b, form, [3, 3]).unwrap();
        assert_eq!((ours.peer_features, theirs.peer_features), (0, 0x8000_0001), "{form:?}");
        assert!(!Sending::new(&ours).carries_ecn && Sending::new(&theirs).carries_ecn);
    }
}

/// "An attacker who has the X25519 secrets lacks *m*. An attacker who has broken ML-KEM lacks *k1* and *k2*."
#[test]
fn session_keys_bind_whole_transcript() {
    let agreed = Agreed { cipher: CipherKind::Aes256Gcm, initiator: 1, responder: 2 };
    let keys = |hash, split, agreed, public: &[u8], ciphertext: &[u8], m, initiator| {
        Bare::from_parts(hash, split, agreed).keys(public, ciphertext, &m, initiator).unwrap()
    };
    let right = keys([1; 32], [2; 64], agreed, b"K", b"C", [3; 32], true);
    let receiver = |hash, split, agreed, public: &[u8], ciphertext: &[u8], m| {
        let keys = keys(hash, split, agreed, public, ciphertext, m, false);
        // The indices are checked first, so they must be right.
        let (our_index, their_index) = (right.their_index, right.our_index);
        let (sending, receiving, cipher) = (keys.sending, keys.receiving, right.cipher);
        Keys { sending, receiving, cipher, our_index, their_index, peer_features: 0 }
    };
    assert_eq!(opens(&right, &receiver([1; 32], [2; 64], agreed, b"K", b"C", [3; 32])), Ok(()));
    let (mut k1, mut k2, mut m) = ([2; 64], [2; 64], [3; 32]);
    (k1[0], k2[63], m[31]) = (9, 9, 9);
    for (what, other) in [
        ("k1", receiver([1; 32], k1, agreed, b"K", b"C", [3; 32])),
        ("k2", receiver([1; 32], k2, agreed, b"K", b"C", [3; 32])),
        ("m", receiver([1; 32], [2; 64], agreed, b"K", b"C", m)),
        ("h", receiver([9; 32], [2; 64], agreed, b"K", b"C", [3; 32])),
        ("K", receiver([1; 32], [2; 64], agreed, b"X", b"C", [3; 32])),
        ("C", receiver([1; 32], [2; 64], agreed, b"K", b"X", [3; 32])),
        (
            "cipher",
            receiver([1; 32], [2; 64], Agreed { cipher: CipherKind::ChaCha20Poly1305, ..agreed }, b"K", b"C", [3; 32]),
        ),
        ("initiator", receiver([1; 32], [2; 64], Agreed { initiator: 9, ..agreed }, b"K", b"C", [3; 32])),
        ("responder", receiver([1; 32], [2; 64], Agreed { responder: 9, ..agreed }, b"K", b"C", [3; 32])),
    ] {
        assert_eq!(opens(&right, &other), Err(Dropped::Forged), "{what}");
    }
}

/// FIPS 203, 7.2: a coefficient of the key that is not reduced.
#[test]
fn invalid_kem_key_is_refused() {
    use aws_lc_rs::kem::{EncapsulationKey, ML_KEM_768};
    let mut key = [0; message::PUBLIC];
    let refused = |key: &[u8]| EncapsulationKey::new(&ML_KEM_768, key).map_or(true, |key| key.encapsulate().is_err());
    assert!(!refused(&key));
    // 3329 in the first 12 bits.
    (key[0], key[1]) = (0x01, 0x0d);
    assert!(refused(&key));
    (key[0], key[1]) = (0x00, 0x0d);
    assert!(!refused(&key));
}
