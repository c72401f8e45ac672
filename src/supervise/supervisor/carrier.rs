//! Handlers of a TAP whose carrier follows the paths.

use std::time::Instant;

use super::Supervisor;
use crate::{Error, log};

impl Supervisor<'_> {
    /// Has the helper change the carrier of a TAP that follows the paths.
    pub(super) fn follow_paths(&mut self) {
        let (Some(carrier), Some(helper)) = (&mut self.watches.carrier, &self.children.helper) else { return };
        let forwards = self.children.worker.as_ref().is_some_and(|worker| worker.confined.is_some());
        if let Some(on) = carrier.change(Instant::now(), forwards, &self.parts.setup.state.paths)
            && helper.set_carrier(on).is_ok()
        {
            carrier.set(on);
            self.say(log::info, if on { "local side: carrier on" } else { "local side: carrier off: no path is up" });
        }
    }

    /// Clears the carrier of a TAP that follows the paths, when the tunnel fails: the service manager may keep the TAP.
    pub(super) fn end_carrier(&self, error: &Error) {
        let helper = self.children.helper.as_ref().filter(|_| self.watches.carrier.is_some());
        if let Some(helper) = helper.filter(|_| !matches!(error, Error::Again(..))) {
            let _ = helper.set_carrier(false);
        }
    }
}
