#![no_main]
// The supervisor and the worker must accept the same peer keys.
libfuzzer_sys::fuzz_target!(|data: &[u8]| assert_eq!(ethudp::fuzzing::keys(data), ethudp_worker::fuzzing::pair(data)));
