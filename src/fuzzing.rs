//! What the fuzz target of the text formats calls: any text is a tunnel or an error of one line.

#![allow(clippy::missing_panics_doc)] // To panic is what it is for.

use std::ffi::OsString;
use std::path::Path;

use crate::cli::{Command, classic, convert};
use crate::{config, tunnel};

/// The text as classic arguments (a line each), as a VLAN map and as a file.
pub fn text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let arguments: Vec<_> = text.lines().map(OsString::from).collect();
    // A map would be read from the disk; its text is tried below.
    if !arguments.iter().any(|argument| argument == "-map" || argument == "-m") {
        match classic::parse(&arguments, &mut Vec::new()) {
            Ok(Command::Run(tunnel, _)) => {
                if let Ok(file) = convert::text(&tunnel, None) {
                    assert!(toml::from_str::<toml::Table>(&file).is_ok(), "{file}");
                }
            }
            Ok(_) => {}
            Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
        }
    }
    if let Err(error) = tunnel::vlan_map("map", text) {
        assert!(!error.contains('\n'), "{error}");
    }
    if let Err(error) = config::from_text(text, "name", Path::new("/nonexistent")) {
        assert!(!error.contains('\n'), "{error}");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn stored_seeds_hold() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/text");
        let seeds: Vec<_> = std::fs::read_dir(directory).unwrap().collect();
        assert!(seeds.len() > 5);
        for seed in seeds {
            super::text(&std::fs::read(seed.unwrap().path()).unwrap());
        }
    }
}
