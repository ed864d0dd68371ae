//! Objects in memory that module code shares with this crate, reached by address.
//!
//! The kernel trusts the pointers that a module gives it, and so must this crate. A wild one faults, and the fault
//! handler reports what the kernel would: a page fault, with the place in the module.

use core::ptr::NonNull;

/// Declares a structure's layout as a `#[repr(C)]` type of the same size and a handle with typed access to its fields.
macro_rules! shared {
    ($(#[$meta:meta])* $name:ident($size:literal) { $($field:ident, $set:ident: $type:ty = $offset:literal;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(transparent)]
        pub(crate) struct $name(core::ptr::NonNull<u8>);

        #[allow(dead_code, reason = "the list is the layout; not every field is used by this crate")]
        impl $name {
            /// Size of the structure in bytes.
            pub(crate) const SIZE: usize = $size;
            /// Fields: name and offset.
            pub(crate) const FIELDS: &'static [(&'static str, usize)] = &[$((stringify!($field), $offset)),*];

            /// # Safety
            /// `pointer` is null or the address of such a structure, and stays so while the handle is used.
            pub(crate) unsafe fn new(pointer: *mut u8) -> Option<Self> {
                core::ptr::NonNull::new(pointer).map(Self)
            }

            /// Its address.
            pub(crate) fn address(self) -> usize {
                self.0.as_ptr() as usize
            }

            /// Its address, as the module knows it.
            pub(crate) fn as_ptr(self) -> *mut u8 {
                self.0.as_ptr()
            }

            $(
                /// Reads the field.
                pub(crate) fn $field(self) -> $type {
                    const { assert!($offset + size_of::<$type>() <= $size) };
                    let at = self.0.as_ptr().wrapping_add($offset).cast::<$type>();
                    // SAFETY: `new` requires a live structure of this layout; the offset lies inside it.
                    unsafe { at.read_unaligned() }
                }

                /// Writes the field.
                pub(crate) fn $set(self, value: $type) {
                    let at = self.0.as_ptr().wrapping_add($offset).cast::<$type>();
                    // SAFETY: as for reading; the KPI's rules say who may write when.
                    unsafe { at.write_unaligned(value) }
                }
            )*
        }
    };
}
pub(crate) use shared;

/// Text of the NUL-terminated string at `pointer`; "(null)" for null, as the kernel's printf has it.
///
/// # Safety
/// `pointer` is null or a NUL-terminated string.
pub(crate) unsafe fn text(pointer: *const u8) -> String {
    if pointer.is_null() {
        return "(null)".to_owned();
    }
    // SAFETY: the caller's promise.
    let bytes = unsafe { core::ffi::CStr::from_ptr(pointer.cast()) };
    bytes.to_string_lossy().into_owned()
}

/// Copies `length` bytes out of foreign memory.
///
/// # Safety
/// The range is readable.
pub(crate) unsafe fn bytes(pointer: *const u8, length: usize) -> Vec<u8> {
    if length == 0 {
        return Vec::new();
    }
    // SAFETY: the caller's promise; nobody writes it during the copy, as the KPI's callers own what they pass.
    unsafe { core::slice::from_raw_parts(pointer, length) }.to_vec()
}

/// Copies `from` to foreign memory.
///
/// # Safety
/// The range at `to` is writable and does not overlap `from`.
pub(crate) unsafe fn store(to: *mut u8, from: &[u8]) {
    // SAFETY: the caller's promise.
    unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) }
}

/// A zeroed allocation that lives until the process ends, for objects that module code may keep pointers to.
pub(crate) fn eternal(size: usize) -> NonNull<u8> {
    let words = vec![0_u64; size.div_ceil(8).max(1)].into_boxed_slice();
    NonNull::from(Box::leak(words)).cast()
}
