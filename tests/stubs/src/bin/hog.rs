//! Started in the place of `ethudp-worker`, it is one that forwards for a while and then takes all the memory that it can get.

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use ethudp_worker::{confine, run};

/// Time for which it behaves, its start in a slow machine included.
const QUIET: Duration = Duration::from_secs(6);
/// What it takes at a time, in bytes.
const PIECE: usize = 1 << 20;

fn main() -> ExitCode {
    // Runs before the seal, which then also holds for it.
    thread::spawn(|| {
        thread::park_timeout(QUIET);
        let mut taken = Vec::new();
        loop {
            taken.push(vec![1_u8; PIECE]);
        }
    });
    run(confine::ALLOWED)
}
