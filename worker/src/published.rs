//! A value that one thread changes now and then, and others look at all the time: without a lock while it stays.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

pub struct Published<T> {
    /// Changes with the value.
    version: AtomicU64,
    value: Mutex<T>,
}

impl<T: Clone + PartialEq> Published<T> {
    pub fn new(value: T) -> Self {
        Self { version: AtomicU64::new(0), value: Mutex::new(value) }
    }

    /// Replaces the value.
    pub fn set(&self, value: &T) {
        self.value.lock().unwrap_or_else(PoisonError::into_inner).clone_from(value);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Has `take` look at the value if it has changed since `seen`, the number of the version that the caller has.
    pub fn look(&self, seen: &mut u64, take: impl FnOnce(&T)) {
        let version = self.version.load(Ordering::Acquire);
        if version != *seen {
            *seen = version;
            take(&self.value.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_seen_and_nothing_else() {
        let published = Published::new(7);
        let (mut seen, mut looked) = (0, Vec::new());
        let mut look = |seen: &mut u64| published.look(seen, |&value| looked.push(value));
        look(&mut seen);
        published.set(&8);
        published.set(&9);
        look(&mut seen);
        look(&mut seen);
        assert_eq!(looked, [9]);
    }

    /// Each version is told with its value or a later one: with an earlier one, the change would be missed for good.
    #[test]
    fn no_change_is_missed_by_who_looks_meanwhile() {
        const LAST: u64 = 200_000;
        let published = Published::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| (1..=LAST).for_each(|value| published.set(&value)));
            let (mut seen, mut has) = (0, 0);
            while seen < LAST {
                published.look(&mut seen, |&value| has = value);
                assert!(has >= seen, "version {seen} with value {has}");
            }
            assert_eq!(has, LAST);
        });
    }
}
