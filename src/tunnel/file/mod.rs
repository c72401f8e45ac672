//! The file format of `ethudp up` and `ethudp check`: its words ([`document`]), what they mean ([`meaning`]), the secrets beside
//! them ([`secret`]), and where in it an error is ([`lines`]).

mod document;
mod lines;
mod meaning;
mod secret;

use std::io::ErrorKind;
use std::path::Path;

use super::{Tunnel, advice, names};
use crate::service::files;
use crate::{Error, log};

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
    let tunnel = meaning::assemble(document::parse(text)?, &names::tunnel(name)?, directory);
    let tunnel = tunnel.and_then(|tunnel| advice::refuse(&tunnel).map(|()| tunnel));
    tunnel.map_err(|error| match lines::of(text, &error) {
        Some(line) => format!("line {line}: {error}"),
        None => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::Port;

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
