//! The resolver: has the C library look up the addresses of the names in a tunnel's file, for the life of the tunnel.
//!
//! It reads only from the supervisor: the names once, then questions by the number of a name. Each question is asked by a process of
//! its own, which reads the files of the host's resolver as they are now, and ends after its answer. So an answer of the network
//! reaches only a process that has one question, and cannot change the answer to another.

pub mod confine;
mod question;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use privsep::PROTOCOL;
use privsep::ipc::{self, Answer, Channel, FromResolver, MAX_NAMES, Never, ToResolver};
use privsep::sys::process;

use question::{Forked, Question};

type Supervisor = Channel<FromResolver, ToResolver>;

/// Entry point of the program.
pub fn run() -> ExitCode {
    match serve() {
        Ok(Role::Resolver) => ExitCode::SUCCESS,
        Ok(Role::Question(name, to)) => question::ask(&name, &to),
        Err(error) => {
            eprintln!("ethudp-resolver: {error}; do not start it by hand: `ethudp` starts it");
            ExitCode::FAILURE
        }
    }
}

/// Role of this process at the end of [`serve`], when all descriptors of the resolver are closed.
enum Role {
    /// The resolver, whose supervisor has ended.
    Resolver,
    /// A child that asks for this name and answers on this channel.
    Question(String, Channel<Answer, Never>),
}

fn serve() -> Result<Role, ipc::Error> {
    privsep::confine::at_start()?;
    let supervisor = Supervisor::new(process::inherited(process::SUPERVISOR_FD)?);
    let names = match supervisor.recv()? {
        None => return Ok(Role::Resolver),
        Some((ToResolver::Start { protocol: PROTOCOL, become_user, required, names }, _))
            if names.len() <= MAX_NAMES =>
        {
            let lacks = confine::before_questions(become_user)?;
            if required && !lacks.is_empty() {
                supervisor.send(&FromResolver::Lacks(lacks.join(", ")), &[])?;
                // Not the end yet: an end with unread questions would reach the supervisor before the message.
                while supervisor.recv()?.is_some() {}
                return Ok(Role::Resolver);
            }
            names
        }
        Some((ToResolver::Start { .. }, _)) => {
            return Err(ipc::Error::Violation("supervisor and resolver are of different versions"));
        }
        Some((ToResolver::Ask(_), _)) => return Err(ipc::Error::Violation("question before the names")),
    };
    let mut questions: Vec<Question> = Vec::new();
    loop {
        let (asked, answered) = wait(&supervisor, &questions)?;
        let now = Instant::now();
        for number in (0..questions.len()).rev() {
            if answered.get(number) == Some(&true) || questions[number].is_late(now) {
                let question = questions.swap_remove(number);
                let name = question.name;
                supervisor.send(&FromResolver::Answer(name, question.end()), &[])?;
            }
        }
        if asked {
            match supervisor.recv()? {
                None => return Ok(Role::Resolver),
                Some((ToResolver::Ask(name), _)) if questions.iter().all(|question| question.name != name) => {
                    let Some(text) = names.get(usize::from(name)) else {
                        return Err(ipc::Error::Violation("no such name"));
                    };
                    match Question::start(name, now)? {
                        Forked::Parent(question) => questions.push(question),
                        Forked::Child(to) => return Ok(Role::Question(text.clone(), to)),
                    }
                }
                Some(_) => return Err(ipc::Error::Violation("message out of place")),
            }
        }
    }
}

/// Waits for a message of the supervisor or an answer. While there are questions, at most for a second. Returns whether the
/// supervisor has sent a message, and for each question whether its process has answered or ended.
fn wait(supervisor: &Supervisor, questions: &[Question]) -> Result<(bool, Vec<bool>), ipc::Error> {
    use std::os::fd::AsFd;

    let limit = if questions.is_empty() { PollTimeout::NONE } else { PollTimeout::from(1000_u16) };
    let all = std::iter::once(supervisor.as_fd()).chain(questions.iter().map(Question::as_fd));
    let mut polled: Vec<_> = all.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN)).collect();
    match poll(&mut polled, limit) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(ipc::Error::Io(error.into())),
    }
    let mut ready = polled.iter().map(|descriptor| descriptor.any().unwrap_or(false));
    Ok((ready.next().unwrap_or(false), ready.collect()))
}

/// Longest time for a question. The C library tries each name server for 10 s by default (resolv.conf(5)).
const LIMIT: Duration = Duration::from_secs(30);
