//! Check of a parsed file against the format: unknown keys, values of a wrong type, integers out of bounds.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::document::{Document, Key, TABLES, Table, Values};
use super::place::in_line;
use super::unknown;

/// Parses the text of a file.
///
/// # Errors
/// Line and mistake, if the text does not follow the format.
pub fn parse(text: &str) -> Result<Document, String> {
    let root = DeTable::parse(text).map_err(|error| syntax(text, &error))?;
    check(text, &TABLES[0], root.get_ref())?;
    let document = serde::Deserialize::deserialize(toml::de::Deserializer::from(root));
    document.map_err(|error: toml::de::Error| at_span(text, &error, &one_line(&error)))
}

/// Mistake of a text that is not TOML.
fn syntax(text: &str, error: &toml::de::Error) -> String {
    // The message quotes nothing from the text except this key, because a text may hold a secret.
    let key = error.span().and_then(|span| text.get(span)).filter(|_| error.message().starts_with("duplicate key"));
    let key = key.map_or_else(String::new, |key| format!(" `{}`", key.escape_debug()));
    at_span(text, error, &format!("not valid TOML: {}{key}", one_line(error)))
}

fn one_line(error: &toml::de::Error) -> String {
    error.message().replace('\n', " ")
}

fn at_span(text: &str, error: &toml::de::Error, message: &str) -> String {
    error.span().map_or_else(|| message.to_owned(), |span| in_line(text, &span, message))
}

/// Checks a table and its subtables, in the order of the text.
fn check(text: &str, table: &Table, found: &DeTable<'_>) -> Result<(), String> {
    let mut entries: Vec<_> = found.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    for (name, value) in entries {
        let Some(key) = table.keys.iter().find(|key| key.name == name.get_ref().as_ref()) else {
            let message = unknown::message(name.get_ref(), table, has_tables(value.get_ref()));
            return Err(in_line(text, &name.span(), &message));
        };
        let wrong = |value: &Spanned<DeValue<'_>>, message: &str| Err(in_line(text, &value.span(), message));
        match (&key.values, value.get_ref()) {
            (Values::Table, DeValue::Table(inner)) => check(text, of_name(&format!("[{}]", key.name)), inner)?,
            (Values::Table, _) => return wrong(value, &format!("{}: must be a table: [{}]", key.name, key.name)),
            (Values::Tables, DeValue::Array(tables)) if tables.iter().all(|table| table.get_ref().is_table()) => {
                let tables = tables.iter().filter_map(|table| table.get_ref().as_table());
                tables.into_iter().try_for_each(|inner| check(text, of_name(&format!("[[{}]]", key.name)), inner))?;
            }
            (Values::Tables, _) => {
                return wrong(value, &format!("[{}]: must be an array of tables: [[{}]]", key.name, key.name));
            }
            (values, found) if !accepts(values, found) => {
                let name = match table.name.trim_matches(['[', ']']) {
                    "" => key.name.to_owned(),
                    table => format!("{table}.{}", key.name),
                };
                return wrong(value, &format!("{name}{}: must be {}", shown(text, value), right(key, found)));
            }
            _ => {}
        }
    }
    Ok(())
}

fn of_name(name: &str) -> &'static Table {
    TABLES.iter().find(|table| table.name == name).unwrap_or(&TABLES[0])
}

fn has_tables(value: &DeValue<'_>) -> bool {
    let is_one = value.is_table();
    is_one || value.as_array().is_some_and(|list| list.iter().any(|item| item.get_ref().is_table()))
}

/// Whether a key accepts a value.
fn accepts(values: &Values, value: &DeValue<'_>) -> bool {
    match values {
        Values::Words(words) => value.as_str().is_some_and(|word| words.contains(&word)),
        Values::String(_) => value.is_str(),
        Values::Integer(bounds) => integer(value).is_some_and(|number| bounds.contains(&number)),
        Values::IntegerOr(bounds, word) => {
            value.as_str() == Some(word) || integer(value).is_some_and(|number| bounds.contains(&number))
        }
        Values::Boolean => value.is_bool(),
        Values::List(_) => value.as_array().is_some_and(|list| list.iter().all(|item| item.get_ref().is_str())),
        // A wrong id is reported later, with its pair.
        Values::Pairs(_) => value.as_table().is_some_and(|pairs| pairs.values().all(|id| id.get_ref().is_integer())),
        Values::Table | Values::Tables => false,
    }
}

/// A non-negative integer.
fn integer(value: &DeValue<'_>) -> Option<u64> {
    value.as_integer().and_then(|number| u64::from_str_radix(number.as_str(), number.radix()).ok())
}

/// A value in a message, in one line; empty if it is long.
fn shown(text: &str, value: &Spanned<DeValue<'_>>) -> String {
    const LONGEST: usize = 100;
    let written = match value.get_ref() {
        DeValue::String(written) => format!("{written:?}"),
        DeValue::Array(_) | DeValue::Table(_) => return String::new(),
        _ => text.get(value.span()).unwrap_or_default().to_owned(),
    };
    if written.len() > LONGEST { String::new() } else { format!(" = {written}") }
}

/// Description of a valid value.
fn right(key: &Key, found: &DeValue<'_>) -> String {
    let (name, values, written) = (key.name, &key.values, found.as_str());
    match (values, written) {
        (Values::Integer(_), Some(written)) => match written.trim().parse::<u64>() {
            Ok(number) => format!("a number without quotes: {name} = {number}"),
            Err(_) => format!("a number without quotes, {values}"),
        },
        (Values::Boolean, _) => "true or false, without quotes".into(),
        (Values::String(form), _) => format!("a string in quotes: {}", form.replace('`', "")),
        (Values::List(_), Some(written)) => format!("a list: {name} = [{written:?}]"),
        (Values::List(form), None) => form.replace('`', ""),
        (Values::Pairs(_), _) => format!("pairs of LOCAL = REMOTE in braces: {name} = {{ 10 = 30, 40 = 100 }}"),
        _ => values.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_value_names_key_and_remedy() {
        for (text, words) in [
            ("tap.mtu = \"x\"", "line 1: tap.mtu = \"x\": must be a number without quotes, 68 to 9216"),
            ("tap.mtu = -1", "line 1: tap.mtu = -1: must be 68 to 9216"),
            ("tap.mtu = 1.5", "line 1: tap.mtu = 1.5: must be 68 to 9216"),
            ("[tap]\nmtu = [1400]", "line 2: tap.mtu: must be 68 to 9216"),
            ("classic.lz4 = 300", "line 1: classic.lz4 = 300: must be 0 to 9"),
            ("run = 7", "line 1: run = 7: must be a string in quotes: a command for /bin/sh"),
            ("mode = true", "line 1: mode = true: must be \"raw\", \"tap\""),
            ("tap.address = [1]", "line 1: tap.address: must be a list of \"ADDRESS/PREFIX\""),
            ("tap = 1", "line 1: tap: must be a table: [tap]"),
            ("path = 1", "line 1: [path]: must be an array of tables: [[path]]"),
            ("[[tap]]", "line 1: tap: must be a table: [tap]"),
            ("[[path]]\n[[path]]\nmark = 4294967296", "line 3: path.mark = 4294967296: must be 0 to 4294967295"),
            ("exit-after-s = \"5\"", "line 1: exit-after-s = \"5\": must be a number without quotes: exit-after-s = 5"),
            ("exit-after-s = -5", "line 1: exit-after-s = -5: must be 0 or more"),
            ("require-confinement = 1", "line 1: require-confinement = 1: must be true or false, without quotes"),
            ("rules.vlan-map = { 1 = \"2\" }", "line 1: rules.vlan-map: must be pairs of LOCAL = REMOTE"),
            ("rules.mss = []", "line 1: rules.mss: must be 1 to 65535, or \"auto\""),
            ("secure.psk-file = [\"secret\"]", "line 1: secure.psk-file: must be a string in quotes: a file name"),
        ] {
            let error = parse(text).map(drop).unwrap_err();
            assert!(error.starts_with(words), "{words}: {error}");
        }
    }
}
