//! Paths that the tunnel cannot use: without an address or a device at the start, with a recreated device, or with a local name that
//! may have a new address. Privileges are gone by then, so a new start opens these paths ([`super::repair`]).

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{setsockopt, sockopt};
use privsep::ipc::{self, Address, PathHealth, PathReport};

use super::locals::Locals;
use super::repair::Need;
use crate::supervise::watch::link::LinkWatch;
use crate::tunnel::resolve::{self, Resolved};
use crate::tunnel::{self, Tunnel};
use crate::{Error, log};

/// Interval of looks at the devices.
const LOOK: Duration = Duration::from_secs(2);
/// Time for which a path with a name may be down before the address of the name is doubted.
const DOUBT: Duration = Duration::from_secs(60);

/// A path of the file that the running tunnel does not have.
#[derive(Debug)]
pub struct Absent {
    /// Number of the path in the file, from 0.
    pub number: usize,
    /// Description of the path, removed from the tunnel: nothing is sent by it.
    pub path: tunnel::Path,
    /// Reason in one line.
    pub reason: String,
    lacks: Lacks,
}

/// Resource of the host that a path lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lacks {
    /// The interface or VRF.
    Device,
    /// The local address, an address for its name, or a route to the remote address.
    Address,
}

/// All paths of the file, the absent ones separate from those of the running tunnel.
#[derive(Debug)]
pub struct Paths {
    /// Paths of the running tunnel, in the order of `Tunnel::paths`.
    pub present: Vec<Resolved>,
    /// Absent paths, by their number.
    pub absent: Vec<Absent>,
    /// Numbers in the file of the present paths.
    numbers: Vec<usize>,
}

impl Paths {
    /// Removes the paths without addresses from the tunnel.
    pub fn new(tunnel: &mut Tunnel, resolved: Vec<Result<Resolved, Error>>) -> Self {
        let mut paths = Self { present: Vec::new(), absent: Vec::new(), numbers: Vec::new() };
        let all = std::mem::take(&mut tunnel.paths);
        for (number, (path, resolved)) in all.into_iter().zip(resolved).enumerate() {
            match resolved {
                Ok(resolved) => {
                    paths.present.push(resolved);
                    paths.numbers.push(number);
                    tunnel.paths.push(path);
                }
                Err(error) => {
                    let (reason, lacks) = (error.to_string(), Lacks::Address);
                    paths.absent.push(Absent { number, path, reason, lacks });
                }
            }
        }
        paths
    }

    /// Removes the paths that cannot be opened now. The helper opens its whole plan or nothing.
    pub fn take_out(&mut self, tunnel: &mut Tunnel) {
        for at in (0..self.present.len()).rev() {
            if let Some((lacks, reason)) = missing(&tunnel.paths[at], &self.present[at]) {
                self.present.remove(at);
                let (number, path) = (self.numbers.remove(at), tunnel.paths.remove(at));
                self.absent.push(Absent { number, path, reason, lacks });
            }
        }
        self.absent.sort_by_key(|absent| absent.number);
    }

    /// Reasons of all absent paths.
    pub fn reasons(&self) -> String {
        let reason = |absent: &Absent| format!("path {}: {}", absent.number + 1, absent.reason);
        self.absent.iter().map(reason).collect::<Vec<_>>().join("; ")
    }
}

/// Whether the host has all resources of a path now.
pub fn can_be_opened(path: &tunnel::Path, resolved: &Resolved) -> bool {
    missing(path, resolved).is_none()
}

/// Resource that a path lacks, with the reason. The helper reports other reasons as errors.
fn missing(path: &tunnel::Path, resolved: &Resolved) -> Option<(Lacks, String)> {
    let (local, remote) = (resolved.local, resolved.remote);
    if let Some(device) = path.device.as_deref().filter(|device| if_nametoindex(*device) == Err(Errno::ENODEV)) {
        return Some((Lacks::Device, format!("device {device:?}: no such interface; `ip link` lists them")));
    }
    let mut any_port = local;
    any_port.set_port(0);
    let probe = match UdpSocket::bind(any_port) {
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
            let reason =
                format!("local address {}: not an address of this host; `ip addr` lists its addresses", local.ip());
            return Some((Lacks::Address, reason));
        }
        probe => probe.ok()?,
    };
    // A wildcard address depends on no route.
    let (false, ipc::Remote::Fixed(Address(remote))) = (local.ip().is_unspecified(), remote) else { return None };
    if let Some(device) = &path.device {
        setsockopt(&probe, sockopt::BindToDevice, &device.into()).ok()?;
    }
    if let Some(mark) = path.mark {
        setsockopt(&probe, sockopt::Mark, &mark).ok()?;
    }
    let error = probe.connect(remote).err()?;
    let no_route = [ErrorKind::NetworkUnreachable, ErrorKind::HostUnreachable, ErrorKind::AddrNotAvailable];
    let why = if no_route.contains(&error.kind()) {
        "no route".into()
    } else {
        // A route of type blackhole gives EINVAL, one of type prohibit EACCES.
        format!("no usable route: {error}")
    };
    Some((Lacks::Address, format!("remote address {remote}: {why}; check `ip route get {}`", remote.ip())))
}

/// Device of a path.
#[derive(Debug)]
struct Device {
    /// Number of the path in the file.
    number: usize,
    name: String,
    /// Interface index to which the path's socket is bound; `None` for an absent path.
    opened: Option<u32>,
    /// Interface index of this name now.
    now: Option<u32>,
}

impl Device {
    /// Whether a new start would open another interface than the present one.
    fn is_new(&self) -> bool {
        self.now.is_some() && self.now != self.opened
    }
}

/// Interface index of each device of the tunnel. Read before the helper opens the devices, so that a device that is recreated
/// meanwhile is noticed.
pub fn indices(tunnel: &Tunnel) -> HashMap<String, u32> {
    let devices = tunnel.paths.iter().filter_map(|path| path.device.clone());
    devices.filter_map(|device| Some((device.clone(), if_nametoindex(device.as_str()).ok()?))).collect()
}

/// Name of a path that the running tunnel does not resolve again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stale {
    /// None.
    No,
    /// The local name.
    Local,
    /// The peer's name, because the resolver has ended.
    Peer,
}

/// Watch over faults of paths that only a new start repairs.
#[derive(Debug)]
pub struct Watch {
    absent: Vec<Absent>,
    /// For each present path, its number in the file, and its name that is resolved only at the start.
    present: Vec<(usize, Stale)>,
    devices: Vec<Device>,
    /// Local addresses of the present paths.
    locals: Locals,
    looked: Option<Instant>,
    /// For each present path, the time since which it is not up.
    silent: Vec<Option<Instant>>,
    /// Numbers of the paths whose doubtful name was logged.
    doubted: HashSet<usize>,
    /// Whether a service manager starts the program again.
    managed: bool,
    /// Whether the peer answers, so that a path can be known to be up.
    answered: bool,
}

impl Watch {
    /// Starts to watch. The devices were opened with these indices.
    pub fn new(tunnel: &Tunnel, paths: &mut Paths, opened: &HashMap<String, u32>, managed: bool) -> Self {
        let absent = std::mem::take(&mut paths.absent);
        let numbered = paths.numbers.iter().copied().zip(&tunnel.paths);
        let local = |path: &tunnel::Path| if resolve::is_name(&path.local.host) { Stale::Local } else { Stale::No };
        let present: Vec<_> = numbered.clone().map(|(number, path)| (number, local(path))).collect();
        let here =
            numbered.filter_map(|(number, path)| path.device.as_ref().map(|name| (number, name, opened.get(name))));
        let lacking = absent.iter().filter(|absent| absent.lacks == Lacks::Device);
        let missing = lacking.filter_map(|absent| Some((absent.number, absent.path.device.as_ref()?, None)));
        let device = |(number, name, opened): (usize, &String, Option<&u32>)| {
            let opened = opened.copied();
            Device { number, name: name.clone(), opened, now: opened }
        };
        let devices = here.chain(missing).map(device).collect();
        let silent = vec![None; present.len()];
        let (locals, answered) = (Locals::new(&paths.present), tunnel.is_answered());
        Self { absent, present, devices, locals, looked: None, silent, doubted: HashSet::new(), managed, answered }
    }

    /// Records that the resolver has ended: a new start resolves the names of the peers.
    pub fn lose_names(&mut self, tunnel: &Tunnel) {
        for ((_, stale), path) in self.present.iter_mut().zip(&tunnel.paths) {
            if resolve::remote_name(path).is_some() {
                *stale = Stale::Peer;
            }
        }
    }

    /// Absent paths by their number.
    pub fn absent(&self) -> &[Absent] {
        &self.absent
    }

    /// Looks at devices and local addresses when due. Returns log lines about these and about names.
    pub fn look(&mut self, now: Instant, link: &mut LinkWatch) -> Vec<String> {
        if self.looked.is_some_and(|looked| now < looked + LOOK) {
            return Vec::new();
        }
        self.looked = Some(now);
        let mut lines = Vec::new();
        for (&(number, stale), silent) in self.present.iter().zip(&self.silent) {
            let doubted = stale == Stale::Local && silent.is_some_and(|since| now >= since + DOUBT);
            if doubted && !self.managed && self.doubted.insert(number) {
                lines.push(format!("path {}: {NAME_UNMANAGED}", number + 1));
            }
        }
        let (silent, answered) = (&self.silent, self.answered);
        let gone = self.locals.look(link, |path| !answered || silent[path].is_some()).unwrap_or_default();
        lines.extend(gone.into_iter().map(|(path, line)| format!("path {}: {line}", self.present[path].0 + 1)));
        for device in &mut self.devices {
            // If the kernel does not tell, the device counts as unchanged.
            let Ok(index) = link.index_of(&device.name) else { continue };
            if std::mem::replace(&mut device.now, index) != index
                && let Some(line) = said_of(device, self.managed)
            {
                lines.push(format!("path {}: {line}", device.number + 1));
            }
        }
        lines
    }

    /// Records the health of the present paths. Returns a need for a new start, if any.
    pub fn need(&mut self, now: Instant, reports: &[PathReport]) -> Option<Need> {
        let is_up = |path: usize| reports.get(path).is_some_and(|report| report.health == PathHealth::Up);
        for (path, silent) in self.silent.iter_mut().enumerate() {
            *silent = (self.answered && !is_up(path)).then(|| silent.unwrap_or(now));
        }
        let alone = if self.answered { !(0..self.present.len()).any(is_up) } else { self.present.is_empty() };
        if self.devices.iter().any(Device::is_new) {
            return Some(Need::Device { alone });
        }
        if self.absent.iter().any(|absent| absent.lacks == Lacks::Address) {
            return Some(Need::Path { alone });
        }
        let doubtful =
            self.present.iter().zip(&self.silent).any(|((_, stale), silent)| *stale != Stale::No && silent.is_some());
        doubtful.then_some(Need::Name { alone })
    }

    /// Faults of all paths in one sentence, as far as they are known here.
    pub fn sentence(&self) -> Option<String> {
        let absent = self.absent.iter().map(|absent| (absent.number, self.reason_of_absent(absent)));
        let present = self.present.iter().enumerate();
        let present = present.filter_map(|(path, &(number, _))| Some((number, self.reason(path)?)));
        let mut all: Vec<_> = absent.chain(present).collect();
        all.sort_unstable();
        let lines: Vec<_> = all.into_iter().map(|(number, reason)| format!("path {}: {reason}", number + 1)).collect();
        (!lines.is_empty()).then(|| lines.join("; "))
    }

    /// Fault of a present path, as far as it is known here.
    pub fn reason(&self, path: usize) -> Option<String> {
        let &(number, stale) = self.present.get(path)?;
        let device = self.devices.iter().find(|device| device.number == number);
        if let Some(line) = device.and_then(|device| said_of(device, self.managed)) {
            return Some(line);
        }
        if let Some(line) = self.locals.reason(path) {
            return Some(line);
        }
        let silent = self.silent[path].is_some_and(|since| since.elapsed() >= DOUBT);
        match stale {
            Stale::Peer => Some(RESOLVER_ENDED.into()),
            Stale::Local => (silent && !self.managed).then(|| NAME_UNMANAGED.into()),
            Stale::No => None,
        }
    }

    /// Reason of an absent path, by present knowledge.
    pub fn reason_of_absent(&self, absent: &Absent) -> String {
        let device = self.devices.iter().find(|device| device.number == absent.number);
        let news = device.and_then(|device| said_of(device, self.managed));
        match news {
            Some(news) => news,
            None if absent.lacks == Lacks::Address && !self.managed => format!("{}; {RESTART}", absent.reason),
            None => absent.reason.clone(),
        }
    }

    /// Logs the absent paths at the start.
    pub fn say_absent(&self) {
        for absent in &self.absent {
            log::warning(&format!("path {} not opened: {}", absent.number + 1, self.reason_of_absent(absent)));
        }
    }
}

/// Advice without a service manager.
const RESTART: &str = "restart the tunnel to try again";
/// Advice for a path with a local name, without a service manager.
const NAME_UNMANAGED: &str = "local name resolved only at the start: restart the tunnel if its address changed";
/// Advice for a path whose peer has a name.
const RESOLVER_ENDED: &str = "resolver ended: the name of the peer is not looked up again; restart the tunnel";

/// Sentence about a device that differs from the opened one.
fn said_of(device: &Device, managed: bool) -> Option<String> {
    let Device { name, opened, now, .. } = device;
    let then = if managed { "the tunnel restarts to use it" } else { "restart the tunnel to use it" };
    match (opened, now) {
        (None, Some(_)) => Some(format!("device {name:?}: exists now; {then}")),
        (Some(_), None) => Some(format!("device {name:?}: removed or renamed")),
        (Some(opened), Some(now)) if opened != now => {
            Some(format!("device {name:?}: now another interface of this name; {then}"))
        }
        _ => None,
    }
}
