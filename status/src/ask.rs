//! Asks the control sockets of a runtime directory for the status of their tunnels.
//!
//! Any user who can write to that directory can put a socket there, and the caller may be root. So one deadline holds for all answers, only
//! users that run tunnels are believed, and the length of an answer and its characters are limited.

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
/// Time between two attempts to connect to one whose queue of requests is full.
const AGAIN: Duration = Duration::from_millis(2);
/// Longest answer in bytes.
const LONGEST: usize = 1 << 20;

/// Why the status of a tunnel is not known.
#[derive(Debug)]
pub enum Unknown {
    /// Nobody is there: it does not run, or its supervisor was killed and has left its socket.
    NotRunning,
    /// In words.
    Reason(String),
}

/// Directory of the sockets when `RUNTIME_DIRECTORY` is not set.
pub const DEFAULT: &str = "/run/ethudp";

/// `RUNTIME_DIRECTORY` (its first entry), or the default. The sockets of tunnels are in it, or one level below.
///
/// # Errors
/// Where the variable is no absolute path: another directory than the intended one would be a surprise.
pub fn directory() -> Result<PathBuf, String> {
    let Some(list) = std::env::var_os("RUNTIME_DIRECTORY").filter(|list| !list.is_empty()) else {
        return Ok(DEFAULT.into());
    };
    let first = list.to_str().and_then(|list| list.split(':').next()).map(PathBuf::from);
    let wrong = || format!("RUNTIME_DIRECTORY={}: must be an absolute path", list.display());
    first.filter(|path| path.is_absolute()).ok_or_else(wrong)
}

/// Possible places of the socket of a tunnel in such a directory.
pub fn places(root: &Path, name: &str) -> [PathBuf; 2] {
    let socket = format!("{name}.sock");
    [root.join(&socket), root.join(name).join(&socket)]
}

/// Whether tunnels run as this user, whose answers therefore count: root, the user of this process, `ethudp`. The user of one tunnel is
/// known by the directory that root gives it.
fn may_run_tunnels(user: u32) -> bool {
    let name = || User::from_uid(Uid::from_raw(user)).ok().flatten().is_some_and(|user| user.name == USER);
    user == 0 || user == geteuid().as_raw() || name()
}

/// The status of one tunnel, wherever in this directory its socket is.
pub fn one(root: &Path, name: &str) -> Result<Status, Unknown> {
    let mut questions = places(root, name).map(|path| Question::new(root, path));
    ask(&mut questions);
    let answers = questions.into_iter().filter_map(|question| question.answer);
    let known = |answer: &Result<Status, Unknown>| !matches!(answer, Err(Unknown::NotRunning));
    answers.filter(known).min_by_key(Result::is_err).unwrap_or(Err(Unknown::NotRunning))
}

/// The status of all tunnels of a directory and those in it, by name, those left out that do not run.
///
/// # Errors
/// When a directory cannot be read; one that is not there has no tunnels.
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

/// What is in a directory; nothing where it has gone.
fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.path())).collect(),
    }
}

fn is_socket_name(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "sock")
}

/// One socket that is asked.
struct Question {
    name: String,
    path: PathBuf,
    /// Whether only root, we or `ethudp` could have made the directory that it is in: then its owner is a tunnel's user, because
    /// the others can make none of somebody else's.
    vouched: bool,
    /// While it is connected.
    stream: Option<UnixStream>,
    /// What it has said.
    text: Vec<u8>,
    /// It has closed the connection without a word, as a supervisor does that has others to answer.
    turned_away: bool,
    /// When it is known.
    answer: Option<Result<Status, Unknown>>,
}

/// Asks them all at once, so that a slow one costs the others nothing. All have an answer afterwards.
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
        // An interrupted wait is a short one.
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

    /// Connects, reads, understands, as far as that is possible without waiting.
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

    /// What to say when it has not answered in time.
    fn unanswered(&self) -> String {
        let limit = LIMIT.as_secs();
        if self.turned_away {
            return format!("has answered others for {limit} s: a program asks it again and again; try again");
        }
        match self.stream {
            Some(_) => format!("does not answer within {limit} s; has its supervisor been stopped?"),
            None => format!(
                "does not answer within {limit} s, and its queue is full: has its supervisor been stopped, or does a program ask it \
                 again and again?"
            ),
        }
    }

    /// Takes what has come; the status when that was all. Whoever is turned away tries again.
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
                    return Err(Unknown::Reason(format!("answers with more than {LONGEST} bytes")));
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

/// Why there is no connection.
fn not_connected(error: &io::Error) -> Unknown {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => Unknown::NotRunning,
        _ => Unknown::Reason(said(error)),
    }
}

/// What has failed, and who may ask when it is that.
pub fn said(error: &io::Error) -> String {
    let denied = error.kind() == ErrorKind::PermissionDenied;
    format!("{error}{}", if denied { "; needs root, or the group ethudp-status" } else { "" })
}

/// Connects to a socket of somebody who runs tunnels; none as long as it takes no more requests.
fn open(path: &Path, vouched: bool) -> io::Result<Option<UnixStream>> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::other("is no socket"));
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let stream = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    match connect(stream.as_raw_fd(), &UnixAddr::new(path)?) {
        Err(Errno::EAGAIN) => return Ok(None),
        result => result?,
    }
    // Of the process that listens, not of the file: that could be another one by now.
    let uid = getsockopt(&stream, PeerCredentials)?.uid();
    let owner = fs::metadata(path.parent().unwrap_or(Path::new("/")))?.uid();
    let known = vouched && uid == owner || may_run_tunnels(uid);
    if !known {
        return Err(io::Error::other(format!("is served by user {uid}, who runs no tunnels; not asked")));
    }
    Ok(Some(stream.into()))
}

/// The status that a text is.
pub fn understand(text: &[u8], name: &str) -> Result<Status, Unknown> {
    let value = serde_json::from_slice::<Value>(text).map(clean);
    match value.and_then(serde_json::from_value::<Status>) {
        // Whose socket it is, whatever it says.
        Ok(status) => Ok(Status { name: untrusted(name), ..status }),
        Err(error) => Err(Unknown::Reason(format!("answer cannot be read: {}", untrusted(&error.to_string())))),
    }
}

/// A terminal obeys what is in text.
fn clean(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(untrusted(&text)),
        Value::Array(all) => Value::Array(all.into_iter().map(clean).collect()),
        Value::Object(all) => Value::Object(all.into_iter().map(|(key, value)| (key, clean(value))).collect()),
        other => other,
    }
}
