//! Choice of the paths that frames leave by.

use privsep::ipc::MAX_PATHS;

/// Class of a path, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// The peer answers, and the path has been good for its hold time if it had failed before.
    Good,
    /// The peer answers again, and the path has not been good for its hold time yet.
    Proving,
    /// The peer answers, but the path loses too much or takes too long.
    Poor,
    /// The peer has not answered yet.
    New,
    /// The peer does not answer.
    Dead,
}

impl Class {
    /// Whether the peer answers.
    pub fn answers(self) -> bool {
        matches!(self, Self::Good | Self::Proving | Self::Poor)
    }
}

/// Present condition of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Class of the path.
    pub class: Class,
    /// Whether an answer is overdue. Frames stay on such a path, and do not move to it.
    pub doubtful: bool,
}

impl Standing {
    /// Whether frames may move to the path.
    fn admits(self, class: Class) -> bool {
        self.class == class && !self.doubtful
    }
}

/// A path in the order of a [`Choice`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranked {
    /// Number of the path.
    pub path: usize,
    /// Class of the path.
    pub class: Class,
}

/// Order of the paths for frames, the best first. The first one is the active path, also where no path is usable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    order: Vec<Ranked>,
    usable: usize,
}

impl Choice {
    /// Makes the choice before the first evidence: path `active` before the others.
    pub fn new(paths: usize, active: usize) -> Self {
        let new = |path| Ranked { path, class: Class::New };
        let mut order: Vec<_> = (0..paths).map(new).collect();
        if let Some(first) = order.get_mut(..=active) {
            first.rotate_right(1);
        }
        Self { order, usable: 0 }
    }

    /// Number of the active path.
    pub fn active(&self) -> usize {
        self.order.first().map_or(0, |first| first.path)
    }

    /// Paths that frames may leave by, the active one first. With a dead active path it stands alone.
    pub fn usable(&self) -> &[Ranked] {
        self.order.get(..self.usable.max(1)).unwrap_or_default()
    }

    /// All paths, those that frames may move to before the others.
    pub fn order(&self) -> &[Ranked] {
        &self.order
    }

    /// Whether no path is usable.
    pub fn is_down(&self) -> bool {
        self.usable == 0
    }

    /// Updates the order. While the tunnel is `starting`, a path that has not yet answered holds back those after it. Returns
    /// whether the order has changed.
    pub fn update(&mut self, standings: impl Iterator<Item = Standing>, starting: bool) -> bool {
        let mut all = [Standing { class: Class::Dead, doubtful: true }; MAX_PATHS];
        let count = all.iter_mut().zip(standings).map(|(place, standing)| *place = standing).count();
        let all = &all[..count];
        let active = choose(all, starting, self.active());
        let is_usable =
            |path: usize, standing: &Standing| standing.class.answers() && (path == active || !standing.doubtful);
        let rank = |path: usize| {
            let usable = all.get(path).is_some_and(|standing| is_usable(path, standing));
            (path != active, !usable, all.get(path).map(|standing| standing.class), path)
        };
        let before = (self.active(), self.usable);
        let mut changed = false;
        for Ranked { path, class } in &mut self.order {
            let now = all.get(*path).map_or(Class::Dead, |standing| standing.class);
            changed |= std::mem::replace(class, now) != now;
        }
        changed |= !self.order.is_sorted_by_key(|ranked| rank(ranked.path));
        self.order.sort_unstable_by_key(|ranked| rank(ranked.path));
        self.usable = all.iter().enumerate().filter(|(path, standing)| is_usable(*path, standing)).count();
        changed || before != (self.active(), self.usable)
    }
}

/// Number of the path that frames leave by: the first good one. From a doubtful active path, frames move only to a preferred path; from
/// a poor or proving one, only to a good path. Where no path answers, the active one stays: it had the latest evidence.
fn choose(all: &[Standing], starting: bool, before: usize) -> usize {
    let is_active = |path: usize| path == before;
    for (path, standing) in all.iter().enumerate() {
        match standing.class {
            Class::Good if is_active(path) || !standing.doubtful => return path,
            Class::New if starting => return before,
            _ => {}
        }
    }
    if let Some(Standing { class: Class::Proving | Class::Poor, .. }) = all.get(before) {
        return before;
    }
    let first = |class| all.iter().position(|standing| standing.admits(class));
    first(Class::Proving).or_else(|| first(Class::Poor)).unwrap_or(before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Class::{Dead, Good, New, Poor, Proving};

    /// Standing of a class; a doubtful one in a pair.
    fn sure(classes: &[Class]) -> Vec<Standing> {
        classes.iter().map(|&class| Standing { class, doubtful: false }).collect()
    }

    #[test]
    fn active_path_is_chosen() {
        for (classes, starting, before, expected) in [
            (&[New, Good][..], true, 0, 0), // the first path gets its time
            (&[New, Good], false, 0, 1),
            (&[Dead, Good], false, 0, 1),
            (&[Good, Good], false, 1, 0),    // return
            (&[Proving, Good], false, 1, 1), // not before its hold time is over
            (&[Proving, Dead], false, 1, 0),
            (&[Dead, Proving, Proving], false, 2, 2),
            (&[Poor, Good], false, 0, 1),
            (&[Good, Poor], false, 1, 0),
            (&[Poor, Proving], false, 0, 0), // no storm between two bad paths
            (&[Poor, Poor], false, 1, 1),
            (&[Dead, Poor], false, 0, 1),
            (&[Dead, Dead], false, 0, 0), // never switch to a path that does not answer
            (&[Dead, New], false, 0, 0),
            (&[Dead, Dead], false, 1, 1),
            (&[Dead], false, 0, 0),
            (&[Dead, New, Good, Good], false, 1, 2),
            (&[Dead, New, Good], true, 0, 0),
            (&[Dead, Dead, Dead], false, 2, 2),
        ] {
            assert_eq!(choose(&sure(classes), starting, before), expected, "{classes:?}, before {before}");
        }
    }

    #[test]
    fn doubtful_path_keeps_its_frames() {
        let (good, doubtful) = (Standing { class: Good, doubtful: false }, Standing { class: Good, doubtful: true });
        let dead = Standing { class: Dead, doubtful: true };
        for (all, before, expected) in [
            ([doubtful, good], 0, 0),
            ([doubtful, good], 1, 1),
            ([good, doubtful], 1, 0),
            ([dead, good], 0, 1),
            ([dead, doubtful], 0, 0), // the peer itself may have stopped
        ] {
            assert_eq!(choose(&all, false, before), expected, "{all:?}, before {before}");
        }
    }

    #[test]
    fn order_is_by_class_after_active_path() {
        let mut choice = Choice::new(5, 2);
        assert_eq!((choice.active(), choice.is_down(), choice.usable().len()), (2, true, 1));
        assert!(choice.update(sure(&[Dead, Poor, Good, Proving, Good]).into_iter(), false));
        let order =
            |choice: &Choice| choice.usable().iter().map(|ranked| (ranked.path, ranked.class)).collect::<Vec<_>>();
        assert_eq!(order(&choice), [(2, Good), (4, Good), (3, Proving), (1, Poor)]);
        assert!(!choice.update(sure(&[Dead, Poor, Good, Proving, Good]).into_iter(), false));
        assert!(choice.update(sure(&[Dead, Poor, Dead, Proving, Dead]).into_iter(), false));
        assert_eq!(order(&choice), [(3, Proving), (1, Poor)]);
        assert!(choice.update(sure(&[Dead; 5]).into_iter(), false));
        assert_eq!((order(&choice), choice.is_down()), (vec![(3, Dead)], true));
    }
}
