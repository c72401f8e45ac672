//! The file format of `ethudp up` and `ethudp check`: its tables and keys ([`document`]), the check of a text against them
//! ([`format`](mod@format), [`unknown`]), the tunnel that it describes ([`meaning`]), the place of a mistake ([`place`]), the secrets beside a
//! file ([`secret`]), and another file for the same tunnel ([`twin`]).

mod document;
mod format;
mod meaning;
mod place;
mod secret;
mod twin;
mod unknown;

use std::fs::Metadata;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use privsep::ipc::Secret;

use self::place::Place;
use super::{Tunnel, advice, names};
use crate::service::files;
use crate::{Error, log};

/// Reads a tunnel to run from a file. The stem of the file is its name. Another file for the same tunnel causes a warning, because
/// it may be an unused copy.
///
/// # Errors
/// Also when another user could have written a command to run, and when the tunnel of another file for the same `runs`.
pub fn load(file: &Path, runs: impl Fn(&str) -> bool) -> Result<Tunnel, Error> {
    let read = look(file, &name_of(file), file.parent().unwrap_or(Path::new("")))?;
    trusted(file, &read)?;
    if let Some(twin) = &read.twin {
        let text = format!("{}: {}", file.display(), is_twin_of(twin));
        if runs(&name_of(twin)) {
            return Err(Error::configuration(format!("{text}. That tunnel is running")));
        }
        log::warning(&text);
    }
    Ok(read.tunnel)
}

/// Message about another file for the same tunnel.
pub fn is_twin_of(twin: &Path) -> String {
    format!(
        "secure: private key, peer and tunnel-id are the same as in {}. If that file is a copy, rename it so that it does \
         not end in .toml. For a second tunnel set another secure.tunnel-id at both ends",
        twin.display()
    )
}

/// Name of the tunnel in a file, if the user gives no other.
pub fn name_of(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Warns of a file that another user could have written.
///
/// # Errors
/// When such a file has a command to run.
pub fn trusted(file: &Path, read: &Read) -> Result<(), Error> {
    let Some(flaw) = files::foreign_hand(&read.metadata) else { return Ok(()) };
    if read.tunnel.run.is_some() {
        return Err(Error::configuration(format!("{}: {flaw}, because it contains `run`", file.display())));
    }
    log::warning(&format!("{}: {flaw}", file.display()));
    Ok(())
}

/// Contents of a file, read once.
pub struct Read {
    /// Tunnel that the file describes.
    pub tunnel: Tunnel,
    /// Metadata of the file.
    pub metadata: Metadata,
    /// Key and value of each key that names another file.
    pub names: Vec<(&'static str, PathBuf)>,
    /// Another file of the directory that describes the same tunnel.
    pub twin: Option<PathBuf>,
}

/// Reads the tunnel of this name. Relative file names in the file start at `directory`.
///
/// # Errors
/// Fault of the file, or of a file that it names.
pub fn look(file: &Path, name: &str, directory: &Path) -> Result<Read, Error> {
    let (text, metadata) = files::text(file).map_err(|error| {
        let right = match error.kind() {
            ErrorKind::NotFound => "; give a file name with a / or ending in .toml, or NAME for /etc/ethudp/NAME.toml",
            ErrorKind::PermissionDenied => {
                "; make it readable for the user that starts the tunnel (for the unit: group ethudp-status)"
            }
            _ => "",
        };
        Error::configuration(format!("file {}: {error}{right}", file.display()))
    })?;
    let wrong = |error| Error::configuration(format!("{}: {error}", file.display()));
    let tunnel = tunnel(&text, name, directory).map_err(wrong)?;
    let twin = tunnel.secure().and_then(|secure| twin::of(secure, name, &metadata, directory));
    Ok(Read { tunnel, metadata, names: format::parse(&text).map_err(wrong)?.names(), twin })
}

/// Private key that a file names. The file may lack a peer.
pub fn private_key(text: &str, directory: &Path) -> Result<Secret, String> {
    let document = format::parse(text)?;
    let file = document.secure.and_then(|secure| secure.private_key_file);
    meaning::private_key(file.as_deref(), directory).map_err(|mistake| mistake.in_text(text))
}

/// Tunnel of this name that a text describes. Relative file names start at `directory`.
pub fn from_text(text: &str, name: &str, directory: &Path) -> Result<Tunnel, String> {
    tunnel(text, name, directory)
}

fn tunnel(text: &str, name: &str, directory: &Path) -> Result<Tunnel, String> {
    let (document, name) = (format::parse(text)?, names::tunnel(name)?);
    let tunnel = meaning::assemble(document, &name, directory).map_err(|mistake| mistake.in_text(text))?;
    advice::refuse(&tunnel)
        .map_err(|(path, key, message)| Place::key("[[path]]", key).at(path).mistake(message).in_text(text))?;
    Ok(tunnel)
}

#[cfg(test)]
mod tests {
    use privsep::ipc::Policy;

    use super::*;
    use crate::tunnel::{Port, keys};

    /// Calls `run` with a directory of these files.
    fn with_files(files: &[(&str, &str, u32)], run: impl FnOnce(&Path)) {
        use std::os::unix::fs::PermissionsExt;
        let name = std::thread::current().name().unwrap_or_default().replace(':', "-");
        let directory = std::env::temp_dir().join(format!("ethudp-file-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        for (name, content, mode) in files {
            std::fs::write(directory.join(name), content).unwrap();
            std::fs::set_permissions(directory.join(name), std::fs::Permissions::from_mode(*mode)).unwrap();
        }
        run(&directory);
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn secure_tunnel_parses() {
        let (own, peer, zeros) = (keys::text(&[1; 32]), keys::text(&keys::public(&[2; 32])), "A".repeat(43) + "=");
        let (own_public, high) = (keys::text(&keys::public(&[1; 32])), keys::text(&[0xff; 32]));
        let files = [
            ("a.key", format!("{}\n", *own), 0o600),
            ("a.psk", format!("{}\n", *peer), 0o640),
            ("open.key", format!("{}\n", *own), 0o644),
            ("short.key", "AAAA\n".into(), 0o600),
            ("zero.psk", zeros.clone(), 0o600),
        ];
        let files: Vec<_> = files.iter().map(|(name, text, mode)| (*name, text.as_str(), *mode)).collect();
        let text = format!(
            "mode = \"tap\"\n[secure]\nprivate-key-file = \"a.key\"\npeer-public-key = {:?}\npsk-file = \"a.psk\"\n\
             path-mtu = 1400\ntunnel-id = \"00010203040506ff\"\npeer-slot = 4095\nping-interval-s = 60\n[[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"any\"\n",
            *peer
        );
        with_files(&files, |directory| {
            let tunnel = from_text(&text, "a", directory).unwrap();
            let secure = tunnel.secure().unwrap();
            assert_eq!((secure.private_key.expose(), secure.psk.expose().len()), (&[1; 32][..], 32));
            assert_eq!((secure.public_key, secure.path_mtu), (keys::public(&[1; 32]), Some(1400)));
            assert_eq!(secure.tunnel_id, [0, 1, 2, 3, 4, 5, 6, 0xff]);
            assert_eq!((secure.peer_slot, secure.ping_interval), (4095, 60));
            let shared = text.replacen("[secure]", "policy = \"balance\"\n[secure]", 1) + "weight = 7\n";
            let shared = from_text(&shared, "a", directory).unwrap();
            let privsep::ipc::Wire::Secure(settings) = shared.wire.settings(&shared, 1400) else { panic!() };
            assert_eq!((settings.policy, settings.weights[..2].to_vec()), (Policy::Balance, vec![7, 1]));
            for (change, words) in [
                (("\"a.key\"", "\"none.key\""), "line 3: private key file "),
                (("\"a.key\"", "\"open.key\""), "has mode 0644; must be at most 0640"),
                (("\"a.key\"", "\"short.key\""), "short.key: 4 characters; must be 32 bytes in base64"),
                (("private-key-file = \"a.key\"\n", ""), "line 2: secure.private-key-file is missing"),
                (
                    ("peer-public-key", "# "),
                    "secure.peer-public-key is missing: must be the output of `ethudp pubkey` at the other end",
                ),
                ((peer.as_str(), "abc"), "line 4: secure.peer-public-key = \"abc\": 3 characters"),
                ((peer.as_str(), own_public.as_str()), "this end's own public key"),
                ((peer.as_str(), high.as_str()), ": not the encoding of a public key"),
                ((peer.as_str(), &zeros), "insecure public key (all-zero secret)"),
                (("\"a.psk\"", "\"zero.psk\""), "line 5: pre-shared key file "),
                (
                    ("06ff", "06f"),
                    "line 7: secure.tunnel-id = \"00010203040506f\": not a tunnel identifier; must be 16 hex",
                ),
                (("4095", "4096"), "line 8: secure.peer-slot = 4096: must be 0 to 4095"),
                (("4095", "\"1\""), "secure.peer-slot = \"1\": must be a number without quotes: peer-slot = 1"),
                (("= 60\n", "= 0\n"), "line 9: secure.ping-interval-s = 0: must be 1 to 60"),
                (("= 60\n", "= 61\n"), "line 9: secure.ping-interval-s = 61: must be 1 to 60"),
                (("= 60\n", "= 300\n"), "secure.ping-interval-s = 300: must be 1 to 60"),
                (("1400", "1279"), "line 6: secure.path-mtu = 1279: must be 1280 to 9216, or \"auto\""),
                (
                    ("remote = \"any\"\n", "remote = \"any\"\nweight = 7\n"),
                    "line 13: path.weight: valid only with policy",
                ),
                (
                    ("[secure]", "policy = \"all\"\n[secure]"),
                    "policy = \"all\": must be \"failover\", \"duplicate\" or",
                ),
                (("[secure]", "[classic]\n[secure]"), "[classic]: not valid with wire = \"secure\", the default"),
                (("\"tap\"", "\"mirror-udp\""), "wire is missing: mode \"mirror-udp\" sends unprotected UDP"),
                (("\"tap\"", "\"mirror-udp\"\nwire = \"secure\""), "line 2: wire = \"secure\": mode \"mirror-udp\""),
                (("remote = \"any\"\n", ""), "path 192.0.2.1:6000: remote is missing"),
                (("\"tap\"", "\"tap\"\nwire = \"classic\""), "[secure]: not valid with wire = \"classic\""),
            ] {
                let changed = text.replacen(change.0, change.1, 1);
                assert_ne!(changed, text);
                let error = from_text(&changed, "a", directory).map(drop).unwrap_err();
                assert!(error.contains(words) && !error.contains('\n'), "{change:?}: {error}");
                assert!(!error.contains(own.as_str()));
            }
        });
    }

    const TAP: &str = "mode = \"tap\"\nwire = \"classic\"\n[tap]\nname = \"eu0\"\naddress = [\"10.8.0.1/24\", \"fd00::1/64\"]\n\
                       mtu = 1400\n[[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"[2001:db8::1]:6001\"\n";

    fn read(text: &str) -> Result<Tunnel, String> {
        from_text(text, "test", Path::new(""))
    }

    #[test]
    fn tap_tunnel_parses() {
        let tunnel = read(TAP).unwrap();
        let Port::Tap { name, addresses, interface_mtu, bridge, .. } = tunnel.port else { panic!() };
        assert_eq!((name.as_deref(), addresses.len(), interface_mtu, bridge), (Some("eu0"), 2, Some(1400), None));
        assert_eq!(tunnel.paths[0].remote.to_string(), "[2001:db8::1]:6001");
    }

    #[test]
    fn unsupported_values_are_named() {
        for (change, words) in [
            (("mode = \"tap\"\n", ""), "mode is missing"),
            (("\"tap\"", "\"tun\""), "mode = \"tun\""),
            (("\"tap\"", "\"mirror\""), "[tap]: not valid in mode \"mirror\""),
            (
                ("wire = \"classic\"\n", ""),
                "[secure] is missing: required by wire \"secure\", the default; create the file with `ethudp init`",
            ),
            (("\"classic\"", "\"secure\""), "[secure] is missing"),
            (("\"classic\"", "\"frob\""), "wire = \"frob\": must be \"secure\" or \"classic\""),
            (("[tap]", "[secure]\n[tap]"), "[secure]: not valid with wire = \"classic\""),
            (("[tap]", "frob = 1\n[tap]"), "unknown key `frob`; must be one of `mode`"),
            (("[tap]", "direction = \"up\"\n[tap]"), "direction = \"up\": must be"),
            (
                ("[tap]", "policy = \"duplicate\"\n[tap]"),
                "line 3: policy = \"duplicate\": not valid with wire = \"classic\"; must be \"failover\"",
            ),
            (("[tap]\n", "[rules]\nmss = \"yes\"\n[tap]\n"), "rules.mss = \"yes\": must be 1 to 65535, or \"auto\""),
            (("[tap]\n", "[rules]\nmss = 70000\n[tap]\n"), "rules.mss = 70000: must be"),
            (("[tap]\n", "[rules]\ndscp = 64\n[tap]\n"), "rules.dscp = 64: must be 0 to 63, or \"copy\""),
            (("[tap]\n", "[rules]\necn = true\n[tap]\n"), "true needs wire = \"secure\""),
            (("[tap]\n", "[classic]\nkeepalive-ms = 99\n[tap]\n"), "classic.keepalive-ms = 99: must be 100 to 1000"),
            (("[tap]\n", "[rules]\nvlan-map = { 1 = 2, 3 = 2 }\n[tap]\n"), "VLAN 3 to 2 contradicts 1 to 2"),
            (("[tap]\n", "[classic]\nlz4 = 10\n[tap]\n"), "classic.lz4 = 10: must be"),
            (("[tap]\n", "[classic]\nfragment-mtu = 1\n[tap]\n"), "classic.fragment-mtu = 1: must be"),
            (("[tap]\n", "[classic]\ncipher = \"rot13\"\n[tap]\n"), "classic.cipher = \"rot13\": must be \"none\""),
            (("[tap]\n", "[classic]\ncipher = \"xor\"\n[tap]\n"), "key-file is missing"),
            (("mtu = 1400", "mtu = 1400\nmtu = 1400"), "line 7: not valid TOML: duplicate key `mtu`"),
            (("\"eu0\"", "\"eu0"), "line 4: not valid TOML: "),
            (("/24", "/33"), "mask \"33\""),
            (("10.8.0.1/24", "10.8.0.1"), "must be ADDRESS/PREFIX"),
            (("1400", "20000"), "tap.mtu = 20000"),
            (("1400", "1400\ncarrier = \"off\""), "tap.carrier = \"off\": must be \"always\" or \"follow\""),
            (("1400", "1400\npass-link-local = [\"lldp\"]"), "tap.pass-link-local: valid only in mode \"bridge\""),
            (("1400", "\"x\""), "line 6"),
            ((":6000", ":0"), "\"0\": must be"),
            (("\"eu0\"", "\"an-interface-name\""), ": 17 bytes; must be 1 to 15"),
            (("[2001:db8::1]:6001", "anybody"), "remote \"anybody\": must be"),
            (("[[path]]", "[path]"), "[path]: must be an array of tables: [[path]]"),
            (("[2001:db8::1]", "192.0.2.300"), "remote \"192.0.2.300\": not an IPv4"),
            (("[2001:db8::1]", "[2001:db8::x]"), "remote \"2001:db8::x\": not an IPv6"),
            (("[[path]]", "[raw]\ninterface = \"eth1\"\n[[path]]"), "[raw]: not valid"),
        ] {
            let text = TAP.replacen(change.0, change.1, 1);
            assert_ne!(text, TAP);
            let error = read(&text).map(|_| ()).unwrap_err();
            assert!(error.contains(words) && !error.contains('\n'), "{change:?}: {error}");
        }
    }
}
