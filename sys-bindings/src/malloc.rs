//! The global allocator over malloc(9).
//!
//! Context: any that malloc(9) with `M_NOWAIT` allows; it never sleeps, and
//! fails when memory is short. The packet path does not allocate.

use crate::ffi;
use core::alloc::{GlobalAlloc, Layout};

/// Alignment that malloc(9) gives to every allocation.
const MALLOC_ALIGN: usize = size_of::<*const ()>();
const PAGE: usize = ffi::PAGE_SIZE as usize;

/// A malloc type as global allocator.
pub struct Malloc(*mut ffi::malloc_type);

// SAFETY: a malloc type is made for use by all threads at once.
unsafe impl Sync for Malloc {}

impl Malloc {
    /// The allocator that accounts to `kind`.
    ///
    /// # Safety
    /// `kind` was defined by `MALLOC_DEFINE` in this module.
    #[must_use]
    pub const unsafe fn new(kind: *mut ffi::malloc_type) -> Self {
        Self(kind)
    }

    fn allocate(&self, layout: Layout, flags: u32) -> *mut u8 {
        let flags = (flags | ffi::M_NOWAIT) as i32;
        let memory = if layout.align() <= MALLOC_ALIGN || (layout.size() >= PAGE && layout.align() <= PAGE) {
            // From a page on, malloc(9) aligns to a page.
            // SAFETY: the type is valid (see `new`), and the layout's size is not 0 (`GlobalAlloc`).
            unsafe { ffi::malloc(layout.size(), self.0, flags) }
        } else if layout.align() <= PAGE {
            // SAFETY: as above, and the alignment is a power of two of at most a page.
            unsafe { ffi::malloc_aligned(layout.size(), layout.align(), self.0, flags) }
        } else {
            core::ptr::null_mut()
        };
        memory.cast()
    }
}

// SAFETY: malloc(9) returns memory of the size asked for, or null; `allocate`
// sees to the alignment.
unsafe impl GlobalAlloc for Malloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.allocate(layout, 0)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.allocate(layout, ffi::M_ZERO)
    }

    unsafe fn dealloc(&self, memory: *mut u8, _layout: Layout) {
        // SAFETY: it came from `allocate`, with this type, and is freed once (`GlobalAlloc`).
        unsafe { ffi::free(memory.cast(), self.0) };
    }
}
