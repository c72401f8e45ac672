//! The file format of `ethudp up` and `ethudp check`.
//!
//! Every key of the format is known here. One that this version does not support is refused by name, never ignored.

mod lines;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use privsep::ipc::Secret;
use privsep::ipc::{Cipher, Rules};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::service::files;
use crate::tunnel::bounds::{self, CLASSIC_PATHS};
use crate::tunnel::{self, Origin, Port, Repair, Tunnel, advice};
use crate::{Error, log};

/// A file, word for word.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Document {
    mode: Option<String>,
    wire: Option<String>,
    tap: Option<Tap>,
    raw: Option<Raw>,
    #[serde(default)]
    path: Vec<PathTable>,
    classic: Option<Classic>,
    direction: Option<String>,
    run: Option<String>,
    exit_after_s: Option<u64>,
    mirror: Option<Mirror>,
    secure: Option<toml::Value>,
    #[serde(default)]
    require_confinement: bool,
    repair: Option<String>,
    rules: Option<RulesTable>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RulesTable {
    mss: Option<toml::Value>,
    loop_check: Option<bool>,
    vlan_map: Option<BTreeMap<String, u16>>,
    vlan_map_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Tap {
    name: Option<String>,
    #[serde(default)]
    address: Vec<String>,
    bridge: Option<String>,
    mtu: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Raw {
    interface: String,
    promiscuous: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Mirror {
    interface: String,
    filter: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct PathTable {
    local: String,
    remote: String,
    device: Option<String>,
    mark: Option<u32>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Classic {
    cipher: Option<String>,
    key_file: Option<PathBuf>,
    password_file: Option<PathBuf>,
    lz4: Option<u8>,
    fragment_mtu: Option<u16>,
}

/// What a mode can be.
const MODES: &str = "\"raw\", \"tap\", \"bridge\", \"mirror\" or \"mirror-udp\"";

/// Reads a tunnel that is to run from a file; its name is the file's stem.
///
/// # Errors
/// Also where somebody else could have written a command that we are to run.
pub fn load(file: &Path) -> Result<Tunnel, Error> {
    let (tunnel, flaw) = read(file)?;
    match flaw {
        Some(flaw) if tunnel.run.is_some() => {
            Err(Error::configuration(format!("{}: {flaw}, as it has `run`", file.display())))
        }
        Some(flaw) => {
            log::warning(&format!("{}: {flaw}", file.display()));
            Ok(tunnel)
        }
        None => Ok(tunnel),
    }
}

/// A tunnel, and why its file is not to be trusted, if so.
fn read(file: &Path) -> Result<(Tunnel, Option<String>), Error> {
    let (text, metadata) = files::text(file).map_err(|error| {
        let right = match error.kind() {
            ErrorKind::NotFound => "; must be the file of a tunnel, or its NAME for /etc/ethudp/NAME.toml",
            ErrorKind::PermissionDenied => {
                "; must be readable for the user that starts the tunnel, by the unit for the group ethudp-status"
            }
            _ => "",
        };
        Error::configuration(format!("file {}: {error}{right}", file.display()))
    })?;
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let tunnel = from_text(&text, &stem, file.parent().unwrap_or(Path::new("")));
    let tunnel = tunnel.map_err(|error| Error::configuration(format!("{}: {error}", file.display())))?;
    Ok((tunnel, files::foreign_hand(&metadata)))
}

/// The tunnel of this name that a file's text describes; the files it names are relative to `directory`.
pub fn from_text(text: &str, name: &str, directory: &Path) -> Result<Tunnel, String> {
    let tunnel = assemble(parse(text)?, &tunnel::name(name)?, directory);
    let tunnel = tunnel.and_then(|tunnel| advice::refuse(&tunnel).map(|()| tunnel));
    tunnel.map_err(|error| match lines::of(text, &error) {
        Some(line) => format!("line {line}: {error}"),
        None => error,
    })
}

fn parse(text: &str) -> Result<Document, String> {
    toml::from_str(text).map_err(|error| {
        if toml::from_str::<toml::Table>(text).is_ok_and(|table| table.get("path").is_some_and(toml::Value::is_table)) {
            return "[path]: write [[path]], as there can be several".into();
        }
        let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
        let message = error.message().replace('\n', " ");
        line.map_or_else(|| message.clone(), |line| format!("line {line}: {message}"))
    })
}

fn assemble(file: Document, name: &str, directory: &Path) -> Result<Tunnel, String> {
    let mode = file.mode.as_deref().ok_or_else(|| format!("mode is missing: must be {MODES}"))?;
    if !["raw", "tap", "bridge", "mirror", "mirror-udp"].contains(&mode) {
        return Err(format!("mode = {mode:?}: must be {MODES}"));
    }
    match file.wire.as_deref() {
        Some("classic") => {}
        Some("secure") | None => {
            return Err(
                "wire = \"secure\", the default, is not supported by this version yet: write wire = \"classic\"".into(),
            );
        }
        Some(other) => return Err(format!("wire = {other:?}: must be \"classic\"")),
    }
    refuse(&[("[secure]", &file.secure)])?;
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
    if file.path.len() > CLASSIC_PATHS {
        return Err(format!("[[path]]: there are {}; at most {CLASSIC_PATHS} are possible", file.path.len()));
    }
    let paths = file.path.into_iter().map(path).collect::<Result<_, _>>()?;
    let classic = classic(file.classic.unwrap_or_default(), directory)?;
    let checks = port.checks_loops(receive);
    let (rules, auto_mss) = rules(file.rules.unwrap_or_default(), directory, send, receive, checks)?;
    let (name, run) = (name.to_owned(), file.run);
    Ok(Tunnel {
        name,
        port,
        paths,
        classic,
        rules,
        auto_mss,
        run,
        exit_after: file.exit_after_s.filter(|&ticks| ticks > 0),
        require_confinement: file.require_confinement,
        repair: file.repair.map_or(Ok(Repair::default()), |text| tunnel::repair("repair", &text))?,
        user: None,
        origin: Origin::File,
    })
}

/// What is done to frames, and whether the MSS is to be what fits.
fn rules(
    table: RulesTable,
    directory: &Path,
    send: bool,
    receive: bool,
    checks: bool,
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
        let id = |id: Option<u16>| id.filter(|&id| id < 4096);
        let (Some(local), Some(remote)) = (id(local.parse().ok()), id(Some(remote))) else {
            return Err(format!("rules.vlan-map: {local} = {remote}: both must be VLAN ids, 0 to 4095"));
        };
        tunnel::add_vlan(&mut vlan_map, (local, remote)).map_err(|error| format!("rules.vlan-map: {error}"))?;
    }
    if let Some(file) = table.vlan_map_file {
        if !vlan_map.is_empty() {
            return Err("rules.vlan-map and rules.vlan-map-file: only one of them is possible".into());
        }
        let what = format!("VLAN map {}", directory.join(&file).display());
        let (text, _) = files::text(&directory.join(&file)).map_err(|error| format!("{what}: {error}"))?;
        vlan_map = tunnel::vlan_map(&what, &text)?;
    }
    let loop_check = table.loop_check.unwrap_or(checks);
    Ok((Rules { send, receive, loop_check, mss, vlan_map }, auto_mss))
}

/// Refuses by name what this version does not support.
fn refuse(keys: &[(&str, &Option<toml::Value>)]) -> Result<(), String> {
    match keys.iter().find(|(_, value)| value.is_some()) {
        Some((name, _)) => Err(format!("{name}: is not supported by this version yet")),
        None => Ok(()),
    }
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
            interface: tunnel::interface("raw.interface", &raw.interface)?,
            promiscuous: raw.promiscuous.unwrap_or(true),
        }),
        (.., Some(mirror)) => Ok(Port::Mirror {
            interface: tunnel::interface("mirror.interface", &mirror.interface)?,
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
        (_, bridge) => bridge.map(|name| tunnel::interface("tap.bridge", &name)).transpose()?,
    };
    if let Some(mtu) = tap.mtu {
        bounds::check("tap.mtu", mtu, &bounds::INTERFACE_MTU)?;
    }
    let addresses = tap.address.iter().map(|text| address(text)).collect::<Result<_, _>>()?;
    let name = tap.name.map(|name| tunnel::interface("tap.name", &name)).transpose()?;
    Ok(Port::Tap { name, addresses, interface_mtu: tap.mtu, bridge })
}

fn address(text: &str) -> Result<(IpAddr, u8), String> {
    let form = || format!("tap.address {text:?}: must be ADDRESS/PREFIX, as in \"10.8.0.1/24\"");
    let (address, prefix) = text.split_once('/').ok_or_else(form)?;
    let address = address.parse().map_err(|_| form())?;
    Ok((address, tunnel::prefix(address, prefix).map_err(|error| format!("tap.address {text:?}: {error}"))?))
}

fn path(table: PathTable) -> Result<tunnel::Path, String> {
    let local = tunnel::endpoint("local", &table.local)?;
    let remote = tunnel::remote(&table.remote)?;
    let device = table.device.map(|name| tunnel::interface("device", &name)).transpose()?;
    Ok(tunnel::Path { local, remote, device, mark: table.mark })
}

fn classic(table: Classic, directory: &Path) -> Result<tunnel::Classic, String> {
    let cipher = tunnel::cipher("classic.cipher", table.cipher.as_deref().unwrap_or("none"))?;
    let lz4 = table.lz4.unwrap_or(0);
    bounds::check("classic.lz4", lz4, &bounds::LZ4)?;
    if let Some(mtu) = table.fragment_mtu {
        bounds::check("classic.fragment-mtu", mtu, &bounds::FRAGMENT_MTU)?;
    }
    let key = match (cipher, table.key_file) {
        (Cipher::None, None) => Secret::default(),
        (Cipher::None, Some(_)) => return Err("classic.key-file: is of no use without a cipher".into()),
        (_, None) => return Err("classic.key-file is missing: the cipher needs a key".into()),
        (_, Some(file)) => secret("key file", &file, directory, tunnel::key)?,
    };
    let password = match table.password_file {
        None => Secret::default(),
        Some(file) => secret("password file", &file, directory, tunnel::password)?,
    };
    Ok(tunnel::Classic { cipher, key, password, lz4, fragment_mtu: table.fragment_mtu })
}

/// A relative path starts at `CREDENTIALS_DIRECTORY` if it is there, else at the configuration's directory.
fn secret_path(file: &Path, directory: &Path) -> PathBuf {
    let credential = std::env::var_os("CREDENTIALS_DIRECTORY").map(|directory| Path::new(&directory).join(file));
    credential.filter(|path| file.is_relative() && path.exists()).unwrap_or_else(|| directory.join(file))
}

/// Reads a key or a password; one line ending behind it is not part of it.
fn secret(
    what: &str,
    file: &Path,
    directory: &Path,
    check: impl Fn(&str, Vec<u8>) -> Result<Secret, String>,
) -> Result<Secret, String> {
    let file = secret_path(file, directory);
    let name = || format!("{what} {}", file.display());
    let (mut open, metadata) = files::open(&file).map_err(|error| {
        let right = match error.kind() {
            ErrorKind::PermissionDenied => "; to the unit it is handed over by LoadCredential=, as `ethudp check` says",
            _ => "",
        };
        format!("{}: {error}{right}", name())
    })?;
    if let Some(flaw) = files::foreign_eye(&metadata) {
        return Err(format!("{}: {flaw}", name()));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(tunnel::MAX_KEY + 3));
    let limit = tunnel::MAX_KEY as u64 + 3;
    open.by_ref().take(limit).read_to_end(&mut bytes).map_err(|error| format!("{}: {error}", name()))?;
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    check(&name(), line.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAP: &str = "mode = \"tap\"\nwire = \"classic\"\n[tap]\nname = \"eu0\"\naddress = [\"10.8.0.1/24\", \"fd00::1/64\"]\n\
                       mtu = 1400\n[[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"[2001:db8::1]:6001\"\n";

    fn read(text: &str) -> Result<Tunnel, String> {
        from_text(text, "test", Path::new(""))
    }

    #[test]
    fn a_tap_tunnel() {
        let tunnel = read(TAP).unwrap();
        let Port::Tap { name, addresses, interface_mtu, bridge } = tunnel.port else { panic!() };
        assert_eq!((name.as_deref(), addresses.len(), interface_mtu, bridge), (Some("eu0"), 2, Some(1400), None));
        assert_eq!(tunnel.paths[0].remote.to_string(), "[2001:db8::1]:6001");
    }

    #[test]
    fn what_is_wrong_or_not_supported_is_named() {
        for (change, words) in [
            (("mode = \"tap\"\n", ""), "mode is missing"),
            (("\"tap\"", "\"tun\""), "mode = \"tun\""),
            (("\"tap\"", "\"mirror\""), "[tap]: is of no use in mode \"mirror\""),
            (("wire = \"classic\"\n", ""), "write wire = \"classic\""),
            (("\"classic\"", "\"secure\""), "write wire = \"classic\""),
            (("[tap]", "frob = 1\n[tap]"), "unknown field `frob`"),
            (("[tap]", "direction = \"up\"\n[tap]"), "direction = \"up\": must be"),
            (("[tap]\n", "[rules]\nmss = \"yes\"\n[tap]\n"), "rules.mss = \"yes\": must be 1 to 65535, or \"auto\""),
            (("[tap]\n", "[rules]\nmss = 70000\n[tap]\n"), "rules.mss = 70000: must be"),
            (("[tap]\n", "[rules]\nvlan-map = { 1 = 2, 3 = 2 }\n[tap]\n"), "VLAN 3 to 2 contradicts 1 to 2"),
            (("[tap]\n", "[classic]\nlz4 = 10\n[tap]\n"), "classic.lz4 = 10: must be"),
            (("[tap]\n", "[classic]\nfragment-mtu = 1\n[tap]\n"), "classic.fragment-mtu = 1: must be"),
            (("[tap]\n", "[classic]\ncipher = \"rot13\"\n[tap]\n"), "\"rot13\": unknown cipher"),
            (("[tap]\n", "[classic]\ncipher = \"xor\"\n[tap]\n"), "key-file is missing"),
            (("/24", "/33"), "mask \"33\""),
            (("10.8.0.1/24", "10.8.0.1"), "must be ADDRESS/PREFIX"),
            (("1400", "20000"), "tap.mtu = 20000"),
            (("1400", "\"x\""), "line 6"),
            ((":6000", ":0"), "\"0\": must be"),
            ((":6000", ":70000"), "\"70000\": must be"),
            (("\"eu0\"", "\"an-interface-name\""), "has 17 bytes"),
            (("[2001:db8::1]:6001", "anybody"), "remote \"anybody\": must be"),
            (("[[path]]", "[path]"), "[path]: write [[path]]"),
            (("[2001:db8::1]", "192.0.2.300"), "remote \"192.0.2.300\": is no IPv4"),
            (("[2001:db8::1]", "[2001:db8::x]"), "remote \"2001:db8::x\": is no IPv6"),
            (("[[path]]", "[raw]\ninterface = \"eth1\"\n[[path]]"), "[raw]: is of no use"),
        ] {
            let text = TAP.replacen(change.0, change.1, 1);
            assert_ne!(text, TAP);
            let error = read(&text).map(|_| ()).unwrap_err();
            assert!(error.contains(words) && !error.contains('\n'), "{change:?}: {error}");
        }
    }
}
