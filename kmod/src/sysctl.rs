//! `net.inet.mobconn.flows` and `net.inet.mobconn.stats.*`, of the calling
//! thread's network stack.
//!
//! Context: process context; may sleep. The kernel waits for running handlers
//! before the module goes.

use crate::vnet::Instance;
use core::ffi::{c_int, c_void};
use mobconn_sys::{Errno, ffi, sysctl_handle_64};

/// Answers with `value` of the caller's network stack.
///
/// # Safety
/// Called with the arguments of a running sysctl handler.
unsafe fn answer(
    oid: *mut ffi::sysctl_oid,
    request: *mut ffi::sysctl_req,
    value: impl FnOnce(&Instance) -> Option<u64>,
) -> c_int {
    // SAFETY: the request is valid (contract).
    let thread = unsafe { (*request).td };
    // SAFETY: the requesting thread is the calling one.
    let value = unsafe { Instance::of_thread(thread) }.and_then(value);
    let Some(value) = value else { return ffi::ENXIO as c_int };
    // SAFETY: the handler's own arguments (contract).
    match unsafe { sysctl_handle_64(oid, value, request) } {
        Ok(()) => 0,
        Err(Errno(error)) => error,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mobconn_sysctl_flows(
    oid: *mut ffi::sysctl_oid,
    _arg1: *mut c_void,
    _arg2: isize,
    request: *mut ffi::sysctl_req,
) -> c_int {
    // SAFETY: called by sysctl(9).
    unsafe { answer(oid, request, |instance| Some(u64::from(instance.read(|control, _| control.len())))) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mobconn_sysctl_stat(
    oid: *mut ffi::sysctl_oid,
    _arg1: *mut c_void,
    arg2: isize,
    request: *mut ffi::sysctl_req,
) -> c_int {
    // SAFETY: called by sysctl(9).
    unsafe { answer(oid, request, |instance| instance.stats.fetch(usize::try_from(arg2).ok()?)) }
}
