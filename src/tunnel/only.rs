//! Filter for a socket with a wildcard address and a fixed remote. Such a socket is not connected. A program of classic BPF has the
//! kernel drop datagrams of other senders before they take space in the receive buffer.

use std::net::{IpAddr, SocketAddr};

use privsep::ipc::BpfInstruction;

/// Operations of classic BPF (`linux/filter.h`).
const WORD: u16 = 0x20;
const HALF: u16 = 0x28;
const BYTE: u16 = 0x30;
const SHIFT_RIGHT: u16 = 0x74;
const IS: u16 = 0x15;
const RETURN: u16 = 0x06;
/// Offset of the IP header (`SKF_NET_OFF`). In the filter of a UDP socket, offset 0 is the UDP header.
const IP: u32 = (-0x10_0000_i32).cast_unsigned();

/// Program that admits only datagrams of this address and port, over the IP version of the address.
pub fn only(remote: SocketAddr) -> Vec<BpfInstruction> {
    let (version, source, address) = match remote.ip().to_canonical() {
        IpAddr::V4(address) => (4, 12, address.octets().to_vec()),
        IpAddr::V6(address) => (6, 8, address.octets().to_vec()),
    };
    let words = address.chunks(4).map(|word| word.iter().fold(0, |all, &byte| all << 8 | u32::from(byte)));
    let offsets = (IP + source..).step_by(4);
    let fields = [(HALF, 0, u32::from(remote.port())), (BYTE, IP, version)];
    let fields = fields.into_iter().chain(words.zip(offsets).map(|(word, offset)| (WORD, offset, word)));
    let step = |code, k| BpfInstruction { code, jt: 0, jf: 0, k };
    let mut program = Vec::new();
    for (load, offset, value) in fields {
        program.push(step(load, offset));
        // The version is the upper half of its byte.
        program.extend((load == BYTE).then(|| step(SHIFT_RIGHT, 4)));
        program.push(step(IS, value));
    }
    program.extend([step(RETURN, u32::MAX), step(RETURN, 0)]);
    let last = program.len() - 1;
    for (number, step) in program.iter_mut().enumerate().filter(|(_, step)| step.code == IS) {
        step.jf = u8::try_from(last - number - 1).unwrap_or(u8::MAX);
    }
    program
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::time::Duration;

    use privsep::sys::option;

    use super::*;

    #[test]
    fn kernel_admits_only_the_peer() {
        for (local, peer, here, strangers) in [
            ("0.0.0.0:0", "127.0.0.2:0", "127.0.0.1", ["127.0.0.3:0", "127.0.0.2:0"]),
            ("[::]:0", "127.0.0.2:0", "127.0.0.1", ["127.0.0.3:0", "[::1]:0"]),
            ("[::]:0", "[::1]:0", "::1", ["[::1]:0", "127.0.0.2:0"]),
        ] {
            let [socket, peer] = [local, peer].map(|address| UdpSocket::bind(address).unwrap());
            option::lock_filter(socket.as_fd(), &only(peer.local_addr().unwrap())).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let port = socket.local_addr().unwrap().port();
            for stranger in strangers.map(|address| UdpSocket::bind(address).unwrap()) {
                let here = if stranger.local_addr().unwrap().is_ipv4() { "127.0.0.1" } else { "::1" };
                stranger.send_to(b"foreign", (here, port)).unwrap();
            }
            peer.send_to(b"ours", (here, port)).unwrap();
            let mut buffer = [0; 10];
            let length = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"ours", "{local}");
        }
    }

    #[test]
    fn filter_checks_address_and_port() {
        let [socket, peer] = ["0.0.0.0:0", "127.0.0.2:0"].map(|address| UdpSocket::bind(address).unwrap());
        let peer_at = peer.local_addr().unwrap();
        let alike = UdpSocket::bind(("127.0.0.3", peer_at.port())).unwrap();
        option::lock_filter(socket.as_fd(), &only(peer_at)).unwrap();
        let port = socket.local_addr().unwrap().port();
        alike.send_to(b"foreign", ("127.0.0.1", port)).unwrap();
        peer.send_to(b"ours", ("127.0.0.1", port)).unwrap();
        let mut buffer = [0; 10];
        assert_eq!(socket.recv_from(&mut buffer).unwrap(), (4, peer_at));
    }
}
