//! `ethudp`: Ethernet frames between two sites in UDP datagrams.
//!
//! This is the supervisor: it reads command line and configuration, starts the privileged helper with a plan, gives up
//! every privilege, and then starts workers, one at a time, for as long as the tunnel lives.

mod cli;
mod error;
mod filter;
/// Checks that the fuzz targets and the replay of their seeds run.
#[cfg(any(test, feature = "fuzzing"))]
#[path = "../fuzz/supervisor/mod.rs"]
pub mod fuzzing;
mod log;
mod process;
mod service;
mod status;
mod supervise;
mod tunnel;

use std::process::ExitCode;

use cli::{Command, check, init, keys, show};
pub use error::Error;
use filter::compiler;
use service::{descriptor_store, start};

/// Runs the program.
pub fn run() -> ExitCode {
    if compiler::is_requested() {
        return compiler::run();
    }
    let started = start::afresh();
    let stored = descriptor_store::take();
    log::open_stderr();
    if let Err(error) = started {
        log::warning(&format!("cannot reset inherited signals or limits: {error}"));
    }
    let stored = stored.unwrap_or_else(|error| {
        log::warning(&format!("descriptors of the service manager not used: {error}"));
        descriptor_store::StoredDescriptors::default()
    });
    let result = cli::parse().and_then(|command| match command {
        Command::Run(tunnel, policies) => cli::run::run(*tunnel, policies, stored),
        Command::Check(options) => check::check(&options),
        Command::Show { name, json } => show::show(name.as_deref(), json),
        Command::Key(kind) => keys::run(&kind),
        Command::Init(options) => init::run(&options),
        Command::Text(text) => log::print(&text),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !matches!(error, Error::Reported(_)) {
                log::error(&error.to_string());
            }
            ExitCode::from(error.status())
        }
    }
}
