//! From the words of a file to the tunnel that they mean.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;

use privsep::ipc::{Cipher, Rules, Secret};
use zeroize::Zeroizing;

use super::document::{Classic, Document, Mirror, PathTable, Raw, RulesTable, Secure, Tap};
use super::secret::{self, secret};
use crate::service::files;
use crate::tunnel::bounds::{self, PATHS};
use crate::tunnel::{self, Port, Repair, Tunnel, Wire, address, cipher, identifier, keys, names, repair, vlan_map};

/// What a mode can be.
const MODES: &str = "\"raw\", \"tap\", \"bridge\", \"mirror\" or \"mirror-udp\"";

/// The tunnel of this name; the relative files that it names are in `directory`.
pub fn assemble(file: Document, name: &str, directory: &Path) -> Result<Tunnel, String> {
    let mode = file.mode.as_deref().ok_or_else(|| format!("mode is missing: must be {MODES}"))?;
    if !["raw", "tap", "bridge", "mirror", "mirror-udp"].contains(&mode) {
        return Err(format!("mode = {mode:?}: must be {MODES}"));
    }
    let wire = wire(mode, file.wire.as_deref(), file.classic, file.secure, directory)?;
    let (send, receive) = match file.direction.as_deref() {
        None | Some("both") => (true, true),
        Some("send") => (true, false),
        Some("receive") => (false, true),
        Some("none") => (false, false),
        Some(other) => {
            return Err(format!("direction = {other:?}: must be \"both\", \"send\", \"receive\" or \"none\""));
        }
    };
    let port = port(mode, file.tap, file.raw, file.mirror)?;
    // A mirror gives nothing back.
    let receive = receive && !port.is_mirror();
    if file.path.is_empty() {
        return Err("[[path]] is missing: at least one, with local and remote".into());
    }
    if file.path.len() > PATHS {
        return Err(format!("[[path]]: there are {}; at most {PATHS} are possible", file.path.len()));
    }
    let paths = file.path.into_iter().map(path).collect::<Result<_, _>>()?;
    let checks = port.checks_loops(receive);
    let ids = if matches!(wire, Wire::Classic(_)) { vlan_map::NUMBERS } else { vlan_map::IDS };
    let (rules, auto_mss) = rules(file.rules.unwrap_or_default(), directory, send, receive, checks, &ids)?;
    let (name, run) = (name.to_owned(), file.run);
    Ok(Tunnel {
        name,
        port,
        paths,
        wire,
        rules,
        auto_mss,
        run,
        exit_after: file.exit_after_s.filter(|&ticks| ticks > 0),
        require_confinement: file.require_confinement,
        repair: file.repair.map_or(Ok(Repair::default()), |text| repair::parse("repair", &text))?,
        user: None,
    })
}

/// What is done to frames, and whether the MSS is to be what fits.
fn rules(
    table: RulesTable,
    directory: &Path,
    send: bool,
    receive: bool,
    checks: bool,
    ids: &RangeInclusive<u16>,
) -> Result<(Rules, bool), String> {
    let (mss, auto_mss) = match table.mss {
        None => (None, false),
        Some(toml::Value::String(auto)) if auto == "auto" => (None, true),
        Some(value) => {
            let mss = value.as_integer().and_then(|mss| u16::try_from(mss).ok()).filter(|&mss| mss > 0);
            let mss = mss.ok_or_else(|| format!("rules.mss = {value}: must be 1 to 65535, or \"auto\""))?;
            (Some((mss, mss)), false)
        }
    };
    let mut vlan_map = Vec::new();
    for (local, remote) in table.vlan_map.unwrap_or_default() {
        let id = |id: Option<u16>| id.filter(|id| ids.contains(id));
        let (Some(local), Some(remote)) = (id(local.parse().ok()), id(Some(remote))) else {
            let (least, greatest) = (ids.start(), ids.end());
            return Err(format!("rules.vlan-map: {local} = {remote}: both must be VLAN ids, {least} to {greatest}"));
        };
        vlan_map::add(&mut vlan_map, (local, remote)).map_err(|error| format!("rules.vlan-map: {error}"))?;
    }
    if let Some(file) = table.vlan_map_file {
        if !vlan_map.is_empty() {
            return Err("rules.vlan-map and rules.vlan-map-file: only one of them is possible".into());
        }
        let (path, opened) = secret::open(&file, directory);
        let what = format!("VLAN map {}", path.display());
        let (text, _) = opened.and_then(files::read).map_err(|error| format!("{what}: {error}"))?;
        vlan_map = vlan_map::parse(&what, &text)?;
    }
    let loop_check = table.loop_check.unwrap_or(checks);
    Ok((Rules { send, receive, loop_check, mss, vlan_map }, auto_mss))
}

fn wire(
    mode: &str,
    name: Option<&str>,
    classic: Option<Classic>,
    secure: Option<Secure>,
    directory: &Path,
) -> Result<Wire, String> {
    match name {
        Some("classic") if secure.is_some() => Err("[secure]: is of no use with wire = \"classic\"".into()),
        Some("classic") => Ok(Wire::Classic(self::classic(classic.unwrap_or_default(), directory)?)),
        Some("secure") | None if mode == "mirror-udp" => Err(format!(
            "wire{}: mode \"mirror-udp\" sends bare UDP to whoever collects it, which nothing can protect; must be \"classic\"",
            if name.is_some() { " = \"secure\"" } else { " is missing" }
        )),
        Some("secure") | None if classic.is_some() => Err(format!(
            "[classic]: is of no use with wire = \"secure\"{}; for the other wire write wire = \"classic\"",
            if name.is_some() { "" } else { ", the default" }
        )),
        Some("secure") | None => match secure {
            Some(secure) => Ok(Wire::Secure(Box::new(self::secure(secure, directory)?))),
            None => Err(
                "[secure] is missing: wire \"secure\", the default, needs it; `ethudp init` makes such a file, and \
                         wire = \"classic\" is the other wire"
                    .into(),
            ),
        },
        Some(other) => Err(format!("wire = {other:?}: must be \"secure\" or \"classic\"")),
    }
}

fn secure(table: Secure, directory: &Path) -> Result<tunnel::Secure, String> {
    let private = private_key(table.private_key_file.as_deref(), directory)?;
    let what = "secure.peer-public-key";
    let peer = table.peer_public_key.ok_or_else(|| {
        format!("{what} is missing: must be what the other end's `ethudp pubkey` says; `ethudp init NAME --peer LINE` adds it")
    })?;
    let exposed: Zeroizing<[u8; 32]> = Zeroizing::new(std::array::from_fn(|index| private.expose()[index]));
    keys::check_not_private(what, &exposed, &peer)?;
    let peer_key = keys::parse_public(what, &peer)?;
    keys::check_peer(what, &exposed, &peer_key)?;
    let psk = match table.psk_file {
        None => Secret::default(),
        Some(file) => secret("pre-shared key file", &file, directory, psk)?,
    };
    if let Some(mtu) = table.path_mtu {
        bounds::check("secure.path-mtu", mtu, &bounds::PATH_MTU)?;
    }
    let (public_key, path_mtu) = (keys::public(&exposed), table.path_mtu);
    let tunnel_id =
        table.tunnel_id.map_or(Ok(identifier::NONE), |text| identifier::parse("secure.tunnel-id", &text))?;
    let peer_slot = bounds::checked("secure.peer-slot", table.peer_slot.unwrap_or(0), &bounds::SLOT)?;
    let seconds = table.ping_interval_s.unwrap_or(1);
    let ping_interval = bounds::checked("secure.ping-interval-s", seconds, &bounds::PING_INTERVAL)?;
    Ok(tunnel::Secure {
        private_key: private,
        public_key,
        peer_key,
        psk,
        path_mtu,
        tunnel_id,
        peer_slot,
        ping_interval,
    })
}

/// The private key in this file.
pub fn private_key(file: Option<&Path>, directory: &Path) -> Result<Secret, String> {
    let file = file.ok_or(
        "secure.private-key-file is missing: must name a file with what `ethudp genkey` says, as `ethudp init` makes it",
    )?;
    secret("private key file", file, directory, key)
}

/// A key of the secure wire from its text.
fn key(what: &str, text: &[u8]) -> Result<Secret, String> {
    keys::parse(what, text).map(|key| keys::secret(&key))
}

fn psk(what: &str, text: &[u8]) -> Result<Secret, String> {
    let key = keys::parse(what, text)?;
    keys::check_psk(what, &key).map(|()| keys::secret(&key))
}

fn port(mode: &str, tap: Option<Tap>, raw: Option<Raw>, mirror: Option<Mirror>) -> Result<Port, String> {
    let own = match mode {
        "raw" => "[raw]",
        "tap" | "bridge" => "[tap]",
        _ => "[mirror]",
    };
    let given = [("[tap]", tap.is_some()), ("[raw]", raw.is_some()), ("[mirror]", mirror.is_some())];
    if let Some((name, _)) = given.iter().find(|(name, given)| *given && *name != own) {
        return Err(format!("{name}: is of no use in mode {mode:?}"));
    }
    match (tap, raw, mirror) {
        (Some(tap), ..) => tap_port(mode, tap),
        (_, Some(raw), _) => Ok(Port::Raw {
            interface: names::interface("raw.interface", &raw.interface)?,
            promiscuous: raw.promiscuous.unwrap_or(true),
        }),
        (.., Some(mirror)) => Ok(Port::Mirror {
            interface: names::interface("mirror.interface", &mirror.interface)?,
            filter: mirror.filter.unwrap_or_default(),
            udp: mode == "mirror-udp",
        }),
        _ if mode == "tap" => Ok(Port::Tap { name: None, addresses: Vec::new(), interface_mtu: None, bridge: None }),
        _ => Err(format!("{own} is missing: mode {mode:?} needs it")),
    }
}

fn tap_port(mode: &str, tap: Tap) -> Result<Port, String> {
    let bridge = match (mode, tap.bridge) {
        ("bridge", None) => return Err("tap.bridge is missing: mode \"bridge\" needs it".into()),
        ("tap", Some(_)) => return Err("tap.bridge: is of use only in mode \"bridge\"".into()),
        (_, bridge) => bridge.map(|name| names::interface("tap.bridge", &name)).transpose()?,
    };
    if let Some(mtu) = tap.mtu {
        bounds::check("tap.mtu", mtu, &bounds::INTERFACE_MTU)?;
    }
    let addresses: Vec<(IpAddr, u8)> = tap.address.iter().map(|text| address(text)).collect::<Result<_, _>>()?;
    let twice = |number: &usize| addresses[..*number].iter().any(|own| own.0 == addresses[*number].0);
    if let Some((ip, prefix)) = (0..addresses.len()).find(twice).map(|number| addresses[number]) {
        return Err(format!("tap.address \"{ip}/{prefix}\": stands there twice; must stand there once"));
    }
    let name = tap.name.map(|name| names::interface("tap.name", &name)).transpose()?;
    Ok(Port::Tap { name, addresses, interface_mtu: tap.mtu, bridge })
}

fn address(text: &str) -> Result<(IpAddr, u8), String> {
    let form = || format!("tap.address {text:?}: must be ADDRESS/PREFIX, as in \"10.8.0.1/24\"");
    let (address, prefix) = text.split_once('/').ok_or_else(form)?;
    let address = address.parse().map_err(|_| form())?;
    let prefix = address::prefix(address, prefix).map_err(|error| format!("tap.address {text:?}: {error}"))?;
    if prefix == 0 {
        return Err(format!(
            "tap.address {text:?}: is in a network of all addresses, so all traffic of this host would go into the tunnel; must be \
             longer, as in /24"
        ));
    }
    Ok((address, prefix))
}

fn path(table: PathTable) -> Result<tunnel::Path, String> {
    if let Some(port) = table.local.strip_prefix("any:") {
        return Err(format!(
            "local {:?}: \"any\" is for remote; for any address of this host write \"0.0.0.0:{port}\"",
            table.local
        ));
    }
    let local = address::endpoint("local", &table.local)?;
    let remote = table.remote.ok_or_else(|| {
        let right = "must be the other end's, or \"any\"; `ethudp init NAME --peer LINE` adds it";
        format!("path {local}: its remote is missing: {right}")
    })?;
    let remote = address::remote(&remote)?;
    let device = table.device.map(|name| names::interface("device", &name)).transpose()?;
    Ok(tunnel::Path { local, remote, device, mark: table.mark })
}

fn classic(table: Classic, directory: &Path) -> Result<tunnel::Classic, String> {
    let cipher = cipher::parse("classic.cipher", table.cipher.as_deref().unwrap_or("none"))?;
    let lz4 = table.lz4.unwrap_or(0);
    bounds::check("classic.lz4", lz4, &bounds::LZ4)?;
    if let Some(mtu) = table.fragment_mtu {
        bounds::check("classic.fragment-mtu", mtu, &bounds::FRAGMENT_MTU)?;
    }
    let key = match (cipher, table.key_file) {
        (Cipher::None, None) => Secret::default(),
        (Cipher::None, Some(_)) => return Err("classic.key-file: is of no use without a cipher".into()),
        (_, None) => return Err("classic.key-file is missing: the cipher needs a key".into()),
        (_, Some(file)) => secret("key file", &file, directory, |what, key| cipher::key(what, key.to_vec()))?,
    };
    let password = match table.password_file {
        None => Secret::default(),
        Some(file) => secret("password file", &file, directory, |what, word| cipher::password(what, word.to_vec()))?,
    };
    Ok(tunnel::Classic { cipher, key, password, lz4, fragment_mtu: table.fragment_mtu })
}
