//! The protocol between complete endpoints over a simulated network.

mod ahead;
mod associations;
mod attacks;
mod claims;
mod corners;
mod crossing;
mod displaced;
mod floods;
mod kernel;
mod moves;
mod onwards;
mod rendezvous;
mod restarts;
mod storms;
mod times;
mod world;

use crate::Endpoint;
use std::fmt::Debug;

impl Endpoint {
    /// Everything that decides what the endpoint will do, but randomness and the queues to the outside.
    pub(crate) fn memory(&self) -> impl Debug + '_ {
        let claims = (&self.mine, &self.wanted, &self.owners);
        (&self.peers, &self.handshakes, claims, &self.relocations, self.generation, &self.timers)
    }
}
