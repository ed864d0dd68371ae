//! sx(9), exclusive only, around the value that it protects.
//!
//! Context: process context; a holder may sleep, and may allocate.

use crate::{NoMemory, ffi, try_box};
use alloc::boxed::Box;
use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::mem::MaybeUninit;
use core::ops::{Deref, DerefMut};

/// A value under a sleepable lock.
pub struct Sx<T> {
    // In a box of its own, because the kernel keeps its address.
    lock: Box<UnsafeCell<ffi::sx>>,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached through the lock only.
unsafe impl<T: Send> Sync for Sx<T> {}
// SAFETY: nothing in it belongs to a thread.
unsafe impl<T: Send> Send for Sx<T> {}

/// The lock is held while this lives.
pub struct SxGuard<'a, T>(&'a Sx<T>);

impl<T> Sx<T> {
    /// `value` under a new lock; `name` is what witness(4) and procstat(1) call it.
    ///
    /// # Errors
    /// [`NoMemory`].
    pub fn new(value: T, name: &'static CStr) -> Result<Self, NoMemory> {
        let memory = try_box(UnsafeCell::new(MaybeUninit::<ffi::sx>::zeroed()))?;
        let lock = Box::into_raw(memory).cast::<UnsafeCell<ffi::sx>>();
        // SAFETY: the memory is an sx's, zeroed, and stays where it is until `drop`.
        unsafe { ffi::sx_init_flags(lock.cast(), name.as_ptr(), 0) };
        // SAFETY: it came from a box of the same size and alignment, and is initialised now.
        let lock = unsafe { Box::from_raw(lock) };
        Ok(Self { lock, value: UnsafeCell::new(value) })
    }

    /// Takes the lock; sleeps while another thread has it.
    pub fn xlock(&self) -> SxGuard<'_, T> {
        // SAFETY: the lock was initialised by `new`; process context, so it may sleep.
        unsafe { ffi::_sx_xlock(self.lock.get(), 0, c"mobconn".as_ptr(), 0) };
        SxGuard(self)
    }
}

impl<T> Drop for Sx<T> {
    fn drop(&mut self) {
        // SAFETY: initialised by `new`; `&mut self` says that no guard lives.
        unsafe { ffi::sx_destroy(self.lock.get()) };
    }
}

impl<T> Deref for SxGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the lock is held, so nobody else has a reference.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for SxGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for SxGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: this thread took the lock when it made the guard.
        unsafe { ffi::_sx_xunlock(self.0.lock.get(), c"mobconn".as_ptr(), 0) };
    }
}
