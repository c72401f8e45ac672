//! Entry point of the supervisor, which is all in the library.

fn main() -> std::process::ExitCode {
    ethudp::run()
}
