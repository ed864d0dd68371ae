//! Sending before the peer has committed.
//!
//! When the old path is gone and the challenge says that the peer accepts all
//! flows at the new address, the mover sends from there at once: it is *ahead*.
//! The response leaves first: what the kernel had kept, and what TCP sends when
//! it is told to, fills the queues of the path, and the response is what the
//! peer waits for.
//! That holds for a while only, shorter than the peer keeps accepting; without
//! a commit until then the flows are held again and the peer is asked anew.
//! Nor does a challenge count that may answer a Move of long ago: then the
//! commit decides.

use crate::association::Peer;
use crate::endpoint::Endpoint;
use crate::host::{Flow, Half, Host};
use crate::mover::results;
use crate::moving::{Moving, Relocation, whither};
use crate::time::Instant;
use crate::timer::{PeerId, Timer};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// This host's kernel commits a move before the peer has said that it did.
fn precede(peer: &mut Peer, number: u32, host: &mut dyn Host) {
    let Some(moving) = peer.moves.get_mut(&number) else { return };
    let command: Vec<(Flow, u32)> = moving.flows.values().map(|flow| (*flow, number)).collect();
    let committed = if command.is_empty() { Vec::new() } else { host.commit(Half::Local, &command) };
    let claims: Vec<u32> = moving.flows.keys().copied().collect();
    for (claim, result) in results(claims, committed) {
        if result.is_err() {
            moving.late.insert(claim);
        } else if let Some(claim) = peer.claimant.confirmed.get_mut(&claim) {
            claim.ahead = true;
        }
    }
}

impl Endpoint {
    /// The peer accepts all flows at the new address, and what proves that this host is there has left: they are sent from
    /// there.
    pub(crate) fn on_ahead_timer(&mut self, now: Instant, id: PeerId, number: u32, host: &mut dyn Host) {
        let lease = self.lease();
        let Some(peer) = self.peers.get_mut(id) else { return };
        let Some(moving) = peer.moves.get_mut(&number).filter(|moving| moving.token.is_some()) else { return };
        // A challenge that was long on its way says little of what the peer accepts now.
        if !moving.hold || moving.flows.is_empty() || now.since(moving.asked) > lease {
            return;
        }
        let first = moving.ahead_until.replace(now.after(lease)).is_none();
        if !first {
            return;
        }
        moving.resumed.get_or_insert(now);
        self.revision = self.revision.wrapping_add(1);
        precede(peer, number, host);
    }

    /// This host moves on from `address` before its moves there are complete. The peer commits those whose challenge came,
    /// or has done so already: so does this host, and accepts both addresses until the next move is through.
    pub(crate) fn catch_up(&mut self, id: PeerId, address: IpAddr, new: IpAddr, usable: bool, host: &mut dyn Host) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let left = |moving: &Moving| {
            let at = moving.path.local;
            // While all its addresses work, a move is waited for.
            at == address && (moving.hold || !usable) || moving.old == address && at != new
        };
        let catches_up = |moving: &Moving| left(moving) && moving.is_answered() && moving.ahead_until.is_none();
        let numbers: Vec<u32> =
            peer.moves.iter().filter(|(_, moving)| catches_up(moving)).map(|(number, _)| *number).collect();
        for number in numbers {
            precede(peer, number, host);
            self.timers.cancel(Timer::Ahead(id, number));
        }
    }

    /// How long flows are sent from the new address without a commit, and how late a challenge may come: together with the
    /// longest interval between two requests less than what a correspondent keeps a move prepared.
    pub(crate) fn lease(&self) -> Duration {
        self.config.timers.pending / 8
    }

    /// The peer has not committed for so long that it may not accept the new address any more: nothing is sent from there,
    /// and it is asked under another number.
    pub(crate) fn hold_again(&mut self, now: Instant, id: PeerId, number: u32, host: &mut dyn Host) {
        let Some(moving) = self.end_move(id, number) else { return };
        let Some(peer) = self.peers.get_mut(id) else { return };
        let (mut back, mut given_up) = (BTreeMap::<IpAddr, Vec<Flow>>::new(), Vec::new());
        for claim in moving.flows.keys() {
            if let Some(claim) = peer.claimant.confirmed.get_mut(claim) {
                claim.moving = None;
                claim.unsure |= moving.perhaps;
                if std::mem::take(&mut claim.ahead) {
                    back.entry(claim.at).or_default().push(claim.flow);
                } else {
                    given_up.push((claim.flow, number));
                }
            }
        }
        if !given_up.is_empty() {
            host.abort(Half::Local, &given_up);
        }
        // Both addresses are accepted again, as before.
        for (at, flows) in back {
            self.return_to(at, &flows, host);
        }
        let ids = moving.flows.into_keys().collect();
        let new = whither(&self.relocations, moving.path.local);
        self.start_moves(now, id, Relocation { old: moving.old, new, old_usable: false }, None, ids, host);
    }

    /// Puts flows back to the address that the peer knows, which this host's kernel had left too early.
    pub(crate) fn return_to(&mut self, at: IpAddr, flows: &[Flow], host: &mut dyn Host) {
        let Some(number) = self.generation.checked_add(1) else { return };
        self.generation = number;
        let command: Vec<(Flow, u32)> = flows.iter().map(|flow| (*flow, number)).collect();
        host.prepare(Half::Local, at, false, &command);
        host.commit(Half::Local, &command);
    }
}
