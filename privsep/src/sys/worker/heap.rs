//! Settings of the C library's allocator, and wiping of freed memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::arch::asm;

/// Makes all threads of this process share one heap. The C library would give each thread its own, with 64 MiB of reserved
/// addresses. Call this before a second thread starts. Threads that allocate nothing do not contend for the heap.
pub fn one_for_all() {
    // SAFETY: two plain numbers; the only thread of this process is here, not in the allocator.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// System allocator that wipes every freed block. It does not see allocations of C code; aws-lc wipes its own.
pub struct WipingAllocator<A = System>(A);

impl WipingAllocator {
    /// Wraps the system allocator.
    pub const fn new() -> Self {
        Self(System)
    }
}

impl Default for WipingAllocator {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: each call is passed on unchanged, so the guarantees of the inner allocator hold here. `realloc` is the trait's own: it
// allocates, copies, and frees the old block, which wipes it.
unsafe impl<A: GlobalAlloc> GlobalAlloc for WipingAllocator<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's guarantees are those of the inner allocator.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above. Memory that is new from the kernel is zero already, and not touched.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller gives up a block of this size that was allocated here, so no other code reads or writes it. The
        // compiler must assume that the empty instruction reads memory, so the zeros are written before the block is freed.
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

    /// Checks the blocks that it gets back.
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
    fn freed_blocks_are_wiped() {
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
