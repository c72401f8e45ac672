//! Keys of the secure wire: their text in the format of `wg` (base64 of 32 bytes), checks of a peer's key, and the fingerprint of a
//! pair.

use base64ct::{Base64, Encoding};
use curve25519_dalek::MontgomeryPoint;
use privsep::ipc::Secret;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Public key.
pub type Public = [u8; 32];
/// Private or pre-shared key, wiped on drop.
pub type Private = Zeroizing<[u8; 32]>;

/// Length of a key in text, in characters.
const TEXT: usize = 44;
/// Groups of digits in a fingerprint. An attacker between the ends needs a key for each end so that both ends get the same
/// fingerprint. 50 digits are 166 bits, so the search takes 2^83 attempts.
const GROUPS: usize = 10;

/// New random bytes of the kernel.
///
/// # Errors
/// When the kernel has no randomness.
pub fn random() -> Result<Private, getrandom::Error> {
    let mut key = Private::default();
    getrandom::fill(&mut *key)?;
    Ok(key)
}

/// New private key, clamped as in RFC 7748, as `wg` does.
///
/// # Errors
/// When the kernel has no randomness.
pub fn new_private() -> Result<Private, getrandom::Error> {
    let mut key = random()?;
    key[0] &= 0xf8;
    key[31] = key[31] & 0x7f | 0x40;
    Ok(key)
}

/// Public key of a private key.
pub fn public(private: &[u8; 32]) -> Public {
    MontgomeryPoint::mul_base_clamped(*private).to_bytes()
}

/// Public key of a private key in a [`Secret`]; `None` if its length is wrong.
pub fn public_of(private: &Secret) -> Option<Public> {
    <[u8; 32]>::try_from(private.expose()).ok().map(|private| public(&Zeroizing::new(private)))
}

/// Text of a key.
pub fn text(key: &[u8; 32]) -> Zeroizing<String> {
    Zeroizing::new(Base64::encode_string(key))
}

/// Parses a key. White space around it is ignored. An error does not quote the text, which may be a secret.
///
/// # Errors
/// Message with `what` as the name.
pub fn parse(what: &str, text: &[u8]) -> Result<Private, String> {
    parse_as(what, text, "the output of `ethudp genkey` or `wg genkey`")
}

/// Parses a key; `makers` names the commands that print such keys.
fn parse_as(what: &str, text: &[u8], makers: &str) -> Result<Private, String> {
    let right = format!("must be 32 bytes in base64, 44 characters: {makers}");
    let text = text.trim_ascii();
    if text.is_empty() {
        return Err(format!("{what}: empty; {right}"));
    }
    if text.len() != TEXT {
        return Err(format!("{what}: {} characters; {right}", text.len()));
    }
    let mut key = Private::default();
    let length = Base64::decode(text, &mut *key).map_or(0, <[u8]>::len);
    if length == key.len() { Ok(key) } else { Err(format!("{what}: not base64 of 32 bytes; {right}")) }
}

/// Parses a peer's public key.
///
/// # Errors
/// Message with the fault, the value, and the right form.
pub fn parse_public(what: &str, text: &str) -> Result<Public, String> {
    let key =
        parse_as(&format!("{what} = {text:?}"), text.as_bytes(), "the output of `ethudp pubkey` at the other end")?;
    if !is_canonical(&key) {
        return Err(format!(
            "{what} = {text:?}: not the encoding of a public key; must be the output of `ethudp pubkey` at the other end"
        ));
    }
    Ok(*key)
}

/// Whether this is the canonical encoding of its point: less than 2^255 - 19, little-endian.
fn is_canonical(key: &Public) -> bool {
    let greatest = key[31] == 0x7f && key[1..31].iter().all(|&byte| byte == 0xff);
    key[31] < 0x80 && !(greatest && key[0] >= 0xed)
}

/// Refuses this end's private key as the peer's public key. The message does not quote it.
///
/// # Errors
/// When the two are equal.
pub fn check_not_private(what: &str, private: &[u8; 32], peer: &str) -> Result<(), String> {
    match parse(what, peer.as_bytes()) {
        Ok(key) if *key == *private => Err(format!(
            "{what}: contains this end's private key, which is no longer secret. Create new keys with `ethudp genkey` or \
             `ethudp init`, and put the output of `ethudp pubkey` at the other end here"
        )),
        _ => Ok(()),
    }
}

/// Refuses a peer's key that no other end can have.
///
/// # Errors
/// Message with the fault, the value, and the right form.
pub fn check_peer(what: &str, private: &[u8; 32], peer: &Public) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("{what} = {:?}: {why}", *text(peer)));
    if public(private) == *peer {
        return wrong("this end's own public key; must be the key of the other end");
    }
    // RFC 7748, section 6.1: with a point of small order, everyone knows the result of the exchange.
    let exchange = Zeroizing::new(MontgomeryPoint(*peer).mul_clamped(*private).to_bytes());
    if *exchange == [0; 32] {
        return wrong("insecure public key (all-zero secret); must be the output of `ethudp pubkey` at the other end");
    }
    Ok(())
}

/// Refuses the pre-shared key of zeros, which stands for none.
///
/// # Errors
/// Message with `what` as the name.
pub fn check_psk(what: &str, psk: &[u8; 32]) -> Result<(), String> {
    if *psk == [0; 32] { Err(format!("{what}: all zeros; must be the output of `ethudp genpsk`")) } else { Ok(()) }
}

/// Copy of a key as a secret for the worker.
pub fn secret(key: &[u8; 32]) -> Secret {
    Secret::new(key.to_vec())
}

/// Fingerprint of a key pair, the same at both ends: ten groups of five digits, which two people can compare by voice.
pub fn fingerprint(one: &Public, other: &Public) -> String {
    let (less, greater) = if one < other { (one, other) } else { (other, one) };
    let hash = Sha256::new().chain_update(b"ethudp fingerprint 1").chain_update(less).chain_update(greater).finalize();
    let group =
        |bytes: &[u8]| format!("{:05}", bytes.iter().fold(0, |sum, &byte| sum << 8 | u32::from(byte)) % 100_000);
    hash.chunks(3).take(GROUPS).map(group).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> [u8; 32] {
        std::array::from_fn(|index| u8::from_str_radix(&text[2 * index..2 * index + 2], 16).unwrap())
    }

    #[test]
    fn public_keys_match_rfc_7748() {
        // Section 6.1.
        for (private, expected) in [
            (
                "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
                "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
            ),
            (
                "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
                "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
            ),
        ] {
            assert_eq!(public(&hex(private)), hex(expected));
        }
    }

    #[test]
    fn key_text_is_canonical() {
        let key = new_private().unwrap();
        let written = text(&key);
        assert_eq!(written.len(), TEXT);
        assert_eq!(*parse("key", written.as_bytes()).unwrap(), *key);
        assert_eq!(*parse("key", format!(" {}\r\n", *written).as_bytes()).unwrap(), *key);
        // The two low bits of the last character before the padding must be zero.
        let other = written[..42].to_owned() + "B=";
        for (bad, words) in [
            ("", ": empty"),
            ("abc", ": 3 characters"),
            (&other, "not base64"),
            (&written.replace('=', "A"), "not base64"),
            (&"-".repeat(44), "not base64"),
        ] {
            let error = parse("key", bad.as_bytes()).unwrap_err();
            assert!(error.contains(words) && (bad.is_empty() || !error.contains(&written[..42])), "{error}");
        }
    }

    #[test]
    fn invalid_peer_keys_are_refused() {
        let private = new_private().unwrap();
        let own = public(&private);
        assert!(check_peer("peer", &private, &own).unwrap_err().contains("this end's own public key"));
        let other = public(&new_private().unwrap());
        assert_eq!(check_peer("peer", &private, &other), Ok(()));
        let burnt = check_not_private("peer", &private, &text(&private)).unwrap_err();
        assert!(burnt.contains("no longer secret") && !burnt.contains(text(&private).as_str()), "{burnt}");
        assert_eq!(check_not_private("peer", &private, &text(&other)), Ok(()));
        let mut small = vec![[0; 32], std::array::from_fn(|index| u8::from(index == 0))];
        small.push(hex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"));
        small.push(hex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"));
        small.push(hex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"));
        for point in small {
            assert!(check_peer("peer", &private, &point).unwrap_err().contains("all-zero secret"), "{point:?}");
            assert!(is_canonical(&point));
        }
        for least in 0xed..=0xff {
            let mut point = [0xff; 32];
            (point[0], point[31]) = (least, 0x7f);
            assert!(parse_public("peer", &text(&point)).unwrap_err().contains(": not the encoding"));
        }
        let mut high = other;
        high[31] |= 0x80;
        assert!(parse_public("peer", &text(&high)).is_err() && parse_public("peer", &text(&other)).is_ok());
    }

    #[test]
    fn fingerprint_is_unique_to_a_pair() {
        let [a, b, c] = [1, 2, 3].map(|byte| public(&[byte; 32]));
        assert_eq!(fingerprint(&a, &b), fingerprint(&b, &a));
        assert_ne!(fingerprint(&a, &b), fingerprint(&a, &c));
        let groups: Vec<_> = fingerprint(&a, &b).split(' ').map(str::len).collect();
        assert_eq!(groups, [5; GROUPS]);
    }
}
