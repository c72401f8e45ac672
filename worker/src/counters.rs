//! Counters that forwarding threads write once a batch and the control thread reads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use privsep::ipc::{PathCounters, PortCounters, SealCounters};

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
    rx_frames rx_bytes rx_dropped_oversize rx_dropped_kernel rx_dropped_loop rx_dropped_stale rx_errors
    tx_frames tx_bytes tx_dropped_short tx_dropped_oversize tx_errors);
counters!(Seal, SealCounters, bytes compress_saved compress_overhead encrypt_overhead);
counters!(Path, PathCounters,
    tx_datagrams tx_bytes tx_dropped_oversize tx_dropped_unfragmentable tx_dropped_unlearned tx_errors
    rx_datagrams rx_bytes rx_dropped_oversize rx_dropped_invalid rx_dropped_foreign rx_dropped_stale rx_errors
    rx_implausible pings_sent pings_received pongs_sent pongs_received);

/// Sets counts back to zero.
fn reset<const N: usize>(counts: [&Counter; N]) {
    for count in counts {
        count.0.store(0, Relaxed);
    }
}

impl Port {
    /// Sets frames and bytes back to zero.
    pub fn reset_traffic(&self) {
        reset([&self.rx_frames, &self.rx_bytes, &self.tx_frames, &self.tx_bytes]);
    }
}

impl Seal {
    /// Sets all back to zero.
    pub fn reset_traffic(&self) {
        reset([&self.bytes, &self.compress_saved, &self.compress_overhead, &self.encrypt_overhead]);
    }
}

impl Path {
    /// Sets datagrams and bytes back to zero.
    pub fn reset_traffic(&self) {
        reset([&self.rx_datagrams, &self.rx_bytes, &self.tx_datagrams, &self.tx_bytes]);
    }

    /// Sets PINGs and PONGs back to zero.
    pub fn reset_pings(&self) {
        reset([&self.pings_sent, &self.pings_received, &self.pongs_sent, &self.pongs_received]);
    }
}
