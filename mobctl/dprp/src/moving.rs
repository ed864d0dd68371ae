//! A move of this host: where from and where to, of which claims, and how far it is. And which words name these claims.

use crate::association::{Path, Peer};
use crate::claimant::{numbered, with_lost};
use crate::codec::{in_ranges, ranges};
use crate::host::Flow;
use crate::message::{BUNDLES_MAX, Former, Message, Move, RANGES_MAX, Selection, Stays, Token, digest};
use crate::time::Instant;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Where flows at an address go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Relocation {
    pub(crate) old: IpAddr,
    pub(crate) new: IpAddr,
    pub(crate) old_usable: bool,
}

/// Where what is at `address` is by now, if this host has left that for good.
pub(crate) fn whither(relocations: &[Relocation], address: IpAddr) -> IpAddr {
    let left = relocations.iter().find(|relocation| relocation.old == address && !relocation.old_usable);
    left.map_or(address, |relocation| relocation.new)
}

/// A move in progress.
#[derive(Debug)]
pub(crate) struct Moving {
    pub(crate) old: IpAddr,
    /// From the new address to the peer.
    pub(crate) path: Path,
    pub(crate) hold: bool,
    /// The claims that move, by number.
    pub(crate) flows: BTreeMap<u32, Flow>,
    pub(crate) selection: Selection,
    pub(crate) started: Instant,
    pub(crate) sent: Instant,
    pub(crate) tries: u32,
    pub(crate) doubt: bool,
    pub(crate) token: Option<Token>,
    /// The peer has perhaps made this move, or its former: a challenge came once.
    pub(crate) perhaps: bool,
    /// The last move before whose challenge came and whose commit did not.
    pub(crate) former: Option<Answered>,
    /// How many of the flows the peer's challenge left out.
    pub(crate) refused: u32,
    pub(crate) commit: Option<Commit>,
    /// When Move itself was last sent.
    pub(crate) asked: Instant,
    /// How often it was, less the challenges that came.
    pub(crate) open: u32,
    /// The first time that it was, since none was open: the next challenge may be the answer to that.
    pub(crate) unanswered: Option<Instant>,
    /// The flows are sent from the new address, at the latest until then.
    pub(crate) ahead_until: Option<Instant>,
    /// When they were first sent from there.
    pub(crate) resumed: Option<Instant>,
    /// Those of them that this host's kernel did not commit then.
    pub(crate) late: BTreeSet<u32>,
}

/// A move whose challenge came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    /// Its number and its token.
    pub(crate) former: Former,
    /// The address where it led.
    pub(crate) at: IpAddr,
}

/// What has arrived of the peer's commit.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) parts: u16,
    pub(crate) seen: BTreeSet<u16>,
    pub(crate) refused: BTreeMap<u32, Stays>,
}

impl Moving {
    /// The last move whose challenge came, this one or its former.
    pub(crate) fn answered(&self, number: u32) -> Option<Answered> {
        let answered = |token| Answered { former: Former { number, token }, at: self.path.local };
        self.token.map(answered).or(self.former)
    }

    /// Whether the peer sends these flows to the new address, or will when it reads what was sent to it.
    pub(crate) fn is_answered(&self) -> bool {
        self.answered(0).is_some_and(|answered| answered.at == self.path.local)
    }

    pub(crate) fn message(&self, number: u32) -> Message {
        // Mostly the response, but the peer may have forgotten that it asked.
        match self.token {
            Some(token) if self.tries % 3 != 2 => Message::MoveResponse { number, token },
            _ => Message::Move(Move {
                number,
                old_usable: !self.hold,
                old: self.old,
                new: self.path.local,
                former: self.former.map(|answered| answered.former),
                selection: self.selection.clone(),
            }),
        }
    }
}

/// Chooses the words for "these claims": the selection, and those of `ids` that it has room for.
pub(crate) fn select(peer: &Peer, ids: &BTreeSet<u32>, listed: bool) -> (Selection, BTreeSet<u32>) {
    let claimant = &peer.claimant;
    let mut bundles = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for (id, claim) in ids.iter().filter_map(|id| Some((*id, claimant.confirmed.get(id)?))) {
        if bundles.contains(&claim.bundle) || bundles.len() < BUNDLES_MAX {
            bundles.insert(claim.bundle);
            taken.insert(id);
        }
    }
    // Whatever else the peer may hold under these bundles.
    let confirmed = claimant.confirmed.iter().map(|(id, claim)| (*id, claim.bundle));
    let offered =
        claimant.offers.iter().flat_map(|(first, offer)| numbered(*first, offer).map(|(id, _)| (id, offer.bundle)));
    let releasing = claimant.releasing.iter().map(|(id, bundle)| (*id, *bundle));
    let others: BTreeSet<u32> = confirmed
        .chain(offered)
        .chain(releasing)
        .filter(|(id, bundle)| bundles.contains(bundle) && !taken.contains(id))
        .map(|(id, _)| id)
        .collect();
    let except = with_lost(ranges(others), claimant.lost);
    if !listed && except.len() <= RANGES_MAX {
        let selection = Selection::Bundles {
            bundles: bundles.into_iter().collect(),
            except,
            count: u32::try_from(taken.len()).unwrap_or(u32::MAX),
            digest: digest(taken.iter().copied()),
        };
        return (selection, taken);
    }
    let mut ranges = ranges(ids.iter().copied());
    ranges.truncate(RANGES_MAX);
    let taken = ids.iter().copied().filter(|id| in_ranges(&ranges, *id)).collect();
    (Selection::Listed { ranges }, taken)
}
