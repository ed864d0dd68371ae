//! FreeBSD's error numbers, under whatever system this runs.
//!
//! The device answers with them, also where a user-space host stands in for
//! the kernel, and they differ from other systems' numbers.

use std::fmt;

/// An errno of FreeBSD's. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

/// Declares the constants, their names and their texts from one list.
macro_rules! errnos {
    ($($name:ident = $value:literal, $text:literal;)+) => {
        impl Errno {
            $(#[doc = $text] pub const $name: Self = Self($value);)+

            /// Every number that has a name here.
            pub const ALL: &'static [(Self, &'static str)] = &[$((Self::$name, stringify!($name)),)+];

            /// The symbolic name, for example `ESTALE`.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 { $($value => Some(stringify!($name)),)+ _ => None }
            }

            /// What the number means, in the words of intro(2).
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self.0 { $($value => $text,)+ _ => "Unknown error" }
            }
        }
    };
}

errnos! {
    EPERM = 1, "Operation not permitted";
    ENOENT = 2, "No such file or directory";
    EINTR = 4, "Interrupted system call";
    EIO = 5, "Input/output error";
    ENXIO = 6, "Device not configured";
    E2BIG = 7, "Argument list too long";
    EBADF = 9, "Bad file descriptor";
    ENOMEM = 12, "Cannot allocate memory";
    EACCES = 13, "Permission denied";
    EFAULT = 14, "Bad address";
    EBUSY = 16, "Device busy";
    EEXIST = 17, "File exists";
    ENODEV = 19, "Operation not supported by device";
    EINVAL = 22, "Invalid argument";
    ENFILE = 23, "Too many open files in system";
    EMFILE = 24, "Too many open files";
    ENOTTY = 25, "Inappropriate ioctl for device";
    ENOSPC = 28, "No space left on device";
    EAGAIN = 35, "Resource temporarily unavailable";
    EOPNOTSUPP = 45, "Operation not supported";
    EAFNOSUPPORT = 47, "Address family not supported by protocol family";
    EADDRINUSE = 48, "Address already in use";
    EADDRNOTAVAIL = 49, "Can't assign requested address";
    ENETDOWN = 50, "Network is down";
    ENETUNREACH = 51, "Network is unreachable";
    ENOBUFS = 55, "No buffer space available";
    ETIMEDOUT = 60, "Operation timed out";
    EHOSTUNREACH = 65, "No route to host";
    ESTALE = 70, "Stale NFS file handle";
    ENOSYS = 78, "Function not implemented";
    EOVERFLOW = 84, "Value too large to be stored in data type";
    ECANCELED = 85, "Operation canceled";
    ENOTCAPABLE = 93, "Capabilities insufficient";
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.text()),
            None => write!(f, "errno {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_freebsds_and_not_another_systems() {
        assert_eq!(Errno(48), Errno::EADDRINUSE);
        assert_eq!(Errno(70).name(), Some("ESTALE"));
        assert_eq!(Errno(35).name(), Some("EAGAIN"));
        assert_eq!(Errno::EADDRINUSE.to_string(), "EADDRINUSE (Address already in use)");
        assert_eq!(Errno(98).to_string(), "errno 98");
    }

    #[test]
    fn every_number_stands_once() {
        for pair in Errno::ALL.windows(2) {
            assert!(pair[0].0.0 < pair[1].0.0, "{} before {}", pair[0].1, pair[1].1);
        }
    }
}
