//! Started in the place of `ethudp-worker`, it leaves out all that a worker does to confine itself, and tells the supervisor
//! what it could do nevertheless: what is denied is denied by SELinux, and by the filter of supervisor and unit.

// Pointers among the arguments.
#![allow(clippy::cast_possible_wrap)]

use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;

use ethudp_stubs::raw::call;
use privsep::ipc::{Channel, Error, FromWorker, ToWorker};
use privsep::sys::process;

type Attempt = fn() -> io::Result<()>;

const ATTEMPTS: &[(&str, Attempt)] = &[
    ("configuration", || File::open("/etc/ethudp/site-a.toml").map(drop)),
    ("key", || File::open("/etc/ethudp/site-b.key").map(drop)),
    ("tap", || File::options().read(true).write(true).open("/dev/net/tun").map(drop)),
    ("status", || UnixStream::connect("/run/ethudp/site-b/site-b.sock").map(drop)),
    ("file", || File::create("/run/ethudp/site-a/attack").map(drop)),
    ("shell", || {
        let nothing = [0_u64];
        let environment = nothing.as_ptr() as i64;
        let flags = libc::AT_EMPTY_PATH.into();
        call(libc::SYS_execveat, &[-1, c"/bin/sh".as_ptr() as i64, environment, environment, flags]).map(drop)
    }),
    ("kill", || call(libc::SYS_kill, &[std::os::unix::process::parent_id().into(), libc::SIGKILL.into()]).map(drop)),
    ("udp", || std::net::UdpSocket::bind("0.0.0.0:0").map(drop)),
    ("trace", || call(libc::SYS_ptrace, &[libc::PTRACE_TRACEME.into()]).map(drop)),
];

fn main() -> Result<(), Error> {
    let supervisor = Channel::<FromWorker, ToWorker>::new(process::inherited(process::SUPERVISOR_FD)?);
    supervisor.recv()?;
    let word = |attempt: &Attempt| attempt().err().map_or("works".into(), |error| error.kind().to_string());
    let said: Vec<_> = ATTEMPTS.iter().map(|(name, attempt)| format!("{name}: {}", word(attempt))).collect();
    supervisor.send(&FromWorker::Dying(said.join("; ")), &[])
}
