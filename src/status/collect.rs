//! Collects a status from the state of the supervisor.

use std::time::Duration;

use ethudp_status::{
    self as status, ConfinementStatus, PathState, PathStatus, Pids, PortStatus, SCHEMA, SessionStatus, Status,
};
use nix::unistd::Pid;
use privsep::ipc::{Confinement, PathCounters, PathReport, Policy, SecureState, State, Trouble};

use super::words::{
    Mismatch, change_word, cipher_of, lost_runs_sentence, lost_size_sentence, trouble_sentence, trouble_word,
};
use crate::log;
use crate::supervise::renewal::late::{Absent, Watch};
use crate::supervise::renewal::names::Names;
use crate::tunnel::{Secure, Tunnel, cipher, keys};

/// Consequence of a missing helper.
const HELPER_ENDED: &str = "helper ended: a worker that dies cannot be replaced; restart the tunnel";

/// Input of a status.
pub struct Facts<'a> {
    pub tunnel: &'a Tunnel,
    pub interface: &'a str,
    pub helper: Option<Pid>,
    pub resolver: Option<Pid>,
    pub worker: Option<Pid>,
    pub restarts: u64,
    pub confinement: Confinement,
    pub in_empty_network: bool,
    /// Local and remote address of each path.
    pub addresses: Vec<(String, String)>,
    /// MTU of each path's underlay.
    pub underlay_mtus: Vec<Option<u32>>,
    /// Bytes of IP and UDP headers of each path.
    pub headers: Vec<u16>,
    pub state: &'a State,
    pub uptime: Duration,
    /// Fault of the local side.
    pub local: Option<String>,
    /// Reason why the local side carries less than it should.
    pub limit: Option<String>,
    /// Carrier of a TAP that follows the paths.
    pub carrier: Option<bool>,
    /// Knowledge about each path in addition to its report.
    pub seen: Vec<Seen>,
    /// Faults that only a new start removes.
    pub late: Option<&'a Watch>,
    /// Names of peers.
    pub names: Option<&'a Names>,
    /// Fault that prevents a session.
    pub trouble: Option<Trouble>,
    /// Reason why the active path is not up, if known.
    pub not_up: Option<String>,
    /// Sentence about looping frames.
    pub storm: Option<&'static str>,
}

/// Observations of the supervisor on a path.
#[derive(Debug, Default, Clone, Copy)]
pub struct Seen {
    pub last_rx: Option<Duration>,
    pub mismatch: Option<Mismatch>,
}

/// Collects a status.
pub fn collect(facts: Facts<'_>) -> Status {
    let Confinement { landlock_abi, mdwe, seccomp } = facts.confinement;
    let active = usize::from(facts.state.active);
    let reports = facts.state.paths.iter().copied().chain(std::iter::repeat(PathReport::default()));
    let seen = |index| facts.seen.get(index).copied().unwrap_or_default();
    let of_secure = facts.tunnel.secure().is_some();
    let underlay_mtu = |index| facts.underlay_mtus.get(index).copied().flatten();
    let paths = facts.addresses.into_iter().zip(reports).enumerate().map(|(index, (addresses, report))| PathStatus {
        active: if facts.tunnel.policy == Policy::Failover { index == active } else { report.active },
        mtu: underlay_mtu(index),
        path_mtu: facts
            .headers
            .get(index)
            .map(|header| header.saturating_add(report.carries.datagram))
            .filter(|_| of_secure),
        path_mtu_searched: of_secure && report.carries.searched,
        lost_size: (report.carries.loses == Some(true)).then_some(report.carries.datagram),
        runs_arrive: report.carries.runs,
        reason: facts.late.and_then(|late| late.reason(index)).or_else(|| facts.names?.reason(index)),
        ..path(addresses, &report, seen(index))
    });
    let mut paths: Vec<_> = paths.collect();
    let (state, reason) = match (facts.worker, paths.get(active)) {
        (None, _) => (status::State::Starting, None),
        _ if facts.local.is_some() => (status::State::LocalDown, facts.local),
        // A mirror needs no answer.
        _ if !facts.tunnel.is_answered() => (status::State::Up, facts.storm.map(Into::into).or(facts.limit)),
        (_, path) => {
            let mismatch = seen(active).mismatch.map(|mismatch| mismatch.sentence(facts.tunnel));
            let fixed = facts.tunnel.secure().is_some_and(|secure| secure.path_mtu.is_some());
            let lost = path.and_then(|path| path.lost_size).map(|size| lost_size_sentence(size, fixed));
            let size = path.filter(|path| path.runs_arrive == Some(false)).and(facts.state.paths.get(active));
            let device = facts.tunnel.paths.get(active).and_then(|path| path.device.as_deref());
            let runs = size.map(|report| lost_runs_sentence(report.carries.datagram, device));
            let reason = mismatch.or_else(|| facts.storm.map(Into::into)).or(lost).or(runs).or(facts.limit);
            let reason = reason.or_else(|| facts.late.and_then(Watch::sentence));
            let state = path.map_or(status::State::Connecting, |path| of_path(path.state));
            let (state, reason) = match facts.trouble {
                _ if !facts.tunnel.wire.is_authenticated()
                    || facts.state.secure().is_some_and(|secure| secure.session.is_some()) =>
                {
                    (state, reason)
                }
                Some(trouble) => (status::State::Mismatch, Some(trouble_sentence(trouble))),
                // Only a path that was up can be down. Other states are `connecting` until a session exists.
                None if state == status::State::Down => (state, reason),
                None => (status::State::Connecting, reason),
            };
            (state, if state == status::State::Up { reason } else { reason.or(facts.not_up) })
        }
    };
    let state = if state == status::State::Up && facts.state.blocked { status::State::Blocked } else { state };
    // The end of the helper does not hide other faults.
    let (state, reason) = if facts.worker.is_some() && facts.helper.is_none() {
        let reasons: Vec<_> = reason.into_iter().chain([HELPER_ENDED.into()]).collect();
        let stays = matches!(state, status::State::LocalDown | status::State::Blocked);
        (if stays { state } else { status::State::Degraded }, Some(reasons.join("; ")))
    } else {
        (state, reason)
    };
    for absent in facts.late.map_or(&[][..], Watch::absent) {
        paths.insert(absent.number.min(paths.len()), absent_path(absent, facts.late));
    }
    let session = facts.tunnel.secure().map(|secure| session(secure, facts.state, facts.trouble));
    let wire = &facts.tunnel.wire;
    let of_session = || session.as_ref().and_then(|session| session.cipher.clone()).unwrap_or_default();
    let cipher = wire.cipher().map_or_else(of_session, |cipher| cipher::name(cipher).into());
    Status {
        schema: SCHEMA,
        name: facts.tunnel.name.clone(),
        mode: facts.tunnel.port.mode().into(),
        wire: wire.name().into(),
        version: env!("CARGO_PKG_VERSION").into(),
        state,
        reason,
        uptime_s: facts.uptime.as_secs(),
        cipher,
        protection: wire.protection().into(),
        lz4: wire.compresses(),
        policy: facts.tunnel.policy.name().into(),
        last_error: log::last_error(),
        pids: Pids {
            supervisor: std::process::id().cast_signed(),
            helper: facts.helper.map(Pid::as_raw),
            resolver: facts.resolver.map(Pid::as_raw),
            worker: facts.worker.map(Pid::as_raw),
        },
        worker_restarts: facts.restarts,
        confinement: ConfinementStatus { netns: facts.in_empty_network, landlock_abi, mdwe, seccomp },
        port: PortStatus { interface: facts.interface.into(), carrier: facts.carrier, counters: facts.state.port },
        seal: facts.state.seal,
        session,
        paths,
    }
}

/// Status of a tunnel before its start: it looks up the names of its paths, or `waits` for this reason.
pub fn before_start(tunnel: &Tunnel, waits: Option<&str>) -> Status {
    let addresses = tunnel.paths.iter().map(|path| (path.local.to_string(), path.remote.to_string())).collect();
    let status = collect(Facts {
        tunnel,
        interface: "",
        helper: None,
        resolver: None,
        worker: None,
        restarts: 0,
        confinement: Confinement::default(),
        in_empty_network: false,
        addresses,
        underlay_mtus: Vec::new(),
        state: &State::default(),
        uptime: Duration::ZERO,
        local: None,
        limit: None,
        carrier: None,
        seen: Vec::new(),
        late: None,
        names: None,
        trouble: None,
        not_up: None,
        storm: None,
        headers: Vec::new(),
    });
    let state = if waits.is_some() { status::State::Connecting } else { status::State::Starting };
    Status { state, reason: waits.map(str::to_owned), ..status }
}

/// State of a tunnel that depends on its active path alone.
fn of_path(path: PathState) -> status::State {
    match path {
        PathState::Up => status::State::Up,
        PathState::Down => status::State::Down,
        PathState::Mismatch => status::State::Mismatch,
        PathState::Connecting | PathState::Absent | PathState::Unknown => status::State::Connecting,
    }
}

fn session(secure: &Secure, state: &State, trouble: Option<Trouble>) -> SessionStatus {
    let SecureState { session: current, counts, .. } = state.secure().copied().unwrap_or_default();
    SessionStatus {
        established: current.is_some(),
        age_s: current.map(|session| session.age_ms / 1000),
        began_here: current.map(|session| session.began_here),
        cipher: current.map(|session| cipher_of(session.cipher).into()),
        handshake: "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s".into(),
        kem: "ML-KEM-768".into(),
        psk: !secure.psk.expose().is_empty(),
        public_key: keys::text(&secure.public_key).to_string(),
        peer_public_key: keys::text(&secure.peer_key).to_string(),
        fingerprint: secure.fingerprint(),
        trouble: trouble.map(|trouble| trouble_word(trouble).into()),
        counters: counts,
    }
}

/// Status of a path of the file that the running tunnel does not have.
fn absent_path(absent: &Absent, late: Option<&Watch>) -> PathStatus {
    let addresses = (absent.path.local.to_string(), absent.path.remote.to_string());
    PathStatus {
        state: PathState::Absent,
        reason: late.map(|late| late.reason_of_absent(absent)),
        ..path(addresses, &PathReport::default(), Seen::default())
    }
}

fn path((local, remote): (String, String), report: &PathReport, seen: Seen) -> PathStatus {
    let PathReport { health: state, rtt_us, counters, .. } = *report;
    #[allow(clippy::cast_precision_loss)] // Exact for any time below 285 years.
    let ms = |us: u64| (us > 0).then_some(us as f64 / 1000.0);
    let PathCounters { tx_errors, tx_dropped_oversize, rx_errors, rx_dropped_invalid, rx_dropped_oversize, .. } =
        counters;
    PathStatus {
        local,
        remote,
        state: seen.mismatch.map_or(state.into(), |_| PathState::Mismatch),
        reason: None,
        active: false,
        rtt_ms: ms(rtt_us),
        jitter_ms: ms(report.jitter_us),
        loss_to_peer: report.loss_to_peer,
        loss_from_peer: report.loss_from_peer,
        last_change: report.change.map(|change| change_word(change.reason).into()),
        last_change_ms: report.change.map(|change| change.age_ms),
        last_rx_ms: seen.last_rx.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        mtu: None,
        path_mtu: None,
        path_mtu_searched: false,
        lost_size: None,
        runs_arrive: None,
        counters,
        errors: [tx_errors, tx_dropped_oversize, rx_errors, rx_dropped_invalid, rx_dropped_oversize]
            .into_iter()
            .fold(0, u64::saturating_add),
    }
}
