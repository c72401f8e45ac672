//! What supervisor and worker say to each other.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Address, Message};
mod secret;

pub use secret::Secret;

/// Which cipher the classic wire uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cipher {
    /// Clear text.
    #[default]
    None,
    /// Repeated XOR with the key.
    Xor,
    /// AES-128-CBC.
    Aes128,
    /// AES-192-CBC.
    Aes192,
    /// AES-256-CBC.
    Aes256,
}

/// Which kind of handle the local side is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortKind {
    /// A TAP interface.
    #[default]
    Tap,
    /// A packet socket.
    Raw,
    /// A packet socket that is only read.
    Mirror {
        /// Only the payload of UDP datagrams is sent.
        udp: bool,
    },
}

/// Everything a worker is told.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct WorkerConfig {
    /// Kind of the local handle.
    pub port: PortKind,
    /// Cipher of the classic wire.
    pub cipher: Cipher,
    /// Its key as the user gave it, before padding or cutting; empty for [`Cipher::None`].
    pub key: Secret,
    /// Whether datagrams are LZ4 blocks with a trailer.
    pub compress: bool,
    /// Datagrams that are larger than this less 28 bytes leave as two fragments; `None` neither splits nor joins.
    pub fragment_mtu: Option<u16>,
    /// The password of the classic wire; empty without one.
    pub password: Secret,
    /// The remote of each path.
    pub remotes: Vec<Remote>,
    /// What is done to frames.
    pub rules: Rules,
    /// Whether PING and password are sent unasked.
    pub keepalive: bool,
    /// What waits already has waited too long, and is not delivered any more.
    pub drain: bool,
    /// Ticks after which the worker ends.
    pub exit_after: Option<u64>,
    /// Where the worker before this one had come to.
    pub state: State,
}

/// Whom a path talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Remote {
    /// The socket is connected to this address.
    Fixed(Address),
    /// The address is learned, within these limits.
    Learned {
        /// Only this address.
        address: Option<IpAddr>,
        /// Only this port.
        port: Option<u16>,
    },
}

/// What is done to frames on their way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Frames are taken from the port and sent.
    pub send: bool,
    /// Frames that are received are given to the port.
    pub receive: bool,
    /// Our own tunnel's datagrams are not sent into it.
    pub loop_check: bool,
    /// Upper limit of the MSS in TCP SYNs over IPv4, and over IPv6.
    pub mss: Option<(u16, u16)>,
    /// Local and remote VLAN id.
    pub vlan_map: Vec<(u16, u16)>,
}

/// What survives a worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Ticks passed, about one a second.
    pub tick: u64,
    /// Number of the path that frames leave by.
    pub active: u8,
    /// Sequence number of the next fragment.
    pub fragment: u16,
    /// The local side.
    pub port: PortCounters,
    /// What compression and encryption did to the size of frames.
    pub seal: SealCounters,
    /// Each path.
    pub paths: Vec<PathReport>,
}

impl State {
    /// Sets counts back to zero.
    pub fn reset(&mut self, counts: Counts) {
        let Self { port, seal, paths, .. } = self;
        let each = paths.iter_mut().map(|path| &mut path.counters);
        match counts {
            Counts::Traffic => {
                (port.rx_frames, port.rx_bytes, port.tx_frames, port.tx_bytes) = (0, 0, 0, 0);
                *seal = SealCounters::default();
                each.for_each(|c| (c.tx_datagrams, c.tx_bytes, c.rx_datagrams, c.rx_bytes) = (0, 0, 0, 0));
            }
            Counts::Pings => {
                each.for_each(|c| (c.pings_sent, c.pings_received, c.pongs_sent, c.pongs_received) = (0, 0, 0, 0));
            }
        }
    }
}

/// What compression and encryption did to the size of frames, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct SealCounters {
    pub bytes: u64,
    pub compress_saved: u64,
    pub compress_overhead: u64,
    pub encrypt_overhead: u64,
}

/// Counts of the local side; rx is what was taken from it, tx what was given to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct PortCounters {
    pub rx_frames: u64,
    pub rx_bytes: u64,
    pub rx_dropped_oversize: u64,
    pub rx_dropped_kernel: u64,
    pub rx_dropped_loop: u64,
    pub rx_dropped_stale: u64,
    pub rx_errors: u64,
    pub tx_frames: u64,
    pub tx_bytes: u64,
    pub tx_dropped_short: u64,
    /// Longer than the interface takes.
    pub tx_dropped_oversize: u64,
    pub tx_errors: u64,
}

/// Counts of one path in datagrams and bytes of UDP payload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct PathCounters {
    pub tx_datagrams: u64,
    pub tx_bytes: u64,
    pub tx_errors: u64,
    pub rx_datagrams: u64,
    pub rx_bytes: u64,
    pub rx_dropped_oversize: u64,
    pub rx_dropped_invalid: u64,
    pub rx_dropped_foreign: u64,
    pub rx_dropped_stale: u64,
    pub tx_dropped_unfragmentable: u64,
    /// Longer than can be sent, even in fragments.
    pub tx_dropped_oversize: u64,
    pub tx_dropped_unlearned: u64,
    pub rx_errors: u64,
    /// Decoded, and given to the port where they are long enough, but nothing that an Ethernet carries.
    pub rx_implausible: u64,
    pub pings_sent: u64,
    pub pings_received: u64,
    pub pongs_sent: u64,
    pub pongs_received: u64,
}

/// Health of a path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathHealth {
    /// The peer has not answered yet.
    #[default]
    Connecting,
    /// The peer answers.
    Up,
    /// The peer has answered once, and no longer does.
    Down,
}

/// What a worker says of one path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathReport {
    /// Health at the last tick.
    pub health: PathHealth,
    /// The learned address.
    pub learned: Option<Address>,
    /// Tick in which the last PONG came.
    pub last_pong: u64,
    /// Microseconds from the last PING to the last PONG; 0 before the first.
    pub rtt_us: u64,
    /// Milliseconds since the last datagram came to this worker.
    pub last_rx_ms: Option<u64>,
    /// Counts.
    pub counters: PathCounters,
}

/// Supervisor to worker.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToWorker {
    /// First message: [`crate::PROTOCOL`] and everything the worker is told.
    Start(u32, Box<WorkerConfig>),
    /// Are all forwarding threads alive? Answered by [`FromWorker::Alive`] with the same number.
    Heartbeat(u64),
    /// Answered by [`FromWorker::Report`] at once.
    Report,
    /// Set counts back to zero.
    Reset(Counts),
    /// Instead of [`ToWorker::Start`]: measure cipher and compression of this configuration with frames of these sizes.
    Benchmark(u32, Box<WorkerConfig>, Vec<u16>),
}

impl Message for ToWorker {
    /// A key, a password, and a pair for each VLAN id, 6 bytes at most.
    const MAX: usize = 2 * 2048 + 4096 * 6 + 4096;
}

/// Time to seal and open a frame of one size.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct BenchmarkResult {
    /// Size of the frame in bytes.
    pub frame: u32,
    /// Size of the datagram that it becomes.
    pub datagram: u32,
    /// Nanoseconds to seal one.
    pub seal_ns: f64,
    /// Nanoseconds to open one.
    pub open_ns: f64,
}

/// Which counts are set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Counts {
    /// Frames, datagrams and bytes.
    Traffic,
    /// PINGs and PONGs.
    Pings,
}

/// What confinement a worker has reached; what the kernel lacks is reported, not fatal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Landlock ABI in force; 0 without Landlock.
    pub landlock_abi: u32,
    /// Memory-deny-write-execute.
    pub mdwe: bool,
    /// The seccomp allow-list; always true for a worker that is sealed.
    pub seccomp: bool,
}

/// Worker to supervisor. The supervisor takes all of it as hostile.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromWorker {
    /// Confined, and all loops run.
    Sealed(Confinement),
    /// Every forwarding thread has passed its loop since the heartbeat of this number.
    Alive(u64),
    /// Counters and health.
    Report(State),
    /// Health of a path has changed.
    Health(u8, PathHealth),
    /// Frames now leave by this path.
    Active(u8),
    /// The address of a path has been learned, or has moved.
    Learned(u8, Address),
    /// The ticks that the worker was to run are over.
    Finished,
    /// What was measured.
    Benchmark(Vec<BenchmarkResult>),
    /// Last words: place and message of a panic or a fatal error.
    Dying(String),
}

impl Message for FromWorker {
    const MAX: usize = 2048;
}
