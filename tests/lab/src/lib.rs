//! The user-space host: a small world of hosts, cables and a router in network
//! namespaces, whose packets go through the real `mobconn.ko`.
//!
//! One process is the world. Every interface of a host is a TUN device that
//! this process holds; between the device and the cable stands one virtual
//! network stack of the emulated FreeBSD machine, with the module loaded. The
//! programs, their sockets and their TCP are the operating system's own.
//!
//! ```text
//! curl -> TCP of Linux -> TUN -> VNET with mobconn.ko -> cable -> TUN -> router (Linux) -> TUN -> cable -> ...
//! ```
//!
//! - `world`, `host`: who is there, addresses, routes, moves; `ns`, `tun`, `route`: what they are made of
//! - `wire`, `cable`, `watch`: how packets travel, what happens to them, what is seen of them
//! - `kernel`, `module`, `device`: the packet path and `/dev/mobconn` of a host
//! - `diag`, `resume`: which connections a host has, and making one send again at once
//! - `lab`, `daemon`, `program`: a scenario's surroundings, and the bill that each pays at its end
//! - `names`: a real name server at the router
//! - `stream`, `udp`: traffic whose every byte is known in advance
//! - `scenario`, `bench`, `demo`, `supervise`: what is run. A new scenario is a function from [`lab::Places`] to figures, and a
//!   line in [`scenario::ALL`].
//!
//! What is not FreeBSD's here: TCP is Linux's, whose retransmission timer can be made to run out only once it has backed
//! off; one thread carries all packets, so the module's readers meet its writers, but not each other.

pub mod bench;
pub mod cable;
pub mod daemon;
pub mod demo;
pub mod device;
pub mod diag;
mod error;
pub mod host;
pub mod kernel;
pub mod lab;
pub mod module;
pub mod names;
mod nat;
pub mod ns;
pub mod packet;
pub mod program;
pub mod resume;
pub mod route;
pub mod scenario;
pub mod stream;
pub mod supervise;
pub mod tun;
pub mod udp;
pub mod watch;
pub mod wire;
pub mod world;

pub use error::{Doing, Error, Result};
