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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const PEER: PublicKey = PublicKey([1; 32]);
    const OTHER: PublicKey = PublicKey([2; 32]);

    fn addresses() -> (IpAddr, IpAddr) {
        ([192, 0, 2, 1].into(), [198, 51, 100, 1].into())
    }

    fn watch() -> Watch {
        let (old, new) = addresses();
        Watch::new(1, Instant::from_micros(0), old, new, false)
    }

    fn started(peer: PublicKey, number: u32, flows: usize) -> News {
        let (old, new) = addresses();
        News::MoveStarted { peer, number, old, new, flows }
    }

    fn committed(peer: PublicKey, number: u32, flows: usize, refused: usize) -> News {
        let elapsed = Duration::from_micros(2500);
        News::MoveCommitted { peer, number, new: addresses().1, flows, refused, elapsed }
    }

    fn outcomes(watch: &Watch) -> Vec<(Outcome, usize, usize)> {
        watch.report(|_| String::new()).peers.iter().map(|one| (one.outcome, one.flows, one.refused)).collect()
    }

    #[test]
    fn a_move_that_nobody_takes_part_in_is_over_at_once() {
        let watch = watch();
        assert!(watch.is_over());
        assert_eq!(outcomes(&watch), []);
    }

    #[test]
    fn every_peer_is_waited_for() {
        let mut watch = watch();
        watch.learn(&started(PEER, 7, 3), true);
        watch.learn(&started(OTHER, 7, 2), true);
        watch.learn(&committed(PEER, 6, 9, 9), false);
        assert!(!watch.is_over());
        assert_eq!(outcomes(&watch), [(Outcome::InDoubt, 3, 0), (Outcome::InDoubt, 2, 0)]);
        watch.learn(&committed(PEER, 7, 2, 1), false);
        assert!(!watch.is_over());
        watch.learn(&News::MoveRefused { peer: OTHER, number: 7, reason: MoveRefusal::Translated }, false);
        assert!(watch.is_over());
        assert_eq!(outcomes(&watch), [(Outcome::Moved, 2, 1), (Outcome::Refused, 0, 2)]);
        let report = watch.report(|peer| if *peer == PEER { "one".into() } else { String::new() });
        assert_eq!((report.peers[0].name.as_str(), report.peers[0].interruption_ms), ("one", Some(2.5)));
        assert!(report.peers[1].reason.contains("NAT"));
    }

    #[test]
    fn flows_that_the_own_kernel_refuses_count() {
        let mut watch = watch();
        let flow = mobconn_dprp::Flow {
            local: "192.0.2.1:1".parse().unwrap(),
            remote: "203.0.113.1:2".parse().unwrap(),
            protocol: mobconn_dprp::Protocol::Tcp,
        };
        let stays = News::FlowStays { peer: PEER, flow, reason: Refusal::Full };
        watch.learn(&stays, false);
        assert_eq!(outcomes(&watch), [], "of another move");
        watch.learn(&stays, true);
        assert!(watch.is_over());
        assert_eq!(outcomes(&watch), [(Outcome::Refused, 0, 1)]);
        watch.learn(&started(PEER, 7, 3), true);
        watch.learn(&committed(PEER, 7, 3, 0), false);
        assert_eq!(outcomes(&watch), [(Outcome::Moved, 3, 1)]);
        assert!(watch.report(|_| String::new()).peers[0].reason.contains("max_flows"));
    }

    #[test]
    fn a_later_move_takes_its_place() {
        let mut watch = watch();
        watch.learn(&started(PEER, 7, 3), true);
        let (old, new) = (addresses().1, [10, 0, 0, 1].into());
        watch.learn(&News::MoveStarted { peer: OTHER, number: 8, old, new, flows: 3 }, true);
        assert!(!watch.is_over());
        watch.learn(&News::MoveStarted { peer: PEER, number: 8, old, new, flows: 3 }, true);
        assert!(watch.is_over());
        assert_eq!(outcomes(&watch), [(Outcome::Superseded, 3, 0)]);
    }
}
