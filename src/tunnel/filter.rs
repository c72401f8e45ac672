//! Filters of the mirror modes, compiled by libpcap.
//!
//! On a live handle of the interface, closed at once: only that tells libpcap what the kernel does with VLAN tags, so that
//! `vlan` works although the tag is no longer in the frame. A handle without an interface cannot.

use privsep::ipc::BpfInstruction;
use privsep::sys::supervisor::pcap::Libpcap;

use crate::Error;

/// Longest program that the kernel takes (`BPF_MAXINSNS`).
const MAX: usize = 4096;

/// Compiles a filter for an interface; an empty one lets everything pass.
pub fn compile(interface: &str, filter: &str) -> Result<Vec<BpfInstruction>, Error> {
    if filter.is_empty() {
        return Ok(Vec::new());
    }
    let library = load()?;
    let capture = library.live(interface).map_err(|error| match error {
        error if error.contains("No such device") => no_capture(interface, "no such interface; `ip link` lists them"),
        error => no_capture(interface, &error),
    })?;
    let program = capture.compile(filter).map_err(|error| wrong(filter, &error))?;
    if program.len() > MAX {
        return Err(wrong(filter, &format!("its program is longer than {MAX} instructions")));
    }
    Ok(program)
}

/// Whether a filter is one, without an interface and without privilege.
pub fn check(filter: &str) -> Result<(), Error> {
    if filter.is_empty() {
        return Ok(());
    }
    let library = load()?;
    library.dead().and_then(|capture| capture.compile(filter)).map(drop).map_err(|error| wrong(filter, &error))
}

fn load() -> Result<Libpcap, Error> {
    Libpcap::load().map_err(|error| {
        Error::configuration(format!(
            "libpcap, which compiles the filter of a mirror, cannot be loaded: {error}; install `libpcap0.8` (Debian, Ubuntu) or \
             `libpcap` (Fedora, RHEL), or leave out the filter"
        ))
    })
}

fn no_capture(interface: &str, what: &str) -> Error {
    Error::failure(format!("interface {interface:?}: {what}"))
}

fn wrong(filter: &str, what: &str) -> Error {
    Error::configuration(format!("filter {filter:?}: {what}; must be a filter as tcpdump takes it, see pcap-filter(7)"))
}
