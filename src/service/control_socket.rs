//! Control socket of a running tunnel, `NAME.sock` in the runtime directory. It answers status requests only.
//!
//! A tunnel with a user of its own has its own directory `/run/ethudp/NAME`, which no other user can write to. All tunnels that
//! root starts run as one user and share `/run/ethudp`.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ethudp_status::ask;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, setegid, seteuid};
use privsep::ipc::Identity;

use crate::Error;
use crate::service::directory::Directory;
use crate::service::identity;

/// Longest wait for another start that checks whether its tunnel runs.
const PATIENCE: Duration = Duration::from_millis(500);
/// Requests that are accepted at a time, about 100 µs of work.
const AT_ONCE: usize = 32;
/// Runtime directory: `RUNTIME_DIRECTORY`, or the default. Sockets are looked for in it and one level below.
///
/// # Errors
/// When `RUNTIME_DIRECTORY` is not an absolute path.
pub fn directory() -> Result<PathBuf, Error> {
    ask::directory().map_err(Error::configuration)
}

/// Parent of the directories of all tunnels, where `own` is the directory of tunnel `name`.
fn root_of<'a>(own: &'a Path, name: &str) -> &'a Path {
    let below = own.file_name().is_some_and(|last| last == name);
    own.parent().filter(|_| below).unwrap_or(own)
}

/// Control socket of a tunnel. Dropping it removes its file.
pub struct ControlSocket {
    /// Listening socket, non-blocking.
    pub listener: UnixListener,
    path: PathBuf,
}

impl ControlSocket {
    /// Binds the socket of tunnel `name`. Success proves that no other tunnel of that name runs.
    ///
    /// The directory may belong to the tunnel's user, so all work in it is done as that user. Otherwise a process of that user
    /// could place a link to a file of root there.
    pub fn bind(name: &str, identity: Option<Identity>) -> Result<Self, Error> {
        let directory = self::directory()?;
        let path = directory.join(format!("{name}.sock"));
        let root = root_of(&directory, name);
        // The socket may be another user's. Connecting tells whether a process listens.
        let lives = |other: &PathBuf| *other != path && matches!(try_connect(other), Ok(()) | Err(Errno::EAGAIN));
        if let Some(other) = ask::places(root, name).iter().find(|other| lives(other)) {
            return Err(runs_already(name, other));
        }
        let user = create(&directory, identity).and_then(|()| EffectiveUser::become_user(identity));
        let _user = user.map_err(|error| {
            let right = "; create /run/ethudp with `systemd-tmpfiles --create`, or set RUNTIME_DIRECTORY to another \
                         directory";
            Error::failure(format!("runtime directory {}: {error}{right}", directory.display()))
        })?;
        Self::bind_at(&directory, path.clone()).map_err(|error| match error {
            Refusal::Runs => runs_already(name, &path),
            Refusal::Io(error) if error.kind() == ErrorKind::PermissionDenied => Error::failure(format!(
                "control socket {}: {error}; make the directory writable for {}",
                path.display(),
                identity.map_or_else(|| "this user".into(), |Identity { uid, .. }| identity::user_name(uid)),
            )),
            Refusal::Io(error) => Error::failure(format!("control socket {}: {error}", path.display())),
        })
    }

    fn bind_at(directory: &Path, path: PathBuf) -> Result<Self, Refusal> {
        let _lock = Lock::take(directory.join(".lock"))?;
        match try_connect(&path) {
            // A full queue of requests proves a listener.
            Ok(()) | Err(Errno::EAGAIN) => return Err(Refusal::Runs),
            Err(Errno::ENOENT) => {}
            Err(Errno::ECONNREFUSED) => fs::remove_file(&path)?,
            Err(error) => return Err(io::Error::from(error).into()),
        }
        let before = umask(Mode::from_bits_truncate(0o117));
        let listener = UnixListener::bind(&path);
        umask(before);
        let socket = Self { listener: listener?, path };
        socket.listener.set_nonblocking(true)?;
        Ok(socket)
    }
}

fn runs_already(name: &str, socket: &Path) -> Error {
    Error::failure(format!(
        "tunnel {name:?}: already running (control socket {}). To stop it, send SIGTERM to the supervisor that `ethudp \
         show {name}` lists. For another tunnel use another name, or another RUNTIME_DIRECTORY",
        socket.display()
    ))
}

/// Connects without waiting for a busy listener.
fn try_connect(path: &Path) -> nix::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)
}

/// Lock that is held from the check whether a tunnel runs until its socket is bound. Without it, two starts of one name could both
/// find the old socket dead.
///
/// Only its owner can open the file, so no other user can block a start. The file is removed with the lock.
struct Lock {
    path: PathBuf,
    _file: Flock<File>,
}

impl Lock {
    fn take(path: PathBuf) -> io::Result<Self> {
        let start = Instant::now();
        loop {
            let mut options = File::options();
            // Opening must not wait for a reader of a FIFO in its place.
            let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
            options.write(true).create(true).truncate(false).mode(0o600).custom_flags(flags.bits());
            let in_the_way = || io::Error::other(format!("lock {}: not a regular file; remove it", path.display()));
            // If no object has that name, the error is about the directory.
            let other = || fs::symlink_metadata(&path).is_ok_and(|there| !there.is_file());
            let file = options.open(&path).map_err(|error| if other() { in_the_way() } else { error })?;
            if !file.metadata()?.is_file() {
                return Err(in_the_way());
            }
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                // The previous holder may have removed the opened file. A lock on a removed file has no effect.
                Ok(file)
                    if fs::symlink_metadata(&path)
                        .is_ok_and(|now| file.metadata().is_ok_and(|own| is_same(&own, &now))) =>
                {
                    return Ok(Self { path, _file: file });
                }
                Ok(_) => {}
                Err((_, error)) if error != Errno::EWOULDBLOCK || start.elapsed() > PATIENCE => {
                    return Err(error.into());
                }
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

fn is_same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The file is removed while locked. A waiting process notices and creates another.
        let _ = fs::remove_file(&self.path);
    }
}

impl ControlSocket {
    /// Directory of the socket's file.
    pub fn directory(&self) -> Option<&Path> {
        self.path.parent()
    }

    /// Accepts up to [`AT_ONCE`] requests, each with its user. The others stay in the queue.
    pub fn accept_some(&self) -> impl Iterator<Item = (UnixStream, u32)> {
        let streams = (0..AT_ONCE).map_while(|_| self.listener.accept().ok()).map(|(stream, _)| stream);
        streams.filter_map(|stream| {
            let user = getsockopt(&stream, PeerCredentials).ok()?.uid();
            Some((stream, user))
        })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // A failure here has no consequence that could be reported.
        let _ = fs::remove_file(&self.path);
    }
}

/// Reason why a control socket was not bound.
enum Refusal {
    Runs,
    Io(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Creates a missing directory for `identity`, as tmpfiles.d does.
fn create(directory: &Path, identity: Option<Identity>) -> io::Result<()> {
    match DirBuilder::new().mode(0o750).create(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(error),
    }
    let Some(identity) = identity else { return Ok(()) };
    // If the parent lets another user rename entries, another directory of root could be in its place and would be given away.
    if let Some(flaw) = Directory::open(directory.parent().unwrap_or(Path::new("/")))?.foreign_renamer(identity.uid)? {
        let _ = fs::remove_dir(directory);
        return Err(io::Error::other(flaw));
    }
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let made = File::options().read(true).custom_flags(flags.bits()).open(directory)?;
    fchown(&made, Some(identity.uid), Some(readers(identity)))?;
    // Restores bits that the umask cleared. The users of all tunnels of the unit pass through the default directory.
    let mode = if directory == Path::new(ask::DEFAULT) { 0o1751 } else { 0o750 };
    made.set_permissions(Permissions::from_mode(mode))
}

/// Group that may ask for the status; the user's own group where the status group does not exist.
fn readers(identity: Identity) -> u32 {
    identity::status_group().unwrap_or(identity.gid)
}

/// Effective user of file operations until this is dropped.
struct EffectiveUser(bool);

impl EffectiveUser {
    fn become_user(identity: Option<Identity>) -> io::Result<Self> {
        if let Some(identity) = identity {
            // The socket is created with this group.
            setegid(Gid::from_raw(readers(identity)))?;
            seteuid(Uid::from_raw(identity.uid))?;
        }
        Ok(Self(identity.is_some()))
    }
}

impl Drop for EffectiveUser {
    fn drop(&mut self) {
        // Root is still the real user, so neither can fail.
        if self.0 {
            let _ = seteuid(Uid::from_raw(0));
            let _ = setegid(Gid::from_raw(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnels_are_found_in_sibling_directories() {
        for (own, root) in [("/run/ethudp", "/run/ethudp"), ("/run/ethudp/a", "/run/ethudp"), ("/tmp/x", "/tmp/x")] {
            assert_eq!(root_of(Path::new(own), "a"), Path::new(root), "{own}");
        }
    }

    #[test]
    fn created_directory_is_private() {
        let directory = std::env::temp_dir().join(format!("ethudp-runtime-{}", std::process::id()));
        create(&directory, None).unwrap();
        let mode = fs::metadata(&directory).unwrap().mode() & 0o777;
        fs::remove_dir(&directory).unwrap();
        // The umask may take from the group's part.
        assert_eq!(mode | 0o050, 0o750);
    }
}
