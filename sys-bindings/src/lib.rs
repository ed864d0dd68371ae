//! The FreeBSD kernel interfaces that mobconn uses.
//!
//! Wrapped interfaces keep their C names; the manual page of section 9 with
//! that name says what they do, the comments here only what the wrapper adds.
//! What must be initialised cannot be had uninitialised, what must be freed is
//! freed by `Drop`, and user memory is copied as plain bytes.
//!
//! Built for one branch of FreeBSD, 14 or 15, on amd64 only, against its
//! headers; `build.rs` says where those come from. Errors are the kernel's `errno` values.
#![no_std]

extern crate alloc;

/// The generated bindings: layouts as the C compiler has them (checked when
/// this is compiled), functions as the kernel declares them.
#[allow(
    missing_docs,
    unsafe_op_in_unsafe_fn,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unnecessary_transmutes,
    unreachable_pub,
    dead_code,
    clippy::all,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    reason = "generated"
)]
pub mod ffi {
    include!(concat!(env!("OUT_DIR"), "/ffi.rs"));
}

mod bell;
mod branch {
    include!(concat!(env!("OUT_DIR"), "/branch.rs"));
}

mod boxed;
mod cdev;
mod copy;
mod counter;
mod kern;
mod malloc;
mod mbuf;
mod mtx;
mod net;
mod pfil;
mod sx;
mod sysctl;
mod task;

pub use bell::{Bell, BellReady, bells_close, bells_ring};
pub use boxed::try_box;
pub use branch::{BRANCH, OLDEST};
pub use cdev::{CdevPriv, Device};
pub use copy::{copyin, copyout, uio_resid, uiomove};
pub use counter::CounterU64;
pub use kern::{
    LogLevel, arc4random_buf, log, microuptime, net_epoch_wait, osreldate, panic, physical_memory, priv_check,
    sysctl_handle_64, time_uptime,
};
pub use malloc::Malloc;
pub use mbuf::{Freed, Mbuf, OwnedMbuf, Way};
pub use mtx::{Mtx, MtxGuard};
pub use net::{
    ConnectionSide, CurVnet, if_getindex, if_getmtu, in_localip, in_net_epoch, in6_localip, is_connected, tcp_no_tso,
    tcp_resume,
};
pub use pfil::{Head, Hook, HookArgs};
pub use sx::{Sx, SxGuard};
pub use sysctl::{SysctlCtx, SysctlHandler, SysctlParent};
pub use task::{Task, TaskFn, TimeoutTask};

/// An `errno` value of the kernel's, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub core::ffi::c_int);

impl Errno {
    /// What a kernel function returned, as a result.
    const fn check(value: core::ffi::c_int) -> Result<(), Self> {
        if value == 0 { Ok(()) } else { Err(Self(value)) }
    }
}

/// Memory is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;
