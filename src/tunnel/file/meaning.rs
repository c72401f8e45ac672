//! Tunnel that a parsed file describes.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;

use privsep::ipc::{Cipher, Dscp, Guard, MAX_PATHS, Policy, Rules, Secret};
use zeroize::Zeroizing;

use super::document::{Classic, Document, Mirror, PathTable, Raw, RulesTable, Secure, Tap};
use super::place::{Mistake, Place};
use super::secret::{self, secret};
use crate::service::files;
use crate::tunnel::{
    self, Port, Repair, Tunnel, Wire, address, cipher, ethertypes, identifier, keys, link_local, names, repair,
    vlan_map,
};

const TAP: &str = "[tap]";
const RAW: &str = "[raw]";
const MIRROR: &str = "[mirror]";
const PATH: &str = "[[path]]";
const SECURE: &str = "[secure]";
const CLASSIC: &str = "[classic]";
const RULES: &str = "[rules]";

type Result<T> = std::result::Result<T, Mistake>;

/// Assembles the tunnel of this name. Relative file names start at `directory`.
pub fn assemble(file: Document, name: &str, directory: &Path) -> Result<Tunnel> {
    let no_mode = || {
        let place = Place::key("", "mode");
        place.missing("must be \"raw\", \"tap\", \"bridge\", \"mirror\" or \"mirror-udp\"")
    };
    let mode = file.mode.as_deref().ok_or_else(no_mode)?;
    let wire = wire(mode, file.wire.as_deref(), file.classic, file.secure, directory)?;
    let (send, receive) = match file.direction.as_deref() {
        Some("send") => (true, false),
        Some("receive") => (false, true),
        Some("none") => (false, false),
        _ => (true, true),
    };
    let port = port(mode, file.tap, file.raw, file.mirror)?;
    // A mirror writes nothing to the local side.
    let receive = receive && !port.is_mirror();
    if file.path.is_empty() {
        return Err(Place::table(PATH).missing("add at least one, with local and remote"));
    }
    if file.path.len() > MAX_PATHS {
        let message = format!("{} paths; at most {MAX_PATHS} are possible", file.path.len());
        return Err(Place::table(PATH).at(MAX_PATHS).wrong(message));
    }
    let policy = policy(file.policy.as_deref(), &wire, &file.path)?;
    let paths = file.path.into_iter().enumerate().map(|(index, table)| path(table, index)).collect::<Result<_>>()?;
    let checks = port.checks_loops(receive);
    let ids = if matches!(wire, Wire::Classic(_)) { vlan_map::NUMBERS } else { vlan_map::IDS };
    if file.rules.as_ref().is_some_and(|rules| rules.ecn == Some(true)) {
        let place = Place::key(RULES, "ecn");
        if matches!(wire, Wire::Classic(_)) {
            return Err(
                place.wrong("true needs wire = \"secure\": a peer on the classic wire cannot carry congestion marks")
            );
        }
        if port.is_mirror() {
            return Err(place.wrong("true is not valid in a mirror: no sender reacts to marks of copies"));
        }
    }
    let (rules, auto_mss) = rules(file.rules.unwrap_or_default(), directory, send, receive, checks, &ids)?;
    let (name, run) = (name.to_owned(), file.run);
    Ok(Tunnel {
        name,
        port,
        paths,
        policy,
        wire,
        rules,
        auto_mss,
        run,
        exit_after: file.exit_after_s.filter(|&ticks| ticks > 0),
        require_confinement: file.require_confinement,
        repair: file
            .repair
            .map_or(Ok(Repair::default()), |text| Place::key("", "repair").check(|what| repair::parse(what, &text)))?,
        user: None,
    })
}

/// Policy of this name. The peer of the classic wire would deliver both copies of a frame, and weights are for shared flows.
fn policy(name: Option<&str>, wire: &Wire, paths: &[PathTable]) -> Result<Policy> {
    let policies = [Policy::Duplicate, Policy::Balance];
    let policy = policies.into_iter().find(|policy| name == Some(policy.name())).unwrap_or_default();
    if policy != Policy::Failover && matches!(wire, Wire::Classic(_)) {
        let message = format!("{:?}: not valid with wire = \"classic\"; must be \"failover\"", policy.name());
        return Err(Place::key("", "policy").mistake(format!("policy = {message}")));
    }
    let weighted = paths.iter().position(|path| path.weight.is_some());
    if let Some(index) = weighted.filter(|_| policy != Policy::Balance) {
        return Err(Place::key(PATH, "weight").at(index).wrong("valid only with policy = \"balance\""));
    }
    Ok(policy)
}

/// Rules for frames, and whether the MSS follows from the underlay.
fn rules(
    table: RulesTable,
    directory: &Path,
    send: bool,
    receive: bool,
    checks: bool,
    ids: &RangeInclusive<u16>,
) -> Result<(Rules, bool)> {
    let (mss, auto_mss) = match table.mss {
        None => (None, false),
        Some(toml::Value::String(_)) => (None, true),
        Some(value) => {
            let mss = value.as_integer().and_then(|mss| u16::try_from(mss).ok());
            (mss.map(|mss| (mss, mss)), false)
        }
    };
    let mut vlan_map = Vec::new();
    for (index, (local, remote)) in table.vlan_map.unwrap_or_default().into_iter().enumerate() {
        let place = Place::key(RULES, "vlan-map").at(index);
        let id = |id: Option<u16>| id.filter(|id| ids.contains(id));
        let (Some(local), Some(remote)) = (id(local.parse().ok()), id(remote.try_into().ok())) else {
            let (least, greatest) = (ids.start(), ids.end());
            return Err(place.wrong(format!("{local} = {remote}: both must be VLAN ids, {least} to {greatest}")));
        };
        vlan_map::add(&mut vlan_map, (local, remote)).map_err(|error| place.wrong(error))?;
    }
    if let Some(file) = table.vlan_map_file {
        let place = Place::key(RULES, "vlan-map-file");
        if !vlan_map.is_empty() {
            let message = "rules.vlan-map and rules.vlan-map-file: only one is possible; remove one";
            return Err(place.mistake(message.into()));
        }
        let (path, opened) = secret::open(&file, directory);
        let what = format!("VLAN map {}", path.display());
        let read = opened.and_then(files::read).map_err(|error| format!("{what}: {error}"));
        vlan_map = place.check(|_| vlan_map::parse(&what, &read?.0))?;
    }
    let loop_check = table.loop_check.unwrap_or(checks);
    let guard = Guard {
        broadcast: table.broadcast_limit,
        multicast: table.multicast_limit,
        stations: table.mac_limit,
        ethertypes: Place::key(RULES, "ethertypes").check(|what| ethertypes::parse(what, &table.ethertypes))?,
        loops: table.loop_detection,
    };
    let fixed = |value: &toml::Value| value.as_integer().and_then(|dscp| u8::try_from(dscp).ok()).map(Dscp::Fixed);
    let dscp = table.dscp.map(|value| fixed(&value).unwrap_or(Dscp::Copy));
    let ecn = table.ecn.unwrap_or(false);
    Ok((Rules { send, receive, loop_check, mss, vlan_map, guard, dscp, ecn, ..Rules::default() }, auto_mss))
}

fn wire(
    mode: &str,
    name: Option<&str>,
    classic: Option<Classic>,
    secure: Option<Secure>,
    directory: &Path,
) -> Result<Wire> {
    let default = if name.is_some() { "" } else { ", the default" };
    if name == Some("classic") {
        if secure.is_some() {
            return Err(Place::table(SECURE).wrong("not valid with wire = \"classic\""));
        }
        return Ok(Wire::Classic(self::classic(classic.unwrap_or_default(), directory)?));
    }
    if mode == "mirror-udp" {
        let written = if name.is_some() { " = \"secure\"" } else { " is missing" };
        let message = "mode \"mirror-udp\" sends unprotected UDP; must be \"classic\"";
        return Err(Place::key("", "wire").mistake(format!("wire{written}: {message}")));
    }
    if classic.is_some() {
        let message = format!("not valid with wire = \"secure\"{default}; for the classic wire add wire = \"classic\"");
        return Err(Place::table(CLASSIC).wrong(message));
    }
    let missing = || {
        Place::table(SECURE).missing(
            "required by wire \"secure\", the default; create the file with `ethudp init`, or add wire = \"classic\"",
        )
    };
    Ok(Wire::Secure(Box::new(self::secure(secure.ok_or_else(missing)?, directory)?)))
}

fn secure(table: Secure, directory: &Path) -> Result<tunnel::Secure> {
    let private = private_key(table.private_key_file.as_deref(), directory)?;
    let place = Place::key(SECURE, "peer-public-key");
    let peer = table.peer_public_key.ok_or_else(|| {
        place.missing("must be the output of `ethudp pubkey` at the other end; `ethudp init NAME --peer LINE` adds it")
    })?;
    let exposed: Zeroizing<[u8; 32]> = Zeroizing::new(std::array::from_fn(|index| private.expose()[index]));
    let peer_key = place.check(|what| {
        keys::check_not_private(what, &exposed, &peer)?;
        let peer_key = keys::parse_public(what, &peer)?;
        keys::check_peer(what, &exposed, &peer_key).map(|()| peer_key)
    })?;
    let psk = table.psk_file.map_or_else(
        || Ok(Secret::default()),
        |file| Place::key(SECURE, "psk-file").check(|_| secret("pre-shared key file", &file, directory, psk)),
    )?;
    let tunnel_id = table.tunnel_id.map_or(Ok(identifier::NONE), |text| {
        Place::key(SECURE, "tunnel-id").check(|what| identifier::parse(what, &text))
    })?;
    Ok(tunnel::Secure {
        private_key: private,
        public_key: keys::public(&exposed),
        peer_key,
        psk,
        path_mtu: table.path_mtu.and_then(|mtu| mtu.as_integer()).and_then(|mtu| u16::try_from(mtu).ok()),
        tunnel_id,
        peer_slot: table.peer_slot.unwrap_or(0),
        ping_interval: table.ping_interval_s.unwrap_or(2),
    })
}

/// Private key in this file.
pub fn private_key(file: Option<&Path>, directory: &Path) -> Result<Secret> {
    let place = Place::key(SECURE, "private-key-file");
    let missing = || place.missing("must name a file with the output of `ethudp genkey`; `ethudp init` creates it");
    let file = file.ok_or_else(missing)?;
    place.check(|_| secret("private key file", file, directory, key))
}

/// Parses a key of the secure wire.
fn key(what: &str, text: &[u8]) -> std::result::Result<Secret, String> {
    keys::parse(what, text).map(|key| keys::secret(&key))
}

fn psk(what: &str, text: &[u8]) -> std::result::Result<Secret, String> {
    let key = keys::parse(what, text)?;
    keys::check_psk(what, &key).map(|()| keys::secret(&key))
}

fn port(mode: &str, tap: Option<Tap>, raw: Option<Raw>, mirror: Option<Mirror>) -> Result<Port> {
    let own = match mode {
        "raw" => RAW,
        "tap" | "bridge" => TAP,
        _ => MIRROR,
    };
    let given = [(TAP, tap.is_some()), (RAW, raw.is_some()), (MIRROR, mirror.is_some())];
    if let Some((name, _)) = given.iter().find(|(name, given)| *given && *name != own) {
        return Err(Place::table(name).wrong(format!("not valid in mode {mode:?}")));
    }
    match (tap, raw, mirror) {
        (Some(tap), ..) => tap_port(mode, tap),
        (_, Some(raw), _) => {
            Ok(Port::Raw { interface: required(RAW, raw.interface)?, promiscuous: raw.promiscuous.unwrap_or(true) })
        }
        (.., Some(mirror)) => Ok(Port::Mirror {
            interface: required(MIRROR, mirror.interface)?,
            filter: mirror.filter.unwrap_or_default(),
            udp: mode == "mirror-udp",
        }),
        _ if mode == "tap" => tap_port(mode, Tap::default()),
        _ => Err(Place::table(own).missing(format!("required in mode {mode:?}"))),
    }
}

/// Interface of a table that must have one.
fn required(table: &'static str, name: Option<String>) -> Result<String> {
    let place = Place::key(table, "interface");
    interface(place, Some(name.ok_or_else(|| place.missing("must be the name of an Ethernet interface"))?))
        .map(Option::unwrap_or_default)
}

fn interface(place: Place, name: Option<String>) -> Result<Option<String>> {
    name.map(|name| place.check(|what| names::interface(what, &name))).transpose()
}

fn tap_port(mode: &str, tap: Tap) -> Result<Port> {
    let place = Place::key(TAP, "bridge");
    match (mode, &tap.bridge) {
        ("bridge", None) => return Err(place.missing("required in mode \"bridge\"")),
        ("tap", Some(_)) => return Err(place.wrong("valid only in mode \"bridge\"")),
        _ => {}
    }
    let mut addresses: Vec<(IpAddr, u8)> = Vec::new();
    for (index, text) in tap.address.iter().enumerate() {
        let place = Place::key(TAP, "address").at(index);
        let address = place.check(|what| address(what, text))?;
        if addresses.iter().any(|known| known.0 == address.0) {
            return Err(place.mistake(format!("{place} {text:?}: listed twice; remove one")));
        }
        addresses.push(address);
    }
    let passes = Place::key(TAP, "pass-link-local");
    if mode == "tap" && !tap.pass_link_local.is_empty() {
        return Err(passes.wrong("valid only in mode \"bridge\""));
    }
    Ok(Port::Tap {
        name: interface(Place::key(TAP, "name"), tap.name)?,
        addresses,
        interface_mtu: tap.mtu,
        bridge: interface(place, tap.bridge)?,
        groups: passes.check(|what| link_local::groups(what, &tap.pass_link_local))?,
        follow: tap.carrier.as_deref() == Some("follow"),
    })
}

fn address(what: &str, text: &str) -> std::result::Result<(IpAddr, u8), String> {
    let form = || format!("{what} {text:?}: must be ADDRESS/PREFIX, as in \"10.8.0.1/24\"");
    let (address, prefix) = text.split_once('/').ok_or_else(form)?;
    let address = address.parse().map_err(|_| form())?;
    let prefix = address::prefix(address, prefix).map_err(|error| format!("{what} {text:?}: {error}"))?;
    if prefix == 0 {
        return Err(format!(
            "{what} {text:?}: prefix length 0 routes all traffic of this host into the tunnel; must be longer, as in /24"
        ));
    }
    Ok((address, prefix))
}

fn path(table: PathTable, index: usize) -> Result<tunnel::Path> {
    let place = |key| Place::key(PATH, key).at(index);
    let local = table.local.ok_or_else(|| place("local").missing(address::FORM))?;
    let local = place("local").check(|what| address::local(what, &local))?;
    let remote = table.remote.ok_or_else(|| {
        let right = "must be the address of the other end, or \"any\"; `ethudp init NAME --peer LINE` adds it";
        place("remote").mistake(format!("path {local}: remote is missing: {right}"))
    })?;
    let remote = place("remote").check(|what| address::remote(what, &remote))?;
    let device = interface(place("device"), table.device)?;
    let runs = table.segment.as_deref() != Some("never");
    Ok(tunnel::Path {
        local,
        remote,
        device,
        mark: table.mark,
        mtu: table.mtu,
        runs,
        weight: table.weight.unwrap_or(1),
    })
}

fn classic(table: Classic, directory: &Path) -> Result<tunnel::Classic> {
    let cipher = table.cipher.as_deref().unwrap_or("none");
    let cipher = Place::key(CLASSIC, "cipher").check(|what| cipher::parse(what, cipher))?;
    let place = Place::key(CLASSIC, "key-file");
    let key = match (cipher, table.key_file) {
        (Cipher::None, None) => Secret::default(),
        (Cipher::None, Some(_)) => return Err(place.wrong("not valid without a cipher; remove it or set cipher")),
        (_, None) => return Err(place.missing("required with a cipher")),
        (_, Some(file)) => {
            place.check(|_| secret("key file", &file, directory, |what, key| cipher::key(what, key.to_vec())))?
        }
    };
    let password =
        |file: &Path| secret("password file", file, directory, |what, word| cipher::password(what, word.to_vec()));
    let password = table.password_file.map_or_else(
        || Ok(Secret::default()),
        |file| Place::key(CLASSIC, "password-file").check(|_| password(&file)),
    )?;
    Ok(tunnel::Classic {
        cipher,
        key,
        password,
        lz4: table.lz4.unwrap_or(0),
        fragment_mtu: table.fragment_mtu,
        keepalive_ms: table.keepalive_ms,
    })
}
