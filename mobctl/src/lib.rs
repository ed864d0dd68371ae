//! mobctl: the command and daemon of mobconn, see mobctl(8).
//!
//! The library part exists for the tests; the interface of mobctl is its
//! command line.

pub mod config;
pub mod connections;
pub mod device;
pub mod errno;
pub mod exit;
pub mod keyfile;
pub mod system;
pub mod tuple;
