//! `ethudp init`: key and file of a tunnel in one step, and a line for the other end; with the other end's line it is complete.
//!
//! Nothing that is there is overwritten. What completes a file adds to it, and refuses where there is another peer already.

mod files;
pub mod fuzzing;
mod line;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use privsep::ipc::Secret;

use crate::error::Context;
use crate::tunnel::{self, Endpoint, address, keys, names};
use crate::{Error, log};
use files::Place;
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

/// The local side that a new file is to have.
struct Local {
    bridge: Option<String>,
    interface: Option<String>,
    addresses: Vec<(IpAddr, u8)>,
}

/// Makes or completes a tunnel's files, and prints the line for the other end.
pub fn run(options: &Options) -> Result<(), Error> {
    names::tunnel(&options.name).map_err(Error::Usage)?;
    let peer = options.peer.as_deref().map(line::parse).transpose().map_err(Error::Usage)?;
    let place = Place::new(&options.dir, &options.name);
    let (line, done) = match (place.exists(), &peer) {
        (true, Some(peer)) => (complete(options, &place, peer)?, true),
        (true, None) => return Err(place.is_there()),
        (false, peer) => (create(options, &place, peer.as_ref())?, peer.is_some()),
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
fn create(options: &Options, place: &Place, peer: Option<&Line>) -> Result<Line, Error> {
    let local = local(options, peer).map_err(Error::Usage)?;
    let port = options.port.as_deref().map_or(Ok(PORT), |port| address::port("--port", port)).map_err(Error::Usage)?;
    let endpoint = options.endpoint.as_deref().map(|text| endpoint(text, port)).transpose().map_err(Error::Usage)?;
    if peer.is_some_and(|peer| peer.endpoint.is_none()) && endpoint.is_none() {
        return Err(Error::usage(
            "--endpoint is missing: the other end has none, so it must be told where this one is: --endpoint HOST[:PORT]",
        ));
    }
    let private = keys::new_private().context(super::keys::randomness)?;
    let line = Line {
        joins: local.bridge.is_some() || local.interface.is_some(),
        key: keys::public(&private),
        inner: local.addresses.first().copied(),
        endpoint,
    };
    if let Some(peer) = peer {
        keys::check_peer("--peer", &private, &peer.key).map_err(Error::Usage)?;
    }
    let text = text(options, &local, port, &line, peer);
    place.create(&keys::text(&private), &text)?;
    if options.address.is_empty()
        && let Some((ip, prefix)) = line.inner
    {
        let file = place.file.display();
        log::info(&format!(
            "{file}: its TAP interface has {ip}/{prefix}, beside the other end's; tap.address in it gives it another"
        ));
    }
    if !line.joins && line.inner.is_none() {
        let file = place.file.display();
        log::warning(&format!("{file}: its TAP interface has no address; tap.address in it gives it one"));
    }
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

fn local(options: &Options, peer: Option<&Line>) -> Result<Local, String> {
    let bridge = options.bridge.as_deref().map(|name| names::interface("--bridge", name)).transpose()?;
    let interface = options.interface.as_deref().map(|name| names::interface("--interface", name)).transpose()?;
    let mut addresses = options.address.iter().map(|text| inner(text)).collect::<Result<Vec<_>, _>>()?;
    if addresses.is_empty()
        && bridge.is_none()
        && interface.is_none()
        && let Some(peer) = peer
    {
        if peer.joins {
            return Err(
                "--bridge, --interface or --address is missing: the other end joins a network, which must this one?"
                    .into(),
            );
        }
        let beside = peer.inner.and_then(neighbour);
        if let Some((ip, prefix)) = peer.inner.filter(|&inner| beside.is_some() && !is_private(inner)) {
            return Err(format!(
                "--address is missing: the other end has {ip}/{prefix}, of a network that is not private, and what this host \
                 sends to one of its addresses would go into the tunnel; give this end's"
            ));
        }
        addresses.extend(beside);
    }
    Ok(Local { bridge, interface, addresses })
}

fn inner(text: &str) -> Result<(IpAddr, u8), String> {
    let form = || format!("--address {text:?}: must be ADDRESS/PREFIX, as in 10.8.0.1/24");
    let (ip, prefix) = text.split_once('/').ok_or_else(form)?;
    let ip = ip.parse().map_err(|_| form())?;
    Ok((ip, address::prefix(ip, prefix).map_err(|error| format!("--address {text:?}: {error}"))?))
}

/// Another address in the network of this one, that its hosts may have: the next, or the one before.
fn neighbour((ip, prefix): (IpAddr, u8)) -> Option<(IpAddr, u8)> {
    let host = |address: u128, bits: u32| {
        let all = 1_u128.checked_shl(bits).map_or(u128::MAX, |size| size - 1);
        let part = address & all;
        // The first and the last of a network of more than two are not a host's.
        let (least, most) = if bits > 1 { (1, all - 1) } else { (0, all) };
        let other = if part < most { part + 1 } else { part.checked_sub(1)? };
        (bits > 0 && (least..=most).contains(&other)).then_some(address & !all | other)
    };
    let ip = match ip {
        IpAddr::V4(ip) => u32::try_from(host(u32::from(ip).into(), 32 - u32::from(prefix))?).ok()?.to_be_bytes().into(),
        IpAddr::V6(ip) => host(ip.into(), 128 - u32::from(prefix))?.to_be_bytes().into(),
    };
    Some((ip, prefix))
}

/// Whether all of a network is private (RFC 1918, RFC 4193) or of the link (RFC 3927, RFC 4291): what this host would send to the
/// other end because that has said so. What is used elsewhere is not among it, unless somebody asks for it.
fn is_private((ip, prefix): (IpAddr, u8)) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let least = match ip.octets()[0] {
                10 => 8,
                172 => 12,
                _ => 16,
            };
            (ip.is_private() || ip.is_link_local()) && prefix >= least
        }
        IpAddr::V6(ip) => ip.is_unique_local() && prefix >= 7 || ip.is_unicast_link_local() && prefix >= 10,
    }
}

/// `HOST`, whose port is then this end's, or what has one.
fn endpoint(text: &str, port: u16) -> Result<Endpoint, String> {
    let bare = text.parse::<IpAddr>().is_ok() || !text.contains(':');
    let whole = if bare { Endpoint { host: text.to_owned(), port }.to_string() } else { text.to_owned() };
    line::endpoint(&whole).map_err(|error| error.replacen("endpoint", "--endpoint", 1))
}

/// The file.
fn text(options: &Options, local: &Local, port: u16, line: &Line, peer: Option<&Line>) -> String {
    use std::fmt::Write;
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let name = &options.name;
    let mut text =
        format!("# {name}.toml: the file's name is the tunnel's name. For the other end, and no secret:\n# {line}\n");
    let mode = match local {
        Local { interface: Some(_), .. } => "raw",
        Local { bridge: Some(_), .. } => "bridge",
        Local { .. } => "tap",
    };
    let _ = writeln!(text, "mode = \"{mode}\"\n");
    match local {
        Local { interface: Some(interface), .. } => {
            let _ = writeln!(text, "[raw]\ninterface = {}\n", quoted(interface));
        }
        Local { bridge: Some(bridge), .. } => {
            let _ = writeln!(text, "[tap]\nbridge = {}\n", quoted(bridge));
        }
        Local { addresses, .. } => {
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
    let any = Endpoint { host: if v6 { "::" } else { "0.0.0.0" }.into(), port };
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
    fn the_other_end_gets_an_address_beside_ours() {
        for (own, other) in [
            ("10.8.0.1/24", Some("10.8.0.2/24")),
            ("10.8.0.254/24", Some("10.8.0.253/24")),
            ("10.8.0.0/31", Some("10.8.0.1/31")),
            ("10.8.0.1/31", Some("10.8.0.0/31")),
            ("10.8.0.1/30", Some("10.8.0.2/30")),
            ("10.8.0.1/32", None),
            ("fd00::1/64", Some("fd00::2/64")),
            ("fd00::/127", Some("fd00::1/127")),
            ("255.255.255.254/0", Some("255.255.255.253/0")),
            ("fd00::1/0", Some("fd00::2/0")),
        ] {
            let found = neighbour(inner(own).unwrap()).map(|(ip, prefix)| format!("{ip}/{prefix}"));
            assert_eq!(found.as_deref(), other, "{own}");
        }
    }

    #[test]
    fn a_network_that_the_other_end_names_is_taken_unasked_only_if_it_is_private() {
        for (network, private) in [
            ("10.8.0.1/24", true),
            ("10.0.0.1/8", true),
            ("10.0.0.1/7", false),
            ("172.16.0.1/12", true),
            ("172.16.0.1/11", false),
            ("172.32.0.1/24", false),
            ("192.168.255.1/16", true),
            ("192.168.1.1/15", false),
            ("169.254.0.1/16", true),
            ("198.51.100.1/24", false),
            ("0.0.0.1/0", false),
            ("fd00::1/7", true),
            ("fd00::1/6", false),
            ("fe80::1/10", true),
            ("fe80::1/9", false),
            ("2001:db8::1/64", false),
            ("::1/0", false),
        ] {
            assert_eq!(is_private(inner(network).unwrap()), private, "{network}");
        }
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
            ("a b", Err("--endpoint \"a b:6001\": must be ADDRESS:PORT")),
            ("a:0", Err("must be a number")),
        ] {
            match (endpoint(text, 6001).map(|endpoint| endpoint.to_string()), whole) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(error), Err(words)) => assert!(error.contains(words), "{error}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }
}
