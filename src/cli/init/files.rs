//! File and key on the disk: made where nothing is, or completed by one rename.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};

use super::line::{self, Line};
use super::{peer_key, public_of, remote, remote_of};
use crate::Error;
use crate::service::files;
use crate::tunnel::{self, Port, keys};

/// The files of one tunnel.
pub struct Place {
    directory: PathBuf,
    name: String,
    /// `NAME.toml`.
    pub file: PathBuf,
    /// `NAME.key`.
    pub key: PathBuf,
}

impl Place {
    pub fn new(directory: &Path, name: &str) -> Self {
        let file = directory.join(format!("{name}.toml"));
        let key = directory.join(format!("{name}.key"));
        Self { directory: directory.to_owned(), name: name.to_owned(), file, key }
    }

    /// Whether there is a file, or what has its name.
    pub fn exists(&self) -> bool {
        fs::symlink_metadata(&self.file).is_ok()
    }

    /// What to say of a file that need not be made.
    pub fn is_there(&self) -> Error {
        let (file, key) = (self.file.display(), self.key.display());
        Error::failure(format!(
            "{file}: is there already; --peer LINE completes it, another NAME makes another. To make it anew, remove it and {key}"
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
                ErrorKind::NotFound => {
                    let directory = self.directory.display();
                    format!(
                        "; the directory must be there, as `install -d -m 750 -g ethudp-status {directory}` makes it"
                    )
                }
                ErrorKind::PermissionDenied => "; `ethudp init` is for root, or for a --dir of your own".into(),
                _ => String::new(),
            };
            Error::failure(format!("{}: {error}{right}", path.display()))
        };
        // Nobody but its owner may read the key. In the file there is no secret, and the user of the unit reads it.
        files::write_new(&self.key, &[key.as_bytes(), b"\n"], 0o600).map_err(|error| failed(&self.key, &error))?;
        files::write_new(&self.file, &[text.as_bytes()], 0o644).map_err(|error| {
            let _ = fs::remove_file(&self.key);
            failed(&self.file, &error)
        })?;
        let checked = tunnel_of(text, self).and_then(|()| sync(&self.directory).map_err(|error| error.to_string()));
        checked.map_err(|error| {
            let _ = fs::remove_file(&self.file).and_then(|()| fs::remove_file(&self.key));
            Error::failure(format!("{}: {error}", self.file.display()))
        })
    }

    /// Adds the peer to the file, and returns the line for it.
    ///
    /// # Errors
    /// Where there is another peer.
    pub fn complete(&self, peer: &Line) -> Result<Line, Error> {
        self.completed(peer).map_err(|error| Error::failure(format!("{}: {error}", self.file.display())))
    }

    fn completed(&self, peer: &Line) -> Result<Line, String> {
        // The file itself, where its name is a link to it.
        let path = fs::canonicalize(&self.file).map_err(|error| error.to_string())?;
        let (text, metadata) = files::text(&path).map_err(|error| error.to_string())?;
        let own = self.own_line(&text)?;
        if own.key == peer.key {
            return Err("--peer is this end's own line; must be the other end's".into());
        }
        let new = add(&text, peer)?;
        if let Some(flaw) = files::foreign_hand(&metadata) {
            return Err(flaw);
        }
        let whole = tunnel::file::from_text(&new, &self.name, &self.directory)?;
        let fits = whole.secure().is_some_and(|secure| secure.peer_key == peer.key);
        if !fits {
            return Err("[secure] cannot be found in it, so the peer cannot be added".into());
        }
        if let Port::Tap { addresses, .. } = &whole.port
            && let Some((ip, _)) = peer.inner.filter(|inner| addresses.iter().any(|own| own.0 == inner.0))
        {
            return Err(format!(
                "tap.address: {ip} is the other end's, too; give this end or that another, of the same network"
            ));
        }
        if own.endpoint.is_none() && peer.endpoint.is_none() {
            return Err("neither end has said where it is: make one of them anew with --endpoint HOST[:PORT]".into());
        }
        if new != text {
            replace(&path, &new, &metadata)?;
        }
        Ok(own)
    }

    /// The line of this end: its key is that of the private one, the rest what stands in a comment since it was made.
    fn own_line(&self, text: &str) -> Result<Line, String> {
        let noted = text.lines().find_map(|line| line::parse(line.strip_prefix("# ")?).ok());
        let secret = tunnel::file::private_key(text, &self.directory)?;
        let key = public_of(&secret).ok_or("secure.private-key-file: is no key")?;
        match noted {
            Some(line) if line.key == key => Ok(line),
            _ => {
                Err("has not the line for the other end in it, as `ethudp init` writes it: add the peer by hand".into())
            }
        }
    }
}

/// Whether a file that was just made is one, as far as it is complete.
fn tunnel_of(text: &str, place: &Place) -> Result<(), String> {
    match tunnel::file::from_text(text, &place.name, &place.directory) {
        Err(error) if !error.contains("secure.peer-public-key is missing") => Err(error),
        _ => Ok(()),
    }
}

/// The text with the peer in it, if there is none or this one.
pub fn add(text: &str, peer: &Line) -> Result<String, String> {
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
    let paths = table.get("path").and_then(toml::Value::as_array).map_or(&[][..], Vec::as_slice);
    let lacking = paths.iter().filter(|path| path.get("remote").is_none()).count();
    match (lacking, paths.len()) {
        // Where the user has given it before there was a peer, it stays. A line that does not say where its end is contradicts none.
        (0, 1) if known_peer.is_some() && peer.endpoint.is_some() => is_there(&paths[0], &remote_of(peer))?,
        (0, 1..) => {}
        (1, 1) => new = behind(&new, "[[path]]", &remote(peer))?,
        _ => return Err("[[path]]: there must be one, as `ethudp init` writes it; give remote by hand".into()),
    }
    Ok(new)
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

/// Puts a new file in the place of one, with the same owner and mode.
fn replace(path: &Path, text: &str, old: &fs::Metadata) -> Result<(), String> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = directory.join(name);
    let say = |error: io::Error| format!("{}: {error}", new.display());
    files::write_new(&new, &[text.as_bytes()], old.mode() & 0o777).map_err(|error| {
        let left = error.kind() == ErrorKind::AlreadyExists;
        say(error) + if left { "; a run that was cut off has left it: remove it" } else { "" }
    })?;
    let given = File::open(&new).and_then(|file| {
        let made = file.metadata()?;
        if (made.uid(), made.gid()) == (old.uid(), old.gid()) {
            Ok(())
        } else {
            fchown(&file, Some(old.uid()), Some(old.gid()))
        }
    });
    let result = given.and_then(|()| fs::rename(&new, path)).and_then(|()| sync(directory));
    result.map_err(|error| {
        let _ = fs::remove_file(&new);
        say(error)
    })
}

/// Has a directory's entries on the disk.
fn sync(directory: &Path) -> io::Result<()> {
    File::open(if directory.as_os_str().is_empty() { Path::new(".") } else { directory })?.sync_all()
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
