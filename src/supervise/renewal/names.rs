//! Names of peers in a running tunnel: when to ask for their addresses, and which address to use. Pure: the clock is an argument.
//!
//! The C library does not tell how long an answer is valid, so a name is asked again after [`VALID`], and more rarely while its
//! answers stay the same. A path that is not up asks earlier, and tries the addresses of its name in turn.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::tunnel::resolve::{self, Answers, Found, Resolved, with_port};
use crate::tunnel::{self, Remote, Tunnel};

/// Time from one answer to the next question, while all paths of the name are up. It doubles up to the second value while the
/// answers stay the same.
const VALID: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(600));
/// The same while a path of the name is not up; it doubles with each question.
const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// Time for which an address may stay without an answer of the peer before the next address of the name is tried. It doubles with
/// each round, up to the second value.
const TRIAL: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(30));

/// State of a path in the view of the worker.
#[derive(Debug, Clone, Copy, Default)]
pub struct Use {
    /// Whether the peer answers, or need not answer.
    pub up: bool,
    /// Address in use.
    pub address: Option<SocketAddr>,
}

/// An address that a path is to use.
pub type Move = (usize, SocketAddr);

/// Names of a tunnel's peers.
#[derive(Debug, Default)]
pub struct Names {
    questions: Vec<Question>,
    paths: Vec<NamedPath>,
}

/// A name, with the times of its questions.
#[derive(Debug)]
struct Question {
    name: String,
    /// Time of the last answer.
    answered: Instant,
    asked: bool,
    valid: Duration,
    retry: Duration,
    /// Reason why the last answer has no address.
    error: Option<String>,
}

/// A path whose remote is a name.
#[derive(Debug)]
struct NamedPath {
    /// Number of the path in the running tunnel.
    number: usize,
    /// Number of the name.
    name: usize,
    local: IpAddr,
    port: u16,
    /// Addresses that the path can reach, in the order of the last answer.
    addresses: Vec<SocketAddr>,
    /// Number of the address that was told last, and the time.
    told: (usize, Instant),
    /// Rounds through all addresses without an answer of the peer.
    rounds: u32,
}

impl Names {
    /// Names of the present paths, by their numbers at the resolver, and the answers at the start.
    pub fn new(now: Instant, tunnel: &Tunnel, paths: &[Resolved], names: &[String], answers: &Answers) -> Self {
        let question = |name: &String| Question {
            name: name.clone(),
            answered: now,
            asked: false,
            valid: VALID.0,
            retry: RETRY.0,
            error: answers.get(name).map_or(Some("no answer".into()), |found| found.clone().err()),
        };
        let path = |(number, (path, resolved)): (usize, (&tunnel::Path, &Resolved))| {
            let host = resolve::remote_name(path)?;
            let name = names.iter().position(|name| name == host)?;
            let port = match &path.remote {
                Remote::Fixed(endpoint) => endpoint.port,
                Remote::Learned { port, .. } => port.unwrap_or(0),
            };
            let (local, told) = (resolved.local.ip(), (0, now));
            let mut path = NamedPath { number, name, local, port, addresses: Vec::new(), told, rounds: 0 };
            path.addresses = answers.get(host).and_then(|found| path.reachable(found)).unwrap_or_default();
            Some(path)
        };
        let paths = tunnel.paths.iter().zip(paths).enumerate().filter_map(path).collect();
        Self { questions: names.iter().map(question).collect(), paths }
    }

    /// Whether a path has a remote that is a name.
    pub fn are_needed(&self) -> bool {
        !self.paths.is_empty()
    }

    /// Time of the next question or of the next trial.
    pub fn due(&self, state: impl Fn(usize) -> Use) -> Option<Instant> {
        let questions = (0..self.questions.len()).filter_map(|name| self.question_due(name, &state));
        let trials = self.paths.iter().filter_map(|path| path.trial_due(state(path.number)));
        questions.chain(trials).min()
    }

    /// Does the due work: numbers of names to ask for, and moves of paths that are not up.
    pub fn on_time(&mut self, now: Instant, state: impl Fn(usize) -> Use) -> (Vec<usize>, Vec<Move>) {
        let due = |name: &usize| self.question_due(*name, &state).is_some_and(|due| now >= due);
        let asked: Vec<_> = (0..self.questions.len()).filter(due).collect();
        for &name in &asked {
            self.questions[name].asked = true;
        }
        let mut moves = Vec::new();
        for path in &mut self.paths {
            let used = state(path.number);
            if used.up {
                path.rounds = 0;
            }
            if path.trial_due(used).is_some_and(|due| now >= due) {
                let tried = path.addresses.get(path.told.0).is_some_and(|&address| path.uses(used, address));
                let next = path.told.0 + usize::from(tried);
                path.rounds += u32::from(next >= path.addresses.len());
                moves.push(path.tell(next % path.addresses.len(), now));
            }
        }
        (asked, moves)
    }

    /// Takes an answer. Returns moves of paths whose address the name no longer has, and a line for the log if the answer is news.
    pub fn on_answer(
        &mut self,
        now: Instant,
        name: usize,
        found: &Found,
        state: impl Fn(usize) -> Use,
    ) -> (Vec<Move>, Option<String>) {
        let up = self.is_up(name, &state);
        let Some(question) = self.questions.get_mut(name) else { return (Vec::new(), None) };
        (question.answered, question.asked) = (now, false);
        (question.valid, question.retry) = if up {
            ((question.valid * 2).min(VALID.1), RETRY.0)
        } else {
            (VALID.0, (question.retry * 2).min(RETRY.1))
        };
        let (mut moves, mut unreachable) = (Vec::new(), false);
        let mut changed = false;
        for path in self.paths.iter_mut().filter(|path| path.name == name) {
            // Without an address the path keeps those that it has.
            let Some(addresses) = found.as_ref().ok().and_then(|_| path.reachable(found)) else {
                unreachable |= found.as_ref().is_ok_and(|found| !found.is_empty());
                continue;
            };
            let used = state(path.number);
            changed |= addresses.iter().any(|address| !path.addresses.contains(address));
            path.addresses = addresses;
            match path.addresses.iter().position(|&address| path.uses(used, address)) {
                Some(at) => path.told.0 = at,
                None => moves.push(path.tell(0, now)),
            }
        }
        let error = match found {
            Err(reason) => Some(reason.clone()),
            Ok(found) if found.is_empty() => Some("no address found".into()),
            Ok(_) if unreachable => Some("no address of the local address's family".into()),
            Ok(_) => None,
        };
        let text = |question: &Question| {
            if let Some(error) = &question.error {
                return format!("name {:?}: {error}; it is looked up again", question.name);
            }
            let found = found.iter().flatten().map(|address| address.ip().to_string());
            format!("name {:?}: addresses {}", question.name, found.collect::<Vec<_>>().join(", "))
        };
        let news = question.error != error || changed;
        if changed {
            question.valid = VALID.0;
        }
        question.error = error;
        (moves, news.then(|| text(question)))
    }

    /// Reason why a path has no usable address.
    pub fn reason(&self, path: usize) -> Option<String> {
        let path = self.paths.iter().find(|named| named.number == path)?;
        let question = &self.questions[path.name];
        let error = question.error.as_ref()?;
        Some(format!("remote name {:?}: {error}; it is looked up again", question.name))
    }

    /// Whether all paths of a name are up.
    fn is_up(&self, name: usize, state: impl Fn(usize) -> Use) -> bool {
        self.paths.iter().filter(|path| path.name == name).all(|path| state(path.number).up)
    }

    /// Time of the next question for a name that a path needs.
    fn question_due(&self, name: usize, state: impl Fn(usize) -> Use) -> Option<Instant> {
        let question = self.questions.get(name).filter(|question| !question.asked)?;
        self.paths.iter().any(|path| path.name == name).then(|| {
            let up = self.is_up(name, state) && question.error.is_none();
            question.answered + if up { question.valid } else { question.retry }
        })
    }
}

impl NamedPath {
    /// Whether this address of the name is in use. A path without a port learns the port of the peer.
    fn uses(&self, used: Use, address: SocketAddr) -> bool {
        used.address.is_some_and(|used| if self.port == 0 { used.ip() == address.ip() } else { used == address })
    }

    /// Addresses of an answer that the path can reach; `None` if there is none.
    fn reachable(&self, found: &Found) -> Option<Vec<SocketAddr>> {
        let reached = found.iter().flatten().filter(|address| resolve::reaches(self.local, address.ip()));
        let addresses: Vec<_> = reached.map(|&address| with_port(address, self.port)).collect();
        (!addresses.is_empty()).then_some(addresses)
    }

    /// Time at which the next address is tried, while the peer does not answer.
    fn trial_due(&self, used: Use) -> Option<Instant> {
        let other = self.addresses.iter().any(|&address| !self.uses(used, address));
        let trial = (TRIAL.0 * 2_u32.pow(self.rounds.min(8))).min(TRIAL.1);
        (!used.up && other).then(|| self.told.1 + trial)
    }

    fn tell(&mut self, address: usize, now: Instant) -> Move {
        self.told = (address, now);
        (self.number, self.addresses[address])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "192.0.2.2:6000";
    const NEW: &str = "192.0.2.22:6000";
    const V6: &str = "[2001:db8::2]:6000";

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[allow(clippy::unnecessary_wraps)] // As an answer.
    fn found(addresses: &[&str]) -> Found {
        Ok(addresses.iter().map(|text| with_port(address(text), 0)).collect())
    }

    /// Names of a tunnel with one path from this address to a name, which had these addresses at the start.
    fn names(now: Instant, local: &str, first: Found) -> Names {
        let text = format!(
            "mode = \"tap\"\nwire = \"classic\"\n[[path]]\nlocal = \"{local}:6000\"\nremote = \"peer.example:6000\"\n"
        );
        let tunnel = tunnel::file::from_text(&text, "a", std::path::Path::new("")).unwrap();
        let answers = Answers::from([("peer.example".into(), first)]);
        let resolved = resolve::without_remote(&tunnel.paths[0], &answers).unwrap();
        Names::new(now, &tunnel, &[resolved], &resolve::names(&tunnel), &answers)
    }

    fn used(up: bool, text: &str) -> impl Fn(usize) -> Use {
        let address = Some(address(text));
        move |_| Use { up, address }
    }

    /// Seconds at which a name is asked, of a path in this state, if each answer is this one.
    fn asked(state: impl Fn(usize) -> Use, answer: &Found, seconds: u64) -> Vec<u64> {
        let start = Instant::now();
        let mut names = names(start, "0.0.0.0", found(&[OLD]));
        let mut times = Vec::new();
        for second in 1..seconds {
            let now = start + Duration::from_secs(second);
            let (asked, _) = names.on_time(now, &state);
            for name in asked {
                times.push(second);
                names.on_answer(now, name, answer, &state);
            }
        }
        times
    }

    #[test]
    fn name_is_asked_by_need() {
        let stays = asked(used(true, OLD), &found(&[OLD]), 2000);
        assert_eq!(stays, [60, 180, 420, 900, 1500]);
        assert_eq!(asked(used(false, OLD), &found(&[OLD]), 240), [5, 15, 35, 75, 135, 195]);
        // A name server that does not answer is asked again soon, while the path keeps its address.
        assert_eq!(asked(used(true, OLD), &Err("no".into()), 100), [60, 65, 70, 75, 80, 85, 90, 95]);
    }

    #[test]
    fn changed_name_moves_the_path() {
        let start = Instant::now();
        for up in [true, false] {
            let mut names = names(start, "0.0.0.0", found(&[OLD]));
            let mut answer = |addresses: &[&str], at| names.on_answer(start, 0, &found(addresses), used(up, at));
            assert_eq!(answer(&[OLD], OLD), (vec![], None));
            // Another address beside the present one.
            assert_eq!(answer(&[NEW, OLD], OLD).0, []);
            let (moves, line) = answer(&[NEW], OLD);
            assert_eq!((moves, line), (vec![(0, address(NEW))], None));
            // The peer has not answered there: told again.
            assert_eq!(answer(&[NEW], OLD).0, [(0, address(NEW))]);
            assert_eq!(answer(&[NEW], NEW).0, []);
            // An IPv4 socket cannot use an IPv6 address, and keeps the one that it has.
            let (moves, line) = answer(&[V6], NEW);
            assert!(moves.is_empty() && line.unwrap().contains("no address of the local address's family"));
            let (moves, line) = names.on_answer(start, 0, &Err("Name or service not known".into()), used(up, NEW));
            assert!(moves.is_empty() && line.unwrap().contains("Name or service not known"));
            assert!(names.reason(0).unwrap().contains("remote name \"peer.example\": Name or service not known"));
        }
    }

    #[test]
    fn silent_address_gives_way_to_the_next() {
        let start = Instant::now();
        let mut names = names(start, "[::]", found(&[V6, OLD]));
        let (mut at, mut moves) = (V6, Vec::new());
        for second in 1..60 {
            let (_, moved) = names.on_time(start + Duration::from_secs(second), used(false, at));
            for (path, to) in moved {
                assert_eq!(path, 0);
                at = if to == address(V6) { V6 } else { OLD };
                moves.push((second, to.is_ipv6()));
            }
        }
        assert_eq!(moves, [(4, false), (8, true), (16, false), (24, true), (40, false), (56, true)]);
        // An address that answers stays.
        for second in 60..200 {
            assert!(names.on_time(start + Duration::from_secs(second), used(true, at)).1.is_empty());
        }
        // A path that goes down tries the other address at once.
        let (_, moved) = names.on_time(start + Duration::from_secs(200), used(false, V6));
        assert_eq!(moved, [(0, address(OLD))]);
    }

    #[test]
    fn unresolved_name_is_used_once_it_resolves() {
        let start = Instant::now();
        let mut names = names(start, "192.0.2.1", Err("Name or service not known".into()));
        let nowhere = |_| Use { up: false, address: None };
        assert!(names.are_needed() && names.reason(0).is_some());
        assert_eq!(names.on_time(start + RETRY.0, nowhere), (vec![0], vec![]));
        let (moves, line) = names.on_answer(start + RETRY.0, 0, &found(&[OLD]), nowhere);
        assert_eq!(moves, [(0, address(OLD))]);
        assert_eq!(line.as_deref(), Some("name \"peer.example\": addresses 192.0.2.2"));
        assert_eq!(names.reason(0), None);
    }
}
