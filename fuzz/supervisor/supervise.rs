//! Fuzzing of a running tunnel: messages of a worker, of the resolver and of netlink.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use privsep::ipc::{
    self, Answer, Channel, ClassicState, Confinement, FromResolver, FromWorker, MAX_ADDRESSES, Message, Never, Remote,
    Report, Secret, SecureState, State, Timestamp, ToResolver, Trouble, WireState,
};

use crate::log;
use crate::status::{Facts, Status, collect};
use crate::supervise::children::resolver::checked;
use crate::supervise::children::resume;
use crate::supervise::renewal::names::{Names, Use};
use crate::supervise::statistics;
use crate::supervise::watch::oversize::Oversize;
use crate::supervise::watch::paths::Observer;
use crate::supervise::watch::{news, session, storm};
use crate::tunnel::resolve::{Answers, Found, Resolved, is_host};
use crate::tunnel::{Secure, Tunnel, Wire, file, keys};

/// Tunnel with two paths, of which the second learns its peer.
const FILE: &str = "mode = \"tap\"\nwire = \"classic\"\n[[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"192.0.2.2:6000\"\n\
                    [[path]]\nlocal = \"192.0.2.1:6001\"\nremote = \"any\"\n";

/// Takes a packet of a worker repeatedly, once a second, as the supervisor does.
#[allow(clippy::missing_panics_doc)] // A panic is the result of a fuzz target.
pub fn report(packet: &[u8]) {
    let said = match ipc::from_packet::<FromWorker>(packet) {
        // Stands for a report whose paths have arrived as well.
        Ok(FromWorker::Report(Report::Tunnel(state, _))) => state,
        Ok(FromWorker::Report(Report::Path(_, path))) => State { paths: vec![path, path], ..State::default() },
        Ok(FromWorker::Dying(text)) => {
            assert!(!log::untrusted(&text).contains(char::is_control));
            return;
        }
        _ => return,
    };
    let Ok(tunnel) = file::from_text(FILE, "a", Path::new("")) else { unreachable!("{FILE}") };
    let address = |text: &str| text.parse().unwrap();
    let fixed = Remote::Fixed(ipc::Address(address("192.0.2.2:6000")));
    let learned = Remote::ANY;
    let path = |local, remote| Resolved { local: address(local), remote, underlay_mtu: None };
    let paths = [path("192.0.2.1:6000", fixed), path("192.0.2.1:6001", learned)];
    let names = paths.map(|path| (path.local.to_string(), String::new()));
    let wire = match said.wire {
        WireState::Classic(_) => WireState::Classic(ClassicState::default()),
        WireState::Secure(_) => WireState::Secure(SecureState::default()),
    };
    let (now, mut state) = (Instant::now(), State { wire, ..State::default() });
    let settings = ipc::Settings {
        remotes: paths.iter().map(|path| path.remote).collect(),
        paths: vec![ipc::PathSettings { least: 1252, most: 1472, runs: true }; paths.len()],
        ..ipc::Settings::default()
    };
    let mut observer = Observer::new(now, &tunnel, &settings);
    let mut session = session::Watch::default();
    let (mut sizes, mut storm) = (Oversize::default(), storm::Detector::new(now));
    for second in 0..20 {
        let before = state.secure().copied().unwrap_or_default();
        state = resume::accept(&state, said.clone(), &paths, Timestamp::MAX);
        let secure = state.secure().copied().unwrap_or_default();
        let SecureState { heard, sent, .. } = secure;
        assert!(
            heard >= before.heard && sent >= before.sent && [heard, sent].iter().all(|time| *time == time.bounded())
        );
        assert!(usize::from(state.active) < paths.len() && state.paths.len() <= paths.len());
        let lines = observer.note(now + Duration::from_secs(second), &state, &Names::default());
        assert!(lines.iter().all(|(path, line)| *path < paths.len() && !line.contains('\n')));
        let line = session.note(now + Duration::from_secs(second), &secure);
        assert!(line.is_none_or(|line| !format!("{line:?}").contains("\\n")));
        let _ = storm.note(now + Duration::from_secs(second), &state.port, state.blocked);
        assert!(sizes.note(&state, "eu0").len() <= 3);
        assert!(statistics::lines(&state, &names).iter().all(|line| !line.contains('\n')));
    }
    shown(tunnel, &state, session.found());
    resume::carry_over(&mut state, resume::Lasting { peer: true, health: false });
}

/// Checks what `show` prints of a state, for both wires.
fn shown(mut tunnel: Tunnel, state: &State, trouble: Option<Trouble>) {
    let [ours, theirs] = [1, 2].map(|byte| keys::public(&[byte; 32]));
    let secure = Secure {
        private_key: keys::secret(&[1; 32]),
        public_key: ours,
        peer_key: theirs,
        psk: Secret::default(),
        path_mtu: None,
        tunnel_id: [3; 8],
        peer_slot: 1,
        ping_interval: 1,
    };
    for wire in [None, Some(Wire::Secure(Box::new(secure)))] {
        tunnel.wire = wire.unwrap_or(tunnel.wire);
        let status = collect(Facts {
            tunnel: &tunnel,
            interface: "eu0",
            helper: Some(Pid::from_raw(2)),
            resolver: None,
            worker: Some(Pid::from_raw(3)),
            restarts: 1,
            confinement: Confinement::default(),
            in_empty_network: true,
            addresses: tunnel.paths.iter().map(|path| (path.local.to_string(), path.remote.to_string())).collect(),
            underlay_mtus: vec![None; tunnel.paths.len()],
            headers: vec![28; tunnel.paths.len()],
            state,
            uptime: Duration::from_secs(1),
            local: None,
            limit: None,
            carrier: None,
            seen: Vec::new(),
            late: None,
            names: None,
            trouble,
            not_up: None,
            storm: None,
        });
        assert_eq!(status.session.is_some(), tunnel.secure().is_some());
        assert!(!status.text().contains(|byte: char| byte.is_control() && byte != '\n'));
        assert!(!status.words(true).contains('\n') && status.line().lines().count() == 1);
        let read: Status = serde_json::from_str(&status.json()).unwrap();
        assert_eq!(read.json(), status.json());
    }
}

/// Tunnel with a path to a name.
const NAMED: &str =
    "mode = \"tap\"\nwire = \"classic\"\n[[path]]\nlocal = \"any:6000\"\nremote = \"peer.example:6000\"\n";

/// Takes a packet as the supervisor, the resolver, and the process of a question take packets of each other.
pub fn resolver(packet: &[u8]) {
    let fits = |most| packet.len() <= most;
    if fits(ToResolver::MAX) {
        let _ = ipc::from_packet::<ToResolver>(packet);
    }
    if fits(Answer::MAX)
        && let Ok(answer) = ipc::from_packet::<Answer>(packet)
    {
        // The resolver passes the answer of a question on.
        let (resolver, _supervisor) = ipc::pair().unwrap();
        let passed = Channel::<FromResolver, Never>::new(resolver).send(&FromResolver::Answer(u8::MAX, answer), &[]);
        assert!(passed.is_ok(), "{passed:?}");
    }
    if !fits(FromResolver::MAX) {
        return;
    }
    match ipc::from_packet::<FromResolver>(packet) {
        Ok(FromResolver::Answer(_, answer)) => {
            if let Ok(found) = checked(answer) {
                answered(&found);
            }
        }
        Ok(FromResolver::Lacks(text) | FromResolver::Failed(text)) => {
            assert!(!log::untrusted(&text).contains(char::is_control));
        }
        Err(_) => {}
    }
}

/// Takes a checked answer repeatedly. The path moves only to addresses of the answer.
fn answered(found: &Found) {
    if let Ok(addresses) = found {
        assert!(addresses.len() <= MAX_ADDRESSES, "{addresses:?}");
        assert!(addresses.iter().all(|address| is_host(address.ip()) && address.port() == 0), "{addresses:?}");
    }
    let Ok(tunnel) = file::from_text(NAMED, "a", Path::new("")) else { unreachable!("{NAMED}") };
    let remote = Remote::Named { now: None, before: None };
    let paths = [Resolved { local: "[::]:6000".parse().unwrap(), remote, underlay_mtu: None }];
    let now = Instant::now();
    let mut names = Names::new(now, &tunnel, &paths, &["peer.example".into()], &Answers::new());
    let mut address = None;
    for second in 0..20 {
        let now = now + Duration::from_secs(second);
        let (moves, line) = names.on_answer(now, 0, found, |_| Use { up: false, address });
        if let Some(session::Line::Good(line) | session::Line::Bad(line)) = line {
            assert!(!line.contains(char::is_control));
        }
        for (path, to) in moves.into_iter().chain(names.on_time(now, |_| Use { up: false, address }).1) {
            assert!(path == 0 && to.port() == 6000, "{path} {to}");
            assert!(found.iter().flatten().any(|address| address.ip() == to.ip()), "{to} of {found:?}");
            address = Some(to);
        }
    }
}

/// Parses messages about interfaces.
pub fn interfaces(bytes: &[u8]) {
    news::news(bytes, 5, Some(&("br0".to_owned(), 9)));
}
