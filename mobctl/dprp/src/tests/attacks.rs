//! What an attacker may try.

use super::world::*;
use crate::codec::Range;
use crate::message::{Former, Message, Move, Selection, digest};
use crate::{Flow, MoveRefusal, News};
use std::net::SocketAddr;

/// A pair after an association, claims and a move, with everything that was sent.
fn history() -> (World, Vec<Datagram>) {
    let mut world = World::pair(1);
    world.claimed(3, HOME, SERVER);
    world.go(0, HOME, CAFE, false);
    world.run(60 * SECOND);
    let sent = world.sent.clone();
    assert!(sent.len() >= 12, "hello, answer, finish, ready, 4 of claims, 4 of a move");
    (world, sent)
}

fn states(world: &World) -> Vec<String> {
    world.nodes.iter().map(Node::state).collect()
}

fn assert_same(before: &[String], world: &World, what: &dyn std::fmt::Debug) {
    for (before, now) in before.iter().zip(states(world)) {
        let changed: Vec<_> = before.lines().zip(now.lines()).filter(|(a, b)| a != b).take(5).collect();
        assert!(*before == now, "{what:?} changed {changed:#?}");
    }
}

/// Every byte of every datagram of a whole conversation, corrupted before the genuine one arrives.
#[test]
fn forged_datagrams_change_nothing() {
    let mut seen = 0;
    for victim in 0..12 {
        let mut world = World::pair(1);
        let flows: Vec<_> = (0..3).map(|i| world.connect(0, 1, (HOME, 40_000 + i), (SERVER, 22))).collect();
        world.flows(0);
        // The attacker's copies arrive before the genuine datagram.
        while world.sent.len() <= victim {
            world.run(MS);
            if world.now() == 100 * MS {
                world.go(0, HOME, CAFE, false);
            }
        }
        let target = world.sent[victim].clone();
        let before = states(&world);
        for at in 0..target.data.len() {
            let mut forged = target.clone();
            forged.data[at] ^= 1 << (at % 8);
            world.inject(&forged);
            assert_same(&before, &world, &(victim, at));
            seen += 1;
        }
        for length in 0..target.data.len() {
            let mut forged = target.clone();
            forged.data.truncate(length);
            world.inject(&forged);
            assert_same(&before, &world, &(victim, length));
        }
        if world.now() < 100 * MS {
            world.run(100 * MS);
            world.go(0, HOME, CAFE, false);
        }
        world.run(10 * SECOND);
        world.assert_agreed();
        assert_eq!(world.wire(0, &flows[0]).0, ip(CAFE), "the genuine conversation goes on: {victim}");
        assert_eq!(world.sent.len(), 12, "and nothing had to be repeated: {victim}");
    }
    assert!(seen > 1000, "{seen}");
}

/// The whole conversation once more, in order and backwards, from where it came and from elsewhere.
#[test]
fn replayed_datagrams_change_nothing() {
    let (mut world, sent) = history();
    let before = states(&world);
    for backwards in [false, true] {
        for elsewhere in [false, true] {
            let mut all = sent.clone();
            if backwards {
                all.reverse();
            }
            for mut datagram in all {
                // A Hello is answered every time: it is the only message that anybody may repeat.
                if datagram.data[0] == 1 {
                    continue;
                }
                if elsewhere {
                    datagram.from = SocketAddr::new(ip(TRAIN), 9434);
                }
                world.inject(&datagram);
                assert_same(&before, &world, &datagram.data[0]);
            }
        }
    }
    let counters = world.nodes[1].endpoint.counters();
    assert!(counters.replayed > 0 && counters.unknown_index + counters.forged > 0, "{counters:?}");
}

#[test]
fn a_replayed_hello_costs_a_bounded_while_and_a_repeated_finish_a_ready() {
    let (mut world, sent) = history();
    let associations =
        |world: &World| format!("{:?}", world.nodes[1].endpoint.peers().map(|p| p.established).collect::<Vec<_>>());
    let before = associations(&world);
    let hello = &sent[0];
    assert_eq!(hello.data[0], 1);
    for port in 0..3000 {
        let mut replayed = hello.clone();
        replayed.from = SocketAddr::new(ip(TRAIN), 1 + port);
        world.inject(&replayed);
    }
    assert_eq!(world.nodes[1].endpoint.handshakes.half_open_count(), 512, "then cookies");
    assert_eq!(associations(&world), before);
    world.run(11 * SECOND);
    assert_eq!(world.nodes[1].endpoint.handshakes.half_open_count(), 0);

    // The Finish of keys in use, from an address that was never proved: nothing. From the peer's: one small answer.
    let finish = sent.iter().find(|datagram| datagram.data[0] == 3).expect("a finish").clone();
    let sent = world.sent.len();
    world.inject(&finish);
    assert_eq!(world.sent.len(), sent, "the peer has moved away from there");
    world.inject(&Datagram { from: SocketAddr::new(ip(CAFE), 9434), ..finish });
    assert_eq!((world.sent.len(), world.sent[sent].data.len()), (sent + 1, 33));
}

#[test]
fn noise_changes_nothing() {
    let (mut world, sent) = history();
    let before = states(&world);
    let counters = world.nodes[1].endpoint.counters();
    for round in 0..3000_usize {
        let mut data = sent[round % sent.len()].data.clone();
        // Headers as they should be, the rest random.
        let keep = [0, 1, 4, 8, 16][round % 5].min(data.len());
        for byte in &mut data[keep..] {
            *byte = u8::try_from(world.random(256)).expect("a byte");
        }
        data.truncate(1 + world.random(1300) as usize);
        let to = SocketAddr::new(ip(if round % 2 == 0 { SERVER } else { CAFE }), 9434);
        world.inject(&Datagram { from: sent[round % sent.len()].from, to, data });
    }
    assert_same(&before, &world, &"noise");
    let after = world.nodes[1].endpoint.counters();
    assert!(after.malformed > counters.malformed && after.unknown_index > counters.unknown_index);
    assert!(after.forged > counters.forged);
}

/// A mover (0), a server (1), and a member of the group (2) that wants what belongs to the mover.
fn with_a_thief() -> (World, Vec<Flow>) {
    let mut world = World::pair(2);
    let flows = world.claimed(3, HOME, SERVER);
    world.add(mobile(3), &[TRAIN]);
    world.connect(2, 1, (TRAIN, 50_000), (SERVER, 22));
    world.flows(2);
    world.run(SECOND);
    assert_eq!(world.nodes[2].view().confirmed, 1);
    (world, flows)
}

fn request(number: u32, new: &str, selection: Selection) -> Message {
    Message::Move(Move { number, old_usable: false, old: ip(HOME), new: ip(new), former: None, selection })
}

fn listed(first: u32, last: u32) -> Selection {
    Selection::Listed { ranges: vec![Range { first, last }] }
}

/// Its keys are good, its address is proved: it moves its own flow, and nobody else's.
#[test]
fn a_member_of_the_group_cannot_move_the_flows_of_another() {
    let (mut world, flows) = with_a_thief();
    let before = world.nodes[1].kernel.clone();
    let everything = Selection::Bundles { bundles: vec![1], except: Vec::new(), count: 3, digest: digest(1..=3) };
    world.say(2, TRAIN, SERVER, &request(1, TRAIN, everything));
    world.run(SECOND);
    assert_eq!(world.nodes[1].kernel, before);
    assert_eq!(world.nodes[1].endpoint.peers().map(|peer| peer.pending).sum::<usize>(), 0);
    // Claim 1 is its own; 2 and 3 are not.
    world.nodes[2].up.insert(ip(CAFE));
    world.say(2, CAFE, SERVER, &request(2, CAFE, listed(1, 3)));
    world.run(SECOND);
    for flow in &flows {
        assert_eq!(world.nodes[1].kernel.bindings.get(&flow.mirrored()), None);
    }
    let own = world.nodes[1].kernel.bindings.len();
    assert_eq!(own, 1, "its own flow may be prepared");
}

/// It says that it moved to the victim, with the victim's address as source: the victim gets one small challenge for each
/// request, and no flow ever.
#[test]
fn nobody_is_flooded_by_a_move() {
    let (mut world, _) = with_a_thief();
    let own = world.nodes[2].kernel.connections.keys().next().expect("a flow").mirrored();
    world.nodes[2].up.insert(ip(CAFE));
    for round in 1..=50 {
        let sent = world.sent.len();
        world.say(2, CAFE, SERVER, &request(round, CAFE, listed(1, 1)));
        world.nodes[2].up.remove(&ip(CAFE));
        world.run(500 * MS);
        // It guesses.
        world.nodes[2].up.insert(ip(CAFE));
        world.say(2, CAFE, SERVER, &Message::MoveResponse { number: round, token: [7; 16] });
        world.run(500 * MS);
        let lengths = |from: &str, to: &str| -> Vec<usize> {
            let between = |d: &&Datagram| d.from.ip() == ip(from) && d.to.ip() == ip(to);
            world.sent[sent..].iter().filter(between).map(|d| d.data.len()).collect()
        };
        assert_eq!((lengths(CAFE, SERVER), lengths(SERVER, CAFE)), (vec![58, 53], vec![57]));
        assert_eq!(world.wire(1, &own).1, ip(TRAIN));
    }
    let pending = world.nodes[1].endpoint.peers().map(|peer| peer.pending).max();
    assert_eq!(pending, Some(8), "bounded");
    world.nodes[2].up.clear();
    world.run(60 * SECOND);
    assert_eq!(world.nodes[1].endpoint.peers().map(|peer| peer.pending).max(), Some(0));
    let half = world.nodes[1].kernel.binding(&own).remote;
    assert_eq!((half.address, half.other), (ip(TRAIN), super::kernel::Other::None));
}

/// It says that it has been at the victim's address, on its way to the next: without the token of that challenge it has not.
#[test]
fn nobody_is_flooded_by_a_former_move() {
    let (mut world, _) = with_a_thief();
    let own = world.nodes[2].kernel.connections.keys().next().expect("a flow").mirrored();
    world.nodes[2].up.insert(ip(CAFE));
    world.say(2, CAFE, SERVER, &request(1, CAFE, listed(1, 1)));
    world.nodes[2].up.remove(&ip(CAFE));
    world.run(SECOND);
    for (number, former) in [(2, 1), (3, 2), (4, 4)] {
        let former = Some(Former { number: former, token: [7; 16] });
        let selection = listed(1, 1);
        let request = Move { number, old_usable: false, old: ip(CAFE), new: ip(HOME), former, selection };
        world.nodes[2].up.insert(ip(HOME));
        world.say(2, HOME, SERVER, &Message::Move(request));
        world.nodes[2].up.remove(&ip(HOME));
        world.run(SECOND);
        assert_eq!(world.wire(1, &own).1, ip(TRAIN));
    }
}

#[test]
fn absurd_moves_are_refused() {
    let (mut world, _) = with_a_thief();
    let before = world.nodes[1].kernel.clone();
    let huge = listed(0, u32::MAX);
    let cases = [
        (TRAIN, "224.0.0.1", listed(1, 1), MoveRefusal::Address),
        (TRAIN, "255.255.255.255", listed(1, 1), MoveRefusal::Address),
        (TRAIN, "0.0.0.0", listed(1, 1), MoveRefusal::Address),
        (TRAIN, "127.0.0.1", listed(1, 1), MoveRefusal::Address),
        (TRAIN, "ff02::1", listed(1, 1), MoveRefusal::Address),
        (TRAIN, "::1", listed(1, 1), MoveRefusal::Address),
        (TRAIN, "::ffff:192.0.2.10", listed(1, 1), MoveRefusal::Address),
        (TRAIN, SERVER, listed(1, 1), MoveRefusal::Address),
        (TRAIN, HOME, listed(1, 1), MoveRefusal::Translated),
        (TRAIN, TRAIN, huge, MoveRefusal::Selection),
    ];
    for (number, (from, new, selection, expected)) in (1..).zip(cases) {
        world.nodes[1].news.clear();
        world.say(2, from, SERVER, &request(number, new, selection));
        world.run(100 * MS);
        let refused = |news: &News| matches!(news, News::PeerMoveRefused { reason, .. } if *reason == expected);
        assert!(world.nodes[1].has_news(refused), "{new}: {:?}", world.nodes[1].news);
        assert_eq!(world.nodes[1].kernel, before, "{new}");
    }
}

/// A flow moves only forward: what an older number asks is refused for that flow.
#[test]
fn older_moves_do_not_undo_newer_ones() {
    let (mut world, _) = with_a_thief();
    let own = *world.nodes[2].kernel.connections.keys().next().expect("a flow");
    world.go(2, TRAIN, CAFE, false);
    world.run(SECOND);
    world.go(2, CAFE, "198.51.100.99", false);
    world.run(SECOND);
    assert_eq!(world.wire(1, &own.mirrored()).1, ip("198.51.100.99"));
    world.nodes[2].up.insert(ip(TRAIN));
    // Numbers 1 and 2 were used, and are remembered. This one was not.
    for number in [1, 2] {
        world.say(2, TRAIN, SERVER, &request(number, TRAIN, listed(1, 1)));
        world.run(SECOND);
        assert_eq!(world.wire(1, &own.mirrored()).1, ip("198.51.100.99"));
    }
    let commands = world.nodes[1].kernel.commands;
    let peer = world.nodes[1].endpoint.peers.all.values_mut().nth(1).expect("the second peer");
    peer.correspondent.claims.get_mut(&1).expect("its claim").generation = 9;
    world.say(2, TRAIN, SERVER, &request(8, TRAIN, listed(1, 1)));
    world.run(SECOND);
    assert_eq!(world.nodes[1].kernel.commands, commands, "the kernel is not even asked");
    // One that is pending counts too.
    world.say(2, TRAIN, SERVER, &request(20, TRAIN, listed(1, 1)));
    world.run(SECOND);
    assert_eq!(world.nodes[1].kernel.commands, commands + 1);
    world.say(2, TRAIN, SERVER, &request(19, TRAIN, listed(1, 1)));
    world.run(SECOND);
    assert_eq!(world.nodes[1].kernel.commands, commands + 1);
    assert_eq!(world.wire(1, &own.mirrored()).1, ip("198.51.100.99"));
}

/// What one host says with good keys can be nonsense.
#[test]
fn nonsense_with_good_keys_changes_nothing() {
    let (mut world, _) = with_a_thief();
    // What was heard of whom and when is all that may change.
    let memory = |world: &World| {
        let peers = world.nodes[1].endpoint.peers.all.values();
        let of = |peer: &crate::association::Peer| {
            format!("{:?}", (&peer.claimant, &peer.moves, &peer.correspondent, &peer.paths, &peer.addresses, peer.ping))
        };
        (
            peers.map(|peer| of(peer)).collect::<Vec<_>>(),
            world.nodes[1].endpoint.owners.clone(),
            world.nodes[1].kernel.clone(),
        )
    };
    let (before, sent) = (memory(&world), world.nodes[1].endpoint.counters().sent);
    for message in [
        Message::Ready,
        Message::Pong { nonce: 1 },
        Message::ClaimChallenge { first: 1, token: [1; 16] },
        Message::ClaimProof { first: 77, token: [1; 16] },
        Message::ClaimAck { first: 1, statuses: vec![crate::ClaimStatus::Confirmed] },
        Message::Released { serial: 1 },
        Message::MoveChallenge { number: 1, token: [1; 16], refused: 0 },
        Message::MoveResponse { number: 1, token: [1; 16] },
        Message::MoveCommit { number: 1, part: 0, parts: 1, refused: Vec::new() },
        Message::MoveRefused { number: 1, reason: MoveRefusal::Address },
    ] {
        world.say(2, TRAIN, SERVER, &message);
        world.run(20 * MS);
    }
    assert_eq!(memory(&world), before);
    assert_eq!(world.nodes[1].endpoint.counters().sent, sent, "and nothing is answered");
}
