//! The user-space host: a small world of hosts, cables and a router in network
//! namespaces, whose packets go through the real `mobconn.ko`.
//!
//! One process is the world. Every interface of a host is a TUN device that
//! this process holds; between the device and the cable stands one virtual
//! network stack of the emulated FreeBSD machine, with the module loaded. The
//! programs, their sockets and their TCP are the operating system's own.

pub mod cable;
pub mod daemon;
pub mod demo;
pub mod device;
mod error;
pub mod host;
pub mod kernel;
pub mod lab;
pub mod module;
pub mod ns;
pub mod packet;
pub mod program;
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
