//! Moves, the side that moves.
//!
//! Input first: the kernel accepts the new wire side before the peer is asked.
//! Nothing is given up before the peer has answered: a mover that hears nothing
//! keeps both addresses and asks again.
//! See `ahead` for what is done before the peer has committed.

use crate::association::Path;
use crate::claimant::Claim;
use crate::codec::{Range, is_host_address};
use crate::endpoint::{Arrival, Endpoint, count};
use crate::host::{Flow, Half, Host, KernelError};
use crate::message::{Message, Stays, Token};
use crate::moving::{Commit, Moving, Relocation, select, whither};
use crate::notice::{News, Refusal};
use crate::time::Instant;
use crate::timer::{PeerId, Timer, doubled, jittered};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Moves in progress towards one peer.
const MOVES_MAX: usize = 8;
/// Addresses that this host has left and may still have flows at.
const RELOCATIONS_MAX: usize = 16;
/// After so many unanswered requests the association is made anew besides.
pub(crate) const REDIAL_TRIES: u32 = 2;
/// After so many unanswered requests a move is in doubt.
const DOUBT_TRIES: u32 = 3;

/// Why the kernel refused, as it is told.
pub(crate) fn refusal(error: KernelError) -> Refusal {
    match error {
        KernelError::NotFound | KernelError::Other(_) => Refusal::Kernel,
        KernelError::Stale => Refusal::Stale,
        KernelError::Conflict => Refusal::Conflict,
        KernelError::Full => Refusal::Full,
    }
}

/// Results of a kernel command with the flows they are about; a missing result is an error.
pub(crate) fn results<T>(
    asked: impl IntoIterator<Item = T>,
    results: Vec<Result<(), KernelError>>,
) -> impl Iterator<Item = (T, Result<(), KernelError>)> {
    asked.into_iter().zip(results.into_iter().chain(std::iter::repeat(Err(KernelError::Other(0)))))
}

impl Endpoint {
    /// See [`Event::Move`](crate::Event::Move).
    pub(crate) fn on_move_event(
        &mut self,
        now: Instant,
        old: IpAddr,
        new: IpAddr,
        old_usable: bool,
        host: &mut dyn Host,
    ) {
        if old == new || old.is_ipv4() != new.is_ipv4() || !is_host_address(new) {
            return;
        }
        for relocation in &mut self.relocations {
            if relocation.new == old {
                relocation.new = new;
            }
        }
        self.relocations.retain(|relocation| relocation.old != new && relocation.old != old);
        if self.relocations.len() >= RELOCATIONS_MAX {
            self.relocations.remove(0);
        }
        self.relocations.push(Relocation { old, new, old_usable });
        self.changed();
        let peers: Vec<PeerId> = self.peers.all.keys().copied().collect();
        for id in peers {
            self.move_peer(now, id, Relocation { old, new, old_usable }, host);
        }
    }

    /// Begins the move of everything that one peer knows of at the old address.
    fn move_peer(&mut self, now: Instant, id: PeerId, relocation: Relocation, host: &mut dyn Host) {
        let Relocation { old, new, old_usable } = relocation;
        self.catch_up(id, old, new, old_usable, host);
        let lease = self.lease();
        let Some(peer) = self.peers.get_mut(id) else { return };
        // Flows that are there, and flows that are on their way: whether to hold them, and the move that is not complete.
        let mut there = BTreeMap::<Option<u32>, BTreeSet<u32>>::new();
        let mut heading = BTreeMap::<(bool, Option<u32>), BTreeSet<u32>>::new();
        let claims = peer.claimant.there().into_iter().flat_map(|claimant| claimant.confirmed.iter_mut());
        for (number, claim) in claims {
            let moving = claim.moving.and_then(|moving| peer.moves.get(&moving));
            let heads = moving.is_some_and(|moving| moving.path.local == old);
            if old_usable && heads && moving.is_some_and(|moving| !moving.hold && moving.is_answered()) {
                // All three addresses work, and the commit is about to come: one move after the other.
                continue;
            }
            if claim.at == old && !claim.ahead {
                // The old address goes while its move is on its way.
                let former = claim.moving.filter(|_| moving.is_some_and(|moving| moving.path.local == new));
                there.entry(former).or_default().insert(*number);
            } else if claim.at == old || heads {
                let hold = match moving {
                    // Sent from `old` by now, as long as the peer is known to accept that.
                    Some(moving) if heads && claim.ahead => {
                        let late = now.since(moving.asked) > lease;
                        !old_usable || moving.token.is_none() || moving.refused != 0 || late
                    }
                    // They keep to the path that they use.
                    Some(moving) if heads => moving.hold,
                    // Not sent from `old` any more, whether that works or not.
                    _ => true,
                };
                let former = claim.moving.filter(|_| claim.ahead);
                heading.entry((hold, former)).or_default().insert(*number);
            } else if claim.at != new {
                continue;
            }
            claim.stuck = false;
            claim.again = false;
        }
        let nothing = there.is_empty() && heading.is_empty();
        if !nothing {
            peer.claimant.agains = 0;
        }
        let address_only =
            nothing && peer.correspondent.live() > 0 && peer.path(old).is_some_and(|path| path.local == old);
        if !old_usable && let Some(path) = peer.path(old).filter(|path| path.local == old) {
            peer.set_path(Path { local: new, ..path });
        }
        let asked: Vec<(u32, usize)> =
            peer.moves.iter().filter(|(_, one)| !one.perhaps).map(|(number, one)| (*number, one.flows.len())).collect();
        if address_only && self.config.mobile {
            self.start_moves(now, id, relocation, None, BTreeSet::new(), host);
        }
        for (former, ids) in there {
            self.start_moves(now, id, relocation, former, ids, host);
        }
        for ((hold, former), ids) in heading {
            self.start_moves(now, id, Relocation { old_usable: !hold, ..relocation }, former, ids, host);
        }
        for (number, flows) in asked {
            let moving = self.peers.get(id).and_then(|peer| peer.moves.get(&number));
            if moving.is_some_and(|moving| moving.flows.len() < flows) {
                self.renumber(now, id, number, host);
            }
        }
        self.ask_at_home(now, id, host);
    }

    /// Some flows of a move go elsewhere, and the peer has not answered it: nobody will answer its challenge, so that it is
    /// never made for them. The others are asked for under another number.
    fn renumber(&mut self, now: Instant, id: PeerId, number: u32, host: &mut dyn Host) {
        let Some(moving) = self.end_move(id, number) else { return };
        let Some(peer) = self.peers.get_mut(id) else { return };
        for claim in moving.flows.keys() {
            if let Some(claim) = peer.claimant.confirmed.get_mut(claim) {
                claim.moving = None;
            }
        }
        let relocation = Relocation { old: moving.old, new: moving.path.local, old_usable: !moving.hold };
        self.start_moves(now, id, relocation, None, moving.flows.into_keys().collect(), host);
    }

    /// Moves the claims that stand at an address that was left, if nothing hinders them any more.
    pub(crate) fn relocate(&mut self, now: Instant, id: PeerId, host: &mut dyn Host) {
        for relocation in self.relocations.clone() {
            let Some(peer) = self.peers.get(id) else { return };
            let waits = |(id, claim): (&u32, &Claim)| {
                (claim.at == relocation.old && claim.moving.is_none() && !claim.stuck).then_some(*id)
            };
            let ids: BTreeSet<u32> = peer.claimant.confirmed.iter().filter_map(waits).collect();
            if !ids.is_empty() {
                self.start_moves(now, id, relocation, None, ids, host);
            }
        }
        self.ask_at_home(now, id, host);
    }

    /// Prepares and asks for moves of these claims, as many as it takes to name them all. Without any claim the move
    /// tells the peer the new address. `former`: the move that brought them where they are, and is not complete.
    pub(crate) fn start_moves(
        &mut self,
        now: Instant,
        id: PeerId,
        relocation: Relocation,
        former: Option<u32>,
        ids: BTreeSet<u32>,
        host: &mut dyn Host,
    ) {
        let address_only = ids.is_empty();
        let former = former.and_then(|number| self.peers.get(id)?.moves.get(&number)?.answered(number));
        let mut left = self.movable(id, ids, host);
        if left.is_empty() && !address_only {
            return;
        }
        loop {
            let Some(peer) = self.peers.get(id) else { return };
            let Some(path) = peer.path(relocation.new) else { return };
            if peer.moves.len() >= MOVES_MAX {
                // The rest follows when one of them is through.
                return count(&mut self.counters.limited);
            }
            let Some(number) = self.generation.checked_add(1) else { return };
            self.generation = number;
            let asked: Vec<(u32, Flow)> =
                left.iter().filter_map(|id| Some((*id, peer.claimant.confirmed.get(id)?.flow))).collect();
            let command: Vec<(Flow, u32)> = asked.iter().map(|(_, flow)| (*flow, number)).collect();
            let hold = !relocation.old_usable;
            let prepared =
                if address_only { Vec::new() } else { host.prepare(Half::Local, relocation.new, hold, &command) };
            let mut flows = BTreeMap::new();
            for ((claim, flow), result) in results(asked, prepared) {
                match result {
                    Ok(()) => {
                        flows.insert(claim, flow);
                    }
                    Err(error) => self.stays(now, id, claim, refusal(error)),
                }
            }
            let Some(peer) = self.peers.get(id) else { return };
            let ready: BTreeSet<u32> = flows.keys().copied().collect();
            let (selection, taken) = select(peer, &ready, false);
            flows.retain(|claim, _| taken.contains(claim));
            left = ready.difference(&taken).copied().collect();
            if address_only || !flows.is_empty() {
                let moving = Moving {
                    old: relocation.old,
                    path: Path { local: relocation.new, ..path },
                    hold,
                    flows,
                    selection,
                    started: now,
                    sent: now,
                    tries: 0,
                    doubt: false,
                    token: None,
                    perhaps: former.is_some(),
                    former,
                    refused: 0,
                    commit: None,
                    asked: now,
                    open: 0,
                    unanswered: None,
                    ahead_until: None,
                    resumed: None,
                    late: BTreeSet::new(),
                };
                self.begin(now, id, number, moving);
            }
            if left.is_empty() {
                return;
            }
        }
    }

    /// Those of `ids` whose connections live.
    fn movable(&self, id: PeerId, ids: BTreeSet<u32>, host: &mut dyn Host) -> BTreeSet<u32> {
        let Some(peer) = self.peers.get(id) else { return BTreeSet::new() };
        let mut lives = |number: &u32| {
            let flow = peer.claimant.confirmed.get(number).map(|claim| claim.flow);
            flow.is_some_and(|flow| {
                self.mine.get(&flow).is_some_and(|mine| host.instance(&flow) == Some(mine.instance))
            })
        };
        ids.into_iter().filter(|number| lives(number)).collect()
    }

    fn begin(&mut self, now: Instant, id: PeerId, number: u32, moving: Moving) {
        self.changed();
        let Some(peer) = self.peers.get_mut(id) else { return };
        // Claims made at the old address from now on are not part of what this move selects.
        if let Some(claimant) = peer.claimant.there() {
            claimant.homes.remove(&moving.old);
        }
        let mut superseded = Vec::new();
        for claim in moving.flows.keys() {
            if let Some(entry) = peer.claimant.confirmed.get_mut(claim)
                && let Some(former) = entry.moving.replace(number)
            {
                superseded.push((former, *claim));
            }
        }
        let news = News::MoveStarted {
            peer: peer.key,
            number,
            old: moving.old,
            new: moving.path.local,
            flows: moving.flows.len(),
        };
        // A move without flows tells an address; the newest is the one that counts.
        let emptied: Vec<u32> =
            peer.moves.iter().filter(|(_, other)| other.flows.is_empty()).map(|(n, _)| *n).collect();
        peer.moves.insert(number, moving);
        for former in emptied {
            self.end_move(id, former);
        }
        for (former, claim) in superseded {
            self.leave_move(id, former, claim);
        }
        self.notice(now, news);
        self.send_move(now, id, number);
    }

    /// A claim does not take part in this move any more.
    pub(crate) fn leave_move(&mut self, id: PeerId, number: u32, claim: u32) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let Some(moving) = peer.moves.get_mut(&number) else { return };
        moving.flows.remove(&claim);
        if let Some(claim) = peer.claimant.confirmed.get_mut(&claim) {
            claim.unsure |= moving.perhaps;
        }
        if moving.flows.is_empty() {
            self.end_move(id, number);
        }
    }

    pub(crate) fn end_move(&mut self, id: PeerId, number: u32) -> Option<Moving> {
        self.timers.cancel(Timer::Move(id, number));
        self.timers.cancel(Timer::Ahead(id, number));
        self.peers.get_mut(id)?.moves.remove(&number)
    }

    fn send_move(&mut self, now: Instant, id: PeerId, number: u32) {
        let timers = self.config.timers;
        let Some(peer) = self.peers.get_mut(id) else { return };
        let first = peer.round_trip.timeout(timers.retry);
        let Some(remote) = peer.moves.get(&number).and_then(|moving| peer.path(moving.path.local)) else { return };
        let Some(moving) = peer.moves.get_mut(&number) else { return };
        // The peer may have moved meanwhile.
        moving.path.remote = remote.remote;
        moving.sent = now;
        let (path, message) = (moving.path, moving.message(number));
        if matches!(message, Message::Move(_)) {
            moving.asked = now;
            moving.open = moving.open.saturating_add(1);
            moving.unanswered.get_or_insert(now);
        }
        let wait = jittered(doubled(first, moving.tries, timers.retry_cap), &mut *self.rng);
        let unknown = peer.channels.is_empty();
        let due = moving.ahead_until.map_or(now.after(wait), |until| until.min(now.after(wait)));
        if unknown {
            // After a restart: the claims are there, the keys are not.
            self.dial(now, path, Some(id));
        }
        self.send(id, path, &message);
        self.timers.set(Timer::Move(id, number), due);
    }

    pub(crate) fn on_move_timer(&mut self, now: Instant, id: PeerId, number: u32, host: &mut dyn Host) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let key = peer.key;
        let unneeded = peer.claimant.is_empty() && peer.correspondent.live() == 0;
        let Some(moving) = peer.moves.get_mut(&number) else { return };
        let at = whither(&self.relocations, moving.path.local);
        if unneeded && moving.flows.is_empty() {
            // It only tells an address, and no flow is left that needs it.
            self.end_move(id, number);
            return;
        }
        if moving.ahead_until.is_some_and(|until| until <= now) || at != moving.path.local {
            return self.hold_again(now, id, number, host);
        }
        moving.tries = moving.tries.saturating_add(1);
        let (tries, path, elapsed) = (moving.tries, moving.path, now.since(moving.started));
        let doubts = tries >= DOUBT_TRIES && !std::mem::replace(&mut moving.doubt, tries >= DOUBT_TRIES);
        if doubts {
            self.notice(now, News::MoveInDoubt { peer: key, number, elapsed });
        }
        if tries >= REDIAL_TRIES {
            self.dial(now, path, Some(id));
            self.seek(now, id);
        }
        self.send_move(now, id, number);
    }

    /// The association is new: the peer can hear again. `forgotten`: and it does not know of these moves.
    pub(crate) fn repeat_moves(&mut self, now: Instant, id: PeerId, forgotten: bool, host: &mut dyn Host) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        for moving in peer.moves.values_mut() {
            moving.tries = 0;
            moving.token = None;
        }
        let numbers: Vec<(u32, bool)> =
            peer.moves.iter().map(|(number, moving)| (*number, moving.ahead_until.is_some())).collect();
        for (number, ahead) in numbers {
            if forgotten && ahead {
                self.hold_again(now, id, number, host);
            } else {
                self.send_move(now, id, number);
            }
        }
        self.try_again(now, id);
    }

    pub(crate) fn on_move_challenge(&mut self, arrival: Arrival, number: u32, token: Token, refused: u32) {
        let Some(peer) = self.peers.get_mut(arrival.peer) else { return };
        let Some(moving) = peer.moves.get_mut(&number) else { return };
        // What proves the new address must have arrived there.
        if arrival.path.local != moving.path.local {
            return;
        }
        if moving.tries == 0 && moving.token.is_none() {
            peer.round_trip.sample(arrival.now.since(moving.sent));
        }
        moving.token = Some(token);
        moving.perhaps = true;
        moving.refused = refused;
        moving.tries = 0;
        let is_recent =
            moving.unanswered.is_some_and(|asked| arrival.now.since(asked) < self.config.timers.pending / 2);
        moving.open = moving.open.saturating_sub(1);
        if moving.open == 0 {
            moving.unanswered = None;
        }
        let timers = self.config.timers;
        let first = self.peers.get(arrival.peer).map_or(timers.retry, |peer| peer.round_trip.timeout(timers.retry));
        let wait = jittered(first, &mut *self.rng);
        self.timers.set(Timer::Move(arrival.peer, number), arrival.now.after(wait));
        if refused == 0 && is_recent {
            self.timers.set(Timer::Ahead(arrival.peer, number), arrival.now);
        } else {
            self.timers.cancel(Timer::Ahead(arrival.peer, number));
        }
        self.reply(arrival, &Message::MoveResponse { number, token });
    }

    pub(crate) fn on_move_commit(
        &mut self,
        arrival: Arrival,
        number: u32,
        (part, parts): (u16, u16),
        refused: &[(Range, Stays)],
        host: &mut dyn Host,
    ) {
        let Some(peer) = self.peers.get_mut(arrival.peer) else { return };
        let Some(moving) = peer.moves.get_mut(&number) else { return };
        let commit =
            moving.commit.get_or_insert_with(|| Commit { parts, seen: BTreeSet::new(), refused: BTreeMap::new() });
        if commit.parts != parts {
            *commit = Commit { parts, seen: BTreeSet::new(), refused: BTreeMap::new() };
        }
        commit.seen.insert(part);
        for (range, stays) in refused {
            commit.refused.extend(moving.flows.range(range.first..=range.last).map(|(claim, _)| (*claim, *stays)));
        }
        if commit.seen.len() == usize::from(parts) {
            self.complete(arrival, number, host);
        }
    }

    /// The peer has committed: so does this host.
    fn complete(&mut self, arrival: Arrival, number: u32, host: &mut dyn Host) {
        let (id, now) = (arrival.peer, arrival.now);
        let Some(mut moving) = self.end_move(id, number) else { return };
        let mut refused = moving.commit.take().map(|commit| commit.refused).unwrap_or_default();
        let mut moved: Vec<(u32, Flow)> = moving.flows.iter().map(|(claim, flow)| (*claim, *flow)).collect();
        moved.retain(|(claim, _)| !refused.contains_key(claim));
        let is_ahead = |claim: &u32| moving.ahead_until.is_some() && !moving.late.contains(claim);
        let (ahead, behind): (Vec<_>, Vec<_>) = moved.into_iter().partition(|(claim, _)| is_ahead(claim));
        let command: Vec<(Flow, u32)> = behind.iter().map(|(_, flow)| (*flow, number)).collect();
        let committed = if command.is_empty() { Vec::new() } else { host.commit(Half::Local, &command) };
        let mut count: usize = 0;
        let Some(peer) = self.peers.get_mut(id) else { return };
        let ahead = ahead.into_iter().map(|flow| (flow, Ok(())));
        for ((claim, _), result) in results(behind, committed).chain(ahead) {
            match result {
                Ok(()) => {
                    if let Some(claim) = peer.claimant.confirmed.get_mut(&claim) {
                        claim.at = moving.path.local;
                        claim.ahead = false;
                        claim.moving = None;
                        claim.unsure = false;
                    }
                    count = count.saturating_add(1);
                }
                Err(error) => {
                    refused.insert(claim, refusal(error).into());
                    if let Some(claim) = peer.claimant.confirmed.get_mut(&claim) {
                        claim.unsure = true;
                    }
                }
            }
        }
        let there = peer.claimant.confirmed.values().find(|claim| claim.at == moving.path.local);
        if let Some(bundle) = there.map(|claim| claim.bundle) {
            peer.claimant.homes.get_or_insert_with(moving.path.local, || bundle);
        }
        if let Some(path) = peer.path(moving.path.local) {
            peer.set_path(Path { local: moving.path.local, ..path });
        }
        let news = News::MoveCommitted {
            peer: peer.key,
            number,
            new: moving.path.local,
            flows: count,
            refused: refused.len(),
            elapsed: moving.resumed.unwrap_or(now).since(moving.started),
        };
        self.notice(now, news);
        self.changed();
        self.stay(now, id, number, &moving, &refused, host);
        self.relocate(now, id, host);
        self.pump_releases(now, id);
    }

    /// The two ends do not agree about what the bundles hold: the claims are named one by one.
    pub(crate) fn list(&mut self, now: Instant, id: PeerId, number: u32, host: &mut dyn Host) {
        let Some(peer) = self.peers.get(id) else { return };
        let Some(moving) = peer.moves.get(&number) else { return };
        let ids: BTreeSet<u32> = moving.flows.keys().copied().collect();
        let (old, new, old_usable) = (moving.old, moving.path.local, !moving.hold);
        let (selection, taken) = select(peer, &ids, true);
        let left: BTreeSet<u32> = ids.difference(&taken).copied().collect();
        let Some(moving) = self.peers.get_mut(id).and_then(|peer| peer.moves.get_mut(&number)) else { return };
        if taken.is_empty() {
            self.end_move(id, number);
            return;
        }
        moving.selection = selection;
        moving.tries = 0;
        moving.token = None;
        self.send_move(now, id, number);
        if !left.is_empty() {
            self.start_moves(now, id, Relocation { old, new, old_usable }, None, left, host);
        }
    }
}
