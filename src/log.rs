//! Messages to people: standard error in the foreground, the system log in the background. Each line names its tunnel.

use std::borrow::Cow;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

pub use ethudp_status::{is_unseen, untrusted};
use nix::fcntl::OFlag;
use nix::sys::socket::{MsgFlags, send};
use syslog::{Facility, Formatter3164, Logger, LoggerBackend};

use crate::Error;
use crate::error::Context;

enum Target {
    Stderr,
    System(SystemLog),
    /// In the background without a system log.
    Nowhere,
}

static TARGET: Mutex<Target> = Mutex::new(Target::Stderr);

/// Priority of a message as in syslog(3): a lower number is more important.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Level {
    /// Something failed.
    Error = 3,
    /// A state that needs attention.
    Warning = 4,
    /// An event.
    Info = 6,
    /// A detail for troubleshooting.
    Debug = 7,
}

/// Least important level that is logged.
static LEAST: AtomicU8 = AtomicU8::new(Level::Info as u8);

/// Sets the least important level that is logged.
pub fn least(level: Level) {
    LEAST.store(level as u8, Relaxed);
}

/// Name of the tunnel in every line, once it is known.
static TUNNEL: OnceLock<String> = OnceLock::new();

/// Sets the tunnel that every further line names. Only the first call counts: a process runs one tunnel.
pub fn name(tunnel: &str) {
    let _ = TUNNEL.set(tunnel.to_owned());
}

/// Connects to the system log, while `/dev/log` is reachable. Messages go there after [`to_background`].
pub fn connect(name: &str) -> Option<SystemLog> {
    let formatter = Formatter3164 {
        facility: Facility::LOG_DAEMON,
        hostname: None,
        process: format!("ethudp[{name}]"),
        pid: std::process::id(),
    };
    let logger = syslog::unix(formatter).ok()?;
    // A slow system log loses messages and never blocks a tunnel.
    let LoggerBackend::Unix(socket) = &logger.backend else { return None };
    socket.set_nonblocking(true).ok()?;
    Some(SystemLog { logger: Box::new(logger), name: name.to_owned() })
}

/// Connection to the system log.
pub struct SystemLog {
    logger: Box<Logger<LoggerBackend, Formatter3164>>,
    name: String,
}

impl SystemLog {
    fn send(&mut self, level: Level, text: &str) -> bool {
        let sent = match level {
            Level::Error => self.logger.err(text),
            Level::Warning => self.logger.warning(text),
            Level::Info => self.logger.info(text),
            Level::Debug => self.logger.debug(text),
        };
        sent.is_ok()
    }
}

/// Sends all further messages to the system log.
pub fn to_background(log: Option<SystemLog>) {
    // Closes the terminal.
    *STDERR.lock().unwrap_or_else(PoisonError::into_inner) = None;
    *target() = log.map_or(Target::Nowhere, Target::System);
}

fn target() -> MutexGuard<'static, Target> {
    TARGET.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Text of the last error.
static LAST_ERROR: Mutex<Option<String>> = Mutex::new(None);

/// Text of the last error that was logged.
pub fn last_error() -> Option<String> {
    LAST_ERROR.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Logs a failure.
pub fn error(text: &str) {
    *LAST_ERROR.lock().unwrap_or_else(PoisonError::into_inner) = Some(visible(text).into_owned());
    write(Level::Error, text);
}

/// Logs a state that needs attention.
pub fn warning(text: &str) {
    write(Level::Warning, text);
}

/// Logs an event.
pub fn info(text: &str) {
    write(Level::Info, text);
}

/// Logs a detail for troubleshooting.
pub fn debug(text: &str) {
    write(Level::Debug, text);
}

fn write(level: Level, text: &str) {
    if level as u8 > LEAST.load(Relaxed) {
        return;
    }
    // Paths, names and values in a message come from files, arguments and the environment.
    let text = &*visible(text);
    match &mut *target() {
        Target::Stderr => stderr_line(&line(level, text, TUNNEL.get(), JOURNAL.get().is_some_and(|is| *is))),
        Target::System(log) => {
            // The daemon of the log may have been restarted. Without one, the message is lost.
            if !log.send(level, text)
                && let Some(mut again) = connect(&log.name)
            {
                again.send(level, text);
                *log = again;
            }
        }
        Target::Nowhere => {}
    }
}

/// Formats a line. The journal reads its priority (sd-daemon(3)) and adds the program's name.
fn line(level: Level, text: &str, tunnel: Option<&String>, journal: bool) -> String {
    let tunnel = tunnel.map_or_else(String::new, |tunnel| format!("{tunnel}: "));
    if journal {
        return format!("<{}>{tunnel}{text}\n", level as u8);
    }
    let warning = if level == Level::Warning { "warning: " } else { "" };
    format!("ethudp: {tunnel}{warning}{text}\n")
}

/// Prints the result of a command to standard output. A closed pipe ends the program without a message.
pub fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Error::Reported(1)),
        result => result.context(|| "standard output".into()),
    }
}

/// Standard error, opened again: non-blocking mode then does not affect other processes that share the original. A slow or stopped
/// reader never blocks a tunnel; lines that do not fit are lost.
static STDERR: Mutex<Option<File>> = Mutex::new(None);

/// Whether the journal reads standard error.
static JOURNAL: OnceLock<bool> = OnceLock::new();

/// Opens standard error again if it is a terminal or a pipe, and detects the journal. First call, before confinement prevents it.
pub fn open_stderr() {
    let stderr = "/proc/self/fd/2";
    let waits = |kind: fs::FileType| kind.is_char_device() || kind.is_fifo();
    let metadata = fs::metadata(stderr);
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let _ = JOURNAL.set(metadata.as_ref().is_ok_and(|metadata| is_journal(&stream, metadata)));
    if metadata.is_ok_and(|metadata| waits(metadata.file_type())) {
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = File::options().append(true).custom_flags(flags.bits()).open(stderr).ok();
        *STDERR.lock().unwrap_or_else(PoisonError::into_inner) = file;
    }
}

/// Whether `JOURNAL_STREAM`, device and inode (systemd.exec(5)), names this file.
fn is_journal(stream: &str, metadata: &Metadata) -> bool {
    stream == format!("{}:{}", metadata.dev(), metadata.ino())
}

fn stderr_line(line: &str) {
    let _ = match &mut *STDERR.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(file) => file.write_all(line.as_bytes()),
        // A socket, as the service manager's, takes a line or refuses it. A file always takes it.
        None if fs::metadata("/proc/self/fd/2").is_ok_and(|metadata| metadata.file_type().is_socket()) => {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            send(io::stderr().as_raw_fd(), line.as_bytes(), flags).map(drop).map_err(io::Error::from)
        }
        None => io::stderr().write_all(line.as_bytes()),
    };
}

/// One line of text for a terminal or a log: a character of [`is_unseen`] is written as `\u{1b}` is.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unseen) {
        return Cow::Borrowed(text);
    }
    let escape = |text: String, c: char| {
        if is_unseen(c) { text + &c.escape_unicode().to_string() } else { text + c.encode_utf8(&mut [0; 4]) }
    };
    Cow::Owned(text.chars().fold(String::new(), escape))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_line_names_tunnel_and_priority() {
        let name = "site-a".to_owned();
        assert_eq!(line(Level::Warning, "odd", None, false), "ethudp: warning: odd\n");
        assert_eq!(line(Level::Warning, "odd", Some(&name), false), "ethudp: site-a: warning: odd\n");
        for (level, number) in [(Level::Error, 3), (Level::Warning, 4), (Level::Info, 6), (Level::Debug, 7)] {
            assert_eq!(line(level, "text", Some(&name), true), format!("<{number}>site-a: text\n"));
        }
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(visible("a\u{1b}[2J\n\u{202e}b\u{200b}é"), "a\\u{1b}[2J\\u{a}\\u{202e}b\\u{200b}é");
        assert!(matches!(visible("plain"), Cow::Borrowed("plain")));
    }

    #[test]
    fn journal_is_recognised_by_inode() {
        let metadata = fs::metadata("/dev/null").unwrap();
        let stream = format!("{}:{}", metadata.dev(), metadata.ino());
        assert!(is_journal(&stream, &metadata));
        for other in ["", "1:2", &stream[1..], &format!("{stream}0")] {
            assert!(!is_journal(other, &metadata), "{other}");
        }
    }
}
