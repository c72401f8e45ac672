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
    match paths {
        [] => return Err("[[path]] not found: add a path by hand".into()),
        // A remote address that the user gave before the peer was known stays. A line without an endpoint contradicts none.
        [path] if known_peer.is_some() && peer.endpoint.is_some() => check_remote(path, &remote_of(peer))?,
        _ => {}
    }
    add_remotes(new, paths, peer, ipv6)
}

/// Adds the missing remote addresses. The line has one endpoint, which is that of the first path without a remote address, unless
/// another path has it. The other paths learn the address of the peer.
fn add_remotes(mut text: String, paths: &[toml::Value], peer: &Line, ipv6: bool) -> Result<String, String> {
    let used = |path: &toml::Value| path.get("remote").is_some() && check_remote(path, &remote_of(peer)).is_ok();
    let mut endpoint = !paths.iter().any(used);
    for (number, _) in paths.iter().enumerate().filter(|(_, path)| path.get("remote").is_none()) {
        let (before, path) = text.split_at(header(&text, "[[path]]", number).unwrap_or(text.len()));
        let line = if endpoint { &remote(peer) } else { "remote = \"any\"" };
        let mut path = insert_after(path, "[[path]]", line)?;
        if endpoint && ipv6 && needs_ipv6(peer.endpoint.as_ref()) {
            path = listen_on_both(&path);
        }
        text = before.to_owned() + &path;
        endpoint = false;
    }
    Ok(text)
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

/// Changes `local` of the first path so that it receives IPv6 as well, where it is as `ethudp init` wrote it.
pub fn listen_on_both(text: &str) -> String {
    let (first, rest) = text.split_at(header(text, "[[path]]", 1).unwrap_or(text.len()));
    let line = |own: &str| match own.strip_prefix("local = \"0.0.0.0:") {
        Some(port) => format!("local = \"[::]:{port}"),
        None => own.to_owned(),
    };
    first.split_inclusive('\n').map(line).collect::<String>() + rest
}

/// Place of the header of a table, the first one that is left after `skipped` of them.
fn header(text: &str, header: &str, skipped: usize) -> Option<usize> {
    let places = text.split_inclusive('\n').scan(0, |end, line| {
        let start = *end;
        *end += line.len();
        Some((start, line))
    });
    let is_header = |words: &str| words.split('#').next().is_some_and(|words| words.trim() == header);
    places.filter(|(_, line)| is_header(line)).nth(skipped).map(|(start, _)| start)
}

/// Inserts a line after the first header of a table.
pub fn insert_after(text: &str, table: &str, line: &str) -> Result<String, String> {
    let Some(start) = header(text, table, 0) else {
        return Err(format!("{table} is not on a line of its own: add by hand: {line}"));
    };
    let end = text[start..].find('\n').map_or(text.len(), |length| start + length + 1);
    let (before, after) = text.split_at(end);
    let own_line = if before.ends_with('\n') { "" } else { "\n" };
    Ok(format!("{before}{own_line}{line}\n{after}"))
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
    #[test]
    fn missing_remotes_are_added() {
        const ANY: &str = "remote = \"any\"\n";
        const NAME: &str = "remote = \"b.example:6000\"\n";
        const OTHER: &str = "remote = \"192.0.2.9:6001\"\n";
        let peer = |endpoint: Option<&str>| Line {
            joins: true,
            key: [7; 32],
            tunnel: [7; 8],
            slot: 0,
            inner: Vec::new(),
            endpoint: endpoint.map(|text| crate::cli::init::line::endpoint(text).unwrap()),
        };
        let text = |remotes: &[&str]| {
            let path = |remote: &&str| format!("[[path]]\n{remote}local = \"0.0.0.0:6000\"\n");
            format!("[secure]\n{}", remotes.iter().map(path).collect::<String>())
        };
        for (before, endpoint, after) in [
            (&["", "", ""][..], Some("b.example:6000"), &[NAME, ANY, ANY][..]),
            (&["", ""], None, &[ANY, ANY]),
            (&[OTHER, ""], Some("b.example:6000"), &[OTHER, NAME]),
            (&["", OTHER], Some("b.example:6000"), &[NAME, OTHER]),
            (&["", NAME], Some("b.example:6000"), &[ANY, NAME]),
        ] {
            let new = add_peer(&text(before), &peer(endpoint), true).unwrap();
            let paths = &new[new.find("[[path]]").unwrap()..];
            // The socket of the path to a name receives both families.
            let added = |(before, after): (&&str, &&str)| before.is_empty() && *after == NAME;
            let expected: String = before
                .iter()
                .zip(after)
                .map(|pair| {
                    let path = text(&[*pair.1]).replace("[secure]\n", "");
                    if added(pair) { path.replace("0.0.0.0", "[::]") } else { path }
                })
                .collect();
            assert_eq!(paths, expected, "{before:?}");
        }
        assert!(add_peer("[secure]\n", &peer(None), true).unwrap_err().contains("add a path by hand"));
        let inline = "path = [{ local = \"0.0.0.0:6000\" }]\n[secure]\n";
        assert!(add_peer(inline, &peer(None), true).unwrap_err().contains("add by hand: remote = \"any\""));
    }
}
