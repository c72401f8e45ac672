//! The supervisor: all of it is in the library.

fn main() -> std::process::ExitCode {
    ethudp::run()
}
