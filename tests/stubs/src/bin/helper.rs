//! A helper that has been taken over: it confines itself by the helper's own code, up to the stage that its first argument
//! names, and then makes the attempt that the second one names.
//!
//! What the real one gives up in between (user, capabilities) it keeps, so that it is filter and Landlock that stop it.

use std::env;
use std::io;
use std::process::ExitCode;

use ethudp_helper::confine;
use ethudp_stubs::SURVIVED;
use ethudp_stubs::helper::{ATTEMPTS, DENIED, Tools};
use ethudp_stubs::memory::WAYS;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [stage, name] = &arguments[..] else { panic!("stage and attempt, not {arguments:?}") };
    if stage == "limited" {
        return limited(name);
    }
    let attempt = ATTEMPTS.iter().find(|attempt| attempt.name == name).expect("no such attempt");
    let tools = Tools::new().expect("tools");
    confine::before_plan().expect("before the plan");
    if stage == "serving" {
        confine::for_good().expect("for good");
    }
    status((attempt.run)(&tools).map(drop))
}

/// Without its filter, but within its limits, tries to fill more memory than it may have.
fn limited(name: &str) -> ExitCode {
    let (_, way) = WAYS.iter().find(|(way, _)| *way == name).expect("no such way");
    confine::limit().expect("limits");
    status(way(confine::MEMORY))
}

fn status(result: io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::from(SURVIVED),
        Err(error) => {
            let status = error.raw_os_error().and_then(|number| u8::try_from(DENIED + number).ok());
            status.map_or(ExitCode::FAILURE, ExitCode::from)
        }
    }
}
