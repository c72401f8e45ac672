//! Names to addresses, once, at the start.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::Error;
use crate::tunnel::{Endpoint, Path};

/// Longest wait for the resolver.
const LIMIT: Duration = Duration::from_secs(10);

/// Local and remote address of a path, of one family. The first local address for which there is a remote one wins.
pub fn path(path: &Path) -> Result<(SocketAddr, SocketAddr), Error> {
    let (locals, remotes) = (endpoint("local", &path.local)?, endpoint("remote", &path.remote)?);
    for local in &locals {
        if let Some(remote) = remotes.iter().find(|remote| remote.is_ipv4() == local.is_ipv4()) {
            return Ok((*local, *remote));
        }
    }
    let family = |addresses: &[SocketAddr]| if addresses.iter().any(SocketAddr::is_ipv4) { "IPv4" } else { "IPv6" };
    Err(Error::failure(format!(
        "local address {} is {}, remote address {} is {}: both must be of one family",
        path.local.host,
        family(&locals),
        path.remote.host,
        family(&remotes),
    )))
}

/// All addresses of one end; at least one.
fn endpoint(what: &str, endpoint: &Endpoint) -> Result<Vec<SocketAddr>, Error> {
    let (host, port) = (endpoint.host.clone(), endpoint.port);
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![(address, port).into()]);
    }
    // The resolver cannot be told to hurry, so it is left behind in a thread of its own when it does not answer.
    let (answer, answered) = mpsc::sync_channel(1);
    thread::spawn(move || answer.send((host.as_str(), port).to_socket_addrs().map(Vec::from_iter)));
    let fail = |text: &str| Err(Error::failure(format!("{what} name {:?}: {text}", endpoint.host)));
    match answered.recv_timeout(LIMIT) {
        Ok(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
        Ok(Ok(_)) => fail("has no address; must be an IP address or a name that resolves"),
        Ok(Err(error)) => {
            let reason = error.to_string();
            let reason = reason.rsplit(": ").next().unwrap_or_default();
            fail(&format!("{reason}; must be an IP address or a name that resolves"))
        }
        Err(_) => fail(&format!("no answer from the resolver within {} s", LIMIT.as_secs())),
    }
}
