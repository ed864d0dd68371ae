//! mtx(9), around the value that it protects.
//!
//! Context: anywhere but in an interrupt filter; a holder must not sleep.

use crate::{NoMemory, ffi, try_box};
use alloc::boxed::Box;
use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::mem::MaybeUninit;
use core::ops::{Deref, DerefMut};
use core::ptr::null;

/// A value under a lock whose holder does not sleep.
pub struct Mtx<T> {
    // In a box of its own, because the kernel keeps its address.
    lock: Box<UnsafeCell<ffi::mtx>>,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached through the lock only.
unsafe impl<T: Send> Sync for Mtx<T> {}
// SAFETY: nothing in it belongs to a thread.
unsafe impl<T: Send> Send for Mtx<T> {}

/// The lock is held while this lives.
pub struct MtxGuard<'a, T>(&'a Mtx<T>);

impl<T> Mtx<T> {
    /// `value` under a new lock; `name` is what witness(4) calls it.
    ///
    /// # Errors
    /// [`NoMemory`].
    pub fn new(value: T, name: &'static CStr) -> Result<Self, NoMemory> {
        let memory = try_box(UnsafeCell::new(MaybeUninit::<ffi::mtx>::zeroed()))?;
        let lock = Box::into_raw(memory).cast::<UnsafeCell<ffi::mtx>>();
        let word = word(lock);
        // SAFETY: the memory is an mtx's, zeroed, and stays where it is until `drop`.
        unsafe { ffi::_mtx_init(word, name.as_ptr(), null(), 0) };
        // SAFETY: it came from a box of the same size and alignment, and is initialised now.
        let lock = unsafe { Box::from_raw(lock) };
        Ok(Self { lock, value: UnsafeCell::new(value) })
    }

    /// Takes the lock.
    pub fn lock(&self) -> MtxGuard<'_, T> {
        // SAFETY: the lock was initialised by `new`.
        unsafe { ffi::__mtx_lock_flags(word(&raw const *self.lock), 0, c"mobconn".as_ptr(), 0) };
        MtxGuard(self)
    }
}

/// The kernel's functions take a pointer to the lock's word.
fn word(lock: *const UnsafeCell<ffi::mtx>) -> *mut usize {
    // SAFETY: within the lock's memory.
    unsafe { &raw mut (*UnsafeCell::raw_get(lock)).mtx_lock }.cast()
}

impl<T> Drop for Mtx<T> {
    fn drop(&mut self) {
        // SAFETY: initialised by `new`; `&mut self` says that no guard lives.
        unsafe { ffi::_mtx_destroy(word(&raw const *self.lock)) };
    }
}

impl<T> Deref for MtxGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the lock is held, so nobody else has a reference.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for MtxGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for MtxGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: this thread took the lock when it made the guard.
        unsafe { ffi::__mtx_unlock_flags(word(&raw const *self.0.lock), 0, c"mobconn".as_ptr(), 0) };
    }
}
