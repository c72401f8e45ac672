//! Any system call with any arguments: the one module of this package that may hold unsafe code.
//!
//! Why it exists: an attacker is not held to what safe wrappers offer, so the program that plays one must not be, either.
//! The functions are safe to call only in the sense that no caller relies on the process afterwards: either the kernel kills it
//! at the call, or it ends with the attack. No program that is shipped contains this.

use std::ffi::c_long;
use std::io;

/// Makes system call `number` with these arguments, the others being zero.
pub fn call(number: c_long, arguments: &[i64]) -> io::Result<i64> {
    let at = |index: usize| arguments.get(index).copied().unwrap_or(0);
    // SAFETY: nothing vouches for the arguments, and nothing needs to; see the module's header.
    let result = unsafe { libc::syscall(number, at(0), at(1), at(2), at(3), at(4), at(5)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Gives the same memory back twice, which the C library finds out.
pub fn free_twice() {
    // SAFETY: none. The C library notices and ends the process, by an abort or on the way to it.
    unsafe {
        let memory = std::hint::black_box(libc::malloc(100));
        libc::free(memory);
        libc::free(std::hint::black_box(memory));
    }
}

/// Makes call 20 of the 32-bit table (getpid) by the 32-bit entry, past a filter that only looks at numbers.
#[cfg(target_arch = "x86_64")]
pub fn call_by_32_bit_entry() -> i32 {
    let mut number = 20;
    // SAFETY: getpid touches no memory; the kernel keeps all registers but eax.
    unsafe { std::arch::asm!("int 0x80", inlateout("eax") number) };
    number
}
