//! What `ethudp show` shows. The field names are a contract with those who read the JSON.

pub mod ask;
mod text;

use std::time::Duration;

use nix::unistd::Pid;
use privsep::ipc::{Cipher, Confinement, PathCounters, PathHealth, PathReport, PortCounters, SealCounters, State};
use serde::{Deserialize, Serialize};

use crate::log;
use crate::tunnel::{self, Tunnel};

/// Version of the fields (docs/STATUS.md): it grows when one of them changes its meaning or goes, not when one comes.
const SCHEMA: u32 = 1;

/// Everything about one tunnel.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// See [`SCHEMA`].
    #[serde(default)]
    pub schema: u32,
    pub name: String,
    pub mode: String,
    pub wire: String,
    /// The program's.
    #[serde(default)]
    pub version: String,
    pub state: String,
    /// Why the state is not `up`, or what is wrong even so, in a sentence, where more is known than the word says.
    #[serde(default)]
    pub reason: Option<String>,
    /// Seconds since the supervisor has started its first worker.
    #[serde(default)]
    pub uptime_s: u64,
    #[serde(default)]
    pub cipher: String,
    /// What the cipher means for those who can read or change datagrams on their way.
    #[serde(default)]
    pub protection: String,
    #[serde(default)]
    pub lz4: bool,
    /// The last error that was logged.
    #[serde(default)]
    pub last_error: Option<String>,
    pub pids: Pids,
    pub worker_restarts: u64,
    pub confinement: ConfinementStatus,
    pub port: PortStatus,
    #[serde(default)]
    pub seal: SealCounters,
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
    /// Milliseconds since the last datagram came, whoever sent it; none before the first.
    #[serde(default)]
    pub last_rx_ms: Option<u64>,
    /// MTU of the underlay in bytes at the start; none where it cannot be told.
    #[serde(rename = "mtu")]
    pub underlay_mtu: Option<u32>,
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
    pub underlay_mtus: Vec<Option<u32>>,
    pub state: &'a State,
    pub uptime: Duration,
    /// What is wrong with the local side.
    pub local: Option<String>,
    /// What is known of each path besides its report.
    pub seen: Vec<Seen>,
    /// Of frames that go round in a circle.
    pub storm: Option<&'static str>,
}

/// What the supervisor has seen of a path.
#[derive(Debug, Default, Clone, Copy)]
pub struct Seen {
    pub last_rx: Option<Duration>,
    pub mismatch: Option<Mismatch>,
}

/// What the two ends do not agree about, while what comes makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// How frames are coded: cipher, key, lz4.
    Coding,
    /// Who may be the peer.
    Password,
}

impl Mismatch {
    /// In a sentence; frames that are noise may be `written` to the local side.
    pub fn sentence(self, written: bool) -> &'static str {
        match self {
            Self::Password => "whoever sends does not tell our password: is it the same at both ends?",
            Self::Coding if written => {
                "what comes cannot be decoded, or is no frame when it is: are cipher, key and lz4 the same at both ends? \
                 What can be decoded is written to the local side even so, as by EthUDP"
            }
            Self::Coding => {
                "what comes cannot be decoded, or is no frame when it is: are cipher, key and lz4 the same at both ends?"
            }
        }
    }
}

/// Puts a status together.
pub fn collect(facts: Facts<'_>) -> Status {
    let Confinement { landlock_abi, mdwe, seccomp } = facts.confinement;
    let active = usize::from(facts.state.active);
    let reports = facts.state.paths.iter().copied().chain(std::iter::repeat(PathReport::default()));
    let seen = |index| facts.seen.get(index).copied().unwrap_or_default();
    let underlay_mtu = |index| facts.underlay_mtus.get(index).copied().flatten();
    let paths = facts.addresses.into_iter().zip(reports).enumerate().map(|(index, (addresses, report))| PathStatus {
        active: index == active,
        underlay_mtu: underlay_mtu(index),
        ..path(addresses, &report, seen(index))
    });
    let paths: Vec<_> = paths.collect();
    let written = facts.tunnel.rules.receive;
    let (state, reason) = match (facts.worker, facts.helper, paths.get(active)) {
        (None, ..) => ("starting", None),
        (_, None, _) => ("degraded", Some("the helper has ended: a worker that dies cannot be replaced".into())),
        _ if facts.local.is_some() => ("local-down", facts.local),
        // Nobody need answer a mirror.
        _ if facts.tunnel.port.is_mirror() => ("up", facts.storm.map(Into::into)),
        (.., path) => {
            let mismatch = seen(active).mismatch.map(|mismatch| mismatch.sentence(written));
            let reason = mismatch.or(facts.storm).map(Into::into);
            (path.map_or("connecting", |path| path.state.as_str()), reason)
        }
    };
    Status {
        schema: SCHEMA,
        name: facts.tunnel.name.clone(),
        mode: facts.tunnel.port.mode().into(),
        wire: "classic".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        state: state.into(),
        reason,
        uptime_s: facts.uptime.as_secs(),
        cipher: tunnel::cipher_name(facts.tunnel.classic.cipher).into(),
        protection: protection(facts.tunnel.classic.cipher).into(),
        lz4: facts.tunnel.classic.lz4 > 0,
        last_error: log::last_error(),
        pids: Pids {
            supervisor: std::process::id().cast_signed(),
            helper: facts.helper.map(Pid::as_raw),
            worker: facts.worker.map(Pid::as_raw),
        },
        worker_restarts: facts.restarts,
        confinement: ConfinementStatus { netns: facts.in_empty_network, landlock_abi, mdwe, seccomp },
        port: PortStatus { interface: facts.interface.into(), counters: facts.state.port },
        seal: facts.state.seal,
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
        underlay_mtus: Vec::new(),
        state: &State::default(),
        uptime: Duration::ZERO,
        local: None,
        seen: Vec::new(),
        storm: None,
    });
    Status { state: if waits { "connecting" } else { "starting" }.into(), ..status }
}

fn path((local, remote): (String, String), report: &PathReport, seen: Seen) -> PathStatus {
    let PathReport { health: state, rtt_us, counters, .. } = *report;
    #[allow(clippy::cast_precision_loss)] // Exact for any time below 285 years.
    let rtt_ms = (rtt_us > 0).then_some(rtt_us as f64 / 1000.0);
    let PathCounters { tx_errors, tx_dropped_oversize, rx_errors, rx_dropped_invalid, rx_dropped_oversize, .. } =
        counters;
    PathStatus {
        local,
        remote,
        state: seen.mismatch.map_or(health(state), |_| "mismatch").into(),
        active: false,
        rtt_ms,
        last_rx_ms: seen.last_rx.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        underlay_mtu: None,
        counters,
        errors: [tx_errors, tx_dropped_oversize, rx_errors, rx_dropped_invalid, rx_dropped_oversize]
            .into_iter()
            .fold(0, u64::saturating_add),
    }
}

/// What a cipher of the classic wire means.
fn protection(cipher: Cipher) -> &'static str {
    match cipher {
        Cipher::None => "clear",
        Cipher::Xor => "obfuscated, not encrypted",
        Cipher::Aes128 | Cipher::Aes192 | Cipher::Aes256 => "encrypted, not authenticated",
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
    /// The exit status of `ethudp show NAME`: 0 is up, 3 not or no longer up, 4 up only in part or wrongly set up.
    pub fn exit_status(&self) -> u8 {
        match self.state.as_str() {
            "up" => 0,
            "starting" | "connecting" | "down" => 3,
            _ => 4,
        }
    }

    /// As one line of JSON.
    pub fn json(&self) -> String {
        // Plain structs of numbers and text always have a JSON form.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    /// A status of two paths in which nothing is missing.
    fn status() -> Status {
        let file = "mode = \"tap\"\nwire = \"classic\"\n[[path]]\nlocal = \"192.0.2.1:1\"\nremote = \"any\"\n";
        let tunnel = crate::tunnel::file::from_text(file, "a", std::path::Path::new("")).unwrap();
        before_start(&tunnel, false)
    }

    fn names(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(name, value)| {
                found.insert(name.clone());
                names(value, found);
            }),
            Value::Array(all) => all.iter().for_each(|value| names(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_field_is_in_the_document_and_no_other() {
        let text = include_str!("../../docs/STATUS.md");
        let told: BTreeSet<String> = text
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
            .map(|(name, _)| name.rsplit('.').next().unwrap_or(name).to_owned())
            .collect();
        let mut found = BTreeSet::new();
        names(&serde_json::to_value(status()).unwrap(), &mut found);
        assert_eq!(told, found);
    }

    #[test]
    fn what_another_version_says_more_or_less_can_be_read() {
        let mut value = serde_json::to_value(status()).unwrap();
        let fields = value.as_object_mut().unwrap();
        fields.insert("of_tomorrow".into(), 7.into());
        for name in ["schema", "seal", "reason", "uptime_s", "version"] {
            fields.remove(name);
        }
        let port = fields["port"].as_object_mut().unwrap();
        port.remove("rx_broadcast");
        port.insert("rx_of_tomorrow".into(), 7.into());
        let read: Status = serde_json::from_value(value).unwrap();
        assert_eq!((read.schema, read.port.counters.rx_broadcast), (0, 0));
    }
}
