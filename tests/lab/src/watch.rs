//! What crosses the cables, as an observer beside the road sees it.

use crate::error::{Error, Result};
use crate::packet::{DNS_PORT, View};
use std::collections::VecDeque;
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

/// Packets before a move that are remembered, and all together.
const TRACE_BEFORE: usize = 40;
const TRACE_MAX: usize = 400;

/// A message of DPRP, or an update of the DNS, on its way.
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
    /// When the first one with payload left the moved host.
    pub left_data: Option<Duration>,
    /// When the kernel of a host, by its number, told its TCP to send, or sent what it had kept.
    pub told: [Option<Duration>; 2],
    /// As `sent`, with payload.
    pub sent_data: Option<Duration>,
    /// As `received`, with payload.
    pub received_data: Option<Duration>,
    /// Since when, counted back from `since`, no payload had arrived anywhere.
    pub quiet: Duration,
}

impl Resumption {
    /// When the first payload left the moved host, and when the first one came to it.
    ///
    /// # Errors
    /// [`Error::Check`] when there was none.
    pub fn costs(&self) -> Result<[Duration; 2]> {
        let both = self.left_data.zip(self.received_data);
        both.map(Into::into).ok_or_else(|| Error::Check(format!("no data was heard: {self:?}")))
    }
}

/// Everything seen so far.
#[derive(Debug, Default)]
pub struct Watch {
    /// Segments with RST, described; but of questions to name servers, which who asks gives up before they are
    /// answered when it has something newer to ask.
    pub resets: Vec<String>,
    /// Messages of DPRP.
    pub messages: Vec<Message>,
    /// Dynamic updates of the DNS, over UDP.
    pub updates: Vec<Message>,
    /// Moves, in order.
    pub moves: Vec<Resumption>,
    /// Packets dropped for their foreign source, described.
    pub foreign: Vec<String>,
    /// When payload last arrived at a host.
    last_data: Option<Instant>,
    /// What happened to packets, from shortly before the last move on.
    trace: VecDeque<(Instant, &'static str, String)>,
}

impl Watch {
    /// A host's address is usable from `since` on: watch for its flows.
    pub fn usable(&mut self, address: IpAddr, since: Instant) {
        self.trace.drain(..self.trace.len().saturating_sub(TRACE_BEFORE));
        self.trace.push_back((since, "usable", address.to_string()));
        self.moves.push(Resumption {
            address,
            since,
            sent: None,
            received: None,
            left_data: None,
            told: [None; 2],
            sent_data: None,
            received_data: None,
            quiet: self.last_data.map_or(Duration::ZERO, |last| since.saturating_duration_since(last)),
        });
    }

    /// Something happens to a packet.
    pub(crate) fn note(&mut self, what: &'static str, packet: &[u8], now: Instant) {
        self.line(now, what, || {
            View::parse(packet).map_or_else(|| format!("{} bytes", packet.len()), |view| view.to_string())
        });
    }

    fn line(&mut self, now: Instant, what: &'static str, words: impl FnOnce() -> String) {
        let full = self.trace.len() >= if self.moves.is_empty() { TRACE_BEFORE } else { TRACE_MAX };
        if full && self.moves.is_empty() {
            self.trace.pop_front();
        } else if full {
            return;
        }
        self.trace.push_back((now, what, words()));
    }

    /// What happened to packets around the last move: milliseconds from the moment when the address was usable.
    #[must_use]
    pub fn trace(&self) -> String {
        let since = self.moves.last().map(|last| last.since);
        let line = |(at, what, words): &(Instant, &str, String)| {
            let since = since.unwrap_or(*at);
            let ms =
                at.saturating_duration_since(since).as_secs_f64() - since.saturating_duration_since(*at).as_secs_f64();
            format!("{:10.3} {what} {words}\n", ms * 1e3)
        };
        self.trace.iter().map(line).collect()
    }

    /// A packet enters a cable.
    pub(crate) fn enters(&mut self, way: Way, packet: &[u8], now: Instant) {
        let Some(view) = View::parse(packet) else { return };
        // Both of a packet's cables see it: count it where it starts.
        if way == Way::Down {
            return;
        }
        if view.is_reset() && view.destination.port() != DNS_PORT {
            self.resets.push(view.to_string());
        }
        let message = || Message {
            at: now,
            source: view.source,
            destination: view.destination,
            data: packet.get(view.payload..view.payload + view.length).unwrap_or_default().to_vec(),
        };
        if view.is_dprp() {
            self.messages.push(message());
        } else if view.is_dns_update(packet) {
            self.updates.push(message());
        } else if view.length > 0
            && let Some(last) = self.moves.last_mut()
            && view.source.ip() == last.address
        {
            last.left_data.get_or_insert(now.saturating_duration_since(last.since));
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

    /// The kernel of a host tells its TCP to send, or sends what it had kept.
    pub(crate) fn told(&mut self, host: usize, now: Instant) {
        let Some(last) = self.moves.last_mut() else { return };
        let after = now.saturating_duration_since(last.since);
        if let Some(told) = last.told.get_mut(host) {
            told.get_or_insert(after);
            self.line(now, "told", || format!("host {host} to send"));
        }
    }

    /// The router drops a packet because of its source.
    pub(crate) fn foreign(&mut self, packet: &[u8]) {
        let words = View::parse(packet).map_or_else(|| "another protocol".to_owned(), |view| view.to_string());
        self.foreign.push(words);
    }
}
