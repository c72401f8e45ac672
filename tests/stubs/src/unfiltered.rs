//! What is denied to a worker even where its filter has a hole: by Landlock, by the other processes' being non-dumpable, by
//! limits, by the memory's write protection, by having no capability.

// An argument is a machine word, whatever it means.
#![allow(clippy::cast_possible_wrap, clippy::cast_sign_loss)]

use std::fs::{self, File};
use std::io;

use privsep::ipc::FromWorker;

use crate::{Attack, Loot, Needs, raw::call};

/// `MAP_PRIVATE | MAP_ANONYMOUS`.
const PRIVATE: i64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as i64;
const WRITE: i64 = libc::PROT_WRITE as i64;
const EXECUTE: i64 = libc::PROT_EXEC as i64;

/// All in one attack: nothing of it kills, so the last words tell.
pub const UNFILTERED: &[Attack] = &[Attack {
    name: "everything-without-the-filter",
    needs: Needs::NoFilter,
    expected: "open EACCES, list EACCES, remove EACCES, execve EACCES, fork EAGAIN, kill EPERM, seize EPERM, \
               memory EPERM, pidfd_getfd EPERM, write-and-execute EACCES, executable-later EACCES, packet EPERM, \
               setuid EPERM, limit EPERM",
    run: |loot| {
        let said: Vec<_> = ATTEMPTS.iter().map(|(name, attempt)| format!("{name} {}", word(attempt(loot)))).collect();
        let _ = loot.supervisor.send(&FromWorker::Dying(said.join(", ")), &[]);
    },
}];

fn word(result: io::Result<()>) -> String {
    match result.err().map(|error| error.raw_os_error().unwrap_or_default()) {
        None => "works".into(),
        Some(libc::EPERM) => "EPERM".into(),
        Some(libc::EACCES) => "EACCES".into(),
        Some(libc::EAGAIN) => "EAGAIN".into(),
        Some(other) => other.to_string(),
    }
}

type Attempt = fn(&Loot) -> io::Result<()>;

const ATTEMPTS: &[(&str, Attempt)] = &[
    ("open", |_| File::open("/etc/passwd").map(drop)),
    ("list", |_| fs::read_dir("/tmp").map(drop)),
    // Its own executable, in a directory that belongs to everybody.
    ("remove", |loot| fs::remove_file(&loot.executable)),
    ("execve", |_| {
        let nothing = [0_u64];
        let environment = nothing.as_ptr() as i64;
        call(libc::SYS_execve, &[c"/bin/sh".as_ptr() as i64, environment, environment]).map(drop)
    }),
    ("fork", |_| match call(libc::SYS_clone, &[libc::SIGCHLD.into()])? {
        0 => std::process::exit(0),
        _ => Ok(()),
    }),
    ("kill", |loot| call(libc::SYS_kill, &[loot.supervisor_pid.into(), 0]).map(drop)),
    ("seize", |loot| call(libc::SYS_ptrace, &[libc::PTRACE_SEIZE.into(), loot.helper_pid.into()]).map(drop)),
    ("memory", |loot| {
        let vector = [0x1000_u64, 8];
        let vector = vector.as_ptr() as i64;
        call(libc::SYS_process_vm_readv, &[loot.helper_pid.into(), vector, 1, vector, 1]).map(drop)
    }),
    ("pidfd_getfd", |loot| {
        let pidfd = call(libc::SYS_pidfd_open, &[loot.helper_pid.into()])?;
        call(libc::SYS_pidfd_getfd, &[pidfd, 3]).map(drop)
    }),
    ("write-and-execute", |_| call(libc::SYS_mmap, &[0, 4096, WRITE | EXECUTE, PRIVATE, -1]).map(drop)),
    ("executable-later", |_| {
        let page = call(libc::SYS_mmap, &[0, 4096, WRITE, PRIVATE, -1])?;
        call(libc::SYS_mprotect, &[page, 4096, EXECUTE]).map(drop)
    }),
    ("packet", |_| call(libc::SYS_socket, &[libc::AF_PACKET.into(), libc::SOCK_RAW.into()]).map(drop)),
    ("setuid", |_| call(libc::SYS_setuid, &[0]).map(drop)),
    ("limit", |_| {
        let limit = [1_u64, 1];
        call(libc::SYS_prlimit64, &[0, libc::RLIMIT_NPROC.into(), limit.as_ptr() as i64]).map(drop)
    }),
];
