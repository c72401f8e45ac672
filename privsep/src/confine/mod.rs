//! Steps by which a process gives up its privileges. Each step is one-way.

pub mod libraries;
pub mod seccomp;
pub mod supervisor;

use std::io;
use std::path::Path;

use caps::CapSet;
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope, path_beneath_rules,
};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use crate::ipc::Identity;
use crate::sys::process;

/// Error of a step, with the name of the step.
fn step(name: &'static str) -> impl Fn(nix::Error) -> io::Error {
    move |error| io::Error::other(format!("{name}: {}", error.desc()))
}

/// Becomes `identity` for good, if given, and drops all capabilities. A change of identity makes the process dumpable on some
/// systems, so the process becomes non-dumpable again.
pub fn drop_privileges(identity: Option<Identity>) -> io::Result<()> {
    if let Some(identity) = identity {
        become_user(identity)?;
    }
    drop_capabilities()?;
    not_dumpable()
}

/// Becomes `identity` for good, without supplementary groups, with an empty bounding set if the process may empty it. An inherited
/// bounding set is useless under `no_new_privs`.
fn become_user(identity: Identity) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    if uid.is_root() || gid.as_raw() == 0 {
        return Err(io::Error::other("become_user: uid and gid must not be 0"));
    }
    if caps::has_cap(None, CapSet::Effective, caps::Capability::CAP_SETPCAP).map_err(io::Error::other)? {
        caps::clear(None, CapSet::Bounding).map_err(io::Error::other)?;
    }
    setgroups(&[]).map_err(step("setgroups"))?;
    setresgid(gid, gid, gid).map_err(step("setresgid"))?;
    setresuid(uid, uid, uid).map_err(step("setresuid"))?;
    Ok(())
}

/// Empties the ambient, inheritable, effective and permitted capability sets of the calling thread.
pub fn drop_capabilities() -> io::Result<()> {
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set).map_err(io::Error::other)?;
    }
    Ok(())
}

/// Keeps every later exec from gaining a privilege (prctl(2), `PR_SET_NO_NEW_PRIVS`).
pub fn no_new_privileges() -> io::Result<()> {
    prctl::set_no_new_privs().map_err(step("no_new_privs"))
}

/// Keeps other processes of the same uid out: ptrace, `/proc/PID/mem`, `/proc/PID/fd`, `pidfd_getfd`. An exec or a change of
/// identity undoes this.
pub fn not_dumpable() -> io::Result<()> {
    prctl::set_dumpable(false).map_err(step("dumpable"))
}

/// First steps of helper, worker and resolver, before they read anything. Some settings were made before the exec and are undone by an
/// SELinux domain transition. If the parent has already ended, the end of the channel shows it.
pub fn at_start() -> io::Result<()> {
    process::default_signals();
    SigSet::all().thread_block().map_err(step("blocking signals"))?;
    no_new_privileges()?;
    not_dumpable()?;
    die_with_parent()
}

/// Makes this process die with its parent. A change of identity undoes this.
pub fn die_with_parent() -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(step("parent death signal"))
}

/// Landlock rights on a file, or on the files below a directory.
#[derive(Debug, Clone, Copy)]
pub enum Access {
    /// Read, write and configure the file.
    Use,
    /// Read the file.
    Read,
    /// Read and execute the file.
    Execute,
    /// Remove the file.
    Remove,
}

impl Access {
    fn rights(self) -> BitFlags<AccessFs> {
        match self {
            Self::Use => AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev,
            Self::Read => AccessFs::ReadFile.into(),
            Self::Execute => AccessFs::ReadFile | AccessFs::Execute,
            Self::Remove => AccessFs::RemoveFile.into(),
        }
    }
}

/// Denies the calling thread and those it starts all other files, TCP ports, abstract Unix sockets, and signals to processes
/// outside (landlock(7)). `files` includes all below them. Returns the ABI in force, 0 on a kernel without Landlock.
pub fn landlock<P: AsRef<Path>>(files: &[(P, Access)]) -> io::Result<u32> {
    restrict_files(files, &[])
}

/// As [`landlock`], but allows connections to these TCP ports.
fn restrict_files<P: AsRef<Path>>(files: &[(P, Access)], ports: &[u16]) -> io::Result<u32> {
    let newest = ABI::V6;
    let rules = files.iter().flat_map(|(path, access)| path_beneath_rules([path], access.rights()));
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(newest))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(newest)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(newest)))
        .and_then(Ruleset::create)
        // A file that does not exist needs no rule.
        .and_then(|ruleset| ruleset.add_rules(rules))
        .and_then(|ruleset| {
            ruleset
                .add_rules(ports.iter().map(|&port| Ok::<_, RulesetError>(NetPort::new(port, AccessNet::ConnectTcp))))
        })
        .map_err(io::Error::other)?;
    let status = ruleset.restrict_self().map_err(io::Error::other)?;
    Ok(match status.landlock {
        landlock::LandlockStatus::Available { effective_abi, .. } => effective_abi as u32,
        _ => 0,
    })
}

/// As [`landlock`], with no file allowed.
pub fn landlock_all() -> io::Result<u32> {
    landlock::<&Path>(&[])
}

/// Keeps memory that was ever writable from becoming executable. False on a kernel without the feature (before 6.3).
pub fn deny_write_execute() -> bool {
    process::deny_write_execute().is_ok()
}

/// Limits this process: no further thread or process, no file growth, no core dump, at most `memory` bytes of private writable
/// memory, and as many bytes of address space beyond the present mappings (getrlimit(2), `RLIMIT_DATA`, `RLIMIT_AS`). Only
/// `RLIMIT_AS` counts memory that grows like a stack or is made read-only once full. Call this when all threads run: no thread
/// starts afterwards.
pub fn limit_resources(memory: u64) -> io::Result<()> {
    let addresses = mapped()? + memory;
    for (resource, limit, name) in
        [(Resource::RLIMIT_AS, addresses, "RLIMIT_AS"), (Resource::RLIMIT_DATA, memory, "RLIMIT_DATA")]
    {
        // The inherited hard limit may be lower.
        let (_, hard) = getrlimit(resource).map_err(step(name))?;
        setrlimit(resource, limit.min(hard), limit.min(hard)).map_err(step(name))?;
    }
    for (resource, name) in [
        (Resource::RLIMIT_NPROC, "RLIMIT_NPROC"),
        (Resource::RLIMIT_FSIZE, "RLIMIT_FSIZE"),
        (Resource::RLIMIT_CORE, "RLIMIT_CORE"),
    ] {
        setrlimit(resource, 0, 0).map_err(step(name))?;
    }
    Ok(())
}

/// Mapped address space in bytes: the smallest limit that leaves room for one page. The kernel reports the size in /proc, but this
/// process can no longer open files.
fn mapped() -> io::Result<u64> {
    /// More than any process of this program maps.
    const MOST: u64 = 1 << 40;
    let (_, hard) = getrlimit(Resource::RLIMIT_AS).map_err(step("RLIMIT_AS"))?;
    let (mut too_little, mut enough) = (0, hard.min(MOST));
    while enough - too_little > PAGE {
        let middle = u64::midpoint(too_little, enough);
        setrlimit(Resource::RLIMIT_AS, middle, hard).map_err(step("RLIMIT_AS"))?;
        if process::has_room(PAGE) {
            enough = middle;
        } else {
            too_little = middle;
        }
    }
    Ok(enough)
}

/// Smallest page size in bytes.
const PAGE: u64 = 4096;
