//! A directory that was opened once, in which files are then made, replaced and read by its descriptor. Its path may lead
//! elsewhere a moment later, and so may a name in it: so no name is followed if it is a link, and what is made has a random
//! name until it is whole.

use std::fs::{File, Metadata, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, geteuid, linkat, unlinkat};

use super::files;

/// A directory, open.
pub struct Directory {
    descriptor: OwnedFd,
    path: PathBuf,
}

impl Directory {
    /// Opens a directory. Its path may be a link, which is followed here and never again.
    ///
    /// # Errors
    /// Also when the path is no directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let descriptor = nix::fcntl::open(path, flags, Mode::empty())?;
        Ok(Self { descriptor, path: path.to_owned() })
    }

    /// Its path, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who but root and us could exchange files in it, if anybody could. The sticky bit does not help: who may make files can
    /// put one in the way.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn foreign_hand(&self) -> io::Result<Option<String>> {
        self.foreign(geteuid().as_raw(), |_| false)
    }

    /// Who but root and this user could rename what is root's in it, if anybody could: none where the sticky bit is set.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn who_renames(&self, user: u32) -> io::Result<Option<String>> {
        self.foreign(user, |mode| mode & 0o1000 != 0)
    }

    fn foreign(&self, user: u32, harmless: impl Fn(u32) -> bool) -> io::Result<Option<String>> {
        let metadata = File::from(self.descriptor.try_clone()?).metadata()?;
        let (owner, mode) = (metadata.uid(), metadata.mode());
        let shown = self.path.display();
        if owner != 0 && owner != user {
            return Ok(Some(format!(
                "directory {shown}: belongs to user {owner}, who can exchange the files in it; must belong to root or to the \
                 user who runs this (`chown`)"
            )));
        }
        Ok((mode & 0o022 != 0 && !harmless(mode)).then(|| {
            format!(
                "directory {shown}: has mode {:04o}, so others can exchange the files in it; must be writable for its owner \
                 only (`chmod go-w`)",
                mode & 0o7777
            )
        }))
    }

    /// Opens a file in it to read, without waiting and without following a link.
    ///
    /// # Errors
    /// Also when it is no file.
    pub fn file(&self, name: &str) -> io::Result<(File, Metadata)> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let file = openat(&self.descriptor, name, flags, Mode::empty()).map_err(|error| match error {
            Errno::ELOOP => io::Error::other("is a link"),
            other => other.into(),
        })?;
        files::regular(File::from(file))
    }

    /// Makes a file of these parts under a name that no other has, and has all of it on the disk; no part of it can be seen
    /// under that name before.
    ///
    /// # Errors
    /// `AlreadyExists` where the name is taken.
    pub fn create(&self, name: &str, parts: &[&[u8]], mode: u32) -> io::Result<()> {
        let new = self.write(parts, mode, None)?;
        linkat(&self.descriptor, new.name.as_str(), &self.descriptor, name, AtFlags::empty())?;
        drop(new);
        self.sync()
    }

    /// Puts a file of these parts in the place of the one that was read as `old`, with its owner and mode.
    ///
    /// # Errors
    /// Also where another file has come into its place meanwhile; then that stays.
    pub fn replace(&self, name: &str, parts: &[&[u8]], old: &Metadata) -> io::Result<()> {
        let mut new = self.write(parts, old.mode() & 0o777, Some((old.uid(), old.gid())))?;
        let (_, now) = self.file(name)?;
        if (now.dev(), now.ino(), now.mtime(), now.mtime_nsec())
            != (old.dev(), old.ino(), old.mtime(), old.mtime_nsec())
        {
            return Err(io::Error::other("was changed meanwhile; run it again"));
        }
        renameat(&self.descriptor, new.name.as_str(), &self.descriptor, name)?;
        new.placed = true;
        drop(new);
        self.sync()
    }

    /// Removes a file.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        unlinkat(&self.descriptor, name, UnlinkatFlags::NoRemoveDir)?;
        Ok(())
    }

    /// A file under a random name, all of it on the disk.
    fn write(&self, parts: &[&[u8]], mode: u32, owner: Option<(u32, u32)>) -> io::Result<New<'_>> {
        let (new, mut file) = self.random_file()?;
        parts.iter().try_for_each(|part| file.write_all(part))?;
        let made = file.metadata()?;
        if let Some((user, group)) = owner.filter(|owner| *owner != (made.uid(), made.gid())) {
            fchown(&file, Some(user), Some(group))?;
        }
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        Ok(new)
    }

    fn random_file(&self) -> io::Result<(New<'_>, File)> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        loop {
            let mut random = [0; 8];
            getrandom::fill(&mut random).map_err(io::Error::other)?;
            let name = format!(".ethudp-{:016x}", u64::from_ne_bytes(random));
            match openat(&self.descriptor, name.as_str(), flags, Mode::from_bits_truncate(0o600)) {
                Ok(file) => return Ok((New { directory: self, name, placed: false }, file.into())),
                Err(Errno::EEXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Has its entries on the disk.
    fn sync(&self) -> io::Result<()> {
        File::from(self.descriptor.try_clone()?).sync_all()
    }
}

/// A file under its random name, which goes with this unless it was put in a place.
struct New<'a> {
    directory: &'a Directory,
    name: String,
    placed: bool,
}

impl Drop for New<'_> {
    fn drop(&mut self) {
        if !self.placed {
            let _ = self.directory.remove(&self.name);
        }
    }
}

/// What to do about a file that could not be made.
pub fn remedy(error: &io::Error, directory: &Path) -> String {
    match error.kind() {
        ErrorKind::NotFound => {
            let directory = directory.display();
            format!("; the directory must be there, as `install -d -m 750 -g ethudp-status {directory}` makes it")
        }
        ErrorKind::PermissionDenied => "; must be run by root, or with a directory of your own (--dir)".into(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_keeps_owner_and_mode_and_leaves_nothing_behind() {
        let path = std::env::temp_dir().join(format!("ethudp-directory-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        let directory = Directory::open(&path).unwrap();
        directory.create("a", &[b"one", b"\n"], 0o640).unwrap();
        assert_eq!(directory.create("a", &[b"two"], 0o600).unwrap_err().kind(), ErrorKind::AlreadyExists);
        let (_, old) = directory.file("a").unwrap();
        directory.replace("a", &[b"three"], &old).unwrap();
        let stale = directory.replace("a", &[b"four"], &old).unwrap_err().to_string();
        assert!(stale.contains("was changed meanwhile"), "{stale}");
        let (file, metadata) = directory.file("a").unwrap();
        assert_eq!((io::read_to_string(file).unwrap().as_str(), metadata.mode() & 0o777), ("three", 0o640));
        std::os::unix::fs::symlink("a", path.join("link")).unwrap();
        assert!(directory.file("link").unwrap_err().to_string().contains("is a link"));
        let names: Vec<_> = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        std::fs::remove_dir_all(path).unwrap();
    }
}
