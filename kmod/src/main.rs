//! `mobconn.ko`: the adapter between FreeBSD's kernel and the engine.
//!
//! | file | what |
//! |---|---|
//! | `declare.c` | what the kernel's macros must declare: module, malloc type, device switch, vnet state |
//! | `module` | load and unload: whether the kernel fits, whether anything is in use |
//! | `vnet` | the state of one network stack: made and taken down |
//! | `hook`, `packet` | the packet path: pfil(9) to the engine and back |
//! | `hooks` | linked nearest the wire, and kept there |
//! | `fit` | whether what goes elsewhere fits the interface there |
//! | `park` | packets that wait for a commit or a port |
//! | `cdev`, `command`, `convert`, `refusal` | `/dev/mobconn`: one function per ioctl |
//! | `reader` | what happens in the table, read from `/dev/mobconn` |
//! | `stats`, `sysctl` | counters |
//! | `probe`, `probes.c` | probes for dtrace(1) |
//! | `text` | lines for the log; the panic handler |
//!
//! Locks: one sx(9) per vnet, around the writers' half of its table
//! (`Instance::change`); while it is held, connections are looked up, whose
//! locks come after it. One mtx(9) for each kind of packets that wait, in
//! which nothing else is locked; the packet path takes it for these packets
//! only, and no other lock. Bells (`sys-bindings/bell.c`) are rung while none
//! of these is held.
#![no_std]
#![no_main]

extern crate alloc;

mod cdev;
mod command;
mod convert;
mod egress;
mod fit;
mod hook;
mod hooks;
mod module;
mod packet;
mod park;
mod probe;
mod reader;
mod refusal;
mod stats;
mod sysctl;
mod text;
mod vnet;

use mobconn_sys::{Malloc, ffi};

unsafe extern "C" {
    /// Of `declare.c`.
    static mut M_MOBCONN: [ffi::malloc_type; 1];
}

#[global_allocator]
static ALLOCATOR: Malloc = {
    let kind = &raw mut M_MOBCONN;
    // SAFETY: defined by MALLOC_DEFINE.
    unsafe { Malloc::new(kind.cast()) }
};
