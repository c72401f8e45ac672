//! Addresses as users write them: endpoints of a path, and prefix lengths.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use privsep::ipc::MAX_NAME;

/// Remote end of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remote {
    /// A fixed peer.
    Fixed(Endpoint),
    /// A peer behind NAT, whose address is learned within limits.
    Learned {
        /// The only host that may be learned; `None` for any.
        host: Option<String>,
        /// The only port that may be learned; `None` for any.
        port: Option<u16>,
    },
}

impl Remote {
    /// Remote by EthUDP's rule: the address 0.0.0.0 or `::`, or port 0, stands for a peer behind NAT.
    pub fn classic(host: &str, port: u16) -> Self {
        let any_host = host.parse().is_ok_and(|address: IpAddr| address.is_unspecified());
        if any_host || port == 0 {
            Self::Learned { host: (!any_host).then(|| host.to_owned()), port: (port != 0).then_some(port) }
        } else {
            Self::Fixed(Endpoint { host: host.to_owned(), port })
        }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(endpoint) => endpoint.fmt(f),
            Self::Learned { host: None, port: None } => f.write_str("any"),
            Self::Learned { host, port } => {
                let host = host.clone().unwrap_or_else(|| "any".into());
                Endpoint { host, port: port.unwrap_or(0) }.fmt(f)
            }
        }
    }
}

/// Host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Address or name.
    pub host: String,
    /// UDP port; 0 only for a learned remote.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Parses a UDP port.
pub fn port(what: &str, value: &str) -> Result<u16, String> {
    match value.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("{what} {value:?}: must be a number from 1 to 65535")),
    }
}

/// Refuses a malformed address. The resolver would take it for a name and look it up.
pub fn host(what: &str, host: &str) -> Result<(), String> {
    let numeric = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let address = host.split_once('%').map_or(host, |(address, _zone)| address);
    if (numeric || host.contains(':')) && address.parse::<IpAddr>().is_err() {
        let family = if numeric { "IPv4" } else { "IPv6" };
        return Err(format!("{what} {host:?}: not an {family} address; must be an IP address or a name that resolves"));
    }
    if host.len() > MAX_NAME {
        return Err(format!("{what} {host:?}: {} bytes; a name has at most {MAX_NAME}", host.len()));
    }
    Ok(())
}

/// Description of a valid endpoint.
pub const FORM: &str = "must be ADDRESS:PORT, [IPV6-ADDRESS]:PORT or NAME:PORT";

/// Splits `HOST:PORT` or `[IPV6]:PORT`.
fn split<'a>(what: &str, value: &'a str) -> Result<(&'a str, &'a str), String> {
    let form = || format!("{what} {value:?}: {FORM}");
    let (host, number) = value.rsplit_once(':').ok_or_else(form)?;
    let host = match host.strip_prefix('[') {
        Some(host) => host.strip_suffix(']').ok_or_else(form)?,
        None if host.contains(':') => return Err(form()),
        None => host,
    };
    if host.is_empty() {
        return Err(form());
    }
    self::host(what, host)?;
    Ok((host, number))
}

/// Parses `HOST:PORT` or `[IPV6]:PORT`.
pub fn endpoint(what: &str, value: &str) -> Result<Endpoint, String> {
    let (host, number) = split(what, value)?;
    Ok(Endpoint { host: host.to_owned(), port: port(&format!("port of {what}"), number)? })
}

/// Parses a local end: an [`endpoint`], or `any:PORT` for all addresses of this host.
pub fn local(what: &str, value: &str) -> Result<Endpoint, String> {
    let Endpoint { host, port } = endpoint(what, value)?;
    Ok(Endpoint { host: if host == "any" { Ipv6Addr::UNSPECIFIED.to_string() } else { host }, port })
}

/// Parses a remote: an [`endpoint`], `any`, or an endpoint whose host `any` or port 0 is learned.
pub fn remote(what: &str, value: &str) -> Result<Remote, String> {
    if value == "any" {
        return Ok(Remote::Learned { host: None, port: None });
    }
    let (host, number) = split(what, value)?;
    let port = if number == "0" { 0 } else { port(&format!("port of {what}"), number)? };
    Ok(Remote::classic(if host == "any" { "0.0.0.0" } else { host }, port))
}

/// Parses a prefix length, or for IPv4 a netmask.
pub fn prefix(address: IpAddr, value: &str) -> Result<u8, String> {
    let most = if address.is_ipv4() { 32 } else { 128 };
    let netmask = || {
        let mask = u32::from(value.parse::<std::net::Ipv4Addr>().ok().filter(|_| address.is_ipv4())?);
        (mask.leading_ones() + mask.trailing_zeros() == 32).then_some(mask.leading_ones())
    };
    let number = value.parse::<u32>().ok().or_else(netmask);
    number
        .and_then(|bits| u8::try_from(bits).ok())
        .filter(|&bits| bits <= most)
        .ok_or_else(|| format!("mask {value:?} of {address}: must be a prefix length from 0 to {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for (text, host, port) in [
            ("192.0.2.1:6000", "192.0.2.1", 6000),
            ("[fd00::1]:1", "fd00::1", 1),
            ("peer.example:65535", "peer.example", 65535),
        ] {
            assert_eq!(endpoint("remote", text), Ok(Endpoint { host: host.into(), port }));
        }
        for text in ["192.0.2.1", "fd00::1:6000", "[fd00::1]", ":6000", "a:0", "a:70000", "a:", "[a:1"] {
            assert!(endpoint("remote", text).unwrap_err().contains("must be"), "{text}");
        }
    }

    #[test]
    fn remotes() {
        let learned = |host: Option<&str>, port| Ok(Remote::Learned { host: host.map(str::to_owned), port });
        assert_eq!(remote("remote", "any"), learned(None, None));
        assert_eq!(remote("remote", "any:6000"), learned(None, Some(6000)));
        assert_eq!(remote("remote", "192.0.2.1:0"), learned(Some("192.0.2.1"), None));
        assert_eq!(remote("remote", "[::]:6000"), learned(None, Some(6000)));
        for text in ["any:0", "any", "any:6000", "192.0.2.1:0", "[2001:db8::1]:0", "peer.example:6000"] {
            let parsed = remote("remote", text).unwrap();
            assert_eq!(remote("remote", &parsed.to_string()), Ok(parsed), "{text}");
        }
        assert!(remote("remote", "192.0.2.1:70000").is_err() && remote("remote", "192.0.2.1").is_err());
    }

    #[test]
    fn malformed_address_is_no_name() {
        for good in
            ["192.0.2.1", "fd00::1", "fe80::1%eth0", "::ffff:192.0.2.1", "peer.example", "1a", "4.example", "any"]
        {
            assert_eq!(host("remote", good), Ok(()), "{good}");
        }
        for bad in ["192.0.2.300", "192.0.2", "192.0.2.1.1", "6000", "fd00::g", "1:2", "fe80::1::%eth0"] {
            let error = host("remote", bad).unwrap_err();
            assert!(error.contains(&format!("remote {bad:?}: not an IPv")), "{error}");
        }
        assert_eq!([253, 254].map(|length| host("remote", &"x".repeat(length)).is_ok()), [true, false]);
        assert!(endpoint("local", "192.0.2.300:6000").is_err() && remote("remote", "[fd00::g]:6000").is_err());
    }

    #[test]
    fn prefixes() {
        let (v4, v6) = ("10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap());
        assert_eq!(prefix(v4, "24"), Ok(24));
        assert_eq!(prefix(v4, "255.255.255.0"), Ok(24));
        assert_eq!(prefix(v4, "0.0.0.0"), Ok(0));
        assert_eq!(prefix(v6, "64"), Ok(64));
        for (address, text) in [(v4, "33"), (v4, "-1"), (v4, "255.0.255.0"), (v4, "x"), (v6, "129"), (v6, "255.0.0.0")]
        {
            assert!(prefix(address, text).is_err(), "{text}");
        }
    }
}
