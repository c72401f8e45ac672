//! What to say of a key that no table of that name has: which one was meant, or which table has it.

/// A table as an error of `serde` tells which it is: by its keys.
type Table = (&'static str, &'static [&'static str]);

/// All keys; those before the first table have no table.
const KEYS: [Table; 8] = [
    (
        "",
        &[
            "mode", "wire", "tap", "raw", "path", "classic", "direction", "run", "exit-after-s", "mirror", "secure",
            "require-confinement", "repair", "rules",
        ],
    ),
    ("[rules]", &["mss", "loop-check", "vlan-map", "vlan-map-file"]),
    ("[tap]", &["name", "address", "bridge", "mtu"]),
    ("[raw]", &["interface", "promiscuous"]),
    ("[mirror]", &["interface", "filter"]),
    ("[[path]]", &["local", "remote", "device", "mark"]),
    (
        "[secure]",
        &["private-key-file", "peer-public-key", "psk-file", "path-mtu", "tunnel-id", "peer-slot", "ping-interval-s"],
    ),
    ("[classic]", &["cipher", "key-file", "password-file", "lz4", "fragment-mtu"]),
];

/// Most single changes between a word and one that it was to be.
const NEAR: usize = 2;

/// What is wrong, from the words of an error of `serde`: ``unknown field `x`, expected one of `a`, `b` ``. `is_table` says whether the
/// value is one.
pub fn key(message: &str, is_table: impl Fn(&str) -> bool) -> Option<String> {
    let mut words = message.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    let (unknown, expected) = (words.next()?, words.collect::<Vec<_>>());
    let (table, _) = KEYS.iter().find(|(_, keys)| *keys == expected)?;
    let (what, of) = match *table {
        "" if is_table(unknown) => ("table", String::new()),
        "" => ("key", String::new()),
        table => ("key", format!(" in {table}")),
    };
    Some(format!("unknown {what} `{}`{of}; {}", unknown.escape_debug(), right(unknown, table, &expected)))
}

/// What would be right.
fn right(unknown: &str, table: &str, expected: &[&str]) -> String {
    let tables: Vec<_> = KEYS.iter().filter(|(_, keys)| keys.contains(&unknown)).map(|(table, _)| *table).collect();
    match tables[..] {
        [] => {}
        ["", ..] => return "it belongs before the first table".into(),
        _ => return format!("it belongs into {}", tables.join(" or ")),
    }
    if let Some(near) = nearest(unknown, expected) {
        return format!("did you mean `{near}`?");
    }
    let mut elsewhere = KEYS.iter().filter(|(other, _)| *other != table);
    let near = elsewhere.find_map(|(table, keys)| Some((nearest(unknown, keys)?, table)));
    match near {
        Some((near, &"")) => format!("did you mean `{near}` before the first table?"),
        Some((near, table)) => format!("did you mean `{near}` in {table}?"),
        None => format!("must be one of `{}`", expected.join("`, `")),
    }
}

/// The key that a word was to be, if there is one so near.
fn nearest<'a>(word: &str, keys: &[&'a str]) -> Option<&'a str> {
    // None is as long, and what is compared must not be long.
    let word: String = word.to_ascii_lowercase().replace('_', "-").chars().take(30).collect();
    let distances = keys.iter().map(|&key| (changes(&word, key), key));
    let (distance, key) = distances.min_by_key(|(distance, _)| *distance)?;
    // In a word of three letters two changes leave nothing.
    (distance <= NEAR.min(key.len() / 3)).then_some(key)
}

/// Least number of characters to put in, to take out or to exchange, which makes one of the other (Levenshtein's distance).
fn changes(one: &str, other: &str) -> usize {
    let other: Vec<_> = other.chars().collect();
    let mut row: Vec<_> = (0..=other.len()).collect();
    for (number, c) in one.chars().enumerate() {
        let mut before = row[0];
        row[0] = number + 1;
        for (index, &of_other) in other.iter().enumerate() {
            let exchanged = before + usize::from(c != of_other);
            before = row[index + 1];
            row[index + 1] = exchanged.min(before + 1).min(row[index] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_the_format_are_known_here() {
        for (table, keys) in KEYS {
            let text = format!("{table}\nlocal2 = 1\n");
            let error = toml::from_str::<super::super::document::Document>(&text).map(drop).unwrap_err();
            let words: Vec<_> = error.message().split('`').skip(1).step_by(2).skip(1).collect();
            assert_eq!(words, keys, "{table}");
        }
    }

    #[test]
    fn changes_between_words_are_counted() {
        for (one, other, count) in [("mtu", "mtu", 0), ("mtuu", "mtu", 1), ("", "mtu", 3), ("adres", "address", 2)] {
            assert_eq!((changes(one, other), changes(other, one)), (count, count), "{one} {other}");
        }
    }
}
