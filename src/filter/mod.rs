//! Filters of the mirror modes, compiled by libpcap in a process of their own.
//!
//! The process is this program in another role ([`compiler`]). It opens the interface, drops all privileges, and only then reads
//! the filter. So time, memory and privileges of libpcap are bounded while it parses a filter. A compiled program counts only after
//! the kernel has accepted it.

pub mod compiler;
mod confine;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use privsep::ipc::{self, BpfInstruction, Channel, Identity};
use privsep::sys::{option, supervisor::start};

use crate::error::Context;
use crate::process::{Child, Readable, WaitResult, wait};
use crate::service::identity;
use crate::{Error, log};
use compiler::{FromCompiler, ToCompiler};

/// Longest program that the kernel accepts (`BPF_MAXINSNS`).
const MAX: usize = 4096;
/// Longest filter in bytes, longer than any filter that fits into [`MAX`] instructions.
const LONGEST: usize = 64 << 10;
/// Longest wait for a program: the processor time of the compiler, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// Longest wait for the exit of a compiler that has closed its channel.
const END: Duration = Duration::from_secs(1);
/// Advice for a filter that is too large.
const SMALLER: &str = "; use fewer hosts and ports: `net` and `portrange` replace many";

/// Compiles the filter of a mirror on its interface. An empty filter accepts all frames.
///
/// `until` waits until a descriptor is readable, for at most the given time; `None` when it was interrupted. With `required`, the
/// kernel must support all means of confinement.
pub fn compile(
    interface: &str,
    filter: &str,
    identity: Option<Identity>,
    required: bool,
    until: impl FnOnce(BorrowedFd<'_>, Duration) -> Result<WaitResult, Error>,
) -> Result<Option<Vec<BpfInstruction>>, Error> {
    program(filter, Some(interface), identity, required, until)
}

/// Checks that a filter compiles, without an interface and without privilege.
pub fn check(filter: &str) -> Result<(), Error> {
    program(filter, None, identity::without_powers(), false, |channel, limit| {
        let limit = u16::try_from(limit.as_millis()).unwrap_or(u16::MAX);
        let Readable([answered]) = wait([channel], limit).context(|| "filter compiler".into())?;
        Ok(if answered { WaitResult::Ready } else { WaitResult::TimedOut })
    })
    .map(drop)
}

fn program(
    filter: &str,
    interface: Option<&str>,
    identity: Option<Identity>,
    required: bool,
    until: impl FnOnce(BorrowedFd<'_>, Duration) -> Result<WaitResult, Error>,
) -> Result<Option<Vec<BpfInstruction>>, Error> {
    if filter.is_empty() {
        return Ok(Some(Vec::new()));
    }
    if filter.len() > LONGEST {
        return Err(wrong(filter, &format!("too long ({} bytes, at most {LONGEST}){SMALLER}", filter.len())));
    }
    let Some(answer) = ask(filter, interface, identity, required, until)? else { return Ok(None) };
    let program = match answer {
        Ok(FromCompiler::Program(program)) => program,
        Ok(FromCompiler::Failed(error)) => {
            return Err(Error::failure(format!("filter compiler: {}", log::untrusted(&error))));
        }
        Ok(FromCompiler::Lacks(lacks)) => {
            let lacks = log::untrusted(&lacks);
            return Err(Error::configuration(format!(
                "require-confinement: this kernel or container lacks {lacks} to confine the filter compiler"
            )));
        }
        Ok(FromCompiler::NoLibrary(error)) => return Err(no_library(&log::untrusted(&error))),
        Ok(FromCompiler::NoCapture(error)) => {
            return Err(no_capture(interface.unwrap_or_default(), &log::untrusted(&error)));
        }
        Ok(FromCompiler::Wrong(error)) => return Err(wrong(filter, &refusal(&log::untrusted(&error)))),
        Ok(FromCompiler::TooLong(count)) => {
            return Err(wrong(
                filter,
                &format!("too large ({count} instructions, the kernel takes at most {MAX}){SMALLER}"),
            ));
        }
        Err(status) => return Err(ended(filter, status)),
    };
    match taken(&program) {
        Ok(()) => Ok(Some(program)),
        Err(error) => Err(wrong(filter, &not_taken(&program, &error))),
    }
}

/// Starts a compiler for this filter. Returns its answer, or its exit status if it gave none; `None` when the wait was interrupted.
fn ask(
    filter: &str,
    interface: Option<&str>,
    identity: Option<Identity>,
    required: bool,
    until: impl FnOnce(BorrowedFd<'_>, Duration) -> Result<WaitResult, Error>,
) -> Result<Option<Result<FromCompiler, WaitStatus>>, Error> {
    let say = || "filter compiler".to_owned();
    // The executable of this process, although its path may hold another file by now.
    let own = File::options().read(true).custom_flags(OFlag::O_PATH.bits()).open("/proc/self/exe").context(say)?;
    let (ours, theirs) = ipc::pair().context(say)?;
    let child = Child::new(start::spawn(own.as_fd(), compiler::NAME, theirs.as_fd(), None).context(say)?);
    drop(theirs);
    let channel = Channel::<ToCompiler, FromCompiler>::new(ours);
    let open = ToCompiler::Open { identity, interface: interface.map(str::to_owned), required };
    for message in [open, ToCompiler::Compile(filter.to_owned())] {
        match channel.send(&message, &[]) {
            // The exit status below tells the reason.
            Err(ipc::Error::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => {}
            sent => sent.context(say)?,
        }
    }
    match until(channel.as_fd(), LIMIT)? {
        WaitResult::Ready => {}
        WaitResult::Interrupted => return Ok(None),
        WaitResult::TimedOut => {
            // The host may be busy, as during boot. Another start may have more time.
            let (filter, limit) = (log::untrusted(filter), LIMIT.as_secs());
            return Err(Error::failure(format!("filter {filter:?}: not compiled within {limit} s{SMALLER}")));
        }
    }
    let mut answer = channel.recv().context(say)?;
    if answer.is_none() {
        // After an exit with the filter unread, the channel reports the end before the answer.
        answer = channel.recv().context(say)?;
    }
    if let Some((answer, _)) = answer {
        return Ok(Some(Ok(answer)));
    }
    child.ends_within(END);
    child.end().map(|status| Some(Err(status))).context(say)
}

/// Has the kernel check a program, on a temporary socket.
fn taken(program: &[BpfInstruction]) -> io::Result<()> {
    option::lock_filter(UnixDatagram::unbound()?.as_fd(), program)
}

/// Reason why the kernel refused a program.
fn not_taken(program: &[BpfInstruction], error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(nix::libc::EINVAL) if jumps_back(program) => {
            "compiles to a loop, which the kernel refuses: do not use `protochain`".into()
        }
        Some(nix::libc::ENOMEM) => format!(
            "too large for this host ({} instructions): raise sysctl net.core.optmem_max, or use a smaller filter{SMALLER}",
            program.len()
        ),
        _ => format!("refused by the kernel: {error}"),
    }
}

/// Whether an instruction jumps backwards, as in a loop of libpcap. The kernel reads the distance as unsigned and refuses it.
fn jumps_back(program: &[BpfInstruction]) -> bool {
    /// `BPF_JMP | BPF_JA` of `linux/bpf_common.h`.
    const JUMP: u16 = 0x05;
    program.iter().any(|instruction| instruction.code == JUMP && instruction.k.cast_signed() < 0)
}

/// libpcap's error about a filter, with advice.
fn refusal(error: &str) -> String {
    if error.starts_with("unknown host") || error.starts_with("unknown network") {
        return format!("{error}; use the address: filters resolve names only from /etc/hosts, without DNS");
    }
    if error.contains("malloc") || error.contains("memory") {
        return format!("needs more than {} MiB of memory to compile{SMALLER}", confine::MEMORY >> 20);
    }
    format!("{error}; must be a tcpdump filter, see pcap-filter(7)")
}

/// Error for a compiler that ended without an answer.
fn ended(filter: &str, status: WaitStatus) -> Error {
    match status {
        WaitStatus::Signaled(_, Signal::SIGXCPU, _) => {
            wrong(filter, &format!("needs more than {} s to compile{SMALLER}", confine::PROCESSOR_S))
        }
        // Only the kernel kills it with this signal.
        WaitStatus::Signaled(_, Signal::SIGKILL, _) => {
            Error::failure("filter compiler: killed, probably because memory ran out")
        }
        WaitStatus::Signaled(_, signal, _) => {
            wrong(filter, &format!("libpcap crashed on this filter ({signal}){SMALLER}"))
        }
        other => Error::failure(format!("filter compiler: ended without an answer ({other:?})")),
    }
}

fn no_library(error: &str) -> Error {
    Error::configuration(format!(
        "libpcap, which compiles mirror.filter, cannot be loaded: {error}; install `libpcap0.8` (Debian, Ubuntu) or \
         `libpcap` (Fedora, RHEL), or remove the filter"
    ))
}

fn no_capture(interface: &str, error: &str) -> Error {
    let what = if error.contains("No such device") { "no such interface; `ip link` lists them" } else { error };
    Error::failure(format!("interface {interface:?}: {what}"))
}

fn wrong(filter: &str, what: &str) -> Error {
    Error::configuration(format!("filter {:?}: {what}", log::untrusted(filter)))
}
