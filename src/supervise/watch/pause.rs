//! Pause between two log lines about the same fault, which an attacker can cause again and again.

use std::time::{Duration, Instant};

/// Shortest time between two lines.
pub const SHORTEST: Duration = Duration::from_secs(600);

/// Pause after a line.
#[derive(Debug, Default)]
pub struct Pause {
    last: Option<Instant>,
}

impl Pause {
    /// Whether a line may be written now. If so, the next pause begins.
    pub fn admits(&mut self, now: Instant) -> bool {
        let over = self.last.is_none_or(|last| now.duration_since(last) >= SHORTEST);
        if over {
            self.last = Some(now);
        }
        over
    }
}
