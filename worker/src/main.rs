//! Executable of the unprivileged worker; the code is in the library.

use ethudp_worker::{confine, run};
use privsep::sys::worker::heap::WipingAllocator;

/// Wipes freed memory, so that no key remains in it (docs/decisions/0016-wiping.md).
#[global_allocator]
static HEAP: WipingAllocator = WipingAllocator::new();

fn main() -> std::process::ExitCode {
    run(confine::ALLOWED)
}
