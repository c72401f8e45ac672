//! Executable of the privileged helper; the code is in the library.

fn main() -> std::process::ExitCode {
    ethudp_helper::run()
}
