//! Executable of the resolver; the code is in the library.

fn main() -> std::process::ExitCode {
    ethudp_resolver::run()
}
