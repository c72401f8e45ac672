//! Errors that end the program: one line that names the thing, the value that was wrong and what would be right.

use thiserror::Error;

use crate::service::descriptor_store::Cause;

/// Why the program ends.
#[derive(Debug, Error)]
pub enum Error {
    /// The command line is wrong; exit status 2.
    #[error("{0}")]
    Usage(String),
    /// What no other try mends: a file that is missing or wrong, or a key; exit status 78, `EX_CONFIG` of sysexits.h.
    #[error("{0}")]
    Configuration(String),
    /// The workers crash as if somebody steered them, and another start would go on with that; exit status 79.
    #[error("{0}")]
    Attacked(String),
    /// The program is to be started again at once, for what only a new start mends; exit status 1.
    #[error("{1}")]
    Again(Cause, String),
    /// Anything else; exit status 1.
    #[error("{0}")]
    Failure(String),
    /// All has been said already, by the process in the background or by what was shown; the exit status.
    #[error("not started")]
    Reported(u8),
}

impl Error {
    /// A wrong command line.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    /// What no other try mends.
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

/// Puts what was being done in front of a failure of the system.
pub trait Context<T> {
    /// `what` names the thing and its value.
    fn context(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: std::fmt::Display> Context<T> for Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|error| Error::failure(format!("{}: {error}", what())))
    }
}
