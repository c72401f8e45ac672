//! Resolution of names at the start.

use std::io::{self, PipeReader};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use privsep::ipc::{Address, Remote, header};

use super::{Endpoint, Path, Tunnel};
use crate::{Error, tunnel};

/// Longest wait for the resolver.
pub const LIMIT: Duration = Duration::from_secs(10);

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
    /// and IPv6 headers are longer.
    pub fn family(&self) -> IpAddr {
        match self.remote {
            Remote::Fixed(Address(remote)) => remote.ip(),
            Remote::Learned { address, .. } => address.unwrap_or(self.local.ip()),
        }
    }

    /// Longest UDP payload in bytes that fits into a packet of this MTU.
    pub fn payload(&self, underlay_mtu: u32) -> u32 {
        underlay_mtu.saturating_sub(header::datagram(self.family()).into())
    }
}

/// Look-up in progress. The C library's resolver cannot be hurried or stopped, so it runs in a thread. The thread ends before the
/// addresses are used, so that it does not exist when privileges are dropped.
pub struct LookUp {
    /// Readable when the look-up is done.
    pub done: PipeReader,
    thread: JoinHandle<Vec<Result<Resolved, Error>>>,
    paths: usize,
}

impl LookUp {
    /// Starts to look up both ends of every path.
    pub fn start(tunnel: &Tunnel) -> io::Result<Self> {
        let (done, signal) = io::pipe()?;
        let paths: Vec<Path> = tunnel.paths.clone();
        let thread = thread::Builder::new().name("resolver".into()).spawn(move || {
            // In parallel, so that a name without an answer does not delay the others.
            let addresses = thread::scope(|scope| {
                let threads: Vec<_> = paths.iter().map(|each| scope.spawn(move || path(each))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(failed()))).collect()
            });
            drop(signal);
            addresses
        })?;
        Ok(Self { done, thread, paths: tunnel.paths.len() })
    }

    /// Addresses of each path, or the reason why it has none. Blocks until the look-up is done.
    pub fn finish(self) -> Vec<Result<Resolved, Error>> {
        self.thread.join().unwrap_or_else(|_| (0..self.paths).map(|_| Err(failed())).collect())
    }
}

fn failed() -> Error {
    Error::failure("resolver failed")
}

/// Error for a look-up that takes longer than [`LIMIT`], with the names.
pub fn late(tunnel: &Tunnel) -> Error {
    let hosts = tunnel.paths.iter().flat_map(|path| match &path.remote {
        tunnel::Remote::Fixed(Endpoint { host, .. }) | tunnel::Remote::Learned { host: Some(host), .. } => {
            vec![path.local.host.as_str(), host]
        }
        tunnel::Remote::Learned { host: None, .. } => vec![path.local.host.as_str()],
    });
    let mut names: Vec<_> = hosts.filter(|host| host.parse::<IpAddr>().is_err()).collect();
    names.sort_unstable();
    names.dedup();
    Error::failure(format!("{}: no answer from the resolver within {} s", names.join(", "), LIMIT.as_secs()))
}

/// Whether datagrams can go from a local address to a remote one: both of one family, or from `[::]`.
pub fn reaches(local: IpAddr, remote: IpAddr) -> bool {
    local.is_ipv4() == remote.is_ipv4() || local == Ipv6Addr::UNSPECIFIED
}

/// Both addresses of a path, of one family or with `[::]` as the local one. The first local address with a matching remote one is
/// used.
fn path(path: &Path) -> Result<Resolved, Error> {
    let locals = endpoint("local", &path.local)?;
    let (host, port) = match &path.remote {
        tunnel::Remote::Fixed(remote) => (remote.host.clone(), Some(remote.port)),
        tunnel::Remote::Learned { host: Some(host), port } => (host.clone(), *port),
        tunnel::Remote::Learned { host: None, port } => {
            return Ok(Resolved::new(locals[0], Remote::Learned { address: None, port: *port }));
        }
    };
    let remotes = endpoint("remote", &Endpoint { host: host.clone(), port: port.unwrap_or(0) })?;
    for local in &locals {
        if let Some(&remote) = remotes.iter().find(|remote| reaches(local.ip(), remote.ip())) {
            let remote = match &path.remote {
                tunnel::Remote::Fixed(_) => Remote::Fixed(Address(remote)),
                tunnel::Remote::Learned { .. } => Remote::Learned { address: Some(remote.ip()), port },
            };
            return Ok(Resolved::new(*local, remote));
        }
    }
    let family = |addresses: &[SocketAddr]| if addresses.iter().any(SocketAddr::is_ipv4) { "IPv4" } else { "IPv6" };
    Err(Error::failure(format!(
        "local address {} is {}, remote address {host} is {}: use addresses of one family, or the local address [::]",
        path.local.host,
        family(&locals),
        family(&remotes),
    )))
}

/// All addresses of one end, at least one.
fn endpoint(what: &str, Endpoint { host, port }: &Endpoint) -> Result<Vec<SocketAddr>, Error> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![(address.to_canonical(), *port).into()]);
    }
    let fail = |reason: &str| {
        let right = "must be an IP address or a name that resolves";
        Err(Error::failure(format!("{what} name {host:?}: {reason}; {right}")))
    };
    match (host.as_str(), *port).to_socket_addrs().map(Vec::from_iter) {
        Ok(addresses) if addresses.is_empty() => fail("no address found"),
        Ok(mut addresses) => {
            for address in &mut addresses {
                address.set_ip(address.ip().to_canonical());
            }
            Ok(addresses)
        }
        // "failed to lookup address information: Name or service not known"
        Err(error) => fail(error.to_string().rsplit(": ").next().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_wildcard_takes_both_families() {
        let resolve = |local: &str, remote: &str| {
            let text = format!(
                "mode = \"tap\"\nwire = \"classic\"\n[[path]]\nlocal = \"{local}:6000\"\nremote = \"{remote}:6000\"\n"
            );
            path(&tunnel::file::from_text(&text, "a", std::path::Path::new("")).unwrap().paths[0])
        };
        for (local, remote, right) in [
            ("[::]", "192.0.2.2", true),
            ("[::]", "[2001:db8::2]", true),
            ("[2001:db8::1]", "192.0.2.2", false),
            ("0.0.0.0", "[2001:db8::2]", false),
            ("0.0.0.0", "192.0.2.2", true),
            // IPv4-mapped IPv6 address.
            ("0.0.0.0", "[::ffff:192.0.2.2]", true),
            ("[::]", "[::ffff:192.0.2.2]", true),
            ("[2001:db8::1]", "[::ffff:192.0.2.2]", false),
        ] {
            let resolved = resolve(local, remote);
            assert_eq!(resolved.is_ok(), right, "{local} to {remote}");
            if let Ok(resolved) = resolved {
                assert_eq!(resolved.family().is_ipv4(), remote.contains("192"), "{remote}");
            }
        }
    }
}
