//! What a tunnel is, however it was described: by a classic command line or by a file. Checks of single values.

pub mod advice;
pub mod bounds;
pub mod file;
pub mod filter;
pub mod plan;
pub mod resolve;
pub mod settings;

use std::fmt;
use std::net::IpAddr;

use privsep::ipc::{self, Cipher, Rules, Secret};

/// The key that EthUDP uses when a cipher is given without one.
pub const DEFAULT_KEY: &str = "123456";
/// Longest key in bytes, EthUDP's limit.
pub const MAX_KEY: usize = 2047;

/// A tunnel.
#[derive(Debug)]
pub struct Tunnel {
    /// Names the control socket and stands in every log line.
    pub name: String,
    /// The local side.
    pub port: Port,
    /// The ways to the peer, the preferred one first.
    pub paths: Vec<Path>,
    /// The classic wire.
    pub classic: Classic,
    /// What is done to frames.
    pub rules: Rules,
    /// The MSS in these is to be what fits through the underlay.
    pub auto_mss: bool,
    /// A command to run when everything is open.
    pub run: Option<String>,
    /// Ticks, about seconds, after which the worker is replaced; in the foreground the program ends.
    pub exit_after: Option<u64>,
    /// Whether a worker that is less confined than this program can have it ends the tunnel.
    pub require_confinement: bool,
    /// When a service manager is to start it again for what only that repairs.
    pub repair: Repair,
    /// The user that all processes become when started by root.
    pub user: Option<String>,
    /// How it was described.
    pub origin: Origin,
}

/// When what only a new start repairs is repaired.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Repair {
    /// At once.
    #[default]
    AtOnce,
    /// At this time of day, in seconds since midnight UTC.
    Daily {
        /// 0 to 86,399.
        second: u32,
    },
    /// When the tunnel is started again for another reason.
    Never,
}

/// How a tunnel was described, on which a few habits depend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// By EthUDP's command line: a name that does not resolve is an error, HUP prints and USR1 resets statistics.
    Classic,
    /// By a file: names are waited for, USR1 prints statistics.
    File,
}

/// The classic wire format.
#[derive(Debug, Default)]
pub struct Classic {
    /// Cipher.
    pub cipher: Cipher,
    /// Its key; empty without a cipher.
    pub key: Secret,
    /// Password; empty for none.
    pub password: Secret,
    /// LZ4 level of the original, 0 to 9; 0 is off, and all others are one to us.
    pub lz4: u8,
    /// `-mtu`: the MTU in bytes over which a datagram leaves as two.
    pub fragment_mtu: Option<u16>,
}

impl Classic {
    /// What of it is no secret, without a keepalive.
    pub fn settings(&self) -> ipc::Classic {
        let Self { cipher, lz4, fragment_mtu, .. } = *self;
        ipc::Classic { cipher, compress: lz4 > 0, fragment_mtu, keepalive: false }
    }
}

/// The local side.
#[derive(Debug)]
pub enum Port {
    /// A TAP interface.
    Tap {
        /// Interface name; `None` lets the kernel choose `tapN`.
        name: Option<String>,
        /// Addresses with prefix length.
        addresses: Vec<(IpAddr, u8)>,
        /// MTU of that interface in bytes.
        interface_mtu: Option<u32>,
        /// The bridge that it joins.
        bridge: Option<String>,
    },
    /// An interface that exists.
    Raw {
        /// Interface name.
        interface: String,
        /// Whether to take frames for other stations.
        promiscuous: bool,
    },
    /// A one-way copy of an interface's frames.
    Mirror {
        /// Interface name.
        interface: String,
        /// Filter as tcpdump takes it; empty selects everything.
        filter: String,
        /// Only the payload of UDP datagrams is sent.
        udp: bool,
    },
}

impl Port {
    /// Whether the loop check is on unless told otherwise: with what only reads its local side, but not with mirrors.
    pub fn checks_loops(&self, receive: bool) -> bool {
        !receive && !self.is_mirror()
    }

    /// Whether it is a mirror: nothing is given back to it, and nobody need answer.
    pub fn is_mirror(&self) -> bool {
        matches!(self, Self::Mirror { .. })
    }

    /// The mode's name in file and status.
    pub fn mode(&self) -> &'static str {
        match self {
            Self::Tap { bridge: None, .. } => "tap",
            Self::Tap { bridge: Some(_), .. } => "bridge",
            Self::Raw { .. } => "raw",
            Self::Mirror { udp: false, .. } => "mirror",
            Self::Mirror { udp: true, .. } => "mirror-udp",
        }
    }
}

/// One way to the peer, hosts not yet resolved.
#[derive(Debug, Clone)]
pub struct Path {
    /// Our side.
    pub local: Endpoint,
    /// The peer.
    pub remote: Remote,
    /// Interface or VRF to which the socket is bound.
    pub device: Option<String>,
    /// Firewall mark of its datagrams.
    pub mark: Option<u32>,
}

/// The other end of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remote {
    /// A fixed peer.
    Fixed(Endpoint),
    /// A peer behind NAT, whose address is learned within these limits.
    Learned {
        /// Only from this host.
        host: Option<String>,
        /// Only from this port.
        port: Option<u16>,
    },
}

impl Remote {
    /// EthUDP's rule: the address 0.0.0.0 or `::`, or port 0, stand for a peer behind NAT.
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
    /// UDP port; 0 only of a remote that is learned.
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

/// Refuses what is meant as an address and is none, which the resolver would take for a name and look for.
pub fn host(what: &str, host: &str) -> Result<(), String> {
    let numeric = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let address = host.split_once('%').map_or(host, |(address, _zone)| address);
    if (numeric || host.contains(':')) && address.parse::<IpAddr>().is_err() {
        let family = if numeric { "IPv4" } else { "IPv6" };
        return Err(format!("{what} {host:?}: is no {family} address; must be an IP address or a name that resolves"));
    }
    Ok(())
}

/// Splits `HOST:PORT` or `[IPV6]:PORT`.
fn split<'a>(what: &str, value: &'a str) -> Result<(&'a str, &'a str), String> {
    let form = || format!("{what} {value:?}: must be ADDRESS:PORT, [IPV6-ADDRESS]:PORT or NAME:PORT");
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

/// Parses a remote: as [`endpoint`], or `any`, or with the host `any` or the port 0 for what is learned.
pub fn remote(value: &str) -> Result<Remote, String> {
    if value == "any" {
        return Ok(Remote::Learned { host: None, port: None });
    }
    let (host, number) = split("remote", value)?;
    let port = if number == "0" { 0 } else { port("port of remote", number)? };
    Ok(Remote::classic(if host == "any" { "0.0.0.0" } else { host }, port))
}

/// Parses the pairs of a VLAN map file: a local and a remote id on each line, what follows them is not looked at. Empty
/// lines and those that begin with `#` are left out.
pub fn vlan_map(what: &str, text: &str) -> Result<Vec<(u16, u16)>, String> {
    let mut pairs = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let mut words = line.split_whitespace();
        let Some(first) = words.next().filter(|word| !word.starts_with('#')) else { continue };
        let id = |word: Option<&str>| word.and_then(|word| word.parse::<u16>().ok()).filter(|&id| id < 4096);
        let (Some(local), Some(remote)) = (id(Some(first)), id(words.next())) else {
            return Err(format!(
                "{what}, line {number}: {line:?}: must be a local and a remote VLAN id, each 0 to 4095"
            ));
        };
        add_vlan(&mut pairs, (local, remote)).map_err(|error| format!("{what}, line {number}: {error}"))?;
    }
    Ok(pairs)
}

/// Adds a pair to a VLAN map, unless it contradicts one that is there.
pub fn add_vlan(pairs: &mut Vec<(u16, u16)>, (local, remote): (u16, u16)) -> Result<(), String> {
    match pairs.iter().find(|pair| pair.0 == local || pair.1 == remote) {
        Some(&pair) if pair == (local, remote) => {}
        Some(pair) => return Err(format!("VLAN {local} to {remote} contradicts {} to {}", pair.0, pair.1)),
        None => pairs.push((local, remote)),
    }
    Ok(())
}

/// Parses a whole number within bounds.
pub fn number(what: &str, value: &str, bounds: std::ops::RangeInclusive<u64>) -> Result<u64, String> {
    let (least, most) = bounds.clone().into_inner();
    let number = value.parse::<u64>().ok().filter(|number| bounds.contains(number));
    number.ok_or_else(|| format!("{what} {value:?}: must be a number from {least} to {most}"))
}

/// Checks the length of a password.
pub fn password(what: &str, bytes: Vec<u8>) -> Result<Secret, String> {
    match bytes.len() {
        0 => Err(format!("{what}: empty password; must have 1 to {MAX_KEY} bytes")),
        length if length > MAX_KEY => Err(format!("{what}: password of {length} bytes; must have 1 to {MAX_KEY}")),
        _ if bytes.contains(&0) => Err(format!("{what}: password with a NUL byte, which the format cannot carry")),
        _ => Ok(Secret::new(bytes)),
    }
}

/// Checks an interface name by the kernel's rules (`dev_valid_name`).
pub fn interface(what: &str, name: &str) -> Result<String, String> {
    if name.is_empty() || name.len() > 15 {
        return Err(format!("{what} {name:?}: has {} bytes; an interface name has 1 to 15", name.len()));
    }
    if matches!(name, "." | "..")
        || name.bytes().any(|b| b.is_ascii_whitespace() || b.is_ascii_control() || b"/:%".contains(&b))
    {
        return Err(format!("{what} {name:?}: an interface name has no space, '/', ':' or '%'"));
    }
    Ok(name.to_owned())
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

/// Checks a tunnel's name, which becomes a file name.
pub fn name(name: &str) -> Result<String, String> {
    let bad = |b: u8| b == b'/' || b.is_ascii_control() || b.is_ascii_whitespace();
    if name.is_empty() || name.len() > 64 || name.starts_with(['.', '-']) || name.bytes().any(bad) {
        return Err(format!(
            "tunnel name {name:?}: must have 1 to 64 bytes, no '/' and no space, and not begin with '.' or '-'"
        ));
    }
    Ok(name.to_owned())
}

/// Parses when to repair: `at-once`, `never`, or `HH:MM` in UTC.
pub fn repair(what: &str, text: &str) -> Result<Repair, String> {
    let number = |part: &str, below: u32| {
        let digits = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse().ok().filter(|&number: &u32| digits && number < below)
    };
    let time = || {
        let (hour, minute) = text.split_once(':')?;
        Some(Repair::Daily { second: number(hour, 24)? * 3600 + number(minute, 60)? * 60 })
    };
    match text {
        "at-once" => Ok(Repair::AtOnce),
        "never" => Ok(Repair::Never),
        _ => time()
            .ok_or_else(|| format!("{what} = {text:?}: must be \"at-once\", \"never\", or a time \"HH:MM\" in UTC")),
    }
}

/// Parses a cipher's name.
pub fn cipher(what: &str, name: &str) -> Result<Cipher, String> {
    match name {
        "none" => Ok(Cipher::None),
        "xor" => Ok(Cipher::Xor),
        "aes-128" => Ok(Cipher::Aes128),
        "aes-192" => Ok(Cipher::Aes192),
        "aes-256" => Ok(Cipher::Aes256),
        _ => Err(format!("{what} {name:?}: unknown cipher; must be xor, aes-128, aes-192 or aes-256")),
    }
}

/// The name of a cipher.
pub fn cipher_name(cipher: Cipher) -> &'static str {
    match cipher {
        Cipher::None => "none",
        Cipher::Xor => "xor",
        Cipher::Aes128 => "aes-128",
        Cipher::Aes192 => "aes-192",
        Cipher::Aes256 => "aes-256",
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

/// Bytes of key that a cipher takes, 0 where any number will do.
pub fn key_size(cipher: Cipher) -> usize {
    match cipher {
        Cipher::None | Cipher::Xor => 0,
        Cipher::Aes128 => 16,
        Cipher::Aes192 => 24,
        Cipher::Aes256 => 32,
    }
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
    fn what_is_meant_as_an_address_is_no_name() {
        for good in
            ["192.0.2.1", "fd00::1", "fe80::1%eth0", "::ffff:192.0.2.1", "peer.example", "1a", "4.example", "any"]
        {
            assert_eq!(host("remote", good), Ok(()), "{good}");
        }
        for bad in ["192.0.2.300", "192.0.2", "192.0.2.1.1", "6000", "fd00::g", "1:2", "fe80::1::%eth0"] {
            let error = host("remote", bad).unwrap_err();
            assert!(error.contains(&format!("remote {bad:?}: is no IPv")), "{error}");
        }
        assert!(endpoint("local", "192.0.2.300:6000").is_err() && remote("[fd00::g]:6000").is_err());
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

    #[test]
    fn names_that_the_kernel_or_the_file_system_would_not_take() {
        for bad in ["", "sixteen-byte-nam", "a/b", "a b", "a:b", "tap%d", ".", ".."] {
            assert!(interface("interface", bad).is_err(), "{bad:?}");
        }
        for bad in ["", "a/b", "../x", "-x", "a b", &"x".repeat(65)] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
        assert_eq!(interface("interface", "fifteen-byte-na"), Ok("fifteen-byte-na".into()));
        assert_eq!(name("site-a.1"), Ok("site-a.1".into()));
    }

    #[test]
    fn vlan_maps() {
        let read = |text: &str| vlan_map("map", text);
        assert_eq!(read("# a comment\n\n  7\t4000 more words\r\n100 200"), Ok(vec![(7, 4000), (100, 200)]));
        assert_eq!(read("1 2\n1 2\n"), Ok(vec![(1, 2)]));
        for (text, words) in [
            ("1 2\n1 3\n", "map, line 2: VLAN 1 to 3 contradicts 1 to 2"),
            ("1 2\n\n3 2\n", "map, line 3: VLAN 3 to 2 contradicts 1 to 2"),
            ("50,60", "map, line 1: \"50,60\""),
            ("x 9 9", "map, line 1"),
            ("7", "map, line 1"),
            ("4096 1", "each 0 to 4095"),
        ] {
            assert!(read(text).unwrap_err().contains(words), "{text:?}: {:?}", read(text));
        }
    }

    #[test]
    fn remotes() {
        let learned = |host: Option<&str>, port| Ok(Remote::Learned { host: host.map(str::to_owned), port });
        assert_eq!(remote("any"), learned(None, None));
        assert_eq!(remote("any:6000"), learned(None, Some(6000)));
        assert_eq!(remote("192.0.2.1:0"), learned(Some("192.0.2.1"), None));
        assert_eq!(remote("[::]:6000"), learned(None, Some(6000)));
        for text in ["any:0", "any", "any:6000", "192.0.2.1:0", "[2001:db8::1]:0", "peer.example:6000"] {
            let parsed = remote(text).unwrap();
            assert_eq!(remote(&parsed.to_string()), Ok(parsed), "{text}");
        }
        assert!(remote("192.0.2.1:70000").is_err() && remote("192.0.2.1").is_err());
    }
}
