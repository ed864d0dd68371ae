//! A user-space FreeBSD 14 kernel programming interface.
//!
//! [`Machine::boot`] emulates one FreeBSD kernel in this process; [`Machine::kldload`] loads a real kernel module, the
//! very `.ko` file that FreeBSD loads, and [`Vnet::ip_output`] and [`Vnet::ip_input`] carry packets through the hooks
//! that it links. Calls may come from any number of threads at once.
//!
//! The kernel here is less patient than a real one: a sleep in the hook, an mbuf that is lost, freed twice or used after
//! it was freed, an unbalanced lock or epoch section, a write to shared data, memory left behind at unload — each ends
//! the process with a message that begins with `mobconn-kpi:`.
//!
//! What is emulated is what the modules need: a symbol that is missing is a load error that names it.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod bench;
mod call;
mod cdev;
mod clock;
mod complaint;
mod connections;
mod counter;
mod elf;
mod epoch;
mod errno;
#[doc(hidden)]
pub mod facts;
mod failures;
mod fault;
mod foreign;
mod ip;
mod kernel;
mod layout;
mod libkern;
mod linker;
mod lock;
mod machine;
mod malloc;
mod mbuf;
mod memory;
mod misc;
mod netisr;
mod oids;
mod options;
mod packet;
mod pfil;
mod printf;
mod rng;
mod routing;
mod sanitizer;
mod sdt;
mod slab;
mod stack;
mod symbols;
mod sysctl;
mod tags;
mod taskqueue;
mod thread;
mod user;
mod variables;
mod vnet;
mod waiting;

pub use bench::{Direction, Prepared};
pub use cdev::File;
pub use connections::{Connection, Connections, Query, TcpStack, Timer};
pub use errno::Errno;
pub use machine::{Machine, Vnet};
pub use options::{Failures, Options, Planted, Split};
pub use packet::{Delivered, DropCause, Event, Input, Output, Region, Route, Rx, RxChecksum, Sent, Tx};
pub use sdt::Fired;
pub use waiting::Kqueue;

pub(crate) use symbols::symbols;
