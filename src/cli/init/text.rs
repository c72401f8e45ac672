//! Text of a tunnel's file: a new one, or one that is completed after changes by the user.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::line::Line;
use super::parameters::Parameters;
use crate::tunnel::identifier::{self, Identifier};
use crate::tunnel::{Endpoint, keys};

/// Text of a new file.
pub fn new_file(name: &str, given: &Parameters, line: &Line, peer: Option<&Line>) -> String {
    use std::fmt::Write;
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let tap =
        |given: &Parameters| given.tap.as_ref().map_or_else(String::new, |tap| format!("\nname = {}", quoted(tap)));
    let mut text =
        format!("# {name}.toml: the file's name is the tunnel's name. Line for the other end, not secret:\n# {line}\n");
    let mode = match given {
        Parameters { interface: Some(_), .. } => "raw",
        Parameters { bridge: Some(_), .. } => "bridge",
        Parameters { .. } => "tap",
    };
    let _ = writeln!(text, "mode = \"{mode}\"\n");
    match given {
        Parameters { interface: Some(interface), .. } => {
            let _ = writeln!(text, "[raw]\ninterface = {}\n", quoted(interface));
        }
        Parameters { bridge: Some(bridge), .. } => {
            let _ = writeln!(text, "[tap]{}\nbridge = {}\ncarrier = \"follow\"\n", tap(given), quoted(bridge));
        }
        Parameters { addresses, .. } => {
            let _ = writeln!(
                text,
                "[tap]{}\naddress = [{}]\ncarrier = \"follow\"\n",
                tap(given),
                quoted_addresses(addresses)
            );
        }
    }
    let _ = writeln!(text, "[secure]\nprivate-key-file = {}", quoted(&format!("{name}.key")));
    if line.tunnel != identifier::NONE {
        let _ = writeln!(text, "{}", tunnel_id(line.tunnel));
    }
    if let Some(peer) = peer {
        let _ = writeln!(text, "{}", peer_key(peer));
        if peer.slot > 0 {
            let _ = writeln!(text, "{}", peer_slot(peer));
        }
    }
    let v6 = [Some(line), peer].into_iter().flatten().any(|line| needs_ipv6(line.endpoint.as_ref()));
    let any = Endpoint { host: if v6 && given.ipv6 { "::" } else { "0.0.0.0" }.into(), port: given.port };
    let _ = writeln!(text, "\n[[path]]\nlocal = \"{any}\"");
    if let Some(peer) = peer {
        let _ = writeln!(text, "{}", remote(peer));
    }
    text
}

/// Whether the socket of a path must receive IPv6. A name may have addresses of both families, and `[::]` receives both.
pub fn needs_ipv6(endpoint: Option<&Endpoint>) -> bool {
    endpoint.is_some_and(|endpoint| endpoint.host.parse::<Ipv4Addr>().is_err())
}

/// Line of the peer's key in the file.
fn peer_key(peer: &Line) -> String {
    format!("peer-public-key = \"{}\"", *keys::text(&peer.key))
}

/// Line of the tunnel identifier.
pub fn tunnel_id(identifier: Identifier) -> String {
    format!("tunnel-id = \"{}\"", identifier::text(identifier))
}

/// Line of the peer's slot.
fn peer_slot(peer: &Line) -> String {
    format!("peer-slot = {}", peer.slot)
}

/// Remote address of a path to this peer.
fn remote_of(peer: &Line) -> String {
    peer.endpoint.as_ref().map_or_else(|| "any".into(), Endpoint::to_string)
}

fn remote(peer: &Line) -> String {
    format!("remote = \"{}\"", remote_of(peer))
}

/// Addresses with prefix lengths, as a list in the file.
pub fn quoted_addresses(addresses: &[(IpAddr, u8)]) -> String {
    addresses.iter().map(|(ip, prefix)| format!("\"{ip}/{prefix}\"")).collect::<Vec<_>>().join(", ")
}

/// Adds the peer to the text, which must have no peer or the same one.
pub fn add_peer(text: &str, peer: &Line, ipv6: bool) -> Result<String, String> {
    let table = text.parse::<toml::Table>().map_err(|error| error.message().replace('\n', " "))?;
    let secure = table
        .get("secure")
        .and_then(toml::Value::as_table)
        .ok_or("no [secure]: `init` needs a file of the secure wire")?;
    let mut new = text.to_owned();
    let known_peer = secure.get("peer-public-key").and_then(toml::Value::as_str);
    match known_peer {
        None => new = insert_after(&new, "[secure]", &peer_key(peer))?,
        Some(known) if known == keys::text(&peer.key).as_str() => {}
        Some(known) => {
            let other = keys::text(&peer.key);
            return Err(format!(
                "secure.peer-public-key = {known:?}: --peer has {:?}; remove peer-public-key from the file to change the \
                 peer",
                *other
            ));
        }
    }
    new = with_identifier(new, secure, peer, known_peer.is_some())?;
    match secure.get("peer-slot").and_then(toml::Value::as_integer) {
        None if peer.slot > 0 => new = insert_after(&new, "[secure]", &peer_slot(peer))?,
        Some(known) if peer.slot > 0 && known != i64::from(peer.slot) => {
            return Err(format!(
                "secure.peer-slot = {known}: --peer has {}; remove peer-slot from the file to use the new value",
                peer.slot
            ));
        }
        _ => {}
    }
    let paths = table.get("path").and_then(toml::Value::as_array).map_or(&[][..], Vec::as_slice);
    let lacking = paths.iter().filter(|path| path.get("remote").is_none()).count();
    match (lacking, paths.len()) {
        // A remote address that the user gave before the peer was known stays. A line without an endpoint contradicts none.
        (0, 1) if known_peer.is_some() && peer.endpoint.is_some() => check_remote(&paths[0], &remote_of(peer))?,
        (0, 1..) => {}
        (1, 1) => {
            new = insert_after(&new, "[[path]]", &remote(peer))?;
            if ipv6 && needs_ipv6(peer.endpoint.as_ref()) {
                new = listen_on_both(&new);
            }
        }
        _ => return Err("[[path]]: only a file with one path can be completed: add remote by hand".into()),
    }
    Ok(new)
}

/// Tunnel identifier in `[secure]`.
pub fn known_identifier(secure: &toml::Value) -> Result<Option<Identifier>, String> {
    let known = secure.get("tunnel-id").and_then(toml::Value::as_str);
    known.map(|text| identifier::parse("secure.tunnel-id", text)).transpose()
}

/// Adds the tunnel identifier of both ends to the text. If the peer was known before, a different identifier is an error.
fn with_identifier(text: String, secure: &toml::Table, peer: &Line, is_complete: bool) -> Result<String, String> {
    let known = known_identifier(&toml::Value::Table(secure.clone()))?;
    let agreed = identifier::agreed(known.unwrap_or(identifier::NONE), peer.tunnel);
    match known {
        None if agreed == identifier::NONE => Ok(text),
        None => insert_after(&text, "[secure]", &tunnel_id(agreed)),
        Some(known) if known == agreed => Ok(text),
        Some(known) if is_complete => Err(format!(
            "secure.tunnel-id = {:?}: --peer has {:?}; remove tunnel-id from the file to use the new value",
            identifier::text(known),
            identifier::text(agreed)
        )),
        Some(known) => {
            let new = text.replacen(&tunnel_id(known), &tunnel_id(agreed), 1);
            if new == text {
                return Err(format!(
                    "secure.tunnel-id is not as `ethudp init` wrote it; change by hand: {}",
                    tunnel_id(agreed)
                ));
            }
            Ok(new)
        }
    }
}

/// Compares the remote address of a path with the one in the peer's line.
fn check_remote(path: &toml::Value, said: &str) -> Result<(), String> {
    let Some(known) = path.get("remote").and_then(toml::Value::as_str) else { return Ok(()) };
    let same = match (known.parse::<SocketAddr>(), said.parse::<SocketAddr>()) {
        (Ok(known), Ok(said)) => known == said,
        _ => known.eq_ignore_ascii_case(said),
    };
    if same {
        return Ok(());
    }
    Err(format!("path.remote = {known:?}: --peer has {said:?}; remove remote from the file to use the new value"))
}

/// Changes `local` so that it receives IPv6 as well, where it is as `ethudp init` wrote it.
pub fn listen_on_both(text: &str) -> String {
    let line = |own: &str| match own.strip_prefix("local = \"0.0.0.0:") {
        Some(port) => format!("local = \"[::]:{port}"),
        None => own.to_owned(),
    };
    text.split_inclusive('\n').map(line).collect()
}

/// Inserts a line after the header of a table.
pub fn insert_after(text: &str, header: &str, line: &str) -> Result<String, String> {
    let is_header = |words: &str| words.split('#').next().is_some_and(|words| words.trim() == header);
    let mut found = false;
    let mut new = String::with_capacity(text.len() + line.len() + 1);
    for own in text.split_inclusive('\n') {
        new.push_str(own);
        if !found && is_header(own) {
            found = true;
            let end = if own.ends_with('\n') { "" } else { "\n" };
            new = new + end + line + "\n";
        }
    }
    if found { Ok(new) } else { Err(format!("{header} is not on a line of its own: add by hand: {line}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_inserted_after_header() {
        for (text, new) in [
            ("a = 1\n[secure]\nb = 2\n", "a = 1\n[secure]\nx\nb = 2\n"),
            (" [secure] # ours\n", " [secure] # ours\nx\n"),
            ("[secure]", "[secure]\nx\n"),
        ] {
            assert_eq!(insert_after(text, "[secure]", "x").as_deref(), Ok(new));
        }
        assert!(insert_after("secure.a = 1\n", "[secure]", "x").unwrap_err().contains("add by hand: x"));
    }
}
