//! make_dev(9).
//!
//! Context: process context; both directions sleep.

use crate::{Errno, ffi};
use core::ffi::CStr;

/// A character device; destroyed on drop, which waits until no thread is in
/// its switch functions.
pub struct Device(*mut ffi::cdev);

// SAFETY: a cdev belongs to no thread.
unsafe impl Send for Device {}

impl Device {
    /// `/dev/name`, of root and wheel, mode 0600.
    ///
    /// # Safety
    /// `switch` is a valid `cdevsw` that outlives the device.
    ///
    /// # Errors
    /// What make_dev_s(9) says, `EEXIST` for a name in use.
    pub unsafe fn make_dev(switch: *mut ffi::cdevsw, name: &'static CStr) -> Result<Self, Errno> {
        let mut arguments = ffi::make_dev_args {
            mda_size: size_of::<ffi::make_dev_args>(),
            mda_flags: (ffi::MAKEDEV_WAITOK | ffi::MAKEDEV_CHECKNAME) as i32,
            mda_devsw: switch,
            mda_cr: core::ptr::null_mut(),
            mda_uid: ffi::UID_ROOT,
            mda_gid: ffi::GID_WHEEL,
            mda_mode: 0o600,
            mda_unit: 0,
            mda_si_drv1: core::ptr::null_mut(),
            mda_si_drv2: core::ptr::null_mut(),
        };
        let mut device = core::ptr::null_mut();
        // SAFETY: the arguments are complete and of the size they say, the switch is valid (caller), and the format takes
        // one string.
        Errno::check(unsafe { ffi::make_dev_s(&mut arguments, &mut device, c"%s".as_ptr(), name.as_ptr()) })?;
        Ok(Self(device))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: made by `make_dev`, destroyed here only.
        unsafe { ffi::destroy_dev(self.0) };
    }
}
