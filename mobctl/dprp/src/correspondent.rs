//! Moves, the side that stays.
//!
//! Nothing goes to a new address but a challenge, which is shorter than what
//! asked for it, until the right answer came from there.

use crate::claimant::wire;
use crate::codec::{Range, in_ranges, is_host_address, merged};
use crate::endpoint::{Arrival, Endpoint};
use crate::few::Few;
use crate::host::{Flow, Half, Host};
use crate::message::{Former, Message, Move, REFUSED_MAX, Selection, Stays, Token, digest};
use crate::mover::{refusal, results};
use crate::notice::{MoveRefusal, News, Refusal};
use crate::rare::Part;
use crate::steward::{Acknowledged, Offered};
use crate::time::Instant;
use crate::timer::{PeerId, Timer};
use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Moves of one peer that wait for the answer to their challenge.
const PENDING_MAX: usize = 8;
/// Completed moves of one peer that are remembered, to answer once more.
const OUTCOMES_MAX: usize = 8;

/// Claims that do not move, and why.
type Refused = Vec<(Range, Refusal)>;

/// Whose claim a flow of this host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) peer: PeerId,
    /// Its number; `None`: from an earlier incarnation of the peer, which is to claim it again.
    pub(crate) number: Option<u32>,
    pub(crate) instance: u64,
}

/// A claim of the peer.
#[derive(Debug)]
pub(crate) struct Theirs {
    /// In this host's direction.
    pub(crate) flow: Flow,
    pub(crate) instance: u64,
    pub(crate) bundle: u16,
    /// Number of the last move that was committed.
    pub(crate) generation: u32,
    /// Number of the move that is pending.
    pub(crate) pending: Option<u32>,
    /// When the connection ended: kept until the peer releases the claim, so that both mean the same by a bundle.
    pub(crate) ended: Option<Instant>,
}

/// A move that waits for the answer to its challenge.
#[derive(Debug)]
pub(crate) struct Pending {
    request: Move,
    remote: SocketAddr,
    token: Token,
    claims: Vec<u32>,
    /// Those of them that the kernel has at the new address already, by an earlier number: it is not asked again, because
    /// that would end the grace of the address before.
    there: BTreeSet<u32>,
    refused: Refused,
    began: Instant,
}

/// A completed move.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) number: u32,
    pub(crate) remote: SocketAddr,
    pub(crate) refused: Vec<(Range, Stays)>,
    /// Flows that the kernel prepared and then did not commit: to be taken back.
    failed: Vec<(Flow, u32)>,
    /// When the mover proved that it receives there; `None`: before a restart, and somebody else may have the address by now.
    proved: Option<Instant>,
    /// The part that is told next, one at a time.
    next: u16,
}

impl Outcome {
    /// As it was before a restart. Which of the refused `claims` the kernel has still prepared, it knows itself.
    pub(crate) fn restored(
        number: u32,
        remote: SocketAddr,
        refused: Vec<(Range, Stays)>,
        claims: &Few<u32, Theirs>,
    ) -> Self {
        let by_kernel = refused.iter().filter(|(_, stays)| stays.reason.is_of_kernel());
        let held = by_kernel.flat_map(|(range, _)| claims.range(range.first..=range.last));
        let failed =
            held.filter(|(_, theirs)| theirs.ended.is_none()).map(|(_, theirs)| (theirs.flow, number)).collect();
        Self { number, remote, refused, failed, proved: None, next: 0 }
    }

    /// Whether the kernel may have something prepared that it did not commit.
    pub(crate) fn is_unfinished(&self) -> bool {
        !self.failed.is_empty()
    }

    /// What the kernel did not commit is not accepted at the new address any more, nor held for it.
    fn take_back(&mut self, host: &mut dyn Host) {
        let failed = std::mem::take(&mut self.failed);
        if !failed.is_empty() {
            host.abort(Half::Remote, &failed);
        }
    }
}

/// What a peer claims and moves.
#[derive(Debug, Default)]
pub(crate) struct Correspondent {
    pub(crate) claims: Few<u32, Theirs>,
    /// Flows of the peer's earlier incarnations.
    pub(crate) orphans: BTreeSet<Flow>,
    pub(crate) offers: VecDeque<Offered>,
    pub(crate) acknowledged: VecDeque<Acknowledged>,
    pub(crate) pending: Few<u32, Pending>,
    pub(crate) outcomes: VecDeque<Outcome>,
}

impl Part for Correspondent {
    const NOTHING: &'static Self = &Self {
        claims: Few::new(),
        orphans: BTreeSet::new(),
        offers: VecDeque::new(),
        acknowledged: VecDeque::new(),
        pending: Few::new(),
        outcomes: VecDeque::new(),
    };

    fn is_nothing(&self) -> bool {
        self.is_empty() && self.acknowledged.is_empty() && self.outcomes.is_empty()
    }
}

impl Correspondent {
    pub(crate) fn is_empty(&self) -> bool {
        let unfinished = self.outcomes.iter().any(Outcome::is_unfinished);
        !unfinished
            && self.claims.is_empty()
            && self.orphans.is_empty()
            && self.offers.is_empty()
            && self.pending.is_empty()
    }

    /// Claims whose connections live.
    pub(crate) fn live(&self) -> usize {
        self.claims.values().filter(|claim| claim.ended.is_none()).count()
    }

    /// Forgets claims that ended `unreleased` ago, and batches that wait for their proof for so long: the peer does not mind.
    /// So it is with answers to batches that it has not asked for in that time.
    pub(crate) fn forget_ended(&mut self, now: Instant, unreleased: Duration) {
        self.acknowledged.retain(|ack| now.since(ack.told) < unreleased);
        self.offers.retain(|offer| now.since(offer.began) < unreleased);
        self.claims.retain(|_, claim| claim.ended.is_none_or(|ended| now.since(ended) < unreleased));
    }

    /// The pending move that can be given up first: one that later moves have taken all flows from, or else the oldest.
    fn spare_pending(&self) -> Option<u32> {
        let waits = |number: &u32, claim: &u32| self.claims.get(claim).is_some_and(|c| c.pending == Some(*number));
        let superseded =
            self.pending.iter().find(|(number, pending)| !pending.claims.iter().any(|claim| waits(number, claim)));
        superseded.map(|(number, _)| *number).or_else(|| self.pending.keys().next().copied())
    }

    /// The claims that a selection means, and numbers in it that mean none.
    fn select(&self, selection: &Selection, most: usize) -> Result<(Vec<u32>, Vec<Range>), MoveRefusal> {
        match selection {
            Selection::Bundles { bundles, except, count, digest: sum } => {
                let selected: Vec<u32> = self
                    .claims
                    .iter()
                    .filter(|(id, claim)| bundles.binary_search(&claim.bundle).is_ok() && !in_ranges(except, **id))
                    .map(|(id, _)| *id)
                    .collect();
                let agreed = u32::try_from(selected.len()) == Ok(*count) && digest(selected.iter().copied()) == *sum;
                if agreed { Ok((selected, Vec::new())) } else { Err(MoveRefusal::Mismatch) }
            }
            Selection::Listed { ranges } => {
                let count: u64 = ranges.iter().map(|range| range.count()).fold(0, u64::saturating_add);
                if count > most as u64 {
                    return Err(MoveRefusal::Selection);
                }
                let (mut known, mut unknown) = (Vec::new(), Vec::new());
                for range in ranges {
                    let held = self.claims.range(range.first..=range.last).map(|(id, _)| *id);
                    let before = known.len();
                    known.extend(held);
                    unknown.extend(gaps(*range, known.get(before..).unwrap_or_default()));
                }
                Ok((known, unknown))
            }
        }
    }
}

/// Room for one more: mostly that is all that is ever needed, and a queue makes room for four.
pub(crate) fn few<T>(queue: &mut VecDeque<T>) {
    if queue.capacity() == 0 {
        queue.reserve_exact(1);
    }
}

/// How many claims these are, for the mover to know.
fn counted<T>(refused: &[(Range, T)]) -> u32 {
    u32::try_from(refused.iter().map(|(range, _)| range.count()).fold(0, u64::saturating_add)).unwrap_or(u32::MAX)
}

/// What of `range` is not among `held`, which ascends and lies in it.
fn gaps(range: Range, held: &[u32]) -> impl Iterator<Item = Range> {
    let starts = std::iter::once(Some(range.first)).chain(held.iter().map(|id| id.checked_add(1)));
    let ends = held.iter().map(|id| id.checked_sub(1)).chain(std::iter::once(Some(range.last)));
    starts.zip(ends).filter_map(|(first, last)| {
        let (first, last) = (first?, last?);
        (first <= last).then_some(Range { first, last })
    })
}

/// Says of each refused claim whether it stands where `former`, the move before, led.
fn placed(refused: Refused, claims: &Few<u32, Theirs>, former: Option<Former>) -> Vec<(Range, Stays)> {
    let former = former.map(|former| former.number);
    let mut placed = Vec::new();
    for (range, reason) in refused {
        let held = claims.range(range.first..=range.last);
        let there: Vec<u32> = held.filter(|(_, held)| Some(held.generation) == former).map(|(id, _)| *id).collect();
        placed.extend(gaps(range, &there).map(|rest| (rest, reason.into())));
        placed.extend(there.into_iter().map(|id| (Range::one(id), Stays { reason, at_former: true })));
    }
    merged(placed)
}

/// Has the kernel take the wire sides that were another flow's when the move was prepared: the mover has proved that it
/// receives at the new address, so they cannot be another host's any more. That lets two hosts swap their addresses.
fn take_wire_sides(claims: &mut Few<u32, Theirs>, pending: &mut Pending, number: u32, host: &mut dyn Host) {
    let (conflicts, mut refused): (Refused, Refused) =
        std::mem::take(&mut pending.refused).into_iter().partition(|(_, reason)| *reason == Refusal::Conflict);
    let mut asked = Vec::new();
    for claim in conflicts.iter().flat_map(|(range, _)| range.first..=range.last) {
        match claims.get(&claim) {
            Some(theirs) if theirs.ended.is_some() || host.instance(&theirs.flow) != Some(theirs.instance) => {
                refused.push((Range::one(claim), Refusal::Gone));
            }
            // An earlier move may have been prepared after this one was asked for.
            Some(theirs) if theirs.generation < number && theirs.pending.is_none_or(|pending| pending < number) => {
                asked.push((claim, theirs.flow));
            }
            Some(_) => refused.push((Range::one(claim), Refusal::Stale)),
            None => refused.push((Range::one(claim), Refusal::Unknown)),
        }
    }
    let command: Vec<(Flow, u32)> = asked.iter().map(|(_, flow)| (*flow, number)).collect();
    let (new, hold) = (pending.request.new, !pending.request.old_usable);
    let taken = if command.is_empty() { Vec::new() } else { host.take(Half::Remote, new, hold, &command) };
    for ((claim, _), result) in results(asked, taken) {
        match (result, claims.get_mut(&claim)) {
            (Ok(()), Some(theirs)) => {
                theirs.pending = Some(number);
                pending.claims.push(claim);
            }
            (Err(error), _) => refused.push((Range::one(claim), refusal(error))),
            (Ok(()), None) => {}
        }
    }
    pending.refused = merged(refused);
}

impl Endpoint {
    /// ACG (move).
    pub(crate) fn on_move(&mut self, arrival: Arrival, request: &Move, host: &mut dyn Host) {
        let (id, now, number) = (arrival.peer, arrival.now, request.number);
        let Some(peer) = self.peers.get_mut(id) else { return };
        if let Some(outcome) = peer.correspondent.outcomes.iter().find(|outcome| outcome.number == number) {
            if outcome.remote == arrival.path.remote {
                self.send_outcome(arrival, number);
            }
            return;
        }
        if let Some(pending) = peer.correspondent.pending.get(&number) {
            if pending.request == *request && pending.remote == arrival.path.remote {
                let (token, refused) = (pending.token, counted(&pending.refused));
                self.timers.set(Timer::Pending(id, number), now.after(self.config.timers.pending));
                return self.reply(arrival, &Message::MoveChallenge { number, token, refused });
            }
            // The mover changed its mind.
            self.take_back(id, number, host);
        }
        if let Some(former) = request.former.filter(|former| former.number < number) {
            self.commit_former(now, id, former, host);
        }
        let Some(peer) = self.peers.get_mut(id) else { return };
        let selected = Self::check_move(arrival, request, peer.hidden)
            .and_then(|()| peer.correspondent.select(&request.selection, self.config.limits.claims));
        let (selected, unknown) = match selected {
            Ok(selected) => selected,
            Err(reason) => {
                let key = peer.key;
                if reason != MoveRefusal::Mismatch {
                    self.notice(now, News::PeerMoveRefused { peer: key, number, reason });
                }
                return self.reply(arrival, &Message::MoveRefused { number, reason });
            }
        };
        let refused = unknown.into_iter().map(|range| (range, Refusal::Unknown)).collect();
        self.prepare_remote(arrival, request, &selected, refused, host);
    }

    fn check_move(arrival: Arrival, request: &Move, hidden: Option<IpAddr>) -> Result<(), MoveRefusal> {
        if !is_host_address(request.new) || request.new == arrival.path.local {
            return Err(MoveRefusal::Address);
        }
        // What this host sent to the new address would come from another than the mover's kernel knows: its TCP would answer
        // with RST.
        let hides = hidden == Some(arrival.path.local) && !request.selection.is_nothing();
        if request.new != arrival.path.remote.ip() || hides {
            return Err(MoveRefusal::Translated);
        }
        Ok(())
    }

    /// Accepts the new wire side on input, and challenges the new address.
    fn prepare_remote(
        &mut self,
        arrival: Arrival,
        request: &Move,
        selected: &[u32],
        mut refused: Refused,
        host: &mut dyn Host,
    ) {
        let (id, number) = (arrival.peer, request.number);
        while let Some(peer) = self.peers.get(id)
            && peer.correspondent.pending.len() >= PENDING_MAX
            && let Some(spare) = peer.correspondent.spare_pending()
        {
            self.take_back(id, spare, host);
        }
        let Some(peer) = self.peers.get_mut(id) else { return };
        let (mut asked, mut there) = (Vec::new(), BTreeSet::new());
        for claim in selected {
            let Some(theirs) = peer.correspondent.claims.get_mut(claim) else { continue };
            let verdict = if theirs.ended.is_some() || host.instance(&theirs.flow) != Some(theirs.instance) {
                Err(Refusal::Gone)
            } else if theirs.generation >= number || theirs.pending.is_some_and(|pending| pending > number) {
                Err(Refusal::Stale)
            } else if theirs.flow.remote.is_ipv4() != request.new.is_ipv4() || theirs.flow.local.ip() == request.new {
                Err(Refusal::Family)
            } else {
                Ok(theirs.flow)
            };
            match verdict {
                Ok(flow) if theirs.pending.is_none() && wire(&flow, host).remote.ip() == request.new => {
                    theirs.pending = Some(number);
                    there.insert(*claim);
                }
                Ok(flow) => asked.push((*claim, flow)),
                Err(reason) => refused.push((Range::one(*claim), reason)),
            }
        }
        let command: Vec<(Flow, u32)> = asked.iter().map(|(_, flow)| (*flow, number)).collect();
        let prepared = if command.is_empty() {
            Vec::new()
        } else {
            host.prepare(Half::Remote, request.new, !request.old_usable, &command)
        };
        let mut claims: Vec<u32> = there.iter().copied().collect();
        for ((claim, _), result) in results(asked, prepared) {
            match result {
                Ok(()) => {
                    if let Some(theirs) = peer.correspondent.claims.get_mut(&claim) {
                        theirs.pending = Some(number);
                    }
                    claims.push(claim);
                }
                Err(error) => refused.push((Range::one(claim), refusal(error))),
            }
        }
        let mut token = Token::default();
        self.rng.fill_bytes(&mut token);
        let remote = arrival.path.remote;
        let refused = merged(refused);
        let count = counted(&refused);
        let pending = Pending { request: request.clone(), remote, token, claims, there, refused, began: arrival.now };
        self.revision = self.revision.wrapping_add(1);
        peer.correspondent.pending.insert(number, pending);
        self.timers.set(Timer::Pending(id, number), arrival.now.after(self.config.timers.pending));
        self.reply(arrival, &Message::MoveChallenge { number, token, refused: count });
    }

    /// ACG (response): the mover receives at its new address.
    pub(crate) fn on_move_response(&mut self, arrival: Arrival, number: u32, token: Token, host: &mut dyn Host) {
        let (id, now) = (arrival.peer, arrival.now);
        let Some(peer) = self.peers.get_mut(id) else { return };
        let remote = arrival.path.remote;
        let matches = |pending: &Pending| pending.token == token && pending.remote == remote;
        if !peer.correspondent.pending.get(&number).is_some_and(matches) {
            if peer.correspondent.outcomes.iter().any(|outcome| outcome.number == number && outcome.remote == remote) {
                self.send_outcome(arrival, number);
            }
            return;
        }
        let elsewhere = peer.path(arrival.path.local) != Some(arrival.path);
        peer.set_path(arrival.path);
        self.commit_remote(now, id, number, host);
        self.send_outcome(arrival, number);
        if elsewhere {
            self.try_again(now, id);
        }
    }

    /// The mover has moved on from an address where it received the challenge: its token says so, wherever it comes from.
    /// What the mover sent from there may still be on its way, so that address counts until the next one is proved.
    fn commit_former(&mut self, now: Instant, id: PeerId, former: Former, host: &mut dyn Host) {
        let pending = self.peers.get(id).and_then(|peer| peer.correspondent.pending.get(&former.number));
        if pending.is_some_and(|pending| pending.token == former.token) {
            self.commit_remote(now, id, former.number, host);
        }
    }

    /// The mover receives where it has asked to be: the kernel commits.
    fn commit_remote(&mut self, now: Instant, id: PeerId, number: u32, host: &mut dyn Host) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let Some(mut pending) = peer.correspondent.pending.remove(&number) else { return };
        self.timers.cancel(Timer::Pending(id, number));
        take_wire_sides(&mut peer.correspondent.claims, &mut pending, number, host);
        let (still, lost) = Self::still_pending(&mut peer.correspondent.claims, &pending.claims, number);
        let (there, asked): (Vec<_>, Vec<_>) = still.into_iter().partition(|(claim, _)| pending.there.contains(claim));
        let command: Vec<(Flow, u32)> = asked.iter().map(|(_, flow)| (*flow, number)).collect();
        let committed = if command.is_empty() { Vec::new() } else { host.commit(Half::Remote, &command) };
        let mut refused = pending.refused;
        refused.extend(lost);
        let mut moved: usize = 0;
        let mut failed = Vec::new();
        let there = there.into_iter().map(|claim| (claim, Ok(())));
        for ((claim, flow), result) in results(asked, committed).chain(there) {
            match result {
                Ok(()) => {
                    if let Some(theirs) = peer.correspondent.claims.get_mut(&claim) {
                        theirs.generation = number;
                    }
                    moved = moved.saturating_add(1);
                }
                Err(error) => {
                    // The mover may be sending already: what is accepted stays so until it knows.
                    failed.push((flow, number));
                    refused.push((Range::one(claim), refusal(error)));
                }
            }
        }
        let refused = placed(merged(refused), &peer.correspondent.claims, pending.request.former);
        let news = News::PeerMoved {
            peer: peer.key,
            number,
            old: pending.request.old,
            new: pending.request.new,
            flows: moved,
            refused: usize::try_from(counted(&refused)).unwrap_or(usize::MAX),
            elapsed: now.since(pending.began),
        };
        if peer.correspondent.outcomes.len() >= OUTCOMES_MAX
            && let Some(mut outcome) = peer.correspondent.outcomes.pop_front()
        {
            outcome.take_back(host);
        }
        few(&mut peer.correspondent.outcomes);
        let outcome = Outcome { number, remote: pending.remote, refused, failed, proved: Some(now), next: 0 };
        if outcome.is_unfinished() {
            self.timers.set(Timer::Pending(id, number), now.after(self.config.timers.pending));
        }
        peer.correspondent.outcomes.push_back(outcome);
        self.changed();
        self.leave_address(id, pending.request.old);
        self.peers.bind_address(id, pending.request.new);
        self.notice(now, news);
    }

    /// Nobody is to be found at an address that its owner has left for good.
    fn leave_address(&mut self, id: PeerId, old: IpAddr) {
        if self.peers.by_address(old) == Some(id) {
            self.peers.unbind_address(id, old);
        }
    }

    /// Those of `claims` that still wait for this move, which they do no longer after this; and those that do not: a newer
    /// move took them over, or the peer released them.
    fn still_pending(theirs: &mut Few<u32, Theirs>, claims: &[u32], number: u32) -> (Vec<(u32, Flow)>, Refused) {
        let (mut still, mut lost) = (Vec::with_capacity(claims.len()), Vec::new());
        for claim in claims {
            match theirs.get_mut(claim) {
                Some(entry) if entry.pending == Some(number) => {
                    entry.pending = None;
                    still.push((*claim, entry.flow));
                }
                Some(_) => lost.push((Range::one(*claim), Refusal::Stale)),
                None => lost.push((Range::one(*claim), Refusal::Unknown)),
            }
        }
        (still, lost)
    }

    /// Tells the mover what became of a move: all of it soon after its new address was proved, later one part for each
    /// question, because somebody else may have the address by then.
    fn send_outcome(&mut self, arrival: Arrival, number: u32) {
        let fresh = self.config.timers.pending;
        let Some(peer) = self.peers.get_mut(arrival.peer) else { return };
        let mut outcomes = peer.correspondent.outcomes.iter_mut();
        let Some(outcome) = outcomes.find(|outcome| outcome.number == number) else { return };
        let Ok(parts) = u16::try_from(outcome.refused.chunks(REFUSED_MAX).len().max(1)) else { return };
        let wanted = if outcome.proved.is_some_and(|proved| arrival.now.since(proved) < fresh) {
            0..parts
        } else {
            outcome.next = outcome.next.checked_add(1).filter(|next| *next < parts).unwrap_or(0);
            outcome.next..outcome.next.saturating_add(1)
        };
        let mut messages = Vec::new();
        for part in wanted {
            let chunk = outcome.refused.chunks(REFUSED_MAX).nth(part.into());
            let refused = chunk.unwrap_or_default().to_vec();
            messages.push(Message::MoveCommit { number, part, parts, refused });
        }
        for message in messages {
            self.reply(arrival, &message);
        }
    }

    /// The mover did not answer the challenge.
    pub(crate) fn on_pending_timer(&mut self, now: Instant, id: PeerId, number: u32, host: &mut dyn Host) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        if let Some(outcome) = peer.correspondent.outcomes.iter_mut().find(|outcome| outcome.number == number) {
            outcome.take_back(host);
        }
        if !peer.correspondent.pending.contains_key(&number) {
            // From before a restart.
            let forgotten = peer.correspondent.claims.values_mut().filter(|claim| claim.pending == Some(number));
            let command: Vec<(Flow, u32)> =
                forgotten.map(|claim| (claim.flow, claim.pending.take().unwrap_or(number))).collect();
            if !command.is_empty() {
                host.abort(Half::Remote, &command);
            }
            return;
        }
        if let (Some(pending), Some(peer)) = (self.take_back(id, number, host), self.peers.get(id)) {
            let news = News::PeerMoveExpired { peer: peer.key, number, new: pending.request.new };
            self.notice(now, news);
        }
    }

    /// Takes a pending move back.
    pub(crate) fn take_back(&mut self, id: PeerId, number: u32, host: &mut dyn Host) -> Option<Pending> {
        self.timers.cancel(Timer::Pending(id, number));
        let peer = self.peers.get_mut(id)?;
        let pending = peer.correspondent.pending.remove(&number)?;
        let (asked, _) = Self::still_pending(&mut peer.correspondent.claims, &pending.claims, number);
        let prepared = asked.into_iter().filter(|(claim, _)| !pending.there.contains(claim));
        let command: Vec<(Flow, u32)> = prepared.map(|(_, flow)| (flow, number)).collect();
        if !command.is_empty() {
            host.abort(Half::Remote, &command);
        }
        Some(pending)
    }

    /// The peer is another incarnation: its claims stay its own, but it has to make them again; its moves are void.
    pub(crate) fn forget_claims_of(&mut self, id: PeerId, host: &mut dyn Host) {
        let numbers: Vec<u32> =
            self.peers.get(id).map(|peer| peer.correspondent.pending.keys().copied().collect()).unwrap_or_default();
        for number in numbers {
            self.take_back(id, number, host);
        }
        let Some(correspondent) = self.peers.get_mut(id).and_then(|peer| peer.correspondent.there()) else { return };
        for (_, theirs) in std::mem::take(&mut correspondent.claims) {
            if theirs.ended.is_none()
                && let Some(owner) = self.owners.get_mut(&theirs.flow)
            {
                owner.number = None;
                correspondent.orphans.insert(theirs.flow);
            }
        }
        correspondent.offers.clear();
        correspondent.acknowledged.clear();
        for mut outcome in std::mem::take(&mut correspondent.outcomes) {
            outcome.take_back(host);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_what_is_not_held() {
        let range = |first, last| Range { first, last };
        let all = |given, held: &[u32]| gaps(given, held).collect::<Vec<_>>();
        assert_eq!(all(range(1, 9), &[]), [range(1, 9)]);
        assert_eq!(all(range(1, 9), &[1, 4, 5, 9]), [range(2, 3), range(6, 8)]);
        assert_eq!(all(range(0, u32::MAX), &[0, u32::MAX]), [range(1, u32::MAX - 1)]);
        assert_eq!(all(range(0, 0), &[0]), []);
    }
}
