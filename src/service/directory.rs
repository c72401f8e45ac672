//! Opened directory, in which files are created, replaced and read by its descriptor.
//!
//! The path of the directory, and names in it, may lead elsewhere a moment later, so links are never followed. A new file has no
//! name until it is complete; where the file system lacks `O_TMPFILE`, it has a random name.

use std::fs::{File, Metadata, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, geteuid, linkat, unlinkat};

use super::files;

/// Opened directory.
pub struct Directory {
    descriptor: OwnedFd,
    path: PathBuf,
}

impl Directory {
    /// Opens a directory. The path may be a link, which is followed only here.
    ///
    /// # Errors
    /// Also when the path is not a directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let descriptor = nix::fcntl::open(path, flags, Mode::empty())?;
        Ok(Self { descriptor, path: path.to_owned() })
    }

    /// Path of the directory, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Flaw by which a user other than root and the caller could replace files in the directory. The sticky bit does not help,
    /// because a user who can create files can occupy a name first.
    ///
    /// # Errors
    /// When the kernel does not return owner and mode.
    pub fn foreign_hand(&self) -> io::Result<Option<String>> {
        self.foreign(geteuid().as_raw(), |_| false)
    }

    /// Flaw by which a user other than root and `user` could rename root's files in the directory. With the sticky bit there is
    /// none.
    ///
    /// # Errors
    /// When the kernel does not return owner and mode.
    pub fn foreign_renamer(&self, user: u32) -> io::Result<Option<String>> {
        self.foreign(user, |mode| mode & 0o1000 != 0)
    }

    fn foreign(&self, user: u32, harmless: impl Fn(u32) -> bool) -> io::Result<Option<String>> {
        let metadata = File::from(self.descriptor.try_clone()?).metadata()?;
        let (owner, mode) = (metadata.uid(), metadata.mode());
        let shown = self.path.display();
        if owner != 0 && owner != user {
            return Ok(Some(format!(
                "directory {shown}: belongs to user {owner}, who can replace its files; must belong to root or to the \
                 user who runs this command (`chown`)"
            )));
        }
        Ok((mode & 0o022 != 0 && !harmless(mode)).then(|| {
            format!(
                "directory {shown}: has mode {:04o}, so other users can replace its files; must be writable for its owner \
                 only (`chmod go-w`)",
                mode & 0o7777
            )
        }))
    }

    /// Opens a file to read, without waiting and without following a link.
    ///
    /// # Errors
    /// Also when the entry is not a regular file.
    pub fn file(&self, name: &str) -> io::Result<(File, Metadata)> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let file = openat(&self.descriptor, name, flags, Mode::empty()).map_err(|error| match error {
            Errno::ELOOP => io::Error::other("is a symbolic link"),
            other => other.into(),
        })?;
        files::regular(File::from(file))
    }

    /// Creates a file of these parts under a free name, and syncs it to disk. The name appears only when the file is complete.
    ///
    /// # Errors
    /// `AlreadyExists` if the name exists.
    pub fn create(&self, name: &str, parts: &[&[u8]], mode: u32) -> io::Result<()> {
        self.new_file()?.fill(parts, mode, None)?.create(name)
    }

    /// Replaces the file that was read as `old` by a file of these parts, with the same owner and mode.
    ///
    /// # Errors
    /// Also when the file has been changed or replaced meanwhile. Then it stays.
    pub fn replace(&self, name: &str, parts: &[&[u8]], old: &Metadata) -> io::Result<()> {
        self.new_file()?.fill(parts, old.mode() & 0o777, Some((old.uid(), old.gid())))?.replace(name, old)
    }

    /// Removes a file.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        unlinkat(&self.descriptor, name, UnlinkatFlags::NoRemoveDir)?;
        Ok(())
    }

    /// Creates an empty file. It vanishes if the program is killed, except where the file system requires a name.
    fn new_file(&self) -> io::Result<New<'_>> {
        let flags = OFlag::O_WRONLY | OFlag::O_TMPFILE | OFlag::O_CLOEXEC;
        match openat(&self.descriptor, ".", flags, Mode::from_bits_truncate(0o600)) {
            Ok(file) => Ok(New { directory: self, file: file.into(), name: None }),
            Err(Errno::EOPNOTSUPP | Errno::EISDIR) => self.named_file(),
            Err(error) => Err(error.into()),
        }
    }

    fn named_file(&self) -> io::Result<New<'_>> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let (name, file) =
            with_random_name(|name| openat(&self.descriptor, name, flags, Mode::from_bits_truncate(0o600)))?;
        Ok(New { directory: self, file: file.into(), name: Some(name) })
    }

    /// Syncs the entries of the directory to disk.
    fn sync(&self) -> io::Result<()> {
        File::from(self.descriptor.try_clone()?).sync_all()
    }
}

/// New file. Its random name, if it has one, is removed on drop.
struct New<'a> {
    directory: &'a Directory,
    file: File,
    name: Option<String>,
}

impl New<'_> {
    /// Writes these parts and syncs them to disk.
    fn fill(mut self, parts: &[&[u8]], mode: u32, owner: Option<(u32, u32)>) -> io::Result<Self> {
        parts.iter().try_for_each(|part| self.file.write_all(part))?;
        let made = self.file.metadata()?;
        if let Some((user, group)) = owner.filter(|owner| *owner != (made.uid(), made.gid())) {
            fchown(&self.file, Some(user), Some(group))?;
        }
        self.file.set_permissions(Permissions::from_mode(mode))?;
        self.file.sync_all()?;
        Ok(self)
    }

    fn create(self, name: &str) -> io::Result<()> {
        self.link(name)?;
        self.directory.sync()
    }

    fn replace(mut self, name: &str, old: &Metadata) -> io::Result<()> {
        let (_, now) = self.directory.file(name)?;
        if (now.dev(), now.ino(), now.mtime(), now.mtime_nsec())
            != (old.dev(), old.ino(), old.mtime(), old.mtime_nsec())
        {
            return Err(io::Error::other("changed meanwhile; run the command again"));
        }
        let random = match self.name.take() {
            Some(random) => random,
            None => with_random_name(|random| self.link(random))?.0,
        };
        let random = self.name.insert(random).as_str();
        renameat(&self.directory.descriptor, random, &self.directory.descriptor, name)?;
        self.name = None;
        self.directory.sync()
    }

    /// Links the file to a free name, by its descriptor: a random name may be another file's by now.
    fn link(&self, name: &str) -> nix::Result<()> {
        let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let directory = &self.directory.descriptor;
        linkat(directory, own.as_str(), directory, name, AtFlags::AT_SYMLINK_FOLLOW)
    }
}

impl Drop for New<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            let _ = self.directory.remove(name);
        }
    }
}

/// A name that was free, and the result of `make` with it.
fn with_random_name<T>(make: impl Fn(&str) -> nix::Result<T>) -> io::Result<(String, T)> {
    loop {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let name = format!(".ethudp-{:016x}", u64::from_ne_bytes(random));
        match make(&name) {
            Ok(made) => return Ok((name, made)),
            Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Advice for a file that could not be created.
pub fn remedy(error: &io::Error, directory: &Path) -> String {
    match error.kind() {
        ErrorKind::NotFound => {
            let directory = directory.display();
            format!("; create the directory with `install -d -m 750 -g ethudp-status {directory}`")
        }
        ErrorKind::PermissionDenied => "; run the command as root, or with a directory of your own (--dir)".into(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    /// Calls `run` with a new directory.
    fn with_directory(name: &str, run: impl FnOnce(&Path, &Directory)) {
        let path = std::env::temp_dir().join(format!("ethudp-directory-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        run(&path, &Directory::open(&path).unwrap());
        fs::remove_dir_all(path).unwrap();
    }

    fn names(path: &Path) -> Vec<String> {
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn replaced_file_keeps_owner_and_mode() {
        with_directory("replaced", |path, directory| {
            directory.create("a", &[b"one", b"\n"], 0o640).unwrap();
            assert_eq!(directory.create("a", &[b"two"], 0o600).unwrap_err().kind(), ErrorKind::AlreadyExists);
            let named = directory.named_file().unwrap().fill(&[b"two"], 0o600, None).unwrap();
            assert_eq!(named.create("a").unwrap_err().kind(), ErrorKind::AlreadyExists);
            let (_, old) = directory.file("a").unwrap();
            directory.replace("a", &[b"three"], &old).unwrap();
            let stale = directory.replace("a", &[b"four"], &old).unwrap_err().to_string();
            assert!(stale.contains("changed meanwhile"), "{stale}");
            let (file, metadata) = directory.file("a").unwrap();
            assert_eq!((io::read_to_string(file).unwrap().as_str(), metadata.mode() & 0o777), ("three", 0o640));
            symlink("a", path.join("link")).unwrap();
            assert!(directory.file("link").unwrap_err().to_string().contains("is a symbolic link"));
            assert_eq!(names(path).len(), 2, "{:?}", names(path));
        });
    }

    /// The state of the directory at this moment is what a killed process would leave.
    #[test]
    fn file_is_named_when_complete() {
        with_directory("unnamed", |path, directory| {
            let new = directory.new_file().unwrap().fill(&[b"secret"], 0o600, None).unwrap();
            assert!(names(path).is_empty(), "{:?}", names(path));
            new.create("a").unwrap();
            assert_eq!((names(path), fs::read(path.join("a")).unwrap()), (vec!["a".into()], b"secret".to_vec()));
        });
    }

    /// An attacker who can write to the directory replaces each file that appears in it by a link to another file.
    #[test]
    fn link_race_changes_no_other_file() {
        let (least, limit) = (50, Duration::from_secs(30));
        with_directory("victim", |elsewhere, _| {
            let victim = elsewhere.join("secret");
            fs::write(&victim, "do not touch").unwrap();
            fs::set_permissions(&victim, Permissions::from_mode(0o640)).unwrap();
            let state = || {
                let metadata = fs::metadata(&victim).unwrap();
                (fs::read(&victim).unwrap(), metadata.uid(), metadata.gid(), metadata.mode(), metadata.nlink())
            };
            let before = state();
            with_directory("race", |path, directory| {
                let (stop, swaps) = (AtomicBool::new(false), AtomicUsize::new(0));
                let swap = || {
                    while !stop.load(Ordering::Relaxed) {
                        for name in fs::read_dir(path).unwrap().flatten().map(|entry| entry.path()) {
                            if fs::remove_file(&name).and_then(|()| symlink(&victim, &name)).is_ok() {
                                swaps.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                };
                thread::scope(|scope| {
                    scope.spawn(swap);
                    let (start, user) = (Instant::now(), geteuid());
                    let mut runs = 0;
                    while (runs < 200 || swaps.load(Ordering::Relaxed) < least) && start.elapsed() < limit {
                        runs += 1;
                        let new = if runs % 2 == 0 { directory.new_file() } else { directory.named_file() };
                        let _ = new.unwrap().fill(&[b"new"], 0o666, None).and_then(|new| new.create("a"));
                        let Ok((file, old)) = directory.file("a") else { continue };
                        if user.is_root() {
                            fchown(&file, Some(65534), Some(65534)).unwrap();
                        }
                        let owner = Some((65534, 65534)).filter(|_| user.is_root());
                        let new = if runs % 4 < 2 { directory.new_file() } else { directory.named_file() };
                        let _ = new.unwrap().fill(&[b"newer"], 0o666, owner).and_then(|new| new.replace("a", &old));
                    }
                    stop.store(true, Ordering::Relaxed);
                });
                assert!(swaps.into_inner() >= least);
            });
            assert_eq!(state(), before);
        });
    }
}
