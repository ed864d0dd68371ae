//! The engine of mobconn: which flow a packet belongs to, and what its headers
//! must say on the other side.
//!
//! A **binding** ties a flow's *stack side* (as TCP knows the connection) to
//! its *wire side* (as it travels now). [`Engine::output`] gives packets of a
//! bound flow their wire side, [`Engine::input`] gives them their stack side
//! back. Everything else passes untouched.
//!
//! The engine is split in two. [`Engine`] is what the packet path uses: it
//! takes `&self` only, takes no lock, waits for nobody and writes no cache
//! line that another processor reads. [`Control`] holds what only writers
//! need; it belongs under the caller's writer lock. See `table` for why a
//! reader beside a writer is safe.
//!
//! No FreeBSD in here, no `unsafe`, no clock: time is an argument, in seconds
//! of system uptime.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod ahead;
mod checksum;
mod control;
mod displace;
mod flow;
mod icmp;
mod journal;
mod key;
mod lifetime;
mod packet;
mod parse;
mod path;
mod rewrite;
mod shape;
mod slab;
mod sync;
mod table;

pub use ahead::LOOK_AHEAD;
pub use control::{Control, Prepare};
pub use flow::{Address, Binding, Half, HalfView, Other, Protocol, Side, TableError, Version};
pub use journal::{Entry, Journal, PLACES as JOURNAL_PLACES, What};
pub use lifetime::{Expired, Limits};
pub use packet::{Checksum, DropReason, Gone, Packet, PassReason, Verdict};

use sync::{AtomicU32, Ordering};

/// What an engine is made with.
#[derive(Clone)]
pub struct Config {
    /// Most bindings that the table takes, 1 to 16,777,216.
    pub capacity: u32,
    /// Secret of the keyed hash: random, of this table alone.
    pub key: [u64; 8],
}

/// The capacity is out of range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadCapacity;

/// The part that the packet path shares. All of it takes `&self`.
pub struct Engine {
    /// Bindings now; what an idle module reads, so it comes first.
    flows: AtomicU32,
    hasher: key::Hasher,
    table: table::Table,
}

/// Makes an engine. Its table takes memory when the first binding is made.
///
/// # Errors
/// [`BadCapacity`] when `config.capacity` is out of range.
pub fn new(config: &Config) -> Result<(Engine, Control), BadCapacity> {
    if config.capacity == 0 || config.capacity > 1 << 24 {
        return Err(BadCapacity);
    }
    let engine = Engine { flows: AtomicU32::new(0), hasher: key::Hasher::new(config.key), table: table::Table::new() };
    Ok((engine, Control::new(config.capacity)))
}

impl Engine {
    /// Whether there is no binding: one load.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.flows.load(Ordering::Relaxed) == 0
    }

    /// Gives a received packet its stack side. `now` is uptime in seconds.
    #[inline]
    pub fn input<P: Packet>(&self, packet: &mut P, version: Version, now: u32) -> Verdict {
        if self.is_empty() {
            return Verdict::Pass;
        }
        match version {
            Version::V4 => path::input::<P, false>(self, packet, now),
            Version::V6 => path::input::<P, true>(self, packet, now),
        }
    }

    /// Gives a packet to be sent its wire side. `now` is uptime in seconds.
    #[inline]
    pub fn output<P: Packet>(&self, packet: &mut P, version: Version, now: u32) -> Verdict {
        if self.is_empty() {
            return Verdict::Pass;
        }
        match version {
            Version::V4 => path::output::<P, false>(self, packet, now),
            Version::V6 => path::output::<P, true>(self, packet, now),
        }
    }

    /// Whether packets of the binding with this number (see
    /// [`Verdict::Hold`]) are still to be kept.
    pub fn holds(&self, flow: u32) -> bool {
        self.table.content(flow).is_some_and(|content| content.state & (table::LOCAL_HOLD | table::REMOTE_HOLD) != 0)
    }

    /// The side, local end first, of a packet with the verdict
    /// [`Verdict::Displace`], for [`Control::displace`].
    pub fn newcomer<P: Packet>(packet: &mut P, version: Version, received: bool) -> Option<Side> {
        path::newcomer(packet, version, received)
    }
}
