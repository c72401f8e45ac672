//! `ethudp`: Ethernet frames between two sites in UDP datagrams.
//!
//! This is the supervisor: it reads command line and configuration, starts the privileged helper with a plan, gives up
//! every privilege, and then starts workers, one at a time, for as long as the tunnel lives.

mod background;
mod benchmark;
mod cli;
mod config;
mod error;
mod executables;
mod filter;
pub mod fuzzing;
mod identity;
mod log;
mod notify;
mod plan;
mod resolve;
mod runtime;
mod show;
mod status;
mod supervise;
mod tunnel;

use std::process::ExitCode;

use cli::Command;
pub use error::Error;
use privsep::sys::process;

/// The whole program.
pub fn run() -> ExitCode {
    // LISTEN_FDS is not used yet, so there is nothing among them that we want.
    if let Err(error) = process::close_inherited() {
        log::warning(&format!("inherited descriptors stay open: {error}"));
    }
    log::open_stderr();
    let result = cli::parse().and_then(|command| match command {
        Command::Run(tunnel, foreground) => background::run(&tunnel, foreground),
        Command::Benchmark(config, length) => benchmark::run(*config, length),
        Command::Check(file) => config::check(&file),
        Command::Show { name, json } => show::show(name.as_deref(), json),
        Command::Text(text) => {
            log::print(&text);
            Ok(())
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !matches!(error, Error::Reported(_)) {
                log::error(&error.to_string());
            }
            error.status()
        }
    }
}
