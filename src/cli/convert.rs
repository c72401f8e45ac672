//! `ethudp convert`: the file for a classic command line.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use privsep::ipc::Cipher;
use privsep::secret::Secret;

use crate::Error;
use crate::error::Context;
use crate::tunnel::{self, Port, Tunnel};

/// The file that describes `tunnel`. Secrets go to files of mode 0600 in `directory`, or their place is named.
pub fn text(tunnel: &Tunnel, directory: Option<&Path>) -> Result<String, Error> {
    let mut text = String::new();
    header(&mut text, tunnel);
    port(&mut text, &tunnel.port);
    for path in &tunnel.paths {
        let _ = write!(text, "\n[[path]]\nlocal = {}\nremote = {}\n", quoted(&path.local), quoted(&path.remote));
    }
    classic(&mut text, tunnel, directory)?;
    rules(&mut text, tunnel);
    Ok(text)
}

/// As a TOML string.
fn quoted(value: impl std::fmt::Display) -> String {
    toml::Value::String(value.to_string()).to_string()
}

fn header(text: &mut String, tunnel: &Tunnel) {
    let _ = writeln!(text, "# {}.toml: the file's name is the tunnel's name", tunnel.name);
    let _ = writeln!(text, "mode = {}\nwire = \"classic\"", quoted(tunnel.port.mode()));
    match (tunnel.rules.send, tunnel.rules.receive) {
        (true, true) => {}
        (true, false) if tunnel.port.is_mirror() => {}
        (true, false) => text.push_str("direction = \"send\"\n"),
        (false, true) => text.push_str("direction = \"receive\"\n"),
        (false, false) => text.push_str("direction = \"none\"\n"),
    }
    if let Some(run) = &tunnel.run {
        let _ = writeln!(text, "run = {}", quoted(run));
    }
    if let Some(ticks) = tunnel.exit_after {
        let _ = writeln!(text, "exit-after-s = {ticks}");
    }
}

fn port(text: &mut String, port: &Port) {
    match port {
        Port::Tap { name, addresses, mtu, bridge } => {
            text.push_str("\n[tap]\n");
            if let Some(name) = name {
                let _ = writeln!(text, "name = {}", quoted(name));
            }
            if !addresses.is_empty() {
                let list: Vec<_> =
                    addresses.iter().map(|(address, prefix)| quoted(format!("{address}/{prefix}"))).collect();
                let _ = writeln!(text, "address = [{}]", list.join(", "));
            }
            if let Some(bridge) = bridge {
                let _ = writeln!(text, "bridge = {}", quoted(bridge));
            }
            if let Some(mtu) = mtu {
                let _ = writeln!(text, "mtu = {mtu}");
            }
        }
        Port::Raw { interface, promiscuous } => {
            let _ = writeln!(text, "\n[raw]\ninterface = {}", quoted(interface));
            if !promiscuous {
                text.push_str("promiscuous = false\n");
            }
        }
        Port::Mirror { interface, filter, .. } => {
            let _ = writeln!(text, "\n[mirror]\ninterface = {}", quoted(interface));
            if !filter.is_empty() {
                let _ = writeln!(text, "filter = {}", quoted(filter));
            }
        }
    }
}

fn classic(text: &mut String, tunnel: &Tunnel, directory: Option<&Path>) -> Result<(), Error> {
    let classic = &tunnel.classic;
    text.push_str("\n[classic]\n");
    let _ = writeln!(text, "cipher = {}", quoted(tunnel::cipher_name(classic.cipher)));
    if classic.cipher != Cipher::None {
        let file = format!("{}.key", tunnel.name);
        let _ = writeln!(text, "key-file = {}", quoted(place(&file, &classic.key, directory)?));
    }
    if !classic.password.expose().is_empty() {
        let file = format!("{}.password", tunnel.name);
        let _ = writeln!(text, "password-file = {}", quoted(place(&file, &classic.password, directory)?));
    }
    if classic.lz4 > 0 {
        let _ = writeln!(text, "lz4 = {}", classic.lz4);
    }
    if let Some(mtu) = classic.fragment_mtu {
        let _ = writeln!(text, "fragment-mtu = {mtu}");
    }
    Ok(())
}

/// Writes a secret to its file, or leaves that to the user; returns the file's name.
fn place(file: &str, secret: &Secret, directory: Option<&Path>) -> Result<String, Error> {
    let Some(directory) = directory else {
        crate::log::warning(&format!("put the secret into {file}, mode 0600 (convert --dir DIRECTORY does)"));
        return Ok(file.to_owned());
    };
    let path = directory.join(file);
    let say = || path.display().to_string();
    let mut open = File::options().write(true).create_new(true).mode(0o600).open(&path).context(say)?;
    open.write_all(secret.expose()).and_then(|()| open.write_all(b"\n")).context(say)?;
    Ok(file.to_owned())
}

fn rules(text: &mut String, tunnel: &Tunnel) {
    let rules = &tunnel.rules;
    let mut lines = String::new();
    if let Some(mss) = rules.mss {
        let _ = writeln!(lines, "mss = {mss}");
    }
    if rules.loop_check != tunnel.port.checks_loops(rules.receive) {
        let _ = writeln!(lines, "loop-check = {}", rules.loop_check);
    }
    if !rules.vlan_map.is_empty() {
        let pairs: Vec<_> = rules.vlan_map.iter().map(|(local, remote)| format!("{local} = {remote}")).collect();
        let _ = writeln!(lines, "vlan-map = {{ {} }}", pairs.join(", "));
    }
    if !lines.is_empty() {
        let _ = write!(text, "\n[rules]\n{lines}");
    }
}
