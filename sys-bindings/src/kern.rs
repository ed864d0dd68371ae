//! Small things: time, random numbers, the log, privileges, sysctl, the end.

use crate::{Errno, ffi};
use core::ffi::{CStr, c_int};

/// Seconds since boot. Anywhere.
#[must_use]
#[inline]
pub fn time_uptime() -> u32 {
    let clock = &raw const ffi::time_uptime;
    // SAFETY: an aligned word that the kernel's clock writes whole.
    let seconds = unsafe { clock.read_volatile() };
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// Microseconds since boot. Anywhere.
#[must_use]
pub fn microuptime() -> u64 {
    // SAFETY: reads the clock.
    unsafe { ffi::mobconn_microuptime() }
}

/// `__FreeBSD_version` of the running kernel. Anywhere.
#[must_use]
pub fn osreldate() -> c_int {
    // SAFETY: a constant of the kernel's.
    unsafe { ffi::osreldate }
}

/// Bytes of memory that the machine has. Anywhere.
#[must_use]
pub fn physical_memory() -> u64 {
    // SAFETY: a constant of the kernel's once it has booted, in pages.
    let pages = unsafe { ffi::physmem };
    u64::try_from(pages).unwrap_or(0).saturating_mul(u64::from(ffi::PAGE_SIZE))
}

/// Fills `buffer` with random bytes. Anywhere.
pub fn arc4random_buf(buffer: &mut [u8]) {
    // SAFETY: the buffer is writable for its length.
    unsafe { ffi::arc4random_buf(buffer.as_mut_ptr().cast(), buffer.len()) };
}

/// Waits until every packet that is in a hook now has left it. Sleeps.
pub fn net_epoch_wait() {
    // SAFETY: process context, outside the network epoch.
    unsafe { ffi::mobconn_net_epoch_wait() };
}

/// Level of a line in the system log, see syslog(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Something does not work.
    Error,
    /// Something is odd.
    Warning,
    /// For the record.
    Info,
}

/// Writes one line to the system log. Anywhere.
pub fn log(level: LogLevel, line: &CStr) {
    let level = match level {
        LogLevel::Error => ffi::LOG_ERR,
        LogLevel::Warning => ffi::LOG_WARNING,
        LogLevel::Info => ffi::LOG_INFO,
    };
    // SAFETY: a string.
    unsafe { ffi::mobconn_log(level as c_int, line.as_ptr()) };
}

/// panic(9).
pub fn panic(message: &CStr) -> ! {
    // SAFETY: the format takes one string.
    unsafe { ffi::panic(c"mobconn: %s".as_ptr(), message.as_ptr()) }
}

/// priv_check(9) for a thread.
///
/// # Safety
/// `thread` is the calling thread.
///
/// # Errors
/// `EPERM`.
pub unsafe fn priv_check(thread: *mut ffi::thread, privilege: u32) -> Result<(), Errno> {
    // SAFETY: the thread is the caller's own (contract).
    Errno::check(unsafe { ffi::priv_check(thread, privilege as c_int) })
}

/// Answers a read-only sysctl(9) request with `value`.
///
/// # Safety
/// `oid` and `request` are the ones that the handler was called with.
///
/// # Errors
/// What the copy to user memory says.
pub unsafe fn sysctl_handle_64(
    oid: *mut ffi::sysctl_oid,
    mut value: u64,
    request: *mut ffi::sysctl_req,
) -> Result<(), Errno> {
    // SAFETY: the handler's own arguments (contract), and a local of 64 bits.
    Errno::check(unsafe { ffi::sysctl_handle_64(oid, (&raw mut value).cast(), 0, request) })
}
