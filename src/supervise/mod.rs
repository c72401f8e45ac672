//! Life of a tunnel: an ordered start, the drop of all privileges, then one worker after the other.

pub mod children;
mod log_budget;
pub mod policy;
pub mod renewal;
mod requests;
pub mod startup;
pub mod statistics;
mod supervisor;
pub mod watch;

use std::fs;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use privsep::ipc::{BpfInstruction, Identity, State};

use crate::error::Context;
use crate::service::confine::{self, Retained};
use crate::service::control_socket::ControlSocket;
use crate::service::descriptor_store::{self, Starts, StoredDescriptors};
use crate::service::notify::Notify;
use crate::service::{executables, identity, networks};
use crate::tunnel::resolve::{self, Resolved};
use crate::tunnel::{Port, Repair, Tunnel};
use crate::tunnel::{advice, plan, settings};
use crate::{Error, filter, log};
use children::helper::Helper;
use children::memory::Shortage;
use children::resolver::Resolver;
use children::worker::Setup;
use policy::{Missing, Place, Policies};
use renewal::late::{self, Paths};
use renewal::names::Names;
use renewal::starts;
use startup::waiting::Waiting;
use startup::{command, lookup, underlay};
use supervisor::{Parts, Supervisor};
use watch::carrier::StoredCarrier;
use watch::link::{Expected, LinkWatch};

/// Longest time from the compiled filter to the first look-up of names or to the opened handles of the helper.
const REST_OF_START: Duration = Duration::from_secs(30);

/// Runs a tunnel until a signal asks for its end. Calls `ready` once, when the first worker forwards.
pub fn run(
    tunnel: Tunnel,
    policies: Policies,
    stored: StoredDescriptors,
    ready: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    // From here on signals no longer end the process, because there is something to clean up.
    let signals = signals().context(|| "signals".into())?;
    let StoredDescriptors { tap, starts: mut before } = stored;
    let mut notify = Notify::connect();
    let result = live(tunnel, policies, tap, &mut before, &signals, &mut notify, ready);
    starts::end(result, before, &signals, &mut notify)
}

/// Runs the tunnel between the first and the last message to the service manager.
fn live(
    mut tunnel: Tunnel,
    policies: Policies,
    stored_tap: Option<OwnedFd>,
    starts: &mut Starts,
    signals: &SignalFd,
    notify: &mut Notify,
    ready: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    let began = Instant::now();
    let stored_tap = stored_tap.filter(|_| matches!(tunnel.port, Port::Tap { .. }));
    let carrier = StoredCarrier::of(&tunnel.port, stored_tap.as_ref());
    let identity = identity::choose(tunnel.user.as_deref())?;
    let executables = executables::open()?;
    let control = ControlSocket::bind(&tunnel.name, identity)?;
    let waiting = Waiting { tunnel: &tunnel, signals, control: &control };
    let Some(filter) = compiled(&waiting, identity, notify)? else { return Ok(()) };
    let mut resolver = Resolver::start(resolve::names(&tunnel), identity, tunnel.require_confinement)?;
    let Some((resolved, answers)) = lookup::paths(&waiting, policies.missing, notify, resolver.as_mut())? else {
        return Ok(());
    };
    let managed = notify.is_connected() && tunnel.repair != Repair::Never;
    let devices = late::indices(&tunnel);
    let mut paths = Paths::new(&mut tunnel, resolved);
    if policies.missing == Missing::Start {
        paths.take_out(&mut tunnel);
        if !managed && tunnel.paths.is_empty() {
            return Err(Error::Failure(paths.reasons()));
        }
    }
    warn_of_loop(&tunnel, &paths.present);
    let stored = stored_tap.is_some();
    let queue = stored_tap.as_ref().map(AsFd::as_fd);
    let interface_mtu = underlay::interface_mtu(&tunnel, &mut paths.present, queue);
    let plan = plan::plan(&tunnel, identity, &paths.present, filter, interface_mtu, stored, notify.is_connected());
    let Some(mut helper) = Helper::start(&executables.helper, plan, stored_tap, signals, notify)? else {
        return Ok(());
    };
    let late = late::Watch::new(&tunnel, &mut paths, &devices, managed);
    let Paths { present: mut paths, .. } = paths;
    let tunnel = &tunnel;
    let known = resolver.as_ref().map_or(&[][..], Resolver::names);
    let names = Names::new(Instant::now(), tunnel, &paths, known, &answers);
    let resolver = resolver.filter(|_| names.are_needed());
    let (pid, interface, index) = (helper.child.pid(), &helper.interface, helper.index);
    log::debug(&format!("helper {pid} opened all handles: local side {interface}, index {index}"));
    notify.store(descriptor_store::TAP, helper.to_store.take());
    let link = LinkWatch::new(helper.index, Expected::of(&tunnel.port))
        .context(|| format!("interface {:?}", helper.interface))?;
    let goes_on = |run: &String| command::run(run, &tunnel.name, &helper.interface, signals);
    if !tunnel.run.as_ref().is_none_or(goes_on) {
        return Ok(());
    }
    let sizes = underlay::Sizes::read(tunnel, &mut paths, link.link()).map_err(Error::Failure)?;
    let mac = <[u8; 6]>::try_from(&link.link().address[..]).ok();
    let mut settings = settings::settings(tunnel, &paths, sizes.datagram, mac, forwards(&helper.interface));
    settings.rules.mss = sizes.mss.or(settings.rules.mss);
    settings.rules.mss_follows = tunnel.auto_mss && tunnel.secure().is_some();
    settings.rules.answers = matches!(tunnel.port, Port::Tap { bridge: None, .. });
    let keeps = Retained {
        worker: &executables.worker,
        runtime: control.directory(),
        system_log: policies.place == Place::Background,
    };
    let shortage = Shortage::watch();
    carrier.leave();
    let in_empty_network =
        confine::give_up_privileges(identity, &keeps).context(|| "cannot give up privileges".into())?;
    late.say_absent();
    names.errors().iter().for_each(|line| log::warning(line));
    for line in advice::of(tunnel).into_iter().chain(sizes.warning) {
        log::warning(&line);
    }
    for line in sizes.line.into_iter().chain(tunnel.wire.start_line()) {
        log::info(&line);
    }
    let setup = Setup {
        executable: executables.worker,
        secrets: tunnel.wire.secrets(),
        state: State::new(&settings),
        settings,
        // Frames that waited in a TAP since the previous run, or while the command ran, are too old.
        drain: stored || tunnel.run.is_some(),
    };
    let by_root = identity.is_some();
    let parts = Parts { began, setup, paths, by_root, in_empty_network, link, late, names, shortage, policies };
    let helper = (helper, resolver);
    Supervisor::new(tunnel, parts, helper, signals, control, notify, starts).run(ready)
}

/// Whether this host forwards IPv6 from an interface, or may do so. A neighbour that takes a router for a host removes it as a
/// router (RFC 4861, section 7.2.5).
fn forwards(interface: &str) -> bool {
    fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{interface}/forwarding"))
        .map_or(true, |value| value.trim() != "0")
}

/// Compiled filter of a mirror; empty for other local sides. `None` when a signal asks for the end meanwhile.
fn compiled(
    waiting: &Waiting<'_>,
    identity: Option<Identity>,
    notify: &Notify,
) -> Result<Option<Vec<BpfInstruction>>, Error> {
    let Port::Mirror { interface, filter, .. } = &waiting.tunnel.port else { return Ok(Some(Vec::new())) };
    filter::compile(interface, filter, identity, waiting.tunnel.require_confinement, |channel, limit| {
        notify.extend_timeout(limit + REST_OF_START);
        waiting.until(Some(channel), limit, None)
    })
}

/// Blocks the handled signals and opens a descriptor that reports them.
fn signals() -> nix::Result<SignalFd> {
    let handled = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGCHLD];
    let set: SigSet = handled.into_iter().collect();
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// Warns if the local side is the interface of the underlay: its packet socket receives the tunnel's own datagrams.
fn warn_of_loop(tunnel: &Tunnel, paths: &[Resolved]) {
    let (Port::Raw { interface, .. } | Port::Mirror { interface, .. }) = &tunnel.port else { return };
    let own = getifaddrs().into_iter().flatten().filter(|own| own.interface_name == *interface);
    let own: Vec<_> = own.filter_map(|own| own.address).collect();
    let carries = |local: &SocketAddr| own.iter().any(|own| networks::same_address(own, local));
    if let Some(Resolved { local, .. }) = paths.iter().find(|path| carries(&path.local) && !tunnel.rules.loop_check) {
        log::warning(&format!(
            "interface {interface:?} has the tunnel's own address {}, so its datagrams loop: set loop-check = true \
             (-loopcheck), or use another interface",
            local.ip()
        ));
    }
}
