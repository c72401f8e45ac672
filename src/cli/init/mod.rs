//! `ethudp init`: key and file of a tunnel in one step, and a line for the other end; with the other end's line it is complete.
//!
//! Nothing that is there is overwritten. What completes a file adds to it, and refuses where there is another peer already.

mod files;
pub mod fuzzing;
mod host;
mod inner;
mod line;
mod paste;

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use crate::error::Context;
use crate::service::networks::{self, Networks};
use crate::tunnel::identifier::{self, Identifier};
use crate::tunnel::{Endpoint, Port, address, keys, names, taken};
use crate::{Error, log};
use files::Place;
pub use files::trusted;
use host::Host;
use line::Line;
use paste::Pasted;
pub use paste::has_line;

/// Where the unit looks for files.
pub const DIRECTORY: &str = "/etc/ethudp";
/// The port where none is given.
const PORT: u16 = 6000;

/// What the user says.
#[derive(Debug, Default, clap::Args)]
pub struct Options {
    /// Name of the tunnel, 1 to 24 letters, digits, '-' and '_': writes NAME.toml and NAME.key
    name: String,
    /// What is left of a line that was broken into words.
    #[arg(hide = true)]
    rest: Vec<String>,
    /// The line that `ethudp init` has printed at the other end
    #[arg(long, value_name = "LINE")]
    peer: Vec<String>,
    /// Address of the TAP interface; with --peer one next to the other end's, where that is private [may be given several times]
    #[arg(long, value_name = "ADDRESS/PREFIX", conflicts_with_all = ["bridge", "interface"])]
    address: Vec<String>,
    /// Join this bridge
    #[arg(long, value_name = "BRIDGE", conflicts_with = "interface")]
    bridge: Option<String>,
    /// Carry the frames of this interface
    #[arg(long, value_name = "INTERFACE")]
    interface: Option<String>,
    /// UDP port of this end [default: 6000, or the next that is free]
    #[arg(long, value_name = "PORT")]
    port: Option<String>,
    /// Where the other end reaches this one, a port only where it is another outside; without it, it answers where we come from
    #[arg(long, value_name = "HOST[:PORT]")]
    endpoint: Option<String>,
    /// Directory of file and key
    #[arg(long, value_name = "DIRECTORY", default_value = DIRECTORY)]
    dir: PathBuf,
}

/// What a new file is to have, as far as the options say.
struct Given {
    bridge: Option<String>,
    interface: Option<String>,
    addresses: Vec<(IpAddr, u8)>,
    port: u16,
    /// What has that port already, if it is given, or the default one.
    taken_by: Option<String>,
    endpoint: Option<Endpoint>,
    /// Name of the TAP interface.
    tap: Option<String>,
    /// Whether this host has IPv6.
    ipv6: bool,
    /// Networks of other tunnels of this host.
    networks: Vec<host::Network>,
    /// What could not be read of other tunnels.
    unread: Vec<String>,
}

/// Makes or completes a tunnel's files, and prints the line for the other end.
pub fn run(options: &Options) -> Result<(), Error> {
    let Pasted { peer, whole_command } =
        paste::of_words(&options.name, &options.rest, &options.peer).map_err(Error::Usage)?;
    // The file's name is the tunnel's with an ending.
    let name = options.name.strip_suffix(".toml").unwrap_or(&options.name);
    // A file that is there may have any name that `up` takes, a new one has one that the unit takes.
    if names::tunnel(name).is_err() {
        names::unit(name).map_err(Error::Usage)?;
    }
    // What is wrong with an option is said before what is in the way of all of them.
    Given::parse(options, name, &Host::default()).map_err(Error::Usage)?;
    let place = Place::new(&options.dir, name)?;
    let there = place.exists();
    let (line, done) = match (there, &peer) {
        (true, peer) => {
            if let Some(peer) = peer {
                Host::look(&options.dir, Some(peer)).refuse_twice(peer, &place.file).map_err(Error::Failure)?;
            }
            (go_on(options, &place, peer.as_ref())?, peer.is_some())
        }
        (false, peer) => {
            names::unit(name).map_err(Error::Usage)?;
            let host = Host::look(&options.dir, peer.as_ref());
            if let Some(peer) = peer {
                host.refuse_twice(peer, &place.file).map_err(Error::Failure)?;
            }
            let given = Given::parse(options, name, &host).map_err(Error::Usage)?;
            (create(options, given, &place, peer.as_ref())?, peer.is_some())
        }
    };
    if whole_command {
        log::info(&format!("a whole command was pasted; its line is taken, for tunnel {name:?} here"));
    }
    if let Some(peer) = peer.filter(|_| done) {
        let fingerprint = keys::fingerprint(&line.key, &peer.key);
        log::info(&format!(
            "{} is complete; both ends must show this fingerprint: {fingerprint}",
            place.file.display()
        ));
        log::info(&format!("at the other end, unless that has been done: ethudp init {name} --peer {line}"));
        let shown =
            if options.dir == Path::new(DIRECTORY) { name.to_owned() } else { place.file.display().to_string() };
        log::info(&format!("it runs by `ethudp up {shown}`; `ethudp check {shown}` says what its unit lacks"));
    } else {
        let (file, key) = (place.file.display(), place.key.display());
        log::info(&if there { format!("changed {file}") } else { format!("wrote {file} and {key}") });
        if line.endpoint.is_none() {
            log::info(
                "this end has no --endpoint, so the other end needs one: give it there, or here to the same NAME",
            );
        }
        log::info(&format!("at the other end: ethudp init {name} --peer {line}"));
        let dir = if options.dir == Path::new(DIRECTORY) {
            String::new()
        } else {
            format!(" --dir {}", options.dir.display())
        };
        log::info(&format!("then here, with the line that this prints: ethudp init {name} --peer LINE{dir}"));
    }
    log::print(&format!("{line}\n"))
}

/// Both files, complete if the peer is known.
fn create(options: &Options, mut given: Given, place: &Place, peer: Option<&Line>) -> Result<Line, Error> {
    let explicit = given.addresses.len();
    if let Some(peer) = peer {
        given.beside(peer).map_err(Error::Usage)?;
    }
    given.reached().map_err(Error::Usage)?;
    given.bridge.as_deref().map_or(Ok(()), host::is_bridge).map_err(Error::Usage)?;
    let warnings = given.conflicts(explicit, &networks::all()).map_err(Error::Failure)?;
    if peer.is_some_and(|peer| peer.endpoint.is_none()) && given.endpoint.is_none() {
        return Err(Error::usage(
            "--endpoint is missing: the other end has none, so it must be told where this one is: --endpoint HOST[:PORT]; or let the \
             other end say where it is: there `ethudp init NAME --endpoint HOST[:PORT]`, which prints another line",
        ));
    }
    let private = keys::new_private().context(super::keys::randomness)?;
    let tunnel = peer.map_or_else(identifier::random, |peer| Ok(peer.tunnel)).context(super::keys::randomness)?;
    let line = Line {
        joins: given.joins(),
        key: keys::public(&private),
        tunnel,
        slot: 0,
        inner: given.addresses.iter().copied().take(line::ADDRESSES).collect(),
        endpoint: given.endpoint.clone(),
    };
    if let Some(peer) = peer {
        keys::check_peer("--peer", &private, &peer.key).map_err(Error::Usage)?;
    }
    let text = text(&place.name, &given, &line, peer);
    place.create(&keys::text(&private), &text)?;
    let file = place.file.display();
    if explicit == 0 && !given.addresses.is_empty() {
        let list = list(&given.addresses);
        log::info(&format!(
            "{file}: its TAP interface has {list}, beside the other end's; tap.address in it gives it another"
        ));
    }
    if let Some(tap) = given.tap.as_ref().filter(|tap| **tap != place.name) {
        log::info(&format!("{file}: its TAP interface is {tap}; tap.name in it gives it another name"));
    }
    for line in warnings {
        log::warning(&format!("{file}: {line}"));
    }
    given.warn(options, place, peer);
    Ok(line)
}

/// Adds to a file what it lacks: endpoint and addresses of this end, and the peer.
fn go_on(options: &Options, place: &Place, peer: Option<&Line>) -> Result<Line, Error> {
    if options.bridge.is_some() || options.interface.is_some() || options.port.is_some() {
        return Err(Error::usage(format!(
            "{}: is there already, so that only --peer, --endpoint, --address and --dir can be given; change the rest in it",
            place.file.display()
        )));
    }
    let more = !options.address.is_empty() || options.endpoint.is_some();
    let lacks_identifier = peer.is_none() && place.lacks_identifier();
    let extended = (more || lacks_identifier).then(|| extend(options, place, peer)).transpose()?;
    match (peer, extended) {
        (Some(peer), _) => {
            let (line, port) = place.complete(peer)?;
            if let Port::Raw { interface, .. } = port
                && let Some(line) = carries("raw.interface", &interface, Some(peer))
            {
                log::warning(&format!("{}: {line}", place.file.display()));
            }
            Ok(line)
        }
        (None, Some(line)) => Ok(line),
        (None, None) => Err(place.is_there()),
    }
}

/// Adds endpoint and addresses of this end, and the tunnel identifier, to a file without a peer.
fn extend(options: &Options, place: &Place, peer: Option<&Line>) -> Result<Line, Error> {
    let wrong = |error: String| Error::usage(format!("{}: {error}", place.file.display()));
    let (own, port) = place.incomplete().map_err(wrong)?;
    if let Some(known) = own.endpoint.as_ref().filter(|_| options.endpoint.is_some()) {
        return Err(wrong(format!("--endpoint: its line has {known} already; to change it, make the file anew")));
    }
    if !options.address.is_empty() && own.joins {
        return Err(wrong("--address: it joins a bridge or an interface".into()));
    }
    if !options.address.is_empty() && !own.inner.is_empty() {
        let known = list(&own.inner);
        return Err(wrong(format!("--address: its TAP interface has {known} already; change tap.address in it")));
    }
    let mut given = Given::parse(options, &place.name, &Host::look(&options.dir, Some(&own))).map_err(Error::Usage)?;
    given.endpoint = options.endpoint.as_deref().map(|text| endpoint(text, port)).transpose().map_err(Error::Usage)?;
    let conflicts = given.conflicts(given.addresses.len(), &networks::all()).map_err(Error::Failure)?;
    if given.addresses.is_empty() {
        given.addresses.clone_from(&own.inner);
    }
    given.reached().map_err(Error::Usage)?;
    let inner = given.addresses.iter().copied().take(line::ADDRESSES).collect();
    let tunnel = match (own.tunnel, peer) {
        (identifier::NONE, Some(peer)) => peer.tunnel,
        (identifier::NONE, None) => identifier::random().context(super::keys::randomness)?,
        (own, _) => own,
    };
    let line = Line { endpoint: given.endpoint.clone().or(own.endpoint), inner, tunnel, ..own };
    place.extend(&line, given.ipv6).map_err(wrong)?;
    for line in conflicts {
        log::warning(&format!("{}: {line}", place.file.display()));
    }
    if !line.joins {
        given.taken_by = None;
        given.warn(options, place, None);
    }
    Ok(line)
}

impl Given {
    fn parse(options: &Options, name: &str, host: &Host) -> Result<Self, String> {
        let port = options.port.as_deref().map(|port| address::port("--port", port)).transpose()?;
        let free = port.unwrap_or_else(|| host.free_port(PORT));
        let taken_by = host.has_port(port.unwrap_or(PORT)).map(str::to_owned);
        let addresses: Vec<_> = options.address.iter().map(|text| inner::parse(text)).collect::<Result<_, _>>()?;
        let twice = |(number, (ip, _)): (usize, &(IpAddr, u8))| {
            addresses[..number].iter().any(|(own, _)| own == ip).then_some(*ip)
        };
        if let Some(ip) = addresses.iter().enumerate().find_map(twice) {
            return Err(format!("--address {ip}: is given twice; must be given once"));
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

    /// Refuses an endpoint inside the tunnel: it cannot be reached there before there is one.
    fn reached(&self) -> Result<(), String> {
        let Some(endpoint) = &self.endpoint else { return Ok(()) };
        match self.addresses.iter().find(|(ip, _)| endpoint.host.parse() == Ok(*ip)) {
            Some((ip, _)) => Err(format!(
                "--endpoint {ip}: is the tunnel's own address (--address); must be an address or a name of this end outside the tunnel"
            )),
            None => Ok(()),
        }
    }

    /// Refuses a network that was taken from the other end's line and is in use here, or where the kernel does not tell what is;
    /// says so of one that was given.
    fn conflicts(&self, explicit: usize, known: &io::Result<Networks>) -> Result<Vec<String>, String> {
        let mut warnings = Vec::new();
        for (number, own) in self.addresses.iter().enumerate() {
            let (ip, prefix) = own;
            let conflict = match known {
                Ok(networks) => taken::conflict(*own, &networks.known),
                Err(error) if number >= explicit => {
                    return Err(format!(
                        "the networks that this host uses: {error}; so none is taken from the other end's line: give --address \
                         {ip}/{prefix}, or another"
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
                    "--peer: {conflict}; let the other end begin with another network, or take it by --address {ip}/{prefix}"
                ));
            }
            warnings.push(format!("--address {ip}/{prefix}: {conflict}: {}; give another --address", taken::LONGER));
        }
        let cut = known.as_ref().is_ok_and(|networks| networks.cut);
        warnings.extend(taken::unread(cut && !self.addresses.is_empty()));
        Ok(warnings)
    }

    fn joins(&self) -> bool {
        self.bridge.is_some() || self.interface.is_some()
    }

    /// Adds an address next to the other end's where none is given, and refuses that one itself.
    fn beside(&mut self, peer: &Line) -> Result<(), String> {
        let mut of_peer = peer.inner.iter().filter(|inner| self.addresses.iter().any(|(ip, _)| *ip == inner.0));
        if let Some((ip, prefix)) = of_peer.next() {
            return Err(format!("--address {ip}: is the other end's; must be another address of {ip}/{prefix}"));
        }
        if self.joins() || !self.addresses.is_empty() {
            return Ok(());
        }
        if peer.joins {
            return Err(
                "--bridge, --interface or --address is missing: the other end joins a network, which must this one?"
                    .into(),
            );
        }
        let has_room = peer.inner.iter().filter_map(|&inner| Some((inner, inner::neighbour(inner)?)));
        let (of_peer, beside): (Vec<_>, Vec<_>) = has_room.unzip();
        if let Some((ip, prefix)) = of_peer.into_iter().find(|&inner| !inner::is_private(inner)) {
            return Err(format!(
                "--address is missing: the other end has {ip}/{prefix}, of a network that is not private, and what this host \
                 sends to one of its addresses would go into the tunnel; give this end's"
            ));
        }
        self.addresses.extend(beside);
        Ok(())
    }

    /// Says what may be as it is meant, but often is not.
    fn warn(&self, options: &Options, place: &Place, peer: Option<&Line>) {
        let file = place.file.display();
        let port = self.port;
        match (&self.taken_by, &options.port) {
            (Some(by), Some(_)) => {
                log::warning(&format!("--port {port}: {by} has it already; leave --port out for one that is free"));
            }
            (Some(by), None) => log::info(&format!("{file}: its UDP port is {port}, because {by} has {PORT}")),
            (None, _) => {}
        }
        let named = [("--bridge", &self.bridge), ("--interface", &self.interface)];
        for (option, name) in named.iter().filter_map(|(option, name)| Some((option, name.as_ref()?))) {
            if !host::is_interface(name) {
                log::warning(&format!(
                    "{option} {name:?}: there is no such interface now; the tunnel needs it at its start"
                ));
            }
        }
        if let Some(interface) = &self.interface {
            let own = self.endpoint.as_ref().filter(|endpoint| host::has(interface, &endpoint.host));
            let own = own.map(|endpoint| {
                let host = &endpoint.host;
                format!("--interface {interface:?}: has the address of --endpoint, {host}: {UPLINK}")
            });
            if let Some(line) = own.or_else(|| carries("--interface", interface, peer)) {
                log::warning(&line);
            }
        }
        for line in &self.unread {
            log::warning(line);
        }
        if let Some(text) = options.endpoint.as_deref().and_then(address_with_port) {
            log::warning(&format!("--endpoint: was taken for an address without a port; did you mean {text}?"));
        }
        if let Some(rest) = self.addresses.get(line::ADDRESSES..).filter(|rest| !rest.is_empty()) {
            log::warning(&format!(
                "{file}: {}: not in the line for the other end, which has room for {}",
                list(rest),
                line::ADDRESSES
            ));
        }
        if !self.joins() && self.addresses.is_empty() {
            log::warning(&format!(
                "{file}: its TAP interface has no address; give it one by --address ADDRESS/PREFIX and the same NAME, or by \
                 tap.address in it"
            ));
        }
        for &(ip, prefix) in peer.map_or(&[][..], |peer| &peer.inner) {
            if self.joins() {
                log::warning(&format!(
                    "{file}: the other end is a single host, with {ip}/{prefix}: is that an address of the network that this end joins?"
                ));
            } else if !self.addresses.iter().any(|&own| inner::together(own, (ip, prefix))) {
                log::warning(&format!(
                    "{file}: its TAP interface has no address in the network of the other end's {ip}/{prefix}"
                ));
            }
        }
    }
}

/// Why an interface that carries the tunnel's own datagrams is mostly not meant.
const UPLINK: &str =
    "the tunnel would join this uplink with the other end's network; give the interface of the local network";

/// That a tunnel's own datagrams leave by the interface whose frames it carries, if so.
fn carries(what: &str, interface: &str, peer: Option<&Line>) -> Option<String> {
    let host = &peer?.endpoint.as_ref()?.host;
    host::leads_to(interface, host).then(|| {
        format!("{what} {interface:?}: the tunnel's own datagrams to {host} leave by this interface: {UPLINK}")
    })
}

/// Addresses with their prefix lengths, for people.
fn list(addresses: &[(IpAddr, u8)]) -> String {
    addresses.iter().map(|(ip, prefix)| format!("{ip}/{prefix}")).collect::<Vec<_>>().join(", ")
}

/// The same, as a list has them in the file.
fn quoted(addresses: &[(IpAddr, u8)]) -> String {
    addresses.iter().map(|(ip, prefix)| format!("\"{ip}/{prefix}\"")).collect::<Vec<_>>().join(", ")
}

/// `[IPV6]:PORT` of what reads as an IPv6 address and is perhaps one with a port.
fn address_with_port(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':')?;
    let whole: IpAddr = text.parse().ok()?;
    let meant = whole.is_ipv6() && host.parse::<IpAddr>().is_ok() && port.len() >= 4 && port.parse::<u16>().is_ok();
    meant.then(|| format!("[{host}]:{port}"))
}

/// `HOST`, whose port is then this end's, or what has one.
fn endpoint(text: &str, port: u16) -> Result<Endpoint, String> {
    let bare = text.parse::<IpAddr>().is_ok() || !text.contains(':');
    let whole = if bare { Endpoint { host: text.to_owned(), port }.to_string() } else { text.to_owned() };
    line::endpoint(&whole).map_err(|error| {
        let error = error.replacen("port of endpoint", "port of --endpoint", 1);
        let error = error.replacen(&format!("endpoint {whole:?}"), &format!("--endpoint {text:?}"), 1);
        error.replacen(address::FORM, "must be ADDRESS, NAME, ADDRESS:PORT, [IPV6-ADDRESS]:PORT or NAME:PORT", 1)
    })
}

/// The file.
fn text(name: &str, given: &Given, line: &Line, peer: Option<&Line>) -> String {
    use std::fmt::Write;
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let tap = |given: &Given| given.tap.as_ref().map_or_else(String::new, |tap| format!("\nname = {}", quoted(tap)));
    let mut text =
        format!("# {name}.toml: the file's name is the tunnel's name. For the other end, and no secret:\n# {line}\n");
    let mode = match given {
        Given { interface: Some(_), .. } => "raw",
        Given { bridge: Some(_), .. } => "bridge",
        Given { .. } => "tap",
    };
    let _ = writeln!(text, "mode = \"{mode}\"\n");
    match given {
        Given { interface: Some(interface), .. } => {
            let _ = writeln!(text, "[raw]\ninterface = {}\n", quoted(interface));
        }
        Given { bridge: Some(bridge), .. } => {
            let _ = writeln!(text, "[tap]{}\nbridge = {}\n", tap(given), quoted(bridge));
        }
        Given { addresses, .. } => {
            let _ = writeln!(text, "[tap]{}\naddress = [{}]\n", tap(given), self::quoted(addresses));
        }
    }
    let _ = writeln!(text, "[secure]\nprivate-key-file = {}", quoted(&format!("{name}.key")));
    if line.tunnel != identifier::NONE {
        let _ = writeln!(text, "{}", tunnel_id(line.tunnel));
    }
    if let Some(peer) = peer {
        let _ = writeln!(text, "{}", peer_key(peer));
        if peer.slot > 0 {
            let _ = writeln!(text, "{}", peer_slot(peer));
        }
    }
    let v6 = [Some(line), peer].into_iter().flatten().any(|line| needs_ipv6(line.endpoint.as_ref()));
    let any = Endpoint { host: if v6 && given.ipv6 { "::" } else { "0.0.0.0" }.into(), port: given.port };
    let _ = writeln!(text, "\n[[path]]\nlocal = \"{any}\"");
    if let Some(peer) = peer {
        let _ = writeln!(text, "{}", remote(peer));
    }
    text
}

/// Whether the socket of a path must hear IPv6, too: a name may have either address, and `[::]` hears both.
fn needs_ipv6(endpoint: Option<&Endpoint>) -> bool {
    endpoint.is_some_and(|endpoint| endpoint.host.parse::<Ipv4Addr>().is_err())
}

/// The line that names a peer.
fn peer_key(peer: &Line) -> String {
    format!("peer-public-key = \"{}\"", *keys::text(&peer.key))
}

/// The line of the tunnel identifier.
fn tunnel_id(identifier: Identifier) -> String {
    format!("tunnel-id = \"{}\"", identifier::text(identifier))
}

/// The line of the slot that a peer has.
fn peer_slot(peer: &Line) -> String {
    format!("peer-slot = {}", peer.slot)
}

/// Where a path has a peer.
fn remote_of(peer: &Line) -> String {
    peer.endpoint.as_ref().map_or_else(|| "any".into(), Endpoint::to_string)
}

fn remote(peer: &Line) -> String {
    format!("remote = \"{}\"", remote_of(peer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_networks_in_use_refuse_a_new_one() {
        let options = |address: &[&str]| Options {
            address: address.iter().map(|&text| text.to_owned()).collect(),
            ..Options::default()
        };
        let unknown = || Err(io::ErrorKind::PermissionDenied.into());
        let mut given = Given::parse(&options(&[]), "t", &Host::default()).unwrap();
        assert_eq!(given.conflicts(0, &unknown()), Ok(Vec::new()));
        given.addresses.push(inner::parse("10.8.0.2/24").unwrap());
        let error = given.conflicts(0, &unknown()).unwrap_err();
        assert!(error.contains("permission denied") && error.contains("--address 10.8.0.2/24"), "{error}");
        assert_eq!(given.conflicts(1, &unknown()), Ok(Vec::new()));
    }

    #[test]
    fn an_endpoint_without_a_port_has_that_of_the_tunnel() {
        for (text, whole) in [
            ("198.51.100.7", Ok("198.51.100.7:6001")),
            ("2001:db8::1", Ok("[2001:db8::1]:6001")),
            ("a.example", Ok("a.example:6001")),
            ("a.example:7", Ok("a.example:7")),
            ("[2001:db8::1]:7", Ok("[2001:db8::1]:7")),
            ("198.51.100.300", Err("is no IPv4")),
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
