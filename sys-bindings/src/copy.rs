//! copy(9): user memory, always as plain bytes.
//!
//! Context: process context; may fault and sleep; sx(9) locks may be held.

use crate::{Errno, ffi};

/// Reads `to.len()` bytes at the user address `from`.
///
/// # Errors
/// `EFAULT`.
pub fn copyin(from: u64, to: &mut [u8]) -> Result<(), Errno> {
    let from = core::ptr::without_provenance(from as usize);
    // SAFETY: `to` is writable for its length; copyin(9) checks the user address.
    Errno::check(unsafe { ffi::copyin(from, to.as_mut_ptr().cast(), to.len()) })
}

/// Writes `from` to the user address `to`.
///
/// # Errors
/// `EFAULT`.
pub fn copyout(from: &[u8], to: u64) -> Result<(), Errno> {
    let to = core::ptr::without_provenance_mut(to as usize);
    // SAFETY: `from` is readable for its length; copyout(9) checks the user address.
    Errno::check(unsafe { ffi::copyout(from.as_ptr().cast(), to, from.len()) })
}
