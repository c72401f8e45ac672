//! What fuzzing reaches of the life of a tunnel: what comes from a worker, and from netlink.

use std::path::Path;
use std::time::{Duration, Instant};

use privsep::ipc::{self, FromWorker, Remote, Report, State};

use super::observe::Observer;
use super::sizes::Sizes;
use super::{link, resume, statistics, storm};
use crate::log;
use crate::tunnel::file;
use crate::tunnel::resolve::Resolved;

/// A tunnel with two paths, one of which learns its peer.
const FILE: &str = "mode = \"tap\"\nwire = \"classic\"\n[[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"192.0.2.2:6000\"\n\
                    [[path]]\nlocal = \"192.0.2.1:6001\"\nremote = \"any\"\n";

/// A packet of a worker, again and again a second apart, as the supervisor takes it.
#[allow(clippy::missing_panics_doc)] // To panic is what it is for.
pub fn report(packet: &[u8]) {
    let said = match ipc::from_packet::<FromWorker>(packet) {
        // As if its paths had followed.
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
    let learned = Remote::Learned { address: None, port: None };
    let path = |local, remote| Resolved { local: address(local), remote, underlay_mtu: None };
    let paths = [path("192.0.2.1:6000", fixed), path("192.0.2.1:6001", learned)];
    let names = paths.map(|path| (path.local.to_string(), String::new()));
    let (now, mut state) = (Instant::now(), State::default());
    let mut observer = Observer::new(now, &tunnel, paths.iter().map(|path| path.remote));
    let mut session = super::session::Watch::default();
    let (mut sizes, mut storm) = (Sizes::default(), storm::Detector::new(now));
    for second in 0..20 {
        state = resume::accept(&state, said.clone(), &paths);
        assert!(usize::from(state.active) < paths.len() && state.paths.len() <= paths.len());
        let lines = observer.note(now + Duration::from_secs(second), &state);
        assert!(lines.iter().all(|(path, line)| *path < paths.len() && !line.contains('\n')));
        let line = session.note(now + Duration::from_secs(second), &state.secure, "");
        assert!(line.is_none_or(|line| !format!("{line:?}").contains("\\n")));
        let _ = storm.note(now + Duration::from_secs(second), &state.port);
        assert!(sizes.note(&state, "eu0").len() <= 3);
        assert!(statistics::lines(&state, &names).iter().all(|line| !line.contains('\n')));
    }
    resume::carry_over(&mut state, resume::Lasting { peer: true, health: false });
}

/// Messages about interfaces.
pub fn news(bytes: &[u8]) {
    link::news(bytes, 5, Some(&("br0".to_owned(), 9)));
}
