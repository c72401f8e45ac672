//! Choice of the path that frames leave by.

use privsep::ipc::PathHealth;

use super::estimate::DOWN_AFTER;

/// Number of the path that frames leave by at tick `now`: the first one that is up. In the first ticks a path that has not yet
/// answered holds back those after it. Where no path answers, the path `before` stays.
pub fn active(paths: impl IntoIterator<Item = PathHealth>, now: u64, before: usize) -> usize {
    for (number, health) in paths.into_iter().enumerate() {
        match health {
            PathHealth::Up => return number,
            PathHealth::Connecting if now <= DOWN_AFTER => return before,
            PathHealth::Connecting | PathHealth::Down => {}
        }
    }
    before
}

#[cfg(test)]
mod tests {
    use super::*;
    use PathHealth::{Connecting, Down, Up};

    #[test]
    fn active_path_is_chosen() {
        for (paths, now, before, expected) in [
            (&[Connecting, Up][..], 5, 0, 0), // the first path gets its time
            (&[Connecting, Up], 6, 0, 1),
            (&[Down, Up], 9, 0, 1),
            (&[Up, Up], 9, 1, 0),     // return
            (&[Down, Down], 9, 0, 0), // never switch to a path that does not answer
            (&[Down, Connecting], 9, 0, 0),
            (&[Down, Down], 9, 1, 1),
            (&[Down], 9, 0, 0),
            (&[Down, Connecting, Up, Up], 9, 1, 2),
            (&[Down, Connecting, Up], 5, 0, 0),
            (&[Down, Down, Down], 9, 2, 2),
        ] {
            assert_eq!(active(paths.iter().copied(), now, before), expected, "{paths:?} at {now}, before {before}");
        }
    }
}
