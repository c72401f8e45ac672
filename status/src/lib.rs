//! Status of a tunnel, as `ethudp show` prints it and `ethudp show --json` hands it to other programs.
//!
//! [`Status`] has the fields, which are a contract with the readers of the JSON; `docs/STATUS.md` lists them. [`ask`] asks running
//! tunnels for their status. [`Status::text`], [`Status::line`] and [`Status::words`] format one for people. The [`Description`] of a
//! counter tells whether it counts drops.

pub mod ask;
mod state;
mod terminal;
mod text;

use privsep::ipc::{PathCounters, PortCounters, SealCounters, SecureCounters};
use serde::{Deserialize, Serialize};

pub use privsep::ipc::{Description, Kind};
pub use state::{PathState, State};
pub use terminal::{is_unseen, untrusted};
pub use text::{PROHIBITED, REFUSED, lacks};

/// Version of the fields.
pub const SCHEMA: u32 = 1;
/// User of the tunnels that root starts.
pub const USER: &str = "ethudp";

/// Structs of fields with their descriptions, which `docs/STATUS.md` repeats.
macro_rules! fields {
    ($($(#[doc = $doc:literal])* $name:ident {
        $($(#[doc = $text:literal])* $(#[serde($serde:ident)])? $field:ident: $type:ty,)*
    })*) => {$(
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Default, Serialize, Deserialize)]
        pub struct $name { $($(#[doc = $text])* $(#[serde($serde)])? pub $field: $type,)* }

        impl $name {
            /// Name of each field, and the lines of its description.
            pub const FIELDS: &[(&str, &[&str])] = &[$((stringify!($field), &[$($text),*])),*];
        }
    )*};
}

fields! {
    /// Everything about one tunnel.
    Status {
        /// Version of these fields, 1; 0 or missing before there was one.
        #[serde(default)]
        schema: u32,
        /// Name of the tunnel.
        name: String,
        /// `raw`, `tap`, `bridge`, `mirror` or `mirror-udp`.
        mode: String,
        /// `classic` or `secure`.
        wire: String,
        /// Version of the program.
        #[serde(default)]
        version: String,
        /// `starting`, `connecting`, `up`, `mismatch`, `down`, `local-down`, `blocked` or `degraded`: [what to
        /// check](OPERATING.md#states-and-what-to-check).
        state: State,
        /// Reason of the state in a sentence, where more is known than the state tells, or a fault of a tunnel that is `up`. `connecting`
        /// and `down` have a reason after three seconds; the log has it after ten.
        #[serde(default)]
        reason: Option<String>,
        /// Seconds since the first worker was started.
        #[serde(default)]
        uptime_s: u64,
        /// `none`, `xor`, `aes-128`, `aes-192`, `aes-256` or `aes-256-ethudp-2023` (AES-192); on the secure wire the cipher of the session,
        /// empty before the first session.
        #[serde(default)]
        cipher: String,
        /// Protection of datagrams by the cipher against readers and attackers.
        #[serde(default)]
        protection: String,
        /// Whether frames are compressed.
        #[serde(default)]
        lz4: bool,
        /// `failover`, `duplicate` or `balance`: use of several paths by the frames that leave.
        #[serde(default)]
        policy: String,
        /// Last error in the log.
        #[serde(default)]
        last_error: Option<String>,
        /// Process IDs.
        pids: Pids,
        /// Workers that were replaced.
        worker_restarts: u64,
        /// Confinement that the worker has reached.
        confinement: ConfinementStatus,
        /// The local side.
        port: PortStatus,
        /// Effect of compression and encryption on the size of frames.
        #[serde(default)]
        seal: SealCounters,
        /// Session of the secure wire.
        #[serde(default)]
        session: Option<SessionStatus>,
        /// Paths to the peer.
        paths: Vec<PathStatus>,
    }

    /// Process IDs.
    Pids {
        /// The supervisor.
        supervisor: i32,
        /// The helper; null once it has ended.
        helper: Option<i32>,
        /// The resolver; null without a peer that has a name, and once it has ended.
        #[serde(default)]
        resolver: Option<i32>,
        /// The worker; null while none forwards.
        worker: Option<i32>,
    }

    /// Confinement that the worker has reached.
    ConfinementStatus {
        /// Whether the worker is in an empty network namespace.
        netns: bool,
        /// Version of Landlock in force, 0 for none.
        landlock_abi: u32,
        /// Whether memory cannot be made executable.
        mdwe: bool,
        /// Whether the worker's table of system calls is in force.
        seccomp: bool,
    }

    /// The local side.
    PortStatus {
        /// Present name of the interface, as `ip link` prints it.
        interface: String,
        /// Whether the interface has a carrier, if the carrier [follows the paths](FILE.md#carrier); otherwise null.
        #[serde(default)]
        carrier: Option<bool>,
        /// See [`PortCounters::ALL`].
        #[serde(flatten)]
        counters: PortCounters,
    }

    /// Session of the secure wire, and its keys.
    SessionStatus {
        /// Whether there is a current session.
        established: bool,
        /// Seconds since the keys of the session were made; new keys follow every two minutes.
        age_s: Option<u64>,
        /// Whether this end began the session.
        began_here: Option<bool>,
        /// `aes-256-gcm` or `chacha20-poly1305`; null without a session.
        cipher: Option<String>,
        /// Noise protocol of the handshake.
        handshake: String,
        /// Key encapsulation that protects the session against a quantum computer.
        kem: String,
        /// Whether this end has a pre-shared key.
        psk: bool,
        /// Public key of this end in base64.
        public_key: String,
        /// Public key of the peer in base64, as the file has it.
        peer_public_key: String,
        /// Fingerprint of both public keys, ten groups of five digits. If the two ends differ, an attacker is between them.
        fingerprint: String,
        /// Fault that prevents a session: `other-peer-key`, `our-key-unknown`, `psk`, `clock`, `stolen-key`, `late`, `version` or `draft`;
        /// `reason` has it in a sentence.
        trouble: Option<String>,
        /// See [`SecureCounters::ALL`].
        #[serde(flatten)]
        counters: SecureCounters,
    }

    /// Path to the peer.
    PathStatus {
        /// Address and port of this end.
        local: String,
        /// Address and port of the peer, the learned address where it is learned.
        remote: String,
        /// `connecting`, `up`, `down`, `mismatch` or `absent`. An absent path lacks an address, a route or a device, and is [opened
        /// later](FILE.md#late-paths); its counters are 0.
        state: PathState,
        /// Reason why the path is absent or cannot work, or null.
        #[serde(default)]
        reason: Option<String>,
        /// Whether frames leave by this path.
        active: bool,
        /// Round trip time in milliseconds: smoothed on the secure wire, of the last ping on the classic wire; null before the first pong.
        rtt_ms: Option<f64>,
        /// Mean deviation of the round trip time in milliseconds; null before the first pong, and on the classic wire.
        #[serde(default)]
        jitter_ms: Option<f64>,
        /// Datagrams in a thousand that are lost on the way to the peer; null while it is not known, and on the classic wire.
        #[serde(default)]
        loss_to_peer: Option<u16>,
        /// Datagrams in a thousand that are lost on the way from the peer; null while it is not known, and on the classic wire.
        #[serde(default)]
        loss_from_peer: Option<u16>,
        /// Last change of the path: `answers` (the peer answers, for the first time or again), `silent` (it does not), `loss` (more than 30 %
        /// on the way to the peer), `delay` (a round trip of more than 1 s), or `good` (after a failure, good for the hold time). Null before
        /// the first change that the worker has seen, and on the classic wire.
        #[serde(default)]
        last_change: Option<String>,
        /// Milliseconds since the last change.
        #[serde(default)]
        last_change_ms: Option<u64>,
        /// Milliseconds since the last datagram; null before the first. The classic wire counts any sender, the secure wire only the peer.
        #[serde(default)]
        last_rx_ms: Option<u64>,
        /// MTU of the underlay in bytes at the start, by interface and routing table; null where it is not known.
        mtu: Option<u32>,
        /// Length in bytes of the longest IP packets that the tunnel sends by the path, as found by probes. Only on the secure wire.
        #[serde(default)]
        path_mtu: Option<u16>,
        /// Whether the search for `path_mtu` is over.
        #[serde(default)]
        path_mtu_searched: bool,
        /// Length in bytes of the longest datagrams, where these do not arrive at the peer and small ones do; null while they arrive, and
        /// while it is not known. Only where the file names the length, and where a path loses packets of 1280 bytes.
        #[serde(default)]
        lost_size: Option<u16>,
        /// Whether runs of datagrams (`UDP_SEGMENT`) arrive at the peer. Where they do not, and single datagrams do, datagrams leave singly.
        /// Null while it is not known, and where the file or the classic wire checks no runs.
        #[serde(default)]
        runs_arrive: Option<bool>,
        /// See [`PathCounters::ALL`].
        #[serde(flatten)]
        counters: PathCounters,
        /// Sum of `tx_errors`, `tx_dropped_oversize`, `rx_errors`, `rx_dropped_invalid` and `rx_dropped_oversize`.
        errors: u64,
    }
}

impl Status {
    /// The exit status of `ethudp show NAME`: 0 is up, 3 not or no longer up, 4 up only in part or wrongly set up.
    pub fn exit_status(&self) -> u8 {
        match self.state {
            State::Up => 0,
            State::Starting | State::Connecting | State::Down => 3,
            State::Mismatch | State::LocalDown | State::Blocked | State::Degraded | State::Unknown => 4,
        }
    }

    /// As one line of JSON.
    pub fn json(&self) -> String {
        // Plain structs of numbers and text always have a JSON form.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }
}
