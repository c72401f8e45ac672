//! Local addresses of paths that vanish while the tunnel runs. Their paths carry nothing until the addresses are back.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

use crate::service::networks::same_address;
use crate::supervise::watch::link::LinkWatch;
use crate::tunnel::resolve::Resolved;

/// Local address of each path, if an interface had it at the start.
#[derive(Debug)]
pub struct Locals(Vec<Option<Local>>);

#[derive(Debug)]
struct Local {
    address: IpAddr,
    gone: bool,
}

impl Locals {
    /// Addresses of the paths of a starting tunnel. A wildcard address, or one that only a route makes local, belongs to no
    /// interface.
    pub fn new(paths: &[Resolved]) -> Self {
        let own: Vec<_> = getifaddrs().into_iter().flatten().filter_map(|own| own.address).collect();
        let here = |path: &Resolved| own.iter().any(|own| same_address(own, &path.local));
        let local = |path: &Resolved| here(path).then(|| Local { address: path.local.ip(), gone: false });
        Self(paths.iter().map(local).collect())
    }

    /// Reads the addresses if one is gone, or if `doubted` returns true for a path with an address. Returns log lines with their
    /// paths.
    pub fn look(&mut self, link: &mut LinkWatch, doubted: impl Fn(usize) -> bool) -> io::Result<Vec<(usize, String)>> {
        let mut due = self.0.iter().enumerate();
        if !due.any(|(path, local)| local.as_ref().is_some_and(|local| local.gone || doubted(path))) {
            return Ok(Vec::new());
        }
        Ok(self.note(&link.all_addresses()?))
    }

    /// Compares with the present addresses.
    fn note(&mut self, present: &HashSet<IpAddr>) -> Vec<(usize, String)> {
        let mut lines = Vec::new();
        for (path, local) in self.0.iter_mut().enumerate().filter_map(|(path, local)| Some((path, local.as_mut()?))) {
            let gone = !present.contains(&local.address);
            if std::mem::replace(&mut local.gone, gone) != gone && gone {
                lines.push((path, sentence(local.address)));
            }
        }
        lines
    }

    /// Fault of a path whose address is gone.
    pub fn reason(&self, path: usize) -> Option<String> {
        self.0.get(path)?.as_ref().filter(|local| local.gone).map(|local| sentence(local.address))
    }
}

fn sentence(address: IpAddr) -> String {
    format!("local address {address} was removed from this host; `ip addr` lists its addresses")
}

#[cfg(test)]
mod tests {
    use privsep::ipc::Remote;

    use super::*;

    #[test]
    fn removed_local_address_is_noticed() {
        let path = |local: &str| {
            let remote = Remote::ANY;
            Resolved { local: local.parse().unwrap(), remote, underlay_mtu: None }
        };
        // The second is local by a route, the third is a wildcard.
        let mut locals = Locals::new(&[path("127.0.0.1:1"), path("127.0.0.9:1"), path("0.0.0.0:1")]);
        let here = HashSet::from(["127.0.0.1".parse().unwrap()]);
        assert_eq!(locals.note(&here), []);
        let gone = "local address 127.0.0.1 was removed from this host";
        assert!(matches!(&locals.note(&HashSet::new())[..], [(0, line)] if line.starts_with(gone)));
        assert_eq!(locals.note(&HashSet::new()), []);
        assert!(locals.reason(0).unwrap().starts_with(gone));
        assert_eq!((locals.reason(1), locals.reason(2), locals.reason(7)), (None, None, None));
        assert_eq!((locals.note(&here), locals.reason(0)), (Vec::new(), None));
    }
}
