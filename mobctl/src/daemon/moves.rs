//! `mobctl move` waits here for what the protocol tells of its move.

use crate::control::{MoveReport, Outcome, PeerMove};
use mobconn_dprp::{Instant, MoveRefusal, News, PublicKey, Refusal};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A move that somebody waits for.
#[derive(Debug)]
pub(super) struct Watch {
    /// The control client that waits.
    pub(super) client: u64,
    /// When it is answered whatever happened.
    pub(super) deadline: Instant,
    old: IpAddr,
    new: IpAddr,
    old_usable: bool,
    peers: BTreeMap<PublicKey, One>,
}

#[derive(Debug, Default)]
struct One {
    number: Option<u32>,
    outcome: Option<Outcome>,
    flows: usize,
    refused: usize,
    reason: String,
    interruption_ms: Option<f64>,
}

impl Watch {
    pub(super) const fn new(client: u64, deadline: Instant, old: IpAddr, new: IpAddr, old_usable: bool) -> Self {
        Self { client, deadline, old, new, old_usable, peers: BTreeMap::new() }
    }

    /// Takes in what the protocol tells. `beginning`: it was told while the move began.
    pub(super) fn learn(&mut self, news: &News, beginning: bool) {
        match news {
            News::MoveStarted { peer, number, old, new, flows } => {
                let ours = (*old, *new) == (self.old, self.new);
                if beginning && ours {
                    let one = self.peers.entry(*peer).or_default();
                    (one.number, one.flows) = (Some(*number), *flows);
                } else if let Some(one) = self.peers.get_mut(peer).filter(|one| one.outcome.is_none())
                    && !ours
                {
                    one.outcome = Some(Outcome::Superseded);
                }
            }
            News::FlowStays { peer, reason, .. } if beginning => {
                let one = self.peers.entry(*peer).or_default();
                one.refused += 1;
                one.reason = refusal(*reason).into();
            }
            News::MoveCommitted { peer, number, flows, refused, elapsed, .. } => {
                if let Some(one) = self.waiting(peer, *number) {
                    one.outcome = Some(Outcome::Moved);
                    one.flows = *flows;
                    one.refused += refused;
                    if *refused > 0 {
                        one.reason = "the peer refused some flows".into();
                    }
                    one.interruption_ms = Some(elapsed.as_secs_f64() * 1e3);
                }
            }
            News::MoveRefused { peer, number, reason } => {
                if let Some(one) = self.waiting(peer, *number) {
                    one.outcome = Some(Outcome::Refused);
                    one.refused += std::mem::take(&mut one.flows);
                    one.reason = move_refusal(*reason).into();
                }
            }
            _ => {}
        }
    }

    fn waiting(&mut self, peer: &PublicKey, number: u32) -> Option<&mut One> {
        self.peers.get_mut(peer).filter(|one| one.number == Some(number) && one.outcome.is_none())
    }

    /// Whether every peer has answered.
    pub(super) fn is_over(&self) -> bool {
        self.peers.values().all(|one| one.outcome.is_some() || one.number.is_none())
    }

    /// The outcome so far. `name` tells the name of a peer.
    pub(super) fn report(&self, name: impl Fn(&PublicKey) -> String) -> MoveReport {
        let peers = self.peers.iter().map(|(key, one)| PeerMove {
            peer: key.to_string(),
            name: name(key),
            // A peer all of whose flows stay for this host's own kernel was never asked.
            outcome: one.outcome.unwrap_or(if one.number.is_some() { Outcome::InDoubt } else { Outcome::Refused }),
            flows: one.flows,
            refused: one.refused,
            reason: one.reason.clone(),
            interruption_ms: one.interruption_ms,
        });
        MoveReport { old: self.old, new: self.new, old_usable: self.old_usable, peers: peers.collect() }
    }
}

/// Why one flow does not move, in words.
pub(super) const fn refusal(reason: Refusal) -> &'static str {
    match reason {
        Refusal::Gone => "its connection is gone",
        Refusal::Unknown => "it is not claimed",
        Refusal::Stale => "a newer move of it is there already",
        Refusal::Conflict => "another flow has these addresses and ports",
        Refusal::Full => "the flow table is full: raise net.inet.mobconn.max_flows",
        Refusal::Family => "the new address is of another IP version",
        Refusal::Kernel => "the kernel refused it",
    }
}

/// Why a whole move is refused, in words.
pub(super) const fn move_refusal(reason: MoveRefusal) -> &'static str {
    match reason {
        MoveRefusal::Address => "the new address is not one that a host can have",
        MoveRefusal::Translated => "address translation (NAT) lies between this host and the peer",
        MoveRefusal::Mismatch => "both ends disagree about which flows move",
        MoveRefusal::Selection => "the request makes no sense",
    }
}
