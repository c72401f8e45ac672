//! Loss of datagrams in one direction of a path, from the counts in pings and pongs.

/// Least number of datagrams of a window: at 5 % loss the share of a window rarely exceeds 20 %.
const WINDOW: u32 = 32;
/// Least time of a window in microseconds, so that datagrams in flight hardly matter.
const WINDOW_US: u64 = 100_000;
/// Time in microseconds within which a step back of a count is a datagram that was overtaken, and no new count.
const OVERTAKEN_US: u64 = 1_000_000;
/// Received datagrams above the number of sent ones for which the counts are still of one sender.
const SURPLUS: u32 = 256;

/// Loss in one direction.
#[derive(Debug, Clone, Copy, Default)]
pub struct Loss {
    /// Counts at the beginning of the window, and its time.
    begin: Option<(u32, u32, u64)>,
    /// Last counts, and their time.
    last: (u32, u32, u64),
    /// Smoothed share in a thousand; the first windows count from zero.
    share: u16,
    known: bool,
}

impl Loss {
    /// Takes counts modulo 2^32: of datagrams sent by one end, and of those opened by the other.
    pub fn take(&mut self, sent: u32, opened: u32, now_us: u64) {
        let Some((from_sent, from_opened, from_us)) = self.begin else { return self.begin(sent, opened, now_us) };
        let (last_sent, last_opened, last_us) = self.last;
        let is_back = |now: u32, last: u32| now.wrapping_sub(last) > u32::MAX / 2;
        if is_back(sent, last_sent) || is_back(opened, last_opened) {
            if now_us > last_us + OVERTAKEN_US {
                self.begin(sent, opened, now_us);
            }
            return;
        }
        self.last = (sent, opened, now_us);
        let (sent_here, opened_here) = (sent.wrapping_sub(from_sent), opened.wrapping_sub(from_opened));
        if opened_here > sent_here.saturating_add(SURPLUS) {
            return self.begin(sent, opened, now_us);
        }
        if sent_here < WINDOW || now_us < from_us + WINDOW_US {
            return;
        }
        let lost = u64::from(sent_here.saturating_sub(opened_here)) * 1000 / u64::from(sent_here);
        let share = (3 * u64::from(self.share) + lost) / 4;
        (self.share, self.known) = (u16::try_from(share).unwrap_or(1000), true);
        self.begin(sent, opened, now_us);
    }

    fn begin(&mut self, sent: u32, opened: u32, now_us: u64) {
        (self.begin, self.last) = (Some((sent, opened, now_us)), (sent, opened, now_us));
    }

    /// Lost datagrams in a thousand; `None` before the first window.
    pub fn share(&self) -> Option<u16> {
        self.known.then_some(self.share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Share after windows of 100 datagrams each, of which this many arrive; the counts begin just before they wrap.
    fn shares(arrive: &[u32]) -> Vec<u16> {
        let (mut loss, mut sent, mut opened, mut now_us) = (Loss::default(), u32::MAX - 150, u32::MAX - 50, 5);
        loss.take(sent, opened, now_us);
        assert_eq!(loss.share(), None);
        let share = |&arrive: &u32| {
            (sent, opened, now_us) = (sent.wrapping_add(100), opened.wrapping_add(arrive), now_us + WINDOW_US);
            loss.take(sent, opened, now_us);
            loss.share().unwrap()
        };
        arrive.iter().map(share).collect()
    }

    #[test]
    fn loss_is_smoothed() {
        assert_eq!(shares(&[100, 100, 100]), [0, 0, 0]);
        assert_eq!(shares(&[30, 30, 30, 100]), [175, 306, 404, 303]);
        // One bad window is no poor path.
        assert_eq!(shares(&[100, 0, 100]), [0, 250, 187]);
        // Datagrams that were in flight.
        assert_eq!(shares(&[90, 110, 100]), [25, 18, 13]);
    }

    #[test]
    fn counts_of_new_sender_begin_again() {
        let mut loss = Loss::default();
        loss.take(1000, 1000, 0);
        loss.take(1100, 1100, WINDOW_US);
        assert_eq!(loss.share(), Some(0));
        // Overtaken, then a peer that counts from zero.
        loss.take(1090, 1090, WINDOW_US + 5);
        loss.take(10, 1100, 3 * OVERTAKEN_US);
        loss.take(60, 1120, 4 * OVERTAKEN_US);
        assert_eq!(loss.share(), Some(150));
        // More than was sent.
        loss.take(160, 5000, 5 * OVERTAKEN_US);
        loss.take(260, 5100, 6 * OVERTAKEN_US);
        assert_eq!(loss.share(), Some(112));
    }

    #[test]
    fn short_window_goes_on() {
        let mut loss = Loss::default();
        loss.take(0, 0, 0);
        loss.take(WINDOW - 1, 0, 10 * WINDOW_US);
        loss.take(WINDOW, WINDOW / 2, 10 * WINDOW_US + 1);
        assert_eq!(loss.share(), Some(125));
        loss.take(WINDOW + 1000, 0, 10 * WINDOW_US + 2);
        assert_eq!(loss.share(), Some(125));
    }
}
