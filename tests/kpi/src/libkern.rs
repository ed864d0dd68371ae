//! The C library's share of the kernel: the process's own functions do.

pub(crate) const SYMBOLS: &[crate::symbols::Function] = &[
    ("memcpy", libc::memcpy as *const ()),
    ("memmove", libc::memmove as *const ()),
    ("memset", libc::memset as *const ()),
    ("memcmp", libc::memcmp as *const ()),
    ("bcmp", libc::memcmp as *const ()),
    ("strlen", libc::strlen as *const ()),
    ("strcmp", libc::strcmp as *const ()),
    ("strncmp", libc::strncmp as *const ()),
    ("strlcpy", strlcpy as *const ()),
    ("explicit_bzero", explicit_bzero as *const ()),
];

extern "C" fn strlcpy(to: *mut u8, from: *const u8, size: usize) -> usize {
    // SAFETY: a string, by the KPI.
    let source = unsafe { core::ffi::CStr::from_ptr(from.cast()) }.to_bytes();
    if size > 0 {
        let mut bytes = source[..source.len().min(size - 1)].to_vec();
        bytes.push(0);
        // SAFETY: the caller gives `size` bytes.
        unsafe { crate::foreign::store(to, &bytes) };
    }
    source.len()
}

extern "C" fn explicit_bzero(to: *mut u8, length: usize) {
    // SAFETY: the caller gives `length` bytes.
    unsafe { crate::foreign::store(to, &vec![0; length]) };
}
