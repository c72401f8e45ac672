//! Log lines about the session of the secure wire: one for the first session, and one for each fault that prevents a session. Pure:
//! the clock is an argument, reports are a worker's.
//!
//! Any sender of a datagram can cause some of the faults. So a fault counts only without a session, and only after some seconds.

use std::time::{Duration, Instant};

use privsep::ipc::{SecureState, Trouble};

use super::pause::Pause;
use crate::status::{cipher_of, trouble_sentence};

/// Time for which a fault must last without a session.
const STAYS: Duration = Duration::from_secs(3);

/// Watch over the session of a tunnel.
#[derive(Debug, Default)]
pub struct Watch {
    /// Fingerprint of both ends.
    fingerprint: String,
    /// Whether the log has the line about the first session.
    introduced: bool,
    /// Time since which there is a fault.
    since: Option<Instant>,
    found: Option<Trouble>,
    pause: Pause,
    /// Fault of the last line, and whether it is the present one.
    said: Option<Trouble>,
    present_said: bool,
}

/// A line for the log.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// Line about a good state.
    Good(String),
    /// Line about a fault.
    Bad(String),
}

impl Watch {
    /// Watch with the fingerprint of both ends.
    pub fn new(fingerprint: String) -> Self {
        Self { fingerprint, ..Self::default() }
    }

    /// Fault that prevents a session, if it is known.
    pub fn found(&self) -> Option<Trouble> {
        self.found
    }

    /// Evaluates a report.
    pub fn note(&mut self, now: Instant, secure: &SecureState) -> Option<Line> {
        if let Some(session) = secure.session {
            (self.since, self.found) = (None, None);
            let over = std::mem::take(&mut self.present_said);
            if !std::mem::replace(&mut self.introduced, true) {
                let (cipher, fingerprint) = (cipher_of(session.cipher), &self.fingerprint);
                return Some(Line::Good(format!(
                    "first session with the peer, cipher {cipher}; compare this fingerprint with the other end's: \
                     {fingerprint}"
                )));
            }
            return over.then(|| Line::Good("mismatch ended: session established".into()));
        }
        let Some(trouble) = secure.trouble else {
            (self.since, self.found, self.present_said) = (None, None, false);
            return None;
        };
        let since = *self.since.get_or_insert(now);
        if now.duration_since(since) < STAYS {
            return None;
        }
        self.found = Some(trouble);
        let same = |said: Trouble| std::mem::discriminant(&said) == std::mem::discriminant(&trouble);
        if self.present_said && self.said.is_some_and(same) || !self.pause.admits(now) {
            return None;
        }
        (self.said, self.present_said) = (Some(trouble), true);
        Some(Line::Bad(format!("mismatch: {}", trouble_sentence(trouble))))
    }
}

#[cfg(test)]
mod tests {
    use privsep::ipc::{SessionCipher, SessionReport};

    use super::*;

    /// Lines with their times for one report a second.
    fn lines(reports: impl IntoIterator<Item = SecureState>) -> Vec<(u64, Line)> {
        let (start, mut watch) = (Instant::now(), Watch::new("12345".into()));
        let note = |(second, report)| {
            let line = watch.note(start + Duration::from_secs(second), &report);
            line.map(|line| (second, line))
        };
        (0..).zip(reports).filter_map(note).collect()
    }

    fn trouble(trouble: Trouble) -> SecureState {
        SecureState { trouble: Some(trouble), ..SecureState::default() }
    }

    fn session() -> SecureState {
        let session = SessionReport { cipher: SessionCipher::Aes256Gcm, age_ms: 7, began_here: true };
        SecureState { session: Some(session), trouble: Some(Trouble::Psk), ..SecureState::default() }
    }

    #[test]
    fn first_session_logs_fingerprint_once() {
        let said = lines([SecureState::default(), session(), SecureState::default(), session(), session()]);
        assert!(
            matches!(&said[..], [(1, Line::Good(text))] if text.contains("aes-256-gcm") && text.ends_with(": 12345"))
        );
    }

    #[test]
    fn trouble_is_logged_once_with_its_end() {
        let clock = |second: u64| trouble(Trouble::Clock { behind_ms: second * 1000 });
        let said = lines([session()].into_iter().chain((0..2000_u64).map(clock)).chain([session(), session()]));
        let [(0, Line::Good(_)), (4, Line::Bad(bad)), (2001, Line::Good(good))] = &said[..] else { panic!("{said:?}") };
        assert!(bad.starts_with("mismatch: ") && bad.contains("clock") && good.contains("ended"), "{said:?}");
    }

    #[test]
    fn rare_forged_datagrams_are_not_logged() {
        let now_and_then =
            (0..1000).map(|n| if n % 3 == 0 { trouble(Trouble::OtherPeerKey) } else { SecureState::default() });
        assert_eq!(lines(now_and_then), []);
        let in_turn =
            (0..1200).map(|n| trouble(if n % 2 == 0 { Trouble::OtherPeerKey } else { Trouble::OurKeyUnknown }));
        assert_eq!(lines(in_turn).len(), 2);
        let with_a_session = std::iter::repeat_n(session(), 100);
        assert_eq!(lines(with_a_session).len(), 1);
    }
}
