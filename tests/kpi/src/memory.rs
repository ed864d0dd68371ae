//! Address space: reservations, and memory below 2 GiB where a module's 32-bit relocations reach.

use std::sync::Mutex;

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;

/// Reserves zeroed memory of at least `length` bytes; below 2 GiB if `low`.
pub(crate) fn reserve(length: usize, low: bool) -> usize {
    let low = if low { libc::MAP_32BIT } else { 0 };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | low;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    assert!(at != libc::MAP_FAILED, "mmap of {length} bytes: {}", std::io::Error::last_os_error());
    at as usize
}

/// Changes what may be done with whole pages: a combination of `PROT_READ`, `PROT_WRITE`, `PROT_EXEC`.
pub(crate) fn protect(at: usize, length: usize, protection: libc::c_int) {
    // SAFETY: only called on reservations, by their owner; nothing of Rust's lives there.
    let result = unsafe { libc::mprotect(at as *mut libc::c_void, length, protection) };
    assert!(result == 0, "mprotect: {}", std::io::Error::last_os_error());
}

/// Low memory that lasts until the process ends: the kernel's variables and the entry points of its functions.
#[derive(Debug)]
pub(crate) struct LowHeap {
    next: usize,
    end: usize,
}

/// The one low heap.
pub(crate) static LOW: Mutex<LowHeap> = Mutex::new(LowHeap { next: 0, end: 0 });

impl LowHeap {
    /// `length` zeroed bytes at a multiple of `align`.
    pub(crate) fn take(&mut self, length: usize, align: usize) -> usize {
        let mut at = self.next.next_multiple_of(align);
        if self.next == 0 || at + length > self.end {
            let chunk = (length + align).next_multiple_of(256 * PAGE);
            self.next = reserve(chunk, true);
            self.end = self.next + chunk;
            at = self.next.next_multiple_of(align);
            protect(self.next, chunk, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC);
        }
        self.next = at + length;
        at
    }
}
