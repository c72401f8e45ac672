//! Supervisor's side of the resolver. A name server may have taken the resolver over, so every answer is checked.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use privsep::PROTOCOL;
use privsep::ipc::{
    self, Address, Answer, Channel, FromResolver, Identity, LONGEST_QUESTION, MAX_ADDRESSES, MAX_QUESTIONS, ToResolver,
};
use privsep::sys::supervisor::start;

use crate::error::Context;
use crate::process::Child;
use crate::service::executables;
use crate::tunnel::resolve::{Found, is_host, with_port};
use crate::{Error, log};

/// Time in addition to that of the questions, after which the resolver counts as hung.
const SLACK: Duration = Duration::from_secs(10);

/// Message of the resolver.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// Number of a name, and its addresses.
    Answer(usize, Found),
    /// Means of confinement that the kernel lacks.
    Lacks(String),
    /// Reason why the resolver ends.
    Failed(String),
}

/// Running resolver, and the names that it looks up.
pub struct Resolver {
    /// Channel to the resolver. It precedes the process, so that it is closed first, which ends the resolver.
    channel: Channel<ToResolver, FromResolver>,
    child: Child,
    names: Vec<String>,
    /// For each name, the time of the question while its answer is pending.
    asked: Vec<Option<Instant>>,
}

impl Resolver {
    /// Starts a resolver for these names, in the network namespace and with the privileges of this process. The resolver gives up
    /// the privileges. `None` without names. With `required`, it asks nothing if the kernel lacks a means of confinement.
    pub fn start(names: Vec<String>, become_user: Option<Identity>, required: bool) -> Result<Option<Self>, Error> {
        let say = || "resolver".to_owned();
        if names.is_empty() {
            return Ok(None);
        }
        let executable = executables::resolver()?;
        let (ours, theirs) = ipc::pair().context(say)?;
        let pid = start::spawn(executable.as_fd(), c"ethudp-resolver", theirs.as_fd(), None).context(say)?;
        let (child, channel) = (Child::new(pid), Channel::new(ours));
        let start = ToResolver::Start { protocol: PROTOCOL, become_user, required, names: names.clone() };
        channel.send(&start, &[]).context(say)?;
        let asked = vec![None; names.len()];
        Ok(Some(Self { channel, child, names, asked }))
    }

    /// Process id.
    pub fn pid(&self) -> Pid {
        self.child.pid()
    }

    /// Names by their numbers.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Asks for a name, unless an answer is pending.
    pub fn ask(&mut self, name: usize) -> Result<(), ipc::Error> {
        let Some(asked) = self.asked.get_mut(name).filter(|asked| asked.is_none()) else { return Ok(()) };
        *asked = Some(Instant::now());
        self.channel.try_send(&ToResolver::Ask(u8::try_from(name).unwrap_or(u8::MAX)))
    }

    /// Whether an answer is pending.
    pub fn is_waiting(&self) -> bool {
        self.asked.iter().any(Option::is_some)
    }

    /// Time from which a pending answer means that the resolver hangs; `None` without one.
    pub fn late_at(&self) -> Option<Instant> {
        let rounds = u32::try_from(self.names.len().div_ceil(MAX_QUESTIONS)).unwrap_or(u32::MAX);
        self.asked.iter().flatten().min()?.checked_add(LONGEST_QUESTION * rounds + SLACK)
    }

    /// Reads one message. `Ok(None)` at the end of the channel.
    ///
    /// # Errors
    /// When the resolver has broken the rules.
    pub fn take(&mut self) -> Result<Option<Said>, ipc::Error> {
        let (number, answer) = match self.channel.recv()? {
            Some((FromResolver::Answer(number, answer), _)) => (number, answer),
            Some((FromResolver::Lacks(lacks), _)) => return Ok(Some(Said::Lacks(log::untrusted(&lacks)))),
            Some((FromResolver::Failed(reason), _)) => return Ok(Some(Said::Failed(log::untrusted(&reason)))),
            None => return Ok(None),
        };
        let number = usize::from(number);
        match self.asked.get_mut(number).and_then(Option::take) {
            Some(_) => {}
            None => return Err(ipc::Error::Violation("answer without a question")),
        }
        checked(answer).map(|found| Some(Said::Answer(number, found)))
    }
}

impl AsFd for Resolver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// Checks an answer: the number of addresses, and that each is the address of one host.
pub fn checked(Answer(answer): Answer) -> Result<Found, ipc::Error> {
    let addresses = match answer {
        Ok(addresses) if addresses.len() > MAX_ADDRESSES => return Err(ipc::Error::Violation("too many addresses")),
        Ok(addresses) => addresses,
        Err(reason) => return Ok(Err(log::untrusted(&reason))),
    };
    let mut found = Vec::<SocketAddr>::new();
    for Address(address) in addresses {
        let ip = address.ip().to_canonical();
        let address = if ip == address.ip() { with_port(address, 0) } else { (ip, 0).into() };
        if is_host(ip) && !found.contains(&address) {
            found.push(address);
        }
    }
    Ok(Ok(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolver(names: usize) -> (Resolver, Channel<FromResolver, ToResolver>) {
        let (ours, theirs) = ipc::pair().unwrap();
        #[allow(clippy::zombie_processes)] // The handle waits for the process.
        let child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let child = Child::new(Pid::from_raw(child.id().cast_signed()));
        let names = (0..names).map(|number| format!("n{number}.example")).collect::<Vec<_>>();
        let asked = vec![None; names.len()];
        (Resolver { channel: Channel::new(ours), child, names, asked }, Channel::new(theirs))
    }

    fn addresses(texts: &[&str]) -> Answer {
        Answer(Ok(texts.iter().map(|text| Address(text.parse().unwrap())).collect()))
    }

    #[test]
    fn hanging_resolver_is_noticed() {
        for (names, seconds) in [(1, 40), (2, 40), (3, 70), (16, 250)] {
            let (mut resolver, _process) = resolver(names);
            assert_eq!(resolver.late_at(), None);
            let before = Instant::now();
            resolver.ask(0).unwrap();
            let late = resolver.late_at().unwrap();
            assert!(
                late >= before + Duration::from_secs(seconds) && late <= Instant::now() + Duration::from_secs(seconds)
            );
        }
    }

    #[test]
    fn unasked_answer_is_refused() {
        let (mut resolver, process) = resolver(2);
        let one = || addresses(&["192.0.2.1:0"]);
        resolver.ask(1).unwrap();
        // A second question before the answer is not sent.
        resolver.ask(1).unwrap();
        assert!(matches!(process.recv().unwrap(), Some((ToResolver::Ask(1), _))));
        process.send(&FromResolver::Answer(1, one()), &[]).unwrap();
        let found = Ok(vec!["192.0.2.1:0".parse().unwrap()]);
        assert_eq!(resolver.take().unwrap(), Some(Said::Answer(1, found)));
        for number in [1, 0, 2, 255] {
            process.send(&FromResolver::Answer(number, one()), &[]).unwrap();
            assert!(matches!(resolver.take(), Err(ipc::Error::Violation("answer without a question"))), "{number}");
        }
        drop(process);
        assert!(matches!(resolver.take(), Ok(None)));
    }

    #[test]
    fn answers_are_checked() {
        let checked = |texts: &[&str]| checked(addresses(texts)).map(Result::unwrap);
        let wrong = ["0.0.0.0:0", "[::]:0", "224.0.0.1:0", "255.255.255.255:0", "[ff02::1]:0", "[::ffff:0.0.0.0]:0"];
        assert_eq!(checked(&wrong).unwrap(), []);
        let some = ["[2001:db8::1]:7", "192.0.2.1:9", "[::ffff:192.0.2.1]:0", "[fe80::1%3]:0"];
        let right = ["[2001:db8::1]:0", "192.0.2.1:0", "[fe80::1%3]:0"];
        assert_eq!(checked(&some).unwrap(), right.map(|text| text.parse::<SocketAddr>().unwrap()));
        assert!(checked(&["192.0.2.1:0"; MAX_ADDRESSES + 1]).is_err());
        let text = super::checked(Answer(Err("a\x1b[2J\nb".into()))).unwrap().unwrap_err();
        assert!(!text.contains(char::is_control), "{text:?}");
    }
}
