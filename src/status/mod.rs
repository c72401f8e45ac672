//! What `ethudp show` shows. The field names are a contract with those who read the JSON.

pub mod ask;
mod collect;
mod text;
pub mod words;

use privsep::ipc::{PathCounters, PortCounters, SealCounters, SecureCounters};
use serde::{Deserialize, Serialize};

pub use collect::{Facts, Seen, before_start, collect};
pub use words::{Mismatch, cipher_of, health, lacks, lost_size_sentence, trouble_sentence};

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
    /// Of the secure wire.
    #[serde(default)]
    pub session: Option<SessionStatus>,
    pub paths: Vec<PathStatus>,
}

/// The session of the secure wire, and what it is made of.
#[derive(Debug, Serialize, Deserialize)]
pub struct SessionStatus {
    /// There is a current one.
    pub established: bool,
    /// Seconds since its keys were made.
    pub age_s: Option<u64>,
    /// This end has begun it.
    pub began_here: Option<bool>,
    /// Its cipher.
    pub cipher: Option<String>,
    pub handshake: String,
    pub kem: String,
    /// A pre-shared key is in it, too.
    pub psk: bool,
    /// The public keys in base64, and the fingerprint of both.
    pub public_key: String,
    pub peer_public_key: String,
    pub fingerprint: String,
    /// What keeps one from coming about, in a word.
    pub trouble: Option<String>,
    #[serde(flatten)]
    pub counters: SecureCounters,
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
    /// Why it is absent, or what keeps it from working, where that is known.
    #[serde(default)]
    pub reason: Option<String>,
    pub active: bool,
    /// Milliseconds from PING to PONG; none before the first.
    pub rtt_ms: Option<f64>,
    /// Milliseconds since the last datagram came, whoever sent it; none before the first.
    #[serde(default)]
    pub last_rx_ms: Option<u64>,
    /// MTU of the underlay in bytes at the start; none where it cannot be told.
    #[serde(rename = "mtu")]
    pub underlay_mtu: Option<u32>,
    /// Length in bytes of the longest datagrams, where they do not arrive at the peer and small ones do.
    #[serde(default)]
    pub lost_size: Option<u16>,
    #[serde(flatten)]
    pub counters: PathCounters,
    /// Sum of everything that went wrong on this path.
    pub errors: u64,
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

    /// A status in which nothing is missing.
    fn status() -> Status {
        before_start(&crate::tunnel::example::secure(""), None)
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
        for name in ["schema", "seal", "session", "reason", "uptime_s", "version"] {
            fields.remove(name);
        }
        let port = fields["port"].as_object_mut().unwrap();
        port.remove("rx_broadcast");
        port.insert("rx_of_tomorrow".into(), 7.into());
        let read: Status = serde_json::from_value(value).unwrap();
        assert_eq!((read.schema, read.port.counters.rx_broadcast), (0, 0));
    }
}
