//! Message about an unknown key: a similar key, or the table that has the key.

use super::document::{TABLES, Table};

/// Most changes of one character between a word and a similar key.
const NEAR: usize = 2;

/// Message for a key that a table does not have. `is_table` tells whether its value is a table.
pub fn message(unknown: &str, table: &Table, is_table: bool) -> String {
    let (what, of) = match table.name {
        "" if is_table => ("table", String::new()),
        "" => ("key", String::new()),
        name => ("key", format!(" in {name}")),
    };
    format!("unknown {what} `{}`{of}; {}", unknown.escape_debug(), right(unknown, table))
}

/// Advice for the key.
fn right(unknown: &str, table: &Table) -> String {
    let has = |table: &&Table| table.keys.iter().any(|key| key.name == unknown);
    let tables: Vec<_> = TABLES.iter().filter(has).map(|table| table.name).collect();
    match tables[..] {
        [] => {}
        ["", ..] => return "move it before the first table".into(),
        _ => return format!("move it to {}", tables.join(" or ")),
    }
    if let Some(near) = nearest(unknown, table) {
        return format!("did you mean `{near}`?");
    }
    let mut elsewhere = TABLES.iter().filter(|other| other.name != table.name);
    match elsewhere.find_map(|table| Some((nearest(unknown, table)?, table.name))) {
        Some((near, "")) => format!("did you mean `{near}` before the first table?"),
        Some((near, table)) => format!("did you mean `{near}` in {table}?"),
        None => {
            let names: Vec<_> = table.keys.iter().map(|key| key.name).collect();
            format!("must be one of `{}`", names.join("`, `"))
        }
    }
}

/// Most similar key of a table, if it is similar enough.
fn nearest(word: &str, table: &Table) -> Option<&'static str> {
    // No key is that long, and the comparison must stay short.
    let word: String = word.to_ascii_lowercase().replace('_', "-").chars().take(30).collect();
    let distances = table.keys.iter().map(|key| (changes(&word, key.name), key.name));
    let (distance, key) = distances.min_by_key(|(distance, _)| *distance)?;
    // In a word of three letters, two changes would match any word.
    (distance <= NEAR.min(key.len() / 3)).then_some(key)
}

/// Levenshtein distance: the least number of characters to insert, remove or replace.
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
    fn edit_distance_is_counted() {
        for (one, other, count) in [("mtu", "mtu", 0), ("mtuu", "mtu", 1), ("", "mtu", 3), ("adres", "address", 2)] {
            assert_eq!((changes(one, other), changes(other, one)), (count, count), "{one} {other}");
        }
    }
}
