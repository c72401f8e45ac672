//! Starts in a row: what the service manager keeps of them, and the pause after a failure. The unit starts the program again after
//! half a second, so that a new start that mends something costs no more; the program itself waits where only time can help.

use std::fs::File;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::signalfd::SignalFd;
use sd_notify::NotifyState;

use super::events::{Readable, to_end, wait};
use crate::service::descriptor_store::starts;
use crate::service::notify::Notify;
use crate::{Error, log};

/// From a failure that is not the first in a row to the next start.
const PAUSE: Duration = Duration::from_secs(5);

/// Has the service manager forget the starts before this one.
pub fn forget(notify: &Notify, before: &mut u32) {
    if *before > 0 {
        notify.store(&starts(*before), None);
        *before = 0;
    }
}

/// The end of a tunnel: under a service manager that starts it again, one start more is counted, and a failure after another waits.
/// `before` are the starts before this one that are not forgotten.
pub fn end(result: Result<(), Error>, mut before: u32, signals: &SignalFd, notify: &mut Notify) -> Result<(), Error> {
    let starts_again = matches!(result, Err(Error::Again(_) | Error::Failure(_))) && notify.is_connected();
    let after = before.saturating_add(1);
    let follows = before > 0;
    if starts_again || result.is_ok() {
        forget(notify, &mut before);
    }
    if starts_again {
        // Without it the next start counts from the beginning.
        notify.store(&starts(after), File::open("/dev/null").ok().map(Into::into));
    }
    let result = match result {
        Err(Error::Failure(reason)) if starts_again && follows => {
            log::error(&reason);
            notify.send(&NotifyState::Status(&format!("failed: {reason}; starts again in {} s", PAUSE.as_secs())));
            pause(signals, notify);
            Err(Error::Reported(Error::Failure(reason).status()))
        }
        result => result,
    };
    notify.send(&NotifyState::Stopping);
    result
}

/// Waits, unless a signal asks to end.
fn pause(signals: &SignalFd, notify: &mut Notify) {
    let until = Instant::now() + PAUSE;
    loop {
        let now = Instant::now();
        let next = notify.keep_alive(now).map_or(until, |alive| alive.min(until));
        let left = u16::try_from(next.saturating_duration_since(now).as_millis() + 1).unwrap_or(u16::MAX);
        let waited = wait([signals.as_fd()], left);
        if now >= until || waited.is_err() || waited.is_ok_and(|Readable([signal])| signal && to_end(signals)) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use nix::sys::signal::SigSet;

    use super::*;

    #[test]
    fn starts_that_are_forgotten_stay_so() {
        let signals = SignalFd::new(&SigSet::empty()).unwrap();
        let said = |forgotten: bool, result: Result<(), Error>| {
            let (manager, socket) = UnixDatagram::pair().unwrap();
            let (mut notify, mut starts) = (Notify::to(socket), 3);
            if forgotten {
                forget(&notify, &mut starts);
            }
            let _ = end(result, starts, &signals, &mut notify);
            manager.set_nonblocking(true).unwrap();
            let mut buffer = [0; 200];
            let mut said = String::new();
            while let Ok(length) = manager.recv(&mut buffer) {
                said += &String::from_utf8_lossy(&buffer[..length]).replace('\n', " ");
                said += "\n";
            }
            said
        };
        let again = || Err(Error::Again(String::new()));
        let remove = |number: u32| format!("FDSTOREREMOVE=1 FDNAME=starts-{number}\n");
        let store = |number: u32| format!("{}FDSTORE=1 FDNAME=starts-{number}\n", remove(number));
        assert_eq!(said(false, again()), remove(3) + &store(4) + "STOPPING=1\n");
        assert_eq!(said(true, again()), remove(3) + &store(1) + "STOPPING=1\n");
        // A clean end has nothing to mend.
        for forgotten in [false, true] {
            assert_eq!(said(forgotten, Ok(())), remove(3) + "STOPPING=1\n");
        }
    }
}
