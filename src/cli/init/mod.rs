//! `ethudp init`: makes key and file of a tunnel and prints the line for the other end. The other end's line completes the file.
//!
//! Existing files are never overwritten. Completing adds to a file, and refuses a file with another peer.

pub mod files;
mod host;
pub mod inner;
pub mod line;
pub mod parameters;
pub mod paste;
pub mod text;

use std::path::Path;

use super::location::DIRECTORY;
use crate::error::Context;
use crate::service::networks;
use crate::tunnel::identifier;
use crate::tunnel::{Port, keys, names};
use crate::{Error, log};
use files::TunnelFiles;
use host::Host;
use line::Line;
use parameters::{Options, Parameters, endpoint, format_addresses, uplink_warning};
use paste::PeerArgument;

/// Makes or completes the files of a tunnel, and prints the line for the other end.
pub fn run(options: &Options) -> Result<(), Error> {
    let PeerArgument { peer, whole_command } =
        paste::parse(&options.name, &options.rest, &options.peer).map_err(Error::Usage)?;
    // The name of the file, with its ending, is accepted as well.
    let name = options.name.strip_suffix(".toml").unwrap_or(&options.name);
    // An existing file may have any name that `up` accepts. A new file needs a name that the unit accepts.
    if names::tunnel(name).is_err() {
        names::unit(name).map_err(Error::Usage)?;
    }
    // Errors in options come before obstacles on this host.
    Parameters::parse(options, name, &Host::default()).map_err(Error::Usage)?;
    let files = TunnelFiles::new(&options.dir, name)?;
    let there = files.exists();
    let (line, done) = match (there, &peer) {
        (true, peer) => {
            if let Some(peer) = peer {
                Host::look(&options.dir, Some(peer)).refuse_twice(peer, &files.file).map_err(Error::Failure)?;
            }
            (update(options, &files, peer.as_ref())?, peer.is_some())
        }
        (false, peer) => {
            names::unit(name).map_err(Error::Usage)?;
            let host = Host::look(&options.dir, peer.as_ref());
            if let Some(peer) = peer {
                host.refuse_twice(peer, &files.file).map_err(Error::Failure)?;
            }
            let given = Parameters::parse(options, name, &host).map_err(Error::Usage)?;
            (create(options, given, &files, peer.as_ref())?, peer.is_some())
        }
    };
    if whole_command {
        log::info(&format!("--peer: contains a whole command; using its line for tunnel {name:?}"));
    }
    if let Some(peer) = peer.filter(|_| done) {
        let fingerprint = keys::fingerprint(&line.key, &peer.key);
        log::info(&format!(
            "{} is complete; both ends must show the same fingerprint: {fingerprint}",
            files.file.display()
        ));
        log::info(&format!("if the other end is not complete yet, run there: ethudp init {name} --peer {line}"));
        let shown =
            if options.dir == Path::new(DIRECTORY) { name.to_owned() } else { files.file.display().to_string() };
        log::info(&format!(
            "start it with `ethudp up {shown}`; `ethudp check {shown}` lists what the unit still needs"
        ));
    } else {
        let (file, key) = (files.file.display(), files.key.display());
        log::info(&if there { format!("changed {file}") } else { format!("wrote {file} and {key}") });
        if line.endpoint.is_none() {
            log::info(
                "this end has no --endpoint: set --endpoint at the other end, or run `ethudp init` here again with the \
                 same NAME and --endpoint",
            );
        }
        log::info(&format!("run at the other end: ethudp init {name} --peer {line}"));
        let dir = if options.dir == Path::new(DIRECTORY) {
            String::new()
        } else {
            format!(" --dir {}", options.dir.display())
        };
        log::info(&format!(
            "then run here, with the line that the other end prints: ethudp init {name} --peer LINE{dir}"
        ));
    }
    log::print(&format!("{line}\n"))
}

/// Creates both files, complete if the peer is known.
fn create(options: &Options, mut given: Parameters, files: &TunnelFiles, peer: Option<&Line>) -> Result<Line, Error> {
    let explicit = given.addresses.len();
    if let Some(peer) = peer {
        given.choose_addresses(peer).map_err(Error::Usage)?;
    }
    given.check_endpoint().map_err(Error::Usage)?;
    given.bridge.as_deref().map_or(Ok(()), host::is_bridge).map_err(Error::Usage)?;
    let warnings = given.conflicts(explicit, &networks::all()).map_err(Error::Failure)?;
    if peer.is_some_and(|peer| peer.endpoint.is_none()) && given.endpoint.is_none() {
        return Err(Error::usage(
            "--endpoint is missing: one end must have a known address. Add --endpoint HOST[:PORT] here, or run `ethudp \
             init NAME --endpoint HOST[:PORT]` at the other end and use the new line",
        ));
    }
    let private = keys::new_private().context(super::keys::randomness)?;
    let tunnel = peer.map_or_else(identifier::random, |peer| Ok(peer.tunnel)).context(super::keys::randomness)?;
    let line = Line {
        joins: given.joins_network(),
        key: keys::public(&private),
        tunnel,
        slot: 0,
        inner: given.addresses.iter().copied().take(line::ADDRESSES).collect(),
        endpoint: given.endpoint.clone(),
    };
    if let Some(peer) = peer {
        keys::check_peer("--peer", &private, &peer.key).map_err(Error::Usage)?;
    }
    let text = text::new_file(&files.name, &given, &line, peer);
    files.create(&keys::text(&private), &text)?;
    let file = files.file.display();
    if explicit == 0 && !given.addresses.is_empty() {
        let list = format_addresses(&given.addresses);
        log::info(&format!(
            "{file}: the TAP interface gets {list}, next to the other end's address; change it with tap.address"
        ));
    }
    if let Some(tap) = given.tap.as_ref().filter(|tap| **tap != files.name) {
        log::info(&format!("{file}: the TAP interface gets the name {tap}; change it with tap.name"));
    }
    for line in warnings {
        log::warning(&format!("{file}: {line}"));
    }
    given.warn(options, &files.file, peer);
    Ok(line)
}

/// Adds the missing parts to a file: endpoint and addresses of this end, and the peer.
fn update(options: &Options, files: &TunnelFiles, peer: Option<&Line>) -> Result<Line, Error> {
    if options.bridge.is_some() || options.interface.is_some() || options.port.is_some() {
        return Err(Error::usage(format!(
            "{}: already exists, so only --peer, --endpoint, --address and --dir are possible; edit the file for the rest",
            files.file.display()
        )));
    }
    let more = !options.address.is_empty() || options.endpoint.is_some();
    let lacks_identifier = peer.is_none() && files.lacks_identifier();
    let extended = (more || lacks_identifier).then(|| extend(options, files, peer)).transpose()?;
    match (peer, extended) {
        (Some(peer), _) => {
            let (line, port) = files.complete(peer)?;
            if let Port::Raw { interface, .. } = port
                && let Some(line) = uplink_warning("raw.interface", &interface, Some(peer))
            {
                log::warning(&format!("{}: {line}", files.file.display()));
            }
            Ok(line)
        }
        (None, Some(line)) => Ok(line),
        (None, None) => Err(files.exists_error()),
    }
}

/// Adds endpoint and addresses of this end, and the tunnel identifier, to a file without a peer.
fn extend(options: &Options, files: &TunnelFiles, peer: Option<&Line>) -> Result<Line, Error> {
    let wrong = |error: String| Error::usage(format!("{}: {error}", files.file.display()));
    let (own, port) = files.read_incomplete().map_err(wrong)?;
    if let Some(known) = own.endpoint.as_ref().filter(|_| options.endpoint.is_some()) {
        return Err(wrong(format!(
            "--endpoint: already set to {known}; to change it, remove the file and its key and run \
                                  `ethudp init` again"
        )));
    }
    if !options.address.is_empty() && own.joins {
        return Err(wrong("--address: not possible with a bridge or an interface".into()));
    }
    if !options.address.is_empty() && !own.inner.is_empty() {
        let known = format_addresses(&own.inner);
        return Err(wrong(format!("--address: already set to {known}; change tap.address in the file")));
    }
    let mut given =
        Parameters::parse(options, &files.name, &Host::look(&options.dir, Some(&own))).map_err(Error::Usage)?;
    given.endpoint = options.endpoint.as_deref().map(|text| endpoint(text, port)).transpose().map_err(Error::Usage)?;
    let conflicts = given.conflicts(given.addresses.len(), &networks::all()).map_err(Error::Failure)?;
    if given.addresses.is_empty() {
        given.addresses.clone_from(&own.inner);
    }
    given.check_endpoint().map_err(Error::Usage)?;
    let inner = given.addresses.iter().copied().take(line::ADDRESSES).collect();
    let tunnel = match (own.tunnel, peer) {
        (identifier::NONE, Some(peer)) => peer.tunnel,
        (identifier::NONE, None) => identifier::random().context(super::keys::randomness)?,
        (own, _) => own,
    };
    let line = Line { endpoint: given.endpoint.clone().or(own.endpoint), inner, tunnel, ..own };
    files.extend(&line, given.ipv6).map_err(wrong)?;
    for line in conflicts {
        log::warning(&format!("{}: {line}", files.file.display()));
    }
    if !line.joins {
        given.taken_by = None;
        given.warn(options, &files.file, None);
    }
    Ok(line)
}
