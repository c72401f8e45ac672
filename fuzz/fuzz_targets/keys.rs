#![no_main]
// What the supervisor takes as a peer's key, the worker does, and nothing else.
libfuzzer_sys::fuzz_target!(|data: &[u8]| assert_eq!(ethudp::fuzzing::keys(data), ethudp_worker::fuzzing::pair(data)));
