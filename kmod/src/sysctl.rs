//! The tree `net.inet.mobconn`.
//!
//! Context: process context; may sleep. The handlers answer for the calling
//! thread's network stack. The kernel waits for running handlers when the tree
//! is removed, which is before anything that they look at goes (`module`).

use crate::module::{FORCE_UNLOAD, GRACE, MAX_FLOWS, UDP_IDLE};
use crate::text::Line;
use crate::vnet::Instance;
use core::ffi::{c_int, c_void};
use mobconn_abi::Counter;
use mobconn_sys::{Errno, SysctlCtx, SysctlParent, ffi, sysctl_handle_64};

/// Fills `tree` with the nodes; `max_flows` takes its value from the kernel
/// environment.
///
/// # Errors
/// `EEXIST` when somebody else has such nodes.
pub(crate) fn add(tree: &mut SysctlCtx) -> Result<(), Errno> {
    let about = c"Connections that survive a move between networks";
    let top = tree.add_node(SysctlParent::net_inet(), c"mobconn", about)?;
    let about = c"Most bindings that the table of a network stack takes";
    tree.add_uint(top, c"max_flows", about, ffi::CTLFLAG_RDTUN, &MAX_FLOWS)?;
    let about = c"Seconds for which the old address is accepted after a move";
    tree.add_uint(top, c"grace", about, ffi::CTLFLAG_RWTUN, &GRACE)?;
    let about = c"Seconds after which an unused UDP binding ends; 0: never";
    tree.add_uint(top, c"udp_idle", about, ffi::CTLFLAG_RWTUN, &UDP_IDLE)?;
    let about = c"Let the module be unloaded although bindings live";
    tree.add_uint(top, c"force_unload", about, ffi::CTLFLAG_RW, &FORCE_UNLOAD)?;
    // SAFETY: `flows` is a handler.
    unsafe { tree.add_u64(top, c"flows", c"Bindings now", 0, flows) }?;

    let stats = tree.add_node(top, c"stats", c"What happened to packets and bindings")?;
    for counter in Counter::ALL {
        let name = Line::new(format_args!("{}", counter.name()));
        let about = Line::new(format_args!("{}", counter.description()));
        // SAFETY: `stat` is a handler.
        unsafe { tree.add_u64(stats, name.as_c_str(), about.as_c_str(), *counter as usize, stat) }?;
    }
    Ok(())
}

/// Answers with `value` of the caller's network stack.
///
/// # Safety
/// Called with the arguments of a running handler.
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

/// # Safety
/// Called by sysctl(9).
unsafe extern "C" fn flows(
    oid: *mut ffi::sysctl_oid,
    _argument: *mut c_void,
    _number: ffi::intmax_t,
    request: *mut ffi::sysctl_req,
) -> c_int {
    // SAFETY: as called.
    unsafe { answer(oid, request, |instance| Some(u64::from(instance.read(|control, _| control.len())))) }
}

/// # Safety
/// Called by sysctl(9); `number` is that of a counter.
unsafe extern "C" fn stat(
    oid: *mut ffi::sysctl_oid,
    _argument: *mut c_void,
    number: ffi::intmax_t,
    request: *mut ffi::sysctl_req,
) -> c_int {
    // SAFETY: as called.
    unsafe { answer(oid, request, |instance| instance.stats.fetch(usize::try_from(number).ok()?)) }
}
