//! MAC address of a TAP. It is the same at each start, so that neighbours need not learn another.

use sha2::{Digest, Sha256};

use super::{Port, Tunnel};

/// Prefix of the hash input, so that no other use of a key gives the same hash.
const LABEL: &[u8] = b"ethudp MAC address of a TAP, version 1";

/// MAC address of this tunnel's TAP on this host; `None` if the two ends cannot be told apart.
///
/// The address is locally administered and unicast. It differs between the ends, because their keys differ. Without keys it depends
/// on the host (`machine`, as in machine-id(5)) and on the addresses of the paths, because ends in containers may share a machine
/// id.
pub fn of(tunnel: &Tunnel, machine: Option<&str>) -> Option<[u8; 6]> {
    let Port::Tap { bridge, .. } = &tunnel.port else { return None };
    let mut hash = Sha256::new().chain_update(LABEL);
    if let Some(key) = tunnel.wire.public_key() {
        hash.update(key);
    } else {
        hash.update(machine?);
        for path in &tunnel.paths {
            hash.update(format!("\0{}\0{}", path.local, path.remote));
        }
    }
    let hash = hash.chain_update("\0").chain_update(&tunnel.name).finalize();
    let mut mac = [0; 6];
    mac.copy_from_slice(&hash[..6]);
    // A bridge adopts the least address of its ports. This one must not be the least; libvirt does the same.
    mac[0] = if bridge.is_some() { 0xfe } else { mac[0] & 0xfe | 0x02 };
    Some(mac)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::tunnel::{Wire, example, file};

    fn classic(local: &str, remote: &str) -> Tunnel {
        let text = format!("mode = \"tap\"\nwire = \"classic\"\n[[path]]\nlocal = {local:?}\nremote = {remote:?}\n");
        file::from_text(&text, "a", Path::new("")).unwrap()
    }

    #[test]
    fn mac_depends_on_key_and_name() {
        let mac = |name: &str, key: u8| {
            let mut tunnel = example::secure("");
            name.clone_into(&mut tunnel.name);
            let Wire::Secure(secure) = &mut tunnel.wire else { panic!() };
            secure.public_key = [key; 32];
            of(&tunnel, None).unwrap()
        };
        assert_eq!(mac("a", 1), mac("a", 1));
        assert!(mac("a", 1) != mac("a", 2) && mac("a", 1) != mac("b", 1));
        for key in 0..=255 {
            assert_eq!(mac("a", key)[0] & 3, 2, "unicast, locally administered");
        }
        assert_eq!(
            of(&example::secure("[tap]\naddress = [\"10.8.0.1/24\"]"), None),
            of(&example::secure(""), Some("x"))
        );
    }

    #[test]
    fn tap_keeps_bridge_mac() {
        let bridged = example::secure("[tap]\nname = \"eu0\"");
        let Port::Tap { name, .. } = bridged.port else { panic!() };
        let port = Port::Tap {
            name,
            addresses: Vec::new(),
            interface_mtu: None,
            bridge: Some("br0".into()),
            groups: 0,
            follow: false,
        };
        assert_eq!(of(&Tunnel { port, ..bridged }, None).unwrap()[0], 0xfe);
    }

    #[test]
    fn keyless_ends_differ_in_mac() {
        let ends = [classic("192.0.2.1:6000", "192.0.2.2:6000"), classic("192.0.2.2:6000", "192.0.2.1:6000")];
        assert!(ends.iter().all(|end| of(end, None).is_none()));
        assert_eq!(of(&ends[0], Some("one")), of(&ends[0], Some("one")));
        assert_ne!(of(&ends[0], Some("one")), of(&ends[1], Some("one")));
        assert_ne!(of(&ends[0], Some("one")), of(&ends[0], Some("other")));
        let behind_nat = [classic("0.0.0.0:6000", "any"), classic("0.0.0.0:6000", "192.0.2.1:6000")];
        assert_ne!(of(&behind_nat[0], Some("one")), of(&behind_nat[1], Some("one")));
    }
}
