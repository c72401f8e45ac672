//! Policy: the paths by which frames leave, from the paths on which the peer answers.

use privsep::ipc::{MAX_PATHS, Policy};

use super::choose::Class;
use crate::wire::spread::{Spread, Weights};

/// Losses in a thousand from which on a path gets half the flows of its weight, a quarter and an eighth. A TCP connection gets less
/// by far over such a path. The share rises again below half of a value, so that it does not change with each measurement.
const LOSSES: [u16; 3] = [20, 80, 200];
/// Share of a path of weight one without loss, which can be halved as often.
const UNIT: u16 = 1 << LOSSES.len();

/// A path on which the peer answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Number of the path.
    pub path: usize,
    /// Class of the path.
    pub class: Class,
    /// Lost datagrams in a thousand on the way to the peer, if known.
    pub loss: Option<u16>,
}

/// Policy of a tunnel, with its state.
#[derive(Debug, Default)]
pub struct Sharing {
    policy: Policy,
    weights: [u8; MAX_PATHS],
    /// How often the share of each path is halved for its loss.
    halvings: [u8; MAX_PATHS],
}

impl Sharing {
    /// Makes the state of a policy with these weights.
    pub fn new(policy: Policy, weights: [u8; MAX_PATHS]) -> Self {
        Self { policy, weights, halvings: [0; MAX_PATHS] }
    }

    /// Paths by which frames leave, of the active one and of the candidates. The active path is no candidate once it is dead: copies
    /// then leave by another one as well, and flows by others only.
    pub fn spread(&mut self, active: usize, candidates: impl Iterator<Item = Candidate> + Clone) -> Spread {
        let is_active = |candidate: &Candidate| candidate.path == active;
        match self.policy {
            Policy::Failover => Spread::Active,
            Policy::Duplicate => {
                let others = candidates.filter(|candidate| !is_active(candidate));
                let second = others.min_by_key(|candidate| (candidate.class, candidate.path));
                second.map_or(Spread::Active, |second| Spread::Copies(second.path))
            }
            Policy::Balance => {
                let mut shares: Weights = [0; MAX_PATHS];
                let least = candidates.clone().map(|candidate| candidate.class).min();
                let best = candidates.clone().find(is_active).map(|candidate| candidate.class).or(least);
                for Candidate { path, loss, .. } in candidates.filter(|candidate| Some(candidate.class) == best) {
                    let (Some(share), Some(halvings)) = (shares.get_mut(path), self.halvings.get_mut(path)) else {
                        continue;
                    };
                    *halvings = halved(*halvings, loss.unwrap_or(0));
                    *share = u16::from(self.weights[path].max(1)) * (UNIT >> *halvings);
                }
                let others = shares.iter().enumerate().any(|(path, &share)| path != active && share > 0);
                if others { Spread::Flows(shares) } else { Spread::Active }
            }
        }
    }
}

/// How often a share is to be halved at this loss, if it was halved so often before.
fn halved(before: u8, loss: u16) -> u8 {
    let above = |loss: u16| u8::try_from(LOSSES.iter().filter(|&&limit| loss >= limit).count()).unwrap_or(u8::MAX);
    // Rises with the loss, falls with its double.
    before.clamp(above(loss), above(loss.saturating_mul(2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    use Class::{Good, Poor, Proving};

    fn candidates(all: &[(usize, Class)]) -> Vec<Candidate> {
        all.iter().map(|&(path, class)| Candidate { path, class, loss: None }).collect()
    }

    #[test]
    fn policy_spreads_frames() {
        let weights = [1, 2, 3, 4, 1, 1, 1, 1];
        let flows = |shares: &[(usize, u16)]| {
            let mut all = [0; MAX_PATHS];
            for &(path, share) in shares {
                all[path] = share * UNIT;
            }
            Spread::Flows(all)
        };
        let paths: [&[(usize, Class)]; 5] = [
            &[(0, Good), (1, Good)],
            &[(0, Poor), (1, Good), (2, Proving), (3, Good)],
            &[(2, Good)],
            &[],
            &[(1, Proving), (3, Proving)],
        ];
        for (policy, active, expected) in [
            (Policy::Failover, 1, [Spread::Active; 5]),
            (
                Policy::Duplicate,
                1,
                [Spread::Copies(0), Spread::Copies(3), Spread::Copies(2), Spread::Active, Spread::Copies(3)],
            ),
            (
                Policy::Balance,
                1,
                [
                    flows(&[(0, 1), (1, 2)]),
                    flows(&[(1, 2), (3, 4)]),
                    flows(&[(2, 3)]), // path 1 is dead
                    Spread::Active,
                    flows(&[(1, 2), (3, 4)]),
                ],
            ),
            (
                Policy::Balance,
                7,
                [
                    flows(&[(0, 1), (1, 2)]),
                    flows(&[(1, 2), (3, 4)]),
                    flows(&[(2, 3)]),
                    Spread::Active,
                    flows(&[(1, 2), (3, 4)]),
                ],
            ),
        ] {
            for (paths, expected) in paths.iter().zip(expected) {
                let spread = Sharing::new(policy, weights).spread(active, candidates(paths).into_iter());
                assert_eq!(spread, expected, "{policy:?}, {paths:?}");
            }
        }
    }

    #[test]
    fn loss_lowers_share_steadily() {
        let mut sharing = Sharing::new(Policy::Balance, [2; MAX_PATHS]);
        for (loss, halvings) in
            [(0, 0), (19, 0), (20, 1), (11, 1), (30, 1), (9, 0), (90, 2), (50, 2), (39, 1), (400, 3), (150, 3), (0, 0)]
        {
            let paths = [(0, None), (3, Some(loss))].map(|(path, loss)| Candidate { path, class: Good, loss });
            let Spread::Flows(shares) = sharing.spread(0, paths.into_iter()) else { panic!() };
            assert_eq!((shares[0], shares[3]), (2 * UNIT, (2 * UNIT) >> halvings), "{loss}");
        }
    }
}
