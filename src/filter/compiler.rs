//! Process that compiles a filter: this program under another name.
//!
//! It opens the interface with one capability and drops that before it reads the filter: [`super::confine`]. It sends one answer, a
//! program or a line of text, and exits.

use std::env;
use std::ffi::CStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use privsep::ipc::{self, BpfInstruction, Channel, Identity, Message};
use privsep::sys::process;
use privsep::sys::supervisor::pcap::Libpcap;
use serde::{Deserialize, Serialize};

use super::{LONGEST, MAX, confine};

/// Name of the process, which selects its role.
pub const NAME: &CStr = c"ethudp-filter";
/// Longest text in an answer, in characters. Messages of libpcap are shorter.
const TEXT: usize = 1000;

/// Messages to the compiler: one of each, in this order.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToCompiler {
    /// Become this user, if started by root. Open this interface, if there is one. With `required`, fail if the kernel lacks a
    /// means of confinement.
    Open { identity: Option<Identity>, interface: Option<String>, required: bool },
    /// Compile this filter.
    Compile(String),
}

impl Message for ToCompiler {
    const MAX: usize = LONGEST + 16;
}

/// Answer of the compiler.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromCompiler {
    /// The filter as a program.
    Program(Vec<BpfInstruction>),
    /// The process cannot confine itself.
    Failed(String),
    /// The kernel lacks this means of confinement, which is required.
    Lacks(String),
    /// libpcap cannot be loaded.
    NoLibrary(String),
    /// The interface cannot be opened.
    NoCapture(String),
    /// The filter is wrong; the text is libpcap's.
    Wrong(String),
    /// The filter needs this many instructions, more than the kernel accepts.
    TooLong(u32),
}

impl Message for FromCompiler {
    /// [`MAX`] instructions of 10 bytes.
    const MAX: usize = 48 << 10;
}

/// Whether this process has the role of a compiler.
pub fn is_requested() -> bool {
    env::args_os().next().is_some_and(|name| name.as_bytes() == NAME.to_bytes())
}

/// Entry point of the compiler.
pub fn run() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ethudp-filter: {error}; do not start it by hand: `ethudp` starts it");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), ipc::Error> {
    privsep::confine::at_start()?;
    let supervisor = Channel::<FromCompiler, ToCompiler>::new(process::inherited(process::SUPERVISOR_FD)?);
    let Some((ToCompiler::Open { identity, interface, required }, _)) = supervisor.recv()? else {
        return Err(ipc::Error::Violation("no open message"));
    };
    let answer = answer(&supervisor, identity, interface.as_deref(), required);
    supervisor.send(&answer.unwrap_or_else(|error| FromCompiler::Failed(shortened(&error.to_string()))), &[])
}

/// Opens the interface, drops all privileges, reads the filter and compiles it.
fn answer(
    supervisor: &Channel<FromCompiler, ToCompiler>,
    identity: Option<Identity>,
    interface: Option<&str>,
    required: bool,
) -> Result<FromCompiler, ipc::Error> {
    let (libraries, lacks) = confine::before_loading(identity, interface.is_some())?;
    if required && !lacks.is_empty() {
        return Ok(FromCompiler::Lacks(lacks.join(", ")));
    }
    let library = match Libpcap::load() {
        Ok(library) => library,
        Err(error) => return Ok(FromCompiler::NoLibrary(shortened(&error))),
    };
    // Only a live handle tells libpcap how the kernel handles VLAN tags. `vlan` needs this, because the tag is no longer in the
    // frame.
    let capture = match interface {
        Some(interface) => library.live(interface).and_then(|capture| {
            capture.hear_nothing().map_err(|error: io::Error| error.to_string())?;
            Ok(capture)
        }),
        None => library.dead(),
    };
    let capture = match capture {
        Ok(capture) => capture,
        Err(error) => return Ok(FromCompiler::NoCapture(shortened(&error))),
    };
    confine::before_reading(&libraries)?;
    let Some((ToCompiler::Compile(filter), _)) = supervisor.recv()? else {
        return Err(ipc::Error::Violation("no filter message"));
    };
    Ok(match capture.compile(&filter) {
        Ok(program) if program.len() > MAX => FromCompiler::TooLong(u32::try_from(program.len()).unwrap_or(u32::MAX)),
        Ok(program) => FromCompiler::Program(program),
        Err(error) => FromCompiler::Wrong(shortened(&error)),
    })
}

/// Text cut to [`TEXT`] characters.
fn shortened(text: &str) -> String {
    text.chars().take(TEXT).collect()
}
