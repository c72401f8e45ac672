//! Descriptors that the service manager keeps while the tunnel does not run (`sd_listen_fds(3)`, `FileDescriptorStoreMax=`).

use std::io;
use std::os::fd::OwnedFd;

use privsep::sys::process;

/// Name under which the queue of the TAP is stored.
pub const TAP: &str = "tap-0";
/// Most descriptors that are accepted. The unit has room for eight.
const MOST: u16 = 64;

/// Prefix of the name under which [`Starts`] are stored. The descriptor is one of `/dev/null`; only its name matters. The service
/// manager is the only place that keeps it over a start.
const STARTS: &str = "starts";

/// Cause of an end after which the tunnel is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A failure.
    Failure,
    /// The helper had ended.
    Helper,
    /// The interface was not in its bridge.
    Bridge,
    /// The interface lacked an address.
    Address,
    /// The device of a path appeared, or was created again.
    Device,
    /// A path lacked an address or a route.
    Path,
    /// The name of a path may have a new address.
    Name,
}

impl Cause {
    /// All causes, in the order of their numbers.
    pub const ALL: [Self; 7] =
        [Self::Failure, Self::Helper, Self::Bridge, Self::Address, Self::Device, Self::Path, Self::Name];

    /// Word of the cause in the name of a descriptor.
    fn word(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::Helper => "helper",
            Self::Bridge => "bridge",
            Self::Address => "address",
            Self::Device => "device",
            Self::Path => "path",
            Self::Name => "name",
        }
    }
}

/// Number of consecutive ends with a restart, by cause.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Starts([u32; Cause::ALL.len()]);

impl Starts {
    /// Number for this cause.
    pub fn of(self, cause: Cause) -> u32 {
        self.0[cause as usize]
    }

    /// Copy with one more of this cause.
    pub fn and(mut self, cause: Cause) -> Self {
        self.0[cause as usize] = self.of(cause).saturating_add(1);
        self
    }

    /// Copy with none of this cause.
    pub fn without(mut self, cause: Cause) -> Self {
        self.0[cause as usize] = 0;
        self
    }

    /// Name under which the numbers are stored; `None` if all are 0.
    pub fn name(self) -> Option<String> {
        let some = Cause::ALL.into_iter().filter(|&cause| self.of(cause) > 0);
        let words: Vec<_> = some.map(|cause| format!("-{}-{}", self.of(cause), cause.word())).collect();
        (!words.is_empty()).then(|| STARTS.to_owned() + &words.concat())
    }

    /// Parses such a name. Unknown words and numbers are ignored.
    fn from_name(name: &str) -> Option<Self> {
        let words: Vec<_> = name.strip_prefix(STARTS)?.strip_prefix('-')?.split('-').collect();
        let mut starts = Self::default();
        for pair in words.chunks(2) {
            let cause = Cause::ALL.into_iter().find(|cause| pair.get(1) == Some(&cause.word()));
            if let (Some(cause), Ok(number)) = (cause, pair[0].parse()) {
                starts.0[cause as usize] = number;
            }
        }
        Some(starts)
    }
}

/// Descriptors that were stored.
#[derive(Default)]
pub struct StoredDescriptors {
    /// The queue of the TAP.
    pub tap: Option<OwnedFd>,
    /// Numbers of consecutive ends with a restart.
    pub starts: Starts,
}

/// Takes the stored descriptors and closes all others that the parent process left open. Only for the first lines of `main`.
pub fn take() -> io::Result<StoredDescriptors> {
    let variable = |name| std::env::var(name).ok();
    let names = names(
        variable("LISTEN_PID").as_deref(),
        variable("LISTEN_FDS").as_deref(),
        variable("LISTEN_FDNAMES").as_deref(),
        std::process::id(),
    );
    let (names, count) = match names {
        Ok(all) => all,
        // Descriptors of an unknown meaning are closed.
        Err(error) => return process::take_inherited(0).and(Err(io::Error::other(error))),
    };
    let descriptors = process::take_inherited(count)?;
    let mut stored = StoredDescriptors::default();
    for (name, descriptor) in names.into_iter().zip(descriptors) {
        if name == TAP {
            stored.tap = stored.tap.or(descriptor);
        } else if let Some(starts) = Starts::from_name(&name) {
            stored.starts = starts;
        }
    }
    Ok(stored)
}

/// Names of the descriptors for process `own`, and their number.
fn names(pid: Option<&str>, count: Option<&str>, names: Option<&str>, own: u32) -> Result<(Vec<String>, u16), String> {
    let (Some(pid), Some(count)) = (pid, count) else { return Ok((Vec::new(), 0)) };
    let pid: u32 = pid.parse().map_err(|_| format!("LISTEN_PID={pid:?}: must be a process ID"))?;
    if pid != own {
        return Ok((Vec::new(), 0));
    }
    let number = count.parse::<u16>().ok().filter(|&number| number <= MOST);
    let number = number.ok_or_else(|| format!("LISTEN_FDS={count:?}: must be a number from 0 to {MOST}"))?;
    let names = names.unwrap_or_default().split(':').take(number.into()).map(str::to_owned).collect();
    Ok((names, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_stored_by_cause() {
        let starts = Starts::default().and(Cause::Name).and(Cause::Device).and(Cause::Name);
        assert_eq!(starts.name().unwrap(), "starts-1-device-2-name");
        assert_eq!(Starts::from_name("starts-1-device-2-name"), Some(starts));
        assert_eq!(starts.without(Cause::Device).without(Cause::Name).name(), None);
        // systemd accepts names without colons and control characters, of at most 255 bytes (`sd_pid_notify_with_fds(3)`).
        let most = Starts([u32::MAX; Cause::ALL.len()]);
        let name = most.name().unwrap();
        assert!(name.len() <= 255 && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'), "{name}");
        assert_eq!(Starts::from_name(&name), Some(most));
        assert_eq!(most.and(Cause::Name), most);
        for (number, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, number);
        }
        for name in ["starts-", "starts-3", "starts-x-name", "starts-3-other", "starts-name-3"] {
            assert_eq!(Starts::from_name(name), Some(Starts::default()), "{name}");
        }
        assert_eq!([TAP, "starts", "startsx-3-name"].map(Starts::from_name), [None; 3]);
    }

    #[test]
    fn descriptor_count_is_bounded() {
        let names = |pid, count, all| names(pid, count, all, 7);
        let none = Ok((Vec::new(), 0));
        assert_eq!(names(None, Some("3"), None), none);
        assert_eq!(names(Some("8"), Some("2000000000"), None), none);
        assert_eq!(names(Some("7"), Some("1"), Some("tap-0:b")), Ok((vec!["tap-0".into()], 1)));
        assert_eq!(names(Some("7"), Some("2"), None), Ok((vec![String::new()], 2)));
        for (pid, count) in [("7", "2000000000"), ("7", "65"), ("7", "-1"), ("7", ""), ("x", "1")] {
            assert!(names(Some(pid), Some(count), None).is_err(), "{pid} {count}");
        }
    }
}
