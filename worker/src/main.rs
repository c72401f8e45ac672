//! The unprivileged worker: all of it is in the library.

use ethudp_worker::{confine, run};

fn main() -> std::process::ExitCode {
    run(confine::ALLOWED)
}
