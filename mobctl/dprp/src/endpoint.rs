//! The endpoint: what goes in, what comes out.

use crate::association::{Path, Peers, Ping};
use crate::claimant::{Mine, State};
use crate::config::{Config, ConfigError, Prefix};
use crate::cookie::Baker;
use crate::correspondent::Owner;
use crate::handshake::Handshakes;
use crate::host::{Flow, Host};
use crate::key::PublicKey;
use crate::message::Message;
use crate::moving::Relocation;
use crate::notice::{Counters, MoveView, News, Notice, PeerView};
use crate::resume::Prepared;
use crate::time::Instant;
use crate::timer::{PeerId, Timer, Timers, doubled, jittered};
use crate::wire::Packet;
use rand_core::CryptoRng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Most notices that wait for somebody to ask.
const NOTICES_MAX: usize = 4096;
/// Datagrams for which room is kept.
const TRANSMITS_KEPT: usize = 64;
/// Keys that are not the current ones are dropped when unused for this many ping intervals.
const RETIRE_PINGS: u32 = 5;

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
    /// What the kernel had prepared when this endpoint began: moves of this host, which go on if their new address is among
    /// `addresses`, this host's own; and of peers, who have 20 s to ask again. To be told after the
    /// first flows.
    Prepared {
        /// All of it.
        moves: Vec<Prepared>,
        /// The addresses of this host that are up.
        addresses: Vec<IpAddr>,
    },
    /// What [`Endpoint::poll_query`] asked for: fresh addresses of a peer's name. Only a hint: keys decide who it is.
    Resolved {
        /// The name.
        name: String,
        /// Its addresses now, of both families.
        addresses: Vec<IpAddr>,
    },
}

/// One host's end of the protocol: all its associations, claims and moves.
pub struct Endpoint {
    pub(crate) config: Config,
    pub(crate) rng: Box<dyn CryptoRng + Send>,
    pub(crate) own: PublicKey,
    pub(crate) incarnation: u64,
    pub(crate) baker: Baker,
    /// Number of this host's last move.
    pub(crate) generation: u32,
    pub(crate) counters: Counters,
    transmits: VecDeque<Transmit>,
    notices: VecDeque<Notice>,
    /// Names that somebody ought to resolve.
    pub(crate) queries: VecDeque<String>,
    pub(crate) timers: Timers,
    pub(crate) peers: Peers,
    pub(crate) handshakes: Handshakes,
    /// This host's flows that lead to targets.
    pub(crate) mine: BTreeMap<Flow, Mine>,
    /// Those of them that wait for an association with the owner of an address.
    pub(crate) wanted: BTreeMap<IpAddr, BTreeSet<Flow>>,
    /// Whose claim each flow of this host is.
    pub(crate) owners: BTreeMap<Flow, Owner>,
    /// Batches of claims that wait for their proof, oldest first; some of them are through.
    pub(crate) offered: VecDeque<(PeerId, u32)>,
    pub(crate) relocations: Vec<Relocation>,
    /// Moves of peers that the kernel had prepared when this endpoint began.
    pub(crate) leftovers: Vec<(Flow, u32)>,
    /// See [`Endpoint::revision`].
    pub(crate) revision: u64,
    /// Made from a snapshot, and not yet compared with the kernel.
    pub(crate) restored: bool,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("own", &self.own).field("peers", &self.peers.all.len()).finish_non_exhaustive()
    }
}

/// How an authenticated message came in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) now: Instant,
    pub(crate) peer: PeerId,
    /// Index of the keys that it came with; the answer goes with the same.
    pub(crate) index: u32,
    pub(crate) path: Path,
}

impl Endpoint {
    /// An endpoint with this configuration. `rng` must be a cryptographically secure generator seeded by the system.
    pub fn new(config: Config, rng: impl CryptoRng + Send + 'static, now: Instant) -> Result<Self, ConfigError> {
        config.check()?;
        let mut rng: Box<dyn CryptoRng + Send> = Box::new(rng);
        // Nothing is due at the beginning; see `restore` for what a restart finds.
        let _ = now;
        Ok(Self {
            own: config.host_key.public(),
            incarnation: rng.next_u64(),
            baker: Baker::new(&mut *rng),
            generation: config.generation,
            config,
            rng,
            counters: Counters::default(),
            transmits: VecDeque::new(),
            notices: VecDeque::new(),
            queries: VecDeque::new(),
            timers: Timers::default(),
            peers: Peers::default(),
            handshakes: Handshakes::default(),
            mine: BTreeMap::new(),
            wanted: BTreeMap::new(),
            owners: BTreeMap::new(),
            offered: VecDeque::new(),
            relocations: Vec::new(),
            leftovers: Vec::new(),
            revision: 0,
            restored: false,
        })
    }

    /// Takes in a datagram that arrived on `local` from `remote`. IPv4-mapped addresses must have been made IPv4 ones.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        local: IpAddr,
        remote: SocketAddr,
        data: &[u8],
        host: &mut dyn Host,
    ) {
        count(&mut self.counters.received);
        if local.is_ipv4() != remote.is_ipv4() {
            return count(&mut self.counters.malformed);
        }
        let path = Path { local, remote };
        match Packet::parse(data) {
            None => count(&mut self.counters.malformed),
            Some(Packet::Hello { noise }) => self.on_hello(now, path, noise),
            Some(Packet::Answer { receiver, noise }) => self.on_answer(now, path, receiver, noise),
            Some(Packet::Retry { receiver, cookie }) => self.on_retry(now, path, receiver, cookie),
            Some(Packet::Finish { receiver, noise }) => self.on_finish(now, path, receiver, noise, host),
            Some(Packet::Sealed { receiver, counter, sealed }) => {
                self.on_sealed(now, path, receiver, counter, sealed, host);
            }
        }
    }

    /// Takes in a local event.
    pub fn handle_event(&mut self, now: Instant, event: Event, host: &mut dyn Host) {
        match event {
            Event::Flows(flows) => self.on_flows(now, flows, host),
            Event::Move { old, new, old_usable } => self.on_move_event(now, old, new, old_usable, host),
            Event::Prepared { moves, addresses } => self.on_prepared(now, &moves, &addresses, host),
            Event::Resolved { name, addresses } => self.on_resolved(now, &name, &addresses),
        }
    }

    /// Does what is due. To be called when [`Self::poll_timeout`] says so, after [`Self::poll_transmit`] has nothing more:
    /// what is due may have to follow what was sent. Calling it at any other time is harmless.
    pub fn handle_timeout(&mut self, now: Instant, host: &mut dyn Host) {
        while let Some(timer) = self.timers.pop(now) {
            match timer {
                Timer::Dial(index) => self.on_dial_timer(now, index),
                Timer::HalfOpen(index) => self.handshakes.forget_half_open(index),
                Timer::Silence(address) => self.redial(now, address, host),
                Timer::Confirm(peer, index) => self.on_confirm_timer(now, peer, index),
                Timer::Upkeep(peer) => self.on_upkeep(now, peer),
                Timer::Offer(peer, first) => self.on_offer_timer(now, peer, first, host),
                Timer::Reclaim(peer) => self.on_reclaim_timer(now, peer, host),
                Timer::Release(peer) => self.on_release_timer(now, peer),
                Timer::Move(peer, number) => self.on_move_timer(now, peer, number, host),
                Timer::Seek(peer) => self.seek(now, peer),
                Timer::Ahead(peer, number) => self.on_ahead_timer(now, peer, number, host),
                Timer::Again(peer) => self.on_again_timer(now, peer, host),
                Timer::Pending(peer, number) => self.on_pending_timer(now, peer, number, host),
                Timer::Leftovers => self.on_leftovers_timer(host),
            }
        }
    }

    /// Changes where associations are started to; see [`Config::targets`]. What is claimed stays claimed.
    pub fn aim(&mut self, targets: Vec<Prefix>) {
        self.config.targets = targets;
        self.forget_unwanted();
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let next = self.transmits.pop_front();
        if next.is_none() {
            // There were as many as there are peers, perhaps.
            self.transmits.shrink_to(TRANSMITS_KEPT);
        }
        next
    }

    /// The next notice. The oldest are lost if nobody asks for very long.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// This host's addresses that its claimed flows are at.
    #[must_use]
    pub fn homes(&self) -> BTreeSet<IpAddr> {
        self.peers.all.values().flat_map(|peer| peer.claimant.confirmed.values().map(|claim| claim.at)).collect()
    }

    /// All associations.
    pub fn peers(&self) -> impl Iterator<Item = PeerView> + '_ {
        self.peers.all.values().filter_map(|peer| {
            let path = peer.paths.first()?;
            let moves = peer.moves.iter().map(|(number, moving)| MoveView {
                number: *number,
                old: moving.old,
                new: moving.path.local,
                flows: moving.flows.len(),
                started: moving.started,
                tries: moving.tries,
                doubt: moving.doubt,
            });
            Some(PeerView {
                key: peer.key,
                name: peer.name.clone(),
                address: path.remote,
                local: path.local,
                established: peer.established,
                heard: peer.heard,
                round_trip: peer.round_trip.smooth(),
                confirmed: peer.claimant.confirmed.len(),
                unconfirmed: peer.claimant.unconfirmed(),
                claims: peer.correspondent.live(),
                moves: moves.collect(),
                pending: peer.correspondent.pending.len(),
            })
        })
    }

    /// The peer that has confirmed this host's claim of a flow.
    #[must_use]
    pub fn claimed(&self, flow: &Flow) -> Option<PublicKey> {
        match self.mine.get(flow)?.state {
            State::Confirmed(id, _) => self.peers.get(id).map(|peer| peer.key),
            _ => None,
        }
    }

    /// The peer whose claim a flow of this host is.
    #[must_use]
    pub fn owner(&self, flow: &Flow) -> Option<PublicKey> {
        self.peers.get(self.owners.get(flow)?.peer).map(|peer| peer.key)
    }

    /// Handshakes that others have begun and not finished.
    #[must_use]
    pub fn half_open(&self) -> usize {
        self.handshakes.half_open_count()
    }

    /// What became of datagrams.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn on_sealed(&mut self, now: Instant, path: Path, receiver: u32, counter: u64, sealed: &[u8], host: &mut dyn Host) {
        let Some(id) = self.peers.by_index(receiver) else { return count(&mut self.counters.unknown_index) };
        let Some(peer) = self.peers.get_mut(id) else { return };
        let Some(channel) = peer.channel_mut(receiver) else { return };
        if !channel.replay.is_new(counter) {
            return count(&mut self.counters.replayed);
        }
        let Some(message) = channel.transport.open(counter, sealed) else { return count(&mut self.counters.forged) };
        channel.replay.mark(counter);
        channel.used = now;
        peer.heard = now;
        if let Some(unconfirmed) = peer.take_unconfirmed(receiver) {
            self.on_confirmed(now, id, unconfirmed, host);
        }
        match Message::parse(&message) {
            None => count(&mut self.counters.nonsense),
            Some(message) => self.on_message(Arrival { now, peer: id, index: receiver, path }, message, host),
        }
    }

    fn on_message(&mut self, arrival: Arrival, message: Message, host: &mut dyn Host) {
        match message {
            Message::Ready => {}
            Message::Ping { nonce } => self.reply(arrival, &Message::Pong { nonce }),
            Message::Pong { nonce } => self.on_pong(arrival, nonce),
            Message::Claim { first, bundle, flows } => self.on_claim(arrival, first, bundle, &flows, host),
            Message::ClaimChallenge { first, token } => self.on_claim_challenge(arrival, first, token),
            Message::ClaimProof { first, token } => self.on_claim_proof(arrival, first, token, host),
            Message::ClaimAck { first, statuses } => self.on_claim_ack(arrival, first, &statuses, host),
            Message::Release { serial, ranges } => self.on_release(arrival, serial, &ranges, host),
            Message::Released { serial } => self.on_released(arrival, serial),
            Message::Move(request) => self.on_move(arrival, &request, host),
            Message::MoveChallenge { number, token, refused } => {
                self.on_move_challenge(arrival, number, token, refused);
            }
            Message::MoveResponse { number, token } => self.on_move_response(arrival, number, token, host),
            Message::MoveCommit { number, part, parts, refused } => {
                self.on_move_commit(arrival, number, (part, parts), &refused, host);
            }
            Message::MoveRefused { number, reason } => self.on_move_refused(arrival, number, reason, host),
        }
    }

    fn on_pong(&mut self, arrival: Arrival, nonce: u32) {
        let Some(peer) = self.peers.get_mut(arrival.peer) else { return };
        let Some(ping) = peer.ping.filter(|ping| ping.nonce == nonce) else { return };
        if ping.tries == 0 {
            peer.round_trip.sample(arrival.now.since(ping.sent));
        }
        peer.ping = None;
        let wait = jittered(self.config.timers.ping, &mut *self.rng);
        self.timers.set(Timer::Upkeep(arrival.peer), arrival.now.after(wait));
    }

    /// What an association needs from time to time.
    fn on_upkeep(&mut self, now: Instant, id: PeerId) {
        let timers = self.config.timers;
        let Some(peer) = self.peers.get_mut(id) else { return };
        for index in peer.retire(now, timers.ping.saturating_mul(RETIRE_PINGS)) {
            self.peers.unbind_index(index);
        }
        let Some(peer) = self.peers.get_mut(id) else { return };
        if let Some(correspondent) = peer.correspondent.there() {
            correspondent.forget_ended(now, timers.idle);
        }
        peer.tidy();
        let worn = peer.channels.first().is_some_and(|channel| channel.is_worn(now, timers.rekey));
        if worn && !peer.is_idle() {
            peer.rekeying = true;
            if let Some(path) = peer.paths.first().copied() {
                self.dial(now, path, Some(id));
            }
        }
        let Some(peer) = self.peers.get_mut(id) else { return };
        if peer.is_idle() {
            if now.since(peer.heard) >= timers.idle {
                return self.remove_peer(now, id);
            }
            peer.ping = None;
        } else if peer.channels.is_empty() {
            // After a restart: there is nobody to ping, the association comes first.
            let tries = peer.ping.map_or(2, |ping| ping.tries.saturating_add(1));
            peer.ping = Some(Ping { nonce: 0, sent: now, tries });
        } else if !peer.claimant.confirmed.is_empty() && peer.moves.is_empty() {
            let answered = peer.ping.is_none_or(|ping| peer.heard >= ping.sent);
            if !answered {
                if let Some(ping) = &mut peer.ping {
                    ping.tries = ping.tries.saturating_add(1);
                }
            } else if now.since(peer.heard) >= timers.ping / 2 {
                peer.ping = Some(Ping { nonce: self.rng.next_u32(), sent: now, tries: 0 });
            } else {
                peer.ping = None;
            }
        } else {
            peer.ping = None;
        }
        let wait = match (peer.ping, peer.paths.first().copied()) {
            (Some(ping), Some(path)) => {
                let wait = doubled(peer.round_trip.timeout(timers.retry), ping.tries, timers.ping);
                if ping.tries >= 2 {
                    self.dial(now, path, Some(id));
                    self.seek(now, id);
                }
                self.send(id, path, &Message::Ping { nonce: ping.nonce });
                wait
            }
            _ => timers.ping,
        };
        let wait = jittered(wait, &mut *self.rng);
        self.timers.set(Timer::Upkeep(id), now.after(wait));
    }

    /// Forgets an association to which nothing is tied.
    pub(crate) fn remove_peer(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.remove(id) else { return };
        self.changed();
        for timer in [Timer::Upkeep(id), Timer::Reclaim(id), Timer::Release(id), Timer::Again(id), Timer::Seek(id)] {
            self.timers.cancel(timer);
        }
        if !peer.channels.is_empty() {
            self.notice(now, News::AssociationDown { peer: peer.key });
        }
    }

    /// Something that a restart must not lose has changed.
    pub(crate) fn changed(&mut self) {
        self.revision = self.revision.wrapping_add(1);
    }

    pub(crate) fn notice(&mut self, at: Instant, news: News) {
        if self.notices.len() >= NOTICES_MAX {
            self.notices.pop_front();
        }
        self.notices.push_back(Notice { at, news });
    }

    pub(crate) fn transmit(&mut self, path: Path, data: Vec<u8>) {
        count(&mut self.counters.sent);
        self.transmits.push_back(Transmit { local: Some(path.local), remote: path.remote, data });
    }

    /// Sends a message with the current keys.
    pub(crate) fn send(&mut self, id: PeerId, path: Path, message: &Message) {
        let current = self.peers.get(id).and_then(|peer| peer.channels.first()).map(|channel| channel.local_index);
        if let Some(index) = current {
            self.send_with(id, index, path, message);
        }
    }

    /// Answers a message, to where it came from, with the keys that it came with: the sender has them.
    pub(crate) fn reply(&mut self, arrival: Arrival, message: &Message) {
        self.send_with(arrival.peer, arrival.index, arrival.path, message);
    }

    fn send_with(&mut self, id: PeerId, index: u32, path: Path, message: &Message) {
        let Some(channel) = self.peers.get_mut(id).and_then(|peer| peer.channel_mut(index)) else { return };
        let counter = channel.counter;
        let Some(next) = counter.checked_add(1) else { return };
        channel.counter = next;
        if let Some(sealed) = channel.transport.seal(counter, &message.write()) {
            let packet = Packet::Sealed { receiver: channel.remote_index, counter, sealed: &sealed };
            self.transmit(path, packet.write());
        }
    }
}

/// Adds one.
pub(crate) fn count(counter: &mut u64) {
    *counter = counter.saturating_add(1);
}
