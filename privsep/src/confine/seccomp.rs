//! Seccomp allow-lists: any call outside a process's table kills the process.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// Allowed system call.
#[derive(Debug, Clone, Copy)]
pub struct Allowed {
    /// Name as in the kernel's tables.
    pub name: &'static str,
    /// Number on this architecture (`libc::SYS_*`).
    pub number: i64,
    /// Conditions on its arguments.
    pub arguments: Arguments,
    /// Reason why the process needs the call.
    pub reason: &'static str,
}

/// Entry of a table.
pub const fn allow(name: &'static str, number: i64, arguments: Arguments, reason: &'static str) -> Allowed {
    Allowed { name, number, arguments, reason }
}

/// Conditions on the arguments of an allowed call. Arguments are numbered from 0, and compared as 32 bits, as the kernel uses
/// these.
#[derive(Debug, Clone, Copy)]
pub enum Arguments {
    /// Any arguments. The kernel answers such a call from its bitmap, without running the filter.
    Any,
    /// Argument `.0` is one of `.1`.
    OneOf(u8, &'static [i32]),
    /// Argument `.0` is `.1`, and argument `.2` is `.3`.
    Both(u8, i32, u8, i32),
    /// Socket of this family, type (with any flags) and protocol (arguments 0, 1 and 2).
    Socket(i32, i32, i32),
    /// Level and name (arguments 1 and 2) of one of these socket options.
    SocketOption(i32, &'static [i32]),
    /// Protection (argument 2) of a mapping without `PROT_WRITE` or without `PROT_EXEC`.
    WriteOrExecute,
    /// Argument 0 is the id of one process, not of a group, and argument 1 is SIGKILL.
    KillOne,
    /// Mapping as an allocator makes it, to the bit: protection (argument 2) read and write, flags (argument 3) private and
    /// anonymous. Other mappings can be filled without counting as data (setrlimit(2), `RLIMIT_DATA`).
    PlainMemory,
    /// Argument `.0` has no flags other than `.1`.
    OnlyFlags(u8, &'static [i32]),
    /// Flags of clone(2), argument 0, that make no namespace.
    NoNamespace,
    /// Argument 0 is this process's own id, and argument 2 is SIGABRT. The process cannot fake a death by another signal.
    AbortItself,
}

/// Compiles `table` and enforces it on every thread of this process. Any other call kills the process.
///
/// # Errors
/// Fails if the kernel has no seccomp filter, or if `no_new_privs` is not set.
pub fn enforce<'a>(table: impl IntoIterator<Item = &'a Allowed>) -> io::Result<()> {
    apply(table, SeccompAction::KillProcess)
}

/// As [`enforce`], but any other call fails with `ENOSYS`, as on a kernel without it.
pub fn restrict<'a>(table: impl IntoIterator<Item = &'a Allowed>) -> io::Result<()> {
    apply(table, SeccompAction::Errno(libc::ENOSYS.cast_unsigned()))
}

fn apply<'a>(table: impl IntoIterator<Item = &'a Allowed>, otherwise: SeccompAction) -> io::Result<()> {
    seccompiler::apply_filter_all_threads(&compile(table, otherwise)?).map_err(io::Error::other)
}

fn compile<'a>(table: impl IntoIterator<Item = &'a Allowed>, otherwise: SeccompAction) -> io::Result<BpfProgram> {
    let mut rules = BTreeMap::<i64, Vec<SeccompRule>>::new();
    for allowed in table {
        let entry = rules.entry(allowed.number).or_default();
        entry.append(&mut chain(allowed.arguments).map_err(io::Error::other)?);
    }
    let arch = ARCH.try_into().map_err(io::Error::other)?;
    let filter = SeccompFilter::new(rules, otherwise, SeccompAction::Allow, arch);
    filter.and_then(TryInto::try_into).map_err(io::Error::other)
}

/// Type bits in the second argument of socket(2). The other bits are flags (`SOCK_TYPE_MASK`, `linux/net.h`).
const TYPE: u64 = 0xf;

/// All flags of clone(2) that make a namespace.
const NAMESPACES: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

/// Rules of one call. The call is allowed if one rule matches, or if there is no rule.
fn chain(arguments: Arguments) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let equal = |index, value: i32| {
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, u64::from(value.cast_unsigned()))
    };
    let exactly = |index, bits: i32| {
        SeccompCondition::new(index, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, u64::from(bits.cast_unsigned()))
    };
    let without = |index: u8, bits: i32| {
        let clear = SeccompCmpOp::MaskedEq(u64::from(bits.cast_unsigned()));
        SeccompCondition::new(index, SeccompCmpArgLen::Qword, clear, 0)
    };
    // The id as the kernel's signed number, which must be positive.
    let process = |op, limit: u32| SeccompCondition::new(0, SeccompCmpArgLen::Dword, op, u64::from(limit));
    let one = |conditions| Ok(vec![SeccompRule::new(conditions)?]);
    match arguments {
        Arguments::Any => Ok(Vec::new()),
        Arguments::OneOf(index, values) => {
            values.iter().map(|&value| SeccompRule::new(vec![equal(index, value)?])).collect()
        }
        Arguments::Socket(family, kind, protocol) => {
            let kind = SeccompCondition::new(
                1,
                SeccompCmpArgLen::Dword,
                SeccompCmpOp::MaskedEq(TYPE),
                u64::from(kind.cast_unsigned()),
            )?;
            one(vec![equal(0, family)?, kind, equal(2, protocol)?])
        }
        Arguments::SocketOption(level, names) => {
            names.iter().map(|&name| SeccompRule::new(vec![equal(1, level)?, equal(2, name)?])).collect()
        }
        Arguments::Both(first, value, second, other) => one(vec![equal(first, value)?, equal(second, other)?]),
        Arguments::PlainMemory => one(vec![
            exactly(2, libc::PROT_READ | libc::PROT_WRITE)?,
            exactly(3, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS)?,
        ]),
        // A filter ANDs the conditions of a rule and ORs the rules.
        Arguments::WriteOrExecute => Ok(vec![
            SeccompRule::new(vec![without(2, libc::PROT_WRITE)?])?,
            SeccompRule::new(vec![without(2, libc::PROT_EXEC)?])?,
        ]),
        Arguments::KillOne => one(vec![
            process(SeccompCmpOp::Gt, 0)?,
            process(SeccompCmpOp::Le, i32::MAX.cast_unsigned())?,
            equal(1, libc::SIGKILL)?,
        ]),
        Arguments::OnlyFlags(index, flags) => one(vec![without(index, !flags.iter().fold(0, |all, flag| all | flag))?]),
        Arguments::NoNamespace => one(vec![without(0, NAMESPACES)?]),
        Arguments::AbortItself => one(vec![equal(0, std::process::id().cast_signed())?, equal(2, libc::SIGABRT)?]),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use nix::sys::signal::{Signal, raise};

    use super::*;

    #[test]
    fn a_table_compiles() {
        let allowed = |number, arguments| Allowed { name: "", number, arguments, reason: "" };
        let table = [
            allowed(libc::SYS_read, Arguments::Any),
            allowed(libc::SYS_fcntl, Arguments::OneOf(1, &[3, 4])),
            allowed(libc::SYS_mmap, Arguments::PlainMemory),
            allowed(libc::SYS_mprotect, Arguments::WriteOrExecute),
            allowed(libc::SYS_tgkill, Arguments::AbortItself),
            allowed(libc::SYS_getsockopt, Arguments::SocketOption(263, &[6])),
            allowed(libc::SYS_clone, Arguments::NoNamespace),
            allowed(libc::SYS_sendmsg, Arguments::OnlyFlags(2, &[0x40, 0x4000])),
        ];
        let program = compile(&table, SeccompAction::KillProcess);
        assert!(program.unwrap().len() > 10);
    }

    /// Body of the test below, run in a child process. Does nothing in an ordinary run.
    #[test]
    fn in_a_child() {
        let Some(what) = std::env::var_os("SECCOMP_CHILD") else { return };
        super::super::no_new_privileges().unwrap();
        let allowed = |number, arguments| Allowed { name: "", number, arguments, reason: "" };
        let any = [libc::SYS_write, libc::SYS_futex, libc::SYS_rt_sigprocmask, libc::SYS_getpid, libc::SYS_gettid];
        let any = any.map(|number| allowed(number, Arguments::Any));
        enforce(any.iter().chain(&[allowed(libc::SYS_tgkill, Arguments::AbortItself)])).unwrap();
        match what.to_str().unwrap().parse::<Signal>() {
            Ok(signal) => drop(raise(signal)),
            Err(_) => drop(std::fs::File::open("/")),
        }
    }

    /// Signal that ends a child process which makes this call behind a filter.
    fn ends(what: &str) -> Option<i32> {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "confine::seccomp::tests::in_a_child"]).env("SECCOMP_CHILD", what);
        child.output().unwrap().status.signal()
    }

    #[test]
    fn unlisted_call_kills_process() {
        assert_eq!(ends("open"), Some(libc::SIGSYS));
    }

    #[test]
    fn process_may_signal_itself_by_abort_only() {
        assert_eq!(ends("SIGABRT"), Some(libc::SIGABRT));
        for other in ["SIGTERM", "SIGKILL", "SIGHUP"] {
            assert_eq!(ends(other), Some(libc::SIGSYS), "{other}");
        }
    }
}
