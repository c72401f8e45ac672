//! The privileged helper: all of it is in the library.

fn main() -> std::process::ExitCode {
    ethudp_helper::run()
}
