//! The ioctl interface of `/dev/mobconn`.
//!
//! One typed ioctl per command. Every structure is `repr(C)` with fixed-width
//! fields and no implicit padding; reserved fields must be zero; enumerations
//! travel as integers and are checked on the way in. All integers, ports
//! included, are in host byte order; addresses are in network byte order.
//!
//! The same definitions serve the kernel module and `mobctl`, and a test
//! compares sizes, offsets and ioctl numbers with what the C compiler makes of
//! `mobconn.h`, the C rendering of this file.
#![no_std]
#![forbid(unsafe_code)]

mod command;
mod counter;
mod egress;
mod event;
mod flow;

pub use command::*;
pub use counter::*;
pub use egress::*;
pub use event::*;
pub use flow::*;

/// Version of this interface; [`Info::version`] reports the module's.
pub const ABI_VERSION: u32 = 1;

/// The device's name below `/dev`.
pub const DEVICE_NAME: &str = "mobconn";
