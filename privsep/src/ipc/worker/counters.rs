//! Counters. Each is one line here. The number that travels and is shown, its atomic twin, its reset, and its description in
//! `docs/STATUS.md` and in `ethudp show` follow from the line.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

/// Counters that a reset covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Counts {
    /// Frames, datagrams and bytes.
    Traffic,
    /// PINGs and PONGs.
    Pings,
}

/// Counter that threads share. They add to it at most a few times a batch.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to the counter.
    pub fn add(&self, count: u64) {
        if count > 0 {
            self.0.fetch_add(count, Relaxed);
        }
    }

    /// Present value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Meaning of a counter for a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Work done.
    Work,
    /// Frames or datagrams that were dropped, or lost by an error.
    Drop,
    /// Part of other counters, which it explains.
    Part,
}

/// Description of a counter. The documentation, the text of `ethudp show` and its sums follow from it.
#[derive(Debug, Clone, Copy)]
pub struct Description {
    /// Name of the field.
    pub name: &'static str,
    /// Reset that covers the count.
    pub reset: Option<Counts>,
    /// Kind of the counter.
    pub kind: Kind,
    /// Counted events.
    pub meaning: &'static str,
}

/// Defines a struct of numbers and, if threads share them, its atomic twin. A line has the name, the reset that covers the counter
/// (`Traffic`, `Pings`, or `-` for none), the [`Kind`], and the counted events.
macro_rules! counters {
    ($(#[$doc:meta])* $plain:ident, $shared:ident { $($field:ident: $reset:tt $kind:ident $meaning:literal,)* }) => {
        counters! { $(#[$doc])* $plain { $($field: $reset $kind $meaning,)* } }

        $(#[$doc])*
        /// Shared between threads.
        #[derive(Debug, Default)]
        #[allow(missing_docs)]
        pub struct $shared { $(pub $field: Counter,)* }

        impl $shared {
            /// Continues from the values of an earlier worker.
            pub fn new(start: &$plain) -> Self {
                Self { $($field: Counter(AtomicU64::new(start.$field)),)* }
            }

            /// Present values.
            pub fn snapshot(&self) -> $plain {
                $plain { $($field: self.$field.get(),)* }
            }

            /// Clears the counters that this reset covers.
            pub fn reset(&self, counts: Counts) {
                $(if counters!(reset $reset) == Some(counts) { self.$field.0.store(0, Relaxed); })*
            }
        }
    };
    ($(#[$doc:meta])* $plain:ident { $($field:ident: $reset:tt $kind:ident $meaning:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $plain { $(#[doc = $meaning] pub $field: u64,)* }

        impl $plain {
            /// Descriptions of all counters, in the order of the fields.
            pub const ALL: &[Description] = &[$(Description {
                name: stringify!($field),
                reset: counters!(reset $reset),
                kind: Kind::$kind,
                meaning: $meaning,
            }),*];

            /// All counters with their descriptions.
            pub fn described(&self) -> impl Iterator<Item = (&'static Description, u64)> + use<> {
                Self::ALL.iter().zip([$(self.$field),*])
            }

            /// Clears the counters that this reset covers.
            pub fn reset(&mut self, counts: Counts) {
                $(if counters!(reset $reset) == Some(counts) { self.$field = 0; })*
            }
        }
    };
    (reset -) => { None::<Counts> };
    (reset $reset:ident) => { Some(Counts::$reset) };
}

counters! {
    /// What compression and encryption did to the size of frames, in bytes.
    SealCounters, SharedSeal {
        bytes: Traffic Work "bytes of frames before compression and encryption",
        compress_saved: Traffic Work "bytes that LZ4 saved",
        compress_overhead: Traffic Work "bytes that the trailer of LZ4 added",
        encrypt_overhead: Traffic Work "bytes that encryption added: padding, and headers and tags on the secure wire",
    }
}

counters! {
    /// Counters of the local side; rx counts frames taken from it, tx frames given to it.
    PortCounters, SharedPort {
        rx_frames: Traffic Work "frames read",
        rx_bytes: Traffic Work "bytes of frames read",
        rx_dropped_oversize: - Drop "frames longer than 9234 bytes",
        rx_dropped_short: - Drop "frames shorter than an Ethernet header",
        rx_dropped_kernel: - Drop "frames dropped by the kernel because the packet socket was full",
        rx_dropped_loop: - Drop "frames dropped by the loop check",
        rx_dropped_offload: - Drop
            "superframes of a kind that the kernel cannot describe (SCTP, tunnels), with headers that contradict the kernel, or of more than 2048 packets",
        rx_dropped_stale: - Drop "frames that waited too long for a worker",
        rx_dropped_too_big: - Drop
            "IP packets longer than the path carries, answered with ICMP \"fragmentation needed\" or ICMPv6 \"packet too big\"",
        rx_dropped_broadcast: - Drop "frames over `broadcast-limit`",
        rx_dropped_multicast: - Drop "frames over `multicast-limit`",
        rx_dropped_ethertype: - Drop "frames of an EtherType that `ethertypes` does not list",
        rx_dropped_blocked: - Drop "frames while a loop blocks the tunnel",
        rx_errors: - Drop "read errors",
        tx_frames: Traffic Work "frames written",
        tx_bytes: Traffic Work "bytes of frames written",
        tx_dropped_short: - Drop "frames that decoded to less than an Ethernet header",
        tx_dropped_congestion: - Drop "frames whose datagram a router marked as congested, from senders that do not react to marks",
        tx_dropped_direction: - Drop "frames of the peer not written because of `direction` or mode of this end",
        tx_dropped_oversize: - Drop "frames longer than the MTU of the interface",
        tx_dropped_broadcast: - Drop "frames of the peer over `broadcast-limit`",
        tx_dropped_multicast: - Drop "frames of the peer over `multicast-limit`",
        tx_dropped_station: - Drop "frames of the peer from stations over `mac-limit`",
        tx_dropped_ethertype: - Drop "frames of the peer of an EtherType that `ethertypes` does not list",
        tx_dropped_blocked: - Drop "frames of the peer while a loop blocks the tunnel",
        tx_dropped_returned: - Drop "loop detection frames of this end that the peer sends back: a loop at the peer's site",
        tx_errors: - Drop
            "other write errors, or no room for 100 ms; after a second in which every frame had to wait, frames are \
             dropped without delay",
        rx_broadcast: - Work "broadcast frames among the frames read, without dropped ones",
        rx_own: - Work "datagrams of this tunnel among the frames read, when no loop check drops them",
        rx_returned: - Work "loop detection frames of this end among the frames read",
    }
}

counters! {
    /// Counters of one path, in datagrams and bytes of UDP payload.
    PathCounters, SharedPath {
        tx_datagrams: Traffic Work "datagrams sent",
        tx_bytes: Traffic Work "bytes of datagrams sent",
        tx_errors: - Drop
            "datagrams not sent because of an error, or because there was no room for 100 ms; each of a run that the kernel refused for lack of memory (ENOBUFS). Drops in the queue of the interface are in `tc -s qdisc`",
        rx_datagrams: Traffic Work "datagrams received",
        rx_bytes: Traffic Work "bytes of datagrams received",
        rx_dropped_oversize: - Drop "datagrams longer than any frame can be",
        rx_dropped_invalid: - Drop "datagrams that cannot be decoded, or more than 128 that arrived as one",
        rx_dropped_foreign: - Drop
            "datagrams from another address than the fixed remote that the kernel has not dropped; from a sender without the password; from an address that the peer's name does not have; on the secure wire from an address that the file excludes",
        rx_dropped_stale: - Drop "datagrams that waited too long for a worker",
        tx_dropped_unfragmentable: - Drop "frames too long for two fragments on the classic wire, or 16 on the secure wire",
        tx_dropped_oversize: - Drop "datagrams too long for the path",
        tx_dropped_unlearned: - Drop "frames without a known address of the peer or without a session, and datagrams beyond the last counter of a session",
        rx_errors: - Drop "read errors; with fixed addresses as `local` and `remote` also ICMP messages",
        rx_refused: - Part "ICMP messages \"port unreachable\" among `rx_errors`",
        rx_prohibited: - Part
            "ICMP messages \"host prohibited\" and the like among `rx_errors`, as a firewall sends them; the kernel does not report that a host or a network is unreachable",
        rx_implausible: - Part "datagrams that do not decode to an Ethernet frame; long ones are written to the local \
                                side anyway",
        pings_sent: Pings Work "pings sent",
        pings_received: Pings Work "pings received",
        pongs_sent: Pings Work "pongs sent",
        pongs_received: Pings Work "pongs received",
    }
}

counters! {
    /// Counters of the secure wire that belong to no path.
    SecureCounters {
        handshakes: - Work "sessions made",
        rekeys: - Work "sessions that replaced another",
        replays: - Drop "replayed datagrams, and datagrams too old to tell",
        copies: - Work "copies of datagrams that have come by another path before; a peer with `policy = \"duplicate\"` sends them",
        auth_failures: - Drop "forged or changed datagrams and handshake messages",
        dropped_initiations: - Drop "authentic handshakes that are refused: repeated, older than an earlier one, or too many",
        dropped_messages: - Drop
            "handshake messages that answer no request: late, repeated too often, of another version or length, or of a \
             form or cipher that was not offered",
        dropped_content: - Drop "datagrams whose authentic content is malformed, or has more frames than this end has room for",
        dropped_incomplete: - Drop
            "frames whose pieces did not all arrive within a second, or before 16 other frames began",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_covers_listed_counters() {
        let all = PathCounters { tx_bytes: 1, tx_errors: 2, pings_sent: 3, ..PathCounters::default() };
        for (counts, left) in [(Counts::Traffic, (0, 2, 3)), (Counts::Pings, (1, 2, 0))] {
            let (mut plain, shared) = (all, SharedPath::new(&all));
            plain.reset(counts);
            shared.reset(counts);
            assert_eq!(plain, shared.snapshot());
            assert_eq!((plain.tx_bytes, plain.tx_errors, plain.pings_sent), left);
        }
    }

    #[test]
    fn shared_counters_continue_from_start() {
        let shared = SharedPort::new(&PortCounters { rx_frames: 7, ..PortCounters::default() });
        shared.rx_frames.add(2);
        shared.tx_errors.add(0);
        assert_eq!(shared.snapshot(), PortCounters { rx_frames: 9, ..PortCounters::default() });
        assert_eq!(
            shared.snapshot().described().next().map(|(count, number)| (count.name, number)),
            Some(("rx_frames", 9))
        );
    }
}
