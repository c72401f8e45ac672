//! Status requests, and the unsent parts of the answers. No client is waited for; a client that takes nothing for a while is
//! dropped. No user can occupy all places: a user has a few, and root has its own.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Longest wait of a request for fresh counters.
const FRESH: Duration = Duration::from_millis(300);
/// Most requests and answers in progress, for root and for all others each. Further requests are closed without an answer.
const REQUESTS: usize = 16;
/// Most of them for one user other than root.
const OF_ONE: usize = 4;
/// Time between two attempts to send more of an answer to a full socket.
const AGAIN: Duration = Duration::from_millis(10);
/// Longest time without progress of an answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// All requests and answers in progress.
#[derive(Default)]
pub struct Requests {
    waiting: Vec<Request>,
    answers: Vec<Answer>,
}

/// Request of a client.
struct Request {
    stream: UnixStream,
    user: u32,
    since: Instant,
}

/// Unsent part of an answer.
struct Answer {
    stream: UnixStream,
    user: u32,
    text: Rc<[u8]>,
    /// Bytes that were sent.
    taken: usize,
    /// Time of the last progress.
    since: Instant,
}

impl Requests {
    /// Adds a request if its user has room for one more.
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

    /// Whether no request waits for the status.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether the first request has waited long enough for a report.
    pub fn is_due(&self, now: Instant) -> bool {
        self.waiting.first().is_some_and(|request| now >= request.since + FRESH)
    }

    /// Time of the next action.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let waiting = self.waiting.first().map(|request| request.since + FRESH);
        let again = (!self.answers.is_empty()).then(|| now + AGAIN);
        waiting.into_iter().chain(again).min()
    }

    /// Answers all requests.
    pub fn answer(&mut self, text: &str, now: Instant) {
        let text: Rc<[u8]> = text.as_bytes().into();
        let answer =
            |Request { stream, user, .. }| Answer { stream, user, text: Rc::clone(&text), taken: 0, since: now };
        self.answers.extend(self.waiting.drain(..).map(answer));
        self.go_on(now);
    }

    /// Sends more of the answers.
    pub fn go_on(&mut self, now: Instant) {
        self.answers.retain_mut(|answer| answer.goes_on(now));
    }
}

impl Answer {
    /// Sends as much as the socket takes. Returns false at the end of the answer.
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

    /// A text larger than the buffer of a socket.
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
            // Every second client has closed its socket.
            kept.extend((number % 2 == 0).then_some(theirs));
        }
        assert_eq!(requests.waiting.len(), REQUESTS);
        assert!(!requests.is_due(now) && requests.is_due(now + FRESH));
        requests.answer(&long(), now);
        assert_eq!(requests.answers.len(), REQUESTS / 2);
        let (ours, _theirs) = UnixStream::pair().unwrap();
        requests.push(ours, 0, now);
        assert_eq!(requests.waiting.len(), 1, "unread answers block no request");
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
        // Unread answers count as well.
        requests.answer(&long(), now);
        assert_eq!(taken(&mut push, &mut requests, 1000), 0);
        let all: usize = (1001..1020).map(|user| taken(&mut push, &mut requests, user)).sum();
        assert_eq!(all, REQUESTS - OF_ONE);
        assert_eq!(taken(&mut push, &mut requests, 0), REQUESTS);
    }
}
