//! `docs/STATUS.md` lists each field of a status with its description.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ethudp_status::{ConfinementStatus, Description, PathStatus, Pids, PortStatus, SessionStatus, Status};
use privsep::ipc::{Counts, PathCounters, PortCounters, SealCounters, SecureCounters};
use serde_json::Value;

type Fields = [(&'static str, &'static [&'static str])];

/// Lists of the page: the first words of its heading, the fields, the counters.
const LISTS: [(&str, &str, &Fields, &[Description]); 5] = [
    ("## The tunnel\n", "", Status::FIELDS, &[]),
    ("## `port`", "port.", PortStatus::FIELDS, PortCounters::ALL),
    ("## `seal`", "seal.", &[], SealCounters::ALL),
    ("## `session`", "session.", SessionStatus::FIELDS, SecureCounters::ALL),
    ("## `paths`", "paths.", PathStatus::FIELDS, PathCounters::ALL),
];

fn list(prefix: &str, fields: &Fields, counters: &[Description]) -> String {
    let mut text = String::new();
    for (name, lines) in fields.iter().filter(|(name, _)| *name != "counters") {
        let lines: Vec<_> = lines.iter().map(|line| line.trim()).collect();
        text.extend([&format!("- `{prefix}{name}`: ")[..], &lines.join("\n  "), "\n"]);
        let inner = match (prefix, *name) {
            ("", "pids") => list("pids.", Pids::FIELDS, &[]),
            ("", "confinement") => list("confinement.", ConfinementStatus::FIELDS, &[]),
            _ => String::new(),
        };
        text.push_str(&inner);
    }
    for Description { name, reset, meaning, .. } in counters {
        let reset = match reset {
            None => "",
            Some(Counts::Traffic) => " (traffic)",
            Some(Counts::Pings) => " (pings)",
        };
        let (first, rest) = meaning.split_at(1);
        text.extend([&format!("- `{prefix}{name}`: "), &first.to_uppercase(), rest, reset, ".\n"]);
    }
    text
}

#[test]
fn documented_fields_are_those_of_the_status() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/STATUS.md");
    let text = fs::read_to_string(&page).unwrap();
    let mut right = text.clone();
    for (heading, prefix, fields, counters) in LISTS {
        let at = right.find(&format!("\n{heading}")).unwrap_or_else(|| panic!("STATUS.md lacks {heading:?}")) + 1;
        let start = at + right[at..].find("\n- `").unwrap() + 1;
        let end = right[start..].find("\n\n").map_or(right.len(), |length| start + length + 1);
        right.replace_range(start..end, &list(prefix, fields, counters));
    }
    if std::env::var_os("ETHUDP_WRITE_TABLES").is_some() {
        fs::write(page, right).unwrap();
    } else {
        assert!(text == right, "docs/STATUS.md is not up to date: run this test with ETHUDP_WRITE_TABLES=1");
    }
}

fn names(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            found.insert(name.clone());
            names(value, found);
        }),
        Value::Array(all) => all.iter().for_each(|value| names(value, found)),
        _ => {}
    }
}

#[test]
fn described_fields_are_those_of_the_json() {
    let (session, paths) = (Some(SessionStatus::default()), vec![PathStatus::default()]);
    let status = Status { session, paths, ..Status::default() };
    let mut found = BTreeSet::new();
    names(&serde_json::to_value(status).unwrap(), &mut found);
    let all = LISTS.map(|(_, prefix, fields, counters)| list(prefix, fields, counters)).concat();
    let told = all.lines().filter_map(|line| line.strip_prefix("- `")?.split('`').next()?.rsplit('.').next());
    assert_eq!(told.map(str::to_owned).collect::<BTreeSet<_>>(), found);
}
