//! Reports of the supervisor: status requests, statistics, and the status line of the service manager.

use std::net::IpAddr;
use std::time::Instant;

use privsep::ipc::header;
use sd_notify::NotifyState;

use super::Supervisor;
use crate::log;
use crate::status::{self, Status};
use crate::supervise::children::resolver::Resolver;
use crate::supervise::children::worker::Worker;
use crate::supervise::statistics;
use crate::supervise::watch::carrier::Carrier;
use crate::supervise::watch::link::Trouble;
use crate::supervise::watch::storm;

impl Supervisor<'_> {
    /// Sends the status line to the service manager when it has changed.
    pub(super) fn say_status(&mut self) {
        if self.notify.is_connected() {
            let words = self.status().words(self.parts.by_root);
            if words != self.status_line && self.notify.send(&NotifyState::Status(&words)) {
                self.status_line = words;
            }
        }
    }

    /// Has statistics logged with the next report.
    pub(super) fn want_statistics(&mut self) {
        self.statistics_wanted = true;
        if let Some(worker) = &mut self.children.worker {
            worker.ask_report();
        }
    }

    pub(super) fn log_statistics(&mut self) {
        self.statistics_wanted = false;
        let addresses: Vec<_> = (0..self.parts.paths.len()).map(|path| self.addresses(path)).collect();
        for line in statistics::lines(&self.parts.setup.state, &addresses) {
            log::info(&line);
        }
    }

    pub(super) fn on_request(&mut self) {
        // A limited number, so that a client that connects again and again does not delay other work.
        for (stream, user) in self.control.accept_some() {
            self.requests.push(stream, user, Instant::now());
        }
        match &mut self.children.worker {
            Some(worker) if worker.confined.is_some() => worker.ask_report(),
            _ => self.answer_requests(),
        }
    }

    /// Sends the status to all clients that wait for it.
    pub(super) fn answer_requests(&mut self) {
        if !self.requests.is_empty() {
            let text = self.status().json();
            self.requests.answer(&text, Instant::now());
        }
    }

    /// Address family of the datagrams on a path now.
    fn family(&self, path: usize) -> IpAddr {
        self.in_use(path).address.map_or(self.parts.paths[path].family(), |address| address.ip())
    }

    pub(super) fn status(&self) -> Status {
        let worker = self.children.worker.as_ref().filter(|worker| worker.confined.is_some());
        status::collect(status::Facts {
            tunnel: self.tunnel,
            interface: &self.interface,
            helper: self.children.helper.as_ref().map(|helper| helper.child.pid()),
            resolver: self.children.resolver.as_ref().map(Resolver::pid),
            worker: worker.map(Worker::pid),
            restarts: self.children.restarts,
            confinement: self.children.confinement,
            in_empty_network: self.parts.in_empty_network,
            addresses: (0..self.parts.paths.len()).map(|path| self.addresses(path)).collect(),
            underlay_mtus: self.parts.paths.iter().map(|path| path.underlay_mtu).collect(),
            headers: (0..self.parts.paths.len()).map(|path| header::datagram(self.family(path))).collect(),
            state: &self.parts.setup.state,
            uptime: self.watches.paths.uptime(),
            local: self.parts.link.trouble().filter(|trouble| trouble.is_down()).map(Trouble::to_string),
            limit: self.parts.link.trouble().filter(|trouble| !trouble.is_down()).map(Trouble::to_string),
            carrier: self.watches.carrier.as_ref().map(Carrier::is_on),
            seen: self.watches.paths.seen(),
            late: Some(&self.parts.late),
            names: Some(&self.parts.names),
            trouble: self.watches.session.found(),
            not_up: self.watches.paths.reason(Instant::now(), &self.parts.setup.state, &self.parts.names),
            storm: self.watches.storm.found().map(storm::Storm::sentence),
        })
    }
}
