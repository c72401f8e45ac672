//! The unprivileged worker: all of it is in the library.

fn main() -> std::process::ExitCode {
    ethudp_worker::run()
}
