//! Counts. Each is one line here: the number that travels and is shown, the atomic twin that threads add to, and what resets it
//! follow from that. What they mean is in `docs/STATUS.md`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

/// Which counts are set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Counts {
    /// Frames, datagrams and bytes.
    Traffic,
    /// PINGs and PONGs.
    Pings,
}

/// One count that threads share. They add to it at most a few times a batch.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, count: u64) {
        if count > 0 {
            self.0.fetch_add(count, Relaxed);
        }
    }

    /// What has been counted.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A struct of numbers and its atomic twin. Behind each name stands which reset covers it: `Traffic`, `Pings`, or `-` for none.
macro_rules! counters {
    ($(#[$doc:meta])* $plain:ident, $shared:ident { $($field:ident: $reset:tt,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[allow(missing_docs)]
        #[serde(default)]
        pub struct $plain { $(pub $field: u64,)* }

        impl $plain {
            /// The names of all counts.
            pub const NAMES: &[&str] = &[$(stringify!($field)),*];

            /// Sets back what this reset covers.
            #[allow(unused_variables)] // Of some, no reset covers any.
            pub fn reset(&mut self, counts: Counts) {
                $(if counters!(covers $reset counts) { self.$field = 0; })*
            }
        }

        $(#[$doc])*
        /// As threads count it.
        #[derive(Debug, Default)]
        #[allow(missing_docs)]
        pub struct $shared { $(pub $field: Counter,)* }

        impl $shared {
            /// Goes on from where an earlier worker had come to.
            pub fn new(start: &$plain) -> Self {
                Self { $($field: Counter(AtomicU64::new(start.$field)),)* }
            }

            /// The numbers of this moment.
            pub fn snapshot(&self) -> $plain {
                $plain { $($field: self.$field.get(),)* }
            }

            /// Sets back what this reset covers.
            #[allow(unused_variables)] // As above.
            pub fn reset(&self, counts: Counts) {
                $(if counters!(covers $reset counts) { self.$field.0.store(0, Relaxed); })*
            }
        }
    };
    (covers - $counts:ident) => { false };
    (covers $reset:ident $counts:ident) => { $counts == Counts::$reset };
}

counters! {
    /// What compression and encryption did to the size of frames, in bytes.
    SealCounters, SharedSeal {
        bytes: Traffic,
        compress_saved: Traffic,
        compress_overhead: Traffic,
        encrypt_overhead: Traffic,
    }
}

counters! {
    /// Counts of the local side; rx is what was taken from it, tx what was given to it.
    PortCounters, SharedPort {
        rx_frames: Traffic,
        rx_bytes: Traffic,
        rx_dropped_oversize: -,
        rx_dropped_short: -,
        rx_dropped_kernel: -,
        rx_dropped_loop: -,
        rx_dropped_offload: -,
        rx_dropped_stale: -,
        rx_errors: -,
        tx_frames: Traffic,
        tx_bytes: Traffic,
        tx_dropped_short: -,
        tx_dropped_direction: -,
        tx_dropped_oversize: -,
        tx_errors: -,
        rx_broadcast: -,
        rx_own: -,
    }
}

counters! {
    /// Counts of one path in datagrams and bytes of UDP payload.
    PathCounters, SharedPath {
        tx_datagrams: Traffic,
        tx_bytes: Traffic,
        tx_errors: -,
        rx_datagrams: Traffic,
        rx_bytes: Traffic,
        rx_dropped_oversize: -,
        rx_dropped_invalid: -,
        rx_dropped_foreign: -,
        rx_dropped_stale: -,
        tx_dropped_unfragmentable: -,
        tx_dropped_oversize: -,
        tx_dropped_unlearned: -,
        rx_errors: -,
        rx_refused: -,
        rx_prohibited: -,
        rx_implausible: -,
        pings_sent: Pings,
        pings_received: Pings,
        pongs_sent: Pings,
        pongs_received: Pings,
    }
}

counters! {
    /// Counts of the secure wire. What belongs to no session has no path of its own.
    SecureCounters, SharedSecure {
        handshakes: -,
        rekeys: -,
        replays: -,
        auth_failures: -,
        dropped_initiations: -,
        dropped_messages: -,
        dropped_content: -,
        dropped_incomplete: -,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_covers_what_the_list_says_in_both_forms() {
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
    fn what_threads_add_goes_on_from_the_start() {
        let shared = SharedPort::new(&PortCounters { rx_frames: 7, ..PortCounters::default() });
        shared.rx_frames.add(2);
        shared.tx_errors.add(0);
        assert_eq!(shared.snapshot(), PortCounters { rx_frames: 9, ..PortCounters::default() });
        assert!(PortCounters::NAMES.contains(&"rx_frames"));
    }
}
