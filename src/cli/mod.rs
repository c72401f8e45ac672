//! Both command lines: EthUDP's, and the modern one with subcommands.

mod arguments;
pub mod check;
pub mod classic;
pub mod convert;
pub mod init;
pub mod keys;
mod location;
mod modern;
pub mod run;
pub mod show;
mod stopped;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use crate::supervise::policy::Policies;
use crate::tunnel::Tunnel;
use crate::{Error, log};

/// Command of the user.
pub enum Command {
    /// Run a tunnel with these policies.
    Run(Box<Tunnel>, Policies),
    /// Check files.
    Check(check::Options),
    /// Show the status of one tunnel or of all.
    Show {
        /// Name of the tunnel; `None` for all that run.
        name: Option<String>,
        /// As JSON.
        json: bool,
    },
    /// Make a key, or derive a public key.
    Key(keys::KeyKind),
    /// Make or complete the files of a tunnel.
    Init(init::parameters::Options),
    /// Print this text.
    Text(String),
}

/// Parses this process's arguments.
pub fn parse() -> Result<Command, Error> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let called = arguments.first().and_then(|path| path.as_bytes().rsplit(|&b| b == b'/').next());
    let first = arguments.get(1).map(|argument| argument.as_bytes());
    let command = arguments.get(2).and_then(|command| command.to_str());
    match first {
        Some(b"help") if command.is_some() => {
            return command.and_then(modern::help_of).map(Command::Text).ok_or_else(|| {
                Error::usage(format!(
                    "help {:?}: unknown command; `ethudp help` lists the commands",
                    command.unwrap_or_default()
                ))
            });
        }
        Some(b"-h" | b"--help" | b"help") => return Ok(Command::Text(modern::help())),
        Some(b"-v" | b"-V" | b"--version" | b"version") => {
            return Ok(Command::Text(concat!("ethudp ", env!("CARGO_PKG_VERSION"), "\n").into()));
        }
        _ => {}
    }
    let classic = called == Some(b"EthUDP") || first.is_some_and(|argument| argument.starts_with(b"-"));
    if !classic {
        return modern::parse(arguments);
    }
    let mut secrets = Vec::new();
    let command = classic::parse(&arguments[1..], &mut secrets)?;
    // Positions now count from the program's name.
    for position in &mut secrets {
        *position += 1;
    }
    if !secrets.is_empty() && matches!(command, Command::Run(..)) {
        let advice = "`ethudp convert` writes a file instead, which keeps the secret out of the process list and the \
                      shell's history";
        match arguments::hide(&secrets) {
            Ok(()) => log::warning(&format!("secret on the command line; {advice}")),
            Err(error) => log::warning(&format!(
                "secret on the command line stays visible in the process list ({error}); \
                                                 {advice}"
            )),
        }
    }
    Ok(command)
}
