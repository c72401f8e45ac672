//! Handlers of the names of peers: questions, answers, and the addresses that the worker is to use.

use std::time::Instant;

use privsep::ipc::{Address, PathHealth, Remote, State};

use super::{Parts, Supervisor};
use crate::log;
use crate::supervise::children::resolver::{Resolver, Said};
use crate::supervise::renewal::names;
use crate::supervise::watch::session::Line;
use crate::tunnel::resolve::Resolved;

impl Supervisor<'_> {
    /// Asks for the names that are due, and tries other addresses of paths that are not up.
    pub(super) fn look_up(&mut self, now: Instant) {
        let (parts, answered) = (&mut self.parts, self.tunnel.is_answered());
        let Parts { names, paths, setup, .. } = parts;
        let (questions, moves) = names.on_time(now, |path| in_use(answered, paths, &setup.state, path));
        let resolver = self.children.resolver.as_mut();
        if resolver.is_some_and(|resolver| questions.into_iter().any(|name| resolver.ask(name).is_err())) {
            self.lose_resolver("does not read");
        }
        let late = self.children.resolver.as_ref().and_then(Resolver::late_at);
        if late.is_some_and(|late| now >= late) {
            self.lose_resolver("does not answer");
        }
        self.tell(moves);
    }

    /// Takes an answer of the resolver.
    pub(super) fn on_resolver(&mut self, now: Instant) {
        let Some(resolver) = &mut self.children.resolver else { return };
        let (name, found) = match resolver.take() {
            Ok(Some(Said::Answer(name, found))) => (name, found),
            Ok(Some(Said::Failed(reason))) => return self.lose_resolver(&reason),
            Ok(Some(Said::Lacks(_))) => return self.lose_resolver("message out of place"),
            Ok(None) => return self.lose_resolver("ended"),
            Err(error) => return self.lose_resolver(&error.to_string()),
        };
        let (parts, answered) = (&mut self.parts, self.tunnel.is_answered());
        let Parts { names, paths, setup, .. } = parts;
        let (moves, line) = names.on_answer(now, name, &found, |path| in_use(answered, paths, &setup.state, path));
        match line {
            Some(Line::Good(line)) => self.say(log::info, &line),
            Some(Line::Bad(line)) => self.say(log::warning, &line),
            None => {}
        }
        self.tell(moves);
    }

    /// Ends the resolver. Only a new start can start another, because this process has no privilege and no network.
    fn lose_resolver(&mut self, reason: &str) {
        self.children.resolver = None;
        self.parts.names.lose_resolver();
        self.parts.late.lose_names(self.tunnel);
        log::error(&format!("resolver: {reason}; peers with a name keep their addresses"));
    }

    /// Tells the worker, and later workers, which addresses to use.
    fn tell(&mut self, moves: Vec<names::Move>) {
        for (path, address) in moves {
            let used = self.in_use(path).address.map(Address);
            let remote = &mut self.parts.paths[path].remote;
            let now = Address(address);
            *remote = match *remote {
                Remote::Named { before, .. } => {
                    Remote::Named { now: Some(now), before: used.filter(|used| *used != now).or(before) }
                }
                Remote::Learned { before, port, .. } => {
                    let learned = self.parts.setup.state.paths.get(path).and_then(|report| report.learned);
                    let used = learned.map(|Address(used)| used.ip()).filter(|used| *used != address.ip());
                    Remote::Learned { address: Some(address.ip()), before: used.or(before), port }
                }
                fixed @ Remote::Fixed(_) => fixed,
            };
            self.parts.setup.settings.remotes[path] = *remote;
            if let Some(worker) = &self.children.worker {
                worker.tell(path, now);
            }
        }
    }

    /// State of a path, for the choice among the addresses of a name.
    pub(super) fn in_use(&self, path: usize) -> names::Use {
        in_use(self.tunnel.is_answered(), &self.parts.paths, &self.parts.setup.state, path)
    }
}

/// State of a path, for the choice among the addresses of a name: the worker's report, or the address that it has been told.
fn in_use(answered: bool, paths: &[Resolved], state: &State, path: usize) -> names::Use {
    let report = state.paths.get(path).copied().unwrap_or_default();
    let told = match paths[path].remote {
        Remote::Fixed(Address(address)) | Remote::Named { now: Some(Address(address)), .. } => Some(address),
        Remote::Learned { address: Some(address), port, .. } => Some((address, port.unwrap_or(0)).into()),
        _ => None,
    };
    let address = report.learned.map(|Address(learned)| learned).or(told);
    names::Use { up: !answered || report.health == PathHealth::Up, address }
}
