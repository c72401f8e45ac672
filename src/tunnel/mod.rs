//! What a tunnel is, however it was described: by a classic command line or by a [`file`].
//!
//! Its values, each with its form and bounds: [`address`], [`names`], [`cipher`], [`keys`], [`identifier`], [`vlan_map`], [`repair`], [`bounds`], [`mac`]. What is
//! made of it: [`advice`] to people, networks that are [`taken`], addresses by [`resolve`], the [`plan`] for the helper with [`only`] its peer in a filter, [`settings`] for the workers.

pub mod address;
pub mod advice;
pub mod bounds;
pub mod cipher;
pub mod file;
pub mod identifier;
pub mod keys;
pub mod mac;
pub mod names;
pub mod only;
pub mod plan;
pub mod repair;
pub mod resolve;
pub mod settings;
pub mod taken;
pub mod vlan_map;

use std::net::IpAddr;

use privsep::ipc::{self, Cipher, Rules, Secret};

pub use address::{Endpoint, Remote};
pub use repair::Repair;

/// A tunnel.
#[derive(Debug)]
pub struct Tunnel {
    /// Names the control socket and stands in every log line.
    pub name: String,
    /// The local side.
    pub port: Port,
    /// The ways to the peer, the preferred one first.
    pub paths: Vec<Path>,
    /// How frames become datagrams.
    pub wire: Wire,
    /// What is done to frames.
    pub rules: Rules,
    /// The MSS in these is to be what fits through the underlay.
    pub auto_mss: bool,
    /// A command to run when everything is open.
    pub run: Option<String>,
    /// Ticks, about seconds, after which a worker has run long enough.
    pub exit_after: Option<u64>,
    /// Whether a worker that is less confined than this program can have it ends the tunnel.
    pub require_confinement: bool,
    /// When a service manager is to start it again for what only that repairs.
    pub repair: Repair,
    /// The user that all processes become when started by root.
    pub user: Option<String>,
}

impl Tunnel {
    /// The classic wire, if it is that.
    pub fn classic(&self) -> Option<&Classic> {
        match &self.wire {
            Wire::Classic(classic) => Some(classic),
            Wire::Secure(_) => None,
        }
    }

    /// The secure wire, if it is that.
    pub fn secure(&self) -> Option<&Secure> {
        match &self.wire {
            Wire::Classic(_) => None,
            Wire::Secure(secure) => Some(secure),
        }
    }

    /// Whether the peer answers by itself: by the secure wire always, by the classic one not to a mirror.
    pub fn is_answered(&self) -> bool {
        self.secure().is_some() || !self.port.is_mirror()
    }
}

/// How frames become datagrams.
#[derive(Debug)]
pub enum Wire {
    /// `EthUDP`'s format.
    Classic(Classic),
    /// Authenticated and encrypted.
    Secure(Box<Secure>),
}

impl Wire {
    /// Its name in file and status.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Classic(_) => "classic",
            Self::Secure(_) => "secure",
        }
    }
}

/// The secure wire, its keys checked.
#[derive(Debug)]
pub struct Secure {
    /// X25519 private key of this end.
    pub private_key: Secret,
    /// The public key of that.
    pub public_key: keys::Public,
    /// The peer's.
    pub peer_key: keys::Public,
    /// Pre-shared key; empty for none.
    pub psk: Secret,
    /// MTU in bytes for all paths, instead of the underlay's.
    pub path_mtu: Option<u16>,
    /// Tunnel identifier, the same at both ends.
    pub tunnel_id: identifier::Identifier,
    /// Slot of the peer at its port: the upper 12 bits of the receiver index of initiations to it; 0 for none.
    pub peer_slot: u16,
    /// Seconds from one ping to the next.
    pub ping_interval: u8,
}

impl Secure {
    /// What both ends show alike.
    pub fn fingerprint(&self) -> String {
        keys::fingerprint(&self.public_key, &self.peer_key)
    }

    /// What a ping interval other than the default means, for the log at the start.
    pub fn slow_pings(&self) -> Option<String> {
        let seconds = self.ping_interval;
        let noticed = u16::from(seconds) * 5;
        (seconds > 1).then(|| format!("pings leave every {seconds} s: a dead path is noticed after {noticed} s"))
    }
}

/// The classic wire format.
#[derive(Debug, Default)]
pub struct Classic {
    /// Cipher.
    pub cipher: Cipher,
    /// Its key; empty without a cipher.
    pub key: Secret,
    /// Password; empty for none.
    pub password: Secret,
    /// LZ4 level of the original, 0 to 9; 0 is off, and all others are one to us.
    pub lz4: u8,
    /// `-mtu`: the MTU in bytes over which a datagram leaves as two.
    pub fragment_mtu: Option<u16>,
}

impl Classic {
    /// What of it is no secret, without a keepalive.
    pub fn settings(&self) -> ipc::Classic {
        let Self { cipher, lz4, fragment_mtu, .. } = *self;
        ipc::Classic { cipher, compress: lz4 > 0, fragment_mtu, keepalive: false }
    }
}

/// The local side.
#[derive(Debug)]
pub enum Port {
    /// A TAP interface.
    Tap {
        /// Interface name; `None` lets the kernel choose `tapN`.
        name: Option<String>,
        /// Addresses with prefix length.
        addresses: Vec<(IpAddr, u8)>,
        /// MTU of that interface in bytes.
        interface_mtu: Option<u32>,
        /// The bridge that it joins.
        bridge: Option<String>,
    },
    /// An interface that exists.
    Raw {
        /// Interface name.
        interface: String,
        /// Whether to take frames for other stations.
        promiscuous: bool,
    },
    /// A one-way copy of an interface's frames.
    Mirror {
        /// Interface name.
        interface: String,
        /// Filter as tcpdump takes it; empty selects everything.
        filter: String,
        /// Only the payload of UDP datagrams is sent.
        udp: bool,
    },
}

impl Port {
    /// Whether the loop check is on unless told otherwise: with what only reads its local side, but not with mirrors.
    pub fn checks_loops(&self, receive: bool) -> bool {
        !receive && !self.is_mirror()
    }

    /// Whether it is a mirror: nothing is given back to it, and nobody need answer.
    pub fn is_mirror(&self) -> bool {
        matches!(self, Self::Mirror { .. })
    }

    /// The mode's name in file and status.
    pub fn mode(&self) -> &'static str {
        match self {
            Self::Tap { bridge: None, .. } => "tap",
            Self::Tap { bridge: Some(_), .. } => "bridge",
            Self::Raw { .. } => "raw",
            Self::Mirror { udp: false, .. } => "mirror",
            Self::Mirror { udp: true, .. } => "mirror-udp",
        }
    }
}

/// A tunnel of the secure wire for tests, with more in its file; its keys are known.
#[cfg(test)]
pub fn secure_example(more: &str) -> Tunnel {
    use std::os::unix::fs::OpenOptionsExt;
    let directory = std::env::temp_dir().join(format!("ethudp-secure-{}", std::process::id()));
    let directory = directory.join(std::thread::current().name().unwrap_or("a").replace(':', "-"));
    std::fs::create_dir_all(&directory).unwrap();
    let mut file = std::fs::File::options();
    let mut file = file.write(true).create(true).truncate(true).mode(0o600).open(directory.join("a.key")).unwrap();
    std::io::Write::write_all(&mut file, keys::text(&[1; 32]).as_bytes()).unwrap();
    let peer = keys::text(&keys::public(&[2; 32]));
    let text = format!(
        "mode = \"tap\"\n{more}\n[secure]\nprivate-key-file = \"a.key\"\npeer-public-key = {:?}\n\
         [[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"192.0.2.2:6000\"\n",
        *peer
    );
    let tunnel = file::from_text(&text, "a", &directory).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    tunnel
}

/// One way to the peer, hosts not yet resolved.
#[derive(Debug, Clone)]
pub struct Path {
    /// Our side.
    pub local: Endpoint,
    /// The peer.
    pub remote: Remote,
    /// Interface or VRF to which the socket is bound.
    pub device: Option<String>,
    /// Firewall mark of its datagrams.
    pub mark: Option<u32>,
}
