//! Clock that continues while the machine is suspended. Worker and supervisor count ticks by it, so that sessions, keys and
//! timeouts expire during suspension.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// A moment of `CLOCK_BOOTTIME` (`clock_gettime(2)`). The clock of `Instant` stops during suspension.
#[derive(Debug, Clone, Copy)]
pub struct Moment(Duration);

impl Moment {
    /// Returns the present moment.
    pub fn now() -> Self {
        // Linux has this clock since 2.6.39; the call fails only for an unknown clock.
        Self(clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from))
    }

    /// Time since this moment.
    pub fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Simulated duration of suspension in seconds, as a time namespace adds it (`time_namespaces(7)`).
    const SLEPT: u64 = 100_000;

    /// Body of the test below, run in a child process. Does nothing in an ordinary run.
    #[test]
    fn in_a_child() {
        if std::env::var_os("CLOCK_CHILD").is_some() {
            let awake = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap());
            assert!(Moment::now().0 >= awake + Duration::from_secs(SLEPT));
        }
    }

    #[test]
    fn clock_counts_suspend_time() {
        let mut child = Command::new("unshare");
        child.args(["--time", "--fork", "--boottime", &SLEPT.to_string()]).arg(std::env::current_exe().unwrap());
        let child = child.args(["--exact", "ipc::worker::clock::tests::in_a_child"]).env("CLOCK_CHILD", "");
        let output = child.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
