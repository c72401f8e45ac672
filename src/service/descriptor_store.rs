//! What the service manager has kept for us while we were not running (`sd_listen_fds(3)`, `FileDescriptorStoreMax=`).

use std::io;
use std::os::fd::OwnedFd;

use privsep::sys::process;

/// Name under which the queue of the TAP is stored.
pub const TAP: &str = "tap-0";
/// Descriptors that are taken at most; the unit has room for eight.
const MOST: u16 = 64;

/// Beginning of the name under which the number of ends is stored that have asked for another start, in a row. The descriptor is
/// one of `/dev/null`: the name alone counts, which nothing but the service manager keeps over a start.
const STARTS: &str = "starts-";

/// What was stored.
#[derive(Default)]
pub struct Stored {
    /// The queue of the TAP.
    pub tap: Option<OwnedFd>,
    /// Ends in a row that have asked for another start.
    pub starts: u32,
}

/// The name under which this number of starts is stored.
pub fn starts(number: u32) -> String {
    format!("{STARTS}{number}")
}

/// Takes what is stored, and closes everything else that the parent process has left open. Only for the first lines of
/// `main`.
pub fn take() -> io::Result<Stored> {
    let variable = |name| std::env::var(name).ok();
    let names = names(
        variable("LISTEN_PID").as_deref(),
        variable("LISTEN_FDS").as_deref(),
        variable("LISTEN_FDNAMES").as_deref(),
        std::process::id(),
    );
    let (names, count) = match names {
        Ok(all) => all,
        // Of no use, so none stays open.
        Err(error) => return process::take_inherited(0).and(Err(io::Error::other(error))),
    };
    let descriptors = process::take_inherited(count)?;
    let mut stored = Stored::default();
    for (name, descriptor) in names.into_iter().zip(descriptors) {
        if name == TAP {
            stored.tap = stored.tap.or(descriptor);
        } else if let Some(number) = name.strip_prefix(STARTS).and_then(|number| number.parse::<u32>().ok()) {
            stored.starts = stored.starts.max(number);
        }
    }
    Ok(stored)
}

/// The names of the descriptors that are for process `own`, and how many these are.
fn names(pid: Option<&str>, count: Option<&str>, names: Option<&str>, own: u32) -> Result<(Vec<String>, u16), String> {
    let (Some(pid), Some(count)) = (pid, count) else { return Ok((Vec::new(), 0)) };
    let pid: u32 = pid.parse().map_err(|_| format!("LISTEN_PID={pid:?}: must be a process id"))?;
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
    fn descriptors_are_counted_within_bounds() {
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
