//! The unprivileged worker: all of it is in the library.

use ethudp_worker::{run, seal};

fn main() -> std::process::ExitCode {
    run(seal::ALLOWED)
}
