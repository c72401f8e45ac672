//! Token bucket: a rate of frames, with bursts of up to a second.

/// Tokens of one frame. A rate in frames a second is then one in tokens a microsecond.
const FRAME: u64 = 1_000_000;
/// Time in microseconds in which an empty bucket fills.
const FULL_US: u64 = 1_000_000;

/// Token bucket of one kind of frames.
#[derive(Debug)]
pub struct Bucket {
    rate: u64,
    tokens: u64,
    /// Time of the last refill in microseconds.
    filled_us: u64,
}

impl Bucket {
    /// Full bucket for this many frames a second.
    pub fn new(rate: u32) -> Self {
        let rate = u64::from(rate);
        Self { rate, tokens: rate * FRAME, filled_us: 0 }
    }

    /// Whether this many further frames may pass now.
    pub fn admits(&mut self, frames: u64, now_us: u64) -> bool {
        let elapsed = now_us.saturating_sub(self.filled_us).min(FULL_US);
        self.filled_us = now_us;
        self.tokens = (self.tokens + elapsed * self.rate).min(self.rate * FRAME);
        let left = self.tokens.checked_sub(frames.saturating_mul(FRAME));
        self.tokens = left.unwrap_or(self.tokens);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_kept_after_burst() {
        for rate in [1, 50, 1000] {
            let mut bucket = Bucket::new(rate);
            let mut second =
                |second: u64| (0..10_000).filter(|step| bucket.admits(1, second * FULL_US + step * 100)).count();
            let rate = rate as usize;
            // A full bucket and the refill of its first second.
            assert!((2 * rate - 1..=2 * rate).contains(&second(3)));
            assert_eq!((second(4), second(5)), (rate, rate));
            assert!(second(1000) >= 2 * rate - 1, "after a pause");
        }
    }

    #[test]
    fn superframe_needs_all_its_tokens() {
        let mut bucket = Bucket::new(10);
        assert!(!bucket.admits(11, 0) && bucket.admits(8, 0) && !bucket.admits(3, 0) && bucket.admits(2, 0));
        assert!(!bucket.admits(u64::MAX, FULL_US) && bucket.admits(10, u64::MAX));
    }
}
