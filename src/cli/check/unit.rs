//! Obstacles for the user of the systemd unit (`dist/ethudp@.service`) in a tunnel's files, checked by another user.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::cli::location::DIRECTORY;
use crate::service::files;
use crate::service::identity;
use crate::tunnel::file::Read;
use crate::tunnel::names;

/// Prefix of the name of each tunnel's user.
const USER: &str = "ethudp_";

/// Whether systemd runs on this host (`sd_booted(3)`).
pub fn starts_tunnels() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Actions that fail for the unit's user, each in a line with its remedy. Obstacles that drop-ins remove are left out. The file
/// belongs to tunnel `name` in `home`; `in_place` if it is already there.
pub fn obstacles(read: &Read, name: &str, home: &Path, in_place: bool) -> Vec<String> {
    let drop_ins = DropIns::of(name);
    let mut lines = Vec::new();
    if home == Path::new(DIRECTORY) {
        lines.extend(no_user(name).filter(|_| !drop_ins.has_user()));
        if in_place && !drop_ins.has_user() && !is_readable(&read.metadata) {
            lines.push(
                "not readable for the unit's user: run `chgrp ethudp-status` and `chmod 640`, or `chmod 644`".into(),
            );
        }
        if in_place && !drop_ins.has_user() && read.tunnel.run.is_some() && read.metadata.uid() != 0 {
            let owner = read.metadata.uid();
            lines.push(format!(
                "the unit refuses a file with `run` that belongs to user {owner}; must belong to root (`chown root`)"
            ));
        }
    }
    for (key, file) in &read.names {
        let file = file.to_string_lossy();
        lines.extend(match *key {
            "vlan-map-file" => unreadable(&file, home, &drop_ins),
            key => lacking(name, key, &file, home, &drop_ins),
        });
    }
    lines
}

/// Whether group `ethudp-status` can read the file.
fn is_readable(file: &Metadata) -> bool {
    file.mode() & 0o004 != 0 || file.mode() & 0o040 != 0 && Some(file.gid()) == identity::status_group()
}

/// Line for a file without secrets that the unit's user cannot read.
fn unreadable(file: &str, home: &Path, drop_ins: &DropIns) -> Option<String> {
    let metadata = fs::metadata(home.join(file)).ok()?;
    (home == Path::new(DIRECTORY) && !drop_ins.has_user() && !is_readable(&metadata)).then(|| {
        format!("{file}: not readable for the unit's user: run `chgrp ethudp-status` and `chmod 640`, or `chmod 644`")
    })
}

/// Line with the way to hand a secret to the unit's user. A mode cannot: a secret that the status group can read is refused.
fn lacking(name: &str, key: &str, secret: &str, directory: &Path, drop_ins: &DropIns) -> Option<String> {
    let path = directory.join(secret);
    let path = fs::canonicalize(&path).unwrap_or(path);
    let id = path.file_name()?.to_string_lossy().into_owned();
    let by_group = drop_ins.has_group() && fs::metadata(&path).is_ok_and(|file| file.mode() & 0o040 != 0);
    if drop_ins.has_user() || by_group || drop_ins.has_credential(name, secret) {
        return None;
    }
    let shown = path.display();
    let usual = path == Path::new(DIRECTORY).join(format!("{name}.key"));
    let how = if usual {
        "add the drop-in ethudp-credential.conf from the examples".into()
    } else {
        format!("add a drop-in with `LoadCredential={id}:{shown}`")
    };
    let rename = if secret == id { String::new() } else { format!(", and set `{key} = \"{id}\"` in this file") };
    Some(format!("{secret}: not readable for the user of ethudp@{name}: {how}{rename}"))
}

/// Line for a name of which systemd makes no user.
fn no_user(name: &str) -> Option<String> {
    let error = names::unit(name).err()?;
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let other: String = name.chars().map(|c| if good(c) { c } else { '_' }).take(names::LONGEST).collect();
    Some(format!(
        "{error}; systemd does not create the user \"{USER}{name}\" for ethudp@{name}: rename the file, or add a drop-in \
         with `User={USER}{other}`, a user of this tunnel alone"
    ))
}

/// Settings of the drop-ins of one instance.
struct DropIns(Vec<(String, String)>);

impl DropIns {
    /// Reads the drop-ins from the directories of systemd.unit(5).
    fn of(name: &str) -> Self {
        let mut settings = Vec::new();
        for place in ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system"] {
            for unit in [format!("ethudp@{name}"), "ethudp@".into()] {
                let directory = PathBuf::from(format!("{place}/{unit}.service.d"));
                let files = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
                let texts = files.filter(|file| file.extension().is_some_and(|end| end == "conf"));
                settings
                    .extend(texts.filter_map(|file| Some(files::text(&file).ok()?.0)).flat_map(|text| parse(&text)));
            }
        }
        Self(settings)
    }

    fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(own, _)| own == key).map(|(_, value)| value.as_str())
    }

    /// Whether a drop-in sets a user, whose rights are not known here.
    fn has_user(&self) -> bool {
        self.values("User").next().is_some()
    }

    /// Whether a drop-in adds the group that may read keys.
    fn has_group(&self) -> bool {
        self.values("SupplementaryGroups").any(|groups| groups.split_whitespace().any(|group| group == "ethudp"))
    }

    /// Whether a drop-in passes a secret as a credential with the name that the file uses.
    fn has_credential(&self, name: &str, secret: &str) -> bool {
        let keys = ["LoadCredential", "LoadCredentialEncrypted", "SetCredential", "SetCredentialEncrypted"];
        let ids = keys.iter().flat_map(|key| self.values(key)).filter_map(|value| value.split(':').next());
        ids.map(|id| id.replace("%i", name)).any(|id| id == secret)
    }
}

/// Settings of one file.
fn parse(text: &str) -> Vec<(String, String)> {
    let settings = text.lines().filter_map(|line| line.split_once('='));
    settings.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_user_name_suggests_another() {
        assert_eq!(no_user("Site-a_1"), None);
        assert_eq!(no_user(&"x".repeat(24)), None);
        for (name, user) in [("site.a", "`User=ethudp_site_a`"), (&"x".repeat(25), &format!("_{}`", "x".repeat(24)))] {
            let line = no_user(name).unwrap();
            assert!(line.contains(user), "{line}");
        }
    }

    #[test]
    fn command_needs_file_owned_by_root() {
        let file = std::env::temp_dir().join(format!("ethudp-unit-{}.toml", std::process::id()));
        let tap =
            "mode = \"tap\"\nwire = \"classic\"\n[[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"192.0.2.2:6000\"\n";
        for (text, refused) in [(format!("run = \"true\"\n{tap}"), true), (tap.to_owned(), false)] {
            fs::write(&file, text).unwrap();
            // Without root the file stays ours, which is not root's either.
            let _ = std::os::unix::fs::chown(&file, Some(65_534), None);
            let read = crate::tunnel::file::look(&file, "a", Path::new("/")).unwrap();
            let lines = obstacles(&read, "a", Path::new(DIRECTORY), true);
            let words = "the unit refuses a file with `run` that belongs to user ";
            assert_eq!(lines.iter().any(|line| line.starts_with(words)), refused, "{lines:?}");
        }
        fs::remove_file(file).unwrap();
    }

    #[test]
    fn drop_ins_satisfy_requirements() {
        let lines = |text: &str, secret: &str| {
            lacking("a", "key-file", secret, Path::new("/etc/ethudp"), &DropIns(parse(text)))
        };
        let credential = "# LoadCredential=none\n[Service]\nLoadCredential=%i.key:/etc/ethudp/%i.key\n";
        assert_eq!(lines(credential, "a.key"), None);
        assert_eq!(lines("User=ethudp_b", "a.key"), None);
        assert!(lines(credential, "b.key").unwrap().contains("`LoadCredential=b.key:/etc/ethudp/b.key`"));
        assert!(lines("", "a.key").unwrap().contains("ethudp-credential.conf"));
        // A secret with an absolute path is not looked for among the credentials.
        let absolute = lines(credential, "/etc/ethudp/a.key").unwrap();
        assert!(absolute.ends_with("from the examples, and set `key-file = \"a.key\"` in this file"), "{absolute}");
    }
}
