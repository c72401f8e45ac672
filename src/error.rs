//! Errors that end the program: one line with the thing, the wrong value, and the right value.

use thiserror::Error;

use crate::service::descriptor_store::Cause;

/// Reason for the end of the program.
#[derive(Debug, Error)]
pub enum Error {
    /// The command line is wrong; exit status 2.
    #[error("{0}")]
    Usage(String),
    /// A permanent fault: a missing or wrong file or key; exit status 78, `EX_CONFIG` of sysexits.h.
    #[error("{0}")]
    Configuration(String),
    /// Workers crash as in an attack, and another start would continue it; exit status 79.
    #[error("{0}")]
    Attacked(String),
    /// The program is to be started again at once, because only a new start helps; exit status 1.
    #[error("{1}")]
    Again(Cause, String),
    /// Anything else; exit status 1.
    #[error("{0}")]
    Failure(String),
    /// All messages were already printed, by the process in the background or by the command; the exit status.
    #[error("already reported")]
    Reported(u8),
}

impl Error {
    /// A wrong command line.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    /// A permanent fault.
    pub fn configuration(text: impl Into<String>) -> Self {
        Self::Configuration(text.into())
    }

    /// Any other failure.
    pub fn failure(text: impl Into<String>) -> Self {
        Self::Failure(text.into())
    }

    /// The exit status of the process.
    pub fn status(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Configuration(_) => 78,
            Self::Attacked(_) => 79,
            Self::Again(..) | Self::Failure(_) => 1,
            Self::Reported(status) => *status,
        }
    }
}

/// Prefixes an error of the system with the failed action.
pub trait Context<T> {
    /// `what` names the thing and its value.
    fn context(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: std::fmt::Display> Context<T> for Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|error| Error::failure(format!("{}: {error}", what())))
    }
}
