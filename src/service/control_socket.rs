//! The runtime directory with the control socket of each tunnel that runs: `NAME.sock`, status only.
//!
//! A tunnel whose service manager gives it a user of its own has a directory of its own, `/run/ethudp/NAME`, in which nobody
//! else can do anything. All that root starts become the same user, and share `/run/ethudp` itself.

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

/// Longest wait for another start to look whether its tunnel runs.
const PATIENCE: Duration = Duration::from_millis(500);
/// Requests that are taken at a time: a hundred microseconds' worth.
const AT_ONCE: usize = 32;
/// Where the sockets of tunnels are looked for, and one level below: `RUNTIME_DIRECTORY`, or the default.
///
/// # Errors
/// When that is no absolute path.
pub fn directory() -> Result<PathBuf, Error> {
    ask::directory().map_err(Error::configuration)
}

/// What holds the directories of all tunnels, of which `own` is that of tunnel `name`.
fn root_of<'a>(own: &'a Path, name: &str) -> &'a Path {
    let below = own.file_name().is_some_and(|last| last == name);
    own.parent().filter(|_| below).unwrap_or(own)
}

/// A tunnel's control socket. Its file is removed with it.
pub struct ControlSocket {
    /// Listens, without blocking.
    pub listener: UnixListener,
    path: PathBuf,
}

impl ControlSocket {
    /// Binds the socket of tunnel `name`, which is the proof that no other of that name runs.
    ///
    /// The directory may belong to the tunnel's user, so all that happens in it happens as that user: what somebody of
    /// that uid could put there in the way (a link to a file of root's) gains nothing.
    pub fn bind(name: &str, identity: Option<Identity>) -> Result<Self, Error> {
        let directory = self::directory()?;
        let path = directory.join(format!("{name}.sock"));
        let root = root_of(&directory, name);
        // One of another user, of which only this can be known: whether it answers.
        let lives = |other: &PathBuf| *other != path && matches!(try_connect(other), Ok(()) | Err(Errno::EAGAIN));
        if let Some(other) = ask::places(root, name).iter().find(|other| lives(other)) {
            return Err(runs_already(name, other));
        }
        let user = create(&directory, identity).and_then(|()| EffectiveUser::become_user(identity));
        let _user = user.map_err(|error| {
            let right = "; `systemd-tmpfiles --create` makes /run/ethudp, or name another by RUNTIME_DIRECTORY";
            Error::failure(format!("runtime directory {}: {error}{right}", directory.display()))
        })?;
        Self::bind_at(&directory, path.clone()).map_err(|error| match error {
            Refusal::Runs => runs_already(name, &path),
            Refusal::Io(error) if error.kind() == ErrorKind::PermissionDenied => Error::failure(format!(
                "control socket {}: {error}; the directory must be writable for {}",
                path.display(),
                identity.map_or_else(|| "this user".into(), |Identity { uid, .. }| identity::user_name(uid)),
            )),
            Refusal::Io(error) => Error::failure(format!("control socket {}: {error}", path.display())),
        })
    }

    fn bind_at(directory: &Path, path: PathBuf) -> Result<Self, Refusal> {
        let _lock = Lock::take(directory.join(".lock"))?;
        match try_connect(&path) {
            // It takes no more requests at the moment, so it is there.
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
        "tunnel {name:?}: runs already ({}); `ethudp show {name}` names its supervisor, which SIGTERM ends; another tunnel needs \
         another name, or directory for its socket (RUNTIME_DIRECTORY)",
        socket.display()
    ))
}

/// Connects without waiting for a listener that is busy.
fn try_connect(path: &Path) -> nix::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)
}

/// Held while we look whether a tunnel runs and bind, so that two of one name cannot both find the old socket dead.
///
/// A file that only its owner can open, so that nobody else can hold us up; it goes with the lock.
struct Lock {
    path: PathBuf,
    _file: Flock<File>,
}

impl Lock {
    fn take(path: PathBuf) -> io::Result<Self> {
        let start = Instant::now();
        loop {
            let mut options = File::options();
            // Without waiting for whoever reads a FIFO in its place.
            let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
            options.write(true).create(true).truncate(false).mode(0o600).custom_flags(flags.bits());
            let in_the_way = || {
                io::Error::other(format!(
                    "lock {}: is not a file; remove it, it must be a file of ours",
                    path.display()
                ))
            };
            // Where nothing is in the way, the directory is what it cannot be made in.
            let other = || fs::symlink_metadata(&path).is_ok_and(|there| !there.is_file());
            let file = options.open(&path).map_err(|error| if other() { in_the_way() } else { error })?;
            if !file.metadata()?.is_file() {
                return Err(in_the_way());
            }
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                // The one before may have removed the file that we opened: then the lock is of no use.
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
        // Removed while it is held; who waits finds out and makes another.
        let _ = fs::remove_file(&self.path);
    }
}

impl ControlSocket {
    /// Where its file is.
    pub fn directory(&self) -> Option<&Path> {
        self.path.parent()
    }

    /// Some of those who ask, and their users; the others wait for the next time.
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
        // Nothing is left to be told when this fails.
        let _ = fs::remove_file(&self.path);
    }
}

/// Why a control socket was not bound.
enum Refusal {
    Runs,
    Io(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Creates the directory if it is missing, for `identity`, as tmpfiles.d does.
fn create(directory: &Path, identity: Option<Identity>) -> io::Result<()> {
    match DirBuilder::new().mode(0o750).create(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(error),
    }
    let Some(identity) = identity else { return Ok(()) };
    // Another directory of root's could have been moved into its place, and would be given away.
    if let Some(flaw) = Directory::open(directory.parent().unwrap_or(Path::new("/")))?.foreign_renamer(identity.uid)? {
        let _ = fs::remove_dir(directory);
        return Err(io::Error::other(flaw));
    }
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let made = File::options().read(true).custom_flags(flags.bits()).open(directory)?;
    fchown(&made, Some(identity.uid), Some(readers(identity)))?;
    // Whatever the umask has taken; and the users of all tunnels of the unit pass through the usual one.
    let mode = if directory == Path::new(ask::DEFAULT) { 0o1751 } else { 0o750 };
    made.set_permissions(Permissions::from_mode(mode))
}

/// The group that may ask for the status; the user's own where there is none for it.
fn readers(identity: Identity) -> u32 {
    identity::status_group().unwrap_or(identity.gid)
}

/// For as long as this lives, files are used as another user.
struct EffectiveUser(bool);

impl EffectiveUser {
    fn become_user(identity: Option<Identity>) -> io::Result<Self> {
        if let Some(identity) = identity {
            // The socket is made with this group.
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
    fn a_tunnel_is_looked_for_beside_the_place_of_its_own() {
        for (own, root) in [("/run/ethudp", "/run/ethudp"), ("/run/ethudp/a", "/run/ethudp"), ("/tmp/x", "/tmp/x")] {
            assert_eq!(root_of(Path::new(own), "a"), Path::new(root), "{own}");
        }
    }

    #[test]
    fn a_directory_that_is_made_is_for_user_and_group_only() {
        let directory = std::env::temp_dir().join(format!("ethudp-runtime-{}", std::process::id()));
        create(&directory, None).unwrap();
        let mode = fs::metadata(&directory).unwrap().mode() & 0o777;
        fs::remove_dir(&directory).unwrap();
        // The umask may take from the group's part.
        assert_eq!(mode | 0o050, 0o750);
    }
}
