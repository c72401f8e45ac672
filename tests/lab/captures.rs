//! Captures of what real programs sent: `tests/captures/`.

use std::path::Path;

use pcap::{BpfProgram, Capture, Error, Linktype};

/// All of them.
pub const CAPTURES: [&str; 7] = ["syslog", "dns", "http", "dhcp", "neighbours", "datagrams", "vlan"];

/// The frames of one capture, their VLAN tags in place.
pub fn capture(name: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/captures/{name}.pcap"));
    let mut file = Capture::from_file(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut frames = Vec::new();
    loop {
        match file.next_packet() {
            Ok(packet) => {
                assert_eq!(packet.data.len(), packet.header.len as usize, "{name}: a frame was cut");
                frames.push(packet.data.to_vec());
            }
            Err(Error::NoMorePackets) => return frames,
            Err(error) => panic!("{name}: {error}"),
        }
    }
}

/// A filter as libpcap applies it to a file, without a kernel.
pub fn offline(filter: &str) -> BpfProgram {
    let program = Capture::dead(Linktype::ETHERNET).and_then(|dead| dead.compile(filter, true));
    program.unwrap_or_else(|error| panic!("filter {filter:?}: {error}"))
}
