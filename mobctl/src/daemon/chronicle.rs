//! What the protocol tells, for the log and for `mobctl status`.

use super::moves;
use crate::control::{self, PastMove, Trouble};
use log::Level;
use mobconn_dprp::{ClaimStatus, Instant, MoveRefusal, News, Notice, PublicKey};
use std::collections::{BTreeMap, VecDeque};

/// Past moves that are remembered.
const MOVES_MAX: usize = 16;
/// Moves in progress whose addresses are remembered.
const STARTED_MAX: usize = 4096;
/// Hosts with trouble that are remembered.
const TROUBLES_MAX: usize = 64;

/// The last moves, and with which hosts something is wrong.
#[derive(Debug, Default)]
pub(super) struct Chronicle {
    moves: VecDeque<(Instant, PastMove)>,
    troubles: BTreeMap<String, (Instant, String, &'static str)>,
    /// Old and new address of this host's moves in progress, by peer and number.
    started: BTreeMap<(String, u32), PastMove>,
}

impl Chronicle {
    /// Takes in a notice and logs it.
    pub(super) fn record(&mut self, notice: &Notice) {
        let (level, text) = describe(&notice.news);
        log::log!(level, "{text}");
        match &notice.news {
            News::AssociationUp { peer, address, .. } => {
                self.troubles.remove(&address.ip().to_string());
                self.troubles.remove(&peer.to_string());
            }
            News::NoAnswer { address, .. } => {
                self.trouble(
                    notice.at,
                    address.ip().to_string(),
                    "does not answer: no mobconn there, another group key, or a firewall".into(),
                    "Run mobctl doctor there; let UDP port 9434 through; a host without mobconn needs no entry in peers",
                );
            }
            News::WrongKey { address, key } => {
                self.trouble(
                    notice.at,
                    address.ip().to_string(),
                    format!("has the key {key}, which is not pinned here"),
                    "If that is its key (mobctl keygen public, there), add it to pins; else find out who that is",
                );
            }
            News::Translated { peer, sent_from, seen_as } => {
                self.translation(notice.at, peer, format!("{sent_from} arrives as {seen_as}"));
            }
            News::ClaimsConfirmed { peer, .. } => {
                self.troubles.remove(&peer.to_string());
            }
            News::ClaimRefused { peer, flow, reason: ClaimStatus::WrongAddress } => {
                self.translation(notice.at, peer, format!("{} does not arrive as that", flow.local.ip()));
            }
            News::MoveStarted { peer, number, old, new, .. } => {
                let blank = past("this host", &peer.to_string());
                self.started
                    .insert((peer.to_string(), *number), PastMove { old: Some(*old), new: Some(*new), ..blank });
                if self.started.len() > STARTED_MAX {
                    self.started.pop_first();
                }
            }
            News::MoveCommitted { peer, number, new, flows, refused, elapsed } => {
                self.troubles.remove(&peer.to_string());
                let begun = self.started.remove(&(peer.to_string(), *number));
                let begun = begun.unwrap_or_else(|| past("this host", &peer.to_string()));
                self.past(
                    notice.at,
                    PastMove {
                        new: Some(*new),
                        flows: *flows,
                        refused: *refused,
                        interruption_ms: elapsed.as_secs_f64() * 1e3,
                        ..begun
                    },
                );
            }
            News::MoveRefused { peer, number, reason } => {
                let begun = self.started.remove(&(peer.to_string(), *number));
                let new = begun.and_then(|begun| begun.new).filter(|_| *reason == MoveRefusal::Translated);
                if let Some(new) = new {
                    self.translation(notice.at, peer, format!("the move to {new} was refused"));
                }
            }
            News::PeerMoved { peer, old, new, flows, refused, elapsed, .. } => self.past(
                notice.at,
                PastMove {
                    old: Some(*old),
                    new: Some(*new),
                    flows: *flows,
                    refused: *refused,
                    interruption_ms: elapsed.as_secs_f64() * 1e3,
                    ..past("peer", &peer.to_string())
                },
            ),
            _ => {}
        }
    }

    fn translation(&mut self, at: Instant, peer: &PublicKey, how: String) {
        self.trouble(
            at,
            peer.to_string(),
            format!("address translation (NAT) lies between: {how}"),
            "Connections cannot move there, and stay where they are: use IPv6, or a network without address translation",
        );
    }

    fn trouble(&mut self, at: Instant, host: String, what: String, advice: &'static str) {
        if self.troubles.len() >= TROUBLES_MAX && !self.troubles.contains_key(&host) {
            let oldest = self.troubles.iter().min_by_key(|(_, (at, ..))| *at).map(|(host, _)| host.clone());
            oldest.map(|host| self.troubles.remove(&host));
        }
        self.troubles.insert(host, (at, what, advice));
    }

    fn past(&mut self, at: Instant, past: PastMove) {
        // Nothing moved: both ends agree again where the flows are.
        if past.old.is_some() && past.old == past.new {
            return;
        }
        if self.moves.len() >= MOVES_MAX {
            self.moves.pop_front();
        }
        self.moves.push_back((at, past));
    }

    /// The last moves, newest last.
    pub(super) fn moves(&self, now: Instant) -> Vec<PastMove> {
        self.moves.iter().map(|(at, past)| PastMove { age: now.since(*at).as_secs(), ..past.clone() }).collect()
    }

    /// Hosts with trouble.
    pub(super) fn troubles(&self, now: Instant) -> Vec<Trouble> {
        let trouble = |(host, (at, what, advice)): (&String, &(Instant, String, &'static str))| Trouble {
            host: host.clone(),
            what: what.clone(),
            advice: (*advice).into(),
            age: now.since(*at).as_secs(),
        };
        self.troubles.iter().map(trouble).collect()
    }
}

fn past(who: &str, peer: &str) -> PastMove {
    let (who, peer) = (who.into(), peer.into());
    PastMove { who, peer, old: None, new: None, flows: 0, refused: 0, interruption_ms: 0.0, age: 0 }
}

/// A notice for those who watch.
pub(super) fn news(news: &News) -> control::News {
    let (level, text) = describe(news);
    let (kind, peer) = match news {
        News::AssociationUp { peer, .. } => ("association-up", Some(peer)),
        News::AssociationDown { peer } => ("association-down", Some(peer)),
        News::PeerRestarted { peer } => ("peer-restarted", Some(peer)),
        News::NoAnswer { .. } => ("no-answer", None),
        News::WrongKey { .. } => ("wrong-key", None),
        News::Translated { peer, .. } => ("translated", Some(peer)),
        News::ClaimsConfirmed { peer, .. } => ("claims-confirmed", Some(peer)),
        News::ClaimRefused { peer, .. } => ("claim-refused", Some(peer)),
        News::MoveStarted { peer, .. } => ("move-started", Some(peer)),
        News::FlowStays { peer, .. } => ("flow-stays", Some(peer)),
        News::MoveInDoubt { peer, .. } => ("move-in-doubt", Some(peer)),
        News::MoveCommitted { peer, .. } => ("move-committed", Some(peer)),
        News::MoveRefused { peer, .. } => ("move-refused", Some(peer)),
        News::PeerMoved { peer, .. } => ("peer-moved", Some(peer)),
        News::PeerMoveExpired { peer, .. } => ("peer-move-expired", Some(peer)),
        News::PeerMoveRefused { peer, .. } => ("peer-move-refused", Some(peer)),
        _ => ("other", None),
    };
    control::News {
        kind: kind.into(),
        level: level.as_str().to_ascii_lowercase(),
        peer: peer.map(ToString::to_string).unwrap_or_default(),
        text,
    }
}

/// A notice as a line of the log.
fn describe(news: &News) -> (Level, String) {
    match news {
        News::AssociationUp { peer, name, address, started, elapsed } => {
            let who = if *started { "to" } else { "from" };
            let name = if name.is_empty() { String::new() } else { format!(" ({})", printable(name)) };
            (
                Level::Info,
                format!("association {who} {address}{name}, key {peer}, in {:.1} ms", elapsed.as_secs_f64() * 1e3),
            )
        }
        News::AssociationDown { peer } => {
            (Level::Info, format!("association with {peer} given up: nothing is claimed"))
        }
        News::PeerRestarted { peer } => (Level::Info, format!("the daemon of {peer} was restarted")),
        News::NoAnswer { address, .. } => (Level::Info, format!("{address} does not answer")),
        News::WrongKey { address, key } => {
            (Level::Warn, format!("{address} has the key {key}, which is not pinned: nothing is claimed there"))
        }
        News::Translated { peer, sent_from, seen_as } => (
            Level::Warn,
            format!(
                "address translation (NAT) lies between this host and {peer}: {sent_from} arrives as {seen_as}; its flows cannot move"
            ),
        ),
        News::ClaimsConfirmed { peer, flows } => (Level::Debug, format!("{peer} confirmed {flows} claims")),
        News::ClaimRefused { peer, flow, reason } => (
            Level::Debug,
            format!("{peer} refused the claim of {} to {}: {}", flow.local, flow.remote, claim_status(*reason)),
        ),
        News::MoveStarted { peer, old, new, flows, .. } if old == new => {
            (Level::Info, format!("asking {peer} whether {flows} flows are at {new} as they are here"))
        }
        News::MoveStarted { peer, old, new, flows, .. } => {
            (Level::Info, format!("moving {flows} flows with {peer} from {old} to {new}"))
        }
        News::FlowStays { peer, flow, reason } => (
            Level::Warn,
            format!("the flow {} to {} (with {peer}) stays: {}", flow.local, flow.remote, moves::refusal(*reason)),
        ),
        News::MoveInDoubt { peer, elapsed, .. } => (
            Level::Warn,
            format!(
                "{peer} has not answered a move for {:.1} s: both addresses are kept and it is asked again",
                elapsed.as_secs_f64()
            ),
        ),
        News::MoveCommitted { peer, new, flows, refused, elapsed, .. } => {
            let level = if *refused == 0 { Level::Info } else { Level::Warn };
            let refused = if *refused == 0 { String::new() } else { format!(", {refused} refused") };
            (
                level,
                format!("moved {flows} flows with {peer} to {new} in {:.3} ms{refused}", elapsed.as_secs_f64() * 1e3),
            )
        }
        News::MoveRefused { peer, reason, .. } => {
            (Level::Warn, format!("{peer} refused a move: {}", moves::move_refusal(*reason)))
        }
        News::PeerMoved { peer, old, new, flows, refused, elapsed, .. } => (
            Level::Info,
            format!(
                "{peer} moved {flows} flows from {old} to {new} in {:.3} ms, {refused} refused",
                elapsed.as_secs_f64() * 1e3
            ),
        ),
        News::PeerMoveExpired { peer, new, .. } => {
            (Level::Warn, format!("{peer} asked for a move to {new}, which did not answer: taken back"))
        }
        News::PeerMoveRefused { peer, reason, .. } => {
            (Level::Warn, format!("refused a move of {peer}: {}", moves::move_refusal(*reason)))
        }
        other => (Level::Debug, format!("{other:?}")),
    }
}

/// A name that a peer gave, safe to show.
pub(super) fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

const fn claim_status(status: ClaimStatus) -> &'static str {
    match status {
        ClaimStatus::Confirmed => "it holds",
        ClaimStatus::NotFound => "it has no such connection",
        ClaimStatus::WrongAddress => "the claim came from another address",
        ClaimStatus::Taken => "another host has it",
        ClaimStatus::Full => "it takes no more",
        ClaimStatus::Invalid => "no flow that can be claimed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mobconn_dprp::PublicKey;
    use std::time::Duration;

    fn notice(seconds: u64, news: News) -> Notice {
        Notice { at: Instant::from_micros(seconds * 1_000_000), news }
    }

    #[test]
    fn moves_are_remembered_with_both_addresses() {
        let (old, new) = ([192, 0, 2, 1].into(), [198, 51, 100, 1].into());
        let peer = PublicKey([3; 32]);
        let mut chronicle = Chronicle::default();
        chronicle.record(&notice(1, News::MoveStarted { peer, number: 9, old, new, flows: 5 }));
        assert_eq!(chronicle.moves(Instant::from_micros(0)), []);
        let elapsed = Duration::from_micros(1500);
        chronicle.record(&notice(2, News::MoveCommitted { peer, number: 9, new, flows: 4, refused: 1, elapsed }));
        let expected = PastMove {
            old: Some(old),
            new: Some(new),
            flows: 4,
            refused: 1,
            interruption_ms: 1.5,
            age: 3,
            ..past("this host", &peer.to_string())
        };
        // What only made both ends agree is no move.
        let (number, flows, refused) = (10, 1, 0);
        chronicle.record(&notice(3, News::MoveStarted { peer, number, old: new, new, flows }));
        chronicle.record(&notice(3, News::MoveCommitted { peer, number, new, flows, refused, elapsed }));
        assert_eq!(chronicle.moves(Instant::from_micros(5_000_000)), [expected]);
        for _ in 0..40 {
            chronicle.record(&notice(6, News::PeerMoved { peer, number: 1, old, new, flows: 1, refused: 0, elapsed }));
        }
        assert_eq!(chronicle.moves(Instant::from_micros(0)).len(), MOVES_MAX);
    }

    #[test]
    fn news_carry_the_peer_and_the_line_of_the_log() {
        let peer = PublicKey([3; 32]);
        let told = news(&News::PeerRestarted { peer });
        assert_eq!((told.kind.as_str(), told.level.as_str()), ("peer-restarted", "info"));
        assert_eq!(told.peer, peer.to_string());
        assert_eq!(told.text, format!("the daemon of {peer} was restarted"));
        let address = "192.0.2.9:9434".parse().unwrap();
        let told = news(&News::NoAnswer { address, again: Instant::from_micros(0) });
        assert_eq!((told.kind.as_str(), told.peer.as_str()), ("no-answer", ""));
    }

    #[test]
    fn troubles_end_with_an_association_and_are_bounded() {
        let address = "192.0.2.9:9434".parse().unwrap();
        let mut chronicle = Chronicle::default();
        chronicle.record(&notice(1, News::NoAnswer { address, again: Instant::from_micros(0) }));
        let troubles = chronicle.troubles(Instant::from_micros(4_000_000));
        assert_eq!((troubles[0].host.as_str(), troubles[0].age), ("192.0.2.9", 3));
        let (peer, elapsed) = (PublicKey([3; 32]), Duration::ZERO);
        chronicle
            .record(&notice(2, News::AssociationUp { peer, name: String::new(), address, started: true, elapsed }));
        assert_eq!(chronicle.troubles(Instant::from_micros(0)), []);
        for last in 0..200 {
            let address = ([192, 0, 2, last], 9434).into();
            chronicle.record(&notice(last.into(), News::NoAnswer { address, again: Instant::from_micros(0) }));
        }
        let troubles = chronicle.troubles(Instant::from_micros(0));
        assert_eq!(troubles.len(), TROUBLES_MAX);
        assert!(troubles.iter().any(|trouble| trouble.host == "192.0.2.199"));
        assert!(!troubles.iter().any(|trouble| trouble.host == "192.0.2.3"));
    }

    #[test]
    fn translation_is_told_until_something_goes_through() {
        let (peer, elapsed) = (PublicKey([3; 32]), Duration::ZERO);
        let (old, new): (std::net::IpAddr, std::net::IpAddr) = ([192, 0, 2, 1].into(), [10, 0, 0, 1].into());
        let address = "203.0.113.9:9434".parse().unwrap();
        let up = || News::AssociationUp { peer, name: String::new(), address, started: true, elapsed };
        let flow = mobconn_dprp::Flow {
            local: (new, 1).into(),
            remote: (address.ip(), 2).into(),
            protocol: mobconn_dprp::Protocol::Tcp,
        };
        let refused = |reason| News::MoveRefused { peer, number: 1, reason };
        let mut chronicle = Chronicle::default();
        let mut told = |all: Vec<News>| {
            all.into_iter().for_each(|news| chronicle.record(&notice(1, news)));
            chronicle.troubles(Instant::from_micros(0)).into_iter().map(|one| one.what).collect::<String>()
        };
        let said = told(vec![up(), News::Translated { peer, sent_from: new, seen_as: old }]);
        assert_eq!(said, "address translation (NAT) lies between: 10.0.0.1 arrives as 192.0.2.1");
        assert_eq!(told(vec![up()]), "", "without it");
        let said = told(vec![News::ClaimRefused { peer, flow, reason: ClaimStatus::WrongAddress }]);
        assert!(said.contains("(NAT)"), "{said}");
        assert_eq!(told(vec![News::ClaimsConfirmed { peer, flows: 1 }]), "");
        assert_eq!(told(vec![News::ClaimRefused { peer, flow, reason: ClaimStatus::NotFound }]), "", "another reason");
        let started = || News::MoveStarted { peer, number: 1, old, new, flows: 1 };
        assert_eq!(told(vec![started(), refused(MoveRefusal::Address)]), "", "another reason");
        let said = told(vec![started(), refused(MoveRefusal::Translated)]);
        assert!(said.contains("the move to 10.0.0.1 was refused"), "{said}");
        assert_eq!(told(vec![News::MoveCommitted { peer, number: 2, new, flows: 1, refused: 0, elapsed }]), "");
    }

    #[test]
    fn a_peers_name_cannot_forge_the_log() {
        let (peer, address, elapsed) = (PublicKey([3; 32]), "192.0.2.9:9434".parse().unwrap(), Duration::ZERO);
        let name = "x\nmobctl: error: \u{1b}[31m".into();
        let (_, text) = describe(&News::AssociationUp { peer, name, address, started: true, elapsed });
        assert!(text.contains("(x?mobctl:?error:??[31m)"), "{text}");
    }
}
