//! The file format of `ethudp up` and `ethudp check`.
//!
//! Every key of the format is known here. One that this version does not support is refused by name, never ignored.

use std::fs::{self, File};
use std::io::Read;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use privsep::ipc::{Cipher, MAX_PATHS};
use privsep::secret::Secret;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::error::Context;
use crate::tunnel::{self, Port, Tunnel};
use crate::{Error, identity};

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
    direction: Option<toml::Value>,
    run: Option<toml::Value>,
    exit_after_s: Option<toml::Value>,
    mirror: Option<toml::Value>,
    secure: Option<toml::Value>,
    rules: Option<toml::Value>,
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
struct PathTable {
    local: String,
    remote: String,
    device: Option<String>,
    mark: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Classic {
    cipher: Option<String>,
    key_file: Option<PathBuf>,
    password_file: Option<toml::Value>,
    lz4: Option<toml::Value>,
    fragment_mtu: Option<toml::Value>,
}

/// `ethudp check`.
pub fn check(file: &Path) -> Result<(), Error> {
    let tunnel = load(file)?;
    println!("{}: tunnel {:?}, mode {}, wire classic: ok", file.display(), tunnel.name, tunnel.port.mode());
    Ok(())
}

/// Reads a tunnel from a file; its name is the file's stem.
pub fn load(file: &Path) -> Result<Tunnel, Error> {
    let text = fs::read_to_string(file).context(|| format!("file {}", file.display()))?;
    let parsed = parse(&text).and_then(|parsed| {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        assemble(parsed, &tunnel::name(&stem)?, file.parent().unwrap_or(Path::new("")))
    });
    parsed.map_err(|error| Error::failure(format!("{}: {error}", file.display())))
}

fn parse(text: &str) -> Result<Document, String> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
        let message = error.message().replace('\n', " ");
        line.map_or_else(|| message.clone(), |line| format!("line {line}: {message}"))
    })
}

fn assemble(file: Document, name: &str, directory: &Path) -> Result<Tunnel, String> {
    let mode = file.mode.as_deref().ok_or("mode is missing: must be \"raw\", \"tap\" or \"bridge\"")?;
    match mode {
        "raw" | "tap" | "bridge" => {}
        "mirror" | "mirror-udp" => return Err(format!("mode = {mode:?}: is not supported by this version yet")),
        _ => return Err(format!("mode = {mode:?}: must be \"raw\", \"tap\" or \"bridge\"")),
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
    refuse(&[
        ("direction", &file.direction),
        ("run", &file.run),
        ("exit-after-s", &file.exit_after_s),
        ("[mirror]", &file.mirror),
        ("[secure]", &file.secure),
        ("[rules]", &file.rules),
    ])?;
    let port = port(mode, file.tap, file.raw)?;
    if file.path.is_empty() {
        return Err("[[path]] is missing: at least one, with local and remote".into());
    }
    if file.path.len() > 1 {
        let limit = if file.path.len() > MAX_PATHS { "at most 2 paths, and " } else { "" };
        return Err(format!("[[path]]: {limit}a second path is not supported by this version yet"));
    }
    let paths = file.path.into_iter().map(path).collect::<Result<_, _>>()?;
    let (cipher, key) =
        file.classic.map_or(Ok((Cipher::None, Secret::default())), |table| classic(table, directory))?;
    Ok(Tunnel { name: name.to_owned(), port, paths, cipher, key, user: None, wait_for_names: true })
}

/// Refuses by name what this version does not support.
fn refuse(keys: &[(&str, &Option<toml::Value>)]) -> Result<(), String> {
    match keys.iter().find(|(_, value)| value.is_some()) {
        Some((name, _)) => Err(format!("{name}: is not supported by this version yet")),
        None => Ok(()),
    }
}

fn port(mode: &str, tap: Option<Tap>, raw: Option<Raw>) -> Result<Port, String> {
    match (mode, tap, raw) {
        ("raw", None, Some(raw)) => Ok(Port::Raw {
            interface: tunnel::interface("raw.interface", &raw.interface)?,
            promiscuous: raw.promiscuous.unwrap_or(true),
        }),
        ("raw", _, None) => Err("[raw] is missing: mode \"raw\" needs its interface".into()),
        ("raw", Some(_), _) => Err("[tap]: is of no use in mode \"raw\"".into()),
        (_, _, Some(_)) => Err(format!("[raw]: is of no use in mode {mode:?}")),
        ("bridge", None, _) => Err("[tap] is missing: mode \"bridge\" needs tap.bridge".into()),
        (_, None, _) => Ok(Port::Tap { name: None, addresses: Vec::new(), mtu: None, bridge: None }),
        (_, Some(tap), _) => tap_port(mode, tap),
    }
}

fn tap_port(mode: &str, tap: Tap) -> Result<Port, String> {
    let bridge = match (mode, tap.bridge) {
        ("bridge", None) => return Err("tap.bridge is missing: mode \"bridge\" needs it".into()),
        ("tap", Some(_)) => return Err("tap.bridge: is of use only in mode \"bridge\"".into()),
        (_, bridge) => bridge.map(|name| tunnel::interface("tap.bridge", &name)).transpose()?,
    };
    // 68 is the least MTU of IPv4 (RFC 791); 9216 makes frames of 9230 bytes, with a VLAN tag the limit of 9234.
    if let Some(mtu) = tap.mtu.filter(|mtu| !(68..=9216).contains(mtu)) {
        return Err(format!("tap.mtu = {mtu}: must be 68 to 9216"));
    }
    let addresses = tap.address.iter().map(|text| address(text)).collect::<Result<_, _>>()?;
    let name = tap.name.map(|name| tunnel::interface("tap.name", &name)).transpose()?;
    Ok(Port::Tap { name, addresses, mtu: tap.mtu, bridge })
}

fn address(text: &str) -> Result<(IpAddr, u8), String> {
    let form = || format!("tap.address {text:?}: must be ADDRESS/PREFIX, as in \"10.8.0.1/24\"");
    let (address, prefix) = text.split_once('/').ok_or_else(form)?;
    let address = address.parse().map_err(|_| form())?;
    Ok((address, tunnel::prefix(address, prefix)?))
}

fn path(table: PathTable) -> Result<tunnel::Path, String> {
    let local = tunnel::endpoint("local", &table.local)?;
    if table.remote == "any" {
        return Err("remote = \"any\": a peer behind NAT is not supported by this version yet".into());
    }
    let remote = tunnel::endpoint("remote", &table.remote)?;
    if remote.is_wildcard() {
        return Err(format!("remote {:?}: must be the address or name of the peer", table.remote));
    }
    let device = table.device.map(|name| tunnel::interface("device", &name)).transpose()?;
    Ok(tunnel::Path { local, remote, device, mark: table.mark })
}

fn classic(table: Classic, directory: &Path) -> Result<(Cipher, Secret), String> {
    refuse(&[
        ("classic.password-file", &table.password_file),
        ("classic.lz4", &table.lz4),
        ("classic.fragment-mtu", &table.fragment_mtu),
    ])?;
    let cipher = tunnel::cipher("classic.cipher", table.cipher.as_deref().unwrap_or("none"))?;
    match (cipher, table.key_file) {
        (Cipher::None, None) => Ok((cipher, Secret::default())),
        (Cipher::None, Some(_)) => Err("classic.key-file: is of no use without a cipher".into()),
        (_, None) => Err("classic.key-file is missing: the cipher needs a key".into()),
        (_, Some(file)) => Ok((cipher, key(&secret_path(&file, directory))?)),
    }
}

/// A relative path starts at `CREDENTIALS_DIRECTORY` if it is there, else at the configuration's directory.
fn secret_path(file: &Path, directory: &Path) -> PathBuf {
    let credential = std::env::var_os("CREDENTIALS_DIRECTORY").map(|directory| Path::new(&directory).join(file));
    credential.filter(|path| file.is_relative() && path.exists()).unwrap_or_else(|| directory.join(file))
}

/// Reads a key; one line ending behind it is not part of it.
fn key(file: &Path) -> Result<Secret, String> {
    let name = || format!("key file {}", file.display());
    let mut open = File::open(file).map_err(|error| format!("{}: {error}", name()))?;
    let metadata = open.metadata().map_err(|error| format!("{}: {error}", name()))?;
    if !metadata.is_file() {
        return Err(format!("{}: is not a file", name()));
    }
    if metadata.mode() & 0o137 != 0 {
        return Err(format!("{}: has mode {:04o}; must be at most 0640", name(), metadata.mode() & 0o7777));
    }
    if !identity::may_own_keys(metadata.uid()) {
        return Err(format!(
            "{}: belongs to user {}; must belong to root or to the tunnel's user",
            name(),
            metadata.uid()
        ));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(tunnel::MAX_KEY + 3));
    let limit = tunnel::MAX_KEY as u64 + 3;
    open.by_ref().take(limit).read_to_end(&mut bytes).map_err(|error| format!("{}: {error}", name()))?;
    let line = bytes.strip_suffix(b"\n").map_or(&bytes[..], |line| line.strip_suffix(b"\r").unwrap_or(line));
    tunnel::key(&name(), line.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAP: &str = "mode = \"tap\"\nwire = \"classic\"\n[tap]\nname = \"eu0\"\naddress = [\"10.8.0.1/24\", \"fd00::1/64\"]\n\
                       mtu = 1400\n[[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"[2001:db8::1]:6001\"\n";

    fn read(text: &str) -> Result<Tunnel, String> {
        parse(text).and_then(|file| assemble(file, "test", Path::new("")))
    }

    #[test]
    fn a_tap_tunnel() {
        let tunnel = read(TAP).unwrap();
        let Port::Tap { name, addresses, mtu, bridge } = tunnel.port else { panic!() };
        assert_eq!((name.as_deref(), addresses.len(), mtu, bridge), (Some("eu0"), 2, Some(1400), None));
        assert_eq!(tunnel.paths[0].remote.host, "2001:db8::1");
    }

    #[test]
    fn what_is_wrong_or_not_supported_is_named() {
        for (change, words) in [
            (("mode = \"tap\"\n", ""), "mode is missing"),
            (("\"tap\"", "\"tun\""), "mode = \"tun\""),
            (("\"tap\"", "\"mirror\""), "not supported"),
            (("wire = \"classic\"\n", ""), "write wire = \"classic\""),
            (("\"classic\"", "\"secure\""), "write wire = \"classic\""),
            (("[tap]", "frob = 1\n[tap]"), "unknown field `frob`"),
            (("[tap]", "run = \"true\"\n[tap]"), "run: is not supported"),
            (("[tap]", "direction = \"send\"\n[tap]"), "direction: is not supported"),
            (("[tap]\n", "[rules]\nmss = 1\n[tap]\n"), "[rules]: is not supported"),
            (("[tap]\n", "[classic]\nlz4 = 1\n[tap]\n"), "classic.lz4: is not supported"),
            (("[tap]\n", "[classic]\ncipher = \"rot13\"\n[tap]\n"), "\"rot13\": unknown cipher"),
            (("[tap]\n", "[classic]\ncipher = \"xor\"\n[tap]\n"), "key-file is missing"),
            (("/24", "/33"), "mask \"33\""),
            (("10.8.0.1/24", "10.8.0.1"), "must be ADDRESS/PREFIX"),
            (("1400", "20000"), "tap.mtu = 20000"),
            (("1400", "\"x\""), "line 6"),
            ((":6000", ":0"), "\"0\": must be"),
            ((":6000", ":70000"), "\"70000\": must be"),
            (("\"eu0\"", "\"an-interface-name\""), "has 17 bytes"),
            (("[2001:db8::1]:6001", "any"), "remote = \"any\""),
            (("[[path]]", "[raw]\ninterface = \"eth1\"\n[[path]]"), "[raw]: is of no use"),
        ] {
            let text = TAP.replacen(change.0, change.1, 1);
            assert_ne!(text, TAP);
            let error = read(&text).map(|_| ()).unwrap_err();
            assert!(error.contains(words) && !error.contains('\n'), "{change:?}: {error}");
        }
    }
}
