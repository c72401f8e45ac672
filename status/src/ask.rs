//! Asks the control sockets of a runtime directory for the status of their tunnels.
//!
//! Any user who can write to that directory can create a socket there, and the caller may be root. So one deadline holds for all
//! answers. Only answers of users that run tunnels count. The length of an answer and its characters are limited.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket};
use nix::unistd::{Uid, User, geteuid};
use serde_json::Value;

use crate::{Status, USER, untrusted};

/// Longest wait for all answers together.
const LIMIT: Duration = Duration::from_secs(2);
/// Time between two attempts to connect to a socket that takes no request at the moment.
const AGAIN: Duration = Duration::from_millis(2);
/// Longest answer in bytes.
const LONGEST: usize = 1 << 20;

/// Why the status of a tunnel is not known.
#[derive(Debug)]
pub enum Unknown {
    /// No process listens: the tunnel does not run, or its supervisor was killed and left the socket.
    NotRunning,
    /// Reason in words.
    Reason(String),
}

/// Directory of the sockets when `RUNTIME_DIRECTORY` is not set. Programs other than `ethudp` pass it to [`all`] and [`one`].
pub const DEFAULT: &str = "/run/ethudp";

/// Directory of the sockets for `ethudp` itself: the first entry of `RUNTIME_DIRECTORY`, or [`DEFAULT`]. Sockets are in it, or one
/// level below. systemd sets the variable in every unit with `RuntimeDirectory=`, so in another program it names another directory.
///
/// # Errors
/// When the variable is not an absolute path. A relative path could lead to another directory than the intended one.
pub fn directory() -> Result<PathBuf, String> {
    let Some(list) = std::env::var_os("RUNTIME_DIRECTORY").filter(|list| !list.is_empty()) else {
        return Ok(DEFAULT.into());
    };
    let first = list.to_str().and_then(|list| list.split(':').next()).map(PathBuf::from);
    let wrong = || format!("RUNTIME_DIRECTORY={}: must be an absolute path", list.display());
    first.filter(|path| path.is_absolute()).ok_or_else(wrong)
}

/// Possible paths of the socket of tunnel `name` below the runtime directory `root`.
pub fn places(root: &Path, name: &str) -> [PathBuf; 2] {
    let socket = format!("{name}.sock");
    [root.join(&socket), root.join(name).join(&socket)]
}

/// Whether answers of this user count: root, the user of this process, and `ethudp` run tunnels. A user of a single tunnel is
/// recognized by the owner of the tunnel's directory, which root creates.
fn may_run_tunnels(user: u32) -> bool {
    let name = || User::from_uid(Uid::from_raw(user)).ok().flatten().is_some_and(|user| user.name == USER);
    user == 0 || user == geteuid().as_raw() || name()
}

/// Status of one tunnel, whose socket is at one of [`places`].
pub fn one(root: &Path, name: &str) -> Result<Status, Unknown> {
    let mut questions = places(root, name).map(|path| Question::new(root, path));
    ask(&mut questions);
    let answers = questions.into_iter().filter_map(|question| question.answer);
    let known = |answer: &Result<Status, Unknown>| !matches!(answer, Err(Unknown::NotRunning));
    answers.filter(known).min_by_key(Result::is_err).unwrap_or(Err(Unknown::NotRunning))
}

/// Status of each tunnel that runs, sorted by name. Sockets are looked for in `root` and one level below.
///
/// # Errors
/// When a directory cannot be read. A missing directory has no tunnels.
pub fn all(root: &Path) -> io::Result<Vec<(String, Result<Status, String>)>> {
    let mut questions = Vec::new();
    for path in entries(root)? {
        if is_socket_name(&path) {
            questions.push(Question::new(root, path));
        } else if fs::symlink_metadata(&path).is_ok_and(|entry| entry.is_dir()) {
            let below = entries(&path)?.into_iter().filter(|path| is_socket_name(path));
            questions.extend(below.map(|path| Question::new(root, path)));
        }
    }
    questions.sort_by(|a, b| a.name.cmp(&b.name));
    ask(&mut questions);
    let answer = |question: Question| match question.answer? {
        Ok(status) => Some((question.name, Ok(status))),
        Err(Unknown::Reason(reason)) => Some((question.name, Err(reason))),
        Err(Unknown::NotRunning) => None,
    };
    Ok(questions.into_iter().filter_map(answer).collect())
}

/// Paths in a directory; none when the directory is missing.
fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.path())).collect(),
    }
}

fn is_socket_name(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "sock")
}

/// Request to one socket, and its progress.
struct Question {
    name: String,
    path: PathBuf,
    /// Whether only root, the caller or `ethudp` can create directories in the root directory. Then the owner of the socket's
    /// directory is the user of a tunnel, because only root can create a directory for another user.
    vouched: bool,
    /// Connection, while it is open.
    stream: Option<UnixStream>,
    /// Bytes of the answer so far.
    text: Vec<u8>,
    /// Whether the supervisor closed the connection without an answer, because it has other requests to answer.
    turned_away: bool,
    /// Result, when it is known.
    answer: Option<Result<Status, Unknown>>,
}

/// Asks all sockets at once, so that a slow one does not delay the others. Afterwards each question has an answer.
fn ask(questions: &mut [Question]) {
    let deadline = Instant::now() + LIMIT;
    loop {
        questions.iter_mut().for_each(Question::go_on);
        let open: Vec<_> = questions.iter().filter(|question| question.answer.is_none()).collect();
        let left = deadline.saturating_duration_since(Instant::now());
        if open.is_empty() || left.is_zero() {
            break;
        }
        let streams = open.iter().filter_map(|question| question.stream.as_ref());
        let mut polled: Vec<_> = streams.map(|stream| PollFd::new(stream.as_fd(), PollFlags::POLLIN)).collect();
        let left = if polled.len() < open.len() { left.min(AGAIN) } else { left };
        // An interrupted wait counts as a short one.
        let _ = poll(&mut polled, PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO));
    }
    for question in questions.iter_mut().filter(|question| question.answer.is_none()) {
        question.answer = Some(Err(Unknown::Reason(question.unanswered())));
    }
}

impl Question {
    fn new(root: &Path, path: PathBuf) -> Self {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let ours = |root: Metadata| may_run_tunnels(root.uid()) && root.mode() & 0o022 == 0;
        let vouched = path.parent() == Some(root) || fs::metadata(root).is_ok_and(ours);
        Self { name, path, vouched, stream: None, text: Vec::new(), turned_away: false, answer: None }
    }

    /// Connects and reads as far as possible without waiting, and parses a whole answer.
    fn go_on(&mut self) {
        if self.answer.is_some() {
            return;
        }
        let result = match self.stream.take() {
            None => open(&self.path, self.vouched),
            Some(stream) => Ok(Some(stream)),
        };
        let result = result.map_err(|error| not_connected(&error)).and_then(|stream| match stream {
            Some(stream) => self.read(stream),
            None => Ok(None),
        });
        self.answer = result.transpose();
    }

    /// Message for a socket that has not answered in time.
    fn unanswered(&self) -> String {
        let limit = LIMIT.as_secs();
        if self.turned_away {
            return format!(
                "no answer within {limit} s: the supervisor is busy with other requests; stop programs that \
                            poll it, or try again"
            );
        }
        match self.stream {
            Some(_) => format!("no answer within {limit} s: check whether its supervisor is stopped (SIGSTOP)"),
            None => format!(
                "no answer within {limit} s, and its queue is full: check whether its supervisor is stopped, or whether a \
                 program polls it"
            ),
        }
    }

    /// Reads available bytes. Returns the status at the end of the answer. A question that was turned away connects again.
    fn read(&mut self, mut stream: UnixStream) -> Result<Option<Status>, Unknown> {
        let mut buffer = [0; 4096];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) if self.text.is_empty() => {
                    self.turned_away = true;
                    return Ok(None);
                }
                Ok(0) => return understand(&self.text, &self.name).map(Some),
                Ok(length) if self.text.len() + length > LONGEST => {
                    return Err(Unknown::Reason(format!("answer longer than {LONGEST} bytes")));
                }
                Ok(length) => self.text.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.stream = Some(stream);
                    return Ok(None);
                }
                Err(error) => return Err(Unknown::Reason(error.to_string())),
            }
        }
    }
}

/// Reason of a failed connection.
fn not_connected(error: &io::Error) -> Unknown {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => Unknown::NotRunning,
        _ => Unknown::Reason(said(error)),
    }
}

/// Text of an error, with the users that may ask when permission is denied.
pub fn said(error: &io::Error) -> String {
    let denied = error.kind() == ErrorKind::PermissionDenied;
    format!("{error}{}", if denied { "; run it as root, or as a member of group ethudp-status" } else { "" })
}

/// Connects to a socket of a user that runs tunnels. `None` while its queue of requests is full.
fn open(path: &Path, vouched: bool) -> io::Result<Option<UnixStream>> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::other("not a socket"));
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let stream = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    match connect(stream.as_raw_fd(), &UnixAddr::new(path)?) {
        Err(Errno::EAGAIN) => return Ok(None),
        result => result?,
    }
    // The credentials of the listening process count. The file could have another owner by now.
    let uid = getsockopt(&stream, PeerCredentials)?.uid();
    let owner = fs::metadata(path.parent().unwrap_or(Path::new("/")))?.uid();
    let known = vouched && uid == owner || may_run_tunnels(uid);
    if !known {
        return Err(io::Error::other(format!(
            "control socket belongs to a process of user {uid}, who may not run tunnels; \
                                             ignored"
        )));
    }
    Ok(Some(stream.into()))
}

/// Parses an answer. The name is the one of the socket.
pub fn understand(text: &[u8], name: &str) -> Result<Status, Unknown> {
    let value = serde_json::from_slice::<Value>(text).map(clean);
    match value.and_then(serde_json::from_value::<Status>) {
        // The socket tells the name; the answer could claim another one.
        Ok(status) => Ok(Status { name: untrusted(name), ..status }),
        Err(error) => Err(Unknown::Reason(format!("invalid answer: {}", untrusted(&error.to_string())))),
    }
}

/// Replaces characters that a terminal would obey.
fn clean(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(untrusted(&text)),
        Value::Array(all) => Value::Array(all.into_iter().map(clean).collect()),
        Value::Object(all) => Value::Object(all.into_iter().map(|(key, value)| (key, clean(value))).collect()),
        other => other,
    }
}
