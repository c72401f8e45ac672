//! A question, asked by a process of its own.

use std::net::ToSocketAddrs;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use privsep::ipc::{self, Address, Answer, Channel, LONGEST_QUESTION, MAX_ADDRESSES, MAX_REASON, Never};
use privsep::sys::resolver::fork_question;

use super::confine;

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
        now >= self.began + LONGEST_QUESTION
    }

    /// Takes the answer, if there is one and it may be passed on, and ends the process.
    pub fn end(self) -> Answer {
        let none = |reason: &str| Answer(Err(reason.into()));
        let answer = if self.is_late(Instant::now()) {
            none("no answer")
        } else {
            match self.channel.recv() {
                Ok(Some((Answer(Ok(addresses)), _))) if addresses.len() > MAX_ADDRESSES => none("invalid answer"),
                Ok(Some((Answer(Err(reason)), _))) if reason.chars().count() > MAX_REASON => none("invalid answer"),
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

/// A reason as far as a message has room for it.
pub fn short(reason: &impl ToString) -> String {
    reason.to_string().chars().take(MAX_REASON).collect()
}

/// Confines this process to one question, asks it and answers.
pub fn ask(name: &str, to: &Channel<Answer, Never>) -> ExitCode {
    let answer = confine::before_asking().map_err(|error| error.to_string()).and_then(|()| look_up(name));
    match to.send(&Answer(answer.map_err(|reason| short(&reason))), &[]) {
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

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A question whose process does not end by itself, and the channel of that process.
    fn question(began: Instant) -> (Question, Channel<Answer, Never>) {
        let (ours, theirs) = ipc::pair().unwrap();
        #[allow(clippy::zombie_processes)] // The end of the question waits for the process.
        let process = Command::new("sleep").arg("600").spawn().unwrap();
        let process = Pid::from_raw(process.id().cast_signed());
        (Question { name: 0, process, channel: Channel::new(ours), began }, Channel::new(theirs))
    }

    #[test]
    fn long_answer_is_not_passed_on() {
        let address = Address(([192, 0, 2, 1], 0).into());
        for (answer, passes) in [
            (Ok(vec![address; MAX_ADDRESSES]), true),
            (Ok(vec![address; MAX_ADDRESSES + 1]), false),
            (Err("x".repeat(MAX_REASON)), true),
            (Err("x".repeat(MAX_REASON + 1)), false),
        ] {
            let (question, process) = question(Instant::now());
            process.send(&Answer(answer.clone()), &[]).unwrap();
            let invalid = Err("invalid answer".to_owned());
            assert_eq!(question.end(), Answer(if passes { answer } else { invalid }));
        }
    }

    #[test]
    fn hanging_question_is_killed() {
        let now = Instant::now();
        let (question, _process) = question(now);
        assert!(!question.is_late(now + LONGEST_QUESTION / 2) && question.is_late(now + LONGEST_QUESTION));
        let (question, process) =
            (Question { began: now.checked_sub(LONGEST_QUESTION).unwrap(), ..question }, question.process);
        assert_eq!(question.end(), Answer(Err("no answer".into())));
        assert_eq!(kill(process, None), Err(nix::errno::Errno::ESRCH));
    }
}
