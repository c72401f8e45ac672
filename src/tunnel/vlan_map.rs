//! VLAN maps: pairs of a local and a remote VLAN id.

use std::ops::RangeInclusive;

/// Valid VLAN ids: 0 is a priority without VLAN, 4095 is reserved (IEEE 802.1Q).
pub const IDS: RangeInclusive<u16> = 1..=4094;
/// All numbers of a tag. `EthUDP` accepts them, and so do its map files and the classic wire.
pub const NUMBERS: RangeInclusive<u16> = 0..=4095;

/// Parses a VLAN map file: a local and a remote id on each line, and ignored text after them. Empty lines and lines that begin with
/// `#` are skipped. The file may be any that root can read, so an error quotes nothing from it.
pub fn parse(what: &str, text: &str) -> Result<Vec<(u16, u16)>, String> {
    let mut pairs = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let mut words = line.split_whitespace();
        let Some(first) = words.next().filter(|word| !word.starts_with('#')) else { continue };
        let id = |word: Option<&str>| word.and_then(|word| word.parse::<u16>().ok()).filter(|id| NUMBERS.contains(id));
        let (Some(local), Some(remote)) = (id(Some(first)), id(words.next())) else {
            return Err(format!(
                "{what}, line {number}: must begin with a local and a remote VLAN ID, each 0 to {}",
                NUMBERS.end()
            ));
        };
        add(&mut pairs, (local, remote)).map_err(|error| format!("{what}, line {number}: {error}"))?;
    }
    Ok(pairs)
}

/// Adds a pair to a VLAN map, unless it contradicts another.
pub fn add(pairs: &mut Vec<(u16, u16)>, (local, remote): (u16, u16)) -> Result<(), String> {
    match pairs.iter().find(|pair| pair.0 == local || pair.1 == remote) {
        Some(&pair) if pair == (local, remote) => {}
        Some(pair) => return Err(format!("VLAN {local} to {remote} contradicts {} to {}", pair.0, pair.1)),
        None => pairs.push((local, remote)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vlan_maps() {
        let read = |text: &str| parse("map", text);
        assert_eq!(read("# a comment\n\n  7\t4000 more words\r\n100 200"), Ok(vec![(7, 4000), (100, 200)]));
        assert_eq!(read("1 2\n1 2\n"), Ok(vec![(1, 2)]));
        assert_eq!(read("4095 1\n1 4095\n"), Ok(vec![(4095, 1), (1, 4095)]));
        for (text, words) in [
            ("1 2\n1 3\n", "map, line 2: VLAN 1 to 3 contradicts 1 to 2"),
            ("1 2\n\n3 2\n", "map, line 3: VLAN 3 to 2 contradicts 1 to 2"),
            ("50,60", "map, line 1: must begin with a local"),
            ("x 9 9", "map, line 1"),
            ("7", "map, line 1"),
            ("4096 1", "each 0 to 4095"),
        ] {
            assert!(read(text).unwrap_err().contains(words), "{text:?}: {:?}", read(text));
        }
    }
}
