//! A file, word for word: its tables and keys.
//!
//! Every key of the format is known here. One that this version does not support is refused by name, never ignored.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::unknown;

/// A file, word for word.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Document {
    pub mode: Option<String>,
    pub wire: Option<String>,
    pub tap: Option<Tap>,
    pub raw: Option<Raw>,
    #[serde(default)]
    pub path: Vec<PathTable>,
    pub classic: Option<Classic>,
    pub direction: Option<String>,
    pub run: Option<String>,
    pub exit_after_s: Option<u64>,
    pub mirror: Option<Mirror>,
    pub secure: Option<Secure>,
    #[serde(default)]
    pub require_confinement: bool,
    pub repair: Option<String>,
    pub rules: Option<RulesTable>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RulesTable {
    pub mss: Option<toml::Value>,
    pub loop_check: Option<bool>,
    pub vlan_map: Option<BTreeMap<String, u16>>,
    pub vlan_map_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Tap {
    pub name: Option<String>,
    #[serde(default)]
    pub address: Vec<String>,
    pub bridge: Option<String>,
    pub mtu: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Raw {
    pub interface: String,
    pub promiscuous: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Mirror {
    pub interface: String,
    pub filter: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PathTable {
    pub local: String,
    pub remote: Option<String>,
    pub device: Option<String>,
    pub mark: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Secure {
    pub private_key_file: Option<PathBuf>,
    pub peer_public_key: Option<String>,
    pub psk_file: Option<PathBuf>,
    pub path_mtu: Option<u16>,
    pub tunnel_id: Option<String>,
    pub peer_slot: Option<u32>,
    pub ping_interval_s: Option<u32>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Classic {
    pub cipher: Option<String>,
    pub key_file: Option<PathBuf>,
    pub password_file: Option<PathBuf>,
    pub lz4: Option<u8>,
    pub fragment_mtu: Option<u16>,
}

impl Document {
    /// Key and value of all that names another file.
    pub fn names(self) -> Vec<(&'static str, PathBuf)> {
        let (classic, secure) = (self.classic.unwrap_or_default(), self.secure);
        let (private, psk) = secure.map_or((None, None), |secure| (secure.private_key_file, secure.psk_file));
        let map = self.rules.and_then(|rules| rules.vlan_map_file);
        let all = [
            ("key-file", classic.key_file),
            ("password-file", classic.password_file),
            ("private-key-file", private),
            ("psk-file", psk),
            ("vlan-map-file", map),
        ];
        all.into_iter().filter_map(|(key, file)| Some((key, file?))).collect()
    }
}

/// Reads the words of a file.
pub fn parse(text: &str) -> Result<Document, String> {
    let table = toml::from_str::<toml::Table>(text).map_err(|error| {
        // The words of an error are not those of the text but for a key, so that no secret is in it that somebody has put there.
        let key = error.span().and_then(|span| text.get(span)).filter(|_| error.message().starts_with("duplicate key"));
        let key = key.map_or_else(String::new, |key| format!(" `{}`", key.escape_debug()));
        at_line(text, &error, &format!("is no TOML: {}{key}", one_line(&error)))
    })?;
    toml::from_str(text).map_err(|error| {
        if table.get("path").is_some_and(toml::Value::is_table) {
            return "[path]: write [[path]], as there can be several".into();
        }
        at_line(text, &error, &wrong(&table, &error))
    })
}

/// What is wrong with a key or its value.
fn wrong(table: &toml::Table, error: &toml::de::Error) -> String {
    let is_table = |key: &str| match table.get(key) {
        Some(toml::Value::Array(list)) => list.iter().any(toml::Value::is_table),
        value => value.is_some_and(toml::Value::is_table),
    };
    let unknown = || unknown::key(error.message(), is_table);
    unknown().or_else(|| mistaken(table)).unwrap_or_else(|| one_line(error))
}

/// Keys whose value is a number, and is often written as a text.
const NUMBERS: [(&str, &str); 7] = [
    ("tap", "mtu"),
    ("secure", "path-mtu"),
    ("secure", "peer-slot"),
    ("secure", "ping-interval-s"),
    ("classic", "lz4"),
    ("classic", "fragment-mtu"),
    ("", "exit-after-s"),
];
/// Likewise truths.
const TRUTHS: [(&str, &str); 3] = [("raw", "promiscuous"), ("rules", "loop-check"), ("", "require-confinement")];

/// What is wrong with values of another kind than they must be, for the mistakes that people make.
fn mistaken(table: &toml::Table) -> Option<String> {
    let value = |(table_name, key): (&str, &str)| match table_name {
        "" => table.get(key),
        name => table.get(name)?.get(key),
    };
    let name = |(table, key): (&str, &str)| if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") };
    let text = |at| value(at).and_then(toml::Value::as_str);
    if let Some(address) = text(("tap", "address")) {
        return Some(format!("tap.address = {address:?}: must be a list: address = [{address:?}]"));
    }
    if value(("rules", "vlan-map")).is_some_and(|map| !map.is_table()) {
        return Some(
            "rules.vlan-map: must be pairs of LOCAL = REMOTE in braces: vlan-map = { 10 = 30, 40 = 100 }".into(),
        );
    }
    let number = NUMBERS.into_iter().find_map(|at| Some((at, text(at)?)));
    if let Some((at, written)) = number {
        let right = written.trim().parse::<u64>().map_or_else(|_| "a number".to_owned(), |number| number.to_string());
        return Some(format!("{} = {written:?}: must be a number without quotes: {} = {right}", name(at), at.1));
    }
    let truth = TRUTHS.into_iter().find_map(|at| Some((at, text(at)?)));
    truth.map(|(at, written)| format!("{} = {written:?}: must be true or false, without quotes", name(at)))
}

fn one_line(error: &toml::de::Error) -> String {
    error.message().replace('\n', " ")
}

fn at_line(text: &str, error: &toml::de::Error, message: &str) -> String {
    let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
    line.map_or_else(|| message.to_owned(), |line| format!("line {line}: {message}"))
}
