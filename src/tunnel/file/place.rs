//! Place in a file, and a mistake there. The spans of the TOML parser give the line.

use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::document::TABLES;

/// Place in a file: a table, or a key of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Table, as in [`TABLES`].
    table: &'static str,
    /// Key of the table, or empty for the table itself.
    key: &'static str,
    /// Number of the table among tables of one name; otherwise the number of the item in a list or table.
    index: usize,
}

/// Fault in a file, with its place.
#[derive(Debug)]
pub struct Mistake {
    place: Place,
    message: String,
}

impl Place {
    /// Place of a table.
    pub const fn table(table: &'static str) -> Self {
        Self { table, key: "", index: 0 }
    }

    /// Place of a key.
    pub fn key(table: &'static str, key: &'static str) -> Self {
        let known = TABLES.iter().any(|known| known.name == table && known.keys.iter().any(|known| known.name == key));
        debug_assert!(known, "{table} {key}");
        Self { table, key, index: 0 }
    }

    /// The same place with the number of a table or of an item.
    pub const fn at(self, index: usize) -> Self {
        Self { index, ..self }
    }

    /// Mistake with a message that names the place itself.
    pub fn mistake(self, message: String) -> Mistake {
        Mistake { place: self, message }
    }

    /// Mistake with the message `PLACE: message`.
    pub fn wrong(self, message: impl fmt::Display) -> Mistake {
        self.mistake(format!("{self}: {message}"))
    }

    /// Mistake with the message `PLACE is missing: message`.
    pub fn missing(self, message: impl fmt::Display) -> Mistake {
        self.mistake(format!("{self} is missing: {message}"))
    }

    /// Runs a check, which gets the name of the place for its message.
    pub fn check<T>(self, check: impl FnOnce(&str) -> Result<T, String>) -> Result<T, Mistake> {
        check(&self.to_string()).map_err(|message| self.mistake(message))
    }

    /// Byte range of the place in the text; of its table if the key is missing.
    fn span(self, root: &DeTable<'_>) -> Option<Range<usize>> {
        let name = self.table.trim_matches(['[', ']']);
        let (table, header) = if name.is_empty() {
            (root, None)
        } else {
            let (key, value) = root.get_key_value(name)?;
            match value.get_ref() {
                DeValue::Array(tables) => {
                    let table = tables.get(self.index)?;
                    (table.get_ref().as_table()?, Some(table.span()))
                }
                value => (value.as_table()?, Some(key.span())),
            }
        };
        let Some((key, value)) = table.get_key_value(self.key) else { return header };
        let item = match value.get_ref() {
            DeValue::Array(items) => items.get(self.index).map(Spanned::span),
            DeValue::Table(items) => items.keys().nth(self.index).map(Spanned::span),
            _ => None,
        };
        Some(item.unwrap_or(key.span()))
    }
}

/// Name of a place in messages: `mode`, `[tap]`, `tap.mtu`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.table, self.key) {
            ("", key) => f.write_str(key),
            (table, "") => f.write_str(table),
            (table, key) => write!(f, "{}.{key}", table.trim_matches(['[', ']'])),
        }
    }
}

impl Mistake {
    /// Message with the line in this text.
    pub fn in_text(&self, text: &str) -> String {
        let root = DeTable::parse(text).ok();
        let span = root.and_then(|root| self.place.span(root.get_ref()));
        match span {
            Some(span) => in_line(text, &span, &self.message),
            None => self.message.clone(),
        }
    }
}

/// Message with the line in which this span begins.
pub fn in_line(text: &str, span: &Range<usize>, message: &str) -> String {
    let before = text.get(..span.start).unwrap_or(text);
    format!("line {}: {message}", before.matches('\n').count() + 1)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::from_text;

    const HEAD: &str = "mode = \"tap\"\nwire = \"classic\"\n";
    const PATHS: &str = "[[path]]\nlocal = \"192.0.2.1:6000\"\nremote = \"192.0.2.2:6000\"\n";

    #[test]
    fn errors_have_line_numbers() {
        for (text, words) in [
            // The value 0 is also in the addresses of the first path.
            (format!("{HEAD}{PATHS}[[path]]\nlocal = \"192.0.2.1:0\"\n"), "line 7: port of path.local \"0\""),
            (
                format!("{HEAD}{PATHS}[[path]]\nlocal = \"192.0.2.9:1\"\nremote = \"192.0.2.2:0x\"\n"),
                "line 8: port of path.remote",
            ),
            (format!("{HEAD}{PATHS}device = \"a/b\"\n[[path]]\ndevice = \"a/b\"\n"), "line 6: path.device \"a/b\""),
            (
                format!("{HEAD}{PATHS}[[path]]\nlocal = \"192.0.2.9:6000\"\n"),
                "line 6: path 192.0.2.9:6000: remote is missing",
            ),
            (format!("{HEAD}{PATHS}[[path]]\n# local\nremote = \"any\"\n"), "line 6: path.local is missing"),
            // The same words in a string of several lines.
            (format!("run = \"\"\"\nmode = 1\n\"\"\"\nmode = \"tun\"\n{PATHS}"), "line 4: mode = \"tun\""),
            (format!("run = \"\"\"\n[tap]\nmtu = 1\n\"\"\"\n{HEAD}[tap]\nmtu = 1\n"), "line 8: tap.mtu = 1"),
            // Other ways to write a table or a key.
            (format!("{HEAD}tap = {{ name = \"a/b\" }}\n{PATHS}"), "line 3: tap.name \"a/b\""),
            (format!("{HEAD}path = [\n{{ local = \"192.0.2.1:0\" }},\n]\n"), "line 4: port of path.local"),
            (
                format!("{HEAD}tap.address = [\n\"10.8.0.1/24\",\n\"10.8.0.2\"]\n{PATHS}"),
                "line 5: tap.address \"10.8.0.2\"",
            ),
            (format!("{HEAD}{PATHS}[ rules ]\n\"mss\" = 0\n"), "line 7: rules.mss = 0"),
            (format!("{HEAD}{PATHS}[rules.vlan-map]\n2 = 5\n10 = 4096\n"), "line 8: rules.vlan-map: 10 = 4096"),
            (format!("{HEAD}{PATHS}[rules.vlan-map]\n10 = 30\n2 = 30\n"), "line 8: rules.vlan-map: VLAN 2 to 30"),
            // The key of another table.
            (format!("{HEAD}[tap]\n[mirror]\ninterface = \"a\"\n{PATHS}"), "line 4: [mirror]: not valid"),
            (format!("mode = \"raw\"\nwire = \"classic\"\n{PATHS}[raw]\n"), "line 6: raw.interface is missing"),
            (format!("{HEAD}{PATHS}[rules]\nvlan-map-file = \"none\"\n"), "line 7: VLAN map none: No such file"),
            (
                format!("{HEAD}{PATHS}[classic]\ncipher = \"xor\"\nkey-file = \"none\"\n"),
                "line 8: key file none: No such",
            ),
            (
                format!(
                    "{HEAD}{}",
                    (1..=9).map(|port| PATHS.replace("1:6000", &format!("1:{port}"))).collect::<String>()
                ),
                "line 27: [[path]]: 9 paths; at most 8 are possible",
            ),
            (format!("{HEAD}{PATHS}{PATHS}"), "line 7: path 192.0.2.1:6000: two paths have this local address"),
        ] {
            let error = from_text(&text, "a", Path::new("")).map(drop).unwrap_err();
            assert!(error.starts_with(words), "{words}: {error}\n{text}");
        }
    }
}
