//! A question, asked by a process of its own.

use std::net::ToSocketAddrs;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use privsep::ipc::{self, Address, Answer, Channel, MAX_ADDRESSES, MAX_REASON, Never};
use privsep::sys::resolver::fork_question;

use super::{LIMIT, confine};

/// A question that is being asked.
pub struct Question {
    /// Number of the name.
    pub name: u8,
    process: Pid,
    channel: Channel<Never, Answer>,
    began: Instant,
}

/// The two processes after the start of a question.
pub enum Forked {
    /// The resolver.
    Parent(Question),
    /// The process that asks, and its channel for the answer.
    Child(Channel<Answer, Never>),
}

impl Question {
    /// Starts the process for a question.
    pub fn start(name: u8, now: Instant) -> Result<Forked, ipc::Error> {
        let (ours, theirs) = ipc::pair()?;
        Ok(match fork_question()? {
            Some(process) => Forked::Parent(Self { name, process, channel: Channel::new(ours), began: now }),
            None => Forked::Child(Channel::new(theirs)),
        })
    }

    /// Whether the answer has taken too long.
    pub fn is_late(&self, now: Instant) -> bool {
        now >= self.began + LIMIT
    }

    /// Takes the answer, if there is one, and ends the process.
    pub fn end(self) -> Answer {
        let none = |reason: &str| Answer(Err(reason.into()));
        let answer = if self.is_late(Instant::now()) {
            none("no answer")
        } else {
            match self.channel.recv() {
                Ok(Some((answer, _))) => answer,
                Ok(None) => none("look-up ended without an answer"),
                Err(error) => none(&error.to_string()),
            }
        };
        let _ = kill(self.process, Signal::SIGKILL);
        let _ = waitpid(self.process, None);
        answer
    }

    /// Descriptor that is readable once there is an answer, or the process has ended.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// Confines this process to one question, asks it and answers.
pub fn ask(name: &str, to: &Channel<Answer, Never>) -> ExitCode {
    let answer = confine::before_asking().map_err(|error| error.to_string()).and_then(|()| look_up(name));
    let short = |reason: String| reason.chars().take(MAX_REASON).collect();
    match to.send(&Answer(answer.map_err(short)), &[]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Has the C library look up a name. The order of the addresses is the library's (RFC 6724).
fn look_up(name: &str) -> Result<Vec<Address>, String> {
    match (name, 0).to_socket_addrs() {
        Ok(found) => Ok(found.take(MAX_ADDRESSES).map(Address).collect()),
        // "failed to lookup address information: Name or service not known"
        Err(error) => Err(error.to_string().rsplit(": ").next().unwrap_or_default().into()),
    }
}
