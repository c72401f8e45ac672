//! Search for the longest datagrams that a path carries (RFC 8899). Each round probes several sizes at once. The longest size that
//! arrives is the new lower bound, and the shortest lost one above it the new upper bound.

/// Least MTU of IPv6, from which a path begins.
const BASE: u16 = 1280;
/// Sizes of packets that are frequent in networks: less than Ethernet because of other tunnels; then larger.
const FREQUENT: [u16; 14] = [1340, 1380, 1400, 1420, 1440, 1450, 1460, 1472, 1480, 1492, 1500, 2304, 4352, 9000];
/// Most sizes of a round.
const AT_ONCE: u16 = 6;
/// Bytes by which the result may be too small.
const GRAIN: u16 = 4;

/// Search in progress.
#[derive(Debug)]
pub struct Search {
    /// Length that stands for a packet of [`BASE`] bytes.
    base: u16,
    /// Longest length that is known to arrive.
    low: u16,
    /// Longest length that may arrive.
    ceiling: u16,
    /// Whether the ceiling was lost once. A second loss confirms it.
    struck: bool,
}

impl Search {
    /// Begins a search between two lengths. `base` is the length that stands for a packet of 1280 bytes.
    pub fn new(base: u16, low: u16, ceiling: u16) -> Self {
        Self { base, low, ceiling, struck: false }
    }

    /// Sizes of the next round, in ascending order. The first round probes only the longest, which arrives on most paths.
    pub fn sizes(&self) -> Vec<u16> {
        if self.low >= self.ceiling {
            return Vec::new();
        }
        let frequent = FREQUENT.iter().map(|&packet| self.base + (packet - BASE));
        let mut sizes: Vec<u16> = frequent.filter(|size| (self.low + 1..self.ceiling).contains(size)).collect();
        if !self.struck {
            sizes.clear();
        } else if sizes.len() >= usize::from(AT_ONCE) {
            // An even choice.
            let (count, most) = (sizes.len(), usize::from(AT_ONCE) - 1);
            sizes = (0..most).map(|number| sizes[number * count / most]).collect();
        } else if sizes.len() < 2 {
            let step = ((self.ceiling - self.low) / AT_ONCE).max(GRAIN);
            sizes.extend((1..AT_ONCE - 1).map(|number| self.low + number * step).filter(|&size| size < self.ceiling));
        }
        sizes.push(self.ceiling);
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    /// Takes the results of a round in which at least one probe was answered. Returns whether the search is over.
    pub fn judge(&mut self, results: impl Iterator<Item = (u16, bool)> + Clone) -> bool {
        let arrived = results.clone().filter(|&(_, arrived)| arrived);
        self.low = arrived.map(|(size, _)| size).fold(self.low, u16::max);
        let lost = results.filter(|&(size, arrived)| !arrived && size > self.low).map(|(size, _)| size).min();
        if let Some(lost) = lost {
            let again = self.struck && lost == self.ceiling;
            (self.ceiling, self.struck) = (if again { lost - 1 } else { lost }, true);
        }
        lost.is_none() || self.ceiling <= self.low + GRAIN
    }

    /// Longest length that is known to arrive.
    pub fn found(&self) -> u16 {
        self.low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches on a path that carries this many bytes and loses each `nth` probe. Returns the result, rounds, and bytes sent.
    fn search(carries: u16, nth: u32) -> (u16, usize, u32) {
        let (mut search, mut rounds, mut bytes, mut count) = (Search::new(1252, 1252, 1472), 0, 0, 0);
        loop {
            let sizes = search.sizes();
            assert!(sizes.len() <= usize::from(AT_ONCE) && sizes.is_sorted());
            let results: Vec<_> = sizes
                .iter()
                .map(|&size| {
                    count += 1;
                    (size, size <= carries && count % nth != 0)
                })
                .collect();
            (rounds, bytes) = (rounds + 1, bytes + sizes.iter().map(|&size| u32::from(size)).sum::<u32>());
            if search.judge(results.into_iter()) {
                return (search.found(), rounds, bytes);
            }
        }
    }

    #[test]
    fn full_size_takes_one_round() {
        assert_eq!(search(1472, u32::MAX), (1472, 1, 1472));
        assert_eq!(search(9000, u32::MAX), (1472, 1, 1472));
    }

    #[test]
    fn every_size_is_found() {
        for carries in 1252..=1472 {
            let (found, rounds, bytes) = search(carries, u32::MAX);
            assert!(found <= carries && found + GRAIN >= carries, "{carries}: {found}");
            assert!(rounds <= 6 && bytes <= 25_000, "{carries}: {rounds} rounds, {bytes} bytes");
        }
    }

    #[test]
    fn random_loss_costs_little() {
        for nth in 2..50 {
            for carries in [1252, 1300, 1432, 1472] {
                let (found, rounds, _) = search(carries, nth);
                assert!(found <= carries && rounds <= 12, "{carries}, {nth}: {found} after {rounds} rounds");
            }
        }
        // The first probe is lost.
        let mut search = Search::new(1252, 1252, 1472);
        assert!(!search.judge([(1472, false)].into_iter()));
        let all: Vec<_> = search.sizes().into_iter().map(|size| (size, true)).collect();
        assert!(search.judge(all.into_iter()) && search.found() == 1472);
    }

    #[test]
    fn jumbo_frames_are_found() {
        let mut search = Search::new(1252, 1252, 8972);
        for round in 0.. {
            let results: Vec<_> = search.sizes().into_iter().map(|size| (size, size <= 4000)).collect();
            if search.judge(results.into_iter()) {
                assert!((3996..=4000).contains(&search.found()) && round < 8, "{}, {round}", search.found());
                return;
            }
        }
    }
}
