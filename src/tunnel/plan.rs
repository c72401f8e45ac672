//! Plan for the helper, from a tunnel's description.

use privsep::ipc::{Address, BpfInstruction, Dscp, Identity, PathPlan, Plan, PortPlan, Remote, TapPlan};

use super::resolve::Resolved;
use super::{Port, Tunnel, mac, only};

/// File with the identity of the host (machine-id(5)).
const MACHINE: &str = "/etc/machine-id";

/// Plan for the helper: every handle that this tunnel will ever need.
///
/// `filter` is the compiled one of a mirror. `interface_mtu` is for a TAP whose description has none. `stored` tells whether a
/// stored TAP is passed with the plan, and `store` whether the service manager can store one.
pub fn plan(
    tunnel: &Tunnel,
    become_user: Option<Identity>,
    paths: &[Resolved],
    filter: Vec<BpfInstruction>,
    interface_mtu: Option<u32>,
    stored: bool,
    store: bool,
) -> Plan {
    let runs = tunnel.wire.opens_in_place();
    let paths = tunnel.paths.iter().zip(paths).map(|(path, &Resolved { local, remote, .. })| {
        let fixed = if let Remote::Fixed(remote) = remote { Some(remote) } else { None };
        // A wildcard socket is bound to no address, so that it keeps working after a change of address or route.
        let wildcard = local.ip().is_unspecified();
        PathPlan {
            local: Address(local),
            remote: fixed.filter(|_| !wildcard),
            filter: fixed.filter(|_| wildcard).map(|Address(remote)| only::only(remote)).unwrap_or_default(),
            device: path.device.clone(),
            mark: path.mark,
            runs,
            whole: tunnel.secure().is_some(),
            class: tunnel.rules.dscp.map_or(0, Dscp::class),
            reports_class: tunnel.rules.ecn,
        }
    });
    let paths = paths.collect();
    let port = match &tunnel.port {
        Port::Tap { name, addresses, interface_mtu: given, bridge, groups, follow } => PortPlan::Tap(TapPlan {
            name: name.clone(),
            addresses: addresses.clone(),
            bridge: bridge.clone(),
            groups: *groups,
            interface_mtu: given.or(interface_mtu),
            mac: mac::of(tunnel, std::fs::read_to_string(MACHINE).ok().as_deref()),
            follow: *follow,
        }),
        Port::Raw { interface, promiscuous } => {
            PortPlan::Raw { interface: interface.clone(), promiscuous: *promiscuous }
        }
        Port::Mirror { interface, .. } => PortPlan::Mirror { interface: interface.clone(), filter },
    };
    Plan { become_user, port, paths, stored, store }
}
