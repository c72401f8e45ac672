//! Options of `ethudp init`, and the contents of a new file that follow from them.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::host::{self, Host};
use super::inner;
use super::line::{self, Line};
use crate::cli::location::DIRECTORY;
use crate::log;
use crate::service::networks::{self, Networks};
use crate::tunnel::{Endpoint, address, names, taken};

/// Default UDP port.
pub const PORT: u16 = 6000;

/// Options of `ethudp init`.
#[derive(Debug, Default, clap::Args)]
pub struct Options {
    /// Name of the tunnel, 1 to 24 letters, digits, '-' and '_': writes NAME.toml and NAME.key
    pub name: String,
    /// Remaining words of a line that was broken into words.
    #[arg(hide = true)]
    pub rest: Vec<String>,
    /// Line that `ethudp init` printed at the other end
    #[arg(long, value_name = "LINE")]
    pub peer: Vec<String>,
    /// Address of the TAP interface; may be given several times [default with --peer: next to a private address of the other end]
    #[arg(long, value_name = "ADDRESS/PREFIX", conflicts_with_all = ["bridge", "interface"])]
    pub address: Vec<String>,
    /// Add the TAP interface to this bridge
    #[arg(long, value_name = "BRIDGE", conflicts_with = "interface")]
    pub bridge: Option<String>,
    /// Forward the frames of this interface
    #[arg(long, value_name = "INTERFACE")]
    pub interface: Option<String>,
    /// UDP port of this end [default: the first free port from 6000]
    #[arg(long, value_name = "PORT")]
    pub port: Option<String>,
    /// Public address or name of this end; add the port if a NAT changes it [default: the other end learns it from datagrams]
    #[arg(long, value_name = "HOST[:PORT]")]
    pub endpoint: Option<String>,
    /// Directory of file and key
    #[arg(long, value_name = "DIRECTORY", default_value = DIRECTORY)]
    pub dir: PathBuf,
}

/// Contents of a new file, as far as the options and this host determine them.
pub struct Parameters {
    pub bridge: Option<String>,
    pub interface: Option<String>,
    pub addresses: Vec<(IpAddr, u8)>,
    pub port: u16,
    /// User of the given port, or of the default port.
    pub taken_by: Option<String>,
    pub endpoint: Option<Endpoint>,
    /// Name of the TAP interface.
    pub tap: Option<String>,
    /// Whether this host has IPv6.
    pub ipv6: bool,
    /// Networks of other tunnels of this host.
    pub networks: Vec<host::Network>,
    /// Messages about files of other tunnels that could not be read.
    pub unread: Vec<String>,
}

impl Parameters {
    pub fn parse(options: &Options, name: &str, host: &Host) -> Result<Self, String> {
        let port = options.port.as_deref().map(|port| address::port("--port", port)).transpose()?;
        let free = port.unwrap_or_else(|| host.free_port(PORT));
        let taken_by = host.has_port(port.unwrap_or(PORT)).map(str::to_owned);
        let addresses: Vec<_> = options.address.iter().map(|text| inner::parse(text)).collect::<Result<_, _>>()?;
        let twice = |(number, (ip, _)): (usize, &(IpAddr, u8))| {
            addresses[..number].iter().any(|(own, _)| own == ip).then_some(*ip)
        };
        if let Some(ip) = addresses.iter().enumerate().find_map(twice) {
            return Err(format!("--address {ip}: given twice; remove one"));
        }
        let interface = options.interface.as_deref().map(|name| names::interface("--interface", name)).transpose()?;
        Ok(Self {
            bridge: options.bridge.as_deref().map(|name| names::interface("--bridge", name)).transpose()?,
            addresses,
            port: free,
            taken_by,
            endpoint: options.endpoint.as_deref().map(|text| endpoint(text, free)).transpose()?,
            tap: interface.is_none().then(|| host.tap_name(name)),
            interface,
            ipv6: host::has_ipv6(),
            networks: host.networks().to_vec(),
            unread: host.unread().to_vec(),
        })
    }

    /// Refuses an endpoint inside the tunnel, which is unreachable before the tunnel exists.
    pub fn check_endpoint(&self) -> Result<(), String> {
        let Some(endpoint) = &self.endpoint else { return Ok(()) };
        match self.addresses.iter().find(|(ip, _)| endpoint.host.parse() == Ok(*ip)) {
            Some((ip, _)) => Err(format!(
                "--endpoint {ip}: address inside the tunnel (--address); must be an address or a name of this end outside \
                 the tunnel"
            )),
            None => Ok(()),
        }
    }

    /// Refuses a network from the peer's line that this host already uses, or if the kernel does not report the networks in use.
    /// Returns warnings for networks of `--address`. The first `explicit` addresses are from `--address`.
    pub fn conflicts(&self, explicit: usize, known: &io::Result<Networks>) -> Result<Vec<String>, String> {
        let mut warnings = Vec::new();
        for (number, own) in self.addresses.iter().enumerate() {
            let (ip, prefix) = own;
            let conflict = match known {
                Ok(networks) => taken::conflict(*own, &networks.known),
                Err(error) if number >= explicit => {
                    return Err(format!(
                        "networks of this host: {error}; cannot choose a free address: set one, as in --address \
                         {ip}/{prefix}"
                    ));
                }
                Err(_) => None,
            };
            let of_tunnel = || {
                let (other, file) = self.networks.iter().find(|(network, _)| networks::overlap(*network, *own))?;
                let with = format!("of {file} (tap.address {})", networks::text(*other));
                Some(taken::overlaps(*own, *other, &with))
            };
            let Some(conflict) = conflict.or_else(of_tunnel) else { continue };
            if number >= explicit {
                return Err(format!(
                    "--peer: {conflict}; start with another network at the other end, or accept this one with --address \
                     {ip}/{prefix}"
                ));
            }
            warnings.push(format!("--address {ip}/{prefix}: {conflict}: {}; choose another --address", taken::LONGER));
        }
        let cut = known.as_ref().is_ok_and(|networks| networks.cut);
        warnings.extend(taken::unread(cut && !self.addresses.is_empty()));
        Ok(warnings)
    }

    pub fn joins_network(&self) -> bool {
        self.bridge.is_some() || self.interface.is_some()
    }

    /// Adds an address next to each of the peer's if none is given. Refuses an address of the peer.
    pub fn choose_addresses(&mut self, peer: &Line) -> Result<(), String> {
        let mut of_peer = peer.inner.iter().filter(|inner| self.addresses.iter().any(|(ip, _)| *ip == inner.0));
        if let Some((ip, prefix)) = of_peer.next() {
            return Err(format!("--address {ip}: address of the other end; must be another address of {ip}/{prefix}"));
        }
        if self.joins_network() || !self.addresses.is_empty() {
            return Ok(());
        }
        if peer.joins {
            return Err(
                "--bridge, --interface or --address is missing: the other end forwards a bridge or an interface; choose \
                 the local side here"
                    .into(),
            );
        }
        let has_room = peer.inner.iter().filter_map(|&inner| Some((inner, inner::neighbour(inner)?)));
        let (of_peer, beside): (Vec<_>, Vec<_>) = has_room.unzip();
        if let Some((ip, prefix)) = of_peer.into_iter().find(|&inner| !inner::is_private(inner)) {
            return Err(format!(
                "--address is missing: the other end has {ip}/{prefix}, which is not a private network. Traffic of this \
                 host to that network would go into the tunnel. Confirm it with --address of this end"
            ));
        }
        self.addresses.extend(beside);
        Ok(())
    }

    /// Warns of settings that are valid but often unintended.
    pub fn warn(&self, options: &Options, file: &Path, peer: Option<&Line>) {
        let file = file.display();
        let port = self.port;
        match (&self.taken_by, &options.port) {
            (Some(by), Some(_)) => {
                log::warning(&format!("--port {port}: already used by {by}; omit --port for a free port"));
            }
            (Some(by), None) => log::info(&format!("{file}: UDP port {port}, because {by} uses {PORT}")),
            (None, _) => {}
        }
        let named = [("--bridge", &self.bridge), ("--interface", &self.interface)];
        for (option, name) in named.iter().filter_map(|(option, name)| Some((option, name.as_ref()?))) {
            if !host::is_interface(name) {
                log::warning(&format!("{option} {name:?}: no such interface now; create it before the tunnel starts"));
            }
        }
        if let Some(interface) = &self.interface {
            let own = self.endpoint.as_ref().filter(|endpoint| host::has(interface, &endpoint.host));
            let own = own.map(|endpoint| {
                let host = &endpoint.host;
                format!("--interface {interface:?}: has the --endpoint address {host}: {UPLINK}")
            });
            if let Some(line) = own.or_else(|| uplink_warning("--interface", interface, peer)) {
                log::warning(&line);
            }
        }
        for line in &self.unread {
            log::warning(line);
        }
        if let Some(text) = options.endpoint.as_deref().and_then(address_with_port) {
            log::warning(&format!("--endpoint: read as an address without a port; did you mean {text}?"));
        }
        if let Some(rest) = self.addresses.get(line::ADDRESSES..).filter(|rest| !rest.is_empty()) {
            log::warning(&format!(
                "{file}: {}: left out of the line for the other end, which takes at most {}",
                format_addresses(rest),
                line::ADDRESSES
            ));
        }
        if !self.joins_network() && self.addresses.is_empty() {
            log::warning(&format!(
                "{file}: the TAP interface has no address: run `ethudp init` again with the same NAME and --address \
                 ADDRESS/PREFIX, or set tap.address"
            ));
        }
        for &(ip, prefix) in peer.map_or(&[][..], |peer| &peer.inner) {
            if self.joins_network() {
                log::warning(&format!(
                    "{file}: the other end is a single host with {ip}/{prefix}: check that this address belongs to the \
                     network of this end"
                ));
            } else if !self.addresses.iter().any(|&own| inner::together(own, (ip, prefix))) {
                log::warning(&format!(
                    "{file}: the TAP interface has no address in the network of the other end, {ip}/{prefix}: change \
                     tap.address at one end"
                ));
            }
        }
    }
}

/// Reason why an interface of the tunnel's own datagrams is rarely intended.
const UPLINK: &str =
    "the tunnel would connect this uplink to the other end's network; choose the interface of the local network";

/// Warning if the tunnel's own datagrams leave by the interface whose frames it carries.
pub fn uplink_warning(what: &str, interface: &str, peer: Option<&Line>) -> Option<String> {
    let host = &peer?.endpoint.as_ref()?.host;
    host::leads_to(interface, host)
        .then(|| format!("{what} {interface:?}: route to {host} uses this interface: {UPLINK}"))
}

/// Addresses with prefix lengths, for people.
pub fn format_addresses(addresses: &[(IpAddr, u8)]) -> String {
    addresses.iter().map(|(ip, prefix)| format!("{ip}/{prefix}")).collect::<Vec<_>>().join(", ")
}

/// `[IPV6]:PORT` for a text that parses as an IPv6 address and may end in a port.
fn address_with_port(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':')?;
    let whole: IpAddr = text.parse().ok()?;
    let meant = whole.is_ipv6() && host.parse::<IpAddr>().is_ok() && port.len() >= 4 && port.parse::<u16>().is_ok();
    meant.then(|| format!("[{host}]:{port}"))
}

/// Parses an endpoint. A `HOST` without a port gets the port of this end.
pub fn endpoint(text: &str, port: u16) -> Result<Endpoint, String> {
    let bare = text.parse::<IpAddr>().is_ok() || !text.contains(':');
    let whole = if bare { Endpoint { host: text.to_owned(), port }.to_string() } else { text.to_owned() };
    line::endpoint(&whole).map_err(|error| {
        let error =
            error.replacen(&format!("{whole:?}"), &format!("{text:?}"), 1).replacen("endpoint ", "--endpoint ", 1);
        error.replacen(address::FORM, "must be ADDRESS, NAME, ADDRESS:PORT, [IPV6-ADDRESS]:PORT or NAME:PORT", 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_networks_refuse_a_new_one() {
        let options = |address: &[&str]| Options {
            address: address.iter().map(|&text| text.to_owned()).collect(),
            ..Options::default()
        };
        let unknown = || Err(io::ErrorKind::PermissionDenied.into());
        let mut given = Parameters::parse(&options(&[]), "t", &Host::default()).unwrap();
        assert_eq!(given.conflicts(0, &unknown()), Ok(Vec::new()));
        given.addresses.push(inner::parse("10.8.0.2/24").unwrap());
        let error = given.conflicts(0, &unknown()).unwrap_err();
        assert!(error.contains("permission denied") && error.contains("--address 10.8.0.2/24"), "{error}");
        assert_eq!(given.conflicts(1, &unknown()), Ok(Vec::new()));
    }

    #[test]
    fn endpoint_defaults_to_tunnel_port() {
        for (text, whole) in [
            ("198.51.100.7", Ok("198.51.100.7:6001")),
            ("2001:db8::1", Ok("[2001:db8::1]:6001")),
            ("a.example", Ok("a.example:6001")),
            ("a.example:7", Ok("a.example:7")),
            ("[2001:db8::1]:7", Ok("[2001:db8::1]:7")),
            ("198.51.100.300", Err("--endpoint \"198.51.100.300\": not an IPv4")),
            ("a b", Err("--endpoint \"a b\": must be ADDRESS, NAME")),
            ("a:0", Err("port of --endpoint \"0\": must be a number")),
        ] {
            match (endpoint(text, 6001).map(|endpoint| endpoint.to_string()), whole) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(error), Err(words)) => assert!(error.contains(words), "{error}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }
}
