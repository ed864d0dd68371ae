//! The endpoint: what goes in, what comes out.

use crate::config::{Config, ConfigError};
use crate::host::{Flow, Host};
use crate::notice::{Counters, Notice, PeerView};
use crate::time::Instant;
use rand_core::CryptoRng;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

/// A datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Source address to use; `None`: the system's choice.
    pub local: Option<IpAddr>,
    /// Destination.
    pub remote: SocketAddr,
    /// Payload, at most 1,200 bytes.
    pub data: Vec<u8>,
}

/// Something happened on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// All established connections of this host now, each with its instance: a complete snapshot. Claims follow for those
    /// that lead to a target; claims of connections that are gone end.
    Flows(Vec<(Flow, u64)>),
    /// This host moves: every claimed flow whose wire-side local address is `old` goes to `new`, and so do those
    /// claimed at `old` later, until another move says otherwise.
    Move {
        /// The address that is left.
        old: IpAddr,
        /// The address to go to; configured and usable.
        new: IpAddr,
        /// Whether `old` still works: flows keep using it until the peer has committed.
        old_usable: bool,
    },
}

/// One host's end of the protocol: all its associations, claims and moves.
pub struct Endpoint {
    config: Config,
    counters: Counters,
    transmits: VecDeque<Transmit>,
    notices: VecDeque<Notice>,
}

impl Endpoint {
    /// An endpoint with this configuration. `rng` must be a cryptographically secure generator seeded by the system.
    pub fn new(config: Config, rng: impl CryptoRng + Send + 'static, now: Instant) -> Result<Self, ConfigError> {
        config.check()?;
        drop((rng, now));
        Ok(Self { config, counters: Counters::default(), transmits: VecDeque::new(), notices: VecDeque::new() })
    }

    /// Takes in a datagram that arrived on `local` from `remote`. IPv4-mapped addresses must have been made IPv4 ones.
    pub fn handle_datagram(&mut self, now: Instant, local: IpAddr, remote: SocketAddr, data: &[u8], host: &mut dyn Host) {
        let _ = (now, local, remote, data, host);
        self.counters.received = self.counters.received.saturating_add(1);
    }

    /// Takes in a local event.
    pub fn handle_event(&mut self, now: Instant, event: Event, host: &mut dyn Host) {
        let _ = (now, event, host, &self.config);
    }

    /// Does what is due. To be called when [`Self::poll_timeout`] says so; calling it at any other time is harmless.
    pub fn handle_timeout(&mut self, now: Instant, host: &mut dyn Host) {
        let _ = (now, host);
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next notice. The oldest are lost if nobody asks for very long.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// All associations, by key.
    pub fn peers(&self) -> impl Iterator<Item = PeerView> + '_ {
        std::iter::empty()
    }

    /// What became of datagrams.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }
}
