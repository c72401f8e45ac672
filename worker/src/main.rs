//! The unprivileged worker: all of it is in the library.

use ethudp_worker::{confine, run};
use privsep::sys::worker::heap::WipingAllocator;

/// No key stays in memory that is free (docs/decisions/0016-wiping.md).
#[global_allocator]
static HEAP: WipingAllocator = WipingAllocator::new();

fn main() -> std::process::ExitCode {
    run(confine::ALLOWED)
}
