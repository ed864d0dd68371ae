//! Events, read from `/dev/mobconn`.
//!
//! Context: process context; may sleep. Everything that happens in a table
//! happens there too: what the packet path finds, a task looks into (`vnet`).
//! So the journal is under the writers' lock, and no packet waits for a reader.
//!
//! A descriptor reads the journal of the network stack in which it was opened,
//! which the descriptor's credentials keep alive, and only threads of that
//! stack may use it so. It begins to watch with its first read, poll or kevent:
//! the many that are opened for a single ioctl(2) cost the table nothing.

use crate::convert::event;
use crate::refusal::Refusal;
use crate::vnet::Instance;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use mobconn_abi::{Event, READERS_MAX};
use mobconn_engine::JOURNAL_PLACES;
use mobconn_sys::{Bell, CdevPriv, Errno, bells_close, ffi, priv_check, try_box, uio_resid, uiomove};
use zerocopy::IntoBytes;

/// Events that are copied at a time.
const CHUNK: usize = 32;

/// What a descriptor has of its own.
struct Reader {
    // First, so that nobody waits any more when the place goes.
    bell: Bell,
    place: Box<Place>,
}

/// How far a descriptor has come.
struct Place {
    instance: &'static Instance,
    watching: AtomicBool,
    /// Number of the event to be read next; changed under the writers' lock.
    position: AtomicU64,
}

impl Place {
    /// Bytes that there are to read. Anywhere.
    fn ready(&self) -> i64 {
        if !self.watching.load(Ordering::Acquire) {
            return 0;
        }
        let behind = self.instance.told().saturating_sub(self.position.load(Ordering::Acquire));
        let events = behind.min(JOURNAL_PLACES as u64);
        events.saturating_mul(size_of::<Event>() as u64).cast_signed()
    }

    /// The next events, at most `room`, and goes on behind them.
    fn take(&self, room: usize) -> Result<Vec<Event>, Refusal> {
        let mut events = Vec::new();
        events.try_reserve_exact(room.min(CHUNK)).map_err(|_| Refusal::NoMemory)?;
        self.instance.read(|control, _| {
            let journal = control.journal();
            let mut position = self.position.load(Ordering::Relaxed);
            while events.len() < room.min(CHUNK) {
                let next = position.max(journal.oldest());
                let Some(entry) = journal.get(next) else { break };
                events.push(event(entry, next, next.saturating_sub(position)));
                position = next.saturating_add(1);
            }
            self.position.store(position, Ordering::Release);
        });
        Ok(events)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if *self.watching.get_mut() {
            self.instance.change(|control, _| control.unwatch());
        }
    }
}

unsafe extern "C" fn ready(context: *mut c_void) -> i64 {
    // SAFETY: the bell's place, which outlives it.
    let place = unsafe { &*context.cast::<Place>() };
    place.ready()
}

/// The reader of the descriptor in use, watching from now on at the latest.
///
/// # Safety
/// `thread` is the calling thread, in a function of the device.
unsafe fn watching<'a>(thread: *mut ffi::thread) -> Result<&'a Reader, Refusal> {
    // SAFETY: as called.
    unsafe { priv_check(thread, ffi::PRIV_NETINET_PF) }?;
    // SAFETY: only `mobconn_open` sets it, to a reader.
    let reader: &Reader = unsafe { CdevPriv::get() }.map_err(|_| Refusal::Absent)?;
    // SAFETY: as called.
    let instance = unsafe { Instance::of_thread(thread) }.ok_or(Refusal::Absent)?;
    let place = &*reader.place;
    if !core::ptr::eq(instance, place.instance) {
        return Err(Refusal::Foreign);
    }
    if !place.watching.load(Ordering::Acquire) {
        instance.change(|control, _| {
            if place.watching.load(Ordering::Relaxed) {
                return Ok(());
            }
            if control.journal().watchers() >= READERS_MAX {
                return Err(Refusal::Readers);
            }
            let position = control.watch().ok_or(Refusal::NoMemory)?;
            place.position.store(position, Ordering::Relaxed);
            place.watching.store(true, Ordering::Release);
            Ok(())
        })?;
    }
    Ok(reader)
}

/// `FIONREAD`.
///
/// # Safety
/// `thread` is the calling thread, in `d_ioctl`.
pub(crate) unsafe fn ready_bytes(thread: *mut ffi::thread) -> Result<c_int, Refusal> {
    // SAFETY: as called.
    let reader = unsafe { watching(thread) }?;
    Ok(c_int::try_from(reader.place.ready()).unwrap_or(c_int::MAX))
}

/// # Safety
/// `thread` is the calling thread, in `d_open`.
unsafe fn open(thread: *mut ffi::thread) -> Result<(), Refusal> {
    // SAFETY: as called.
    let Some(instance) = (unsafe { Instance::of_thread::<'static>(thread) }) else {
        // Each command says so.
        return Ok(());
    };
    let place = try_box(Place { instance, watching: AtomicBool::new(false), position: AtomicU64::new(0) })?;
    let context = (&raw const *place).cast_mut().cast();
    // SAFETY: the place goes after the bell.
    let bell = unsafe { Bell::new(instance.name(), ready, context) }?;
    Ok(CdevPriv::set(try_box(Reader { bell, place })?)?)
}

/// # Safety
/// `uio` and `thread` are those of a running `d_read`.
unsafe fn read(uio: *mut ffi::uio, may_wait: bool, thread: *mut ffi::thread) -> Result<(), Refusal> {
    // SAFETY: as called.
    let reader = unsafe { watching(thread) }?;
    // SAFETY: as called.
    let left = || unsafe { uio_resid(uio) }.div_euclid(size_of::<Event>());
    if left() == 0 {
        return Err(Refusal::Invalid);
    }
    let mut any = false;
    loop {
        let mut events = reader.place.take(left())?;
        if events.is_empty() {
            if any {
                return Ok(());
            }
            if !may_wait {
                return Err(Refusal::Nothing);
            }
            reader.bell.wait()?;
            continue;
        }
        // SAFETY: as called.
        unsafe { uiomove(events.as_mut_bytes(), uio) }?;
        any = true;
        if left() == 0 {
            return Ok(());
        }
    }
}

fn errno(result: Result<(), Refusal>) -> c_int {
    match result {
        Ok(()) => 0,
        // As it is: a signal's value is negative.
        Err(Refusal::Kernel(Errno(value))) => value,
        Err(refusal) => refusal.errno() as c_int,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mobconn_open(_: *mut ffi::cdev, _flags: c_int, _kind: c_int, thread: *mut ffi::thread) -> c_int {
    // SAFETY: the kernel passes the calling thread.
    errno(unsafe { open(thread) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mobconn_read(_: *mut ffi::cdev, uio: *mut ffi::uio, flags: c_int) -> c_int {
    // SAFETY: of this call.
    let thread = unsafe { (*uio).uio_td };
    let may_wait = flags & ffi::O_NONBLOCK as c_int == 0;
    // SAFETY: as passed by the kernel.
    errno(unsafe { read(uio, may_wait, thread) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mobconn_poll(_: *mut ffi::cdev, events: c_int, thread: *mut ffi::thread) -> c_int {
    // SAFETY: the kernel passes the calling thread.
    match unsafe { watching(thread) } {
        // SAFETY: as above.
        Ok(reader) => unsafe { reader.bell.poll(events, thread) },
        // A read says why.
        Err(_) => events & (ffi::POLLIN | ffi::POLLRDNORM) as c_int,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mobconn_kqfilter(_: *mut ffi::cdev, note: *mut ffi::knote) -> c_int {
    // SAFETY: reads the calling thread's own state.
    let thread = unsafe { ffi::mobconn_curthread() };
    // SAFETY: the calling thread.
    let reader = unsafe { watching(thread) };
    // SAFETY: the note of this call; the descriptor holds the bell.
    errno(reader.and_then(|reader| Ok(unsafe { reader.bell.kqfilter(note) }?)))
}

/// The device goes: whoever sleeps in a read must come out.
#[unsafe(no_mangle)]
unsafe extern "C" fn mobconn_purge(_: *mut ffi::cdev) {
    bells_close();
}
