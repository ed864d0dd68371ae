//! make_dev(9).
//!
//! Context: process context; both directions sleep.

use crate::{Errno, ffi};
use alloc::boxed::Box;
use core::ffi::{CStr, c_void};
use core::marker::PhantomData;

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

/// What an open descriptor of the device has of its own: a `T`, dropped when
/// the descriptor is closed for the last time or the device goes.
pub struct CdevPriv<T>(PhantomData<T>);

impl<T: Send + Sync> CdevPriv<T> {
    /// devfs_set_cdevpriv(9) of the descriptor in use.
    ///
    /// # Errors
    /// `EBUSY` when it has some, `ENOENT` outside the device's functions.
    pub fn set(value: Box<T>) -> Result<(), Errno> {
        let data = Box::into_raw(value).cast();
        // SAFETY: `drop_box` takes what the pointer is, once.
        let result = Errno::check(unsafe { ffi::devfs_set_cdevpriv(data, Some(Self::drop_box)) });
        if result.is_err() {
            // SAFETY: made above, and nobody else has it.
            drop(unsafe { Box::from_raw(data.cast::<T>()) });
        }
        result
    }

    /// devfs_get_cdevpriv(9) of the descriptor in use.
    ///
    /// # Safety
    /// The device sets no other type, and the caller is in a function of the
    /// device other than `d_purge`; `'a` ends with it.
    ///
    /// # Errors
    /// `ENOENT` when it has none.
    pub unsafe fn get<'a>() -> Result<&'a T, Errno> {
        let mut data = core::ptr::null_mut();
        // SAFETY: a local to write to.
        Errno::check(unsafe { ffi::devfs_get_cdevpriv(&mut data) })?;
        // SAFETY: set by `set` with this type (contract); the kernel drops it when no thread is in the device's functions
        // with this descriptor.
        Ok(unsafe { &*data.cast::<T>() })
    }

    unsafe extern "C" fn drop_box(data: *mut c_void) {
        // SAFETY: made by `set`, given back once.
        drop(unsafe { Box::from_raw(data.cast::<T>()) });
    }
}
