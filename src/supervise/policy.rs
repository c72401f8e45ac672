//! Policies that differ between the two command lines. Both describe a tunnel in the same way.

/// Behaviour of a tunnel towards its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policies {
    /// Place of the process.
    pub place: Place,
    /// Reaction to a path that lacks something at the start.
    pub missing: Missing,
    /// Reaction to SIGHUP.
    pub on_hangup: OnSignal,
    /// Reaction to SIGUSR1.
    pub on_user: OnSignal,
    /// Reaction to a worker that has run its ticks.
    pub ticks_over: TicksOver,
}

/// Place where a tunnel runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the foreground, with the log on standard error.
    Foreground,
    /// In the background once it is ready, with the log in the system log.
    Background,
}

/// Reaction to a path that lacks an address, a route or its device at the start, or whose name does not resolve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// The tunnel ends with an error.
    End,
    /// The tunnel starts with the other paths, and opens this one later.
    Start,
}

/// Reaction to a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnSignal {
    /// Statistics are logged.
    LogStatistics,
    /// Traffic counters are reset.
    ResetCounts,
    /// The file would be read again; this version logs that it does not.
    Reload,
}

/// Reaction to a worker that has run its ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TicksOver {
    /// The tunnel ends.
    End,
    /// Another worker replaces it.
    Replace,
}
