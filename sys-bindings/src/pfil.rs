//! pfil(9), version 2.
//!
//! Context: process context with curvnet set; linking sleeps. Unlinking does
//! not wait for packets that are in the hook: see [`crate::net_epoch_wait`].

use crate::{Errno, ffi};
use core::ffi::{CStr, c_void};

/// What a hook is made of.
pub struct HookArgs {
    /// Name of the head that it is linked to: `inet` or `inet6`.
    pub head: &'static CStr,
    /// The head's type, a `PFIL_TYPE_*`.
    pub kind: ffi::pfil_types,
    /// The hook's name beside the module's.
    pub name: &'static CStr,
    /// What is called for every packet in either direction.
    pub check: ffi::pfil_mbuf_chk_t,
    /// What it is called with.
    pub ruleset: *mut c_void,
}

/// A hook that is linked in both directions, nearest the wire; unlinked on drop.
pub struct Hook(ffi::pfil_hook_t);

// SAFETY: a hook belongs to no thread.
unsafe impl Send for Hook {}
// SAFETY: nothing can be done with a shared one.
unsafe impl Sync for Hook {}

impl Hook {
    /// Adds the hook and links it in both directions, before every other hook
    /// on input and behind them on output.
    ///
    /// # Safety
    /// curvnet is set, and set to the same vnet when the hook is dropped;
    /// `check` may be called with `ruleset` until the first
    /// [`crate::net_epoch_wait`] after that.
    ///
    /// # Errors
    /// `ENOENT` when there is no such head.
    pub unsafe fn link(module: &'static CStr, args: &HookArgs) -> Result<Self, Errno> {
        let version = ffi::PFIL_VERSION as i32;
        let directions = (ffi::PFIL_IN | ffi::PFIL_OUT) as i32;
        let mut hook = ffi::pfil_hook_args {
            pa_version: version,
            pa_flags: directions,
            pa_type: args.kind,
            pa_mbuf_chk: args.check,
            pa_mem_chk: None,
            pa_ruleset: args.ruleset,
            pa_modname: module.as_ptr(),
            pa_rulname: args.name.as_ptr(),
        };
        // SAFETY: complete arguments with static names; curvnet is set (caller).
        let hook = Self(unsafe { ffi::pfil_add_hook(&mut hook) });
        let mut link = ffi::pfil_link_args {
            pa_version: version,
            pa_flags: directions | ffi::PFIL_HOOKPTR as i32,
            __bindgen_anon_1: ffi::pfil_link_args__bindgen_ty_1 { pa_headname: args.head.as_ptr() },
            __bindgen_anon_2: ffi::pfil_link_args__bindgen_ty_2 { pa_hook: hook.0 },
        };
        // SAFETY: complete arguments; the hook is alive.
        Errno::check(unsafe { ffi::pfil_link(&mut link) })?;
        Ok(hook)
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        // SAFETY: added by `link`, removed here only, in the same vnet (caller of `link`).
        unsafe { ffi::pfil_remove_hook(self.0) };
    }
}

/// Where the packets of one IP version pass, in one network stack.
pub struct Head(*const ffi::_pfil_head);

// SAFETY: a head belongs to no thread.
unsafe impl Send for Head {}
// SAFETY: two numbers of it are read, each at once.
unsafe impl Sync for Head {}

impl Head {
    /// The head of curvnet; it lives as long as the vnet.
    #[must_use]
    pub fn of_curvnet(v6: bool) -> Self {
        // SAFETY: reads a variable of curvnet.
        Self(unsafe { ffi::mobconn_pfil_head(i32::from(v6)) })
    }

    /// How many hooks are linked to it: for output in the upper half, for
    /// input in the lower.
    #[must_use]
    #[inline]
    pub fn hooks(&self) -> u64 {
        if self.0.is_null() {
            return 0;
        }
        let number = |offset| {
            let place = self.0.wrapping_byte_add(offset).cast::<u32>();
            // SAFETY: a field of the head, which is alive as long as its vnet, in which the caller is.
            unsafe { place.read_volatile() }
        };
        let input = number(core::mem::offset_of!(ffi::_pfil_head, head_nhooksin));
        let output = number(core::mem::offset_of!(ffi::_pfil_head, head_nhooksout));
        u64::from(output) << 32 | u64::from(input)
    }
}
