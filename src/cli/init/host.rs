//! Resources of other tunnels on this host that a new tunnel must not use: UDP ports, names of TAP interfaces, and networks.

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use nix::net::if_::if_nametoindex;
use privsep::netlink::Netlink;

use super::inner;
use super::line::Line;
use crate::service::{files, networks};
use crate::supervise::startup::route;
use crate::tunnel::keys;

/// Longest list of the kernel that is read, in bytes.
const LONGEST: u64 = 16 << 20;

/// Resources in use, each with its user.
#[derive(Debug, Default)]
pub struct Host {
    ports: Vec<(u16, String)>,
    taps: Vec<String>,
    networks: Vec<Network>,
    /// Peers in files: the public key as text, and the path.
    peers: Vec<(String, PathBuf)>,
    unread: Vec<String>,
}

/// Address with its prefix length, and the file that has it.
pub type Network = ((IpAddr, u8), String);

impl Host {
    /// Reads the files of other tunnels in a directory, and the sockets of this host. If the peer is another tunnel of this host,
    /// its network does not count as used.
    pub fn look(directory: &Path, peer: Option<&Line>) -> Self {
        let peer = peer.map(Line::to_string);
        let mut host = Self::default();
        let more = files::each(directory, "toml", |path, read| {
            let added = read.map_err(|error| error.to_string());
            if let Err(error) = added.and_then(|(text, _)| host.add(path, &text, peer.as_deref())) {
                let file = path.display();
                host.unread.push(format!(
                    "{file}: {error}; its port, interface and networks were not compared with this \
                                          tunnel's"
                ));
            }
        });
        if more {
            let (place, most) = (directory.display(), files::MOST);
            host.unread.push(format!("{place}: more than {most} files; the rest were not compared with this tunnel"));
        }
        for list in ["/proc/net/udp", "/proc/net/udp6"] {
            let mut text = String::new();
            let _ = File::open(list).and_then(|file| file.take(LONGEST).read_to_string(&mut text));
            host.ports.extend(sockets(&text).map(|port| (port, "another socket of this host".to_owned())));
        }
        host
    }

    fn add(&mut self, path: &Path, text: &str, peer: Option<&str>) -> Result<(), String> {
        let file = path.display().to_string();
        let table = text.parse::<toml::Table>().map_err(|_| "not valid TOML")?;
        let paths = table.get("path").and_then(toml::Value::as_array).map_or(&[][..], Vec::as_slice);
        let locals = paths.iter().filter_map(|path| path.get("local")?.as_str()?.rsplit_once(':')?.1.parse().ok());
        self.ports.extend(locals.map(|port| (port, file.clone())));
        let tap = table.get("tap").and_then(|tap| tap.get("name")?.as_str());
        self.taps.extend(tap.map(str::to_owned));
        let addresses = table.get("tap").and_then(|tap| tap.get("address")?.as_array()).map_or(&[][..], Vec::as_slice);
        let networks = addresses.iter().filter_map(|address| inner::parse(address.as_str()?).ok());
        let of_file = table.get("secure").and_then(|secure| secure.get("peer-public-key")?.as_str());
        self.peers.extend(of_file.map(|key| (key.to_owned(), path.to_owned())));
        if !peer.is_some_and(|peer| text.contains(peer)) {
            self.networks.extend(networks.map(|network| (network, file.clone())));
        }
        Ok(())
    }

    /// Messages about files that could not be read.
    pub fn unread(&self) -> &[String] {
        &self.unread
    }

    /// Refuses a line that has completed a file other than `own`. A line is for one tunnel.
    pub fn refuse_twice(&self, peer: &Line, own: &Path) -> Result<(), String> {
        let (key, own) = (keys::text(&peer.key), own.canonicalize().ok());
        let mut of_peer = self.peers.iter().filter(|(other, _)| *other == *key);
        match of_peer.find(|(_, file)| own.is_none() || file.canonicalize().ok() != own) {
            None => Ok(()),
            Some((_, file)) => Err(format!(
                "--peer: already used by {}; each tunnel needs its own line. If that file is a copy, rename it so that it \
                 does not end in .toml. For a second tunnel run `ethudp init` with another NAME at the other end and use \
                 the new line",
                file.display()
            )),
        }
    }

    /// Networks of other tunnels.
    pub fn networks(&self) -> &[Network] {
        &self.networks
    }

    /// User of a port, if it is in use.
    pub fn has_port(&self, port: u16) -> Option<&str> {
        self.ports.iter().find(|(own, _)| *own == port).map(|(_, by)| by.as_str())
    }

    /// First free port from `first` on.
    pub fn free_port(&self, first: u16) -> u16 {
        (first..=u16::MAX).find(|port| self.has_port(*port).is_none()).unwrap_or(first)
    }

    /// Name for the TAP interface: the tunnel's name cut to the length of interface names, with a number if it is in use.
    pub fn tap_name(&self, tunnel: &str) -> String {
        // `all` and `default` are directories of the kernel beside those of interfaces.
        let taken = |name: &str| {
            matches!(name, "all" | "default") || self.taps.iter().any(|tap| tap == name) || is_interface(name)
        };
        let begin = |length| tunnel.chars().take(length).collect::<String>();
        let whole = begin(15);
        if !taken(&whole) {
            return whole;
        }
        (2..100).map(|number| format!("{}-{number}", begin(12))).find(|name| !taken(name)).unwrap_or(whole)
    }
}

/// Whether an interface of this name exists now.
pub fn is_interface(name: &str) -> bool {
    if_nametoindex(name).is_ok()
}

/// Refuses an existing interface that is not a bridge.
pub fn is_bridge(name: &str) -> Result<(), String> {
    // A missing interface may be created later.
    let link = Netlink::open().and_then(|mut netlink| netlink.link(name));
    if link.is_ok_and(|link| link.kind != "bridge") {
        return Err(format!(
            "--bridge {name:?}: not a bridge; `ip link show type bridge` lists bridges. To forward the frames of an \
             interface use --interface {name}"
        ));
    }
    Ok(())
}

/// Whether an interface has this address.
pub fn has(interface: &str, address: &str) -> bool {
    let address = address.parse();
    let known = networks::all().map(|networks| networks.known).unwrap_or_default();
    known.iter().any(|own| !own.route && own.interface == interface && Ok(own.network.0) == address)
}

/// Whether datagrams to this address leave by this interface. False for a name instead of an address.
pub fn leads_to(interface: &str, address: &str) -> bool {
    let interfaces = address.parse().map(|to| route::interfaces(to).unwrap_or_default());
    if_nametoindex(interface).is_ok_and(|index| interfaces.is_ok_and(|interfaces| interfaces.contains(&index)))
}

/// Whether this host has IPv6.
pub fn has_ipv6() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}

/// Ports in the kernel's list of UDP sockets (`proc_net_udp(5)`), which has address and port in hexadecimal.
fn sockets(list: &str) -> impl Iterator<Item = u16> {
    let lines = list.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)?.rsplit_once(':'));
    lines.filter_map(|(_, port)| u16::from_str_radix(port, 16).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_port_is_not_chosen() {
        let mut host = Host::default();
        let added = host.add(
            Path::new("a.toml"),
            "[tap]\nname = \"site\"\n[[path]]\nlocal = \"[::]:6000\"\n[[path]]\nlocal = \"192.0.2.1:6001\"\n",
            None,
        );
        assert_eq!(
            (added, host.add(Path::new("b.toml"), "not valid TOML", None)),
            (Ok(()), Err("not valid TOML".into()))
        );
        let list = "  sl  local_address rem_address\n  26: 0100007F:1772 00000000:0000 07\n";
        host.ports.extend(sockets(list).map(|port| (port, "a socket".into())));
        assert_eq!(
            (host.has_port(6001), host.has_port(6002), host.free_port(6000)),
            (Some("a.toml"), Some("a socket"), 6003)
        );
        assert_eq!(host.free_port(7000), 7000);
        assert_eq!((host.tap_name("site"), host.tap_name("other")), ("site-2".into(), "other".into()));
        assert_eq!(host.tap_name("a-name-of-twenty-four-by"), "a-name-of-twent");
        assert_eq!((host.tap_name("lo"), host.tap_name("all")), ("lo-2".into(), "all-2".into()));
    }
}
