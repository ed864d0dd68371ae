//! FreeBSD's error numbers (errno(2)), which differ from Linux's above 34.

use core::fmt;

/// An error number of FreeBSD's, never 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

macro_rules! numbers {
    ($($name:ident = $value:literal,)+) => {
        impl Errno {
            $(#[doc = concat!("`", stringify!($name), "` of errno(2).")] pub const $name: Self = Self($value);)+

            /// Name of the number as errno(2) has it, if it is one that a kernel module commonly returns.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 { $($value => Some(stringify!($name)),)+ _ => None }
            }
        }
    };
}

numbers! {
    EPERM = 1, ENOENT = 2, EINTR = 4, EIO = 5, ENXIO = 6, E2BIG = 7, ENOEXEC = 8, EBADF = 9, EDEADLK = 11, ENOMEM = 12,
    EACCES = 13, EFAULT = 14, EBUSY = 16, EEXIST = 17, ENODEV = 19, ENOTDIR = 20, EINVAL = 22, EMFILE = 24, ENOTTY = 25,
    EFBIG = 27, ENOSPC = 28, EPIPE = 32, EDOM = 33, ERANGE = 34, EAGAIN = 35, EALREADY = 37, EMSGSIZE = 40,
    EPROTONOSUPPORT = 43, EOPNOTSUPP = 45, EAFNOSUPPORT = 47, EADDRINUSE = 48, EADDRNOTAVAIL = 49,
    ENETDOWN = 50, ENETUNREACH = 51, ENOBUFS = 55, ETIMEDOUT = 60, EHOSTUNREACH = 65, ESTALE = 70, ENOSYS = 78,
    EJAIL = 91,
}

impl Errno {
    /// `Ok` for 0, as kernel functions return it.
    pub const fn check(value: i32) -> Result<(), Self> {
        if value == 0 { Ok(()) } else { Err(Self(value)) }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Errno {}
