//! Taking up what a daemon before this one left: what it wrote down may be late, or lost, and the kernel has what it
//! prepared.

use crate::claimant::wire;
use crate::endpoint::Endpoint;
use crate::host::{Flow, Half, Host};
use crate::moving::Relocation;
use crate::time::Instant;
use crate::timer::{PeerId, Timer};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// A rebind that the kernel has prepared, and neither committed nor taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The flow's stack side.
    pub flow: Flow,
    /// The half that changes.
    pub half: Half,
    /// The address of that half now.
    pub old: IpAddr,
    /// The address that it was to get.
    pub new: IpAddr,
    /// Number of the move.
    pub generation: u32,
    /// Nothing of this flow is sent before the commit.
    pub hold: bool,
}

impl Endpoint {
    /// After a restart: flows that the kernel has already at another address than the claim says. Their move was committed
    /// here, or on both ends, after the snapshot: the peer is asked once more.
    pub(crate) fn reconcile(&mut self, now: Instant, host: &mut dyn Host) {
        if !std::mem::take(&mut self.restored) {
            return;
        }
        let ids: Vec<PeerId> = self.peers.all.keys().copied().collect();
        for id in ids {
            let mut elsewhere = BTreeMap::<(IpAddr, IpAddr), BTreeSet<u32>>::new();
            let Some(peer) = self.peers.get_mut(id) else { continue };
            let claims = peer.claimant.there().into_iter().flat_map(|claimant| claimant.confirmed.iter_mut());
            for (number, claim) in claims {
                let wire = wire(&claim.flow, host).local.ip();
                claim.ahead = wire != claim.at;
                if claim.ahead {
                    elsewhere.entry((claim.at, wire)).or_default().insert(*number);
                }
            }
            for ((old, new), claims) in elsewhere {
                self.start_moves(now, id, Relocation { old, new, old_usable: false }, None, claims, host);
            }
            self.ask_at_home(now, id, host);
        }
    }

    /// Has the peer confirm where flows are that this host left nowhere, and of which the peer may believe otherwise.
    pub(crate) fn ask_at_home(&mut self, now: Instant, id: PeerId, host: &mut dyn Host) {
        let Some(peer) = self.peers.get(id) else { return };
        let mut homes = BTreeMap::<IpAddr, BTreeSet<u32>>::new();
        for (number, claim) in peer.claimant.confirmed.iter() {
            let left = self.relocations.iter().any(|relocation| relocation.old == claim.at);
            if claim.unsure && claim.moving.is_none() && !claim.stuck && !left {
                homes.entry(claim.at).or_default().insert(*number);
            }
        }
        for (at, ids) in homes {
            self.start_moves(now, id, Relocation { old: at, new: at, old_usable: true }, None, ids, host);
        }
    }

    /// See [`Event::Prepared`](crate::Event::Prepared).
    pub(crate) fn on_prepared(&mut self, now: Instant, moves: &[Prepared], addresses: &[IpAddr], host: &mut dyn Host) {
        let of = |half| moves.iter().filter(move |prepared| prepared.half == half);
        let mut own = BTreeMap::<(IpAddr, IpAddr, bool), Vec<(Flow, u32)>>::new();
        for prepared in of(Half::Local) {
            let flows = own.entry((prepared.old, prepared.new, !prepared.hold)).or_default();
            flows.push((prepared.flow, prepared.generation));
        }
        for ((old, new, old_usable), flows) in own {
            if old != new && addresses.contains(&new) {
                self.on_move_event(now, old, new, old_usable, host);
            } else if addresses.contains(&old) {
                // This host is where it was: nobody else would end this.
                host.abort(Half::Local, &flows);
                self.on_move_event(now, new, old, false, host);
            }
        }
        self.leftovers = of(Half::Remote).map(|prepared| (prepared.flow, prepared.generation)).collect();
        if !self.leftovers.is_empty() {
            self.timers.set(Timer::Leftovers, now.after(self.config.timers.pending));
        }
    }

    /// The movers had time to ask again: what they prepared and this host knows nothing of is taken back.
    pub(crate) fn on_leftovers_timer(&mut self, host: &mut dyn Host) {
        let mut left = std::mem::take(&mut self.leftovers);
        left.retain(|(flow, generation)| !self.is_awaited(flow, *generation));
        if !left.is_empty() {
            host.abort(Half::Remote, &left);
        }
    }

    /// Whether a claim of a peer waits for this move.
    fn is_awaited(&self, flow: &Flow, generation: u32) -> bool {
        let claim = self
            .owners
            .get(flow)
            .and_then(|owner| self.peers.get(owner.peer)?.correspondent.claims.get(&owner.number?));
        claim.is_some_and(|claim| claim.pending == Some(generation))
    }
}
