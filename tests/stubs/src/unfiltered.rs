//! What is denied to a worker even where its own filter has a hole: by Landlock, by limits, by the memory's write
//! protection, and by the filter that it inherits from the supervisor.

// An argument is a machine word, whatever it means.
#![allow(clippy::cast_possible_wrap, clippy::cast_sign_loss)]

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;

use ethudp_worker::confine::MEMORY;
use privsep::ipc::FromWorker;

use crate::memory::WAYS;
use crate::{Attack, Loot, Needs, raw::call};

/// `MAP_PRIVATE | MAP_ANONYMOUS`.
const PRIVATE: i64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as i64;
const WRITE: i64 = libc::PROT_WRITE as i64;
const EXECUTE: i64 = libc::PROT_EXEC as i64;

/// All of a layer in one attack: nothing of it kills, so the last words tell.
pub const UNFILTERED: &[Attack] = &[
    Attack {
        name: "everything-that-the-inherited-filter-lets-through",
        needs: Needs::Landlock,
        expected: "open EACCES, list EACCES, remove EACCES, execveat EACCES, fork EAGAIN, kill EPERM, \
                   write-and-execute ENOSYS, executable-later EACCES, limit EPERM, \
                   gigabyte ENOMEM, heap ENOMEM",
        run: |loot| say(loot, PASSED),
    },
    Attack {
        name: "more-memory-than-it-may-have",
        needs: Needs::NoFilter,
        expected: "plain ENOMEM, like-a-stack ENOMEM, read-only-when-full ENOMEM, out-of-reach-when-full ENOMEM, \
                   reserved ENOMEM",
        run: |loot| say_all(loot, &WAYS.map(|(name, way)| (name, way(MEMORY)))),
    },
    // Of these its own filter leaves one.
    Attack {
        name: "more-memory-than-it-may-have-in-the-way-of-an-allocator",
        needs: Needs::Nothing,
        expected: "plain ENOMEM",
        run: |loot| say_all(loot, &[WAYS[0]].map(|(name, way)| (name, way(MEMORY)))),
    },
    Attack {
        name: "everything-that-the-inherited-filter-denies",
        needs: Needs::NoFilter,
        expected: "execve ENOSYS, signal ENOSYS, seize ENOSYS, memory ENOSYS, pidfd ENOSYS, packet ENOSYS, udp ENOSYS, \
                   setuid ENOSYS, unshare ENOSYS, namespace ENOSYS, clone3 ENOSYS, bpf ENOSYS, io_uring ENOSYS, \
                   key ENOSYS, bind ENOSYS, option ENOSYS, tap ENOSYS, description ENOSYS",
        run: |loot| say(loot, DENIED),
    },
    // A line of the log does not hold all of them.
    Attack {
        name: "what-the-inherited-filter-denies-by-an-argument",
        needs: Needs::NoFilter,
        expected: "everybody ENOSYS, group ENOSYS, unix ENOSYS, peer ENOSYS, dumpable ENOSYS, filter ENOSYS",
        run: |loot| say(loot, DENIED_BY_ARGUMENT),
    },
];

pub fn say(loot: &Loot, attempts: &[(&str, Attempt)]) {
    let results: Vec<_> = attempts.iter().map(|(name, attempt)| (*name, attempt(loot))).collect();
    say_all(loot, &results);
}

fn say_all(loot: &Loot, results: &[(&str, io::Result<()>)]) {
    let said: Vec<_> = results.iter().map(|(name, result)| format!("{name} {}", word(result))).collect();
    let _ = loot.supervisor.send(&FromWorker::Dying(said.join(", ")), &[]);
}

fn word(result: &io::Result<()>) -> String {
    match result.as_ref().err().map(|error| error.raw_os_error().unwrap_or_default()) {
        None => "works".into(),
        Some(libc::EPERM) => "EPERM".into(),
        Some(libc::EACCES) => "EACCES".into(),
        Some(libc::EAGAIN) => "EAGAIN".into(),
        Some(libc::ENOMEM) => "ENOMEM".into(),
        Some(libc::ENOSYS) => "ENOSYS".into(),
        Some(other) => other.to_string(),
    }
}

pub type Attempt = fn(&Loot) -> io::Result<()>;

/// Landlock, limits and write protection stand behind these.
const PASSED: &[(&str, Attempt)] = &[
    ("open", |_| File::open("/etc/passwd").map(drop)),
    ("list", |_| fs::read_dir("/tmp").map(drop)),
    // Its own executable, in a directory that belongs to everybody.
    ("remove", |loot| fs::remove_file(&loot.executable)),
    ("execveat", |_| {
        let nothing = [0_u64];
        let environment = nothing.as_ptr() as i64;
        let flags = libc::AT_EMPTY_PATH.into();
        call(libc::SYS_execveat, &[-1, c"/bin/sh".as_ptr() as i64, environment, environment, flags]).map(drop)
    }),
    ("fork", |_| match call(libc::SYS_clone, &[libc::SIGCHLD.into()])? {
        0 => std::process::exit(0),
        _ => Ok(()),
    }),
    ("kill", |loot| call(libc::SYS_kill, &[loot.supervisor_pid.into(), libc::SIGKILL.into()]).map(drop)),
    ("write-and-execute", |_| call(libc::SYS_mmap, &[0, 4096, WRITE | EXECUTE, PRIVATE, -1]).map(drop)),
    ("executable-later", |_| {
        let page = call(libc::SYS_mmap, &[0, 4096, WRITE, PRIVATE, -1])?;
        call(libc::SYS_mprotect, &[page, 4096, EXECUTE]).map(drop)
    }),
    ("limit", |_| {
        let limit = [1_u64, 1];
        call(libc::SYS_prlimit64, &[0, libc::RLIMIT_NPROC.into(), limit.as_ptr() as i64]).map(drop)
    }),
    ("gigabyte", |_| call(libc::SYS_mmap, &[0, 1 << 30, WRITE, PRIVATE, -1]).map(drop)),
    ("heap", |_| {
        let end = call(libc::SYS_brk, &[0])?;
        let moved = call(libc::SYS_brk, &[end + (1 << 30)])?;
        if moved > end { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ENOMEM)) }
    }),
];

/// What neither worker nor supervisor can call.
const DENIED: &[(&str, Attempt)] = &[
    ("execve", |_| call(libc::SYS_execve, &[c"/bin/sh".as_ptr() as i64, 0, 0]).map(drop)),
    ("signal", |loot| call(libc::SYS_kill, &[loot.supervisor_pid.into(), libc::SIGSTOP.into()]).map(drop)),
    ("seize", |loot| call(libc::SYS_ptrace, &[libc::PTRACE_SEIZE.into(), loot.helper_pid.into()]).map(drop)),
    ("memory", |loot| {
        let vector = [0x1000_u64, 8];
        let vector = vector.as_ptr() as i64;
        call(libc::SYS_process_vm_readv, &[loot.helper_pid.into(), vector, 1, vector, 1]).map(drop)
    }),
    ("pidfd", |loot| call(libc::SYS_pidfd_open, &[loot.helper_pid.into()]).map(drop)),
    ("packet", |_| call(libc::SYS_socket, &[libc::AF_PACKET.into(), libc::SOCK_RAW.into()]).map(drop)),
    ("udp", |_| call(libc::SYS_socket, &[libc::AF_INET.into(), libc::SOCK_DGRAM.into()]).map(drop)),
    ("setuid", |_| call(libc::SYS_setuid, &[0]).map(drop)),
    ("unshare", |_| call(libc::SYS_unshare, &[libc::CLONE_NEWUSER.into()]).map(drop)),
    ("namespace", |_| call(libc::SYS_clone, &[i64::from(libc::CLONE_NEWUSER | libc::SIGCHLD)]).map(drop)),
    ("clone3", |_| call(libc::SYS_clone3, &[0, 0]).map(drop)),
    ("bpf", |_| call(libc::SYS_bpf, &[0, 0, 0]).map(drop)),
    ("io_uring", |_| call(libc::SYS_io_uring_setup, &[1, 0]).map(drop)),
    ("key", |_| call(libc::SYS_keyctl, &[0, 0]).map(drop)),
    ("bind", |loot| call(libc::SYS_bind, &[loot.port.as_raw_fd().into(), 0, 0]).map(drop)),
    ("option", |loot| call(libc::SYS_setsockopt, &[loot.port.as_raw_fd().into(), 1, 1]).map(drop)),
    ("tap", |loot| call(libc::SYS_ioctl, &[loot.port.as_raw_fd().into(), libc::TUNSETPERSIST as i64, 0]).map(drop)),
    ("description", |loot| call(libc::SYS_fcntl, &[loot.port.as_raw_fd().into(), libc::F_SETFL.into(), 0]).map(drop)),
];

/// What they can call, but not so.
const DENIED_BY_ARGUMENT: &[(&str, Attempt)] = &[
    ("everybody", |_| call(libc::SYS_kill, &[-1, libc::SIGKILL.into()]).map(drop)),
    ("group", |_| call(libc::SYS_kill, &[0, libc::SIGKILL.into()]).map(drop)),
    ("unix", |_| call(libc::SYS_socket, &[libc::AF_UNIX.into(), libc::SOCK_STREAM.into()]).map(drop)),
    ("peer", |loot| {
        let option = [libc::SOL_SOCKET, libc::SO_PEERSEC].map(i64::from);
        call(libc::SYS_getsockopt, &[loot.path.as_raw_fd().into(), option[0], option[1]]).map(drop)
    }),
    ("dumpable", |_| call(libc::SYS_prctl, &[libc::PR_SET_DUMPABLE.into(), 1]).map(drop)),
    // With a listener, which would see the calls of what is started later.
    ("filter", |_| call(libc::SYS_seccomp, &[1, 8]).map(drop)),
];
