//! How much of the kernel's stack module code uses.
//!
//! A kernel stack is four pages, and the layers above a hook have used some of it. Here stacks are large, so what a
//! module uses is measured: every entry point of the kernel notes the lowest stack pointer it was called with, in a
//! cell of the CPU's page. What a module does below its deepest call is not seen; a guard looks at frames for that.

use crate::complaint::complain;
use crate::layout::Pcpu;
use crate::memory::PAGE;
use crate::thread;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Offset of the cell from `%gs`: the end of the CPU's page, which is padding of `struct pcpu`.
pub(crate) const CELL: usize = PAGE - 8;
const _: () = assert!(Pcpu::SIZE == PAGE);

/// Most bytes that module code may have on the stack when it calls the kernel: 6 of 16 KiB. Code that a sanitizer
/// instruments has larger frames.
const MOST: usize = if cfg!(any(feature = "address", feature = "thread")) { 64 * 1024 } else { 6 * 1024 };

static DEEPEST: AtomicUsize = AtomicUsize::new(0);

/// The most that any module call used so far.
pub(crate) fn deepest() -> usize {
    DEEPEST.load(Ordering::Relaxed)
}

fn cell(cpu: usize) -> *mut usize {
    (crate::counter::base() + cpu * PAGE + CELL) as *mut usize
}

/// The stack pointer, about.
#[inline(always)]
fn here() -> usize {
    let marker = 0_u8;
    std::ptr::from_ref(std::hint::black_box(&marker)) as usize
}

/// Runs a call into module code and looks how deep it went.
#[inline]
pub(crate) fn watched<R>(f: impl FnOnce() -> R) -> R {
    let cpu = thread::current(|thread| thread.cpu);
    let start = here();
    // SAFETY: the cell of this thread's own CPU, which only it and entry points that it calls access.
    let outer = unsafe { cell(cpu).replace(usize::MAX) };
    let result = f();
    // SAFETY: as above.
    let lowest = unsafe { cell(cpu).replace(outer.min(start)) };
    let used = start.saturating_sub(lowest);
    if used > DEEPEST.load(Ordering::Relaxed) {
        DEEPEST.fetch_max(used, Ordering::Relaxed);
        if used > MOST {
            complain!("module code has {used} bytes on the stack, of 16384 that a kernel thread has for everything");
        }
    }
    result
}
