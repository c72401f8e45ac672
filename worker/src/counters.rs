//! Counters that forwarding threads write once a batch and the control thread reads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use privsep::ipc::{PathCounters, PortCounters};

/// One count. Threads that share one add to it at most a few times a batch.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, count: u64) {
        if count > 0 {
            self.0.fetch_add(count, Relaxed);
        }
    }
}

/// The atomic twin of a message's struct of counts.
macro_rules! counters {
    ($name:ident, $plain:ident, $($field:ident)*) => {
        #[derive(Default)]
        pub struct $name { $(pub $field: Counter,)* }

        impl $name {
            /// Goes on from where an earlier worker had come to.
            pub fn new(start: &$plain) -> Self {
                Self { $($field: Counter(AtomicU64::new(start.$field)),)* }
            }

            pub fn snapshot(&self) -> $plain {
                $plain { $($field: self.$field.0.load(Relaxed),)* }
            }
        }
    };
}

counters!(Port, PortCounters,
    rx_frames rx_bytes rx_dropped_oversize rx_dropped_kernel rx_errors tx_frames tx_bytes tx_dropped_short tx_errors);
counters!(Path, PathCounters,
    tx_datagrams tx_bytes tx_errors rx_datagrams rx_bytes rx_dropped_oversize rx_dropped_invalid rx_errors
    pings_sent pings_received pongs_sent pongs_received);
