//! Names of peers in a running tunnel: when to ask for their addresses, and which address to use. Pure: the clock is an argument.
//!
//! The C library does not tell how long an answer is valid, so a name is asked again after [`VALID`], and more rarely while its
//! answers stay the same. A path that is not up asks earlier, and tries the addresses of its name in turn.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::supervise::watch::session::Line;
use crate::tunnel::resolve::{self, Answers, Found, Resolved, with_port};
use crate::tunnel::{self, Remote, Tunnel};

/// Time from one answer to the next question, while all paths of the name are up. It doubles up to the second value while the
/// answers stay the same.
const VALID: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(600));
/// The same while a path of the name is not up, or the last answer has no address; it doubles with each question.
const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// Time for which an address may stay without an answer of the peer before the next address of the name is tried. It begins when
/// the address is told or the path goes down, and doubles with each round, up to the second value.
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
    /// Whether the resolver has ended, so that no name is asked.
    are_lost: bool,
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
    local: SocketAddr,
    port: u16,
    /// Addresses that the path can reach, in the order of the last answer.
    addresses: Vec<SocketAddr>,
    /// Last two addresses at which the path was up. They are tried after those of the name, because an answer may be wrong.
    carried: [Option<SocketAddr>; 2],
    /// Address that was told last.
    told: Option<SocketAddr>,
    /// Time since which the peer may answer there.
    since: Instant,
    /// Whether the path was up at the last look.
    was_up: bool,
    /// Rounds through all addresses without an answer of the peer.
    rounds: u32,
}

impl Names {
    /// Names of the present paths, by their numbers at the resolver, and the answers at the start.
    pub fn new(now: Instant, tunnel: &Tunnel, paths: &[Resolved], names: &[String], answers: &Answers) -> Self {
        let path = |(number, (path, resolved)): (usize, (&tunnel::Path, &Resolved))| {
            let host = resolve::remote_name(path)?;
            let name = names.iter().position(|name| name == host)?;
            let port = match &path.remote {
                Remote::Fixed(endpoint) => endpoint.port,
                Remote::Learned { port, .. } => port.unwrap_or(0),
            };
            Some(NamedPath::new(now, number, name, (resolved.local, port), answers.get(host)))
        };
        let paths: Vec<_> = tunnel.paths.iter().zip(paths).enumerate().filter_map(path).collect();
        let question = |(number, name): (usize, &String)| {
            let unreached = paths.iter().find(|path| path.name == number && path.addresses.is_empty());
            Question {
                name: name.clone(),
                answered: now,
                asked: false,
                valid: VALID.0,
                retry: RETRY.0,
                error: answers.get(name).map_or(Some("no answer".into()), |found| error(found, unreached)),
            }
        };
        Self { questions: names.iter().enumerate().map(question).collect(), paths, are_lost: false }
    }

    /// Whether a path has a remote that is a name.
    pub fn are_needed(&self) -> bool {
        !self.paths.is_empty()
    }

    /// Lines about the names that had no address at the start.
    pub fn errors(&self) -> Vec<String> {
        let needed = |name: &usize| self.paths.iter().any(|path| path.name == *name);
        (0..self.questions.len()).filter(needed).filter_map(|name| self.questions[name].failure()).collect()
    }

    /// Records that the resolver has ended: the known addresses are still tried.
    pub fn lose_resolver(&mut self) {
        self.are_lost = true;
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
            path.observe(now, used);
            if path.trial_due(used).is_some_and(|due| now >= due) {
                moves.push(path.try_next(now, used));
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
    ) -> (Vec<Move>, Option<Line>) {
        let up = self.is_up(name, &state);
        let Some(question) = self.questions.get_mut(name) else { return (Vec::new(), None) };
        let (mut moves, mut unreached, mut changed) = (Vec::new(), None, false);
        for path in self.paths.iter_mut().filter(|path| path.name == name) {
            let used = state(path.number);
            path.observe(now, used);
            // Without an address the path keeps those that it has.
            let Some(addresses) = path.reachable(found) else {
                unreached = Some(&*path);
                continue;
            };
            changed |= addresses.iter().any(|address| !path.addresses.contains(address));
            moves.extend(path.take(now, addresses, used));
        }
        let error = error(found, unreached);
        (question.answered, question.asked) = (now, false);
        (question.valid, question.retry) = if up && error.is_none() {
            (if changed { VALID.0 } else { (question.valid * 2).min(VALID.1) }, RETRY.0)
        } else {
            (VALID.0, (question.retry * 2).min(RETRY.1))
        };
        let news = question.error != error || changed;
        question.error = error;
        let found = || list(found.iter().flatten());
        let line = || match question.failure() {
            Some(failure) => Line::Bad(failure),
            None => Line::Good(format!("name {:?}: addresses {}", question.name, found())),
        };
        (moves, news.then(line))
    }

    /// Reason why a path has no usable address.
    pub fn reason(&self, path: usize) -> Option<String> {
        let path = self.paths.iter().find(|named| named.number == path)?;
        Some(format!("remote {}", self.questions[path.name].failure()?))
    }

    /// Whether all paths of a name are up.
    fn is_up(&self, name: usize, state: impl Fn(usize) -> Use) -> bool {
        self.paths.iter().filter(|path| path.name == name).all(|path| state(path.number).up)
    }

    /// Time of the next question for a name that a path needs.
    fn question_due(&self, name: usize, state: impl Fn(usize) -> Use) -> Option<Instant> {
        let question = self.questions.get(name).filter(|question| !question.asked && !self.are_lost)?;
        self.paths.iter().any(|path| path.name == name).then(|| {
            let up = self.is_up(name, state) && question.error.is_none();
            question.answered + if up { question.valid } else { question.retry }
        })
    }
}

impl Question {
    /// Line about an answer without an address.
    fn failure(&self) -> Option<String> {
        let error = self.error.as_ref()?;
        Some(format!("name {:?}: {error}; it is looked up again", self.name))
    }
}

/// Reason why an answer has no address, for all paths or for the `unreached` one.
fn error(found: &Found, unreached: Option<&NamedPath>) -> Option<String> {
    match (found, unreached) {
        (Err(reason), _) => Some(reason.clone()),
        (Ok(found), _) if found.is_empty() => Some("no address found".into()),
        (Ok(found), Some(path)) => {
            Some(format!("no address that the local address {} reaches; found {}", path.local.ip(), list(found)))
        }
        (Ok(_), None) => None,
    }
}

/// Addresses in a line, in an order that does not change with that of the answer.
fn list<'a>(found: impl IntoIterator<Item = &'a SocketAddr>) -> String {
    let mut all: Vec<_> = found.into_iter().map(SocketAddr::ip).collect();
    all.sort_unstable();
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl NamedPath {
    fn new(now: Instant, number: usize, name: usize, (local, port): (SocketAddr, u16), found: Option<&Found>) -> Self {
        let (addresses, carried) = (Vec::new(), [None; 2]);
        let mut path =
            Self { number, name, local, port, addresses, carried, told: None, since: now, was_up: false, rounds: 0 };
        path.addresses = found.and_then(|found| path.reachable(found)).unwrap_or_default();
        path.told = path.addresses.first().copied();
        path
    }

    /// Whether this address of the name is in use. A path without a port learns the port of the peer.
    fn uses(&self, used: Use, address: SocketAddr) -> bool {
        used.address.is_some_and(|used| with_port(used, self.port) == address)
    }

    /// Addresses of an answer that the path can reach; `None` if there is none.
    fn reachable(&self, found: &Found) -> Option<Vec<SocketAddr>> {
        let reached = found.iter().flatten().filter(|address| resolve::reaches(self.local.ip(), address.ip()));
        let there = reached.map(|&address| with_port(address, self.port));
        let addresses: Vec<_> = there.filter(|&address| !resolve::is_itself(self.local, address)).collect();
        (!addresses.is_empty()).then_some(addresses)
    }

    /// Records the state of the path.
    fn observe(&mut self, now: Instant, used: Use) {
        if used.up {
            let address = used.address.map(|address| with_port(address, self.port));
            if address != self.carried[0] {
                self.carried = [address, self.carried[0]];
            }
        }
        if std::mem::replace(&mut self.was_up, used.up) != used.up {
            // A path that goes down may come back at its address.
            (self.since, self.rounds) = (now, 0);
        }
    }

    /// Addresses to try, in turn.
    fn candidates(&self) -> impl Iterator<Item = SocketAddr> {
        let earlier = self.carried.into_iter().flatten().filter(|address| !self.addresses.contains(address));
        self.addresses.iter().copied().chain(earlier)
    }

    /// Takes the addresses of an answer. Returns a move if the one in use is not among them.
    fn take(&mut self, now: Instant, addresses: Vec<SocketAddr>, used: Use) -> Option<Move> {
        let has_all = |these: &[SocketAddr], those: &[SocketAddr]| these.iter().all(|one| those.contains(one));
        let differs = !has_all(&addresses, &self.addresses) || !has_all(&self.addresses, &addresses);
        self.addresses = addresses;
        let (told, in_use) = (self.told, self.addresses.iter().copied().find(|&address| self.uses(used, address)));
        match in_use {
            Some(address) => (told != in_use).then(|| self.tell(now, address)),
            // One of the candidates is being tried.
            None if !used.up && !differs && self.candidates().any(|address| Some(address) == told) => None,
            None if !differs && told.is_some_and(|told| self.addresses.contains(&told)) => None,
            None => Some(self.tell(now, self.addresses[0])),
        }
    }

    /// Time of the next trial: of the next address while the peer does not answer, or of the address that the name has instead of
    /// the one in use.
    fn trial_due(&self, used: Use) -> Option<Instant> {
        let is_other = |address: SocketAddr| !self.uses(used, address);
        let wanted = if used.up {
            // The ping to the address that was told, or the answer, may be lost. Without a port there is none.
            self.port != 0 && self.told.is_some_and(is_other) && self.addresses.iter().copied().all(is_other)
        } else {
            self.candidates().any(is_other)
        };
        let trial = (TRIAL.0 * 2_u32.pow(self.rounds.min(8))).min(TRIAL.1);
        wanted.then(|| self.since + trial)
    }

    fn try_next(&mut self, now: Instant, used: Use) -> Move {
        let all: Vec<_> = self.candidates().collect();
        let at = all.iter().position(|&address| Some(address) == self.told);
        let next = at.map_or(0, |at| at + usize::from(!used.up && self.uses(used, all[at])));
        self.rounds += u32::from(used.up || next >= all.len());
        self.tell(now, all[next % all.len()])
    }

    fn tell(&mut self, now: Instant, address: SocketAddr) -> Move {
        (self.told, self.since) = (Some(address), now);
        (self.number, address)
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
        // A name server that does not answer is asked again, while the path keeps its address.
        assert_eq!(asked(used(true, OLD), &Err("no".into()), 300), [60, 70, 90, 130, 190, 250]);
        assert_eq!(asked(used(true, OLD), &found(&[V6]), 300), [60, 70, 90, 130, 190, 250]);
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
            assert_eq!(answer(&[NEW], OLD).0, []);
            assert_eq!(answer(&[NEW], NEW).0, []);
            // An IPv4 socket cannot use an IPv6 address, and keeps the one that it has.
            let (moves, line) = answer(&[V6], NEW);
            assert!(answer(&["127.0.0.1:6000"], NEW).0.is_empty(), "this end itself");
            let text = "name \"peer.example\": no address that the local address 0.0.0.0 reaches; found 2001:db8::2; \
                        it is looked up again";
            assert_eq!((moves, line), (vec![], Some(Line::Bad(text.into()))));
            let (moves, line) = names.on_answer(start, 0, &Err("Name or service not known".into()), used(up, NEW));
            assert!(moves.is_empty() && matches!(line, Some(Line::Bad(line)) if line.contains("service not known")));
            assert!(names.reason(0).unwrap().contains("remote name \"peer.example\": Name or service not known"));
        }
    }

    #[test]
    fn untaken_address_is_asked_again() {
        let start = Instant::now();
        let mut names = names(start, "0.0.0.0", found(&[OLD]));
        let (_, line) = names.on_answer(start, 0, &found(&[NEW]), used(true, OLD));
        assert_eq!(line, Some(Line::Good("name \"peer.example\": addresses 192.0.2.22".into())));
        let mut told = Vec::new();
        for second in 1..60 {
            let (_, moves) = names.on_time(start + Duration::from_secs(second), used(true, OLD));
            told.extend(moves.into_iter().map(|(_, to)| (second, to == address(NEW))));
        }
        assert_eq!(told, [(4, true), (12, true), (28, true), (58, true)]);
        // An answer with the address in use takes back the other one.
        assert_eq!(names.on_answer(start, 0, &found(&[OLD]), used(true, OLD)).0, [(0, address(OLD))]);
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
        // A path that goes down waits for its address. The time begins with the silence, however old the address is.
        let start = start + Duration::from_secs(200);
        for (millis, moves) in [(0, vec![]), (3999, vec![]), (4000, vec![(0, address(OLD))])] {
            assert_eq!(names.on_time(start + Duration::from_millis(millis), used(false, V6)).1, moves, "{millis}");
        }
    }

    #[test]
    fn address_that_worked_is_tried_again() {
        let start = Instant::now();
        let mut names = names(start, "0.0.0.0", found(&[OLD]));
        let look = |names: &mut Names, second, up, at| {
            let (_, moves) = names.on_time(start + Duration::from_secs(second), used(up, at));
            moves.into_iter().map(|(_, to)| to).collect::<Vec<_>>()
        };
        assert_eq!(look(&mut names, 1, true, OLD), []);
        // A host that passes pings on to the peer answers at the address of a forged answer, and is then silent.
        let forged = found(&[NEW]);
        assert_eq!(names.on_answer(start, 0, &forged, used(true, OLD)).0, [(0, address(NEW))]);
        assert_eq!(look(&mut names, 2, true, NEW), []);
        assert_eq!(look(&mut names, 100, false, NEW), []);
        assert_eq!(look(&mut names, 104, false, NEW), [address(OLD)]);
        // The same answer once more does not interrupt the trial.
        assert_eq!(names.on_answer(start, 0, &forged, used(false, OLD)).0, []);
        assert_eq!(look(&mut names, 108, false, OLD), [address(NEW)]);
    }

    #[test]
    fn lost_resolver_leaves_the_trials() {
        let start = Instant::now();
        let mut names = names(start, "[::]", found(&[V6, OLD]));
        names.lose_resolver();
        let (asked, moves) = names.on_time(start + Duration::from_secs(4), used(false, V6));
        assert_eq!((asked, moves), (vec![], vec![(0, address(OLD))]));
        assert_eq!(names.due(used(true, OLD)), None);
    }

    #[test]
    fn unresolved_name_is_used_once_it_resolves() {
        let start = Instant::now();
        let mut names = names(start, "192.0.2.1", Err("Name or service not known".into()));
        let nowhere = |_| Use { up: false, address: None };
        assert!(names.are_needed() && names.reason(0).is_some());
        let text = "name \"peer.example\": Name or service not known; it is looked up again";
        assert_eq!(names.errors(), [text]);
        assert_eq!(names.on_time(start + RETRY.0, nowhere), (vec![0], vec![]));
        let (moves, line) = names.on_answer(start + RETRY.0, 0, &found(&[OLD]), nowhere);
        assert_eq!(moves, [(0, address(OLD))]);
        assert_eq!(line, Some(Line::Good("name \"peer.example\": addresses 192.0.2.2".into())));
        assert_eq!(names.reason(0), None);
        assert!(names.errors().is_empty());
    }
}
