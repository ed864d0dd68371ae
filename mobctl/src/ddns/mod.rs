//! The host's name in the DNS follows its addresses: current, all or nothing, and never pointing at a stranger.
//!
//! - `config`: the `[ddns]` table, and which addresses are published; `key`: TSIG key files
//! - `place`: the zone and its servers, found by SOA
//! - `mark`: the TXT record that says whose the name is; `client`: the update transaction and what its answers mean
//! - `desk`, `keeper`, `store`: the newest wanted state is kept until it is delivered, across a crash too
//! - `command`: `mobctl ddns`
//!
//! An update is one message of RFC 2136 with a TSIG signature (RFC 8945): under the prerequisite that the name's mark is
//! still the one that this host left, all A and AAAA records are replaced, and the mark gets a new random stamp. So
//! another host's records are never touched, and a datagram that comes late, twice or from somebody who recorded it
//! changes nothing.

pub mod client;
pub mod command;
pub mod config;
pub mod desk;
pub mod keeper;
pub mod key;
pub mod mark;
pub mod place;
pub mod store;

pub use client::{Client, Target};
pub use config::Config;
pub use keeper::Keeper;
