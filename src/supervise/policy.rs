//! What whoever runs a tunnel expects of it. The two command lines differ in this and choose it; what a tunnel is, they describe
//! alike.

/// How a tunnel behaves towards whoever runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policies {
    /// Where it runs.
    pub place: Place,
    /// What becomes of it when a path lacks something at the start.
    pub missing: Missing,
    /// On SIGHUP.
    pub on_hangup: OnSignal,
    /// On SIGUSR1.
    pub on_user: OnSignal,
    /// What becomes of it when a worker has run its ticks.
    pub ticks_over: TicksOver,
}

/// Where a tunnel runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Where it was started; it logs to standard error.
    Foreground,
    /// In the background once it is ready; it logs to the system log.
    Background,
}

/// What becomes of a tunnel one of whose paths lacks an address, a route or its device at the start, or has a name that does not
/// resolve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// It ends, with an error.
    End,
    /// It starts with the other paths, and takes this one later.
    Start,
}

/// What a signal has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnSignal {
    /// Statistics are logged.
    LogStatistics,
    /// Traffic is counted from zero.
    ResetCounts,
    /// The file would be read again; this version says that it does not.
    Reload,
}

/// What becomes of a tunnel whose worker has run its ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TicksOver {
    /// It ends.
    End,
    /// It goes on with another worker.
    Replace,
}
