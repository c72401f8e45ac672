//! How fast: `cargo test --release -p ethudp-worker --test offload -- --ignored --nocapture speed`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use ethudp_worker::batch::Batch;
use ethudp_worker::frame::checksum::Sum;
use ethudp_worker::frame::coalesce::Coalescer;
use ethudp_worker::frame::segment::Segmenter;

use super::reference::Flow;
use super::segment::facts;

/// Prints gigabytes a second of `work` on this many bytes.
fn rate(what: &str, bytes: usize, mut work: impl FnMut()) {
    let (start, mut rounds) = (Instant::now(), 0_u32);
    while start.elapsed() < Duration::from_secs(1) {
        (0..16).for_each(|_| work());
        rounds += 16;
    }
    let seconds = start.elapsed().as_secs_f64() / f64::from(rounds);
    #[allow(clippy::cast_precision_loss)] // For people.
    let bytes = bytes as f64;
    println!("{what}: {:.1} GB/s, {:.0} ns", bytes / seconds / 1e9, seconds * 1e9);
}

#[test]
#[ignore = "a measurement"]
fn speed() {
    let flow = Flow::new(false, false);
    let payload: Vec<u8> = (0..46 * 1400_u32).map(|number| number.to_be_bytes()[3]).collect();
    for size in [52, 1400, 64_400] {
        rate(&format!("sum of {size}"), size, || {
            black_box(Sum::of(black_box(&payload[..size])).folded());
        });
    }
    let (frame, facts) = (flow.superframe(1, 2, 0x18, &payload), facts(&flow, 1400));
    let mut batch = Batch::default();
    rate("segment of 64 KiB to 1400", payload.len(), || {
        batch.clear();
        let mut segmenter = Segmenter::new(black_box(&frame), &facts).unwrap();
        while let Some((headers, payload)) = segmenter.cut() {
            batch.append(|slot| {
                slot[..headers.len()].copy_from_slice(headers);
                slot[headers.len()..headers.len() + payload.len()].copy_from_slice(payload);
                headers.len() + payload.len()
            });
        }
    });
    assert_eq!(batch.len(), 46);
    let mut coalescer = Coalescer::new(true);
    rate("coalesce of 46 of 1400", payload.len(), || {
        coalescer.plan(batch.len(), |index| black_box(batch.frame(index)));
        assert_eq!(coalescer.planned().count(), 1);
    });
    // What is never joined: each frame of a flow of its own, and acknowledgements.
    let single: Vec<_> =
        (0..64).map(|host| Flow { host, ..flow.clone() }.frame(1, 2, 0x10, &payload[..1400])).collect();
    rate("coalesce of 64 flows of 1400", 64 * 1400, || coalescer.plan(64, |index| black_box(&single[index])));
    let acks: Vec<_> = (0..64).map(|id| flow.frame(id, 2, 0x10, &[])).collect();
    rate("coalesce of 64 acknowledgements", 64 * 54, || coalescer.plan(64, |index| black_box(&acks[index])));
}
