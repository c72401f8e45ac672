//! File and key on the disk: made where nothing is, or completed by one rename.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::line::{self, Line};
use super::{host, needs_ipv6, peer_key, peer_slot, remote, remote_of, tunnel_id};
use crate::Error;
use crate::service::directory::{self, Directory};
use crate::service::files;
use crate::tunnel::identifier::{self, Identifier};
use crate::tunnel::{self, Port, keys};

/// The files of one tunnel, in a directory that was opened once.
pub struct Place {
    directory: Directory,
    /// The tunnel's name.
    pub name: String,
    /// `NAME.toml`.
    pub file: PathBuf,
    /// `NAME.key`.
    pub key: PathBuf,
}

/// A file that is there.
struct There {
    text: String,
    /// The line of this end, with the tunnel identifier that the file has.
    own: Line,
    /// The same as it stands in the file.
    noted: String,
    metadata: Metadata,
    /// The directory of the file itself, where its name is a link.
    elsewhere: Option<Directory>,
    name: String,
}

impl Place {
    /// # Errors
    /// Also where others can exchange files in the directory.
    pub fn new(directory: &Path, name: &str) -> Result<Self, Error> {
        let opened = Directory::open(directory).map_err(|error| {
            let right = directory::remedy(&error, directory);
            Error::failure(format!("directory {}: {error}{right}", directory.display()))
        })?;
        trusted(&opened).map_err(Error::Failure)?;
        let file = directory.join(format!("{name}.toml"));
        let key = directory.join(format!("{name}.key"));
        Ok(Self { directory: opened, name: name.to_owned(), file, key })
    }

    /// Whether there is a file, or what has its name.
    pub fn exists(&self) -> bool {
        !matches!(self.directory.file(&self.file_name()), Err(error) if error.kind() == ErrorKind::NotFound)
    }

    fn file_name(&self) -> String {
        format!("{}.toml", self.name)
    }

    fn key_name(&self) -> String {
        format!("{}.key", self.name)
    }

    /// What to say of a file that need not be made.
    pub fn is_there(&self) -> Error {
        let (file, key) = (self.file.display(), self.key.display());
        Error::failure(format!(
            "{file}: is there already, with the line for the other end in a comment; --peer LINE completes it, --endpoint and --address \
             add what it lacks, another NAME makes another. To make it anew, remove it and {key}"
        ))
    }

    /// Makes both; neither is left when one cannot be made.
    ///
    /// # Errors
    /// Also where one is there.
    pub fn create(&self, key: &str, text: &str) -> Result<(), Error> {
        let failed = |path: &Path, error: &io::Error| {
            let right = match error.kind() {
                ErrorKind::AlreadyExists => "; it is never overwritten: remove it, or choose another NAME".into(),
                _ => directory::remedy(error, self.directory.path()),
            };
            Error::failure(format!("{}: {error}{right}", path.display()))
        };
        // Nobody but its owner may read the key. In the file there is no secret, and the user of the unit reads it.
        let (file_name, key_name) = (self.file_name(), self.key_name());
        self.directory.create(&key_name, &[key.as_bytes(), b"\n"], 0o600).map_err(|error| failed(&self.key, &error))?;
        self.directory.create(&file_name, &[text.as_bytes()], 0o644).map_err(|error| {
            let _ = self.directory.remove(&key_name);
            failed(&self.file, &error)
        })?;
        tunnel_of(text, self).map_err(|error| {
            let _ = self.directory.remove(&file_name).and_then(|()| self.directory.remove(&key_name));
            Error::failure(format!("{}: {error}", self.file.display()))
        })
    }

    /// Adds the peer to the file, and returns the line for it, and the tunnel's local side.
    ///
    /// # Errors
    /// Where there is another peer.
    pub fn complete(&self, peer: &Line) -> Result<(Line, Port), Error> {
        self.completed(peer).map_err(|error| Error::failure(format!("{}: {error}", self.file.display())))
    }

    fn completed(&self, peer: &Line) -> Result<(Line, Port), String> {
        let there = self.there()?;
        let There { text, own, noted, .. } = &there;
        if own.key == peer.key {
            return Err("--peer is this end's own line; must be the other end's".into());
        }
        let tunnel = identifier::agreed(own.tunnel, peer.tunnel);
        let own = Line { tunnel, ..own.clone() };
        let new = add(text, peer, host::has_ipv6())?.replacen(&format!("# {noted}"), &format!("# {own}"), 1);
        let whole = tunnel::file::from_text(&new, &self.name, self.directory.path())?;
        let fits = whole.secure().is_some_and(|secure| secure.peer_key == peer.key && secure.tunnel_id == tunnel);
        if !fits {
            return Err("[secure] cannot be found in it, so peer and tunnel-id cannot be added".into());
        }
        if let Port::Tap { addresses, .. } = &whole.port
            && let Some((ip, _)) = peer.inner.iter().find(|inner| addresses.iter().any(|own| own.0 == inner.0))
        {
            return Err(format!(
                "tap.address: {ip} is the other end's, too; give this end or that another, of the same network"
            ));
        }
        if own.endpoint.is_none() && peer.endpoint.is_none() {
            return Err(
                "neither end has said where it is: give --endpoint HOST[:PORT] here, or at the other end".into()
            );
        }
        if new != *text {
            self.replace(&there, &new)?;
        }
        Ok((own, whole.port))
    }

    /// What is in the file that `init` has made.
    fn there(&self) -> Result<There, String> {
        let (elsewhere, name) = self.behind_links()?;
        let directory = elsewhere.as_ref().unwrap_or(&self.directory);
        let (text, metadata) = directory.file(&name).and_then(files::read).map_err(|error| error.to_string())?;
        if let Some(flaw) = files::foreign_hand(&metadata) {
            return Err(flaw);
        }
        let (own, noted) = self.own_line(&text)?;
        Ok(There { text, own, noted, metadata, elsewhere, name })
    }

    /// Puts another text into the file.
    fn replace(&self, there: &There, text: &str) -> Result<(), String> {
        let directory = there.elsewhere.as_ref().unwrap_or(&self.directory);
        directory.replace(&there.name, &[text.as_bytes()], &there.metadata).map_err(|error| error.to_string())
    }

    /// The line of this end in a file without a peer, and the UDP port.
    ///
    /// # Errors
    /// Where the file is complete.
    pub fn incomplete(&self) -> Result<(Line, u16), String> {
        let There { text, own, .. } = self.there()?;
        let table = text.parse::<toml::Table>().map_err(|error| error.message().replace('\n', " "))?;
        if table.get("secure").is_some_and(|secure| secure.get("peer-public-key").is_some()) {
            return Err("is complete; change it by hand".into());
        }
        let local = table.get("path").and_then(|paths| paths.get(0)?.get("local")?.as_str()?.rsplit_once(':'));
        let port = local.and_then(|(_, port)| port.parse().ok()).ok_or("local: has no port")?;
        Ok((own, port))
    }

    /// Whether the file lacks a peer and a tunnel identifier, as one of an older release does.
    pub fn lacks_identifier(&self) -> bool {
        self.incomplete().is_ok_and(|(own, _)| own.tunnel == identifier::NONE)
    }

    /// Adds to the file what this line of this end has and the one in it has not.
    pub fn extend(&self, line: &Line, ipv6: bool) -> Result<(), String> {
        let there = self.there()?;
        let mut text = there.text.replacen(&format!("# {}", there.noted), &format!("# {line}"), 1);
        if there.own.tunnel == identifier::NONE && line.tunnel != identifier::NONE {
            text = behind(&text, "[secure]", &tunnel_id(line.tunnel))?;
        }
        if line.inner != there.own.inner {
            let list = super::quoted(&line.inner);
            let begun = text.replacen("\naddress = []\n", &format!("\naddress = [{list}]\n"), 1);
            if begun == text {
                return Err(format!("stands not as `ethudp init` has written it; add by hand: tap.address = [{list}]"));
            }
            text = begun;
        }
        if ipv6 && needs_ipv6(line.endpoint.as_ref()) {
            text = hears_both(&text);
        }
        tunnel_of(&text, self)?;
        self.replace(&there, &text)
    }

    /// The directory and the name of the file itself, where its name in this directory is a link to it.
    fn behind_links(&self) -> Result<(Option<Directory>, String), String> {
        let link = fs::symlink_metadata(&self.file).is_ok_and(|there| there.is_symlink());
        if !link {
            return Ok((None, self.file_name()));
        }
        let path = fs::canonicalize(&self.file).map_err(|error| error.to_string())?;
        let name = path.file_name().and_then(|name| name.to_str()).ok_or("is a link to what is no file")?.to_owned();
        let directory = Directory::open(path.parent().unwrap_or(Path::new("/"))).map_err(|error| error.to_string())?;
        trusted(&directory)?;
        Ok((Some(directory), name))
    }

    /// The line of this end, and how it stands in the file: its key is that of the private one, its tunnel identifier that of the
    /// file, the rest what stands in a comment since it was made.
    fn own_line(&self, text: &str) -> Result<(Line, String), String> {
        let mut comments = text.lines().filter_map(|line| line.strip_prefix("# "));
        let noted = comments.find_map(|text| Some((line::noted(text)?, text.to_owned())));
        let table = text.parse::<toml::Table>().map_err(|error| error.message().replace('\n', " "))?;
        let tunnel = table.get("secure").map_or(Ok(None), known_identifier)?.unwrap_or(identifier::NONE);
        let secret = tunnel::file::private_key(text, self.directory.path())?;
        let key = keys::public_of(&secret).ok_or("secure.private-key-file: is no key")?;
        match noted {
            Some((line, noted)) if line.key == key => Ok((Line { tunnel, ..line }, noted)),
            _ => {
                Err("has not the line for the other end in it, as `ethudp init` writes it: add the peer by hand".into())
            }
        }
    }
}

/// Refuses a directory in which others could exchange what is made.
pub fn trusted(directory: &Directory) -> Result<(), String> {
    match directory.foreign_hand() {
        Ok(None) => Ok(()),
        Ok(Some(flaw)) => Err(flaw),
        Err(error) => Err(format!("directory {}: {error}", directory.path().display())),
    }
}

/// Whether a file that was just made is one, as far as it is complete.
fn tunnel_of(text: &str, place: &Place) -> Result<(), String> {
    match tunnel::file::from_text(text, &place.name, place.directory.path()) {
        Err(error) if !error.contains("secure.peer-public-key is missing") => Err(error),
        _ => Ok(()),
    }
}

/// The text with the peer in it, if there is none or this one.
pub fn add(text: &str, peer: &Line, ipv6: bool) -> Result<String, String> {
    let table = text.parse::<toml::Table>().map_err(|error| error.message().replace('\n', " "))?;
    let secure =
        table.get("secure").and_then(toml::Value::as_table).ok_or("has no [secure]: is of the classic wire")?;
    let mut new = text.to_owned();
    let known_peer = secure.get("peer-public-key").and_then(toml::Value::as_str);
    match known_peer {
        None => new = behind(&new, "[secure]", &peer_key(peer))?,
        Some(known) if known == keys::text(&peer.key).as_str() => {}
        Some(known) => {
            let other = keys::text(&peer.key);
            return Err(format!(
                "secure.peer-public-key = {known:?}: is another peer than that of --peer, {:?}; remove it to change the peer",
                *other
            ));
        }
    }
    new = with_identifier(new, secure, peer, known_peer.is_some())?;
    match secure.get("peer-slot").and_then(toml::Value::as_integer) {
        None if peer.slot > 0 => new = behind(&new, "[secure]", &peer_slot(peer))?,
        Some(known) if peer.slot > 0 && known != i64::from(peer.slot) => {
            return Err(format!(
                "secure.peer-slot = {known}: the line of --peer has {}; remove it to take that",
                peer.slot
            ));
        }
        _ => {}
    }
    let paths = table.get("path").and_then(toml::Value::as_array).map_or(&[][..], Vec::as_slice);
    let lacking = paths.iter().filter(|path| path.get("remote").is_none()).count();
    match (lacking, paths.len()) {
        // Where the user has given it before there was a peer, it stays. A line that does not say where its end is contradicts none.
        (0, 1) if known_peer.is_some() && peer.endpoint.is_some() => is_there(&paths[0], &remote_of(peer))?,
        (0, 1..) => {}
        (1, 1) => {
            new = behind(&new, "[[path]]", &remote(peer))?;
            if ipv6 && needs_ipv6(peer.endpoint.as_ref()) {
                new = hears_both(&new);
            }
        }
        _ => return Err("[[path]]: there must be one, as `ethudp init` writes it; give remote by hand".into()),
    }
    Ok(new)
}

/// The tunnel identifier in `[secure]`.
fn known_identifier(secure: &toml::Value) -> Result<Option<Identifier>, String> {
    let known = secure.get("tunnel-id").and_then(toml::Value::as_str);
    known.map(|text| identifier::parse("secure.tunnel-id", text)).transpose()
}

/// The text with the tunnel identifier of both ends; where the peer was known before, it is not exchanged.
fn with_identifier(text: String, secure: &toml::Table, peer: &Line, is_complete: bool) -> Result<String, String> {
    let known = known_identifier(&toml::Value::Table(secure.clone()))?;
    let agreed = identifier::agreed(known.unwrap_or(identifier::NONE), peer.tunnel);
    match known {
        None if agreed == identifier::NONE => Ok(text),
        None => behind(&text, "[secure]", &tunnel_id(agreed)),
        Some(known) if known == agreed => Ok(text),
        Some(known) if is_complete => Err(format!(
            "secure.tunnel-id = {:?}: the line of --peer has {:?}; remove tunnel-id from the file to take that",
            identifier::text(known),
            identifier::text(agreed)
        )),
        Some(known) => {
            let new = text.replacen(&tunnel_id(known), &tunnel_id(agreed), 1);
            if new == text {
                return Err(format!(
                    "stands not as `ethudp init` has written it; change by hand: {}",
                    tunnel_id(agreed)
                ));
            }
            Ok(new)
        }
    }
}

/// Whether a path leads to where the peer's line has it.
fn is_there(path: &toml::Value, said: &str) -> Result<(), String> {
    let Some(known) = path.get("remote").and_then(toml::Value::as_str) else { return Ok(()) };
    let same = match (known.parse::<SocketAddr>(), said.parse::<SocketAddr>()) {
        (Ok(known), Ok(said)) => known == said,
        _ => known.eq_ignore_ascii_case(said),
    };
    if same {
        return Ok(());
    }
    Err(format!(
        "remote = {known:?}: the line of --peer has the other end at {said:?}; remove remote from the file to take that"
    ))
}

/// The text with a `local` that hears IPv6, too, where it is as `ethudp init` has written it.
fn hears_both(text: &str) -> String {
    let line = |own: &str| match own.strip_prefix("local = \"0.0.0.0:") {
        Some(port) => format!("local = \"[::]:{port}"),
        None => own.to_owned(),
    };
    text.split_inclusive('\n').map(line).collect()
}

/// The text with a line behind a table's header.
fn behind(text: &str, header: &str, line: &str) -> Result<String, String> {
    let is_header = |words: &str| words.split('#').next().is_some_and(|words| words.trim() == header);
    let mut found = false;
    let mut new = String::with_capacity(text.len() + line.len() + 1);
    for own in text.split_inclusive('\n') {
        new.push_str(own);
        if !found && is_header(own) {
            found = true;
            let end = if own.ends_with('\n') { "" } else { "\n" };
            new = new + end + line + "\n";
        }
    }
    if found { Ok(new) } else { Err(format!("{header}: stands on no line of its own; add by hand: {line}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_put_behind_a_header_however_it_is_written() {
        for (text, new) in [
            ("a = 1\n[secure]\nb = 2\n", "a = 1\n[secure]\nx\nb = 2\n"),
            (" [secure] # ours\n", " [secure] # ours\nx\n"),
            ("[secure]", "[secure]\nx\n"),
        ] {
            assert_eq!(behind(text, "[secure]", "x").as_deref(), Ok(new));
        }
        assert!(behind("secure.a = 1\n", "[secure]", "x").unwrap_err().contains("add by hand: x"));
    }
}
