//! A user-space FreeBSD 14 kernel programming interface.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod errno;
mod machine;
mod options;
mod packet;

pub use errno::Errno;
pub use machine::{Machine, Vnet};
pub use options::{Failures, Options, Split};
pub use packet::{Delivered, Drop, Input, Output, Region, Route, Rx, RxChecksum, Sent, Tx};
