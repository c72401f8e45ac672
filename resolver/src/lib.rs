//! The resolver: has the C library look up the addresses of the names in a tunnel's file, for the life of the tunnel.
//!
//! It reads only from the supervisor: the names once, then questions by the number of a name. Each question is asked by a process of
//! its own, which reads the files of the host's resolver as they are now, and ends after its answer. So an answer of the network
//! reaches only a process that has one question, and cannot change the answer to another.

pub mod confine;
mod question;

use std::collections::VecDeque;
use std::process::ExitCode;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use privsep::PROTOCOL;
use privsep::ipc::{self, Answer, Channel, FromResolver, MAX_NAMES, MAX_QUESTIONS, Never, ToResolver};
use privsep::sys::process;

use question::{Forked, Question};

type Supervisor = Channel<FromResolver, ToResolver>;

/// Entry point of the program.
pub fn run() -> ExitCode {
    let channel = privsep::confine::at_start().and_then(|()| process::inherited(process::SUPERVISOR_FD));
    let supervisor = match channel {
        Ok(channel) => Supervisor::new(channel),
        Err(error) => {
            eprintln!("ethudp-resolver: {error}; do not start it by hand: `ethudp` starts it");
            return ExitCode::FAILURE;
        }
    };
    let role = serve(&supervisor).or_else(|error| refuse(&supervisor, &FromResolver::Failed(question::short(&error))));
    drop(supervisor);
    match role {
        Ok(Role::Resolver) => ExitCode::SUCCESS,
        Ok(Role::Question(name, to)) => question::ask(&name, &to),
        Err(_) => ExitCode::FAILURE,
    }
}

/// Sends the last message, and waits for the end of the supervisor's side: with unread questions, the end of this side would precede
/// the message.
fn refuse(supervisor: &Supervisor, last: &FromResolver) -> Result<Role, ipc::Error> {
    supervisor.send(last, &[])?;
    while supervisor.recv()?.is_some() {}
    Ok(Role::Resolver)
}

/// Role of this process at the end of [`serve`], when all descriptors of the resolver are closed.
enum Role {
    /// The resolver, whose supervisor has ended.
    Resolver,
    /// A child that asks for this name and answers on this channel.
    Question(String, Channel<Answer, Never>),
}

fn serve(supervisor: &Supervisor) -> Result<Role, ipc::Error> {
    let names = match supervisor.recv()? {
        None => return Ok(Role::Resolver),
        Some((ToResolver::Start { protocol: PROTOCOL, become_user, required, names }, _))
            if names.len() <= MAX_NAMES =>
        {
            let lacks = confine::before_questions(become_user)?;
            if required && !lacks.is_empty() {
                return refuse(supervisor, &FromResolver::Lacks(lacks.join(", ")));
            }
            names
        }
        Some((ToResolver::Start { .. }, _)) => {
            return Err(ipc::Error::Violation("supervisor and resolver are of different versions"));
        }
        Some((ToResolver::Ask(_), _)) => return Err(ipc::Error::Violation("question before the names")),
    };
    let (mut questions, mut waiting) = (Vec::<Question>::new(), VecDeque::new());
    loop {
        let (asked, answered) = wait(supervisor, &questions)?;
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
                Some((ToResolver::Ask(name), _)) if usize::from(name) < names.len() && waiting.len() < MAX_NAMES => {
                    waiting.push_back(name);
                }
                Some(_) => return Err(ipc::Error::Violation("message out of place")),
            }
        }
        while questions.len() < MAX_QUESTIONS
            && let Some(name) = waiting.pop_front()
        {
            match Question::start(name, now) {
                Ok(Forked::Parent(question)) => questions.push(question),
                Ok(Forked::Child(to)) => return Ok(Role::Question(names[usize::from(name)].clone(), to)),
                // Memory or processes may be short for a moment.
                Err(error) => {
                    let reason = question::short(&format!("cannot start a process for the look-up: {error}"));
                    supervisor.send(&FromResolver::Answer(name, Answer(Err(reason))), &[])?;
                }
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
