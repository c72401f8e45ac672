//! Warnings about a tunnel that runs, but perhaps not as intended, and errors in its paths. Pure functions of its description.

use std::net::IpAddr;

use privsep::ipc::Policy;

use super::{Path, Port, Remote, Tunnel, resolve};

/// Warnings for the log and for `ethudp check`.
pub fn of(tunnel: &Tunnel) -> Vec<String> {
    let mut lines = tunnel.wire.warnings(tunnel);
    lines.extend(of_the_direction(tunnel));
    lines.extend(of_a_policy_for_one_path(tunnel));
    lines.extend(of_an_address_in_a_bridge(&tunnel.port));
    lines.extend(of_a_low_mtu_in_a_bridge(&tunnel.port));
    lines.extend(tunnel.paths.iter().filter_map(|path| of_a_route_into_itself(tunnel, path)));
    lines.extend(tunnel.paths.iter().filter_map(|path| of_a_mirror_to_a_name(tunnel, path)));
    lines
}

fn of_the_direction(tunnel: &Tunnel) -> Option<String> {
    let nothing = !tunnel.rules.send && !tunnel.rules.receive;
    nothing.then(|| "direction \"none\" (-r with -w): no frame is forwarded in either direction".into())
}

fn of_a_policy_for_one_path(tunnel: &Tunnel) -> Option<String> {
    let (policy, unused) = (tunnel.policy, tunnel.policy != Policy::Failover && tunnel.paths.len() == 1);
    unused.then(|| format!("policy = {:?}: without effect with one path; add another [[path]]", policy.name()))
}

fn of_an_address_in_a_bridge(port: &Port) -> Option<String> {
    let Port::Tap { addresses, bridge: Some(bridge), .. } = port else { return None };
    let (address, prefix) = addresses.first()?;
    Some(format!(
        "tap.address {address}/{prefix}: an interface in a bridge does not use its own address; set it on the bridge: ip \
         addr add {address}/{prefix} dev {bridge}"
    ))
}

/// Warning about an MTU below Ethernet's: a bridge has the least MTU of its ports, and the hosts in its network do not learn it.
fn of_a_low_mtu_in_a_bridge(port: &Port) -> Option<String> {
    const ETHERNET: u32 = 1500;
    let Port::Tap { interface_mtu: Some(mtu), bridge: Some(bridge), .. } = port else { return None };
    (*mtu < ETHERNET).then(|| {
        format!(
            "tap.mtu = {mtu}: lowers the MTU of bridge {bridge:?}, which then silently drops longer frames of all its \
             ports; remove tap.mtu to keep the bridge's MTU"
        )
    })
}

/// Warning about an end of a path inside the tunnel's own network, whose route may lead into the tunnel.
fn of_a_route_into_itself(tunnel: &Tunnel, path: &Path) -> Option<String> {
    let Port::Tap { addresses, .. } = &tunnel.port else { return None };
    let host = match &path.remote {
        Remote::Fixed(remote) => &remote.host,
        Remote::Learned { host, .. } => host.as_ref()?,
    };
    let ends: Vec<IpAddr> = [host, &path.local.host].into_iter().filter_map(|host| host.parse().ok()).collect();
    let (end, (address, prefix)) =
        ends.iter().find_map(|end| Some((end, addresses.iter().find(|a| holds(a, end))?)))?;
    let pinned = path.device.is_some() && *end != *address;
    (!pinned).then(|| {
        format!(
            "tap.address {address}/{prefix}: network contains {end} of path {}, so the tunnel's datagrams may loop into \
             it; set another network",
            path.local
        )
    })
}

/// Warning about the name of a peer that need not answer: the path follows every answer of a name server.
fn of_a_mirror_to_a_name(tunnel: &Tunnel, path: &Path) -> Option<String> {
    let name = resolve::remote_name(path).filter(|_| !tunnel.is_answered())?;
    Some(format!(
        "remote name {name:?}: a mirror needs no answer of the peer, so its copies go to any address that a name server \
         gives, at once; set an IP address as path.remote"
    ))
}

/// Whether a network holds an address.
fn holds((network, prefix): &(IpAddr, u8), address: &IpAddr) -> bool {
    let bits = |address: &IpAddr| match address {
        IpAddr::V4(address) => u128::from(u32::from(*address)) << 96,
        IpAddr::V6(address) => u128::from(*address),
    };
    let outside = u128::MAX.checked_shl(128 - u32::from(*prefix)).unwrap_or(0);
    network.is_ipv4() == address.is_ipv4() && (bits(network) ^ bits(address)) & outside == 0
}

/// Refuses paths that cannot work.
///
/// # Errors
/// Number of a path, its key, and a line for the user: the path leads to itself, or two paths have one address, port and device.
pub fn refuse(tunnel: &Tunnel) -> Result<(), (usize, &'static str, String)> {
    for (number, path) in tunnel.paths.iter().enumerate() {
        let local = &path.local;
        if matches!(&path.remote, Remote::Fixed(remote) if remote == local) {
            let message = format!("path {local}: remote is the local address; must be the address of the other end");
            return Err((number, "remote", message));
        }
        let same = |other: &&Path| other.local == *local && other.device == path.device;
        if tunnel.paths[..number].iter().find(same).is_some() {
            let message = format!("path {local}: two paths have this local address; set another port for one");
            return Err((number, "local", message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use privsep::ipc::Cipher;

    use super::*;
    use crate::tunnel::{Classic, Wire, cipher};

    fn tunnel(mode: &str, paths: &[(&str, &str)]) -> Tunnel {
        let paths = paths.iter().map(|(local, remote)| format!("[[path]]\nlocal = {local:?}\nremote = {remote:?}\n"));
        let text = format!("{mode}\n{}", paths.collect::<String>());
        crate::tunnel::file::from_text(&format!("wire = \"classic\"\n{text}"), "a", std::path::Path::new("")).unwrap()
    }

    fn classic(tunnel: &mut Tunnel) -> &mut Classic {
        let Wire::Classic(classic) = &mut tunnel.wire else { panic!("not classic") };
        classic
    }

    fn warns(tunnel: &Tunnel, words: &str) -> bool {
        of(tunnel).iter().any(|line| line.contains(words))
    }

    const HERE: &str = "192.0.2.1:6000";
    const TAP: &str = "mode = \"tap\"\n[tap]\naddress = [\"10.8.0.1/24\", \"fd00::1/64\"]";

    #[test]
    fn mirror_to_a_name_is_warned() {
        let mirror = "mode = \"mirror\"\n[mirror]\ninterface = \"eth0\"";
        for (mode, remote, warned) in
            [(mirror, "peer.example:6000", true), (mirror, "192.0.2.2:6000", false), (TAP, "peer.example:6000", false)]
        {
            assert_eq!(
                warns(&tunnel(mode, &[(HERE, remote)]), "remote name \"peer.example\": a mirror"),
                warned,
                "{remote}"
            );
        }
    }

    #[test]
    fn unauthenticated_peer_is_warned() {
        let mut open = tunnel(TAP, &[(HERE, "any")]);
        assert!(warns(&open, "path 192.0.2.1:6000: any sender of a datagram becomes the peer"));
        classic(&mut open).cipher = Cipher::Aes128;
        assert!(!warns(&open, "any sender of a datagram"));
        classic(&mut open).cipher = Cipher::Xor;
        assert!(warns(&open, "any sender of a datagram"));
        classic(&mut open).password = cipher::password("password", b"secret".to_vec()).unwrap();
        assert!(!warns(&open, "any sender of a datagram"));
        assert!(!warns(&tunnel(TAP, &[(HERE, "192.0.2.2:6000")]), "any sender of a datagram"));
    }

    #[test]
    fn mirror_with_password_is_warned() {
        const MIRROR: &str = "mode = \"mirror\"\n[mirror]\ninterface = \"eth1\"";
        for (remote, expected) in [("192.0.2.2:6000", true), ("any", false)] {
            let mut mirror = tunnel(MIRROR, &[(HERE, remote)]);
            assert!(!warns(&mirror, "password: a mirror does not send it"));
            classic(&mut mirror).password = cipher::password("password", b"secret".to_vec()).unwrap();
            assert_eq!(warns(&mirror, "password: a mirror does not send it"), expected, "{remote}");
        }
    }

    #[test]
    fn peer_inside_tunnel_network_is_warned() {
        for (local, remote, inside) in [
            (HERE, "192.0.2.2:6000", false),
            (HERE, "10.8.0.2:6000", true),
            ("10.8.0.7:6000", "192.0.2.2:6000", true),
            ("10.8.1.7:6000", "10.8.2.2:6000", false),
            ("[fd00:0:0:1::1]:1", "[fd00::77]:1", true),
            ("[fd00:0:0:1::1]:1", "[fd00:0:0:1::2]:1", false),
            (HERE, "any", false),
            (HERE, "peer.example:6000", false),
        ] {
            let found = warns(&tunnel(TAP, &[(local, remote)]), "set another network");
            assert_eq!(found, inside, "{local} to {remote}");
        }
        let half = TAP.replace("10.8.0.1/24", "130.8.0.1/1");
        assert!(warns(&tunnel(&half, &[(HERE, "192.0.2.2:6000")]), "tap.address 130.8.0.1/1"));
    }

    #[test]
    fn address_on_bridge_port_is_warned() {
        let bridge = TAP.replace("mode = \"tap\"", "mode = \"bridge\"").replace("[tap]", "[tap]\nbridge = \"br0\"");
        assert!(warns(&tunnel(&bridge, &[(HERE, "192.0.2.2:6000")]), "ip addr add 10.8.0.1/24 dev br0"));
        assert!(!warns(&tunnel(TAP, &[(HERE, "192.0.2.2:6000")]), "ip addr"));
    }

    #[test]
    fn mtu_below_bridge_is_warned() {
        for (mtu, words) in [("mtu = 1400", true), ("mtu = 1500", false), ("", false)] {
            let bridge = format!("mode = \"bridge\"\n[tap]\nbridge = \"br0\"\n{mtu}");
            assert_eq!(warns(&tunnel(&bridge, &[(HERE, "192.0.2.2:6000")]), "drops longer frames"), words, "{mtu}");
        }
        assert!(!warns(&tunnel(&format!("{TAP}\nmtu = 1400"), &[(HERE, "192.0.2.2:6000")]), "drops longer frames"));
    }

    #[test]
    fn key_length_and_no_direction_are_warned() {
        let mut aes = tunnel(TAP, &[(HERE, "192.0.2.2:6000")]);
        classic(&mut aes).cipher = Cipher::Aes128;
        for (key, words) in [
            ("123456", "default \"123456\", which is public"),
            ("fifteen-bytes-k", "has 15 bytes, aes-128 takes 16: the rest is filled with zeros"),
            ("seventeen-bytes-k", "has 17 bytes, aes-128 takes 16: the rest is ignored"),
        ] {
            classic(&mut aes).key = cipher::key("key", key.into()).unwrap();
            assert!(warns(&aes, words), "{key}: {:?}", of(&aes));
        }
        classic(&mut aes).key = cipher::key("key", b"sixteen-bytes-ke".to_vec()).unwrap();
        assert_eq!(of(&aes).len(), 1, "{:?}", of(&aes));
        (aes.rules.send, aes.rules.receive) = (false, false);
        assert!(warns(&aes, "no frame is forwarded"));
    }

    #[test]
    fn self_and_duplicate_paths_are_refused() {
        let mut paths = tunnel(TAP, &[(HERE, "192.0.2.2:6000"), ("192.0.2.1:6001", "192.0.2.2:6000")]);
        assert_eq!(refuse(&paths), Ok(()));
        paths.paths[1].local.port = 6000;
        assert!(refuse(&paths).unwrap_err().2.contains("path 192.0.2.1:6000: two paths have this local address"));
        paths.paths[1].device = Some("wan1".into());
        assert_eq!(refuse(&paths), Ok(()));
        paths.paths[0].remote = Remote::Fixed(paths.paths[0].local.clone());
        assert!(refuse(&paths).unwrap_err().2.contains("remote is the local address"));
    }
}
