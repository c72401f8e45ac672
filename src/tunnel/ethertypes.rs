//! EtherTypes in the file: names of the usual ones, or hexadecimal numbers.

use privsep::ipc::Guard;

/// Most EtherTypes of a list.
const MOST: usize = 32;
/// Names, with the protocols that a bridge may have to pass.
const NAMES: [(&str, u16); 7] = [
    ("ipv4", 0x0800),
    ("arp", 0x0806),
    ("ipv6", 0x86dd),
    ("lldp", 0x88cc),
    ("lacp", 0x8809),
    ("eapol", 0x888e),
    ("llc", Guard::LENGTHS),
];
/// First number that is an EtherType; a smaller one is a length (IEEE 802.3).
const FIRST: u16 = 0x0600;

/// Parses a list.
pub fn parse(what: &str, list: &[String]) -> Result<Vec<u16>, String> {
    if list.len() > MOST {
        return Err(format!("{what}: {} EtherTypes, at most {MOST} are possible", list.len()));
    }
    list.iter().map(|text| one(text).ok_or_else(|| wrong(what, text))).collect()
}

fn one(text: &str) -> Option<u16> {
    let named = NAMES.iter().find(|(name, _)| *name == text).map(|(_, number)| *number);
    let number = || u16::from_str_radix(text.strip_prefix("0x")?, 16).ok().filter(|number| *number >= FIRST);
    named.or_else(number)
}

fn wrong(what: &str, text: &str) -> String {
    let names: Vec<_> = NAMES.iter().map(|(name, _)| format!("{name:?}")).collect();
    format!("{what} {text:?}: must be one of {}, or a number such as \"0x88b5\"", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_ethertypes() {
        let list =
            |texts: &[&str]| parse("rules.ethertypes", &texts.iter().map(|&text| text.into()).collect::<Vec<_>>());
        assert_eq!(list(&["ipv4", "0x88CC", "llc", "0x0600"]), Ok(vec![0x0800, 0x88cc, 0, 0x0600]));
        for text in ["IPv4", "0x05ff", "88cc", "0x10000", ""] {
            let error = list(&[text]).unwrap_err();
            assert!(error.starts_with(&format!("rules.ethertypes {text:?}: must be one of \"ipv4\", ")), "{error}");
        }
        assert!(list(&["arp"; 33]).unwrap_err().contains("33 EtherTypes, at most 32"));
    }
}
