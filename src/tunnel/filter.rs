//! Filters of the mirror modes, compiled by libpcap.
//!
//! On a live handle of the interface, closed at once: only that tells libpcap what the kernel does with VLAN tags, so that
//! `vlan` works although the tag is no longer in the frame. A handle without an interface cannot.

use privsep::ipc::BpfInstruction;

use crate::Error;

/// Longest program that the kernel takes (`BPF_MAXINSNS`).
const MAX: usize = 4096;

/// Compiles a filter for an interface; an empty one lets everything pass.
pub fn compile(interface: &str, filter: &str) -> Result<Vec<BpfInstruction>, Error> {
    let fail = |error: &dyn std::fmt::Display| Error::failure(format!("interface {interface:?}: {error}"));
    let capture = pcap::Capture::from_device(interface).and_then(|capture| capture.snaplen(i32::from(u16::MAX)).open());
    let capture = capture.map_err(|error| match &error {
        pcap::Error::PcapError(text) if text.contains("No such device") => {
            fail(&"no such interface; `ip link` lists them")
        }
        error => fail(error),
    })?;
    if capture.get_datalink() != pcap::Linktype::ETHERNET {
        return Err(fail(&"does not carry Ethernet frames; name an Ethernet interface"));
    }
    if filter.is_empty() {
        return Ok(Vec::new());
    }
    let program = capture.compile(filter, true).map_err(|error| wrong(filter, error))?;
    // The crate keeps the fields to itself but prints them: code, jump if true, jump if false, operand.
    let parse = |text: String| -> Option<BpfInstruction> {
        let fields: Vec<u32> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
        let [code, jt, jf, k] = fields[..] else { return None };
        Some(BpfInstruction { code: code.try_into().ok()?, jt: jt.try_into().ok()?, jf: jf.try_into().ok()?, k })
    };
    let instructions: Option<Vec<_>> = program.get_instructions().iter().map(|one| parse(one.to_string())).collect();
    match instructions {
        Some(instructions) if instructions.len() <= MAX => Ok(instructions),
        _ => Err(wrong(filter, pcap::Error::PcapError(format!("its program is longer than {MAX} instructions")))),
    }
}

fn wrong(filter: &str, error: pcap::Error) -> Error {
    let error = match error {
        pcap::Error::PcapError(text) => text,
        error => error.to_string(),
    };
    Error::configuration(format!(
        "filter {filter:?}: {error}; must be a filter as tcpdump takes it, see pcap-filter(7)"
    ))
}

/// Whether a filter is one, without an interface and without privilege.
pub fn check(filter: &str) -> Result<(), Error> {
    let dead = pcap::Capture::dead(pcap::Linktype::ETHERNET).map_err(|error| wrong(filter, error))?;
    dead.compile(filter, true).map(drop).map_err(|error| wrong(filter, error))
}
