#![no_main]
use ethudp_worker::fuzzing::{SESSION_BYTES, session};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let most = allocation_counter::measure(|| session(data)).bytes_max;
    assert!(most < SESSION_BYTES, "{most} bytes");
});
