//! Tables and keys of a file: one list, from which the parser, its error messages and the reference in `docs/FILE.md` follow.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde::Deserialize;

use crate::tunnel::bounds;

/// Table of the format.
pub struct Table {
    /// Name as an error message writes it: `[tap]`, `[[path]]`, or empty for the keys before the first table.
    pub name: &'static str,
    /// Keys in the order of the reference.
    pub keys: &'static [Key],
}

/// Key of a table.
pub struct Key {
    /// Name in the file.
    pub name: &'static str,
    /// Values that the key takes.
    pub values: Values,
    /// Meaning of a file without the key.
    #[cfg_attr(not(test), allow(dead_code))]
    pub default: &'static str,
    /// Description in one line.
    #[cfg_attr(not(test), allow(dead_code))]
    pub about: &'static str,
}

/// Values that a key takes.
pub enum Values {
    /// One of these strings.
    Words(&'static [&'static str]),
    /// A string; its form is checked with its meaning.
    String(&'static str),
    /// An integer within bounds.
    Integer(RangeInclusive<u64>),
    /// An integer within bounds, or this string.
    IntegerOr(RangeInclusive<u64>, &'static str),
    /// `true` or `false`.
    Boolean,
    /// A list of strings.
    List(&'static str),
    /// A table of integers.
    Pairs(&'static str),
    /// A table, described by its own entry of [`TABLES`].
    Table,
    /// Tables of one name, likewise.
    Tables,
}

impl fmt::Display for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Words(words) => {
                let words: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
                let (last, first) = words.split_last().ok_or(fmt::Error)?;
                write!(f, "{} or {last}", first.join(", "))
            }
            Self::Table | Self::Tables => f.write_str("a table"),
            Self::String(form) | Self::List(form) | Self::Pairs(form) => f.write_str(form),
            Self::Integer(bounds) if *bounds.end() == UNBOUNDED => write!(f, "{} or more", bounds.start()),
            Self::Integer(bounds) => write!(f, "{} to {}", bounds.start(), bounds.end()),
            Self::IntegerOr(bounds, word) => write!(f, "{} to {}, or {word:?}", bounds.start(), bounds.end()),
            Self::Boolean => f.write_str("true or false"),
        }
    }
}

/// Greatest integer of TOML.
const UNBOUNDED: u64 = i64::MAX.unsigned_abs();

/// The structs that `serde` fills, and [`TABLES`]. An entry has description, name, type, values and default of a key.
macro_rules! tables {
    ($(#[doc = $about:literal] $table:ident $name:literal {
        $(#[doc = $text:literal] $field:ident $key:literal: $type:ty = $values:expr, $default:literal;)*
    })*) => {
        $(#[doc = $about]
        #[derive(Default, Deserialize)]
        #[serde(default)]
        pub struct $table { $(#[doc = $text] #[serde(rename = $key)] pub $field: $type,)* })*

        /// All tables with all keys.
        pub const TABLES: &[Table] = &[$(Table {
            name: $name,
            keys: &[$(Key { name: $key, values: $values, default: $default, about: $text }),*],
        }),*];
    };
}

const INTERFACE: Values = Values::String("an interface name, up to 15 bytes");
const FILE: Values = Values::String("a file name");

tables! {
    /// Keys before the first table.
    Document "" {
        /// Kind of the local side.
        mode "mode": Option<String> = Values::Words(&["raw", "tap", "bridge", "mirror", "mirror-udp"]), "required";
        /// Format of the datagrams.
        wire "wire": Option<String> = Values::Words(&["secure", "classic"]), "`\"secure\"`";
        /// Directions in which frames are forwarded.
        direction "direction": Option<String> = Values::Words(&["both", "send", "receive", "none"]), "`\"both\"`";
        /// Use of several paths by the frames that leave.
        policy "policy": Option<String> = Values::Words(&["failover", "duplicate", "balance"]), "`\"failover\"`";
        /// Command that is run once everything is open.
        run "run": Option<String> = Values::String("a command for `/bin/sh`"), "none";
        /// Seconds after which the program ends; 0 for never.
        exit_after_s "exit-after-s": Option<u64> = Values::Integer(0..=UNBOUNDED), "0";
        /// Whether the tunnel ends where the kernel lacks a means to confine a process.
        require_confinement "require-confinement": bool = Values::Boolean, "`false`";
        /// Time, in UTC, of a new start that repairs a lost helper.
        repair "repair": Option<String> = Values::String("`\"at-once\"`, `\"HH:MM\"` or `\"never\"`"), "`\"at-once\"`";
        /// See [`Tap`].
        tap "tap": Option<Tap> = Values::Table, "";
        /// See [`Raw`].
        raw "raw": Option<Raw> = Values::Table, "";
        /// See [`Mirror`].
        mirror "mirror": Option<Mirror> = Values::Table, "";
        /// See [`PathTable`].
        path "path": Vec<PathTable> = Values::Tables, "";
        /// See [`Secure`].
        secure "secure": Option<Secure> = Values::Table, "";
        /// See [`Classic`].
        classic "classic": Option<Classic> = Values::Table, "";
        /// See [`RulesTable`].
        rules "rules": Option<RulesTable> = Values::Table, "";
    }

    /// TAP interface of the modes tap and bridge.
    Tap "[tap]" {
        /// Name of the TAP interface.
        name "name": Option<String> = INTERFACE, "the kernel's `tapN`";
        /// Addresses of the TAP interface.
        address "address": Vec<String> = Values::List("a list of `\"ADDRESS/PREFIX\"`"), "none";
        /// Bridge that the TAP interface joins.
        bridge "bridge": Option<String> = INTERFACE, "required in mode bridge";
        /// MTU of the TAP interface in bytes.
        mtu "mtu": Option<u32> = Values::Integer(bounds::INTERFACE_MTU), "see below";
        /// Whether the TAP interface loses its carrier while no path is up.
        carrier "carrier": Option<String> = Values::Words(&["always", "follow"]), "`\"always\"`";
        /// Protocols between neighbours whose frames pass through the bridge.
        pass_link_local "pass-link-local": Vec<String> = Values::List("a list of `\"lldp\"`, `\"lacp\"`, `\"stp\"`, `\"eapol\"`"), "none";
    }

    /// Physical interface of mode raw.
    Raw "[raw]" {
        /// Existing Ethernet interface that the tunnel bridges.
        interface "interface": Option<String> = INTERFACE, "required";
        /// Whether the tunnel makes the interface promiscuous.
        promiscuous "promiscuous": Option<bool> = Values::Boolean, "`true`";
    }

    /// Interface of the modes mirror and mirror-udp.
    Mirror "[mirror]" {
        /// Existing Ethernet interface that is mirrored.
        interface "interface": Option<String> = INTERFACE, "required";
        /// Filter that selects frames.
        filter "filter": Option<String> = Values::String("an expression of pcap-filter(7)"), "all frames";
    }

    /// Path to the peer.
    PathTable "[[path]]" {
        /// Address and port of this end.
        local "local": Option<String> = Values::String("`\"ADDRESS:PORT\"`, `\"[IPV6]:PORT\"`, `\"NAME:PORT\"` or `\"any:PORT\"`"), "required";
        /// Address and port of the peer.
        remote "remote": Option<String> = Values::String("as `local`, or `\"any\"`, `\"ADDRESS:0\"`"), "required";
        /// Interface or VRF to which the path is bound.
        device "device": Option<String> = INTERFACE, "none";
        /// Firewall mark of the datagrams.
        mark "mark": Option<u32> = Values::Integer(0..=u32::MAX as u64), "none";
        /// MTU of the underlay in bytes: greatest length of a packet with IP and UDP headers.
        mtu "mtu": Option<u16> = Values::Integer(bounds::PATH_MTU), "from interface and routing table";
        /// Whether equal datagrams may leave as one run that the kernel or the network card segments (`UDP_SEGMENT`).
        segment "segment": Option<String> = Values::Words(&["auto", "never"]), "`\"auto\"`";
        /// Share of the path in the flows, with `policy = "balance"`.
        weight "weight": Option<u8> = Values::Integer(bounds::WEIGHT), "1";
    }

    /// Keys and options of the secure wire.
    Secure "[secure]" {
        /// File with the private key, the output of `ethudp genkey`.
        private_key_file "private-key-file": Option<PathBuf> = FILE, "required";
        /// Public key of the peer, the output of `ethudp pubkey` there.
        peer_public_key "peer-public-key": Option<String> = Values::String("a key in base64"), "required";
        /// File with the pre-shared key, the output of `ethudp genpsk`.
        psk_file "psk-file": Option<PathBuf> = FILE, "none";
        /// Length in bytes of the packets of every path, with IP and UDP headers; `"auto"` searches for it.
        path_mtu "path-mtu": Option<toml::Value> = Values::IntegerOr(bounds::PATH_MTU, "auto"), "`\"auto\"`";
        /// Identifier of the tunnel, the same at both ends.
        tunnel_id "tunnel-id": Option<String> = Values::String("16 hexadecimal digits"), "none";
        /// Slot of this tunnel at a peer that shares its port.
        peer_slot "peer-slot": Option<u16> = Values::Integer(bounds::SLOT), "0";
        /// Seconds from one ping to the next on an idle path.
        ping_interval_s "ping-interval-s": Option<u8> = Values::Integer(bounds::PING_INTERVAL), "2";
    }

    /// Keys and options of the classic wire.
    Classic "[classic]" {
        /// Cipher of frames.
        cipher "cipher": Option<String>
            = Values::Words(&["none", "xor", "aes-128", "aes-192", "aes-256", "aes-256-ethudp-2023"]), "`\"none\"`";
        /// File with a key of 1 to 2047 bytes.
        key_file "key-file": Option<PathBuf> = FILE, "required with a cipher";
        /// File with a password of 1 to 2047 bytes.
        password_file "password-file": Option<PathBuf> = FILE, "none";
        /// Level of LZ4 compression; 0 for none.
        lz4 "lz4": Option<u8> = Values::Integer(bounds::LZ4), "0";
        /// MTU in bytes over which a frame is sent as two datagrams.
        fragment_mtu "fragment-mtu": Option<u16> = Values::Integer(bounds::FRAGMENT_MTU), "no fragments";
        /// Milliseconds from one PING to the next.
        keepalive_ms "keepalive-ms": Option<u16> = Values::Integer(bounds::KEEPALIVE_MS), "1000";
    }

    /// Changes to frames.
    RulesTable "[rules]" {
        /// MSS in bytes to which TCP connections are clamped.
        mss "mss": Option<toml::Value> = Values::IntegerOr(1..=u16::MAX as u64, "auto"), "unchanged";
        /// Whether the tunnel's own datagrams are dropped at the local side.
        loop_check "loop-check": Option<bool> = Values::Boolean, "see below";
        /// VLAN IDs of the local side and of the peer.
        vlan_map "vlan-map": Option<BTreeMap<String, i64>> = Values::Pairs("`{ LOCAL = REMOTE, ... }`"), "none";
        /// File with a local and a remote VLAN ID on each line.
        vlan_map_file "vlan-map-file": Option<PathBuf> = FILE, "none";
        /// Broadcast frames a second that pass in each direction.
        broadcast_limit "broadcast-limit": Option<u32> = Values::Integer(bounds::RATE), "none";
        /// Multicast frames a second that pass in each direction.
        multicast_limit "multicast-limit": Option<u32> = Values::Integer(bounds::RATE), "none";
        /// MAC addresses that the stations behind the peer may use.
        mac_limit "mac-limit": Option<u16> = Values::Integer(bounds::STATIONS), "none";
        /// EtherTypes of the frames that pass.
        ethertypes "ethertypes": Vec<String> = Values::List("a list of names or `\"0xHHHH\"`"), "all";
        /// Whether a loop between the two networks blocks the tunnel.
        loop_detection "loop-detection": bool = Values::Boolean, "`false`";
        /// DSCP of the datagrams that carry frames.
        dscp "dscp": Option<toml::Value> = Values::IntegerOr(bounds::DSCP, "copy"), "0";
        /// Whether congestion marks are carried between frames and datagrams.
        ecn "ecn": Option<bool> = Values::Boolean, "`false`";
    }
}

impl Document {
    /// Key and value of each key that names another file.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of a table in `docs/FILE.md`.
    fn rows(table: &Table) -> String {
        let keys = table.keys.iter().filter(|key| !matches!(key.values, Values::Table | Values::Tables));
        let row = |Key { name, values, default, about }: &Key| {
            let name = if table.name.is_empty() { (*name).to_owned() } else { format!("{} {name}", table.name) };
            let values = match values {
                Values::Words(words) => words.iter().map(|word| format!("`{word:?}`")).collect::<Vec<_>>().join(", "),
                Values::Boolean => "`true`, `false`".into(),
                Values::IntegerOr(bounds, word) => format!("{} to {}, or `{word:?}`", bounds.start(), bounds.end()),
                values => values.to_string(),
            };
            format!("| `{name}` | {} | {values} | {default} |\n", about.trim().trim_end_matches('.'))
        };
        keys.map(row).collect()
    }

    #[test]
    fn documented_keys_match_parser() {
        const HEAD: &str = "\n| key | meaning | values | default |\n|---|---|---|---|\n";
        let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/FILE.md");
        let text = std::fs::read_to_string(&page).unwrap();
        let parts: Vec<_> = text.split(HEAD).collect();
        assert_eq!(parts.len(), TABLES.len() + 1);
        let mut right = parts[0].to_owned();
        for (table, part) in TABLES.iter().zip(&parts[1..]) {
            let rest = &part[part.find("\n\n").unwrap() + 1..];
            right.extend([HEAD, &rows(table), rest]);
        }
        if std::env::var_os("ETHUDP_WRITE_TABLES").is_some() {
            std::fs::write(page, right).unwrap();
        } else {
            assert!(text == right, "docs/FILE.md is not up to date: run this test with ETHUDP_WRITE_TABLES=1");
        }
    }

    #[test]
    fn types_hold_bounded_values() {
        for table in TABLES {
            for key in table.keys {
                let (Values::Integer(bounds) | Values::IntegerOr(bounds, _)) = &key.values else { continue };
                for value in [bounds.start(), bounds.end()] {
                    let text = format!("{}\n{} = {value}\n", table.name, key.name);
                    assert!(toml::from_str::<Document>(&text).is_ok(), "{text}");
                }
            }
        }
    }
}
