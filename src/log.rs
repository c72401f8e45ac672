//! Messages to people: standard error in the foreground, the system log in the background.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::fcntl::OFlag;
use nix::sys::socket::{MsgFlags, send};
use syslog::{Facility, Formatter3164, Logger, LoggerBackend};

enum Target {
    Stderr,
    System(SystemLog),
    /// In the background, and no system log was there.
    Nowhere,
}

static TARGET: Mutex<Target> = Mutex::new(Target::Stderr);

#[derive(Clone, Copy)]
enum Level {
    Error,
    Warning,
    Info,
}

/// Connects to the system log; from [`to_background`] on all messages go there. Called while `/dev/log` can be reached.
pub fn connect(name: &str) -> Option<SystemLog> {
    let formatter = Formatter3164 {
        facility: Facility::LOG_DAEMON,
        hostname: None,
        process: format!("ethudp[{name}]"),
        pid: std::process::id(),
    };
    let logger = syslog::unix(formatter).ok()?;
    // A log that is slow loses messages; it never stops a tunnel.
    let LoggerBackend::Unix(socket) = &logger.backend else { return None };
    socket.set_nonblocking(true).ok()?;
    Some(SystemLog { logger: Box::new(logger), name: name.to_owned() })
}

/// A connection to the system log.
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
        };
        sent.is_ok()
    }
}

/// Sends all further messages to the system log.
pub fn to_background(log: Option<SystemLog>) {
    // The terminal is let go of.
    *STDERR.lock().unwrap_or_else(PoisonError::into_inner) = None;
    *target() = log.map_or(Target::Nowhere, Target::System);
}

fn target() -> MutexGuard<'static, Target> {
    TARGET.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something failed.
pub fn error(text: &str) {
    write(Level::Error, text);
}

/// Something is not as it should be.
pub fn warning(text: &str) {
    write(Level::Warning, text);
}

/// Something happened.
pub fn info(text: &str) {
    write(Level::Info, text);
}

fn write(level: Level, text: &str) {
    match &mut *target() {
        Target::Stderr => {
            let level = match level {
                Level::Warning => "warning: ",
                Level::Error | Level::Info => "",
            };
            stderr_line(&format!("ethudp: {level}{text}\n"));
        }
        Target::System(log) => {
            // The log's daemon may have been restarted; if there is none, there is nobody to tell.
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

/// Prints to standard output. Whoever reads it may have gone, which is no reason to stop.
pub fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

/// Standard error of our own, opened anew so that it can be made non-blocking without whoever shares it noticing. Nobody
/// who reads slowly, or no longer, stops a tunnel: what does not fit is lost.
static STDERR: Mutex<Option<File>> = Mutex::new(None);

/// Opens standard error anew where it is a terminal or a pipe. Called first, while that can still be opened.
pub fn open_stderr() {
    let stderr = "/proc/self/fd/2";
    let waits = |kind: fs::FileType| kind.is_char_device() || kind.is_fifo();
    if fs::metadata(stderr).is_ok_and(|metadata| waits(metadata.file_type())) {
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = File::options().append(true).custom_flags(flags.bits()).open(stderr).ok();
        *STDERR.lock().unwrap_or_else(PoisonError::into_inner) = file;
    }
}

fn stderr_line(line: &str) {
    let _ = match &mut *STDERR.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(file) => file.write_all(line.as_bytes()),
        // A socket, as the service manager's, takes the line or not; a file always does.
        None if fs::metadata("/proc/self/fd/2").is_ok_and(|metadata| metadata.file_type().is_socket()) => {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            send(io::stderr().as_raw_fd(), line.as_bytes(), flags).map(drop).map_err(io::Error::from)
        }
        None => io::stderr().write_all(line.as_bytes()),
    };
}

/// Text that comes from a process we do not trust: control characters replaced, length bounded.
pub fn untrusted(text: &str) -> String {
    text.chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
