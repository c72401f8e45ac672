//! Spread of the frames over the paths.

use privsep::ipc::MAX_PATHS;

use crate::frame::flow::mix;

/// Shares of the paths in the flows; zero for a path without frames.
pub type Weights = [u16; MAX_PATHS];

/// Paths by which frames leave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Spread {
    /// All frames leave by the active path.
    #[default]
    Active,
    /// Each frame leaves by the active path, and a copy of it by this path.
    Copies(usize),
    /// Each flow leaves by one path.
    Flows(Weights),
}

/// Path of a flow, by weighted rendezvous hashing: the path whose draw for the flow is the least. A path that drops out moves only
/// its own flows, and so does a weight that changes.
pub fn path_of(flow: u64, weights: &Weights) -> usize {
    let (mut best, mut least) = (0, f64::INFINITY);
    for (path, &weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0) {
        // A single round would correlate the draws of two paths.
        let draw = mix(mix(flow, path as u64 + 1), 0) >> 11;
        #[allow(clippy::cast_precision_loss)] // 53 bits.
        let uniform = (draw as f64 + 0.5) / (1_u64 << 53) as f64;
        // Exponentially distributed with this rate: the least of several is that of a path in proportion to its weight.
        let time = -uniform.ln() / f64::from(weight);
        if time < least {
            (best, least) = (path, time);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(weights: &Weights) -> [u32; MAX_PATHS] {
        let mut shares = [0; MAX_PATHS];
        (0..10_000).for_each(|flow| shares[path_of(mix(0, flow), weights)] += 1);
        shares
    }

    #[test]
    fn flows_are_shared_by_weight() {
        for weights in [[1, 1, 0, 0, 0, 0, 0, 0], [100, 300, 0, 600, 0, 0, 0, 0], [1; 8], [0, 0, 0, 0, 0, 0, 0, 5]] {
            let sum: u32 = weights.iter().map(|&weight| u32::from(weight)).sum();
            for (share, weight) in shares(&weights).into_iter().zip(weights) {
                let expected = 10_000 * u32::from(weight) / sum;
                assert!(share.abs_diff(expected) <= 200 && (weight > 0) == (share > 0), "{weights:?}: {share}");
            }
        }
    }

    #[test]
    fn change_moves_few_flows() {
        let all = [3, 2, 1, 4, 0, 0, 0, 0];
        for (path, weight) in [(0, 0), (1, 0), (3, 2), (4, 1)] {
            let mut changed = all;
            changed[path] = weight;
            for flow in (0..2_000).map(|flow| mix(0, flow)) {
                let (before, after) = (path_of(flow, &all), path_of(flow, &changed));
                assert!(before == after || [before, after].contains(&path), "{path} to {weight}: {before} to {after}");
            }
        }
    }
}
