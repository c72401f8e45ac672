//! What users do through a tunnel.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use super::{Namespace, PATIENCE};

/// Whether datagrams from one namespace to `address` in the other are answered, within `limit`.
pub fn udp_passes(from: &Namespace, to: &Namespace, address: &str, limit: Duration) -> bool {
    let address: IpAddr = address.parse().unwrap();
    let server = to.inside(|| UdpSocket::bind((address, 0)).unwrap());
    let client = from.inside(|| {
        let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
        let client = UdpSocket::bind((any, 0)).unwrap();
        client.connect(server.local_addr().unwrap()).unwrap();
        client
    });
    let step = Duration::from_millis(50);
    server.set_read_timeout(Some(step)).unwrap();
    client.set_read_timeout(Some(step)).unwrap();
    let mut buffer = [0; 64];
    for _ in 0..limit.as_millis() / step.as_millis() {
        let _ = client.send(b"are you there?");
        if let Ok((length, peer)) = server.recv_from(&mut buffer) {
            let _ = server.send_to(&buffer[..length], peer);
            if client.recv(&mut buffer).is_ok_and(|length| buffer[..length] == *b"are you there?") {
                return true;
            }
        }
    }
    false
}

/// Datagrams pass in both directions.
pub fn assert_udp(from: &Namespace, to: &Namespace, address: &str) {
    assert!(udp_passes(from, to, address, PATIENCE), "no answer from {address}");
}

/// `bytes` bytes pass by TCP to `address` and back, unchanged.
pub fn assert_tcp(from: &Namespace, to: &Namespace, address: &str, bytes: usize) {
    const LIMIT: Option<Duration> = Some(PATIENCE);
    let address: IpAddr = address.parse().unwrap();
    let listener = to.inside(|| TcpListener::bind((address, 0)).unwrap());
    let target: SocketAddr = listener.local_addr().unwrap();
    let data: Vec<u8> = (0..bytes).map(|at| u8::try_from(at % 251).unwrap()).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(LIMIT).unwrap();
            let mut received = vec![0; bytes];
            stream.read_exact(&mut received).unwrap();
            stream.write_all(&received).unwrap();
        });
        from.inside(|| {
            let mut stream = TcpStream::connect_timeout(&target, LIMIT.unwrap()).unwrap();
            stream.set_read_timeout(LIMIT).unwrap();
            stream.write_all(&data).unwrap();
            let mut echoed = vec![0; bytes];
            stream.read_exact(&mut echoed).unwrap();
            assert!(echoed == data, "TCP data changed on the way");
        });
    });
}
