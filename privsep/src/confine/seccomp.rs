//! Seccomp allow-lists: every call that is not in a process's table kills the process.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// One allowed system call.
#[derive(Debug, Clone, Copy)]
pub struct Allowed {
    /// Name as in the kernel's tables.
    pub name: &'static str,
    /// Number on this architecture (`libc::SYS_*`).
    pub number: i64,
    /// Which arguments are allowed.
    pub arguments: Arguments,
    /// Why the process needs it.
    pub reason: &'static str,
}

/// Conditions on the arguments of an allowed call.
#[derive(Debug, Clone, Copy)]
pub enum Arguments {
    /// Any: the kernel then answers from its bitmap, without running the filter.
    Any,
    /// Argument `.0` is one of `.1`.
    OneOf(u8, &'static [u64]),
    /// Arguments `.0` and `.2` are `.1` and `.3`.
    Both(u8, u64, u8, u64),
    /// Argument `.0` has none of the bits of `.1`.
    WithoutBits(u8, u64),
    /// Argument `.0` is this process's own id.
    OwnProcess(u8),
}

/// Compiles `table` and puts it in force on every thread of this process; anything else kills the process.
///
/// # Errors
/// When the kernel has no seccomp filter, or `no_new_privs` is not set.
pub fn enforce(table: &[Allowed]) -> io::Result<()> {
    seccompiler::apply_filter_all_threads(&compile(table)?).map_err(io::Error::other)
}

fn compile(table: &[Allowed]) -> io::Result<BpfProgram> {
    let mut rules = BTreeMap::<i64, Vec<SeccompRule>>::new();
    for allowed in table {
        let entry = rules.entry(allowed.number).or_default();
        entry.append(&mut chain(allowed.arguments).map_err(io::Error::other)?);
    }
    let arch = ARCH.try_into().map_err(io::Error::other)?;
    let filter = SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, arch);
    filter.and_then(TryInto::try_into).map_err(io::Error::other)
}

/// The rules of one call: any one of them allows it, none at all allows everything.
fn chain(arguments: Arguments) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let equal = |index, value| SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value);
    match arguments {
        Arguments::Any => Ok(Vec::new()),
        Arguments::OneOf(index, values) => {
            values.iter().map(|&value| SeccompRule::new(vec![equal(index, value)?])).collect()
        }
        Arguments::Both(first, one, second, other) => {
            Ok(vec![SeccompRule::new(vec![equal(first, one)?, equal(second, other)?])?])
        }
        Arguments::WithoutBits(index, bits) => {
            let clear = SeccompCmpOp::MaskedEq(bits);
            let condition = SeccompCondition::new(index, SeccompCmpArgLen::Qword, clear, 0)?;
            Ok(vec![SeccompRule::new(vec![condition])?])
        }
        Arguments::OwnProcess(index) => Ok(vec![SeccompRule::new(vec![equal(index, std::process::id().into())?])?]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_compiles() {
        let allowed = |number, arguments| Allowed { name: "", number, arguments, reason: "" };
        let program = compile(&[
            allowed(libc::SYS_read, Arguments::Any),
            allowed(libc::SYS_fcntl, Arguments::OneOf(1, &[3, 4])),
            allowed(libc::SYS_mmap, Arguments::WithoutBits(2, 4)),
            allowed(libc::SYS_tgkill, Arguments::OwnProcess(0)),
            allowed(libc::SYS_getsockopt, Arguments::Both(1, 263, 2, 6)),
        ]);
        assert!(program.unwrap().len() > 10);
    }

    /// What the test below runs in a process of its own; does nothing in an ordinary run.
    #[test]
    fn in_a_child() {
        if std::env::var_os("SECCOMP_CHILD").is_some() {
            super::super::no_new_privileges().unwrap();
            let allowed = |number| Allowed { name: "", number, arguments: Arguments::Any, reason: "" };
            enforce(&[allowed(libc::SYS_write), allowed(libc::SYS_futex)]).unwrap();
            let _ = std::fs::File::open("/");
        }
    }

    #[test]
    fn a_call_that_is_not_in_the_table_kills_the_process() {
        use std::os::unix::process::ExitStatusExt;
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "confine::seccomp::tests::in_a_child"]).env("SECCOMP_CHILD", "1");
        let status = child.output().unwrap().status;
        assert_eq!(status.signal(), Some(libc::SIGSYS), "{status}");
    }
}
