//! What to say of a key that no table of that name has: which one was meant, or which table has it.

use super::document::{TABLES, Table};

/// Most single changes between a word and one that it was to be.
const NEAR: usize = 2;

/// The message for a key that a table does not have; the key `is_table` itself.
pub fn message(unknown: &str, table: &Table, is_table: bool) -> String {
    let (what, of) = match table.name {
        "" if is_table => ("table", String::new()),
        "" => ("key", String::new()),
        name => ("key", format!(" in {name}")),
    };
    format!("unknown {what} `{}`{of}; {}", unknown.escape_debug(), right(unknown, table))
}

/// What would be right.
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

/// The key that a word was to be, if there is one so near.
fn nearest(word: &str, table: &Table) -> Option<&'static str> {
    // None is as long, and what is compared must not be long.
    let word: String = word.to_ascii_lowercase().replace('_', "-").chars().take(30).collect();
    let distances = table.keys.iter().map(|key| (changes(&word, key.name), key.name));
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
    fn edit_distance_is_counted() {
        for (one, other, count) in [("mtu", "mtu", 0), ("mtuu", "mtu", 1), ("", "mtu", 3), ("adres", "address", 2)] {
            assert_eq!((changes(one, other), changes(other, one)), (count, count), "{one} {other}");
        }
    }
}
