//! The runtime directory with the control socket of each tunnel that runs: `NAME.sock`, status only.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, fchown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, setegid, seteuid};
use privsep::ipc::Identity;

use crate::Error;
use crate::error::Context;

/// Where the sockets are when systemd does not say.
const DEFAULT: &str = "/run/ethudp";

/// The runtime directory: `RUNTIME_DIRECTORY` (its first entry), or the default.
pub fn directory() -> PathBuf {
    let first = std::env::var("RUNTIME_DIRECTORY").ok().and_then(|list| list.split(':').next().map(PathBuf::from));
    first.filter(|path| path.is_absolute()).unwrap_or_else(|| DEFAULT.into())
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
        let directory = directory();
        let user = create(&directory, identity).and_then(|()| EffectiveUser::become_user(identity));
        let _user = user.context(|| format!("runtime directory {}", directory.display()))?;
        let path = directory.join(format!("{name}.sock"));
        Self::bind_at(&directory, path.clone()).map_err(|error| match error {
            Refusal::Runs => Error::failure(format!(
                "tunnel {name:?}: runs already ({}); stop it, or choose another name (-n NAME)",
                path.display()
            )),
            Refusal::Io(error) if error.kind() == ErrorKind::PermissionDenied => Error::failure(format!(
                "control socket {}: {error}; the directory must be writable for {}",
                path.display(),
                identity.map_or_else(|| "this user".into(), |Identity { uid, .. }| format!("user {uid}")),
            )),
            Refusal::Io(error) => Error::failure(format!("control socket {}: {error}", path.display())),
        })
    }

    fn bind_at(directory: &Path, path: PathBuf) -> Result<Self, Refusal> {
        // Held while we look and bind, so that two tunnels of one name cannot both find the old socket dead.
        let directory = File::open(directory)?;
        let _lock = Flock::lock(directory, FlockArg::LockExclusive).map_err(|(_, error)| io::Error::from(error))?;
        match UnixStream::connect(&path) {
            Ok(_) => return Err(Refusal::Runs),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(&path)?,
            Err(error) => return Err(error.into()),
        }
        let before = umask(Mode::from_bits_truncate(0o117));
        let listener = UnixListener::bind(&path);
        umask(before);
        let socket = Self { listener: listener?, path };
        socket.listener.set_nonblocking(true)?;
        Ok(socket)
    }
}

impl ControlSocket {
    /// The next who asks, if somebody does.
    pub fn accept(&self) -> Option<UnixStream> {
        self.listener.accept().ok().map(|(stream, _)| stream)
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

/// Creates the directory if it is missing, for `identity`.
fn create(directory: &Path, identity: Option<Identity>) -> io::Result<()> {
    match DirBuilder::new().mode(0o755).create(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(error),
    }
    let Some(Identity { uid, gid }) = identity else { return Ok(()) };
    fchown(File::open(directory)?, Some(uid), Some(gid))
}

/// For as long as this lives, files are used as another user.
struct EffectiveUser(bool);

impl EffectiveUser {
    fn become_user(identity: Option<Identity>) -> io::Result<Self> {
        if let Some(Identity { uid, gid }) = identity {
            setegid(Gid::from_raw(gid))?;
            seteuid(Uid::from_raw(uid))?;
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
