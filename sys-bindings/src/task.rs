//! taskqueue(9): work for a kernel thread that may sleep.
//!
//! Context: enqueueing anywhere, also in the network epoch; stopping in
//! process context, outside it.
//!
//! FreeBSD destroys the network stack of a jail on the queue's own thread when
//! the last reference to the jail goes where nobody may sleep. There
//! taskqueue_drain(9) of a task that is queued waits for itself. So what is
//! queued is taken off first; what runs then is on another thread.

use crate::{NoMemory, ffi, try_box};
use alloc::boxed::Box;
use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use core::ptr::null_mut;

/// What a task runs: its context, and how often it was enqueued since.
pub type TaskFn = unsafe extern "C" fn(*mut c_void, c_int);

fn thread_queue() -> *mut ffi::taskqueue {
    // SAFETY: the kernel makes the queue before it starts modules, and never changes it.
    unsafe { ffi::taskqueue_thread }
}

/// Work to be done soon.
pub struct Task(Box<UnsafeCell<MaybeUninit<ffi::task>>>);

// SAFETY: the kernel locks the queue that a task is on.
unsafe impl Sync for Task {}
// SAFETY: as above.
unsafe impl Send for Task {}

impl Task {
    /// Work that is not yet to be done.
    ///
    /// # Safety
    /// `context` is what `function` takes, until the task is dropped.
    ///
    /// # Errors
    /// [`NoMemory`].
    pub unsafe fn new(function: TaskFn, context: *mut c_void) -> Result<Self, NoMemory> {
        let task = Self(try_box(UnsafeCell::new(MaybeUninit::zeroed()))?);
        // SAFETY: memory of a task's, which stays where it is.
        unsafe { ffi::mobconn_task_init(task.0.get().cast(), Some(function), context) };
        Ok(task)
    }

    /// taskqueue_enqueue(9) on the thread queue.
    pub fn enqueue(&self) {
        // SAFETY: initialised by `new`.
        unsafe { ffi::taskqueue_enqueue(thread_queue(), self.0.get().cast()) };
    }

    /// Takes it off the queue, and waits until it does not run. Also in a task.
    pub fn stop(&self) {
        let task = self.0.get().cast();
        // SAFETY: as above; the number of times is not asked for.
        while unsafe { ffi::taskqueue_cancel(thread_queue(), task, null_mut()) } != 0 {
            // SAFETY: as above; process context, and another thread runs it.
            unsafe { ffi::taskqueue_drain(thread_queue(), task) };
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Work to be done some time later.
pub struct TimeoutTask(Box<UnsafeCell<MaybeUninit<ffi::timeout_task>>>);

// SAFETY: as for `Task`.
unsafe impl Sync for TimeoutTask {}
// SAFETY: as for `Task`.
unsafe impl Send for TimeoutTask {}

impl TimeoutTask {
    /// Work that is not yet to be done.
    ///
    /// # Safety
    /// As for [`Task::new`].
    ///
    /// # Errors
    /// [`NoMemory`].
    pub unsafe fn new(function: TaskFn, context: *mut c_void) -> Result<Self, NoMemory> {
        let task = Self(try_box(UnsafeCell::new(MaybeUninit::zeroed()))?);
        // SAFETY: memory of a timeout task's, which stays where it is.
        unsafe { ffi::mobconn_timeout_task_init(task.0.get().cast(), Some(function), context) };
        Ok(task)
    }

    /// taskqueue_enqueue_timeout(9): to be done in so many seconds. Does
    /// nothing if it is to be done already.
    pub fn enqueue_in(&self, seconds: u16) {
        let hz = &raw const ffi::hz;
        // SAFETY: set when the kernel booted.
        let hz = unsafe { hz.read() };
        let ticks = hz.saturating_mul(c_int::from(seconds));
        // SAFETY: initialised by `new`.
        unsafe { ffi::taskqueue_enqueue_timeout(thread_queue(), self.0.get().cast(), ticks) };
    }

    /// Ends its timeout, takes it off the queue, and waits until it does not
    /// run. Also in a task.
    pub fn stop(&self) {
        let task = self.0.get().cast();
        // SAFETY: as above; the number of times is not asked for.
        while unsafe { ffi::taskqueue_cancel_timeout(thread_queue(), task, null_mut()) } != 0 {
            // SAFETY: as above; process context, and another thread runs it.
            unsafe { ffi::taskqueue_drain_timeout(thread_queue(), task) };
        }
    }
}

impl Drop for TimeoutTask {
    fn drop(&mut self) {
        self.stop();
    }
}
