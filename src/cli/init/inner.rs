//! Addresses of the two TAP interfaces.

use std::net::{IpAddr, Ipv4Addr};

use crate::tunnel::address;

/// Whether each of two addresses is in the network of the other.
pub fn together(one: (IpAddr, u8), other: (IpAddr, u8)) -> bool {
    let network = |ip: IpAddr, prefix: u8| match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)).checked_shr(32 - u32::from(prefix)),
        IpAddr::V6(ip) => Some(u128::from(ip).checked_shr(128 - u32::from(prefix)).unwrap_or(0)),
    };
    let same = |prefix| network(one.0, prefix) == network(other.0, prefix);
    one.0.is_ipv4() == other.0.is_ipv4() && same(one.1) && same(other.1)
}

/// Parses `ADDRESS/PREFIX` of a host.
pub fn parse(text: &str) -> Result<(IpAddr, u8), String> {
    let form = "must be ADDRESS/PREFIX, as in 10.8.0.1/24";
    let (ip, prefix) = text.split_once('/').ok_or_else(|| format!("--address {text:?}: {form}"))?;
    let ip = ip.parse().map_err(|_| format!("--address {text:?}: {ip:?} is not an IP address; {form}"))?;
    let prefix = address::prefix(ip, prefix).map_err(|error| format!("--address {text:?}: {error}"))?;
    if prefix == 0 {
        return Err(format!(
            "--address {text:?}: prefix length 0 routes all traffic of this host into the tunnel; must be longer, as in /24"
        ));
    }
    match no_host((ip, prefix)) {
        Some(what) => Err(format!("--address {text:?}: is {what}; must be the address of a host")),
        None => Ok((ip, prefix)),
    }
}

/// Kind of an address that no interface can have.
fn no_host((ip, prefix): (IpAddr, u8)) -> Option<&'static str> {
    let host_bits = |ip: Ipv4Addr| u32::from(ip) & u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    match ip {
        ip if ip.is_unspecified() => Some("the unspecified address"),
        ip if ip.is_multicast() => Some("a multicast address"),
        ip if ip.is_loopback() => Some("a loopback address"),
        // RFC 3021: a network of two addresses has neither of both.
        IpAddr::V4(ip) if prefix < 31 && host_bits(ip) == 0 => Some("the address of the network itself"),
        IpAddr::V4(ip) if prefix < 31 && host_bits(ip) == host_bits(Ipv4Addr::BROADCAST) => {
            Some("the broadcast address of the network")
        }
        _ => None,
    }
}

/// Neighbour of this address in its network: the next host address, or the previous one.
pub fn neighbour((ip, prefix): (IpAddr, u8)) -> Option<(IpAddr, u8)> {
    let host = |address: u128, bits: u32| {
        let all = 1_u128.checked_shl(bits).map_or(u128::MAX, |size| size - 1);
        let part = address & all;
        // The first and the last address of a larger network belong to no host.
        let (least, most) = if bits > 1 { (1, all - 1) } else { (0, all) };
        let other = if part < most { part + 1 } else { part.checked_sub(1)? };
        (bits > 0 && (least..=most).contains(&other)).then_some(address & !all | other)
    };
    let ip = match ip {
        IpAddr::V4(ip) => u32::try_from(host(u32::from(ip).into(), 32 - u32::from(prefix))?).ok()?.to_be_bytes().into(),
        IpAddr::V6(ip) => host(ip.into(), 128 - u32::from(prefix))?.to_be_bytes().into(),
    };
    Some((ip, prefix))
}

/// Whether a whole network is private (RFC 1918, RFC 4193) or link-local (RFC 3927, RFC 4291). Only such a network is taken from
/// the peer's line. Traffic to any other network goes into the tunnel only at the user's request.
pub fn is_private((ip, prefix): (IpAddr, u8)) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let least = match ip.octets()[0] {
                10 => 8,
                172 => 12,
                _ => 16,
            };
            (ip.is_private() || ip.is_link_local()) && prefix >= least
        }
        IpAddr::V6(ip) => ip.is_unique_local() && prefix >= 7 || ip.is_unicast_link_local() && prefix >= 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_gets_neighbouring_address() {
        for (own, other) in [
            ("10.8.0.1/24", Some("10.8.0.2/24")),
            ("10.8.0.254/24", Some("10.8.0.253/24")),
            ("10.8.0.0/31", Some("10.8.0.1/31")),
            ("10.8.0.1/31", Some("10.8.0.0/31")),
            ("10.8.0.1/30", Some("10.8.0.2/30")),
            ("10.8.0.1/32", None),
            ("fd00::1/64", Some("fd00::2/64")),
            ("fd00::/127", Some("fd00::1/127")),
        ] {
            let found = neighbour(parse(own).unwrap()).map(|(ip, prefix)| format!("{ip}/{prefix}"));
            assert_eq!(found.as_deref(), other, "{own}");
        }
    }

    #[test]
    fn only_private_networks_are_taken_over() {
        for (network, private) in [
            ("10.8.0.1/24", true),
            ("10.0.0.1/8", true),
            ("10.0.0.1/7", false),
            ("172.16.0.1/12", true),
            ("172.16.0.1/11", false),
            ("172.32.0.1/24", false),
            ("192.168.255.1/16", true),
            ("192.168.1.1/15", false),
            ("169.254.0.1/16", true),
            ("198.51.100.1/24", false),
            ("fd00::1/7", true),
            ("fd00::1/6", false),
            ("fe80::1/10", true),
            ("fe80::1/9", false),
            ("2001:db8::1/64", false),
        ] {
            assert_eq!(is_private(parse(network).unwrap()), private, "{network}");
        }
    }

    #[test]
    fn invalid_interface_addresses_are_refused() {
        for (text, words) in [
            ("10.8.0.1", "must be ADDRESS/PREFIX"),
            ("10.8.0.300/24", "\"10.8.0.300\" is not an IP address"),
            ("10.8.0.1/33", "must be a prefix length"),
            ("10.8.0.0/24", "is the address of the network itself"),
            ("10.8.0.255/24", "is the broadcast address"),
            ("10.0.0.1/0", "prefix length 0 routes all traffic"),
            ("fd00::1/0", "prefix length 0 routes all traffic"),
            ("10.8.0.0/31", ""),
            ("10.8.0.255/32", ""),
            ("0.0.0.0/24", "is the unspecified address"),
            ("::/64", "is the unspecified address"),
            ("224.0.0.5/24", "is a multicast address"),
            ("ff02::1/64", "is a multicast address"),
            ("127.0.0.2/8", "is a loopback address"),
            ("fd00::/64", ""),
        ] {
            match parse(text) {
                Ok(_) => assert!(words.is_empty(), "{text}"),
                Err(error) => assert!(!words.is_empty() && error.contains(words), "{text}: {error}"),
            }
        }
    }

    #[test]
    fn addresses_share_both_networks() {
        for (one, other, both) in [
            ("10.8.0.1/24", "10.8.0.2/24", true),
            ("10.8.0.1/24", "10.8.1.2/24", false),
            ("10.8.0.1/16", "10.8.1.2/24", false),
            ("10.8.0.1/24", "fd00::1/64", false),
            ("fd00::1/64", "fd00::2:1/64", true),
            ("fd00::1/64", "fd01::1/64", false),
            ("1.0.0.1/1", "9.0.0.1/1", true),
            ("fd00::1/1", "fd01::1/1", true),
            ("10.8.0.1/32", "10.8.0.2/32", false),
        ] {
            let [one, other] = [one, other].map(|text| parse(text).unwrap());
            assert_eq!((together(one, other), together(other, one)), (both, both), "{one:?} {other:?}");
        }
    }
}
