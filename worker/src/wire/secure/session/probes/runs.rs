//! Check of runs: equal datagrams that leave as one message (`UDP_SEGMENT`) and that the kernel or the network card segments. Some
//! network cards, drivers and virtual networks drop or corrupt runs silently, while single datagrams arrive.

use privsep::ipc::Secure;

/// Consecutive rounds in which single probes arrive and no probe of a run does, after which datagrams leave singly.
const ROUNDS: u8 = 3;
/// Length of the short run of a round; [`Secure::long_run`] is that of the long one. A policer that drops the end of a burst lets a
/// part of the short one pass.
const SHORT: usize = 2;
/// Bytes by which the three sizes differ. Datagrams of other lengths do not join a run, unless they are shorter than its others.
const STEP: u16 = 4;

/// State of the check.
#[derive(Debug, Default)]
pub struct RunCheck {
    /// Consecutive rounds in which only the single probe arrived.
    lost: u8,
    /// Whether runs arrive; `None` before the first result.
    arrive: Option<bool>,
}

impl RunCheck {
    /// Sizes of a round whose long run has datagrams of this length: a single probe, a short run and a long one.
    pub fn sizes(most: u16) -> Vec<u16> {
        let long = Secure::long_run(most).into();
        let single = [most.saturating_sub(2 * STEP), most.saturating_sub(STEP)];
        [&[single[0]][..], &[single[1]; SHORT], &vec![most; long]].concat()
    }

    /// Takes whether each probe of a round arrived.
    pub fn judge(&mut self, results: &[bool]) {
        let Some((&single, runs)) = results.split_first() else { return };
        if runs.iter().any(|&arrived| arrived) {
            // Where runs were off, both must arrive.
            let (short, long) = runs.split_at(SHORT.min(runs.len()));
            let both = [short, long].iter().all(|run| run.iter().any(|&arrived| arrived));
            if self.arrive != Some(false) || both {
                (self.lost, self.arrive) = (0, Some(true));
            }
        } else if single {
            self.lost = self.lost.saturating_add(1);
            if self.lost >= ROUNDS {
                self.arrive = Some(false);
            }
        }
    }

    /// Whether the next round decides, and must follow soon.
    pub fn is_in_doubt(&self) -> bool {
        self.lost > 0 && self.arrive != Some(false)
    }

    /// Whether runs arrive; `None` while that is unknown.
    pub fn arrive(&self) -> Option<bool> {
        self.arrive
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: usize = 8;

    /// Results of rounds: whether the single probe arrives, and how many of the runs do.
    fn check(rounds: &[(bool, usize, usize)]) -> Vec<Option<bool>> {
        let mut check = RunCheck::default();
        let judged = rounds.iter().map(|&(single, short, long)| {
            let results: Vec<_> = std::iter::once(single)
                .chain((0..SHORT).map(|number| number < short))
                .chain((0..LONG).map(|number| number < long))
                .collect();
            check.judge(&results);
            check.arrive()
        });
        judged.collect()
    }

    #[test]
    fn three_lost_rounds_end_runs() {
        let (all, none, dead) = ((true, 2, 8), (true, 0, 0), (false, 0, 0));
        assert_eq!(check(&[all, none, none, none]), [Some(true), Some(true), Some(true), Some(false)]);
        assert_eq!(check(&[none, none, all, none, none]), [None, None, Some(true), Some(true), Some(true)]);
        // A dead path tells nothing.
        assert_eq!(check(&[none, dead, dead, none, dead, none]), [None, None, None, None, None, Some(false)]);
        assert_eq!(check(&[none, none, none, dead, all]), [None, None, Some(false), Some(false), Some(true)]);
    }

    /// A policer passes the first datagrams of a burst.
    #[test]
    fn policer_is_not_mistaken() {
        assert_eq!(check(&[(true, 1, 0); 9]), [Some(true); 9]);
        assert_eq!(check(&[(true, 2, 1); 9]), [Some(true); 9]);
        assert_eq!(check(&[(false, 0, 3); 9]), [Some(true); 9]);
    }

    #[test]
    fn sizes_keep_single_probe_apart() {
        assert_eq!(RunCheck::sizes(1472), [1464, 1468, 1468, 1472, 1472, 1472, 1472, 1472, 1472, 1472, 1472]);
        assert_eq!(RunCheck::sizes(8972).len(), 1 + SHORT + SHORT + 1);
    }
}
