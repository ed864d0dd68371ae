//! Claims, the side that confirms them.
//!
//! A claim is confirmed only after its sender has proved, while the connection
//! lived, that it receives at the flow's wire address. From then on the claim
//! is that key's for as long as the connection lives.

use crate::association::Path;
use crate::claimant::{is_claimable, wire};
use crate::codec::{Range, in_ranges};
use crate::correspondent::{Owner, Theirs, few};
use crate::endpoint::{Arrival, Endpoint};
use crate::host::{Flow, Half, Host};
use crate::message::{Message, Token};
use crate::notice::ClaimStatus;
use crate::time::Instant;
use crate::timer::PeerId;
use std::collections::BTreeMap;

/// Batches of one peer that wait for their proof, and answers kept for repeating.
const BATCHES_MAX: usize = 16;

/// A batch of claims that waits for its proof.
#[derive(Debug)]
pub(crate) struct Offered {
    first: u32,
    bundle: u16,
    path: Path,
    token: Token,
    /// Stack sides, and whether and as which instance they can be confirmed.
    flows: Vec<(Flow, Result<u64, ClaimStatus>)>,
    /// The peer's own words: wire sides, in its direction.
    claimed: Vec<Flow>,
    pub(crate) began: Instant,
}

/// What was answered to a batch.
#[derive(Debug)]
pub(crate) struct Acknowledged {
    first: u32,
    path: Path,
    statuses: Vec<ClaimStatus>,
    pub(crate) told: Instant,
}

impl Endpoint {
    /// ACG (claim).
    pub(crate) fn on_claim(
        &mut self,
        arrival: Arrival,
        first: u32,
        bundle: u16,
        claimed: &[Flow],
        host: &mut dyn Host,
    ) {
        let id = arrival.peer;
        let Some(peer) = self.peers.get(id) else { return };
        let known = peer.correspondent.offers.iter().find(|offer| offer.first == first);
        if let Some(offer) = known.filter(|offer| offer.path.remote == arrival.path.remote && offer.claimed == claimed)
        {
            let token = offer.token;
            return self.reply(arrival, &Message::ClaimChallenge { first, token });
        }
        let flows: Vec<(Flow, Result<u64, ClaimStatus>)> = (first..)
            .zip(claimed)
            .map(|(number, name)| {
                let wire = name.mirrored();
                // A displaced flow has another stack side than its claimer knows of.
                let flow = host.stack(&wire).unwrap_or(wire);
                (flow, self.examine(id, number, (&flow, &wire), arrival.path, host))
            })
            .collect();
        if flows.iter().all(|(_, verdict)| verdict.is_err()) {
            // There is nothing to prove. The answer is shorter than the claim.
            let statuses = flows.into_iter().filter_map(|(_, verdict)| verdict.err()).collect();
            return self.reply(arrival, &Message::ClaimAck { first, statuses });
        }
        let mut token = Token::default();
        self.rng.fill_bytes(&mut token);
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.correspondent.offers.retain(|offer| offer.first != first);
        if peer.correspondent.offers.len() >= BATCHES_MAX {
            peer.correspondent.offers.pop_front();
        }
        let offer =
            Offered { first, bundle, path: arrival.path, token, flows, claimed: claimed.to_vec(), began: arrival.now };
        few(&mut peer.correspondent.offers);
        peer.correspondent.offers.push_back(offer);
        self.offered.push_back((id, first));
        self.forget_offers();
        self.reply(arrival, &Message::ClaimChallenge { first, token });
    }

    /// Keeps no more batches than the limit of half-open handshakes, those of all peers together: the claimer repeats what
    /// is forgotten.
    fn forget_offers(&mut self) {
        while self.offered.len() > self.config.limits.half_open
            && let Some((id, first)) = self.offered.pop_front()
        {
            if let Some(peer) = self.peers.get_mut(id) {
                peer.correspondent.offers.retain(|offer| offer.first != first);
            }
        }
    }

    /// Whether the claim of the flow with these two sides could be confirmed, and for which instance.
    fn examine(
        &self,
        id: PeerId,
        number: u32,
        (flow, name): (&Flow, &Flow),
        path: Path,
        host: &mut dyn Host,
    ) -> Result<u64, ClaimStatus> {
        if !is_claimable(flow) || !is_claimable(name) {
            return Err(ClaimStatus::Invalid);
        }
        let here = name.remote.ip() == path.remote.ip();
        // Address translation hides the flow, too: that says more.
        let instance =
            host.instance(flow).ok_or(if here { ClaimStatus::NotFound } else { ClaimStatus::WrongAddress })?;
        // An owner of an earlier connection with the same addresses and ports owns nothing of this one.
        let owner = self.owners.get(flow).filter(|owner| owner.instance == instance);
        if owner.is_some_and(|owner| owner.peer == id && owner.number == Some(number)) {
            return Ok(instance);
        }
        // The name must be the flow's own, not what another one with the same stack side was once called.
        if wire(flow, host).remote != name.remote || !here {
            return Err(ClaimStatus::WrongAddress);
        }
        if owner.is_some_and(|owner| owner.peer != id) {
            return Err(ClaimStatus::Taken);
        }
        let correspondent = &self.peers.get(id).ok_or(ClaimStatus::Full)?.correspondent;
        match correspondent.claims.get(&number) {
            Some(_) => Err(ClaimStatus::Invalid),
            None if correspondent.claims.len() >= self.config.limits.claims => Err(ClaimStatus::Full),
            None => Ok(instance),
        }
    }

    /// ACG (response) of a claim.
    pub(crate) fn on_claim_proof(&mut self, arrival: Arrival, first: u32, token: Token, host: &mut dyn Host) {
        let id = arrival.peer;
        let Some(peer) = self.peers.get_mut(id) else { return };
        let correspondent = &mut peer.correspondent;
        let remote = arrival.path.remote;
        let proves = |offer: &Offered| offer.first == first && offer.token == token && offer.path.remote == remote;
        let Some(at) = correspondent.offers.iter().position(proves) else {
            // A repetition, from the same address or from one that was proved since.
            let proved = peer.paths.iter().any(|path| path.remote == remote);
            let here = |ack: &&Acknowledged| proved || ack.path.remote == remote;
            let known = correspondent.acknowledged.iter().find(|ack| ack.first == first).filter(here);
            if let Some(statuses) = known.map(|ack| ack.statuses.clone()) {
                self.reply(arrival, &Message::ClaimAck { first, statuses });
            }
            return;
        };
        let Some(offer) = correspondent.offers.remove(at) else { return };
        correspondent.offers.shrink_to_fit();
        let mut statuses = Vec::with_capacity(offer.flows.len());
        for ((number, (flow, verdict)), name) in (first..).zip(offer.flows).zip(&offer.claimed) {
            // The connection must be the one that lived when the token was sent.
            let status = verdict.and_then(|instance| {
                let now = self.examine(id, number, (&flow, &name.mirrored()), arrival.path, host)?;
                if now == instance { Ok(instance) } else { Err(ClaimStatus::NotFound) }
            });
            statuses.push(match status {
                Ok(instance) => {
                    self.own(arrival.now, id, number, offer.bundle, flow, instance);
                    ClaimStatus::Confirmed
                }
                Err(status) => status,
            });
        }
        let Some(peer) = self.peers.get_mut(id) else { return };
        let acknowledged = &mut peer.correspondent.acknowledged;
        if acknowledged.len() >= BATCHES_MAX {
            acknowledged.pop_front();
        }
        few(acknowledged);
        acknowledged.push_back(Acknowledged {
            first,
            path: arrival.path,
            statuses: statuses.clone(),
            told: arrival.now,
        });
        self.reply(arrival, &Message::ClaimAck { first, statuses });
    }

    /// The claim holds.
    fn own(&mut self, now: Instant, peer: PeerId, number: u32, bundle: u16, flow: Flow, instance: u64) {
        self.changed();
        let former = self.owners.insert(flow, Owner { peer, number: Some(number), instance });
        if let Some(former) = former.filter(|former| former.number != Some(number) || former.peer != peer) {
            self.disown(now, &flow, former);
        }
        if let Some(peer) = self.peers.get_mut(peer) {
            let theirs = Theirs { flow, instance, bundle, generation: 0, pending: None, ended: None };
            peer.correspondent.claims.get_or_insert_with(number, || theirs);
        }
    }

    /// What an owner had of this flow, it has no more.
    fn disown(&mut self, now: Instant, flow: &Flow, owner: Owner) {
        self.changed();
        let Some(peer) = self.peers.get_mut(owner.peer) else { return };
        match owner.number {
            None => {
                peer.correspondent.orphans.remove(flow);
            }
            Some(number) => {
                if let Some(theirs) = peer.correspondent.claims.get_mut(&number) {
                    theirs.ended = Some(now);
                }
            }
        }
    }

    /// Claims of connections that are gone end.
    pub(crate) fn end_owned(&mut self, now: Instant, live: &BTreeMap<Flow, u64>) {
        let gone: Vec<(Flow, Owner)> = self
            .owners
            .iter()
            .filter(|(flow, owner)| live.get(flow) != Some(&owner.instance))
            .map(|(flow, owner)| (*flow, *owner))
            .collect();
        for (flow, owner) in gone {
            self.owners.remove(&flow);
            self.disown(now, &flow, owner);
        }
    }

    /// The peer gives claims up.
    pub(crate) fn on_release(&mut self, arrival: Arrival, serial: u32, ranges: &[Range], host: &mut dyn Host) {
        self.changed();
        let Some(peer) = self.peers.get_mut(arrival.peer) else { return };
        let mut pending = Vec::new();
        let correspondent = &mut peer.correspondent;
        // Who releases claims has the answer to their batch.
        correspondent.acknowledged.retain(|ack| !in_ranges(ranges, ack.first));
        correspondent.acknowledged.shrink_to_fit();
        for range in ranges {
            let numbers: Vec<u32> =
                correspondent.claims.range(range.first..=range.last).map(|(number, _)| *number).collect();
            for number in numbers {
                let Some(theirs) = correspondent.claims.remove(&number) else { continue };
                pending.extend(theirs.pending.map(|pending| (theirs.flow, pending)));
                let own = Owner { peer: arrival.peer, number: Some(number), instance: theirs.instance };
                if self.owners.get(&theirs.flow) == Some(&own) {
                    self.owners.remove(&theirs.flow);
                }
            }
        }
        correspondent.tidy();
        if !pending.is_empty() {
            host.abort(Half::Remote, &pending);
        }
        self.reply(arrival, &Message::Released { serial });
    }
}
