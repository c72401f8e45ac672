//! A process of the tunnel's user that nothing confines: what it can do to the tunnel's processes.
//!
//! For each process id that it is given it prints a line for each attempt: process id, name, and the number of the error,
//! 0 where there was none.

#![allow(clippy::cast_possible_wrap)] // Pointers among the arguments.

use std::fs::{self, File};
use std::io;

use ethudp_stubs::raw::call;

fn main() {
    for pid in std::env::args().skip(1).filter_map(|pid| pid.parse::<i32>().ok()) {
        for (name, attempt) in ATTEMPTS {
            let error = attempt(pid).err().map_or(0, |error| error.raw_os_error().unwrap_or(-1));
            println!("{pid} {name} {error}");
        }
    }
}

type Attempt = fn(i32) -> io::Result<()>;

const ATTEMPTS: &[(&str, Attempt)] = &[
    ("mem", |pid| File::options().read(true).write(true).open(format!("/proc/{pid}/mem")).map(drop)),
    ("maps", |pid| fs::read(format!("/proc/{pid}/maps")).map(drop)),
    ("environ", |pid| fs::read(format!("/proc/{pid}/environ")).map(drop)),
    ("fd", |pid| fs::read_dir(format!("/proc/{pid}/fd")).map(drop)),
    ("fd-link", |pid| fs::read_link(format!("/proc/{pid}/fd/0")).map(drop)),
    ("cwd", |pid| fs::read_dir(format!("/proc/{pid}/cwd/")).map(drop)),
    ("process_vm_readv", |pid| {
        let bytes = [0_u64; 2];
        let remote = [bytes.as_ptr() as i64, 8];
        // At an address that need not be mapped: who may not read gets EPERM before that is looked at.
        call(libc::SYS_process_vm_readv, &[pid.into(), remote.as_ptr() as i64, 1, remote.as_ptr() as i64, 1]).map(drop)
    }),
    ("pidfd_getfd", |pid| {
        let pidfd = call(libc::SYS_pidfd_open, &[pid.into()])?;
        call(libc::SYS_pidfd_getfd, &[pidfd, 3]).map(drop)
    }),
    ("ns", |pid| File::open(format!("/proc/{pid}/ns/net")).map(drop)),
    ("seize", |pid| call(libc::SYS_ptrace, &[libc::PTRACE_SEIZE.into(), pid.into()]).map(drop)),
    // No wait for the stop: tracing ends with this process.
    ("attach", |pid| call(libc::SYS_ptrace, &[libc::PTRACE_ATTACH.into(), pid.into()]).map(drop)),
    ("signal", |pid| call(libc::SYS_kill, &[pid.into(), 0]).map(drop)),
];
