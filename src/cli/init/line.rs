//! Line of one end for the other. It has no secret and no character that a shell interprets: `ethudp2:` and a form in base64url,
//! whose checksum detects a line that was cut or changed.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | local side: 0 TAP, 1 bridge or interface |
//! | 32 | X25519 public key |
//! | 8 | tunnel identifier, zeros for none |
//! | 4 | receiver index of initiations to this end: its slot in the upper 12 bits, zeros below |
//! | 1, 0 or 4 or 16, 1 | length of the first inner address, the address, prefix length |
//! | 1, length | length of the endpoint, the endpoint `HOST:PORT` |
//! | 1, 4 or 16, 1, each | other inner addresses, at most 7 |
//! | 4 | first bytes of SHA-256(`ethudp line 2` ‖ all bytes before) |

use std::fmt;
use std::net::IpAddr;

use base64ct::{Base64UrlUnpadded, Encoding};
use sha2::{Digest, Sha256};

use crate::tunnel::identifier::Identifier;
use crate::tunnel::keys::Public;
use crate::tunnel::{Endpoint, address, keys};

/// Prefix of each line of this version.
pub const BEGIN: &str = "ethudp2:";
/// Prefix of lines of older releases, which lack tunnel identifier and receiver index.
pub const OLDER: &str = "ethudp1:";
/// Longest line in bytes: longer than the base64 text of a form with an endpoint of 255 bytes and all addresses.
const LONGEST: usize = 640;
/// Most addresses in a line.
pub const ADDRESSES: usize = 8;
/// Description of a valid line.
pub const RIGHT: &str = "must be the whole line that `ethudp init` printed at the other end";
/// Bytes of the checksum.
const CHECKSUM: usize = 4;
/// Prefix of the form in the input of the checksum.
const LABEL: &[u8] = b"ethudp line 2";
/// Prefix in the checksum of an older line.
const OLDER_LABEL: &[u8] = b"ethudp line 1";
/// Bits of a receiver index below the slot.
const SLOT_SHIFT: u32 = 20;

/// Line of one end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Whether the local side joins a bridge or an interface, so that the other end's cannot be guessed.
    pub joins: bool,
    /// Public key of this end.
    pub key: Public,
    /// Tunnel identifier.
    pub tunnel: Identifier,
    /// Slot of the tunnel at this end's port; 0 for none.
    pub slot: u16,
    /// First [`ADDRESSES`] addresses of the TAP interface.
    pub inner: Vec<(IpAddr, u8)>,
    /// Address at which the other end reaches this one.
    pub endpoint: Option<Endpoint>,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut form = vec![u8::from(self.joins)];
        form.extend(self.key);
        form.extend(self.tunnel);
        form.extend((u32::from(self.slot) << SLOT_SHIFT).to_be_bytes());
        let address = |(ip, prefix): &(IpAddr, u8)| match ip {
            IpAddr::V4(ip) => [&[4], &ip.octets()[..], &[*prefix]].concat(),
            IpAddr::V6(ip) => [&[16], &ip.octets()[..], &[*prefix]].concat(),
        };
        form.extend(self.inner.first().map_or_else(|| vec![0, 0], address));
        let endpoint = self.endpoint.as_ref().map(Endpoint::to_string).unwrap_or_default();
        form.push(u8::try_from(endpoint.len()).map_err(|_| fmt::Error)?);
        form.extend(endpoint.bytes());
        form.extend(self.inner.iter().skip(1).flat_map(address));
        f.write_str(&encode(&form))
    }
}

/// Line of a form, with checksum.
pub fn encode(form: &[u8]) -> String {
    let form = [form, &checksum(LABEL, form)].concat();
    BEGIN.to_owned() + &Base64UrlUnpadded::encode_string(&form)
}

fn checksum(label: &[u8], form: &[u8]) -> [u8; CHECKSUM] {
    let hash = Sha256::new().chain_update(label).chain_update(form).finalize();
    std::array::from_fn(|index| hash[index])
}

/// Parses a line. White space in it is ignored.
///
/// # Errors
/// Message with the fault and the right form.
pub fn parse(text: &str) -> Result<Line, String> {
    let text: String = text.split_whitespace().collect();
    // No end prints a line of this length.
    if text.len() > LONGEST {
        let begin: String = text.chars().take(40).collect();
        return Err(format!("--peer {begin:?}...: too long ({} bytes); {RIGHT}", text.len()));
    }
    let Some(form) = text.strip_prefix(BEGIN) else {
        if text.starts_with(OLDER) {
            return Err(older_release(&text));
        }
        let of_another = text.split_once(':').is_some_and(|(begin, _)| begin.starts_with("ethudp"));
        let version = if of_another { "line of another version of ethudp" } else { "not a line of `ethudp init`" };
        return Err(format!("--peer {text:?}: {version}; {RIGHT}"));
    };
    let cut = || format!("--peer {text:?}: cut or changed (wrong checksum); {RIGHT}");
    let form = decode(LABEL, form).ok_or_else(cut)?;
    // An attacker can compute the checksum of a forged line.
    read(&form).ok_or_else(|| format!("--peer {text:?}: invalid contents; {RIGHT}"))
}

/// Advice for a line of an older release, or for its beginning.
pub fn older_release(text: &str) -> String {
    format!(
        "--peer {text:?}: line of an older ethudp; install this release at the other end, run `ethudp init` there again, \
         and use the new line"
    )
}

/// Parses the line in a comment of a file that `ethudp init` wrote, in this release or an older one.
pub fn noted(text: &str) -> Option<Line> {
    let older = || {
        let form = decode(OLDER_LABEL, text.strip_prefix(OLDER)?)?;
        let (head, rest) = form.split_at_checked(33)?;
        read(&[head, &[0; 12], rest].concat())
    };
    parse(text).ok().or_else(older)
}

/// Form in a text after the prefix, if its checksum is right.
fn decode(label: &[u8], text: &str) -> Option<Vec<u8>> {
    let mut form = Base64UrlUnpadded::decode_vec(text).ok()?;
    let sum = form.split_off(form.len().checked_sub(CHECKSUM)?);
    (checksum(label, &form)[..] == sum).then_some(form)
}

fn read(form: &[u8]) -> Option<Line> {
    let (&[joins @ (0 | 1)], rest) = form.split_first_chunk::<1>()? else { return None };
    let (key, rest) = rest.split_first_chunk::<32>()?;
    keys::parse_public("", &keys::text(key)).ok()?;
    let (tunnel, rest) = rest.split_first_chunk::<8>()?;
    let (index, rest) = rest.split_first_chunk::<4>()?;
    let index = u32::from_be_bytes(*index);
    let slot = u16::try_from(index >> SLOT_SHIFT).ok().filter(|&slot| u32::from(slot) << SLOT_SHIFT == index)?;
    let (mut inner, rest) = match rest {
        [0, 0, rest @ ..] => (Vec::new(), rest),
        _ => inner(rest).map(|(inner, rest)| (vec![inner], rest))?,
    };
    let (&[length], rest) = rest.split_first_chunk::<1>()?;
    let (text, mut rest) = rest.split_at_checked(length.into())?;
    let endpoint = match std::str::from_utf8(text).ok()? {
        "" => None,
        text => Some(endpoint(text).ok().filter(|endpoint| endpoint.to_string() == text)?),
    };
    while !rest.is_empty() {
        let (another, left) = self::inner(rest)?;
        let twice = inner.iter().any(|(ip, _)| *ip == another.0);
        if twice || inner.is_empty() || inner.len() == ADDRESSES {
            return None;
        }
        inner.push(another);
        rest = left;
    }
    // The endpoint would be looked for inside the tunnel.
    let inside = |endpoint: &Endpoint| inner.iter().any(|(ip, _)| endpoint.host.parse() == Ok(*ip));
    if endpoint.as_ref().is_some_and(inside) {
        return None;
    }
    Some(Line { joins: joins == 1, key: *key, tunnel: *tunnel, slot, inner, endpoint })
}

/// One address with a prefix length above 0, and the remaining bytes.
fn inner(form: &[u8]) -> Option<((IpAddr, u8), &[u8])> {
    let (ip, rest) = match form {
        [4, rest @ ..] => rest.split_first_chunk::<4>().map(|(ip, rest)| (IpAddr::from(*ip), rest))?,
        [16, rest @ ..] => rest.split_first_chunk::<16>().map(|(ip, rest)| (IpAddr::from(*ip), rest))?,
        _ => return None,
    };
    let (&[prefix], rest) = rest.split_first_chunk::<1>()?;
    let prefix = address::prefix(ip, &prefix.to_string()).ok().filter(|&prefix| prefix > 0)?;
    Some(((ip, prefix), rest))
}

/// Parses an endpoint that has only characters of addresses and names. It is written to a file and to terminals.
pub fn endpoint(text: &str) -> Result<Endpoint, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".:-_%[]".contains(&byte);
    if text.len() > 255 || !text.bytes().all(plain) {
        return Err(format!("endpoint {text:?}: {}", address::FORM));
    }
    let endpoint = address::endpoint("endpoint", text)?;
    // In a file, these hosts stand for a learned address.
    let learned = endpoint.host.parse().is_ok_and(|address: IpAddr| address.is_unspecified());
    if learned || endpoint.host == "any" {
        return Err(format!(
            "endpoint {text:?}: unspecified address; must be an address or a name of this end that the other end can reach"
        ));
    }
    let host = endpoint.host.trim_end_matches('.').to_ascii_lowercase();
    let named = ["localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"].contains(&host.as_str());
    if named || host.ends_with(".localhost") || host.parse().is_ok_and(|address: IpAddr| address.is_loopback()) {
        return Err(format!(
            "endpoint {text:?}: loopback address; must be an address or a name of this end that the other end can reach"
        ));
    }
    Ok(endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(inner: Option<&str>, endpoint: Option<&str>) -> Line {
        Line {
            joins: inner.is_none(),
            key: keys::public(&[7; 32]),
            tunnel: [9; 8],
            slot: 4095,
            inner: inner.map(|ip| (ip.parse().unwrap(), 24)).into_iter().collect(),
            endpoint: endpoint.map(|text| super::endpoint(text).unwrap()),
        }
    }

    #[test]
    fn line_round_trips_as_one_shell_word() {
        for inner in [None, Some("10.8.0.1"), Some("fd00::1")] {
            for endpoint in [None, Some("198.51.100.7:6000"), Some("[2001:db8::1]:1"), Some("site-a.example:65535")] {
                let (line, text) = (line(inner, endpoint), line(inner, endpoint).to_string());
                assert_eq!(parse(&text), Ok(line.clone()), "{text}");
                assert_eq!(parse(&format!(" {}\n  {}\r\n", &text[..40], &text[40..])), Ok(line));
                assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":-_".contains(&byte)), "{text}");
            }
        }
    }

    #[test]
    fn damaged_line_is_detected() {
        let text = line(Some("10.8.0.1"), Some("198.51.100.7:6000")).to_string();
        for length in 0..text.len() {
            assert!(parse(&text[..length]).is_err(), "{length}");
        }
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let error = parse(&String::from_utf8(changed).unwrap()).unwrap_err();
            assert!(error.contains("must be the whole line"), "{at}: {error}");
        }
        assert!(parse(&text.replace("ethudp2", "ethudp3")).unwrap_err().contains("line of another version"));
        assert!(parse(&(text.clone() + "AAAA")).is_err());
        let long = parse(&(text + &"A".repeat(LONGEST))).unwrap_err();
        assert!(long.contains("too long (") && long.len() < 200, "{long}");
    }

    #[test]
    fn impossible_line_is_refused() {
        let good = line(Some("10.8.0.1"), Some("a:1"));
        let form = Base64UrlUnpadded::decode_vec(&good.to_string()[BEGIN.len()..]).unwrap();
        let form = &form[..form.len() - CHECKSUM];
        assert_eq!(read(form), Some(good));
        for length in 0..form.len() {
            assert_eq!(read(&form[..length]), None);
        }
        for (at, byte) in
            [(0, 2), (32, 0xff), (42, 0xff), (44, 1), (45, 5), (50, 33), (51, 4), (52, b'\n'), (52, b'"'), (54, b'0')]
        {
            let mut changed = form.to_vec();
            changed[at] = byte;
            assert_eq!(read(&changed), None, "byte {at}");
        }
        // Other spellings are refused as well: a prefix of no address, another form of port and host.
        let with = |inner: &[u8], endpoint: &str| {
            let length = u8::try_from(endpoint.len()).unwrap();
            [&form[..45], inner, &[length], endpoint.as_bytes()].concat()
        };
        assert!(read(&with(&[0, 0], "a:1")).is_some());
        for other in [with(&[0, 24], "a:1"), with(&[0, 0], "a:01"), with(&[0, 0], "[a]:1")] {
            assert_eq!(read(&other), None, "{other:?}");
        }
    }

    #[test]
    fn old_line_is_refused_but_read_from_file() {
        // Line of key [7; 32], address 10.8.0.1/24 and endpoint 198.51.100.7:6000.
        let good = line(Some("10.8.0.1"), Some("198.51.100.7:6000"));
        let form = Base64UrlUnpadded::decode_vec(&good.to_string()[BEGIN.len()..]).unwrap();
        let form = [&form[..33], &form[45..form.len() - CHECKSUM]].concat();
        let whole = [&form[..], &checksum(OLDER_LABEL, &form)].concat();
        let older = OLDER.to_owned() + &Base64UrlUnpadded::encode_string(&whole);
        let error = parse(&older).unwrap_err();
        assert!(error.contains("line of an older ethudp; install this release at the other end"), "{error}");
        assert_eq!(noted(&older), Some(Line { tunnel: [0; 8], slot: 0, ..good.clone() }));
        assert_eq!((noted(&good.to_string()), noted(&older[..older.len() - 1])), (Some(good), None));
    }

    #[test]
    fn line_holds_several_addresses() {
        let mut line = line(Some("10.8.0.1"), Some("198.51.100.7:6000"));
        for number in 1..ADDRESSES {
            line.inner.push((format!("fd00::{number}").parse().unwrap(), 64));
            assert_eq!(parse(&line.to_string()), Ok(line.clone()), "{number}");
        }
        line.inner.push(("10.9.0.1".parse().unwrap(), 24));
        assert!(parse(&line.to_string()).is_err());
        for inner in [vec![("10.8.0.1", 24), ("10.8.0.1", 25)], vec![("10.8.0.1", 0)], vec![("198.51.100.7", 24)]] {
            line.inner = inner.into_iter().map(|(ip, prefix)| (ip.parse().unwrap(), prefix)).collect();
            assert!(parse(&line.to_string()).unwrap_err().contains("invalid contents"), "{line:?}");
        }
    }

    #[test]
    fn loopback_endpoint_is_refused() {
        for host in ["localhost", "LocalHost.", "a.localhost", "127.0.0.1", "127.1.2.3", "[::1]", "ip6-localhost"] {
            assert!(endpoint(&format!("{host}:6000")).unwrap_err().contains("loopback address"), "{host}");
        }
        assert!(endpoint("localhost.example:6000").is_ok());
    }

    #[test]
    fn wildcard_endpoint_is_refused() {
        for nowhere in ["0.0.0.0:6000", "[::]:6000", "any:6000"] {
            assert!(endpoint(nowhere).unwrap_err().contains("unspecified address"), "{nowhere}");
        }
        assert!(endpoint("anybody:6000").is_ok());
    }
}
