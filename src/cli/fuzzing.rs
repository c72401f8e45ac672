//! What the fuzz targets of the supervisor call: any text is a tunnel or an error of one line; whatever a worker says is taken
//! or refused; whatever netlink says is understood or not.

#![allow(clippy::missing_panics_doc)] // To panic is what it is for.

use std::ffi::OsString;
use std::path::Path;

use nix::libc::RTM_NEWLINK;
use privsep::netlink::{self, Link};

use crate::cli::{Command, classic, convert};
use crate::supervise::fuzzing as supervise;
use crate::tunnel::{file, vlan_map};

/// The text as classic arguments (a line each), as a VLAN map and as a file.
pub fn text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let arguments: Vec<_> = text.lines().map(OsString::from).collect();
    // A map would be read from the disk; its text is tried below.
    if !arguments.iter().any(|argument| argument == "-map" || argument == "-m") {
        match classic::parse(&arguments, &mut Vec::new()) {
            Ok(Command::Run(tunnel, _)) => {
                if let Ok(file) = convert::text(&tunnel, None) {
                    assert!(toml::from_str::<toml::Table>(&file).is_ok(), "{file}");
                }
            }
            Ok(_) => {}
            Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
        }
    }
    if let Err(error) = vlan_map::parse("map", text) {
        assert!(!error.contains('\n'), "{error}");
    }
    if let Err(error) = file::from_text(text, "name", Path::new("/nonexistent")) {
        assert!(!error.contains('\n'), "{error}");
    }
}

/// The data as a message of a worker, and what the supervisor makes of it.
pub fn report(data: &[u8]) {
    supervise::report(data);
}

/// The data as messages of rtnetlink(7).
pub fn netlink(data: &[u8]) {
    if let Ok(reply) = netlink::answer(data, RTM_NEWLINK) {
        let _ = Link::parse(&reply);
        let _ = netlink::permanent_address(&reply, 1);
    }
    supervise::news(data);
}

#[cfg(test)]
mod tests {
    fn replay(target: &str, check: fn(&[u8])) {
        let directory = format!("{}/fuzz/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
        let seeds: Vec<_> = std::fs::read_dir(directory).unwrap().collect();
        assert!(seeds.len() > 5, "{target}: {} seeds", seeds.len());
        for seed in seeds {
            check(&std::fs::read(seed.unwrap().path()).unwrap());
        }
    }

    /// Seeds that no longer decode would let the fuzzer begin with noise.
    #[test]
    fn stored_reports_are_reports() {
        use privsep::ipc::{self, FromWorker};
        let directory = format!("{}/fuzz/seeds/report", env!("CARGO_MANIFEST_DIR"));
        let seeds = std::fs::read_dir(directory).unwrap().map(|seed| std::fs::read(seed.unwrap().path()).unwrap());
        let reports = seeds.filter(|seed| matches!(ipc::from_packet(seed), Ok(FromWorker::Report(_)))).count();
        assert!(reports >= 5, "{reports} reports");
    }

    #[test]
    fn stored_seeds_hold() {
        replay("text", super::text);
        replay("report", super::report);
        replay("netlink", super::netlink);
    }
}
