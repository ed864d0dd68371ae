//! Claims, the side that makes them: this host's flows, from the moment they
//! are wanted to the moment their connections are gone.

use crate::association::Path;
use crate::codec::{Range, is_host_address, merged, ranges};
use crate::endpoint::{Arrival, Endpoint, count};
use crate::few::Few;
use crate::host::{Flow, Half, Host};
use crate::message::{Message, RANGES_MAX, Token, claim_capacity};
use crate::moving::whither;
use crate::notice::{ClaimStatus, News};
use crate::rare::Part;
use crate::time::Instant;
use crate::timer::{PeerId, Timer, doubled, jittered};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// Batches of claims under way to one peer.
const OFFERS_MAX: usize = 16;
/// How often a batch or a release is repeated.
const TRIES_MAX: u32 = 8;

/// One of this host's flows that lead to targets.
#[derive(Debug)]
pub(crate) struct Mine {
    pub(crate) instance: u64,
    pub(crate) state: State,
    /// How often the claim was refused in a row.
    refused: u32,
}

impl Mine {
    /// As it was before a restart.
    pub(crate) fn restored(instance: u64, state: State) -> Self {
        Self { instance, state, refused: 0 }
    }
}

/// How far the claim of a flow is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// There is no association with the owner of this address.
    Wanted(IpAddr),
    /// In the queue of this peer.
    Queued(PeerId),
    /// Refused; waits until then.
    Waiting(PeerId, Instant),
    /// In this batch.
    Offered(PeerId, u32),
    /// Confirmed under this number.
    Confirmed(PeerId, u32),
}

/// A batch of claims under way.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) bundle: u16,
    /// This host's wire address of the flows.
    at: IpAddr,
    path: Path,
    pub(crate) flows: Vec<Flow>,
    /// Their wire sides: what the peer calls the same flows may differ in its stack side.
    names: Vec<Flow>,
    token: Option<Token>,
    began: Instant,
    tries: u32,
}

/// A claim that the peer has confirmed.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) flow: Flow,
    pub(crate) bundle: u16,
    /// This host's wire address of the flow, as both ends know it.
    pub(crate) at: IpAddr,
    /// This host's kernel is ahead of `at`: it has committed a move of which the peer has not said that it is complete.
    pub(crate) ahead: bool,
    /// The move that it takes part in.
    pub(crate) moving: Option<u32>,
    /// It was refused to move; it waits for the next move, or for another try.
    pub(crate) stuck: bool,
    /// What refused it may pass: another flow's addresses, a full table.
    pub(crate) again: bool,
    /// The peer may have it elsewhere than `at`: it has perhaps made a move of it that ended otherwise here.
    pub(crate) unsure: bool,
}

impl Claim {
    fn new(flow: Flow, bundle: u16, at: IpAddr) -> Self {
        Self { flow, bundle, at, ahead: false, moving: None, stuck: false, again: false, unsure: false }
    }
}

/// This host's claims towards one peer.
#[derive(Debug, Default)]
pub(crate) struct Claimant {
    /// Bundle for new claims from each address.
    pub(crate) homes: Few<IpAddr, u16>,
    pub(crate) queue: BTreeSet<Flow>,
    /// How often in a row flows that could not move were tried again.
    pub(crate) agains: u32,
    waiting: BTreeSet<(Instant, Flow)>,
    pub(crate) offers: Few<u32, Offer>,
    pub(crate) confirmed: Few<u32, Claim>,
    /// Numbers that the peer may hold and need not, with their bundles.
    pub(crate) releasing: Few<u32, u16>,
    /// Numbers that were perhaps used and are not remembered: released like those, and never part of a move.
    pub(crate) lost: Option<Range>,
    release: Option<Release>,
}

/// A release under way.
#[derive(Debug)]
struct Release {
    serial: u32,
    ranges: Vec<Range>,
    tries: u32,
}

impl Claimant {
    pub(crate) fn is_empty(&self) -> bool {
        self.unconfirmed() == 0 && self.confirmed.is_empty()
    }

    pub(crate) fn unconfirmed(&self) -> usize {
        let offered: usize = self.offers.values().map(|offer| offer.flows.len()).sum();
        self.queue.len().saturating_add(self.waiting.len()).saturating_add(offered)
    }
}

impl Part for Claimant {
    const NOTHING: &'static Self = &Self {
        homes: Few::new(),
        queue: BTreeSet::new(),
        agains: 0,
        waiting: BTreeSet::new(),
        offers: Few::new(),
        confirmed: Few::new(),
        releasing: Few::new(),
        lost: None,
        release: None,
    };

    /// Without claims there is nothing that a bundle could mean.
    fn is_nothing(&self) -> bool {
        self.is_empty() && self.releasing.is_empty() && self.lost.is_none() && self.release.is_none()
    }
}

/// Numbers of `offer`, which begins with `first`, and its flows.
pub(crate) fn numbered(first: u32, offer: &Offer) -> impl Iterator<Item = (u32, Flow)> + '_ {
    (first..).zip(offer.flows.iter().copied())
}

/// The flow's wire side.
pub(crate) fn wire(flow: &Flow, host: &mut dyn Host) -> Flow {
    host.wire(flow).unwrap_or(*flow)
}

/// These ranges and the lost one, as few as that takes.
pub(crate) fn with_lost(ranges: Vec<Range>, lost: Option<Range>) -> Vec<Range> {
    let all = ranges.into_iter().chain(lost).map(|range| (range, ()));
    merged(all.collect()).into_iter().map(|(range, ())| range).collect()
}

/// Whether a flow can be claimed at all.
pub(crate) fn is_claimable(flow: &Flow) -> bool {
    flow.local.is_ipv4() == flow.remote.is_ipv4()
        && [flow.local, flow.remote].iter().all(|end| end.port() != 0 && is_host_address(end.ip()))
}

impl Endpoint {
    /// Compares this host's connections with what is known of them. See [`Event::Flows`](crate::Event::Flows).
    pub(crate) fn on_flows(&mut self, now: Instant, flows: Vec<(Flow, u64)>, host: &mut dyn Host) {
        let live: BTreeMap<Flow, u64> = flows.into_iter().collect();
        self.reconcile(now, host);
        self.end_owned(now, &live);
        let ended = |(flow, mine): (&Flow, &Mine)| (live.get(flow) != Some(&mine.instance)).then_some(*flow);
        let ended: Vec<Flow> = self.mine.iter().filter_map(ended).collect();
        let mut touched = BTreeSet::new();
        for flow in ended {
            touched.extend(self.forget_mine(&flow, host));
        }
        if self.config.mobile {
            for (flow, instance) in live {
                if !self.mine.contains_key(&flow) && is_claimable(&flow) && self.is_target(&flow) {
                    touched.extend(self.want(now, flow, instance, host));
                }
            }
        }
        for id in touched {
            self.pump_claims(now, id, host);
            self.pump_releases(now, id);
        }
        let wanted: Vec<IpAddr> = self.wanted.keys().copied().collect();
        for address in wanted {
            self.redial(now, address, host);
        }
    }

    fn is_target(&self, flow: &Flow) -> bool {
        self.config.targets.iter().any(|prefix| prefix.contains(flow.remote.ip()))
    }

    /// Flows that wait for an association and no longer lead to a target wait no longer.
    pub(crate) fn forget_unwanted(&mut self) {
        let mut wanted = std::mem::take(&mut self.wanted);
        for flows in wanted.values_mut() {
            let (kept, unwanted): (BTreeSet<Flow>, _) = flows.iter().copied().partition(|flow| self.is_target(flow));
            *flows = kept;
            for flow in unwanted {
                self.mine.remove(&flow);
            }
        }
        wanted.retain(|_, flows| !flows.is_empty());
        self.wanted = wanted;
    }

    /// Queues a flow at its peer, which is returned, or has it wait for an association.
    fn want(&mut self, now: Instant, flow: Flow, instance: u64, host: &mut dyn Host) -> Option<PeerId> {
        let remote = wire(&flow, host).remote.ip();
        let id = self
            .peers
            .by_address(remote)
            .filter(|id| self.peers.get(*id).is_some_and(|peer| !peer.channels.is_empty()));
        let state = match id.and_then(|id| self.peers.get_mut(id).map(|peer| (id, peer))) {
            Some((id, peer)) => {
                peer.claimant.queue.insert(flow);
                State::Queued(id)
            }
            None => {
                self.wanted.entry(remote).or_default().insert(flow);
                State::Wanted(remote)
            }
        };
        self.mine.insert(flow, Mine { instance, state, refused: 0 });
        if id.is_none() {
            self.redial(now, remote, host);
        }
        id
    }

    /// Begins an association with the host at `address` if a flow waits for one.
    pub(crate) fn redial(&mut self, now: Instant, address: IpAddr, host: &mut dyn Host) {
        let Some(flow) = self.wanted.get(&address).and_then(|flows| flows.first()).copied() else { return };
        let local = wire(&flow, host).local.ip();
        self.dial(now, Path { local, remote: SocketAddr::new(address, self.config.port) }, None);
    }

    /// The host at `address` is this peer: the flows that waited for it are claimed.
    pub(crate) fn adopt_wanted(&mut self, now: Instant, id: PeerId, address: IpAddr, host: &mut dyn Host) {
        for flow in self.wanted.remove(&address).unwrap_or_default() {
            if let (Some(mine), Some(peer)) = (self.mine.get_mut(&flow), self.peers.get_mut(id)) {
                mine.state = State::Queued(id);
                peer.claimant.queue.insert(flow);
            }
        }
        self.pump_claims(now, id, host);
    }

    /// The connection is gone: whatever was claimed for it ends. Returns the peer.
    fn forget_mine(&mut self, flow: &Flow, host: &mut dyn Host) -> Option<PeerId> {
        let mine = self.mine.remove(flow)?;
        self.changed();
        match mine.state {
            State::Wanted(address) => {
                let flows = self.wanted.get_mut(&address)?;
                flows.remove(flow);
                if flows.is_empty() {
                    self.wanted.remove(&address);
                }
                None
            }
            State::Queued(id) => {
                self.peers.get_mut(id)?.claimant.queue.remove(flow);
                Some(id)
            }
            State::Waiting(id, until) => {
                self.peers.get_mut(id)?.claimant.waiting.remove(&(until, *flow));
                Some(id)
            }
            // The number is released when the batch is through.
            State::Offered(id, _) => Some(id),
            State::Confirmed(id, number) => {
                let peer = self.peers.get_mut(id)?;
                let claim = peer.claimant.confirmed.remove(&number)?;
                peer.claimant.releasing.insert(number, claim.bundle);
                if let Some(moving) = claim.moving {
                    host.abort(Half::Local, &[(*flow, moving)]);
                    self.leave_move(id, moving, number);
                }
                Some(id)
            }
        }
    }

    /// Sends as many batches of claims as may be under way.
    pub(crate) fn pump_claims(&mut self, now: Instant, id: PeerId, host: &mut dyn Host) {
        let limit = self.config.limits.claims;
        loop {
            let Some(peer) = self.peers.get_mut(id) else { return };
            if peer.channels.is_empty() || peer.claimant.offers.len() >= OFFERS_MAX {
                return;
            }
            let next = peer.claimant.there().and_then(|claimant| claimant.queue.pop_first());
            let Some(flow) = next else { return };
            if peer.claimant.confirmed.len() >= limit {
                count(&mut self.counters.limited);
                self.wait(now, id, flow);
                continue;
            }
            let name = wire(&flow, host);
            let (local, remote) = (name.local.ip(), name.remote.ip());
            if self.peers.by_address(remote) != Some(id) {
                // The peer is not there any more, or the flow leads elsewhere now.
                if let Some(mine) = self.mine.remove(&flow) {
                    self.want(now, flow, mine.instance, host);
                }
                continue;
            }
            let Some(peer) = self.peers.get_mut(id) else { return };
            let capacity = claim_capacity(local.is_ipv4());
            let (mut flows, mut names) = (vec![flow], vec![name]);
            while flows.len() < capacity
                && let Some(next) = peer.claimant.queue.first().copied()
                && let name = wire(&next, host)
                && (name.local.ip(), name.remote.ip()) == (local, remote)
            {
                peer.claimant.queue.pop_first();
                flows.push(next);
                names.push(name);
            }
            let port = peer.path(remote).filter(|path| path.remote.ip() == remote).map(|path| path.remote.port());
            let path = Path { local, remote: SocketAddr::new(remote, port.unwrap_or(self.config.port)) };
            let first = peer.numbers.claim.checked_add(1);
            let last = u32::try_from(flows.len()).ok().and_then(|count| peer.numbers.claim.checked_add(count));
            let (Some(first), Some(last)) = (first, last) else {
                // Four thousand million claims: a new incarnation of the daemon will count anew.
                count(&mut self.counters.limited);
                return flows.into_iter().for_each(|flow| self.wait(now, id, flow));
            };
            peer.numbers.claim = last;
            let bundle = peer.home(local);
            for flow in &flows {
                if let Some(mine) = self.mine.get_mut(flow) {
                    mine.state = State::Offered(id, first);
                }
            }
            let offer = Offer { bundle, at: local, path, flows, names, token: None, began: now, tries: 0 };
            peer.claimant.offers.insert(first, offer);
            self.send_offer(now, id, first);
        }
    }

    /// Sends a batch, or its proof, and sets the deadline for sending it again.
    fn send_offer(&mut self, now: Instant, id: PeerId, first: u32) {
        let timers = self.config.timers;
        let Some(peer) = self.peers.get_mut(id) else { return };
        let first_wait = peer.round_trip.timeout(timers.retry);
        let Some(offer) = peer.claimant.offers.get_mut(&first) else { return };
        let wait = doubled(first_wait, offer.tries, timers.retry_cap);
        // From a new address nothing new can be claimed, but an answer that was lost can be had again.
        offer.path.local = whither(&self.relocations, offer.at);
        let path = offer.path;
        // Every other time from the beginning: the peer may have forgotten the token.
        let message = match offer.token {
            Some(token) if offer.tries % 2 == 0 => Message::ClaimProof { first, token },
            _ => Message::Claim { first, bundle: offer.bundle, flows: offer.names.clone() },
        };
        self.send(id, path, &message);
        let wait = jittered(wait, &mut *self.rng);
        self.timers.set(Timer::Offer(id, first), now.after(wait));
    }

    pub(crate) fn on_offer_timer(&mut self, now: Instant, id: PeerId, first: u32, host: &mut dyn Host) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let Some(offer) = peer.claimant.offers.get_mut(&first) else { return };
        offer.tries = offer.tries.saturating_add(1);
        if offer.tries < TRIES_MAX {
            return self.send_offer(now, id, first);
        }
        let Some(offer) = peer.claimant.offers.remove(&first) else { return };
        peer.claimant.releasing.extend(numbered(first, &offer).map(|(number, _)| (number, offer.bundle)));
        let silent = peer.heard < offer.began;
        if silent {
            // Somebody else may be there now.
            self.peers.unbind_address(id, offer.path.remote.ip());
        }
        for flow in offer.flows {
            if self.mine.get(&flow).is_none_or(|mine| mine.state != State::Offered(id, first)) {
                continue;
            }
            if !silent {
                self.wait(now, id, flow);
            } else if let Some(mine) = self.mine.remove(&flow) {
                self.want(now, flow, mine.instance, host);
            }
        }
        self.pump_releases(now, id);
        self.pump_claims(now, id, host);
    }

    /// Has a flow wait before it is claimed again.
    fn wait(&mut self, now: Instant, id: PeerId, flow: Flow) {
        let timers = self.config.timers;
        let (Some(mine), Some(peer)) = (self.mine.get_mut(&flow), self.peers.get_mut(id)) else { return };
        let wait = doubled(timers.claim_retry, mine.refused, timers.silence_cap);
        let until = now.after(jittered(wait, &mut *self.rng));
        mine.refused = mine.refused.saturating_add(1);
        mine.state = State::Waiting(id, until);
        peer.claimant.waiting.insert((until, flow));
        self.set_reclaim_timer(id);
    }

    fn set_reclaim_timer(&mut self, id: PeerId) {
        let first = self.peers.get(id).and_then(|peer| peer.claimant.waiting.first());
        if let Some((until, _)) = first.copied() {
            self.timers.set(Timer::Reclaim(id), until);
        }
    }

    pub(crate) fn on_reclaim_timer(&mut self, now: Instant, id: PeerId, host: &mut dyn Host) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        while let Some((until, flow)) = peer.claimant.waiting.first().copied().filter(|(until, _)| *until <= now) {
            peer.claimant.waiting.remove(&(until, flow));
            peer.claimant.queue.insert(flow);
        }
        self.set_reclaim_timer(id);
        self.pump_claims(now, id, host);
    }

    pub(crate) fn on_claim_challenge(&mut self, arrival: Arrival, first: u32, token: Token) {
        let Some(peer) = self.peers.get_mut(arrival.peer) else { return };
        let Some(offer) = peer.claimant.offers.get_mut(&first) else { return };
        // What proves an address must have arrived there.
        if offer.path.local != arrival.path.local {
            return;
        }
        if offer.tries == 0 && offer.token.is_none() {
            peer.round_trip.sample(arrival.now.since(offer.began));
        }
        offer.token = Some(token);
        // The next thing to send is the proof: see `send_offer`.
        offer.tries = offer.tries.saturating_add(offer.tries % 2);
        self.send_offer(arrival.now, arrival.peer, first);
    }

    pub(crate) fn on_claim_ack(&mut self, arrival: Arrival, first: u32, statuses: &[ClaimStatus], host: &mut dyn Host) {
        let (id, now) = (arrival.peer, arrival.now);
        let Some(peer) = self.peers.get_mut(id) else { return };
        if peer.claimant.offers.get(&first).is_none_or(|offer| offer.flows.len() != statuses.len()) {
            return;
        }
        let Some(offer) = peer.claimant.offers.remove(&first) else { return };
        self.timers.cancel(Timer::Offer(id, first));
        let key = peer.key;
        let mut confirmed: usize = 0;
        for ((number, flow), status) in numbered(first, &offer).zip(statuses.iter().copied()) {
            let Some(peer) = self.peers.get_mut(id) else { return };
            let mine = self.mine.get_mut(&flow).filter(|mine| mine.state == State::Offered(id, first));
            match (mine, status) {
                (Some(mine), ClaimStatus::Confirmed) => {
                    mine.state = State::Confirmed(id, number);
                    mine.refused = 0;
                    let (bundle, at) = (offer.bundle, offer.at);
                    let claim = Claim::new(flow, bundle, at);
                    peer.claimant.confirmed.insert(number, claim);
                    confirmed = confirmed.saturating_add(1);
                }
                (None, ClaimStatus::Confirmed) => {
                    peer.claimant.releasing.insert(number, offer.bundle);
                }
                (Some(_), reason) => {
                    self.notice(now, News::ClaimRefused { peer: key, flow, reason });
                    self.wait(now, id, flow);
                }
                (None, _) => {}
            }
        }
        if confirmed > 0 {
            self.changed();
            self.notice(now, News::ClaimsConfirmed { peer: key, flows: confirmed });
            self.relocate(now, id, host);
        }
        self.pump_releases(now, id);
        self.pump_claims(now, id, host);
    }

    /// Tells the peer which claims have ended. Not during a move: both ends must agree on what it selects.
    pub(crate) fn pump_releases(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let claimant = &peer.claimant;
        let nothing = claimant.releasing.is_empty() && claimant.lost.is_none();
        if claimant.release.is_some() || nothing || !peer.moves.is_empty() || peer.channels.is_empty() {
            return;
        }
        let mut ranges = with_lost(ranges(claimant.releasing.keys().copied()), claimant.lost);
        ranges.truncate(RANGES_MAX);
        peer.numbers.release = peer.numbers.release.wrapping_add(1);
        peer.claimant.release = Some(Release { serial: peer.numbers.release, ranges, tries: 0 });
        self.send_release(now, id);
    }

    fn send_release(&mut self, now: Instant, id: PeerId) {
        let timers = self.config.timers;
        let Some(peer) = self.peers.get(id) else { return };
        let (Some(release), Some(path)) = (&peer.claimant.release, peer.paths.first().copied()) else { return };
        let wait = doubled(peer.round_trip.timeout(timers.retry), release.tries, timers.retry_cap);
        let message = Message::Release { serial: release.serial, ranges: release.ranges.clone() };
        self.send(id, path, &message);
        let wait = jittered(wait, &mut *self.rng);
        self.timers.set(Timer::Release(id), now.after(wait));
    }

    pub(crate) fn on_release_timer(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let Some(release) = &mut peer.claimant.release else { return };
        release.tries = release.tries.saturating_add(1);
        if release.tries < TRIES_MAX {
            return self.send_release(now, id);
        }
        // The peer finds out by itself: its connections are gone too.
        self.end_release(now, id);
    }

    pub(crate) fn on_released(&mut self, arrival: Arrival, serial: u32) {
        let Some(peer) = self.peers.get_mut(arrival.peer) else { return };
        if peer.claimant.release.as_ref().is_some_and(|release| release.serial == serial) {
            self.timers.cancel(Timer::Release(arrival.peer));
            self.end_release(arrival.now, arrival.peer);
        }
    }

    fn end_release(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        for range in peer.claimant.release.take().map(|release| release.ranges).unwrap_or_default() {
            let numbers: Vec<u32> = peer.claimant.releasing.range(range.first..=range.last).map(|(n, _)| *n).collect();
            for number in numbers {
                peer.claimant.releasing.remove(&number);
            }
            if peer.claimant.lost.is_some_and(|lost| range.first <= lost.first && lost.last <= range.last) {
                peer.claimant.lost = None;
            }
        }
        peer.claimant.tidy();
        self.changed();
        self.pump_releases(now, id);
    }

    /// The peer has forgotten what was claimed: it is claimed again. Flows that are moving stay: the peer's answer to the
    /// move decides.
    pub(crate) fn forget_claims_with(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let Some(claimant) = peer.claimant.there() else { return };
        let mut again: Vec<Flow> = Vec::new();
        claimant.confirmed.retain(|_, claim| {
            let keep = claim.moving.is_some();
            if !keep {
                again.push(claim.flow);
            }
            keep
        });
        for (first, offer) in std::mem::take(&mut claimant.offers) {
            self.timers.cancel(Timer::Offer(id, first));
            again.extend(offer.flows);
        }
        claimant.releasing.clear();
        claimant.lost = None;
        claimant.release = None;
        self.timers.cancel(Timer::Release(id));
        for flow in again {
            // The flows of a batch may be gone, or claimed elsewhere.
            let here = |mine: &&mut Mine| match mine.state {
                State::Offered(peer, _) | State::Confirmed(peer, _) => peer == id,
                _ => false,
            };
            if let Some(mine) = self.mine.get_mut(&flow).filter(here) {
                mine.state = State::Queued(id);
                claimant.queue.insert(flow);
            }
        }
    }

    /// The peer does not know this claim any more: it is made again after a while, if the connection lives.
    pub(crate) fn claim_again(&mut self, now: Instant, id: PeerId, number: u32) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let Some(claim) = peer.claimant.confirmed.remove(&number) else { return };
        // It may hold the number still, as one that has ended.
        peer.claimant.releasing.insert(number, claim.bundle);
        self.wait(now, id, claim.flow);
    }
}
