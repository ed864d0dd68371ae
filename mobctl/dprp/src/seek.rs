//! Finding a peer that is not where it was: its name is looked up, by whoever
//! runs the endpoint, and every address that comes of it gets a Hello. What the
//! DNS says is a hint only: who answers must have the peer's key.

use crate::association::{Path, Peer};
use crate::codec::is_host_address;
use crate::endpoint::Endpoint;
use crate::mover::REDIAL_TRIES;
use crate::time::Instant;
use crate::timer::{PeerId, Timer, jittered};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How often a name is asked for while its owner is silent.
const INTERVAL: Duration = Duration::from_secs(1);
/// Most addresses of one answer that are tried.
const ADDRESSES_MAX: usize = 8;
/// Most names that wait for somebody to ask.
const QUERIES_MAX: usize = 256;

/// Whether this peer does not answer where it is believed to be.
fn is_lost(peer: &Peer) -> bool {
    peer.moves.values().any(|moving| moving.tries >= REDIAL_TRIES)
        || peer.ping.is_some_and(|ping| ping.tries >= REDIAL_TRIES)
}

impl Endpoint {
    /// The next name to resolve, now: of a peer that does not answer. To be answered by
    /// [`Event::Resolved`](crate::Event::Resolved), or not at all; it comes again every second, as long as it is of
    /// use, so that an answer may be kept as long as its time to live says.
    pub fn poll_query(&mut self) -> Option<String> {
        self.queries.pop_front()
    }

    /// Asks for the peer's name, now and every second, as long as the peer is silent.
    pub(crate) fn seek(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get(id) else { return };
        if peer.name.is_empty() || !is_lost(peer) || self.timers.is_set(Timer::Seek(id)) {
            return;
        }
        if self.queries.len() < QUERIES_MAX && !self.queries.contains(&peer.name) {
            self.queries.push_back(peer.name.clone());
        }
        self.timers.set(Timer::Seek(id), now.after(jittered(INTERVAL, &mut *self.rng)));
    }

    /// See [`Event::Resolved`](crate::Event::Resolved).
    pub(crate) fn on_resolved(&mut self, now: Instant, name: &str, addresses: &[IpAddr]) {
        let named = |peer: &Peer| is_lost(peer) && peer.name.eq_ignore_ascii_case(name);
        let ids: Vec<PeerId> = self.peers.all.iter().filter(|(_, peer)| named(peer)).map(|(id, _)| *id).collect();
        for id in ids {
            for address in addresses.iter().filter(|address| is_host_address(**address)).take(ADDRESSES_MAX) {
                let Some(peer) = self.peers.get(id) else { return };
                let Some(path) = peer.path(*address).filter(|path| path.remote.ip() != *address) else { continue };
                // The newest move knows best where this host is.
                let new = |new: &IpAddr| new.is_ipv4() == address.is_ipv4();
                let local = peer.moves.values().map(|moving| moving.path.local).rfind(new).unwrap_or(path.local);
                if local != *address {
                    let remote = SocketAddr::new(*address, self.config.port);
                    self.dial(now, Path { local, remote }, Some(id));
                }
            }
        }
    }
}
