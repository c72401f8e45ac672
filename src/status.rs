//! What `ethudp show` shows. The field names are a contract with those who read the JSON.

use std::io::Write as _;
use std::os::unix::net::UnixStream;

use nix::unistd::Pid;
use privsep::ipc::{Confinement, PathCounters, PathHealth, PathReport, PortCounters, State};
use serde::{Deserialize, Serialize};

use crate::tunnel::Tunnel;

/// Everything about one tunnel.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    pub name: String,
    pub mode: String,
    pub wire: String,
    pub state: String,
    pub pids: Pids,
    pub worker_restarts: u64,
    pub confinement: ConfinementStatus,
    pub port: PortStatus,
    pub paths: Vec<PathStatus>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Pids {
    pub supervisor: i32,
    pub helper: Option<i32>,
    pub worker: Option<i32>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ConfinementStatus {
    pub netns: bool,
    pub landlock_abi: u32,
    pub mdwe: bool,
    pub seccomp: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct PortStatus {
    pub interface: String,
    #[serde(flatten)]
    pub counters: PortCounters,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct PathStatus {
    pub local: String,
    pub remote: String,
    pub state: String,
    pub active: bool,
    /// Milliseconds from PING to PONG; none before the first.
    pub rtt_ms: Option<f64>,
    /// MTU of the underlay in bytes at the start; none where it cannot be told.
    pub mtu: Option<u32>,
    #[serde(flatten)]
    pub counters: PathCounters,
    /// Sum of everything that went wrong on this path.
    pub errors: u64,
}

/// What a status is made from.
pub struct Facts<'a> {
    pub tunnel: &'a Tunnel,
    pub interface: &'a str,
    pub helper: Option<Pid>,
    pub worker: Option<Pid>,
    pub restarts: u64,
    pub confinement: Confinement,
    pub in_empty_network: bool,
    /// Local and remote address of each path.
    pub addresses: Vec<(String, String)>,
    /// MTU of each path's underlay.
    pub mtus: &'a [Option<u32>],
    pub state: &'a State,
}

/// Puts a status together.
pub fn collect(facts: Facts<'_>) -> Status {
    let Confinement { landlock_abi, mdwe, seccomp } = facts.confinement;
    let active = usize::from(facts.state.active);
    let reports = facts.state.paths.iter().copied().chain(std::iter::repeat(PathReport::default()));
    let paths = facts.addresses.into_iter().zip(reports).enumerate();
    let mtu = |index| facts.mtus.get(index).copied().flatten();
    let paths = paths.map(|(index, (addresses, report))| path(index == active, addresses, mtu(index), &report));
    let paths: Vec<_> = paths.collect();
    let state = match (facts.worker, facts.helper, paths.get(active)) {
        (None, ..) => "starting",
        (_, None, _) => "degraded",
        // Nobody need answer a mirror.
        _ if facts.tunnel.port.is_mirror() => "up",
        (.., path) => path.map_or("connecting", |path| path.state.as_str()),
    };
    Status {
        name: facts.tunnel.name.clone(),
        mode: facts.tunnel.port.mode().into(),
        wire: "classic".into(),
        state: state.into(),
        pids: Pids {
            supervisor: std::process::id().cast_signed(),
            helper: facts.helper.map(Pid::as_raw),
            worker: facts.worker.map(Pid::as_raw),
        },
        worker_restarts: facts.restarts,
        confinement: ConfinementStatus { netns: facts.in_empty_network, landlock_abi, mdwe, seccomp },
        port: PortStatus { interface: facts.interface.into(), counters: facts.state.port },
        paths,
    }
}

/// The status of a tunnel that looks up the names of its paths, or waits because one does not resolve.
pub fn before_start(tunnel: &Tunnel, waits: bool) -> Status {
    let addresses = tunnel.paths.iter().map(|path| (path.local.to_string(), path.remote.to_string())).collect();
    let status = collect(Facts {
        tunnel,
        interface: "",
        helper: None,
        worker: None,
        restarts: 0,
        confinement: Confinement::default(),
        in_empty_network: false,
        addresses,
        mtus: &[],
        state: &State::default(),
    });
    Status { state: if waits { "connecting" } else { "starting" }.into(), ..status }
}

/// Sends a status to somebody who has asked. Who does not take it at once does not get it.
pub fn send(mut stream: UnixStream, status: &Status) {
    let _ = stream.set_nonblocking(true);
    let _ = stream.write_all(status.json().as_bytes());
}

fn path(active: bool, (local, remote): (String, String), mtu: Option<u32>, report: &PathReport) -> PathStatus {
    let PathReport { health: state, rtt_us, counters, .. } = *report;
    #[allow(clippy::cast_precision_loss)] // Exact for any time below 285 years.
    let rtt_ms = (rtt_us > 0).then_some(rtt_us as f64 / 1000.0);
    let PathCounters { tx_errors, rx_errors, rx_dropped_invalid, rx_dropped_oversize, .. } = counters;
    PathStatus {
        local,
        remote,
        state: health(state).into(),
        active,
        rtt_ms,
        mtu,
        counters,
        errors: [tx_errors, rx_errors, rx_dropped_invalid, rx_dropped_oversize]
            .into_iter()
            .fold(0, u64::saturating_add),
    }
}

/// What of a worker's confinement could not be had. A network namespace can be expected only `by_root`.
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

/// The word for a path's health.
pub fn health(health: PathHealth) -> &'static str {
    match health {
        PathHealth::Connecting => "connecting",
        PathHealth::Up => "up",
        PathHealth::Down => "down",
    }
}

impl Status {
    /// A path's state in words: nobody need answer a mirror, so that it does not connect.
    fn path_state<'a>(&self, path: &'a PathStatus) -> &'a str {
        let silent = self.mode.starts_with("mirror") && path.state == health(PathHealth::Connecting);
        if silent { "one-way" } else { &path.state }
    }

    /// As one line of JSON.
    pub fn json(&self) -> String {
        // Plain structs of numbers and text always have a JSON form.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// As a line for the service manager: state, peer, path, what the kernel lacks.
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
        let lacks = if lacks.is_empty() { String::new() } else { format!("; not to be had: {}", lacks.join(", ")) };
        format!("{}{path}{lacks}", self.state)
    }

    /// As text for people.
    pub fn text(&self) -> String {
        use std::fmt::Write;
        let mut text = String::new();
        let (port, pids, confinement) = (&self.port.counters, &self.pids, &self.confinement);
        let pid = |pid: Option<i32>| pid.map_or_else(|| "-".into(), |pid| pid.to_string());
        let yes = |value| if value { "yes" } else { "no" };
        let _ = writeln!(text, "{}: {} ({}, wire {})", self.name, self.state, self.mode, self.wire);
        let plural = if self.worker_restarts == 1 { "" } else { "s" };
        let _ = writeln!(
            text,
            "  processes   supervisor {}, helper {}, worker {}, {} worker restart{plural}",
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
        let drops = [
            port.rx_dropped_oversize, port.rx_dropped_kernel, port.rx_dropped_stale, port.rx_errors,
            port.tx_dropped_short, port.tx_errors,
        ];
        let dropped = drops.into_iter().fold(0, u64::saturating_add);
        let _ = writeln!(
            text,
            "  {:<11} taken {} frames ({} bytes), given {} frames ({} bytes), dropped {}",
            self.port.interface, port.rx_frames, port.rx_bytes, port.tx_frames, port.tx_bytes, dropped
        );
        for path in &self.paths {
            let rtt = path.rtt_ms.map_or_else(|| "-".into(), |rtt| format!("{rtt:.2} ms"));
            let active = if path.active { ", active" } else { "" };
            let mtu = path.mtu.map_or_else(|| "-".into(), |mtu| mtu.to_string());
            let (PathStatus { local, remote, .. }, state) = (path, self.path_state(path));
            let _ = writeln!(text, "  path        {local} to {remote}: {state}{active}, rtt {rtt}, MTU {mtu}");
            let counters = &path.counters;
            let _ = writeln!(
                text,
                "              sent {} datagrams ({} bytes), received {} ({} bytes)",
                counters.tx_datagrams, counters.tx_bytes, counters.rx_datagrams, counters.rx_bytes
            );
            for (count, what) in [
                (counters.rx_dropped_invalid, "could not be decoded: is cipher, key or lz4 of the two ends the same?"),
                (counters.rx_dropped_foreign, "came from somebody who has not told the password"),
                (counters.rx_dropped_oversize, "were longer than any that we send"),
                (counters.rx_dropped_stale, "were too late"),
                (counters.rx_errors, "error messages came back, as when nobody listens there"),
                (counters.tx_errors, "could not be sent"),
                (counters.tx_dropped_unfragmentable, "were too long for two fragments"),
                (counters.tx_dropped_unlearned, "had nobody to go to: the peer's address is not known yet"),
            ] {
                if count > 0 {
                    let _ = writeln!(text, "              {count} {what}");
                }
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text for a tunnel whose worker is not there, or is, and has been started again so many times.
    fn text(mode: &str, local_side: &str, worker: Option<i32>, restarts: u64) -> String {
        let file = format!(
            "mode = {mode:?}\nwire = \"classic\"\n[[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"192.0.2.2:6000\"\n\
             {local_side}\n"
        );
        let tunnel = crate::config::from_text(&file, "a", std::path::Path::new("")).unwrap();
        let mut status = before_start(&tunnel, false);
        (status.pids.worker, status.worker_restarts) = (worker, restarts);
        assert_eq!(status.paths[0].state, "connecting");
        status.text()
    }

    #[test]
    fn the_text_says_what_is_not_there_and_how_a_mirror_is() {
        let tap = text("tap", "", None, 0);
        assert!(tap.contains("worker -, 0 worker restarts\n  worker      not started\n"), "{tap}");
        assert!(tap.contains("192.0.2.2:6000: connecting, active"), "{tap}");
        for mode in ["mirror", "mirror-udp"] {
            let mirror = text(mode, "[mirror]\ninterface = \"eth1\"", Some(7), 1);
            assert!(mirror.contains("worker 7, 1 worker restart\n  worker      seccomp no"), "{mirror}");
            assert!(mirror.contains("192.0.2.2:6000: one-way, active"), "{mirror}");
        }
    }

    #[test]
    fn what_is_lacking_is_named() {
        let nothing = ConfinementStatus { netns: false, landlock_abi: 0, mdwe: false, seccomp: false };
        let all = ["Landlock", "memory-deny-write-execute", "seccomp", "an empty network namespace"];
        assert_eq!(lacks(&nothing, true), all);
        let unit = ConfinementStatus { netns: false, landlock_abi: 6, mdwe: true, seccomp: true };
        assert_eq!(lacks(&unit, false), [""; 0]);
        assert_eq!(lacks(&unit, true), all[3..]);
    }
}
