//! Messages to people: standard error in the foreground, the system log in the background.

use std::sync::Mutex;

use syslog::{Facility, Formatter3164, Logger, LoggerBackend};

enum Target {
    Stderr,
    System(Box<Logger<LoggerBackend, Formatter3164>>),
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
    syslog::unix(formatter).ok().map(SystemLog)
}

/// A connection to the system log.
pub struct SystemLog(Logger<LoggerBackend, Formatter3164>);

/// Sends all further messages to the system log.
pub fn to_background(log: Option<SystemLog>) {
    *target() = log.map_or(Target::Nowhere, |SystemLog(logger)| Target::System(Box::new(logger)));
}

fn target() -> std::sync::MutexGuard<'static, Target> {
    TARGET.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
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
            eprintln!("ethudp: {level}{text}");
        }
        Target::System(logger) => {
            // A log that does not take a message is no reason to stop, and there is nobody to tell.
            let _ = match level {
                Level::Error => logger.err(text),
                Level::Warning => logger.warning(text),
                Level::Info => logger.info(text),
            };
        }
        Target::Nowhere => {}
    }
}

/// Text that comes from a process we do not trust: control characters replaced, length bounded.
pub fn untrusted(text: &str) -> String {
    text.chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
