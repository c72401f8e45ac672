//! Published: a value that one thread changes rarely and others read often, without a lock while it does not change.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

pub struct Published<T> {
    /// Incremented with each change.
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

    /// Calls `take` with the value if it has changed since version `seen`, and updates `seen`.
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
    fn each_change_is_seen_once() {
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

    /// A value that replaces the version that others see meanwhile.
    #[derive(PartialEq)]
    struct Version(u64);

    static VERSION: Published<Version> = Published { version: AtomicU64::new(7), value: Mutex::new(Version(0)) };

    impl Clone for Version {
        fn clone(&self) -> Self {
            Self(self.0)
        }

        fn clone_from(&mut self, _: &Self) {
            self.0 = VERSION.version.load(Ordering::Acquire);
        }
    }

    /// Otherwise a reader in between would take the old value for the new version and never see the change.
    #[test]
    fn version_follows_its_value() {
        let mut found = 0;
        VERSION.set(&Version(0));
        VERSION.look(&mut 7, |seen| found = seen.0);
        assert_eq!((found, VERSION.version.load(Ordering::Acquire)), (7, 8));
    }
}
