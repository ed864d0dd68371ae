//! Corners: what no other test would notice.

use super::kernel::Other;
use super::world::*;
use crate::codec::Range;
use crate::message::{Message, Move, Selection};
use crate::{ClaimStatus, News};
use std::time::Duration;

/// Length of a refusal of a whole move.
const REFUSED: usize = 38;
/// Length of a challenge, a proof and a response; also of a claim of one flow.
const TOKEN: usize = 53;

fn lengths(world: &World, start: usize, from: &str) -> Vec<usize> {
    world.sent[start..].iter().filter(|d| d.from.ip() == ip(from) && d.data[0] == 4).map(|d| d.data.len()).collect()
}

fn when(node: &Node, wanted: impl Fn(&News) -> bool) -> Option<Duration> {
    node.news.iter().filter(|(_, news)| wanted(news)).map(|(at, _)| *at).next_back()
}

/// The right answer to a challenge, from another port than the challenge went to.
#[test]
fn an_answer_comes_from_where_the_challenge_went() {
    let mut world = World::pair(1);
    world.meddle = Some(Box::new(|datagram| {
        if datagram.from.ip() == ip(HOME) && datagram.data.len() == TOKEN {
            datagram.from.set_port(9435);
        }
        true
    }));
    for port in [40_000, 40_001] {
        world.connect(0, 1, (HOME, port), (SERVER, 22));
    }
    world.flows(0);
    world.run(5 * SECOND);
    assert_eq!((world.nodes[0].view().confirmed, world.nodes[1].view().claims), (0, 0));
    world.meddle = None;
    world.run(60 * SECOND);
    assert_eq!(world.nodes[1].view().claims, 2);

    let flow = *world.nodes[0].kernel.connections.keys().next().expect("a flow");
    world.meddle = Some(Box::new(|datagram| {
        if datagram.from.ip() == ip(CAFE) && datagram.data.len() == TOKEN {
            datagram.from.set_ip(ip(TRAIN));
        }
        true
    }));
    world.go(0, HOME, CAFE, true);
    world.run(5 * SECOND);
    assert_eq!(world.wire(1, &flow.mirrored()).1, ip(HOME));
    world.meddle = None;
    world.run(30 * SECOND);
    assert_eq!(world.wire(1, &flow.mirrored()).1, ip(CAFE));
}

/// A challenge that arrives at another address than the one that it is to prove is not answered.
#[test]
fn a_challenge_is_answered_only_where_it_proves_something() {
    let mut world = World::pair(2);
    world.nodes[0].up.insert(ip(TRAIN));
    world.meddle = Some(Box::new(|datagram| {
        if datagram.to.ip() != ip(SERVER) && datagram.data.len() == TOKEN {
            datagram.to.set_ip(ip(TRAIN));
        }
        true
    }));
    for port in [40_000, 40_001] {
        world.connect(0, 1, (HOME, port), (SERVER, 22));
    }
    world.flows(0);
    world.run(5 * SECOND);
    assert!(!lengths(&world, 0, HOME).contains(&TOKEN));
    world.meddle = None;
    world.run(60 * SECOND);
    assert_eq!(world.nodes[0].view().confirmed, 2);
    let sent = world.sent.len();
    world.meddle = Some(Box::new(|datagram| {
        if datagram.to.ip() == ip(CAFE) && datagram.data.len() == CHALLENGE {
            datagram.to.set_ip(ip(HOME));
        }
        true
    }));
    world.go(0, HOME, CAFE, true);
    world.run(300 * MS);
    assert!(lengths(&world, sent, SERVER).contains(&CHALLENGE));
    for from in [HOME, CAFE] {
        assert!(!lengths(&world, sent, from).contains(&TOKEN), "{from}");
    }
}

/// Who sends a Finish from an address that it does not have gets no association there.
#[test]
fn a_handshake_ends_where_it_began() {
    for kind in [2, 3] {
        let mut world = World::pair(3);
        world.meddle = Some(Box::new(move |datagram| {
            if datagram.data[0] == kind {
                datagram.from.set_ip(ip(TRAIN));
            }
            true
        }));
        world.connect(0, 1, (HOME, 40_000), (SERVER, 22));
        world.flows(0);
        world.run(5 * SECOND);
        for node in &world.nodes {
            assert_eq!(node.endpoint.peers().count(), 0, "{kind}");
        }
        assert_eq!(world.sent.iter().any(|datagram| datagram.data[0] == 3), kind == 3, "not even answered");
    }
}

/// The same number of claims, another set.
#[test]
fn the_digest_finds_what_the_count_does_not() {
    let mut world = World::pair(4);
    let flows = world.claimed(10, HOME, SERVER);
    let peer = world.nodes[1].endpoint.peers.all.values_mut().next().expect("a peer");
    let (_, first) = peer.correspondent.claims.pop_first().expect("a claim");
    peer.correspondent.claims.insert(999, first);
    let sent = world.sent.len();
    world.go(0, HOME, CAFE, true);
    world.run(200 * MS);
    assert!(lengths(&world, sent, SERVER).contains(&REFUSED));
    assert_eq!(flows.iter().filter(|flow| world.wire(0, flow).0 == ip(CAFE)).count(), 9);
}

/// The connection at the peer is another one with the same addresses and ports; nobody has told the daemon yet.
#[test]
fn a_move_asks_for_the_connection_once_more() {
    let mut world = World::pair(5);
    let flows = world.claimed(2, HOME, SERVER);
    world.nodes[1].kernel.connections.insert(flows[0].mirrored(), 77);
    world.go(0, HOME, CAFE, true);
    world.run(SECOND);
    let at = |flow| (world.wire(0, flow).0, world.wire(1, &flow.mirrored()).1);
    assert_eq!((at(&flows[0]), at(&flows[1])), ((ip(HOME), ip(HOME)), (ip(CAFE), ip(CAFE))));
}

/// Claims on their way, ended claims not yet released, claims made meanwhile, and claims that end meanwhile: the two ends
/// mean the same by a bundle all the same.
#[test]
fn bundles_are_not_disturbed() {
    [false, true].into_iter().for_each(disturb);
}

fn disturb(lose_releases: bool) {
    let mut world = World::pair(6);
    let flows = world.claimed(50, HOME, SERVER);
    // The release is lost.
    world.meddle = Some(Box::new(|datagram| datagram.data.len() != 46));
    world.end(0, &flows[9]);
    world.flows(0);
    world.run(15 * MS);
    // The peer confirms what the mover does not know of yet.
    for port in 0..20 {
        world.connect(0, 1, (HOME, 30_000 + port), (SERVER, 22));
    }
    world.flows(0);
    world.run(35 * MS);
    assert_eq!((world.nodes[1].view().claims, world.nodes[0].view().confirmed), (70, 49));
    let sent = world.sent.len();
    // The move waits in a bad network; claims come and go.
    world.meddle =
        Some(Box::new(move |datagram| datagram.from.ip() != ip(CAFE) && !(lose_releases && datagram.data.len() == 46)));
    world.go(0, HOME, CAFE, true);
    world.run(SECOND);
    for port in 0..20 {
        world.connect(0, 1, (HOME, 35_000 + port), (SERVER, 22));
    }
    world.end(0, &flows[20]);
    world.flows(0);
    world.run(SECOND);
    assert_eq!(world.nodes[0].view().unconfirmed, 0);
    world.meddle = None;
    world.run(30 * SECOND);
    assert!(!lengths(&world, sent, SERVER).contains(&REFUSED), "never a disagreement");
    world.assert_agreed();
    assert!(world.nodes[0].kernel.connections.keys().all(|flow| world.wire(0, flow).0 == ip(CAFE)));
    assert_eq!(world.nodes[1].view().claims, 88, "what has ended is released");
}

/// A host goes from the first network to a third; what is claimed in the first one later follows there.
#[test]
fn late_claims_go_where_the_host_is() {
    let mut world = World::pair(7);
    world.claimed(1, HOME, SERVER);
    world.go(0, HOME, CAFE, true);
    world.run(SECOND);
    world.go(0, CAFE, TRAIN, true);
    world.run(SECOND);
    let flow = world.connect(0, 1, (HOME, 50_000), (SERVER, 22));
    world.flows(0);
    world.run(SECOND);
    assert_eq!(world.wire(0, &flow).0, ip(TRAIN));
    world.assert_agreed();
    let moves = world.nodes[0].news.iter().filter(|(_, news)| matches!(news, News::MoveStarted { .. })).count();
    assert_eq!(moves, 3, "straight");
}

/// A commit of many parts is told in full while the address is fresh, and later a part for each question: somebody else
/// may have the address.
#[test]
fn old_outcomes_are_told_bit_by_bit() {
    let mut world = World::pair(14);
    let flows = world.claimed(1000, HOME, SERVER);
    flows.iter().step_by(2).for_each(|flow| world.end(1, &flow.mirrored()));
    world.flows(1);
    // Nothing of the commit arrives, but the challenge does.
    world.meddle = Some(Box::new(|datagram| datagram.from.ip() != ip(SERVER) || datagram.data.len() == CHALLENGE));
    let sent = world.sent.len();
    world.go(0, HOME, CAFE, true);
    world.run(45 * MS);
    assert_eq!(lengths(&world, sent, SERVER), [CHALLENGE, 1194, 1194, 1194, 1086]);
    world.run(30 * SECOND);
    let sent = world.sent.len();
    world.run(60 * SECOND);
    let (asked, told) = (lengths(&world, sent, CAFE).len(), lengths(&world, sent, SERVER));
    assert_eq!((told.len(), told.contains(&1086), told.contains(&1194)), (asked, true, true));
    world.meddle = None;
    world.run(60 * SECOND);
    let done = |news: &News| matches!(news, News::MoveCommitted { flows: 500, refused: 500, .. });
    assert!(world.nodes[0].has_news(done));
}

/// Members of the group that begin to claim and do not go on.
#[test]
fn batches_that_wait_for_their_proof_are_bounded() {
    let mut world = World::new(15);
    let mut config = fixed(2);
    config.limits.half_open = 8;
    world.add(config, &[SERVER]);
    for number in 1..=20 {
        let address = format!("198.51.100.{number}");
        let node = world.add(mobile(number + 10), &[&address]);
        world.connect(node, 0, (&address, 40_000), (SERVER, 22));
        world.connect(node, 0, (&address, 40_001), (SERVER, 22));
        world.flows(node);
    }
    world.meddle = Some(Box::new(|datagram| datagram.from.ip() == ip(SERVER) || datagram.data.len() != TOKEN));
    world.run(2 * SECOND);
    let waiting = |world: &World| {
        let peers = world.nodes[0].endpoint.peers.all.values();
        peers.map(|peer| peer.correspondent.offers.len()).sum::<usize>()
    };
    assert_eq!(waiting(&world), 8);
    world.nodes[1..].iter_mut().for_each(|node| node.up.clear());
    world.run(1000 * SECOND);
    assert_eq!((waiting(&world), world.nodes[0].endpoint.peers().count()), (0, 0));
}

/// The mover hears nothing, and is heard: what it asked for stays prepared.
#[test]
fn who_goes_on_asking_is_waited_for() {
    let mut world = World::pair(16);
    world.claimed(1, HOME, SERVER);
    world.meddle = Some(Box::new(|datagram| datagram.from.ip() != ip(SERVER)));
    world.go(0, HOME, CAFE, true);
    world.run(120 * SECOND);
    assert!(!world.nodes[1].has_news(|news| matches!(news, News::PeerMoveExpired { .. })));
    world.meddle = None;
    world.run(15 * SECOND);
    world.assert_agreed();
}

/// A connection that has ended since the last look at the list is not prepared to move.
#[test]
fn the_mover_looks_before_it_prepares() {
    let mut world = World::pair(17);
    let flows = world.claimed(2, HOME, SERVER);
    world.nodes[0].kernel.connections.remove(&flows[0]);
    world.go(0, HOME, CAFE, true);
    assert_eq!(world.nodes[0].kernel.bindings.keys().collect::<Vec<_>>(), [&flows[1]]);
}

/// The host leaves the address from which it talked to a peer, though no flow is there: it goes on talking from the new one.
#[test]
fn the_conversation_moves_even_if_no_flow_does() {
    let mut world = World::pair(18);
    let flow = world.claimed(1, HOME, SERVER)[0];
    world.nodes[0].up.insert(ip(TRAIN));
    world.connect(0, 1, (TRAIN, 50_000), (SERVER, 22));
    world.end(0, &flow);
    world.end(1, &flow.mirrored());
    world.flows(0);
    world.run(SECOND);
    world.go(0, HOME, CAFE, false);
    world.restart(1);
    world.run(60 * SECOND);
    let view = world.nodes[1].view();
    assert_eq!((view.claims, view.address.ip()), (1, ip(CAFE)));
}

#[test]
fn a_new_association_repeats_the_move_at_once() {
    let mut world = World::pair(8);
    world.claimed(1, HOME, SERVER);
    // Sealed datagrams do not get through, handshakes do, later.
    world.meddle = Some(Box::new(|datagram| datagram.data[0] != 4 && datagram.data[0] != 1));
    world.go(0, HOME, CAFE, false);
    world.run(20 * SECOND);
    world.meddle = None;
    world.restart(1);
    world.run(20 * SECOND);
    let up = when(&world.nodes[0], |news| matches!(news, News::PeerRestarted { .. })).expect("an association");
    let done = when(&world.nodes[0], |news| matches!(news, News::MoveCommitted { .. })).expect("an end");
    assert!(done - up <= 60 * MS, "{:?}", done - up);
}

/// The mover's daemon restarts in the middle of its move: the peer takes back what it had prepared.
#[test]
fn a_mover_that_restarted_in_the_middle() {
    let mut world = World::pair(9);
    let flows = world.claimed(3, HOME, SERVER);
    world.go(0, HOME, CAFE, true);
    world.run(15 * MS);
    assert!(matches!(world.nodes[1].kernel.binding(&flows[0].mirrored()).remote.other, Other::Pending { .. }));
    world.nodes[0].up.remove(&ip(CAFE));
    world.restart(0);
    world.run(300 * MS);
    for flow in &flows {
        assert_eq!(world.nodes[1].kernel.binding(&flow.mirrored()).remote.other, Other::None);
    }
    world.go(0, HOME, CAFE, true);
    world.run(SECOND);
    world.assert_agreed();
    assert_eq!(world.wire(0, &flows[0]).0, ip(CAFE));
}

/// A new incarnation has associated and not claimed yet: what the former one had claimed is nobody else's.
#[test]
fn claims_outlive_the_claimers_daemon() {
    let mut world = World::pair(10);
    let flows = world.claimed(2, HOME, SERVER);
    let thief = world.add(mobile(3), &[CAFE]);
    let kept = world.nodes[0].kernel.connections.remove(&flows[0]).expect("a connection");
    world.restart(0);
    world.run(SECOND);
    assert_eq!(world.nodes[1].view().claims, 1);
    // The thief gets the address.
    world.nodes[0].up.clear();
    world.nodes[thief].up = [ip(HOME)].into();
    world.nodes[thief].kernel.connections.insert(flows[0], 1);
    world.flows(thief);
    world.run(2 * SECOND);
    let taken = |news: &News| matches!(news, News::ClaimRefused { reason: ClaimStatus::Taken, .. });
    assert!(world.nodes[thief].has_news(taken));
    // The rightful owner claims again.
    world.nodes[thief].up.clear();
    world.nodes[0].up.insert(ip(HOME));
    world.nodes[0].kernel.connections.insert(flows[0], kept);
    world.flows(0);
    world.run(60 * SECOND);
    assert_eq!(world.nodes[0].view().confirmed, 2);
}

#[test]
fn a_claim_of_one_family_is_not_moved_to_the_other() {
    let mut world = World::new(11);
    world.add(mobile(1), &[HOME, "2001:db8:1::10"]);
    world.add(fixed(2), &[SERVER, "2001:db8:2::80"]);
    let four = world.connect(0, 1, (HOME, 40_000), (SERVER, 22));
    world.connect(0, 1, ("2001:db8:1::10", 40_000), ("2001:db8:2::80", 22));
    world.flows(0);
    world.run(SECOND);
    let six = ip("2001:db8:1::11");
    world.nodes[0].up.insert(six);
    let selection = Selection::Listed { ranges: vec![Range { first: 1, last: 2 }] };
    let request = Move { number: 1, old_usable: true, old: ip(HOME), new: six, former: None, selection };
    world.say(0, "2001:db8:1::11", "2001:db8:2::80", &Message::Move(request));
    world.run(SECOND);
    assert_eq!(world.nodes[1].kernel.bindings.get(&four.mirrored()), None);
    assert_eq!(world.nodes[1].kernel.bindings.len(), 1, "the other one may");
}

/// Another member of the group has the peer's address now: it is not taken for the peer.
#[test]
fn a_stranger_at_the_peers_address_is_recognised() {
    let mut world = World::pair(12);
    let flow = world.claimed(1, HOME, SERVER)[0];
    world.nodes[1].up.clear();
    let stranger = world.add(fixed(3), &[SERVER]);
    world.go(0, HOME, CAFE, false);
    world.run(30 * SECOND);
    let wrong = |news: &News| matches!(news, News::WrongKey { key, .. } if *key == host_key(3).public());
    assert!(world.nodes[0].has_news(wrong));
    assert_eq!(world.nodes[stranger].endpoint.peers().count(), 0);
    assert!(world.nodes[0].kernel.binding(&flow).local.holds(), "in doubt");
}

/// Where a peer has moved to, it is found; where it was, somebody else is.
#[test]
fn addresses_follow_their_owners() {
    let mut world = World::new(13);
    world.add(mobile(1), &[HOME]);
    world.add(mobile(2), &[SERVER]);
    world.claimed(1, HOME, SERVER);
    world.go(0, HOME, CAFE, false);
    world.run(SECOND);
    let sent = world.sent.len();
    let there = world.connect(1, 0, (SERVER, 50_000), (CAFE, 22));
    world.flows(1);
    world.run(SECOND);
    assert!(world.nodes[1].endpoint.peers().any(|peer| peer.confirmed == 2), "{there:?}");
    assert!(world.sent[sent..].iter().all(|datagram| datagram.data[0] == 4), "no handshake");
    let heir = world.add(fixed(3), &[HOME]);
    world.connect(1, heir, (SERVER, 50_001), (HOME, 22));
    world.flows(1);
    world.run(SECOND);
    assert_eq!(world.nodes[heir].view().claims, 1, "asked at once");
}
