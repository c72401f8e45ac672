//! The C library's allocator, and what is done to memory that it gets back.

use std::alloc::{GlobalAlloc, Layout, System};
use std::arch::asm;

/// Has all threads of this process share one heap, where the C library would give each its own with 64 MiB of addresses
/// reserved. To be called before there is a second one; their rivalry costs those nothing who allocate nothing.
pub fn one_for_all() {
    // SAFETY: two plain numbers; the only thread of this process is here, not in the allocator.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// The system's allocator, for a program in which no block keeps what was in it when it is free. What C code allocates by itself is
/// not seen here; aws-lc wipes what it frees.
pub struct WipingAllocator<A = System>(A);

impl WipingAllocator {
    /// That of the system.
    pub const fn new() -> Self {
        Self(System)
    }
}

impl Default for WipingAllocator {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: each call is passed on as it is, and what holds for the other allocator holds for this one. `realloc` is the trait's own:
// it allocates, copies, and gives the old block back, which wipes it.
unsafe impl<A: GlobalAlloc> GlobalAlloc for WipingAllocator<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that it asks for.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above. Memory that is new from the kernel is zero already, and not touched.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller gives up a block of this size that was allocated here, so nobody else reads or writes it. The empty
        // instruction may read memory for all that the compiler knows, so the zeros are there before the block is free.
        unsafe {
            block.write_bytes(0, layout.size());
            asm!("/* {0} */", in(reg) block, options(nostack, preserves_flags));
            self.0.dealloc(block, layout);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Looks at what it gets back.
    #[derive(Default)]
    struct Looking {
        freed: Cell<usize>,
        not_zero: Cell<usize>,
    }

    // SAFETY: passes all on to the system's.
    unsafe impl GlobalAlloc for Looking {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: the caller's promises.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            // SAFETY: a block of this size, all of which was written.
            let bytes = unsafe { std::slice::from_raw_parts(block, layout.size()) };
            self.freed.set(self.freed.get() + 1);
            self.not_zero.set(self.not_zero.get() + bytes.iter().filter(|&&byte| byte != 0).count());
            // SAFETY: the caller's promises.
            unsafe { System.dealloc(block, layout) }
        }
    }

    #[test]
    fn a_block_is_zero_when_it_is_free_whether_it_was_given_back_or_grew_or_shrank() {
        let wiping = WipingAllocator(Looking::default());
        for size in [1, 7, 8, 32, 100, 4096, 300_000] {
            let layout = Layout::from_size_align(size, 8).unwrap();
            // SAFETY: each block is used within its size, and given back once with the layout that it has.
            unsafe {
                let block = wiping.alloc(layout);
                block.write_bytes(0x5a, size);
                let grown = wiping.realloc(block, layout, 2 * size);
                grown.write_bytes(0x5a, 2 * size);
                let layout = Layout::from_size_align(2 * size, 8).unwrap();
                let shrunk = wiping.realloc(grown, layout, size.div_ceil(2));
                assert_eq!(*shrunk, 0x5a);
                wiping.dealloc(shrunk, Layout::from_size_align(size.div_ceil(2), 8).unwrap());
            }
        }
        assert_eq!((wiping.0.freed.get(), wiping.0.not_zero.get()), (21, 0));
    }
}
