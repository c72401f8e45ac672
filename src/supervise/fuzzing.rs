//! What fuzzing reaches of the life of a tunnel: what comes from a worker, and from netlink.

use std::path::Path;
use std::time::{Duration, Instant};

use privsep::ipc::{self, FromWorker, Remote, State, WorkerConfig};

use super::observe::Observer;
use super::sizes::Sizes;
use super::{link, resume, statistics};
use crate::{config, log};

/// A tunnel with two paths, one of which learns its peer.
const FILE: &str = "mode = \"tap\"\nwire = \"classic\"\n[[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"192.0.2.2:6000\"\n\
                    [[path]]\nlocal = \"192.0.2.1:6001\"\nremote = \"any\"\n";

/// A packet of a worker, again and again a second apart, as the supervisor takes it.
#[allow(clippy::missing_panics_doc)] // To panic is what it is for.
pub fn report(packet: &[u8]) {
    let said = match ipc::from_packet::<FromWorker>(packet) {
        Ok(FromWorker::Report(state)) => state,
        Ok(FromWorker::Dying(text)) => {
            assert!(!log::untrusted(&text).contains(char::is_control));
            return;
        }
        _ => return,
    };
    let Ok(tunnel) = config::from_text(FILE, "a", Path::new("")) else { unreachable!("{FILE}") };
    let address = |text: &str| text.parse().unwrap();
    let fixed = Remote::Fixed(ipc::Address(address("192.0.2.2:6000")));
    let learned = Remote::Learned { address: None, port: None };
    let addresses = vec![(address("192.0.2.1:6000"), fixed), (address("192.0.2.1:6001"), learned)];
    let names: Vec<_> = addresses.iter().map(|(local, _)| (local.to_string(), String::new())).collect();
    let (now, mut state) = (Instant::now(), State::default());
    let mut observer = Observer::new(now, &tunnel, addresses.iter().map(|(_, remote)| *remote));
    let mut sizes = Sizes::default();
    for second in 0..20 {
        state = resume::accept(&state, said.clone(), &addresses);
        assert!(usize::from(state.active) < addresses.len() && state.paths.len() <= addresses.len());
        let lines = observer.note(now + Duration::from_secs(second), &state);
        assert!(lines.iter().all(|(path, line)| *path < addresses.len() && !line.contains('\n')));
        assert!(sizes.note(&state, "eu0").len() <= 2);
        assert!(statistics::lines(&state, &names).iter().all(|line| !line.contains('\n')));
    }
    let mut config = WorkerConfig { state, ..WorkerConfig::default() };
    resume::carry_over(&mut config);
}

/// Messages about interfaces.
pub fn news(bytes: &[u8]) {
    link::news(bytes, 5, Some(&("br0".to_owned(), 9)));
}
