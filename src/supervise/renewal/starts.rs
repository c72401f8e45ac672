//! Consecutive starts: their record at the service manager, and the pause after a failure. The unit starts the program again after
//! half a second, so that a new start for a repair is quick. The program itself waits if only time can help.

use std::fs::File;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::signalfd::SignalFd;
use sd_notify::NotifyState;

use crate::process::{Readable, end_requested, wait};
use crate::service::descriptor_store::{Cause, Starts};
use crate::service::notify::Notify;
use crate::{Error, log};

/// Time from a repeated failure to the next start.
const PAUSE: Duration = Duration::from_secs(5);

/// Has the service manager keep these starts in place of the previous ones.
pub fn keep(notify: &Notify, kept: &mut Starts, starts: Starts) {
    if let Some(name) = kept.name().filter(|_| *kept != starts) {
        notify.store(&name, None);
    }
    if let Some(name) = starts.name().filter(|_| *kept != starts) {
        // Without the descriptor, the next start counts from 0.
        notify.store(&name, File::open("/dev/null").ok().map(Into::into));
    }
    *kept = starts;
}

/// Ends a tunnel. Under a service manager that restarts it, one more start is counted, and a repeated failure waits. `before` are
/// the starts before this one that are not forgotten.
pub fn end(
    result: Result<(), Error>,
    mut before: Starts,
    signals: &SignalFd,
    notify: &mut Notify,
) -> Result<(), Error> {
    let follows = before.of(Cause::Failure) > 0;
    let after = match &result {
        Ok(()) => Starts::default(),
        Err(Error::Again(cause, _)) => before.and(*cause),
        Err(Error::Failure(_)) => before.and(Cause::Failure),
        // The service manager does not start the program again.
        Err(_) => before,
    };
    keep(notify, &mut before, after);
    let result = match result {
        Err(Error::Failure(reason)) if notify.is_connected() && follows => {
            log::error(&reason);
            notify.send(&NotifyState::Status(&format!("failed: {reason}; restarts in {} s", PAUSE.as_secs())));
            pause(signals, notify);
            Err(Error::Reported(Error::Failure(reason).status()))
        }
        result => result,
    };
    notify.send(&NotifyState::Stopping);
    result
}

/// Waits, unless a signal asks for the end.
fn pause(signals: &SignalFd, notify: &mut Notify) {
    let until = Instant::now() + PAUSE;
    loop {
        let now = Instant::now();
        let next = notify.keep_alive(now).map_or(until, |alive| alive.min(until));
        let left = u16::try_from(next.saturating_duration_since(now).as_millis() + 1).unwrap_or(u16::MAX);
        let waited = wait([signals.as_fd()], left);
        if now >= until || waited.is_err() || waited.is_ok_and(|Readable([signal])| signal && end_requested(signals)) {
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
    fn forgotten_starts_stay_forgotten() {
        let signals = SignalFd::new(&SigSet::empty()).unwrap();
        let names = Starts::default().and(Cause::Name).and(Cause::Name);
        let said = |forgotten: bool, result: Result<(), Error>| {
            let (manager, socket) = UnixDatagram::pair().unwrap();
            let (mut notify, mut starts) = (Notify::to(socket), names.and(Cause::Device));
            if forgotten {
                keep(&notify, &mut starts, names);
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
        let again = || Err(Error::Again(Cause::Device, String::new()));
        let remove = |name: &str| format!("FDSTOREREMOVE=1 FDNAME=starts-{name}\n");
        let store = |name: &str| format!("{}FDSTORE=1 FDNAME=starts-{name}\n", remove(name));
        let (before, rest) = (remove("1-device-2-name"), store("2-name") + &remove("2-name"));
        assert_eq!(said(false, again()), before.clone() + &store("2-device-2-name") + "STOPPING=1\n");
        assert_eq!(said(true, again()), before.clone() + &rest + &store("1-device-2-name") + "STOPPING=1\n");
        // A clean end needs no repair.
        assert_eq!(said(false, Ok(())), before.clone() + "STOPPING=1\n");
        assert_eq!(said(true, Ok(())), before + &rest + "STOPPING=1\n");
    }
}
