//! mobctl: the command and daemon of mobconn, see mobctl(8).
//!
//! The library part exists for the tests; the interface of mobctl is its
//! command line.

pub mod cli;
pub mod completion;
pub mod config;
pub mod connections;
pub mod control;
pub mod daemon;
pub mod ddns;
pub mod device;
pub mod dns;
pub mod doctor;
pub mod errno;
pub mod exit;
pub mod keyfile;
pub mod monitor;
pub mod networks;
pub mod run;
pub mod settings;
pub mod show;
pub mod system;
pub mod table;
pub mod top;
pub mod tuple;
