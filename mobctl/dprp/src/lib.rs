//! DPRP, the protocol between two hosts that run mobconn: associations, claims
//! and moves.
//!
//! It is a state machine without input or output: datagrams, local events and
//! the time go in; datagrams, notices, kernel commands (through [`Host`]) and
//! the next deadline come out. There is no clock and no source of randomness
//! inside. `PROTOCOL.md` has the formats byte by byte, the state machines and
//! the argument why they are secure.
//!
//! ```text
//! loop:
//!     endpoint.handle_datagram / handle_event / handle_timeout
//!     while let Some(transmit) = endpoint.poll_transmit() { send it }
//!     while let Some(notice) = endpoint.poll_notice() { log it }
//!     wait for a datagram, an event, or endpoint.poll_timeout(), which may be now
//! ```
#![forbid(unsafe_code)]

mod ahead;
mod association;
mod claimant;
mod codec;
mod config;
mod cookie;
mod correspondent;
mod endpoint;
mod few;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod handshake;
mod host;
mod key;
mod message;
mod mover;
mod moving;
mod noise;
mod notice;
mod rare;
mod refused;
mod replay;
mod resume;
mod seek;
mod steward;
mod store;
mod time;
mod timer;
mod wire;

pub use config::{BadPrefix, Config, ConfigError, GROUP_KEYS_MAX, Limits, NAME_MAX, PORT, Prefix, Timers};
pub use endpoint::{Endpoint, Event, Transmit};
pub use host::{Flow, Half, Host, KernelError, Protocol};
pub use key::{BadKey, GroupKey, HostKey, KEY_LENGTH, PublicKey};
pub use notice::{ClaimStatus, Counters, MoveRefusal, MoveView, News, Notice, PeerView, Refusal};
pub use rand_core;
pub use resume::Prepared;
pub use store::RestoreError;
pub use time::Instant;

#[cfg(test)]
mod tests;
