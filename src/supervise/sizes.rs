//! What is too long for the local side or the underlay, or comes in a form that cannot be sent on: said at the start where it can
//! be seen, and once when it happens. Pure.

use privsep::ipc::State;

use super::underlay;
use crate::tunnel::resolve::Resolved;
use crate::tunnel::{Port, Tunnel};

/// What has been said of frames and datagrams that were too long, or too many in one.
#[derive(Debug, Default)]
pub struct Sizes {
    port: bool,
    path: bool,
    offload: bool,
}

impl Sizes {
    /// Lines for the log about what a report says for the first time.
    pub fn note(&mut self, state: &State, interface: &str) -> Vec<String> {
        let mut lines = Vec::new();
        if state.port.tx_dropped_oversize > 0 && !std::mem::replace(&mut self.port, true) {
            lines.push(format!(
                "interface {interface:?}: frames came that are longer than the MTU it has; they are dropped and counted \
                 (tx_dropped_oversize). Give it the MTU of the other end's local side, 4 bytes more for 802.1ad tags"
            ));
        }
        if state.port.rx_dropped_offload > 0 && !std::mem::replace(&mut self.offload, true) {
            lines.push(format!(
                "interface {interface:?}: superframes came that cannot be cut, as of TCP inside of GRE, IPIP or VXLAN, or of \
                 SCTP; they are dropped and counted (rx_dropped_offload). Switch them off here, `ethtool -K {interface} gro \
                 off`, and on the device of the inner tunnel, `ethtool -K DEVICE gso off tso off`"
            ));
        }
        let path = state.paths.iter().any(|path| path.counters.tx_dropped_oversize > 0);
        if path && !std::mem::replace(&mut self.path, true) {
            lines.push("datagrams are too long to be sent; they are dropped and counted (tx_dropped_oversize)".into());
        }
        lines
    }
}

/// What leaves by the secure wire in one datagram, of which the longest has so many bytes, for the log at the start; `own` is the
/// MTU of the local side.
pub fn whole(tunnel: &Tunnel, datagram: u16, own: u32) -> Option<String> {
    tunnel.secure()?;
    let tagged = !matches!(&tunnel.port, Port::Tap { bridge: None, .. });
    let fits = underlay::whole(datagram, tagged);
    let passes = if own > fits { ", which passes in pieces" } else { "" };
    Some(format!(
        "datagrams have up to {datagram} bytes: frames of an MTU of up to {fits} leave in one, longer ones in pieces; the local \
         side's MTU is {own}{passes}"
    ))
}

/// Whether frames that fill a TAP's MTU, which is `own`, go through the underlay in one piece; a line for the first path where they
/// do not.
pub fn fragments(tunnel: &Tunnel, own: u32, paths: &[Resolved]) -> Option<String> {
    let Port::Tap { bridge, .. } = &tunnel.port else { return None };
    // What TCP sends is made to fit, and what is split by us is not split by others.
    let split = tunnel.classic().is_none_or(|classic| classic.fragment_mtu.is_some());
    if tunnel.auto_mss || tunnel.rules.mss.is_some() || split {
        return None;
    }
    let known = paths.iter().filter_map(|path| Some((path, path.underlay_mtu?)));
    let mut short = known.map(|(path, under)| {
        (path.local, under, underlay::largest_interface_mtu(&tunnel.wire, path, under, bridge.is_some()))
    });
    let (local, under, fits) = short.find(|(_, _, fits)| *fits < own)?;
    let mss = fits.saturating_sub(40);
    // A bridge drops what is longer than its least MTU without a trace.
    let remedy = if bridge.is_some() {
        format!("TCP fits with mss = \"auto\" (-mss {mss})")
    } else {
        format!("what fits is an MTU of {fits} at both ends (tap.mtu), or for TCP mss = \"auto\" (-mss {mss})")
    };
    Some(format!(
        "frames of up to {own} bytes (MTU) become IP fragments on path {local}, whose underlay carries {under}: {remedy}"
    ))
}

#[cfg(test)]
mod tests {
    use privsep::ipc::{PathReport, Remote};

    use super::*;

    #[test]
    fn what_is_too_long_is_said_once_for_each_side() {
        let (mut sizes, mut state) =
            (Sizes::default(), State { paths: vec![PathReport::default()], ..State::default() });
        assert!(sizes.note(&state, "lan").is_empty());
        state.port.tx_dropped_oversize = 1;
        assert!(sizes.note(&state, "lan")[0].contains("\"lan\": frames came that are longer than the MTU"));
        state.paths[0].counters.tx_dropped_oversize = 7;
        assert_eq!(sizes.note(&state, "lan").len(), 1);
        assert!(sizes.note(&state, "lan").is_empty());
        state.port.rx_dropped_offload = 1;
        assert!(sizes.note(&state, "lan")[0].contains("`ethtool -K lan gro off`"));
        assert!(sizes.note(&state, "lan").is_empty());
    }

    #[test]
    fn the_secure_wire_says_what_leaves_in_one_datagram() {
        let line = |own| whole(&crate::tunnel::secure_example(""), 1472, own).unwrap();
        let fits =
            "datagrams have up to 1472 bytes: frames of an MTU of up to 1422 leave in one, longer ones in pieces";
        assert_eq!(line(1422), format!("{fits}; the local side's MTU is 1422"));
        assert_eq!(line(1500), format!("{fits}; the local side's MTU is 1500, which passes in pieces"));
    }

    #[test]
    fn a_tap_that_does_not_fit_is_told_what_fits() {
        let local = "192.0.2.1:6000".parse().unwrap();
        let remote = Remote::Learned { address: None, port: None };
        let with = |text: &str| {
            let file = format!(
                "mode = \"tap\"\nwire = \"classic\"\n{text}\n[[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"any\"\n"
            );
            crate::tunnel::file::from_text(&file, "a", std::path::Path::new("")).unwrap()
        };
        let line = |text: &str, underlay_mtu| {
            let tunnel = with(text);
            let Port::Tap { interface_mtu, .. } = tunnel.port else { panic!("{text}") };
            fragments(&tunnel, interface_mtu.unwrap_or(1500), &[Resolved { local, remote, underlay_mtu }])
        };
        let bridged = with("[tap]\nname = \"eu0\"");
        let port = Port::Tap { name: None, addresses: Vec::new(), interface_mtu: None, bridge: Some("br0".into()) };
        let bridged = Tunnel { port, ..bridged };
        let advice = fragments(&bridged, 1500, &[Resolved { local, remote, underlay_mtu: Some(1500) }]).unwrap();
        assert!(advice.contains("TCP fits with mss") && !advice.contains("tap.mtu"), "{advice}");
        // 1500 less 20 of IPv4, 8 of UDP, 14 of Ethernet.
        assert!(line("", Some(1500)).unwrap().contains("an MTU of 1458 at both ends"));
        assert!(line("[tap]\nmtu = 1459", Some(1500)).is_some());
        for (text, underlay_mtu) in [
            ("[tap]\nmtu = 1458", Some(1500)),
            ("", Some(1542)),
            ("", None),
            ("[rules]\nmss = 1400", Some(1500)),
            ("[rules]\nmss = \"auto\"", Some(1500)),
            ("[classic]\nfragment-mtu = 1400", Some(1500)),
        ] {
            assert_eq!(line(text, underlay_mtu), None, "{text}");
        }
    }
}
