//! The line of a file that an error of meaning is about. The error names a key or a table, and mostly the value.

/// Where an assignment stands.
struct Entry<'a> {
    line: usize,
    table: &'a str,
    key: &'a str,
    value: &'a str,
}

/// The number of the line, if the error says enough to find it; the first is 1.
pub fn of(text: &str, error: &str) -> Option<usize> {
    let (entries, headers) = read(text);
    let end = error.find([' ', ':']).unwrap_or(error.len());
    let quoted: Vec<_> = error.split('"').skip(1).step_by(2).collect();
    let header = |table: &str| headers.iter().find(|(_, name)| *name == table).map(|(line, _)| *line);
    let (table, key) = match &error[..end] {
        name if name.starts_with('[') => return header(name.trim_matches(['[', ']'])),
        // These stand for keys of files, or of one of several tables.
        "key" => ("classic", "key-file"),
        "password" => ("classic", "password-file"),
        "private" => ("secure", "private-key-file"),
        "pre-shared" => ("secure", "psk-file"),
        "VLAN" => ("rules", "vlan-map-file"),
        "path" => {
            let local = error["path ".len()..].split(": ").next()?;
            let mut of_path = entries.iter().filter(|entry| entry.key == "local" && entry.value.contains(local));
            return of_path.next_back().map(|entry| entry.line);
        }
        key @ ("local" | "remote" | "device" | "port") => {
            let names = |entry: &&Entry<'_>| key == "port" || entry.key == key;
            let holds = |entry: &&Entry<'_>| quoted.first().is_some_and(|value| entry.value.contains(value));
            let mut of_paths = entries.iter().filter(|entry| entry.table == "path").filter(names);
            return of_paths.find(holds).map(|entry| entry.line);
        }
        name => name.split_once('.').unwrap_or(("", name)),
    };
    let entry = entries.iter().find(|entry| entry.table == table && entry.key == key);
    entry.map(|entry| entry.line).or_else(|| header(table))
}

/// The assignments and the table headers of a file, each with its line.
fn read(text: &str) -> (Vec<Entry<'_>>, Vec<(usize, &str)>) {
    let (mut entries, mut headers, mut table) = (Vec::new(), Vec::new(), "");
    for (line, words) in (1..).zip(text.lines().map(str::trim)) {
        if words.starts_with('[') {
            table = words.split('#').next().unwrap_or_default().trim().trim_matches(['[', ']']).trim();
            headers.push((line, table));
        } else if let Some((key, value)) = words.split_once('=').filter(|_| !words.starts_with('#')) {
            let key = key.trim();
            // Tables may be written `table.key = value`, too.
            let (table, key) =
                if table.is_empty() { key.split_once('.').unwrap_or((table, key)) } else { (table, key) };
            entries.push(Entry { line, table, key, value });
        }
    }
    (entries, headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# mode = \"raw\"\nmode = \"tun\"\nclassic.lz4 = 10\n[tap] # here\nmtu = 20000\naddress = [\"10.8.0.1\"]\n\n\
                        [[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"192.0.2.300:6000\"\n[[path]]\n\
                        local = \"192.0.2.1:6000\"\nremote = \"peer:70000\"\n[rules]\nvlan-map = { 1 = 2, 3 = 2 }\n";

    #[test]
    fn an_error_of_meaning_is_found_by_its_key_and_value() {
        for (error, line) in [
            ("mode = \"tun\": must be", Some(2)),
            ("classic.lz4 = 10: must be 0 to 9", Some(3)),
            ("tap.mtu = 20000: must be 68 to 9216", Some(5)),
            ("tap.address \"10.8.0.1\": must be ADDRESS/PREFIX", Some(6)),
            ("tap.bridge is missing: mode \"bridge\" needs it", Some(4)),
            ("[tap]: is of no use in mode \"raw\"", Some(4)),
            ("remote \"192.0.2.300\": is no IPv4 address", Some(10)),
            ("port of remote \"70000\": must be a number", Some(13)),
            ("path 192.0.2.1:6000: two paths have this local address", Some(12)),
            ("rules.vlan-map: VLAN 3 to 2 contradicts 1 to 2", Some(15)),
            ("VLAN map /none: No such file", Some(14)),
            ("key file /none: No such file", None),
            ("wire = \"frob\": must be", None),
            ("private key file /none: No such file", None),
            ("", None),
        ] {
            assert_eq!(of(FILE, error), line, "{error}");
        }
    }
}
