//! `ethudp convert`: prints the file for a classic command line.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::Path;

use privsep::ipc::Cipher;
use privsep::ipc::Secret;

use crate::Error;
use crate::cli::init::files::check_directory;
use crate::service::directory::{Directory, remedy};
use crate::tunnel::{self, Classic, Port, Tunnel, address, cipher, names};

/// Text of the file that describes `tunnel`. Secrets are written to files of mode 0600 in `directory`; without it, the file only
/// names them.
pub fn text(tunnel: &Tunnel, directory: Option<&Path>) -> Result<String, Error> {
    expressible(tunnel).map_err(Error::Usage)?;
    let Some(classic) = tunnel.classic() else {
        return Err(Error::usage("convert: not a classic command line"));
    };
    let mut text = String::new();
    header(&mut text, tunnel, classic);
    port(&mut text, &tunnel.port);
    for path in &tunnel.paths {
        let _ = write!(text, "\n[[path]]\nlocal = {}\nremote = {}\n", quoted(&path.local), quoted(&path.remote));
    }
    let mut secrets = Secrets::new(directory)?;
    wire(&mut text, &tunnel.name, classic, &mut secrets)?;
    rules(&mut text, tunnel);
    secrets.keep();
    Ok(text)
}

/// Refuses a classic tunnel that a file could not describe, or would describe as a different one.
fn expressible(tunnel: &Tunnel) -> Result<(), String> {
    names::tunnel(&tunnel.name).map_err(|error| format!("{error}; set another name with -n"))?;
    let changed =
        |path: &&tunnel::Path| address::remote("remote", &path.remote.to_string()).as_ref() != Ok(&path.remote);
    match tunnel.paths.iter().find(changed) {
        Some(path) => Err(format!("remote \"{}\": has another meaning in a file; use another name", path.remote)),
        None => Ok(()),
    }
}

/// A value as a TOML string.
fn quoted(value: impl std::fmt::Display) -> String {
    toml::Value::String(value.to_string()).to_string()
}

fn header(text: &mut String, tunnel: &Tunnel, classic: &Classic) {
    let _ = writeln!(text, "# {}.toml: the file's name is the tunnel's name", tunnel.name);
    if classic.cipher != Cipher::None || !classic.password.expose().is_empty() {
        let line = "# For ethudp@NAME add a drop-in with LoadCredential=NAME.key:/etc/ethudp/NAME.key for each secret";
        let _ = writeln!(text, "{}", line.replace("NAME", &tunnel.name));
    }
    if let Some(user) = &tunnel.user {
        let _ = writeln!(text, "# start it with: ethudp up --user {user} {}", tunnel.name);
    }
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
        let _ = writeln!(text, "exit-after-s = {ticks} # ends the tunnel; -x without -d replaces the worker instead");
    }
}

fn port(text: &mut String, port: &Port) {
    match port {
        Port::Tap { name, addresses, interface_mtu, bridge, .. } => {
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
            if let Some(mtu) = interface_mtu {
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

fn wire(text: &mut String, name: &str, classic: &Classic, secrets: &mut Secrets) -> Result<(), Error> {
    text.push_str("\n[classic]\n");
    // EthUDP's command line has aes-256 for both ciphers.
    let remark = match classic.cipher {
        Cipher::Aes256 => " # for a peer with EthUDP v20230202 or older set aes-256-ethudp-2023",
        Cipher::Aes256Ethudp2023 => " # AES-192, only for EthUDP v20230202 and older; other peers need aes-256",
        Cipher::None | Cipher::Xor | Cipher::Aes128 | Cipher::Aes192 => "",
    };
    let _ = writeln!(text, "cipher = {}{remark}", quoted(cipher::name(classic.cipher)));
    if classic.cipher != Cipher::None {
        let file = format!("{name}.key");
        let _ = writeln!(text, "key-file = {}", quoted(secrets.place(file, &classic.key)?));
    }
    if !classic.password.expose().is_empty() {
        let file = format!("{name}.password");
        let _ = writeln!(text, "password-file = {}", quoted(secrets.place(file, &classic.password)?));
    }
    if classic.lz4 > 0 {
        let _ = writeln!(text, "lz4 = {}", classic.lz4);
    }
    if let Some(mtu) = classic.fragment_mtu {
        let _ = writeln!(text, "fragment-mtu = {mtu}");
    }
    Ok(())
}

/// Files of secrets in a directory. All of them are written, or none.
struct Secrets {
    directory: Option<Directory>,
    made: Vec<String>,
}

impl Secrets {
    fn new(directory: Option<&Path>) -> Result<Self, Error> {
        let open = |path: &Path| {
            let opened = Directory::open(path).map_err(|error| {
                Error::failure(format!("directory {}: {error}{}", path.display(), remedy(&error, path)))
            })?;
            check_directory(&opened).map(|()| opened).map_err(Error::Failure)
        };
        Ok(Self { directory: directory.map(open).transpose()?, made: Vec::new() })
    }

    /// Writes a secret to its file, or asks the user to. Returns the file's name.
    fn place(&mut self, file: String, secret: &Secret) -> Result<String, Error> {
        let Some(directory) = &self.directory else {
            crate::log::warning(&format!(
                "secret not written: put it into {file}, mode 0600, or run convert with --dir \
                                          DIRECTORY"
            ));
            return Ok(file);
        };
        // The reader removes one line ending, LF or CR LF.
        let end: &[u8] = if secret.expose().ends_with(b"\r") { b"\r\n" } else { b"\n" };
        directory.create(&file, &[secret.expose(), end], 0o600).map_err(|error| {
            let right = match error.kind() {
                ErrorKind::AlreadyExists => "; remove it or choose another --dir".into(),
                _ => remedy(&error, directory.path()),
            };
            Error::failure(format!("{}: {error}{right}", directory.path().join(&file).display()))
        })?;
        self.made.push(file.clone());
        Ok(file)
    }

    /// Keeps the files that were written.
    fn keep(mut self) {
        self.made.clear();
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        if let Some(directory) = &self.directory {
            for file in &self.made {
                let _ = directory.remove(file);
            }
        }
    }
}

fn rules(text: &mut String, tunnel: &Tunnel) {
    let rules = &tunnel.rules;
    let mut lines = String::new();
    if let Some((mss, _)) = rules.mss {
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

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::cli::{Command, classic};
    use crate::tunnel::file;

    fn tunnel(line: &str) -> Tunnel {
        let arguments: Vec<_> = line.split(' ').map(OsString::from).collect();
        let Ok(Command::Run(tunnel, _)) = classic::parse(&arguments, &mut Vec::new()) else { panic!("{line}") };
        *tunnel
    }

    #[test]
    fn inexpressible_options_are_refused() {
        for (line, words) in [
            ("-e 192.0.2.1 6000 192.0.2.2 6000 .x", "tunnel name \".x\""),
            ("-e 192.0.2.1 6000 any 6001 eth1", "remote \"any:6001\""),
            ("-e 192.0.2.1 6000 any 0 eth1", "remote \"any:0\""),
            ("-e 192.0.2.1 6000 192.0.2.2 6000 eth1 192.0.2.1 6001 any 6000", "remote \"any:6000\""),
        ] {
            let error = text(&tunnel(line), None).unwrap_err().to_string();
            assert!(error.contains(words), "{line}: {error}");
        }
    }

    #[test]
    fn converted_file_describes_same_tunnel() {
        let directory = std::env::temp_dir().join(format!("ethudp-convert-{}", std::process::id()));
        for line in [
            "-e -nopromisc 192.0.2.1 6000 192.0.2.2 6001 eth1",
            "-i -dev eu0 -n office -enc aes-256 -k secret -p pass -lz4 9 -mtu 1400 192.0.2.1 1 peer.example 2 10.8.0.1 24",
            "-e -enc aes-256-ethudp-2023 192.0.2.1 6000 192.0.2.2 6001 eth1",
            "-i -mss 1360 -x 7 -c true 2001:db8::1 6000 :: 0 fd00::1 64 192.0.2.1 6001 192.0.2.2 0",
            "-b -r 192.0.2.1 6000 0.0.0.0 6000 br0",
            "-b -r -noloopcheck -enc xor 192.0.2.1 6000 0.0.0.0 0 br0",
            "-e -w -loopcheck 192.0.2.1 6000 192.0.2.2 6000 eth1",
            "-i -r -w 192.0.2.1 6000 192.0.2.2 6000 10.8.0.1 255.255.0.0",
            "-t -loopcheck 192.0.2.1 6000 192.0.2.2 6000 eth1 udp port 514",
            "-u 192.0.2.1 6000 192.0.2.2 6000 eth1",
            "-i -n site.1 -c echo\t\"a\\b\"\n'''c''' -k \"'#\n -p p\r fe80::1%eth0 6000 192.0.2.2 0 10.8.0.1 24",
        ] {
            fs::create_dir_all(&directory).unwrap();
            let tunnel = tunnel(line);
            let text = text(&tunnel, Some(&directory)).unwrap();
            let again =
                file::from_text(&text, &tunnel.name, &directory).unwrap_or_else(|e| panic!("{line}: {e}\n{text}"));
            let secrets =
                |tunnel: &Tunnel| tunnel.classic().map(|c| [&c.key, &c.password].map(|s| s.expose().to_vec()));
            assert_eq!(secrets(&again), secrets(&tunnel), "{line}");
            assert_eq!(format!("{again:?}"), format!("{tunnel:?}"), "{line}\n{text}");
            for secret in fs::read_dir(&directory).unwrap() {
                assert_eq!(secret.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
            }
            fs::remove_dir_all(&directory).unwrap();
        }
    }
}
