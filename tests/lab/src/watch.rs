//! What crosses the cables, as an observer beside the road sees it.

use crate::packet::View;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Which way a packet goes on a cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the host to the router.
    Up,
    /// From the router to the host.
    Down,
}

/// A message of DPRP on its way.
#[derive(Clone, Debug)]
pub struct Message {
    /// When it left its host.
    pub at: Instant,
    /// From where.
    pub source: SocketAddr,
    /// To where.
    pub destination: SocketAddr,
    /// The datagram.
    pub data: Vec<u8>,
}

/// When a moved host's flows were heard again.
#[derive(Clone, Copy, Debug)]
pub struct Resumption {
    /// The new address.
    pub address: IpAddr,
    /// Since when the address was usable.
    pub since: Instant,
    /// First packet of a flow from the new address that reached the other host.
    pub sent: Option<Duration>,
    /// First packet of a flow to the new address that reached the moved host.
    pub received: Option<Duration>,
    /// As `sent`, with payload.
    pub sent_data: Option<Duration>,
    /// As `received`, with payload.
    pub received_data: Option<Duration>,
    /// Since when, counted back from `since`, no payload had arrived anywhere.
    pub quiet: Duration,
}

/// Everything seen so far.
#[derive(Debug, Default)]
pub struct Watch {
    /// Segments with RST, described.
    pub resets: Vec<String>,
    /// Messages of DPRP.
    pub messages: Vec<Message>,
    /// Moves, in order.
    pub moves: Vec<Resumption>,
    /// Packets dropped for their foreign source, described.
    pub foreign: Vec<String>,
    /// When payload last arrived at a host.
    last_data: Option<Instant>,
}

impl Watch {
    /// A host's address is usable from `since` on: watch for its flows.
    pub fn usable(&mut self, address: IpAddr, since: Instant) {
        self.moves.push(Resumption {
            address,
            since,
            sent: None,
            received: None,
            sent_data: None,
            received_data: None,
            quiet: self.last_data.map_or(Duration::ZERO, |last| since.saturating_duration_since(last)),
        });
    }

    /// A packet enters a cable.
    pub(crate) fn enters(&mut self, way: Way, packet: &[u8], now: Instant) {
        let Some(view) = View::parse(packet) else { return };
        // Both of a packet's cables see it: count it where it starts.
        if way == Way::Down {
            return;
        }
        if view.is_reset() {
            self.resets.push(view.to_string());
        }
        if view.is_dprp() {
            self.messages.push(Message {
                at: now,
                source: view.source,
                destination: view.destination,
                data: packet.get(view.payload..view.payload + view.length).unwrap_or_default().to_vec(),
            });
        }
    }

    /// A packet arrives at a host.
    pub(crate) fn arrives(&mut self, packet: &[u8], now: Instant) {
        let Some(view) = View::parse(packet) else { return };
        if view.is_dprp() {
            return;
        }
        let data = view.length > 0;
        if data {
            self.last_data = Some(now);
        }
        let Some(last) = self.moves.last_mut() else { return };
        let after = Some(now.saturating_duration_since(last.since));
        if view.source.ip() == last.address {
            last.sent = last.sent.or(after);
            last.sent_data = last.sent_data.or(after.filter(|_| data));
        } else if view.destination.ip() == last.address {
            last.received = last.received.or(after);
            last.received_data = last.received_data.or(after.filter(|_| data));
        }
    }

    /// The router drops a packet because of its source.
    pub(crate) fn foreign(&mut self, packet: &[u8]) {
        let words = View::parse(packet).map_or_else(|| "another protocol".to_owned(), |view| view.to_string());
        self.foreign.push(words);
    }
}
