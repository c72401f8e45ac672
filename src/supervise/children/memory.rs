//! Detection of kills by the kernel for lack of memory. Such a kill resembles one by an administrator, but a hostile worker can
//! cause it by taking memory.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

/// Count of such kills in our control group (`memory.events`, Documentation/admin-guide/cgroup-v2.rst).
pub struct Shortage {
    /// File opened while that is possible; `None` without a control group of version 2 that counts memory.
    events: Option<File>,
    seen: u64,
}

impl Shortage {
    /// Starts to count. Called while files can be opened.
    pub fn watch() -> Self {
        let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let path = group.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
        Self::of(File::open(format!("/sys/fs/cgroup{path}/memory.events")).ok())
    }

    fn of(events: Option<File>) -> Self {
        let mut shortage = Self { events, seen: 0 };
        shortage.has_killed();
        shortage
    }

    /// Whether such a kill occurred since the last call.
    pub fn has_killed(&mut self) -> bool {
        let mut text = [0; 512];
        let Some(Ok(length)) = self.events.as_ref().map(|events| events.read_at(&mut text, 0)) else { return false };
        let text = String::from_utf8_lossy(&text[..length]);
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok()).unwrap_or(self.seen);
        std::mem::replace(&mut self.seen, count) < count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oom_kill_counts_once() {
        let path = std::env::temp_dir().join(format!("ethudp-memory-{}", std::process::id()));
        let write = |kills: u64| fs::write(&path, format!("low 0\nmax 9\noom 3\noom_kill {kills}\noom_group_kill 0\n"));
        write(2).unwrap();
        let mut shortage = Shortage::of(File::open(&path).ok());
        assert!(!shortage.has_killed(), "before our time");
        write(3).unwrap();
        assert!(shortage.has_killed() && !shortage.has_killed());
        write(5).unwrap();
        assert!(shortage.has_killed() && !shortage.has_killed());
        fs::remove_file(path).unwrap();
        assert!(!Shortage::of(None).has_killed());
    }
}
