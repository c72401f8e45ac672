//! Addresses of the paths, from the file and from the answers of the resolver.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use privsep::ipc::{Address, Remote, header};

use super::{Endpoint, Path, Tunnel};
use crate::{Error, tunnel};

/// Longest wait for the resolver at the start.
pub const LIMIT: Duration = Duration::from_secs(10);

/// Addresses of a name, each with port 0, or the reason why it has none.
pub type Found = Result<Vec<SocketAddr>, String>;

/// Answers of the resolver, by name.
pub type Answers = HashMap<String, Found>;

/// A path with its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolved {
    /// Local address.
    pub local: SocketAddr,
    /// Remote address, or the limits of a learned one.
    pub remote: Remote,
    /// MTU of the underlay in bytes; `None` while it is not read or cannot be found.
    pub underlay_mtu: Option<u32>,
}

impl Resolved {
    fn new(local: SocketAddr, remote: Remote) -> Self {
        Self { local, remote, underlay_mtu: None }
    }

    /// Address of the family with the longest headers that datagrams of this path may have. A socket on `[::]` also receives IPv4,
    /// and IPv6 headers are longer. The address of a name may change its family.
    pub fn family(&self) -> IpAddr {
        match self.remote {
            Remote::Fixed(Address(remote)) => remote.ip(),
            Remote::Named { .. } => self.local.ip(),
            Remote::Learned { address, .. } => address.filter(|ip| !ip.is_unspecified()).unwrap_or(self.local.ip()),
        }
    }

    /// Longest UDP payload in bytes that fits into a packet of this MTU.
    pub fn payload(&self, underlay_mtu: u32) -> u32 {
        underlay_mtu.saturating_sub(header::datagram(self.family()).into())
    }
}

/// Whether a host is a name, which only the resolver knows.
pub fn is_name(host: &str) -> bool {
    host.parse::<IpAddr>().is_err()
}

/// Name of a path's peer, if the file has one.
pub fn remote_name(path: &Path) -> Option<&str> {
    let host = match &path.remote {
        tunnel::Remote::Fixed(Endpoint { host, .. }) => Some(host),
        tunnel::Remote::Learned { host, .. } => host.as_ref(),
    };
    host.map(String::as_str).filter(|host| is_name(host))
}

/// All names of a tunnel, each once.
pub fn names(tunnel: &Tunnel) -> Vec<String> {
    let locals = tunnel.paths.iter().map(|path| path.local.host.as_str()).filter(|host| is_name(host));
    let all: BTreeSet<_> = locals.chain(tunnel.paths.iter().filter_map(remote_name)).collect();
    all.into_iter().map(str::to_owned).collect()
}

/// Whether this can be the address of one host.
pub fn is_host(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && ip != IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// Whether datagrams can go from a local address to a remote one: both of one family, or from `[::]`.
pub fn reaches(local: IpAddr, remote: IpAddr) -> bool {
    local.is_ipv4() == remote.is_ipv4() || local == Ipv6Addr::UNSPECIFIED
}

/// Whether an address of a name is the end of the path itself, as in `127.0.1.1 HOSTNAME`: the path would be up with itself.
pub fn is_itself(local: SocketAddr, remote: SocketAddr) -> bool {
    let (here, there) = (local.ip(), remote.ip());
    local.port() == remote.port() && (here == there || here.is_unspecified() && there.is_loopback())
}

/// Both addresses of a path, of one family or with `[::]` as the local one. The first local address with a matching remote one is
/// used.
pub fn path(path: &Path, answers: &Answers) -> Result<Resolved, Error> {
    let locals = endpoint("local", &path.local, answers)?;
    let (host, port) = match &path.remote {
        tunnel::Remote::Fixed(remote) => (&remote.host, Some(remote.port)),
        tunnel::Remote::Learned { host: Some(host), port } => (host, *port),
        tunnel::Remote::Learned { host: None, port } => {
            return Ok(Resolved::new(locals[0], Remote::Learned { address: None, before: None, port: *port }));
        }
    };
    let remotes = endpoint("remote", &Endpoint { host: host.clone(), port: port.unwrap_or(0) }, answers)?;
    for local in &locals {
        let fits =
            |remote: &&SocketAddr| reaches(local.ip(), remote.ip()) && !(is_name(host) && is_itself(*local, **remote));
        if let Some(&remote) = remotes.iter().find(fits) {
            let remote = match &path.remote {
                tunnel::Remote::Learned { .. } => Remote::Learned { address: Some(remote.ip()), before: None, port },
                tunnel::Remote::Fixed(_) if is_name(host) => Remote::Named { now: Some(Address(remote)), before: None },
                tunnel::Remote::Fixed(_) => Remote::Fixed(Address(remote)),
            };
            return Ok(Resolved::new(*local, remote));
        }
    }
    if let Some(itself) = remotes.iter().find(|remote| locals.iter().any(|local| is_itself(*local, **remote))) {
        let (ip, port) = (itself.ip(), itself.port());
        return Err(Error::failure(format!(
            "remote name {host:?}: {ip}, port {port} is the local end of the path itself; check `getent ahosts {host}`"
        )));
    }
    let family = |addresses: &[SocketAddr]| if addresses.iter().any(SocketAddr::is_ipv4) { "IPv4" } else { "IPv6" };
    Err(Error::failure(format!(
        "local address {} is {}, remote address {host} is {}: use addresses of one family, or the local address [::]",
        path.local.host,
        family(&locals),
        family(&remotes),
    )))
}

/// Path whose peer has a name without a usable address: the running tunnel looks the name up again.
pub fn without_remote(path: &Path, answers: &Answers) -> Option<Resolved> {
    remote_name(path)?;
    let local = *endpoint("local", &path.local, answers).ok()?.first()?;
    let remote = match &path.remote {
        tunnel::Remote::Fixed(_) => Remote::Named { now: None, before: None },
        // No datagram has this source, so none is accepted.
        tunnel::Remote::Learned { port, .. } => {
            Remote::Learned { address: Some(Ipv6Addr::UNSPECIFIED.into()), before: None, port: *port }
        }
    };
    Some(Resolved::new(local, remote))
}

/// All addresses of one end, at least one.
fn endpoint(what: &str, Endpoint { host, port }: &Endpoint, answers: &Answers) -> Result<Vec<SocketAddr>, Error> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![(address.to_canonical(), *port).into()]);
    }
    let fail = |reason: &str| {
        let right = "must be an IP address or a name that resolves";
        Err(Error::failure(format!("{what} name {host:?}: {reason}; {right}")))
    };
    match answers.get(host) {
        None => {
            let limit = LIMIT.as_secs();
            Err(Error::failure(format!(
                "{what} name {host:?}: no answer from the name servers within {limit} s; check `getent ahosts {host}`, and \
                 that IPAddressAllow= of the unit has the name servers"
            )))
        }
        Some(Ok(addresses)) if addresses.is_empty() => fail("no address found"),
        Some(Ok(addresses)) => Ok(addresses.iter().map(|&address| with_port(address, *port)).collect()),
        Some(Err(reason)) => fail(reason),
    }
}

/// An address with this port.
pub fn with_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(local: &str, remote: &str) -> Path {
        let text = format!(
            "mode = \"tap\"\nwire = \"classic\"\n[[path]]\nlocal = \"{local}:6000\"\nremote = \"{remote}:6000\"\n"
        );
        tunnel::file::from_text(&text, "a", std::path::Path::new("")).unwrap().paths.remove(0)
    }

    #[test]
    fn ipv6_wildcard_takes_both_families() {
        for (local, remote, right) in [
            ("[::]", "192.0.2.2", true),
            ("[::]", "[2001:db8::2]", true),
            ("any", "192.0.2.2", true),
            ("any", "[2001:db8::2]", true),
            ("[2001:db8::1]", "192.0.2.2", false),
            ("0.0.0.0", "[2001:db8::2]", false),
            ("0.0.0.0", "192.0.2.2", true),
            // IPv4-mapped IPv6 address.
            ("0.0.0.0", "[::ffff:192.0.2.2]", true),
            ("[::]", "[::ffff:192.0.2.2]", true),
            ("[2001:db8::1]", "[::ffff:192.0.2.2]", false),
        ] {
            let resolved = path(&described(local, remote), &Answers::new());
            assert_eq!(resolved.is_ok(), right, "{local} to {remote}");
            if let Ok(resolved) = resolved {
                assert_eq!(resolved.family().is_ipv4(), remote.contains("192"), "{remote}");
            }
        }
    }

    #[test]
    fn name_takes_a_reachable_address() {
        let [v4, v6]: [SocketAddr; 2] = ["192.0.2.2:0", "[2001:db8::2]:0"].map(|text| text.parse().unwrap());
        let own = ["127.0.1.1:0", "192.0.2.1:0"].map(|text| text.parse().unwrap());
        let answers = [("peer.example", vec![v6, v4]), ("v6.example", vec![v6]), ("own.example", own.to_vec())];
        let answers = answers.into_iter().map(|(name, all)| (name.to_owned(), Ok(all))).collect();
        for (local, remote, expected) in [
            ("0.0.0.0", "peer.example", Some("192.0.2.2:6000")),
            ("[::]", "peer.example", Some("[2001:db8::2]:6000")),
            ("192.0.2.1", "v6.example", None),
            ("192.0.2.1", "none.example", None),
            // The address of another end on this host has another port.
            ("192.0.2.1", "own.example", Some("127.0.1.1:6000")),
            ("0.0.0.0", "own.example", Some("192.0.2.1:6000")),
        ] {
            let described = described(local, remote);
            let now = expected.map(|text| Address(text.parse().unwrap()));
            let found = path(&described, &answers).ok().map(|resolved| resolved.remote);
            assert_eq!(found, now.map(|now| Remote::Named { now: Some(now), before: None }), "{local} to {remote}");
            let later = without_remote(&described, &answers).unwrap();
            assert_eq!(later.remote, Remote::Named { now: None, before: None });
        }
        assert_eq!(without_remote(&described("192.0.2.1", "192.0.2.2"), &answers), None);
        assert_eq!(without_remote(&described("here.example", "peer.example"), &answers), None);
    }
}
