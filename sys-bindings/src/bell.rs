//! Where readers of a device wait: msleep(9), selrecord(9), kqueue(9).
//!
//! Context: process context; waiting sleeps, the rest does not.

use crate::{Errno, NoMemory, ffi, try_box};
use alloc::boxed::Box;
use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;

/// Wakes those who wait at a bell of the group and have something to read.
pub fn bells_ring(group: usize) {
    // SAFETY: the bells are under a lock, and the group is a number.
    unsafe { ffi::mobconn_bells_ring(group) };
}

/// Sends those who sleep at any bell home, now and later, with `ENXIO`.
pub fn bells_close() {
    // SAFETY: as above.
    unsafe { ffi::mobconn_bells_close() };
}

/// Says how many bytes there are to read. Called with the bell's lock held: it
/// looks at its context only.
pub type BellReady = unsafe extern "C" fn(*mut c_void) -> i64;

/// Where the readers of one descriptor wait; on drop nobody waits any more.
pub struct Bell(Box<UnsafeCell<MaybeUninit<ffi::mobconn_bell>>>);

// SAFETY: it has a lock of its own.
unsafe impl Sync for Bell {}
// SAFETY: as above.
unsafe impl Send for Bell {}

impl Bell {
    /// A bell of the group with this name.
    ///
    /// # Safety
    /// `context` is what `ready` takes, until the bell is dropped.
    ///
    /// # Errors
    /// [`NoMemory`].
    pub unsafe fn new(group: usize, ready: BellReady, context: *mut c_void) -> Result<Self, NoMemory> {
        let bell = Self(try_box(UnsafeCell::new(MaybeUninit::zeroed()))?);
        // SAFETY: zeroed memory of a bell's, which stays where it is.
        unsafe { ffi::mobconn_bell_init(bell.at(), group, Some(ready), context) };
        Ok(bell)
    }

    fn at(&self) -> *mut ffi::mobconn_bell {
        self.0.get().cast()
    }

    /// Sleeps until there is something to read.
    ///
    /// # Errors
    /// `EINTR` or `ERESTART` for a signal, `ENXIO` when the bell was closed.
    pub fn wait(&self) -> Result<(), Errno> {
        // SAFETY: initialised by `new`; process context.
        Errno::check(unsafe { ffi::mobconn_bell_wait(self.at()) })
    }

    /// For `d_poll`: which of `events` there are; has the thread woken when
    /// some come, if there are none.
    ///
    /// # Safety
    /// `thread` is the calling thread, in `d_poll`.
    #[must_use]
    pub unsafe fn poll(&self, events: c_int, thread: *mut ffi::thread) -> c_int {
        // SAFETY: as called.
        unsafe { ffi::mobconn_bell_poll(self.at(), events, thread) }
    }

    /// For `d_kqfilter`.
    ///
    /// # Safety
    /// `note` is the argument of `d_kqfilter`, and the descriptor's private
    /// data holds this bell.
    ///
    /// # Errors
    /// `EINVAL` for another filter than `EVFILT_READ`.
    pub unsafe fn kqfilter(&self, note: *mut ffi::knote) -> Result<(), Errno> {
        // SAFETY: as called.
        Errno::check(unsafe { ffi::mobconn_bell_kqfilter(self.at(), note) })
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        // SAFETY: initialised by `new`, and no function of the device runs on it.
        unsafe { ffi::mobconn_bell_destroy(self.at()) };
    }
}
