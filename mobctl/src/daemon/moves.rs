//! `mobctl move` waits here for what the protocol tells of its move.

use crate::control::{MoveReport, Outcome, PeerMove};
use mobconn_dprp::{Instant, MoveRefusal, News, PublicKey, Refusal};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A move that somebody waits for: of each peer concerned one or several moves of the protocol.
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

/// What is known of one peer.
#[derive(Debug, Default)]
struct One {
    steps: BTreeMap<u32, Step>,
    /// Flows that this host's own kernel did not let move.
    stay: usize,
    reason: String,
}

/// One move of the protocol.
#[derive(Debug)]
struct Step {
    outcome: Outcome,
    flows: usize,
    refused: usize,
    interruption_ms: Option<f64>,
}

impl Watch {
    pub(super) const fn new(client: u64, deadline: Instant, old: IpAddr, new: IpAddr, old_usable: bool) -> Self {
        Self { client, deadline, old, new, old_usable, peers: BTreeMap::new() }
    }

    /// Takes in what the protocol tells. `beginning`: it was told while the move began.
    pub(super) fn learn(&mut self, news: &News, beginning: bool) {
        match news {
            News::MoveStarted { peer, number, old, new, flows } if (*old, *new) == (self.old, self.new) => {
                let step = Step { outcome: Outcome::InDoubt, flows: *flows, refused: 0, interruption_ms: None };
                self.peers.entry(*peer).or_default().steps.insert(*number, step);
            }
            News::FlowStays { peer, reason, .. } if beginning => {
                let one = self.peers.entry(*peer).or_default();
                one.stay += 1;
                one.reason = refusal(*reason).into();
            }
            News::MoveCommitted { peer, number, flows, refused, elapsed, .. } => {
                let Some(one) = self.peers.get_mut(peer) else { return };
                let Some(step) = one.steps.get_mut(number) else { return };
                let interruption_ms = Some(elapsed.as_secs_f64() * 1e3);
                *step = Step { outcome: Outcome::Moved, flows: *flows, refused: *refused, interruption_ms };
                if *refused > 0 {
                    one.reason = "the peer refused some flows".into();
                }
            }
            News::MoveRefused { peer, number, reason } => {
                let Some(one) = self.peers.get_mut(peer) else { return };
                let Some(step) = one.steps.get_mut(number) else { return };
                *step = Step { outcome: Outcome::Refused, flows: 0, refused: step.flows, interruption_ms: None };
                one.reason = move_refusal(*reason).into();
            }
            _ => {}
        }
    }

    /// Moves that wait and that the protocol no longer has were replaced by later ones, or their connections ended.
    pub(super) fn keep(&mut self, is_live: impl Fn(&PublicKey, u32) -> bool) {
        for (peer, one) in &mut self.peers {
            for (number, step) in &mut one.steps {
                if step.outcome == Outcome::InDoubt && !is_live(peer, *number) {
                    step.outcome = Outcome::Ended;
                }
            }
        }
    }

    /// Whether every peer has answered.
    pub(super) fn is_over(&self) -> bool {
        self.peers.values().flat_map(|one| one.steps.values()).all(|step| step.outcome != Outcome::InDoubt)
    }

    /// The outcome so far. `name` tells the name of a peer.
    pub(super) fn report(&self, name: impl Fn(&PublicKey) -> String) -> MoveReport {
        let peers = self.peers.iter().map(|(key, one)| {
            let steps = || one.steps.values();
            PeerMove {
                peer: key.to_string(),
                name: name(key),
                // The worst counts. A peer that was not asked at all has flows that this host's own kernel refused.
                outcome: steps().map(|step| step.outcome).max().unwrap_or(Outcome::Refused),
                flows: steps().filter(|step| step.outcome == Outcome::Moved).map(|step| step.flows).sum(),
                refused: steps().map(|step| step.refused).sum::<usize>() + one.stay,
                reason: one.reason.clone(),
                interruption_ms: steps().filter_map(|step| step.interruption_ms).reduce(f64::max),
            }
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
        watch.learn(&started(OTHER, 8, 2), true);
        watch.learn(&committed(PEER, 6, 9, 9), false);
        watch.learn(&committed(OTHER, 7, 9, 9), false);
        watch.keep(|_, _| true);
        assert!(!watch.is_over());
        assert_eq!(outcomes(&watch), [(Outcome::InDoubt, 0, 0), (Outcome::InDoubt, 0, 0)]);
        watch.learn(&committed(PEER, 7, 2, 1), false);
        assert!(!watch.is_over());
        watch.learn(&News::MoveRefused { peer: OTHER, number: 8, reason: MoveRefusal::Translated }, false);
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
    fn several_moves_with_one_peer_are_one() {
        let mut watch = watch();
        watch.learn(&started(PEER, 7, 3), true);
        watch.learn(&started(PEER, 8, 4), true);
        watch.learn(&committed(PEER, 8, 4, 0), false);
        assert!(!watch.is_over());
        assert_eq!(outcomes(&watch), [(Outcome::InDoubt, 4, 0)]);
        // What did not fit at first follows later.
        watch.learn(&started(PEER, 9, 1), false);
        watch.learn(&committed(PEER, 7, 3, 0), false);
        assert!(!watch.is_over());
        watch.learn(&committed(PEER, 9, 1, 0), false);
        assert!(watch.is_over());
        assert_eq!(outcomes(&watch), [(Outcome::Moved, 8, 0)]);
    }

    #[test]
    fn a_move_that_the_protocol_gave_up_is_over() {
        let mut watch = watch();
        watch.learn(&started(PEER, 7, 3), true);
        let (old, new) = (addresses().1, [10, 0, 0, 1].into());
        watch.learn(&News::MoveStarted { peer: PEER, number: 8, old, new, flows: 3 }, true);
        assert!(!watch.is_over());
        watch.keep(|peer, number| (*peer, number) == (PEER, 8));
        assert!(watch.is_over());
        assert_eq!(outcomes(&watch), [(Outcome::Ended, 0, 0)]);
    }
}
