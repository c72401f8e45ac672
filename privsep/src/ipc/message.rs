//! Every message between the processes.

use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};

use serde::{Deserialize, Serialize};

use super::Message;
use crate::secret::Secret;

/// Paths of a tunnel: master and slave.
pub const MAX_PATHS: usize = 2;

/// A socket address. Unlike the standard library's own encoding, this one keeps the scope of a link-local address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(IpAddr, u16, u32)", into = "(IpAddr, u16, u32)")]
pub struct Address(pub SocketAddr);

impl From<(IpAddr, u16, u32)> for Address {
    fn from((ip, port, scope): (IpAddr, u16, u32)) -> Self {
        match ip {
            IpAddr::V4(ip) => Self(SocketAddrV4::new(ip, port).into()),
            IpAddr::V6(ip) => Self(SocketAddrV6::new(ip, port, 0, scope).into()),
        }
    }
}

impl From<Address> for (IpAddr, u16, u32) {
    fn from(Address(address): Address) -> Self {
        let scope = if let SocketAddr::V6(address) = address { address.scope_id() } else { 0 };
        (address.ip(), address.port(), scope)
    }
}

/// Numeric user and group that a process becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// User id, never 0.
    pub uid: u32,
    /// Group id, never 0.
    pub gid: u32,
}

/// The exact list of handles that a tunnel will ever need. Sent once, frozen from then on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Whom to become after opening; `None` when the start was without root already.
    pub become_user: Option<Identity>,
    /// The local side.
    pub port: PortPlan,
    /// The remote side, the preferred path first; 1 to [`MAX_PATHS`].
    pub paths: Vec<PathPlan>,
    /// The plan comes with the queue of a TAP that a run before this one has made.
    pub stored: bool,
    /// The supervisor gets a copy of the TAP's queue, for the service manager to keep.
    pub store: bool,
}

/// The handle of the local side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortPlan {
    /// A TAP interface, created by the helper.
    Tap {
        /// Interface name; `None` lets the kernel choose `tapN`.
        name: Option<String>,
        /// Addresses with prefix length in bits.
        addresses: Vec<(IpAddr, u8)>,
        /// The bridge that the interface joins.
        bridge: Option<String>,
        /// Interface MTU in bytes; `None` leaves the kernel's 1500.
        mtu: Option<u32>,
    },
    /// A packet socket on an interface that exists.
    Raw {
        /// Interface name.
        interface: String,
        /// Whether frames for other stations are taken, too.
        promiscuous: bool,
    },
    /// A packet socket that only reads what a filter selects.
    Mirror {
        /// Interface name.
        interface: String,
        /// Classic BPF program; empty lets everything pass.
        filter: Vec<BpfInstruction>,
    },
}

/// An instruction of classic BPF (`struct sock_filter`, `linux/filter.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BpfInstruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip if true.
    pub jt: u8,
    /// Instructions to skip if false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// A UDP socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathPlan {
    /// Bound to this address.
    pub local: Address,
    /// Connected to this address; `None` for a peer whose address is learned.
    pub remote: Option<Address>,
    /// `SO_BINDTODEVICE`.
    pub device: Option<String>,
    /// `SO_MARK`.
    pub mark: Option<u32>,
}

/// Supervisor to helper.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToHelper {
    /// First message: [`crate::PROTOCOL`] of the supervisor and the plan.
    Plan(u32, Plan),
    /// Send the handles of this variant down the socket that comes with it, and close it.
    Serve(Variant),
}

/// Which form of the handles a worker gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Variant {
    /// Without offload: a frame is what is on the wire.
    Plain,
}

impl Message for ToHelper {
    /// A filter has up to 4096 instructions of 10 bytes.
    const MAX: usize = 48 << 10;

    fn descriptors(&self) -> usize {
        match self {
            Self::Plan(_, plan) => usize::from(plan.stored),
            Self::Serve(_) => 1,
        }
    }
}

/// Helper to supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromHelper {
    /// Every handle of the plan is open.
    Opened {
        /// Name of the local interface.
        interface: String,
        /// Its index.
        index: u32,
        /// The queue of the TAP comes with this.
        store: bool,
    },
    /// A handle could not be opened; the helper ends. One line for the user.
    Failed(String),
}

impl Message for FromHelper {
    const MAX: usize = 2048;

    fn descriptors(&self) -> usize {
        usize::from(matches!(self, Self::Opened { store: true, .. }))
    }
}

/// Helper to worker, on its descriptor 4: the local side's handle, then one UDP socket for each path.
#[derive(Debug, Serialize, Deserialize)]
pub struct Handles {
    /// Number of UDP sockets that follow the port's descriptor.
    pub paths: u8,
}

impl Message for Handles {
    const MAX: usize = 16;

    fn descriptors(&self) -> usize {
        1 + usize::from(self.paths)
    }
}

/// The direction that is not used: nothing can be received.
#[derive(Debug, Serialize, Deserialize)]
pub enum Never {}

impl Message for Never {
    const MAX: usize = 1;
}

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
    pub tx_dropped_unlearned: u64,
    pub rx_errors: u64,
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
