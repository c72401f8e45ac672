//! The C library's allocator.

/// Has all threads of this process share one heap, where the C library would give each its own with 64 MiB of addresses
/// reserved. To be called before there is a second one; their rivalry costs those nothing who allocate nothing.
pub fn one_for_all() {
    // SAFETY: two plain numbers; the only thread of this process is here, not in the allocator.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
