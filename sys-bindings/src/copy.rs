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

/// Bytes that the reader of a device still takes.
///
/// # Safety
/// `uio` is the argument of `d_read`.
#[must_use]
pub unsafe fn uio_resid(uio: *const ffi::uio) -> usize {
    // SAFETY: as called.
    unsafe { ffi::mobconn_uio_resid(uio) }
}

/// uiomove(9): gives `from` to the reader of a device.
///
/// # Safety
/// `uio` is the argument of `d_read`.
///
/// # Errors
/// `EFAULT`.
pub unsafe fn uiomove(from: &mut [u8], uio: *mut ffi::uio) -> Result<(), Errno> {
    let length = core::ffi::c_int::try_from(from.len()).map_err(|_| Errno(ffi::EINVAL as core::ffi::c_int))?;
    // SAFETY: `from` is readable for its length; the uio is the kernel's own (contract).
    Errno::check(unsafe { ffi::uiomove(from.as_mut_ptr().cast(), length, uio) })
}
