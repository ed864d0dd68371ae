//! Flows that do not move with the others: who refused them, where they are then, and when they are asked for again.

use crate::claimant::wire;
use crate::endpoint::{Arrival, Endpoint};
use crate::host::{Flow, Half, Host};
use crate::message::{Selection, Stays};
use crate::moving::Moving;
use crate::notice::{MoveRefusal, News, Refusal};
use crate::time::Instant;
use crate::timer::{PeerId, Timer, doubled, jittered};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Whether what hindered a flow may be gone after a while.
fn may_pass(reason: Refusal) -> bool {
    matches!(reason, Refusal::Conflict | Refusal::Full)
}

impl Endpoint {
    /// A flow that this host's own kernel does not let move.
    pub(crate) fn stays(&mut self, now: Instant, id: PeerId, number: u32, reason: Refusal) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let key = peer.key;
        let Some(claim) = peer.claimant.confirmed.get_mut(&number) else { return };
        claim.stuck = true;
        claim.again = may_pass(reason);
        let flow = claim.flow;
        self.notice(now, News::FlowStays { peer: key, flow, reason });
        if may_pass(reason) {
            self.set_again_timer(now, id);
        }
    }

    fn set_again_timer(&mut self, now: Instant, id: PeerId) {
        let timers = self.config.timers;
        let Some(peer) = self.peers.get(id) else { return };
        if !self.timers.is_set(Timer::Again(id)) {
            let wait = doubled(timers.claim_retry, peer.claimant.agains, timers.silence_cap);
            self.timers.set(Timer::Again(id), now.after(jittered(wait, &mut *self.rng)));
        }
    }

    pub(crate) fn on_again_timer(&mut self, now: Instant, id: PeerId, host: &mut dyn Host) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.claimant.agains = peer.claimant.agains.saturating_add(1);
        for claim in peer.claimant.confirmed.values_mut().filter(|claim| claim.again) {
            claim.again = false;
            claim.stuck = false;
        }
        self.relocate(now, id, host);
    }

    /// The path to the peer is perhaps another one, where nothing hinders what was refused. Not at once: a peer could have
    /// this done as often as it likes.
    pub(crate) fn try_again(&mut self, now: Instant, id: PeerId) {
        let Some(claimant) = self.peers.get_mut(id).and_then(|peer| peer.claimant.there()) else { return };
        claimant.agains = 0;
        self.timers.cancel(Timer::Again(id));
        self.hope(now, id);
    }

    /// What was refused, for whatever reason, will be tried again.
    fn hope(&mut self, now: Instant, id: PeerId) {
        let Some(claimant) = self.peers.get_mut(id).and_then(|peer| peer.claimant.there()) else { return };
        let mut any = false;
        for claim in claimant.confirmed.values_mut().filter(|claim| claim.stuck) {
            claim.again = true;
            any = true;
        }
        if any {
            self.set_again_timer(now, id);
        }
    }

    /// Takes back the move of the claims that were refused.
    pub(crate) fn stay(
        &mut self,
        now: Instant,
        id: PeerId,
        number: u32,
        moving: &Moving,
        refused: &BTreeMap<u32, Stays>,
        host: &mut dyn Host,
    ) {
        let mut stays = Vec::new();
        if let Some(peer) = self.peers.get_mut(id) {
            for (id, refused) in refused {
                let Some(claim) = peer.claimant.confirmed.get_mut(id) else { continue };
                let Some(flow) = moving.flows.get(id) else { continue };
                claim.ahead = false;
                if let Some(former) = moving.former.filter(|_| refused.at_former) {
                    claim.at = former.at;
                    claim.unsure = false;
                }
                stays.push((*flow, claim.at));
            }
        }
        let command: Vec<(Flow, u32)> = stays.iter().map(|(flow, _)| (*flow, number)).collect();
        if !command.is_empty() {
            host.abort(Half::Local, &command);
        }
        let mut back = BTreeMap::<IpAddr, Vec<Flow>>::new();
        for (flow, at) in stays {
            if wire(&flow, host).local.ip() != at {
                back.entry(at).or_default().push(flow);
            }
        }
        for (at, flows) in back {
            self.return_to(at, &flows, host);
        }
        for (claim, Stays { reason, .. }) in refused {
            let Some(peer) = self.peers.get_mut(id) else { return };
            if let Some(entry) = peer.claimant.confirmed.get_mut(claim) {
                entry.moving = None;
                entry.stuck = true;
                entry.again = may_pass(*reason);
            }
            if may_pass(*reason) {
                self.set_again_timer(now, id);
            }
            if matches!(reason, Refusal::Gone | Refusal::Unknown) {
                self.claim_again(now, id, *claim);
            }
        }
    }

    pub(crate) fn on_move_refused(&mut self, arrival: Arrival, number: u32, reason: MoveRefusal, host: &mut dyn Host) {
        let (id, now) = (arrival.peer, arrival.now);
        let Some(peer) = self.peers.get_mut(id) else { return };
        let key = peer.key;
        let Some(moving) = peer.moves.get(&number) else { return };
        let by_bundles = matches!(moving.selection, Selection::Bundles { .. });
        if reason == MoveRefusal::Mismatch && by_bundles {
            if moving.ahead_until.is_some() {
                return self.hold_again(now, id, number, host);
            }
            return self.list(now, id, number, host);
        }
        let Some(moving) = self.end_move(id, number) else { return };
        self.notice(now, News::MoveRefused { peer: key, number, reason });
        self.changed();
        let refused = moving.flows.keys().map(|claim| (*claim, Refusal::Kernel.into())).collect();
        self.stay(now, id, number, &moving, &refused, host);
        if reason == MoveRefusal::Translated {
            // A translator may go, and who is on the path can pretend that there is one.
            self.hope(now, id);
        }
        self.pump_releases(now, id);
    }
}
