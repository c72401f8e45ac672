//! Who has asked for the status, and what of the answers they have still to take. Nobody is waited for: whoever takes nothing for
//! a while gets no more. No user takes the places of all: one has a few, and root has some of its own.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Longest wait of somebody who asks for fresh counters.
const FRESH: Duration = Duration::from_millis(300);
/// Requests and answers that wait at a time, those of root and those of all others; more are closed at once, without an answer.
const REQUESTS: usize = 16;
/// Of them those of one user who is not root.
const OF_ONE: usize = 4;
/// Time between two attempts to give more of an answer to somebody whose socket is full.
const AGAIN: Duration = Duration::from_millis(10);
/// Longest time without taking any of it.
const PATIENCE: Duration = Duration::from_secs(1);

/// All who wait.
#[derive(Default)]
pub struct Requests {
    waiting: Vec<Request>,
    answers: Vec<Answer>,
}

/// Somebody who has asked.
struct Request {
    stream: UnixStream,
    user: u32,
    since: Instant,
}

/// What somebody has not yet taken.
struct Answer {
    stream: UnixStream,
    user: u32,
    text: Rc<[u8]>,
    /// How much of it has been taken.
    taken: usize,
    /// When the last of that was.
    since: Instant,
}

impl Requests {
    /// Takes a request of this user, if there is room for one more of his.
    pub fn push(&mut self, stream: UnixStream, user: u32, now: Instant) {
        let users =
            || self.waiting.iter().map(|request| request.user).chain(self.answers.iter().map(|answer| answer.user));
        let (all, own) =
            (users().filter(|&other| (other == 0) == (user == 0)).count(), users().filter(|&u| u == user).count());
        let room = all < REQUESTS && (user == 0 || own < OF_ONE);
        if room && stream.set_nonblocking(true).is_ok() {
            self.waiting.push(Request { stream, user, since: now });
        }
    }

    /// Whether nobody waits for the status.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether the first has waited long enough for a report.
    pub fn is_due(&self, now: Instant) -> bool {
        self.waiting.first().is_some_and(|request| now >= request.since + FRESH)
    }

    /// When there is something to do.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let waiting = self.waiting.first().map(|request| request.since + FRESH);
        let again = (!self.answers.is_empty()).then(|| now + AGAIN);
        waiting.into_iter().chain(again).min()
    }

    /// Answers everybody.
    pub fn answer(&mut self, text: &str, now: Instant) {
        let text: Rc<[u8]> = text.as_bytes().into();
        let answer =
            |Request { stream, user, .. }| Answer { stream, user, text: Rc::clone(&text), taken: 0, since: now };
        self.answers.extend(self.waiting.drain(..).map(answer));
        self.go_on(now);
    }

    /// Gives more of the answers to those who take it.
    pub fn go_on(&mut self, now: Instant) {
        self.answers.retain_mut(|answer| answer.goes_on(now));
    }
}

impl Answer {
    /// Gives as much as is taken; false at its end.
    fn goes_on(&mut self, now: Instant) -> bool {
        let Self { stream, text, taken, since, .. } = self;
        while *taken < text.len() {
            match stream.write(&text[*taken..]) {
                Ok(count) if count > 0 => (*taken, *since) = (*taken + count, now),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return now < *since + PATIENCE,
                _ => return false,
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// More than any socket holds.
    fn long() -> String {
        "status ".repeat(1 << 20)
    }

    #[test]
    fn long_answer_arrives_whole() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut requests = Requests::default();
        requests.push(ours, 0, Instant::now());
        requests.answer(&long(), Instant::now());
        assert!(requests.is_empty() && requests.due(Instant::now()).is_some());
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            theirs.read_to_string(&mut text).map(|_| text)
        });
        while let Some(due) = requests.due(Instant::now()) {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            requests.go_on(Instant::now());
        }
        assert!(reader.join().unwrap().unwrap() == long());
    }

    #[test]
    fn stalled_client_is_dropped() {
        let now = Instant::now();
        let (mut requests, mut kept) = (Requests::default(), Vec::new());
        for number in 0..2 * REQUESTS {
            let (ours, theirs) = UnixStream::pair().unwrap();
            requests.push(ours, 0, now);
            // Every other one has gone.
            kept.extend((number % 2 == 0).then_some(theirs));
        }
        assert_eq!(requests.waiting.len(), REQUESTS);
        assert!(!requests.is_due(now) && requests.is_due(now + FRESH));
        requests.answer(&long(), now);
        assert_eq!(requests.answers.len(), REQUESTS / 2);
        let (ours, _theirs) = UnixStream::pair().unwrap();
        requests.push(ours, 0, now);
        assert_eq!(requests.waiting.len(), 1, "answers that nobody takes keep nobody from asking");
        requests.go_on(now + PATIENCE);
        assert_eq!(requests.answers.len(), 0);
    }

    #[test]
    fn client_slots_are_per_user() {
        let now = Instant::now();
        let (mut requests, mut kept) = (Requests::default(), Vec::new());
        let mut push = |requests: &mut Requests, user| {
            let before = requests.waiting.len() + requests.answers.len();
            let (ours, theirs) = UnixStream::pair().unwrap();
            requests.push(ours, user, now);
            kept.push(theirs);
            requests.waiting.len() + requests.answers.len() - before
        };
        let taken = |push: &mut dyn FnMut(&mut Requests, u32) -> usize, requests: &mut Requests, user| {
            (0..2 * REQUESTS).map(|_| push(requests, user)).sum::<usize>()
        };
        assert_eq!(taken(&mut push, &mut requests, 1000), OF_ONE);
        // What was answered and not taken counts as well.
        requests.answer(&long(), now);
        assert_eq!(taken(&mut push, &mut requests, 1000), 0);
        let all: usize = (1001..1020).map(|user| taken(&mut push, &mut requests, user)).sum();
        assert_eq!(all, REQUESTS - OF_ONE);
        assert_eq!(taken(&mut push, &mut requests, 0), REQUESTS);
    }
}
