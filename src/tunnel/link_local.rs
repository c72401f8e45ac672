//! Protocols of link-local groups, whose frames a bridge does not forward (IEEE 802.1D, table 7-10).

/// Name of each protocol in the file, and the last byte of its group 01:80:c2:00:00:XX.
const PROTOCOLS: [(&str, u16); 4] = [("lldp", 0x0e), ("lacp", 0x02), ("stp", 0x00), ("eapol", 0x03)];

/// Bits of the groups of these protocols, as a bridge port takes them (`IFLA_BRPORT_GROUP_FWD_MASK`).
pub fn groups(what: &str, names: &[String]) -> Result<u16, String> {
    let group = |name: &String| {
        let known = PROTOCOLS.iter().find(|(known, _)| known == name);
        known.map(|(_, last)| 1 << last).ok_or_else(|| {
            let words: Vec<_> = PROTOCOLS.iter().map(|(known, _)| format!("{known:?}")).collect();
            format!("{what} {name:?}: must be one of {}", words.join(", "))
        })
    };
    names.iter().try_fold(0, |groups, name| Ok(groups | group(name)?))
}

/// Names of the protocols with these bits.
pub fn names(groups: u16) -> String {
    let known = PROTOCOLS.iter().filter(|(_, last)| groups & 1 << last != 0);
    known.map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_have_their_groups() {
        let all = PROTOCOLS.map(|(name, _)| name.to_owned());
        for (names, mask) in [(&all[..0], 0), (&all[..1], 0x4000), (&all[1..2], 4), (&all[2..3], 1), (&all[..], 0x400d)]
        {
            assert_eq!(groups("", names), Ok(mask), "{names:?}");
        }
        assert_eq!(names(0x4001), "lldp, stp");
        let error = groups("tap.pass-link-local", &["cdp".into()]).unwrap_err();
        assert_eq!(error, "tap.pass-link-local \"cdp\": must be one of \"lldp\", \"lacp\", \"stp\", \"eapol\"");
    }
}
