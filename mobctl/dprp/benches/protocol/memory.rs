//! Counts what is allocated now.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Counts bytes as malloc(3) spends them: 8 of its own for each block, in steps of 16, at least 32.
struct Counting;
static BYTES: AtomicUsize = AtomicUsize::new(0);

const fn spent(layout: Layout) -> usize {
    let block = (layout.size() + 8).next_multiple_of(16);
    if block < 32 { 32 } else { block }
}

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(spent(layout), Relaxed);
        // SAFETY: the caller's own promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        BYTES.fetch_sub(spent(layout), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes allocated now.
pub(crate) fn now() -> usize {
    BYTES.load(Relaxed)
}
