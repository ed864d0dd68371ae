//! Moves of one host, and what may go wrong.

use super::kernel::Other;
use super::world::*;
use crate::{Event, Flow, Half, Host, MoveRefusal, News, Refusal};
use std::time::Duration;

fn committed(node: &Node) -> Vec<(usize, usize, Duration)> {
    let of = |news: &News| match news {
        News::MoveCommitted { flows, refused, elapsed, .. } => Some((*flows, *refused, *elapsed)),
        _ => None,
    };
    node.news.iter().filter_map(|(_, news)| of(news)).collect()
}

fn sealed_since(world: &World, start: usize) -> Vec<usize> {
    world.sent[start..].iter().filter(|datagram| datagram.data[0] == 4).map(|datagram| datagram.data.len()).collect()
}

#[test]
fn a_move_takes_four_messages_and_two_round_trips() {
    let mut world = World::pair(1);
    world.strict = true;
    let flows = world.claimed(3, HOME, SERVER);
    let sent = world.sent.len();
    world.go(0, HOME, CAFE, false);
    // Input first: the kernel accepts the new address before anything is sent, and holds what would leave.
    for flow in &flows {
        let half = world.nodes[0].kernel.binding(flow).local;
        assert_eq!(half.other, Other::Pending { address: ip(CAFE), generation: 1, hold: true });
    }
    world.run(25 * MS);
    for flow in &flows {
        let half = world.nodes[1].kernel.binding(&flow.mirrored()).remote;
        assert_eq!(half.address, ip(HOME), "not before the challenge is answered");
        assert_eq!(half.other, Other::Pending { address: ip(CAFE), generation: 1, hold: true });
    }
    // One round trip: the mover sends. One and a half: the peer does.
    assert!(flows.iter().all(|flow| world.wire(0, flow) == (ip(CAFE), ip(SERVER))));
    world.run(10 * MS);
    assert!(flows.iter().all(|flow| world.wire(1, &flow.mirrored()) == (ip(SERVER), ip(CAFE))));
    world.run(10 * MS);
    assert_eq!(committed(&world.nodes[0]), [(3, 0, 20 * MS)]);
    assert_eq!(sealed_since(&world, sent), [65, 57, 53, 42]);
    let moved =
        |news: &News| matches!(news, News::PeerMoved { flows: 3, refused: 0, elapsed, .. } if *elapsed == 20 * MS);
    assert!(world.nodes[1].has_news(moved));
    assert_eq!(world.nodes[1].view().address.ip(), ip(CAFE));
    world.run(60 * SECOND);
    world.assert_agreed();
    assert_eq!(sealed_since(&world, sent).len(), 8, "and pings");
}

#[test]
fn ten_thousand_flows_move_in_four_messages() {
    let mut world = World::pair(2);
    for port in 0..10_000 {
        world.connect(0, 1, (HOME, 10_000 + port), (SERVER, 22));
    }
    world.flows(0);
    world.run(10 * SECOND);
    assert_eq!(world.nodes[0].view().confirmed, 10_000);
    let sent = world.sent.len();
    let commands = [0, 1].map(|node| world.nodes[node].kernel.commands);
    world.go(0, HOME, CAFE, false);
    world.run(45 * MS);
    assert_eq!(committed(&world.nodes[0]), [(10_000, 0, 20 * MS)]);
    assert_eq!(sealed_since(&world, sent), [65, 57, 53, 42]);
    assert_eq!([0, 1].map(|node| world.nodes[node].kernel.commands - commands[node]), [2, 2]);
    world.assert_agreed();
}

#[test]
fn make_before_break_keeps_the_old_path_until_commit() {
    let mut world = World::pair(3);
    world.strict = true;
    let flow = world.claimed(1, HOME, SERVER)[0];
    world.go(0, HOME, CAFE, true);
    for _ in 0..60 {
        world.run(MS);
        let (near, far) = (world.nodes[0].kernel.binding(&flow), world.nodes[1].kernel.binding(&flow.mirrored()));
        assert!(!near.local.holds() && !far.remote.holds());
    }
    world.assert_agreed();
    assert_eq!(world.wire(0, &flow).0, ip(CAFE));
}

#[test]
fn there_and_back_and_on() {
    let mut world = World::pair(4);
    world.strict = true;
    let flows = world.claimed(5, HOME, SERVER);
    for (old, new, usable) in
        [(HOME, CAFE, false), (CAFE, HOME, false), (HOME, TRAIN, true), (TRAIN, CAFE, false), (CAFE, HOME, true)]
    {
        world.go(0, old, new, usable);
        world.run(SECOND);
        world.nodes[0].up.remove(&ip(old));
        world.assert_agreed();
        assert!(flows.iter().all(|flow| world.wire(0, flow).0 == ip(new)), "{old} {new}");
    }
    let numbers = world.nodes[0].news.iter().filter_map(|(_, news)| match news {
        News::MoveCommitted { number, flows: 5, .. } => Some(*number),
        _ => None,
    });
    assert_eq!(numbers.collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
}

#[test]
fn ipv6_moves_too_and_no_flow_changes_its_family() {
    let (home, cafe, server) = ("2001:db8:1::10", "2001:db8:2::10", "2001:db8:3::80");
    let mut world = World::new(5);
    world.strict = true;
    world.add(mobile(1), &[HOME, home]);
    world.add(fixed(2), &[SERVER, server]);
    let four = world.connect(0, 1, (HOME, 40_000), (SERVER, 22));
    let six = world.connect(0, 1, (home, 40_000), (server, 22));
    world.flows(0);
    world.run(SECOND);
    assert_eq!(world.nodes[0].view().confirmed, 2);
    world.go(0, home, cafe, false);
    world.run(SECOND);
    assert_eq!((world.wire(0, &six), world.wire(0, &four)), ((ip(cafe), ip(server)), (ip(HOME), ip(SERVER))));
    let before = world.nodes[0].state();
    world.event(0, Event::Move { old: ip(HOME), new: ip("2001:db8:9::9"), old_usable: false });
    assert_eq!(world.nodes[0].state(), before);
    world.go(0, HOME, CAFE, false);
    world.run(SECOND);
    assert_eq!((world.wire(0, &six), world.wire(0, &four)), ((ip(cafe), ip(server)), (ip(CAFE), ip(SERVER))));
    world.assert_agreed();
}

#[test]
fn moves_survive_a_bad_network() {
    let mut worst = Duration::ZERO;
    for seed in 0..150 {
        let mut world = World::pair(seed);
        world.strict = true;
        world.claimed(50, HOME, SERVER);
        world.link = Link { delay: 10 * MS, jitter: 30 * MS, loss: 30, duplicate: 20, corrupt: 5 };
        world.go(0, HOME, CAFE, seed % 2 == 0);
        let took = world.run_until(60 * SECOND, |world| !committed(&world.nodes[0]).is_empty());
        worst = worst.max(took);
        world.assert_agreed();
        world.run(20 * SECOND);
        world.assert_agreed();
        assert_eq!(world.nodes[0].view().moves, []);
    }
    assert!(worst > SECOND, "the network was not bad: {worst:?}");
}

#[test]
fn duplicates_of_everything_change_nothing() {
    let run = |duplicate| {
        let mut world = World::pair(6);
        world.claimed(3, HOME, SERVER);
        world.link.duplicate = duplicate;
        world.go(0, HOME, CAFE, false);
        world.run(SECOND);
        (world.nodes[0].kernel.clone(), world.nodes[1].kernel.clone())
    };
    assert_eq!(run(0), run(100));
}

/// Nobody answers for ten minutes: both addresses are kept, and the move completes within the retransmission interval
/// after the network is back.
#[test]
fn a_mover_in_doubt_keeps_both_and_asks_again() {
    let mut world = World::pair(7);
    world.strict = true;
    let flow = world.claimed(1, HOME, SERVER)[0];
    world.nodes[1].up.clear();
    let sent = world.sent.len();
    world.go(0, HOME, CAFE, false);
    world.run(600 * SECOND);
    assert!(world.nodes[0].has_news(|news| matches!(news, News::MoveInDoubt { number: 1, .. })));
    let view = world.nodes[0].view();
    assert_eq!((view.moves.len(), view.moves[0].doubt), (1, true));
    let half = world.nodes[0].kernel.binding(&flow).local;
    assert!(half.accepts(ip(HOME)) && half.accepts(ip(CAFE)) && half.holds());
    let bothered = world.sent.len() - sent;
    assert!((100..=150).contains(&bothered), "{bothered} datagrams in ten minutes");
    world.nodes[1].up.insert(ip(SERVER));
    let took = world.run_until(15 * SECOND, |world| !committed(&world.nodes[0]).is_empty());
    assert!(took <= 13 * SECOND, "{took:?}");
    world.assert_agreed();
}

/// A move of no flows tells a peer, which has claims here, the new address. When those are gone, nobody waits for it.
#[test]
fn a_move_that_only_tells_an_address_ends_with_the_claims() {
    let mut world = World::new(70);
    world.add(mobile(1), &[HOME]);
    world.add(mobile(2), &[SERVER]);
    let flow = world.connect(1, 0, (SERVER, 40_000), (HOME, 22));
    world.flows(1);
    world.run(SECOND);
    assert_eq!(world.nodes[0].view().claims, 1);
    world.nodes[1].up.clear();
    world.go(0, HOME, CAFE, false);
    world.run(600 * SECOND);
    assert_eq!(world.nodes[0].view().moves.len(), 1);
    world.end(0, &flow.mirrored());
    world.flows(0);
    world.run(900 * SECOND);
    assert_eq!(world.nodes[0].endpoint.peers().count(), 0);
}

/// The peer has committed, the mover has not heard of it; then the mover moves on.
#[test]
fn a_newer_move_supersedes_one_in_doubt() {
    for usable in [false, true] {
        let mut world = World::pair(8);
        let flows = world.claimed(10, HOME, SERVER);
        let mut commits = 0;
        world.meddle = Some(Box::new(move |datagram| {
            // The commit of the first move is lost.
            let commit = datagram.data[0] == 4 && datagram.from.ip() == ip(SERVER) && datagram.data.len() == 42;
            commits += usize::from(commit);
            !commit || commits > 2
        }));
        world.go(0, HOME, CAFE, usable);
        world.run(100 * MS);
        assert_eq!(world.wire(1, &flows[0].mirrored()).1, ip(CAFE));
        assert_eq!(world.wire(0, &flows[0]).0, ip(if usable { HOME } else { CAFE }), "in doubt");
        // Whether the daemon thinks that it leaves the one or the other.
        let left = if usable { HOME } else { CAFE };
        world.nodes[0].up.remove(&ip(CAFE));
        world.go(0, left, TRAIN, false);
        world.run(10 * SECOND);
        world.assert_agreed();
        assert!(flows.iter().all(|flow| world.wire(0, flow).0 == ip(TRAIN)));
        assert_eq!(world.nodes[0].view().moves, []);
    }
}

#[test]
fn what_the_peer_has_lost_is_refused_and_the_rest_moves() {
    let mut world = World::pair(9);
    let flows = world.claimed(500, HOME, SERVER);
    // Two connections in three are gone at the peer; the mover does not know.
    for (i, flow) in flows.iter().enumerate() {
        if i % 3 != 0 {
            world.end(1, &flow.mirrored());
        }
        if i % 3 == 1 {
            world.nodes[0].kernel.refuses.remove(flow);
        }
    }
    world.flows(1);
    world.go(0, HOME, CAFE, false);
    world.run(SECOND);
    assert_eq!(committed(&world.nodes[0]), [(167, 333, 40 * MS)]);
    for (i, flow) in flows.iter().enumerate() {
        let binding = world.nodes[0].kernel.binding(flow);
        assert_eq!(binding.local.address == ip(CAFE), i % 3 == 0, "{i}");
        assert!(!matches!(binding.local.other, Other::Pending { .. }), "taken back: {i}");
    }
    let view = world.nodes[0].view();
    assert_eq!((view.confirmed, view.unconfirmed), (167, 333), "claimed again, as long as the connections live here");
}

#[test]
fn kernels_that_refuse_a_flow_do_not_stop_the_others() {
    let mut world = World::pair(10);
    world.strict = true;
    let flows = world.claimed(10, HOME, SERVER);
    world.nodes[0].kernel.refuses.insert(flows[3]);
    world.nodes[1].kernel.refuses.insert(flows[7].mirrored());
    world.go(0, HOME, CAFE, true);
    world.run(SECOND);
    assert_eq!(committed(&world.nodes[0]), [(8, 1, 40 * MS)]);
    let stays = |flow: Flow| move |news: &News| matches!(news, News::FlowStays { flow: f, reason: Refusal::Conflict, .. } if *f == flow);
    assert!(world.nodes[0].has_news(stays(flows[3])));
    for (i, flow) in flows.iter().enumerate() {
        assert_eq!(world.wire(0, flow).0 == ip(HOME), [3, 7].contains(&i), "{i}");
    }
    // The next move takes everybody along, wherever they are.
    world.nodes[0].kernel.refuses.clear();
    world.nodes[1].kernel.refuses.clear();
    world.go(0, HOME, TRAIN, false);
    world.go(0, CAFE, TRAIN, false);
    world.run(SECOND);
    world.assert_agreed();
    assert!(flows.iter().all(|flow| world.wire(0, flow).0 == ip(TRAIN)));
}

#[test]
fn flows_claimed_later_follow() {
    let mut world = World::pair(11);
    world.strict = true;
    world.claimed(1, HOME, SERVER);
    let late: Vec<_> = (0..200).map(|i| world.connect(0, 1, (HOME, 30_000 + i), (SERVER, 22))).collect();
    world.flows(0);
    // The claims are on their way when the host moves; the old address still works.
    world.run(15 * MS);
    world.go(0, HOME, CAFE, true);
    world.run(2 * SECOND);
    world.assert_agreed();
    assert!(late.iter().all(|flow| world.wire(0, flow).0 == ip(CAFE)));
    assert_eq!(committed(&world.nodes[0]).iter().map(|(flows, ..)| flows).sum::<usize>(), 201);
}

#[test]
fn claims_whose_answer_was_lost_follow_when_the_answer_comes() {
    let mut world = World::pair(12);
    world.claimed(1, HOME, SERVER);
    let flow = world.connect(0, 1, (HOME, 30_000), (SERVER, 22));
    world.flows(0);
    let mut lose = true;
    world.meddle = Some(Box::new(move |datagram| {
        // The acknowledgement of one claim: 32 + 1 + 4 + 1 + 1 bytes.
        let ack = datagram.from.ip() == ip(SERVER) && datagram.data.len() == 39;
        !(ack && std::mem::take(&mut lose))
    }));
    world.run(45 * MS);
    assert!(world.nodes[1].endpoint.owners.contains_key(&flow.mirrored()));
    assert_eq!(world.nodes[0].view().unconfirmed, 1);
    world.go(0, HOME, CAFE, false);
    world.run(3 * SECOND);
    world.assert_agreed();
    assert_eq!(world.wire(0, &flow).0, ip(CAFE));
    // What had not been claimed when the address fell silent stays there.
    let late = world.connect(0, 1, (CAFE, 30_001), (SERVER, 22));
    world.flows(0);
    world.run(5 * MS);
    world.go(0, CAFE, TRAIN, false);
    world.run(60 * SECOND);
    assert_eq!((world.wire(0, &flow).0, world.wire(0, &late).0), (ip(TRAIN), ip(CAFE)));
}

/// Every second flow ended: the numbers of the rest lie apart, yet the bundle names them all.
#[test]
fn scattered_claims_move_in_one_exchange() {
    let mut world = World::pair(13);
    let flows = world.claimed(2000, HOME, SERVER);
    for flow in flows.iter().step_by(2) {
        world.end(0, flow);
        world.end(1, &flow.mirrored());
    }
    world.flows(0);
    world.flows(1);
    world.run(5 * SECOND);
    let sent = world.sent.len();
    world.go(0, HOME, CAFE, false);
    world.run(60 * MS);
    assert_eq!(sealed_since(&world, sent), [65, 57, 53, 42]);
    assert_eq!(committed(&world.nodes[0]), [(1000, 0, 20 * MS)]);
}

/// Half of the flows cannot move, scattered: neither the exceptions nor the list fit one message.
#[test]
fn what_does_not_fit_one_message_moves_in_several() {
    let mut world = World::pair(14);
    world.strict = true;
    let flows = world.claimed(2000, HOME, SERVER);
    let stays: Vec<_> = flows.iter().step_by(2).copied().collect();
    world.nodes[0].kernel.refuses.extend(stays.iter().copied());
    world.go(0, HOME, CAFE, true);
    world.run(5 * SECOND);
    for flow in &flows {
        assert_eq!(world.wire(0, flow).0 == ip(HOME), stays.contains(flow));
    }
    world.assert_agreed();
    let moves = committed(&world.nodes[0]);
    assert_eq!(moves.iter().map(|(flows, ..)| flows).sum::<usize>(), 1000);
    assert_eq!(moves.len(), 1000_usize.div_ceil(128));
}

/// The peer has forgotten one claim without being told to: the two ends mean different sets by one bundle.
#[test]
fn disagreement_about_a_bundle_is_settled_by_a_list() {
    let mut world = World::pair(15);
    let flows = world.claimed(10, HOME, SERVER);
    let peer = world.nodes[1].endpoint.peers.all.values_mut().next().expect("a peer");
    let (number, lost) = peer.correspondent.claims.pop_first().expect("a claim");
    assert_eq!((number, lost.flow.mirrored()), (1, flows[0]));
    world.nodes[1].endpoint.owners.remove(&lost.flow);
    world.go(0, HOME, CAFE, true);
    world.run(80 * MS);
    assert_eq!(committed(&world.nodes[0]), [(9, 1, 60 * MS)]);
    // It is claimed again, from where it is, and follows.
    world.run(5 * SECOND);
    world.assert_agreed();
    assert_eq!(world.wire(0, &flows[0]).0, ip(CAFE));
}

#[test]
fn a_mover_that_vanishes_leaves_nothing_behind() {
    let mut world = World::pair(16);
    let flow = world.claimed(1, HOME, SERVER)[0];
    world.go(0, HOME, CAFE, true);
    world.run(15 * MS);
    assert!(world.nodes[1].kernel.binding(&flow.mirrored()).remote.accepts(ip(CAFE)));
    world.nodes[0].up.clear();
    world.run(30 * SECOND);
    let half = world.nodes[1].kernel.binding(&flow.mirrored()).remote;
    assert_eq!((half.address, half.other), (ip(HOME), Other::None));
    assert!(world.nodes[1].has_news(|news| matches!(news, News::PeerMoveExpired { number: 1, .. })));
    // It comes back and asks once more.
    world.nodes[0].up.insert(ip(CAFE));
    world.run(30 * SECOND);
    world.assert_agreed();
    assert_eq!(world.wire(0, &flow).0, ip(CAFE));
}

#[test]
fn a_move_whose_connections_end_is_over() {
    let mut world = World::pair(17);
    let flows = world.claimed(2, HOME, SERVER);
    world.nodes[1].up.clear();
    world.go(0, HOME, CAFE, false);
    world.run(5 * SECOND);
    for flow in &flows {
        world.end(0, flow);
    }
    world.flows(0);
    assert_eq!(world.nodes[0].view().moves, []);
    world.run(60 * SECOND);
    let sent = world.sent.len();
    world.run(600 * SECOND);
    assert_eq!(world.sent.len(), sent, "silence");
    assert_eq!(world.nodes[0].endpoint.peers().count(), 0);
}

/// The peer's daemon restarts while the mover moves. The old address works: everything is claimed anew and follows.
#[test]
fn a_peer_that_restarted_in_the_middle() {
    for when in [0, 5, 15, 25, 35] {
        let mut world = World::pair(18);
        world.strict = true;
        let flows = world.claimed(10, HOME, SERVER);
        world.go(0, HOME, CAFE, true);
        world.run(when * MS);
        world.restart(1);
        // A new daemon takes back what it finds pending in its kernel.
        for flow in &flows {
            let Other::Pending { generation, .. } = world.nodes[1].kernel.binding(&flow.mirrored()).remote.other else {
                continue;
            };
            world.nodes[1].kernel.abort(Half::Remote, &[(flow.mirrored(), generation)]);
        }
        world.run(90 * SECOND);
        world.assert_agreed();
        assert!(flows.iter().all(|flow| world.wire(0, flow).0 == ip(CAFE)), "after {when} ms");
        assert_eq!(world.nodes[0].view().confirmed, 10);
    }
}

/// As above, but the old address is gone: the peer says that it knows nothing, and the mover does not wait for ever.
#[test]
fn a_peer_that_restarted_refuses_what_it_does_not_know() {
    let mut world = World::pair(19);
    let flows = world.claimed(10, HOME, SERVER);
    world.restart(1);
    world.go(0, HOME, CAFE, false);
    world.run(20 * SECOND);
    assert_eq!(world.nodes[0].view().moves, []);
    assert_eq!(committed(&world.nodes[0]).last().map(|(flows, refused, _)| (*flows, *refused)), Some((0, 10)));
    assert!(flows.iter().all(|flow| !world.nodes[0].kernel.binding(flow).local.holds()), "TCP may end it");
}

/// The mover's own daemon restarts after a move, and moves again: its numbers go on from what the kernel knows.
#[test]
fn numbers_go_on_after_a_restart_of_the_mover() {
    let mut world = World::pair(20);
    world.strict = true;
    let flows = world.claimed(3, HOME, SERVER);
    world.go(0, HOME, CAFE, false);
    world.run(SECOND);
    world.go(0, CAFE, TRAIN, false);
    world.run(SECOND);
    world.restart(0);
    world.run(SECOND);
    world.go(0, TRAIN, HOME, false);
    world.run(SECOND);
    world.assert_agreed();
    assert!(flows.iter().all(|flow| world.wire(0, flow).0 == ip(HOME)));
    let half = world.nodes[1].kernel.binding(&flows[0].mirrored()).remote;
    assert_eq!(half.generation, 3);
}

#[test]
fn address_translation_refuses_the_move_and_the_flow_stays() {
    let mut world = World::pair(21);
    let flow = world.claimed(1, HOME, SERVER)[0];
    world.nodes[0].up.insert(ip(TRAIN));
    world.meddle = Some(translator(CAFE, TRAIN));
    world.go(0, HOME, CAFE, true);
    world.run(SECOND);
    let refused = |news: &News| matches!(news, News::MoveRefused { number: 1, reason: MoveRefusal::Translated, .. });
    assert!(world.nodes[0].has_news(refused));
    assert_eq!(world.wire(0, &flow).0, ip(HOME));
    world.assert_agreed();
}

#[test]
fn what_a_translator_hindered_moves_when_it_is_gone() {
    let mut world = World::pair(21);
    let flow = world.claimed(1, HOME, SERVER)[0];
    world.meddle = Some(translator(CAFE, TRAIN));
    world.go(0, HOME, CAFE, false);
    world.run(SECOND);
    let refused = |news: &News| matches!(news, News::MoveRefused { reason: MoveRefusal::Translated, .. });
    assert!(world.nodes[0].has_news(refused));
    let asked = |world: &World| world.nodes[0].news.iter().filter(|(_, news)| refused(news)).count();
    world.run(600 * SECOND);
    assert!((5..15).contains(&asked(&world)), "{}", asked(&world));
    // A new association is a reason to ask soon.
    world.meddle = None;
    world.resume(1);
    let took = world.run_until(120 * SECOND, |world| world.wire(0, &flow).0 == ip(CAFE));
    assert!(took < 70 * SECOND, "{took:?}");
    world.run(SECOND);
    world.assert_agreed();
}

#[test]
fn who_comes_back_to_where_its_flows_stand_says_so() {
    let mut world = World::pair(23);
    let flow = world.claimed(1, HOME, SERVER)[0];
    // The peer moves the flow, and its word is lost with the network and the daemon that waited for it.
    world.meddle = Some(Box::new(|datagram| datagram.from.ip() != ip(SERVER) || datagram.data.len() != COMMIT));
    world.go(0, HOME, CAFE, true);
    world.run(50 * MS);
    assert_eq!((world.wire(0, &flow).0, world.wire(1, &flow.mirrored()).1), (ip(HOME), ip(CAFE)));
    world.resume(0);
    // From here it refuses everything, and says nothing of earlier moves.
    world.meddle = Some(translator(TRAIN, "203.0.113.250"));
    world.go(0, CAFE, TRAIN, false);
    world.go(0, HOME, TRAIN, false);
    world.run(SECOND);
    let refused = |news: &News| matches!(news, News::MoveRefused { reason: MoveRefusal::Translated, .. });
    assert!(world.nodes[0].has_news(refused));
    assert_eq!((world.wire(0, &flow).0, world.wire(1, &flow.mirrored()).1), (ip(HOME), ip(CAFE)));
    world.meddle = None;
    world.go(0, TRAIN, HOME, false);
    world.run(SECOND);
    world.assert_agreed();
    assert_eq!(world.wire(1, &flow.mirrored()).1, ip(HOME));
}

/// The peer has made a move, and its word was lost; then it refused the one that was asked for instead. At home the flow is
/// asked for again, until the peer has it there.
#[test]
fn who_is_unsure_asks_at_home() {
    const RESPONSE_LOST: bool = true;
    for (lost, hinders) in [(RESPONSE_LOST, false), (!RESPONSE_LOST, false), (!RESPONSE_LOST, true)] {
        let mut world = World::pair(24);
        let flow = world.claimed(1, HOME, SERVER)[0];
        let peers = flow.mirrored();
        world.meddle = Some(Box::new(|datagram| datagram.from.ip() != ip(SERVER) || datagram.data.len() != COMMIT));
        world.go(0, HOME, CAFE, false);
        // Long enough that it is asked for under another number, whose challenge is lost, too.
        world.run(2500 * MS);
        assert_eq!((world.wire(0, &flow).0, world.wire(1, &peers).1), (ip(CAFE), ip(CAFE)));
        if lost {
            world.meddle = Some(Box::new(|datagram| datagram.from.ip() != ip(SERVER)));
            world.run(3 * SECOND);
        }
        world.meddle = Some(translator(TRAIN, "203.0.113.250"));
        world.go(0, CAFE, TRAIN, false);
        world.run(SECOND);
        assert!(world.nodes[0].has_news(|news| matches!(news, News::MoveRefused { .. })));
        world.meddle = None;
        if hinders {
            world.nodes[1].kernel.refuses.insert(peers);
        }
        world.go(0, TRAIN, HOME, false);
        // At once.
        world.run(45 * MS);
        if hinders {
            assert_eq!(world.wire(1, &peers).1, ip(CAFE));
            world.nodes[1].kernel.refuses.clear();
            world.run(5 * SECOND);
        }
        world.assert_agreed();
        assert_eq!(world.wire(1, &peers).1, ip(HOME), "{lost} {hinders}");
    }
}

#[test]
fn several_peers_move_at_once() {
    let mut world = World::new(22);
    world.add(mobile(1), &[HOME]);
    for number in 2..=21 {
        let address = format!("203.0.113.{number}");
        let node = world.add(fixed(number), &[&address]);
        world.connect(0, node, (HOME, 40_000), (&address, 22));
    }
    world.flows(0);
    world.run(SECOND);
    world.go(0, HOME, CAFE, false);
    world.run(45 * MS);
    assert_eq!(committed(&world.nodes[0]), [(1, 0, 20 * MS); 20]);
}
