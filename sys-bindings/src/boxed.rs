//! Boxes that may fail.

use crate::NoMemory;
use alloc::alloc::{Layout, alloc};
use alloc::boxed::Box;

/// `Box::new` that reports short memory instead of stopping the machine.
///
/// # Errors
/// [`NoMemory`].
pub fn try_box<T>(value: T) -> Result<Box<T>, NoMemory> {
    let layout = Layout::new::<T>();
    assert!(layout.size() != 0, "a box of nothing needs no memory");
    // SAFETY: the size is not zero.
    let memory = unsafe { alloc(layout) }.cast::<T>();
    if memory.is_null() {
        return Err(NoMemory);
    }
    // SAFETY: the memory is new, and large and aligned enough for a `T`.
    unsafe { memory.write(value) };
    // SAFETY: it came from the global allocator with the layout of `T` and holds a `T`.
    Ok(unsafe { Box::from_raw(memory) })
}
