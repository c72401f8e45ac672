//! What a supervisor that has been taken over would try. A worker that leaves out all confinement of its own stands for it: it
//! has inherited the supervisor's user, table, Landlock domain and memory protection.

// An argument is a machine word, whatever it means.
#![allow(clippy::cast_possible_wrap)]

use std::fs::{self, File};

use crate::unfiltered::{Attempt, say};
use crate::{Attack, Needs, raw::call};

/// `MAP_PRIVATE | MAP_ANONYMOUS`.
const PRIVATE: i64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as i64;
const WRITE: i64 = libc::PROT_WRITE as i64;
const EXECUTE: i64 = libc::PROT_EXEC as i64;

/// All in one attack: nothing of it kills, so the last words tell.
pub const SUPERVISOR: &[Attack] = &[Attack {
    name: "everything-that-a-supervisor-might-try",
    needs: Needs::Supervisor,
    expected: "key EACCES, list EACCES, create EACCES, overwrite EACCES, shell EACCES, \
               helper EPERM, abort EPERM, write-and-execute ENOSYS, executable-later EACCES, null works",
    run: |loot| say(loot, ATTEMPTS),
}];

const ATTEMPTS: &[(&str, Attempt)] = &[
    // The key of another tunnel of the same user, which the test puts there.
    ("key", |loot| File::open(loot.executable.with_file_name("other.key")).map(drop)),
    ("list", |loot| fs::read_dir(loot.executable.with_file_name(".")).map(drop)),
    ("create", |loot| File::create(loot.executable.with_file_name("other.sock")).map(drop)),
    ("overwrite", |loot| File::options().write(true).open(loot.executable.with_file_name("other.key")).map(drop)),
    ("shell", |_| execute(c"/bin/sh")),
    ("helper", |loot| call(libc::SYS_kill, &[loot.helper_pid.into(), libc::SIGKILL.into()]).map(drop)),
    ("abort", |loot| {
        let helper = loot.helper_pid.into();
        call(libc::SYS_tgkill, &[helper, helper, libc::SIGABRT.into()]).map(drop)
    }),
    ("write-and-execute", |_| call(libc::SYS_mmap, &[0, 4096, WRITE | EXECUTE, PRIVATE, -1]).map(drop)),
    ("executable-later", |_| {
        let page = call(libc::SYS_mmap, &[0, 4096, WRITE, PRIVATE, -1])?;
        call(libc::SYS_mprotect, &[page, 4096, EXECUTE]).map(drop)
    }),
    ("null", |_| File::options().read(true).write(true).open("/dev/null").map(drop)),
];

/// Never returns when it works.
fn execute(path: &std::ffi::CStr) -> std::io::Result<()> {
    let nothing = [0_u64];
    let environment = nothing.as_ptr() as i64;
    call(libc::SYS_execveat, &[-1, path.as_ptr() as i64, environment, environment, libc::AT_EMPTY_PATH.into()])
        .map(drop)
}
