//! Why a command is refused, and the one table from there to `errno`.

use mobconn_engine::TableError;
use mobconn_sys::{Errno, NoMemory, ffi};

/// Why a command of `/dev/mobconn` failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The table refused; it is as it was before.
    Table(TableError),
    /// A field that holds what it must not.
    Invalid,
    /// More elements than one command takes.
    TooMany,
    /// No memory for the command itself.
    NoMemory,
    /// The descriptor is not open for writing.
    ReadOnly,
    /// The module is being unloaded, or this network stack has no table.
    Absent,
    /// No such command.
    Unknown,
    /// Nothing to read now.
    Nothing,
    /// Too many descriptors read.
    Readers,
    /// The descriptor belongs to another network stack.
    Foreign,
    /// What the kernel said.
    Kernel(Errno),
}

impl Refusal {
    /// The `errno` value for user space; mobconn(4) lists them.
    pub(crate) const fn errno(self) -> u32 {
        match self {
            Self::Table(TableError::Invalid) | Self::Invalid => ffi::EINVAL,
            Self::Table(TableError::Exists) => ffi::EEXIST,
            Self::Table(TableError::Conflict) => ffi::EADDRINUSE,
            Self::Table(TableError::Full) => ffi::ENOSPC,
            Self::Table(TableError::NoMemory) | Self::NoMemory => ffi::ENOMEM,
            Self::Table(TableError::NotFound) => ffi::ENOENT,
            Self::Table(TableError::Stale) => ffi::ESTALE,
            Self::TooMany => ffi::E2BIG,
            Self::ReadOnly => ffi::EACCES,
            Self::Absent => ffi::ENXIO,
            Self::Unknown => ffi::ENOTTY,
            Self::Nothing => ffi::EAGAIN,
            Self::Readers => ffi::EMFILE,
            Self::Foreign => ffi::EPERM,
            Self::Kernel(Errno(value)) => value.unsigned_abs(),
        }
    }
}

impl From<TableError> for Refusal {
    fn from(error: TableError) -> Self {
        Self::Table(error)
    }
}

impl From<Errno> for Refusal {
    fn from(error: Errno) -> Self {
        Self::Kernel(error)
    }
}

impl From<NoMemory> for Refusal {
    fn from(NoMemory: NoMemory) -> Self {
        Self::NoMemory
    }
}
