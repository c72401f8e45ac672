//! Probes whether a path carries its longest datagrams: some networks drop them silently and pass small ones.

/// Ping intervals between rounds of probes. A probe must be answered within its round.
const ROUND: u64 = 4;
/// Ping intervals to the next round after one that was fully answered.
const GOOD: u64 = 30;
/// Consecutive failed rounds after which a path counts as dropping the longest datagrams. Random loss rarely fails as many.
const LOST: u8 = 4;

/// Probes of one path. A round is a small probe and a full one. The full probe counts only if the small one was answered, so that a
/// path that is down or a peer that ignores probes gives no result.
#[derive(Debug)]
pub struct LengthProbes {
    /// Ping interval in ticks.
    interval: u64,
    /// Tick of the next round. The first one is a round after the first tick with a session.
    next_tick: Option<u64>,
    small: Probe,
    full: Probe,
    /// Consecutive rounds in which only the small probe was answered.
    lost: u8,
    /// Whether a full probe was ever answered.
    arrived: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Probe {
    /// Not sent.
    #[default]
    None,
    /// Sent with this token, in a datagram of this length.
    Sent([u8; 8], u16),
    Answered,
}

impl LengthProbes {
    /// Makes the state before the first probe. A ping leaves every `interval` ticks.
    pub fn new(interval: u64) -> Self {
        Self { interval, next_tick: None, small: Probe::None, full: Probe::None, lost: 0, arrived: false }
    }

    /// Reacts to a new session: its first round is a round after the next tick.
    pub fn begin(&mut self) {
        (self.next_tick, self.small, self.full) = (None, Probe::None, Probe::None);
    }

    /// Begins a round if one is due in this tick, and evaluates the round before. Returns whether probes must be sent.
    pub fn begin_round(&mut self, tick: u64) -> bool {
        let due = self.next_tick.is_some_and(|next| tick >= next);
        if !due && self.next_tick.is_some() {
            return false;
        }
        if self.small == Probe::Answered && matches!(self.full, Probe::Sent(..)) {
            self.lost = self.lost.saturating_add(1);
        }
        (self.next_tick, self.small, self.full) = (Some(tick + ROUND * self.interval), Probe::None, Probe::None);
        due
    }

    /// Records sent probes: token and length of the datagram.
    pub fn sent(&mut self, small: ([u8; 8], u16), full: ([u8; 8], u16)) {
        (self.small, self.full) = (Probe::Sent(small.0, small.1), Probe::Sent(full.0, full.1));
    }

    /// Takes an answer. Returns whether it matches a probe.
    pub fn answered(&mut self, token: [u8; 8], length: u16) -> bool {
        if self.full == Probe::Sent(token, length) {
            (self.full, self.lost, self.arrived) = (Probe::Answered, 0, true);
        } else if self.small == Probe::Sent(token, length) {
            self.small = Probe::Answered;
        } else {
            return false;
        }
        if self.small == self.full {
            // Both probes of the round are answered.
            self.next_tick = self.next_tick.map(|next| next + (GOOD - ROUND) * self.interval);
        }
        true
    }

    /// Whether the path drops the longest datagrams and passes small ones; `None` while this is unknown.
    pub fn drops_the_longest(&self) -> Option<bool> {
        let lost = self.lost >= LOST;
        (lost || self.arrived).then_some(lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs rounds whose probes are answered or not. Returns the result after each round.
    fn rounds(answers: &[(bool, bool)]) -> Vec<Option<bool>> {
        let (mut carries, mut token, mut tick) = (LengthProbes::new(1), 0, 1000);
        assert!(!carries.begin_round(tick));
        tick += ROUND;
        let known = answers.iter().map(|&(small, full)| {
            assert!(carries.begin_round(tick) && !carries.begin_round(tick) && !carries.begin_round(tick + ROUND - 1));
            let tokens = [[token; 8], [token + 1; 8]];
            carries.sent((tokens[0], 44), (tokens[1], 1472));
            for (answered, token, length) in [(small, tokens[0], 44), (full, tokens[1], 1472)] {
                assert!(!carries.answered([99; 8], length) && !carries.answered(token, length + 1));
                assert!(!answered || carries.answered(token, length) && !carries.answered(token, length));
            }
            (token, tick) = (token + 2, tick + if small && full { GOOD } else { ROUND });
            carries.drops_the_longest()
        });
        known.collect()
    }

    #[test]
    fn small_probes_show_lost_long_ones() {
        let (both, small, none) = ((true, true), (true, false), (false, false));
        let (drops, carries) = (Some(true), Some(false));
        assert_eq!(rounds(&[small, small, small, small, small, both]), [None, None, None, None, drops, carries]);
        let known = [None, None, carries, carries, carries, carries, carries];
        assert_eq!(rounds(&[small, small, both, small, small, small, small]), known);
        // A path that is down, or a peer that ignores probes.
        assert_eq!(rounds(&[none; 20]), [None; 20]);
        // Rounds without any answer in between neither count nor reset the count.
        assert_eq!(
            rounds(&[small, none, small, small, none, small, none, none]),
            [None, None, None, None, None, None, drops, drops]
        );
    }

    #[test]
    fn new_session_keeps_probe_round() {
        let mut carries = LengthProbes::new(1);
        assert!(!carries.begin_round(1) && carries.begin_round(1 + ROUND));
        carries.sent(([1; 8], 44), ([2; 8], 1472));
        carries.answered([1; 8], 44);
        carries.begin();
        assert!(!carries.begin_round(90) && !carries.begin_round(89 + ROUND) && carries.begin_round(90 + ROUND));
        assert_eq!(carries.lost, 0);
    }
}
