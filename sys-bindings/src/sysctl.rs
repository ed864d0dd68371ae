//! sysctl_ctx_init(9): nodes made at run time. Unlike the static nodes of a
//! module, whose handlers may still run when the module is gone, these are
//! waited for when they are removed.
//!
//! Context: process context; adding, removing and handlers may sleep.

use crate::{Errno, NoMemory, ffi, try_box};
use alloc::boxed::Box;
use core::cell::UnsafeCell;
use core::ffi::{CStr, c_int, c_void};
use core::mem::MaybeUninit;
use core::sync::atomic::AtomicU32;

/// A handler, as sysctl(9) calls it.
pub type SysctlHandler =
    unsafe extern "C" fn(*mut ffi::sysctl_oid, *mut c_void, ffi::intmax_t, *mut ffi::sysctl_req) -> c_int;

/// Where nodes hang.
#[derive(Clone, Copy)]
pub struct SysctlParent(*mut ffi::sysctl_oid_list);

impl SysctlParent {
    /// `net.inet`.
    #[must_use]
    pub fn net_inet() -> Self {
        // SAFETY: gives the address of a static of the kernel.
        Self(unsafe { ffi::mobconn_sysctl_net_inet() })
    }
}

/// What sysctl_add_oid(9) wants.
struct SysctlLeaf<'a> {
    name: &'a CStr,
    description: &'a CStr,
    kind: u32,
    argument: *mut c_void,
    number: usize,
    handler: Option<SysctlHandler>,
    format: &'static CStr,
}

/// Nodes that are removed on drop, after the handlers that run have returned.
pub struct SysctlCtx {
    // In a box, because the kernel keeps its address.
    list: Box<UnsafeCell<ffi::sysctl_ctx_list>>,
}

// SAFETY: the nodes belong to no thread, and the kernel locks them.
unsafe impl Send for SysctlCtx {}

impl SysctlCtx {
    /// No nodes yet.
    ///
    /// # Errors
    /// [`NoMemory`].
    pub fn new() -> Result<Self, NoMemory> {
        let memory = try_box(UnsafeCell::new(MaybeUninit::<ffi::sysctl_ctx_list>::zeroed()))?;
        let list = Box::into_raw(memory).cast::<UnsafeCell<ffi::sysctl_ctx_list>>();
        // SAFETY: the memory is a list's, and stays where it is until `drop`.
        unsafe { ffi::sysctl_ctx_init(list.cast()) };
        // SAFETY: it came from a box of the same size and alignment, and is initialised now.
        Ok(Self { list: unsafe { Box::from_raw(list) } })
    }

    /// # Safety
    /// `leaf.handler` may be called with `leaf.argument` until the node is removed.
    unsafe fn add(&mut self, parent: SysctlParent, leaf: &SysctlLeaf<'_>) -> Result<*mut ffi::sysctl_oid, Errno> {
        // SAFETY: the kernel copies name and description; the rest is the contract.
        let oid = unsafe {
            ffi::sysctl_add_oid(
                self.list.get(),
                parent.0,
                ffi::OID_AUTO,
                leaf.name.as_ptr(),
                leaf.kind as c_int,
                leaf.argument,
                leaf.number as ffi::intmax_t,
                leaf.handler,
                leaf.format.as_ptr(),
                leaf.description.as_ptr(),
                core::ptr::null(),
            )
        };
        if oid.is_null() { Err(Errno(ffi::EEXIST as c_int)) } else { Ok(oid) }
    }

    /// Adds a folder of nodes.
    ///
    /// # Errors
    /// `EEXIST`.
    pub fn add_node(&mut self, parent: SysctlParent, name: &CStr, description: &CStr) -> Result<SysctlParent, Errno> {
        let leaf = SysctlLeaf {
            name,
            description,
            kind: ffi::CTLTYPE_NODE | ffi::CTLFLAG_RD | ffi::CTLFLAG_MPSAFE,
            argument: core::ptr::null_mut(),
            number: 0,
            handler: None,
            format: c"N",
        };
        // SAFETY: no handler.
        let oid = unsafe { self.add(parent, &leaf) }?;
        // SAFETY: the node was just made, and lives as long as `self`.
        Ok(SysctlParent(unsafe { &raw mut (*oid).oid_children }))
    }

    /// Adds a 32-bit value; `access` is `CTLFLAG_RDTUN` or `CTLFLAG_RW`. A
    /// tunable takes its value from the kernel environment at once.
    ///
    /// # Errors
    /// `EEXIST`.
    pub fn add_uint(
        &mut self,
        parent: SysctlParent,
        name: &CStr,
        description: &CStr,
        access: u32,
        value: &'static AtomicU32,
    ) -> Result<(), Errno> {
        let leaf = SysctlLeaf {
            name,
            description,
            kind: ffi::CTLTYPE_UINT | access | ffi::CTLFLAG_MPSAFE,
            argument: value.as_ptr().cast(),
            number: 0,
            handler: Some(ffi::sysctl_handle_int),
            format: c"IU",
        };
        // SAFETY: the kernel's handler for a word, and a word that lives for ever.
        unsafe { self.add(parent, &leaf) }.map(drop)
    }

    /// Adds a read-only 64-bit value of the reader's vnet, which `handler`
    /// makes from `number`.
    ///
    /// # Safety
    /// `handler` keeps to [`SysctlHandler`].
    ///
    /// # Errors
    /// `EEXIST`.
    pub unsafe fn add_u64(
        &mut self,
        parent: SysctlParent,
        name: &CStr,
        description: &CStr,
        number: usize,
        handler: SysctlHandler,
    ) -> Result<(), Errno> {
        let leaf = SysctlLeaf {
            name,
            description,
            kind: ffi::CTLTYPE_U64 | ffi::CTLFLAG_RD | ffi::CTLFLAG_VNET | ffi::CTLFLAG_MPSAFE,
            argument: core::ptr::null_mut(),
            number,
            handler: Some(handler),
            format: c"QU",
        };
        // SAFETY: the handler takes no argument but the number.
        unsafe { self.add(parent, &leaf) }.map(drop)
    }
}

impl Drop for SysctlCtx {
    fn drop(&mut self) {
        // SAFETY: initialised by `new`. It fails only for nodes that have nodes of somebody else below them.
        unsafe { ffi::sysctl_ctx_free(self.list.get()) };
    }
}
