//! `ethudp init`: key and file of a tunnel in one step, and a line for the other end; with the other end's line it is complete.
//!
//! Nothing that is there is overwritten. What completes a file adds to it, and refuses where there is another peer already.

mod files;
pub mod fuzzing;
mod inner;
mod line;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use privsep::ipc::Secret;

use crate::error::Context;
use crate::tunnel::{self, Endpoint, address, keys, names};
use crate::{Error, log};
use files::Place;
pub use files::trusted;
use line::Line;

/// Where the unit looks for files.
pub const DIRECTORY: &str = "/etc/ethudp";
/// The port where none is given.
const PORT: u16 = 6000;

/// What the user says.
#[derive(Debug, Default, clap::Args)]
pub struct Options {
    /// Name of the tunnel: writes NAME.toml and NAME.key
    name: String,
    /// The line that `ethudp init` has printed at the other end
    #[arg(long, value_name = "LINE")]
    peer: Option<String>,
    /// Address of the TAP interface; with --peer one next to the other end's, where that is private [may be given several times]
    #[arg(long, value_name = "ADDRESS/PREFIX", conflicts_with_all = ["bridge", "interface"])]
    address: Vec<String>,
    /// Join this bridge
    #[arg(long, value_name = "BRIDGE", conflicts_with = "interface")]
    bridge: Option<String>,
    /// Carry the frames of this interface
    #[arg(long, value_name = "INTERFACE")]
    interface: Option<String>,
    /// UDP port of this end [default: 6000]
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
    endpoint: Option<Endpoint>,
}

/// Makes or completes a tunnel's files, and prints the line for the other end.
pub fn run(options: &Options) -> Result<(), Error> {
    names::tunnel(&options.name).map_err(Error::Usage)?;
    let peer = options.peer.as_deref().map(line::parse).transpose().map_err(Error::Usage)?;
    // What is wrong with an option is said before what is in the way of all of them.
    let given = Given::parse(options).map_err(Error::Usage)?;
    let place = Place::new(&options.dir, &options.name)?;
    let (line, done) = match (place.exists(), &peer) {
        (true, Some(peer)) => (complete(options, &place, peer)?, true),
        (true, None) => return Err(place.is_there()),
        (false, peer) => (create(options, given, &place, peer.as_ref())?, peer.is_some()),
    };
    let name = &options.name;
    if let Some(peer) = peer.filter(|_| done) {
        let fingerprint = keys::fingerprint(&line.key, &peer.key);
        log::info(&format!(
            "{} is complete; both ends must show this fingerprint: {fingerprint}",
            place.file.display()
        ));
        log::info(&format!("at the other end, unless that has been done: ethudp init {name} --peer {line}"));
        let shown = if options.dir == Path::new(DIRECTORY) { name.clone() } else { place.file.display().to_string() };
        log::info(&format!("it runs by `ethudp up {shown}`; `ethudp check {shown}` says what its unit lacks"));
    } else {
        log::info(&format!("wrote {} and {}", place.file.display(), place.key.display()));
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
    if let Some(peer) = peer {
        given.beside(peer).map_err(Error::Usage)?;
    }
    if peer.is_some_and(|peer| peer.endpoint.is_none()) && given.endpoint.is_none() {
        return Err(Error::usage(
            "--endpoint is missing: the other end has none, so it must be told where this one is: --endpoint HOST[:PORT]",
        ));
    }
    let private = keys::new_private().context(super::keys::randomness)?;
    let line = Line {
        joins: given.joins(),
        key: keys::public(&private),
        inner: given.addresses.first().copied(),
        endpoint: given.endpoint.clone(),
    };
    if let Some(peer) = peer {
        keys::check_peer("--peer", &private, &peer.key).map_err(Error::Usage)?;
    }
    let text = text(&options.name, &given, &line, peer);
    place.create(&keys::text(&private), &text)?;
    if options.address.is_empty()
        && let Some((ip, prefix)) = line.inner
    {
        let file = place.file.display();
        log::info(&format!(
            "{file}: its TAP interface has {ip}/{prefix}, beside the other end's; tap.address in it gives it another"
        ));
    }
    given.warn(place, peer);
    Ok(line)
}

/// Adds the peer to a file that lacks it.
fn complete(options: &Options, place: &Place, peer: &Line) -> Result<Line, Error> {
    let given = !options.address.is_empty() || options.bridge.is_some() || options.interface.is_some();
    if given || options.port.is_some() || options.endpoint.is_some() {
        return Err(Error::usage(format!(
            "{}: is there already, so that only --peer and --dir can be given; change the rest in it",
            place.file.display()
        )));
    }
    place.complete(peer)
}

impl Given {
    fn parse(options: &Options) -> Result<Self, String> {
        let port = options.port.as_deref().map_or(Ok(PORT), |port| address::port("--port", port))?;
        Ok(Self {
            bridge: options.bridge.as_deref().map(|name| names::interface("--bridge", name)).transpose()?,
            interface: options.interface.as_deref().map(|name| names::interface("--interface", name)).transpose()?,
            addresses: options.address.iter().map(|text| inner::parse(text)).collect::<Result<_, _>>()?,
            port,
            endpoint: options.endpoint.as_deref().map(|text| endpoint(text, port)).transpose()?,
        })
    }

    fn joins(&self) -> bool {
        self.bridge.is_some() || self.interface.is_some()
    }

    /// Adds an address next to the other end's where none is given, and refuses that one itself.
    fn beside(&mut self, peer: &Line) -> Result<(), String> {
        let of_peer = peer.inner.filter(|inner| self.addresses.iter().any(|(ip, _)| *ip == inner.0));
        if let Some((ip, prefix)) = of_peer {
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
        let beside = peer.inner.and_then(inner::neighbour);
        if let Some((ip, prefix)) = peer.inner.filter(|&inner| beside.is_some() && !inner::is_private(inner)) {
            return Err(format!(
                "--address is missing: the other end has {ip}/{prefix}, of a network that is not private, and what this host \
                 sends to one of its addresses would go into the tunnel; give this end's"
            ));
        }
        self.addresses.extend(beside);
        Ok(())
    }

    /// Says what may be as it is meant, but often is not.
    fn warn(&self, place: &Place, peer: Option<&Line>) {
        let file = place.file.display();
        if !self.joins() && self.addresses.is_empty() {
            log::warning(&format!("{file}: its TAP interface has no address; tap.address in it gives it one"));
        }
        let Some((ip, prefix)) = peer.and_then(|peer| peer.inner) else { return };
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
            let _ = writeln!(text, "[tap]\nbridge = {}\n", quoted(bridge));
        }
        Given { addresses, .. } => {
            let list: Vec<_> = addresses.iter().map(|(ip, prefix)| quoted(&format!("{ip}/{prefix}"))).collect();
            let _ = writeln!(text, "[tap]\naddress = [{}]\n", list.join(", "));
        }
    }
    let _ = writeln!(text, "[secure]\nprivate-key-file = {}", quoted(&format!("{name}.key")));
    if let Some(peer) = peer {
        let _ = writeln!(text, "{}", peer_key(peer));
    }
    let v6 = [Some(line), peer].into_iter().flatten().filter_map(|line| line.endpoint.as_ref());
    let v6 = v6.into_iter().any(|endpoint| endpoint.host.contains(':'));
    let any = Endpoint { host: if v6 { "::" } else { "0.0.0.0" }.into(), port: given.port };
    let _ = writeln!(text, "\n[[path]]\nlocal = \"{any}\"");
    if let Some(peer) = peer {
        let _ = writeln!(text, "{}", remote(peer));
    }
    text
}

/// The lines that name a peer.
fn peer_key(peer: &Line) -> String {
    format!("peer-public-key = \"{}\"", *keys::text(&peer.key))
}

/// Where a path has a peer.
fn remote_of(peer: &Line) -> String {
    peer.endpoint.as_ref().map_or_else(|| "any".into(), Endpoint::to_string)
}

fn remote(peer: &Line) -> String {
    format!("remote = \"{}\"", remote_of(peer))
}

/// The public key of a private one, which the file of a tunnel holds.
fn public_of(private: &Secret) -> Option<tunnel::keys::Public> {
    <[u8; 32]>::try_from(private.expose()).ok().map(|private| keys::public(&zeroize::Zeroizing::new(private)))
}

#[cfg(test)]
mod tests {
    use super::*;

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
