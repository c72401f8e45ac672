//! File and key of a tunnel on disk. New files never replace others; completing a file is one rename.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::line::{self, Line};
use super::{host, text};
use crate::Error;
use crate::service::directory::{self, Directory};
use crate::service::files;
use crate::tunnel::identifier;
use crate::tunnel::{self, Port, keys};

/// Files of one tunnel, in an opened directory.
pub struct TunnelFiles {
    directory: Directory,
    /// Name of the tunnel.
    pub name: String,
    /// Path of `NAME.toml`.
    pub file: PathBuf,
    /// Path of `NAME.key`.
    pub key: PathBuf,
}

/// An existing file of a tunnel.
struct ExistingFile {
    text: String,
    /// Line of this end, with the tunnel identifier of the file.
    own: Line,
    /// Text of that line in the file.
    noted: String,
    metadata: Metadata,
    /// Directory of the file, if its name is a link.
    elsewhere: Option<Directory>,
    name: String,
}

impl TunnelFiles {
    /// Opens the directory.
    ///
    /// # Errors
    /// Also when other users can replace files in the directory.
    pub fn new(directory: &Path, name: &str) -> Result<Self, Error> {
        let opened = Directory::open(directory).map_err(|error| {
            let right = directory::remedy(&error, directory);
            Error::failure(format!("directory {}: {error}{right}", directory.display()))
        })?;
        check_directory(&opened).map_err(Error::Failure)?;
        let file = directory.join(format!("{name}.toml"));
        let key = directory.join(format!("{name}.key"));
        Ok(Self { directory: opened, name: name.to_owned(), file, key })
    }

    /// Whether an object has the name of the file.
    pub fn exists(&self) -> bool {
        !matches!(self.directory.file(&self.file_name()), Err(error) if error.kind() == ErrorKind::NotFound)
    }

    fn file_name(&self) -> String {
        format!("{}.toml", self.name)
    }

    fn key_name(&self) -> String {
        format!("{}.key", self.name)
    }

    /// Error for a file that already exists.
    pub fn exists_error(&self) -> Error {
        let (file, key) = (self.file.display(), self.key.display());
        Error::failure(format!(
            "{file}: already exists; the line for the other end is in its first comment. Complete it with --peer LINE, \
             --endpoint or --address, or choose another NAME. To start again, remove it and {key}"
        ))
    }

    /// Creates both files. On failure neither is left.
    ///
    /// # Errors
    /// Also when one of them exists.
    pub fn create(&self, key: &str, text: &str) -> Result<(), Error> {
        let failed = |path: &Path, error: &io::Error| {
            let right = match error.kind() {
                ErrorKind::AlreadyExists => "; `init` never overwrites files: remove it, or choose another NAME".into(),
                _ => directory::remedy(error, self.directory.path()),
            };
            Error::failure(format!("{}: {error}{right}", path.display()))
        };
        // Only the owner may read the key. The file has no secret, and the user of the unit reads it.
        let (file_name, key_name) = (self.file_name(), self.key_name());
        self.directory.create(&key_name, &[key.as_bytes(), b"\n"], 0o600).map_err(|error| failed(&self.key, &error))?;
        self.directory.create(&file_name, &[text.as_bytes()], 0o644).map_err(|error| {
            let _ = self.directory.remove(&key_name);
            failed(&self.file, &error)
        })?;
        check_text(text, self).map_err(|error| {
            let _ = self.directory.remove(&file_name).and_then(|()| self.directory.remove(&key_name));
            Error::failure(format!("{}: {error}", self.file.display()))
        })
    }

    /// Adds the peer to the file. Returns the line of this end and the tunnel's local side.
    ///
    /// # Errors
    /// When the file has another peer.
    pub fn complete(&self, peer: &Line) -> Result<(Line, Port), Error> {
        self.add_peer(peer).map_err(|error| Error::failure(format!("{}: {error}", self.file.display())))
    }

    fn add_peer(&self, peer: &Line) -> Result<(Line, Port), String> {
        let there = self.read()?;
        let ExistingFile { text, own, noted, .. } = &there;
        if own.key == peer.key {
            return Err("--peer: this end's own line; must be the line of the other end".into());
        }
        let tunnel = identifier::agreed(own.tunnel, peer.tunnel);
        let own = Line { tunnel, ..own.clone() };
        let new = text::add_peer(text, peer, host::has_ipv6())?.replacen(&format!("# {noted}"), &format!("# {own}"), 1);
        let whole = tunnel::file::from_text(&new, &self.name, self.directory.path())?;
        let fits = whole.secure().is_some_and(|secure| secure.peer_key == peer.key && secure.tunnel_id == tunnel);
        if !fits {
            return Err("[secure] not found: add peer-public-key and tunnel-id by hand".into());
        }
        if let Port::Tap { addresses, .. } = &whole.port
            && let Some((ip, _)) = peer.inner.iter().find(|inner| addresses.iter().any(|own| own.0 == inner.0))
        {
            return Err(format!(
                "tap.address: both ends have {ip}; set another address of the same network at one end"
            ));
        }
        if own.endpoint.is_none() && peer.endpoint.is_none() {
            return Err(
                "--endpoint is missing at both ends: add --endpoint HOST[:PORT] here or at the other end".into()
            );
        }
        if new != *text {
            self.replace(&there, &new)?;
        }
        Ok((own, whole.port))
    }

    /// Reads an existing file of `init`.
    fn read(&self) -> Result<ExistingFile, String> {
        let (elsewhere, name) = self.resolve_link()?;
        let directory = elsewhere.as_ref().unwrap_or(&self.directory);
        let (text, metadata) = directory.file(&name).and_then(files::read).map_err(|error| error.to_string())?;
        if let Some(flaw) = files::foreign_hand(&metadata) {
            return Err(flaw);
        }
        let (own, noted) = self.own_line(&text)?;
        Ok(ExistingFile { text, own, noted, metadata, elsewhere, name })
    }

    /// Replaces the text of the file.
    fn replace(&self, there: &ExistingFile, text: &str) -> Result<(), String> {
        let directory = there.elsewhere.as_ref().unwrap_or(&self.directory);
        directory.replace(&there.name, &[text.as_bytes()], &there.metadata).map_err(|error| error.to_string())
    }

    /// Line and UDP port of this end, from a file without a peer.
    ///
    /// # Errors
    /// When the file is complete.
    pub fn read_incomplete(&self) -> Result<(Line, u16), String> {
        let ExistingFile { text, own, .. } = self.read()?;
        let table = text.parse::<toml::Table>().map_err(|error| error.message().replace('\n', " "))?;
        if table.get("secure").is_some_and(|secure| secure.get("peer-public-key").is_some()) {
            return Err("already complete; change it by hand".into());
        }
        let local = table.get("path").and_then(|paths| paths.get(0)?.get("local")?.as_str()?.rsplit_once(':'));
        let port = local.and_then(|(_, port)| port.parse().ok()).ok_or("path.local: no port")?;
        Ok((own, port))
    }

    /// Whether the file lacks a peer and a tunnel identifier, as a file of an older release does.
    pub fn lacks_identifier(&self) -> bool {
        self.read_incomplete().is_ok_and(|(own, _)| own.tunnel == identifier::NONE)
    }

    /// Adds to the file the parts of `line` that its own line lacks.
    pub fn extend(&self, line: &Line, ipv6: bool) -> Result<(), String> {
        let there = self.read()?;
        let mut text = there.text.replacen(&format!("# {}", there.noted), &format!("# {line}"), 1);
        if there.own.tunnel == identifier::NONE && line.tunnel != identifier::NONE {
            text = text::insert_after(&text, "[secure]", &text::tunnel_id(line.tunnel))?;
        }
        if line.inner != there.own.inner {
            let list = text::quoted_addresses(&line.inner);
            let begun = text.replacen("\naddress = []\n", &format!("\naddress = [{list}]\n"), 1);
            if begun == text {
                return Err(format!("tap.address is not as `ethudp init` wrote it; add by hand: address = [{list}]"));
            }
            text = begun;
        }
        if ipv6 && text::needs_ipv6(line.endpoint.as_ref()) {
            text = text::listen_on_both(&text);
        }
        check_text(&text, self)?;
        self.replace(&there, &text)
    }

    /// Directory and name of the file, if the tunnel's name in this directory is a link.
    fn resolve_link(&self) -> Result<(Option<Directory>, String), String> {
        let link = fs::symlink_metadata(&self.file).is_ok_and(|there| there.is_symlink());
        if !link {
            return Ok((None, self.file_name()));
        }
        let path = fs::canonicalize(&self.file).map_err(|error| error.to_string())?;
        let name = path.file_name().and_then(|name| name.to_str()).ok_or("link does not lead to a file")?.to_owned();
        let directory = Directory::open(path.parent().unwrap_or(Path::new("/"))).map_err(|error| error.to_string())?;
        check_directory(&directory)?;
        Ok((Some(directory), name))
    }

    /// Line of this end, and its text in the file. The key is derived from the private key, the tunnel identifier is that of the
    /// file, and the rest is from a comment that `init` wrote.
    fn own_line(&self, text: &str) -> Result<(Line, String), String> {
        let mut comments = text.lines().filter_map(|line| line.strip_prefix("# "));
        let noted = comments.find_map(|text| Some((line::noted(text)?, text.to_owned())));
        let table = text.parse::<toml::Table>().map_err(|error| error.message().replace('\n', " "))?;
        let tunnel = table.get("secure").map_or(Ok(None), text::known_identifier)?.unwrap_or(identifier::NONE);
        let secret = tunnel::file::private_key(text, self.directory.path())?;
        let key = keys::public_of(&secret).ok_or("secure.private-key-file: not a key")?;
        match noted {
            Some((line, noted)) if line.key == key => Ok((Line { tunnel, ..line }, noted)),
            _ => Err("no comment with the line of `ethudp init` for the key of this file: add the peer by hand".into()),
        }
    }
}

/// Refuses a directory in which other users could replace new files.
pub fn check_directory(directory: &Directory) -> Result<(), String> {
    match directory.foreign_hand() {
        Ok(None) => Ok(()),
        Ok(Some(flaw)) => Err(flaw),
        Err(error) => Err(format!("directory {}: {error}", directory.path().display())),
    }
}

/// Checks a text as far as it is complete.
fn check_text(text: &str, files: &TunnelFiles) -> Result<(), String> {
    match tunnel::file::from_text(text, &files.name, files.directory.path()) {
        Err(error) if !error.contains("secure.peer-public-key is missing") => Err(error),
        _ => Ok(()),
    }
}
