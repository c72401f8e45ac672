//! A status in text for people and for the service manager.

use std::fmt::Write;
use std::time::Duration;

use privsep::ipc::{Description, Kind};

use crate::{ConfinementStatus, PathState, PathStatus, SessionStatus, Status, untrusted};

/// Meaning of an ICMP message "port unreachable", which the kernel reports as `ECONNREFUSED`.
pub const REFUSED: &str =
    "port unreachable: ethudp does not listen on the peer's port, or a firewall there rejects the datagrams";

/// Meaning of ICMP messages by which a packet filter or a route refuses: "host prohibited", "administratively prohibited".
pub const PROHIBITED: &str = "prohibited: a firewall at the peer or on the path rejects the datagrams";

/// Means of confinement that a worker lacks. A network namespace can be expected only `by_root`.
pub fn lacks(confinement: &ConfinementStatus, by_root: bool) -> Vec<&'static str> {
    let ConfinementStatus { netns, landlock_abi, mdwe, seccomp } = *confinement;
    let lacks = [
        (landlock_abi == 0, "Landlock"),
        (!mdwe, "memory-deny-write-execute"),
        (!seccomp, "seccomp"),
        (by_root && !netns, "an empty network namespace"),
    ];
    lacks.into_iter().filter_map(|(lacks, what)| lacks.then_some(what)).collect()
}

impl Status {
    /// Word for the state of a path. A mirror needs no answer, so it does not connect.
    fn path_state(&self, path: &PathStatus) -> &'static str {
        let silent = self.wire == "classic" && self.mode.starts_with("mirror") && path.state == PathState::Connecting;
        if silent { "one-way" } else { path.state.word() }
    }

    /// One line for the service manager: state, peer, path, and the means of confinement that the kernel lacks.
    pub fn words(&self, by_root: bool) -> String {
        let active = self.paths.iter().enumerate().find(|(_, path)| path.active);
        let path = active.map_or_else(String::new, |(index, path)| {
            format!(
                ", path {} of {}: {} to {}, {}",
                index + 1,
                self.paths.len(),
                path.local,
                path.remote,
                self.path_state(path)
            )
        });
        let lacks = if self.pids.worker.is_some() { lacks(&self.confinement, by_root) } else { Vec::new() };
        let lacks = if lacks.is_empty() { String::new() } else { format!("; unavailable: {}", lacks.join(", ")) };
        let reason = self.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
        format!("{}{reason}{path}{lacks}", self.state)
    }

    /// One line for a list of tunnels.
    pub fn line(&self) -> String {
        let rtt = self.paths.iter().find(|path| path.active).and_then(|path| path.rtt_ms);
        let rtt = rtt.map_or_else(String::new, |rtt| format!(", rtt {rtt:.2} ms"));
        format!("{}: {}, {}{rtt}\n", self.name, self.mode, self.words(false))
    }

    /// Protection against readers: the cipher, or the session.
    fn protection_text(&self, text: &mut String) {
        if let Some(session) = &self.session {
            return self.session_text(session, text);
        }
        let lz4 = if self.lz4 { ", lz4" } else { "" };
        let _ = writeln!(text, "  cipher      {}: {}{lz4}", self.cipher, self.protection);
    }

    /// Cipher, keys and peer of the session.
    fn session_text(&self, session: &SessionStatus, text: &mut String) {
        let _ = match (&session.cipher, session.age_s) {
            (Some(cipher), Some(age)) => {
                writeln!(
                    text,
                    "  session     {cipher}, for {}: {}",
                    duration(Duration::from_secs(age)),
                    self.protection
                )
            }
            _ => writeln!(text, "  session     none: no frames are sent"),
        };
        let psk = if session.psk { ", pre-shared key" } else { "" };
        let _ = writeln!(text, "  handshake   {}, {}{psk}", session.handshake, session.kem);
        let _ = writeln!(text, "  peer's key  {}", session.peer_public_key);
        let _ = writeln!(text, "  fingerprint {}", session.fingerprint);
        let counts = &session.counters;
        let _ = writeln!(
            text,
            "              {} handshake{}, {} of them for new keys",
            counts.handshakes,
            if counts.handshakes == 1 { "" } else { "s" },
            counts.rekeys
        );
        if counts.copies > 0 {
            let _ = writeln!(text, "              {} copies of datagrams received by another path", counts.copies);
        }
        drops(session.counters.described(), |_| None, text);
    }

    /// Text for people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let (port, pids, confinement) = (&self.port.counters, &self.pids, &self.confinement);
        let pid = |pid: Option<i32>| pid.map_or_else(|| "-".into(), |pid| pid.to_string());
        let yes = |value| if value { "yes" } else { "no" };
        let _ = writeln!(text, "{}: {} ({}, wire {})", self.name, self.state, self.mode, self.wire);
        if let Some(reason) = &self.reason {
            let _ = writeln!(text, "  reason      {reason}");
        }
        let _ = writeln!(
            text,
            "  program     ethudp {}, up for {}",
            self.version,
            duration(Duration::from_secs(self.uptime_s))
        );
        self.protection_text(&mut text);
        if let Some(error) = &self.last_error {
            let _ = writeln!(text, "  last error  {error}");
        }
        let plural = if self.worker_restarts == 1 { "" } else { "s" };
        let resolver = pids.resolver.map_or_else(String::new, |pid| format!(", resolver {pid}"));
        let _ = writeln!(
            text,
            "  processes   supervisor {}, helper {}{resolver}, worker {}, {} worker restart{plural}",
            pids.supervisor,
            pid(pids.helper),
            pid(pids.worker),
            self.worker_restarts
        );
        let _ = match pids.worker {
            None => writeln!(text, "  worker      not started"),
            Some(_) => writeln!(
                text,
                "  worker      seccomp {}, empty network {}, Landlock ABI {}, MDWE {}",
                yes(confinement.seccomp),
                yes(confinement.netns),
                confinement.landlock_abi,
                yes(confinement.mdwe)
            ),
        };
        let dropped = port.described().filter(|(count, _)| count.kind == Kind::Drop);
        let dropped = dropped.map(|(_, number)| number).fold(0, u64::saturating_add);
        let _ = writeln!(
            text,
            "  interface   {}: {} frames ({} bytes) read from it, {} ({} bytes) written to it, {} dropped",
            self.port.interface, port.rx_frames, port.rx_bytes, port.tx_frames, port.tx_bytes, dropped
        );
        if self.port.carrier == Some(false) {
            let _ = writeln!(text, "              no carrier: no path is up");
        }
        drops(port.described(), port_hint, &mut text);
        if self.paths.len() > 1 {
            let _ = writeln!(text, "  policy      {}", self.policy);
        }
        for path in &self.paths {
            let rtt = path.rtt_ms.map_or_else(|| "-".into(), |rtt| format!("{rtt:.2} ms"));
            let jitter = path.jitter_ms.map_or_else(String::new, |jitter| format!(" ± {jitter:.2}"));
            let active = if path.active { ", active" } else { "" };
            let mtu = path.mtu.map_or_else(|| "-".into(), |mtu| mtu.to_string());
            let search = if path.path_mtu_searched { "" } else { " (search in progress)" };
            let found = path.path_mtu.filter(|&found| path.mtu != Some(found.into()));
            let found = found.map_or_else(String::new, |found| format!(", carries {found}{search}"));
            let runs = if path.runs_arrive == Some(false) { ", no runs" } else { "" };
            let (PathStatus { local, remote, .. }, state) = (path, self.path_state(path));
            let _ = writeln!(
                text,
                "  path        {local} to {remote}: {state}{active}, rtt {rtt}{jitter}, MTU {mtu}{found}{runs}"
            );
            if let Some(reason) = &path.reason {
                let _ = writeln!(text, "              {reason}");
            }
            if path.state == PathState::Absent {
                continue;
            }
            if let (Some(to), Some(from)) = (path.loss_to_peer, path.loss_from_peer) {
                let [to, from] = [to, from].map(|loss| f64::from(loss) / 10.0);
                let _ = writeln!(text, "              loss {to:.1} % to the peer, {from:.1} % from it");
            }
            if let (Some(change), Some(age)) = (&path.last_change, path.last_change_ms) {
                let age = duration(Duration::from_millis(age));
                let _ = writeln!(text, "              last change {age} ago: {}", untrusted(change));
            }
            if let Some(age) = path.last_rx_ms {
                let age = duration(Duration::from_millis(age));
                let _ = writeln!(text, "              last datagram received {age} ago");
            }
            let counters = &path.counters;
            let _ = writeln!(
                text,
                "              sent {} datagrams ({} bytes), received {} ({} bytes)",
                counters.tx_datagrams, counters.tx_bytes, counters.rx_datagrams, counters.rx_bytes
            );
            // Messages with a counter of their own have their own line.
            let told = counters.rx_refused.saturating_add(counters.rx_prohibited);
            let others = counters.described().map(|(count, number)| match count.name {
                "rx_errors" => (count, number.saturating_sub(told)),
                _ => (count, number),
            });
            drops(others, |name| self.path_hint(name), &mut text);
        }
        text
    }

    /// Meaning of a drop of a path on this wire, where it is more than the description of the counter.
    fn path_hint(&self, name: &str) -> Option<&'static str> {
        let secure = self.session.is_some();
        Some(match name {
            "rx_dropped_invalid" if secure => "datagrams forged, changed on the path, or replayed",
            "rx_dropped_invalid" => "datagrams could not be decoded: set the same cipher, key and lz4 at both ends",
            "rx_dropped_foreign" if secure => "datagrams from an address that the file or the peer's name excludes",
            "rx_dropped_foreign" => {
                "datagrams from a sender without the password, or from an address that the peer's name does not have"
            }
            "rx_refused" => REFUSED,
            "rx_prohibited" => PROHIBITED,
            "rx_errors" => "other errors of the socket",
            _ => return None,
        })
    }
}

/// As `path_hint`, for a drop of the local side.
fn port_hint(name: &str) -> Option<&'static str> {
    Some(match name {
        "tx_dropped_oversize" => {
            "frames longer than the MTU of the interface: set the MTU of the other end's local side"
        }
        "tx_dropped_direction" => {
            "frames of the peer, but this end writes none: at the receiver of a mirror set `direction = \"receive\"` and \
             a mode other than mirror"
        }
        _ => return None,
    })
}

/// Writes a line for each drop and each explanation that was counted: the number, the name as in the JSON, and its meaning.
fn drops(
    counts: impl Iterator<Item = (&'static Description, u64)>,
    hint: impl Fn(&str) -> Option<&'static str>,
    text: &mut String,
) {
    for (count, number) in counts.filter(|(count, number)| count.kind != Kind::Work && *number > 0) {
        let meaning = hint(count.name).unwrap_or(count.meaning);
        let _ = writeln!(text, "              {number} {}: {meaning}", count.name);
    }
}

/// A duration in its two largest units.
fn duration(time: Duration) -> String {
    let (ms, s) = (time.as_millis(), time.as_secs());
    match s {
        0 => format!("{ms} ms"),
        1..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        3600..86400 => format!("{} h {} min", s / 3600, s / 60 % 60),
        _ => format!("{} d {} h", s / 86400, s / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SessionStatus;

    /// A status in which each counter has a number of its own.
    fn counted() -> Status {
        let status =
            Status { session: Some(SessionStatus::default()), paths: vec![PathStatus::default()], ..Status::default() };
        let mut value = serde_json::to_value(status).unwrap();
        let mut next = 1_000_001_u64;
        for part in ["/port", "/session", "/paths/0"] {
            let fields = value.pointer_mut(part).unwrap().as_object_mut().unwrap();
            for number in fields.values_mut().filter(|value| value.is_u64()) {
                *number = next.into();
                next += 1_000_001;
            }
        }
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn every_drop_is_shown() {
        let mut status = counted();
        let path = &mut status.paths[0].counters;
        path.rx_errors += path.rx_refused + path.rx_prohibited;
        let text = status.text();
        let counters = [
            status.port.counters.described().collect::<Vec<_>>(),
            status.session.as_ref().unwrap().counters.described().collect(),
            status.paths[0].counters.described().collect(),
        ];
        let path = &status.paths[0].counters;
        for (count, number) in counters.iter().flatten().filter(|(count, _)| count.kind != Kind::Work) {
            let told = if count.name == "rx_errors" && *number == path.rx_errors {
                path.rx_refused + path.rx_prohibited
            } else {
                0
            };
            assert!(
                text.contains(&format!("\n              {} {}: ", number - told, count.name)),
                "{}: {text}",
                count.name
            );
        }
        let drops = counters[0].iter().filter(|(count, _)| count.kind == Kind::Drop);
        let sum: u64 = drops.map(|(_, number)| number).sum();
        assert!(text.contains(&format!(" written to it, {sum} dropped\n")), "{sum}: {text}");
    }

    #[test]
    fn counters_of_drops_are_marked_as_drops() {
        let all = [privsep::ipc::PortCounters::ALL, privsep::ipc::PathCounters::ALL, privsep::ipc::SecureCounters::ALL];
        for count in all.into_iter().flatten() {
            let lost = count.name.contains("dropped_") || count.name.ends_with("_errors");
            assert!(!lost || count.kind == Kind::Drop, "{}", count.name);
        }
    }

    #[test]
    fn hints_are_of_counters() {
        let status = Status::default();
        let is_hinted = |hint: &dyn Fn(&str) -> Option<&'static str>, all: &[Description]| {
            all.iter().filter(|count| count.kind != Kind::Work && hint(count.name).is_some()).count()
        };
        assert_eq!(is_hinted(&port_hint, privsep::ipc::PortCounters::ALL), 2);
        assert_eq!(is_hinted(&|name| status.path_hint(name), privsep::ipc::PathCounters::ALL), 5);
    }

    #[test]
    fn missing_confinement_is_named() {
        let nothing = ConfinementStatus { netns: false, landlock_abi: 0, mdwe: false, seccomp: false };
        let all = ["Landlock", "memory-deny-write-execute", "seccomp", "an empty network namespace"];
        assert_eq!(lacks(&nothing, true), all);
        let unit = ConfinementStatus { netns: false, landlock_abi: 6, mdwe: true, seccomp: true };
        assert_eq!(lacks(&unit, false), [""; 0]);
        assert_eq!(lacks(&unit, true), all[3..]);
    }
}
