//! A network of complete hosts in one process and in virtual time.
//!
//! Each host has the real engine, the real protocol and a real TCP (smoltcp's). What `mobconn.ko` does around the
//! engine and the daemon around the protocol is modelled, in `kernel` and `daemon`. One number, the seed, decides
//! everything: which hosts there are, what they send each other, where they move, what the networks do to packets, when
//! daemons die. There is no other source of chance and no clock.
//!
//! A scenario ends with all faults over. Then every connection that was ever promised anything must come to its end, byte
//! by byte, without any RST that nobody intended, and all tables, claims and associations must be empty again.

pub mod act;
pub mod conn;
pub mod daemon;
pub mod flood;
pub mod frame;
pub mod host;
pub mod judge;
pub mod kernel;
pub mod net;
pub mod script;
pub mod stack;
pub mod themes;
pub mod world;

use script::Plan;
use world::{Tally, World};

/// Plays the scenario of a seed.
///
/// # Errors
/// What went wrong first.
pub fn play(seed: u64, trace: bool) -> Result<Tally, String> {
    let mut world = World::new(Plan::new(seed), trace);
    world.play();
    match world.violations.first() {
        Some(violation) => Err(violation.clone()),
        None => Ok(world.tally),
    }
}
