//! Claiming flows and giving them up.

use super::world::*;
use crate::message::{Message, Token};
use crate::{ClaimStatus, Flow, News};
use std::net::SocketAddr;

fn refused(node: &Node, wanted: ClaimStatus) -> bool {
    node.has_news(|news| matches!(news, News::ClaimRefused { reason, .. } if *reason == wanted))
}

#[test]
fn flows_are_claimed_and_released() {
    let mut world = World::pair(1);
    let flows = world.claimed(3, HOME, SERVER);
    assert_eq!((world.nodes[0].view().confirmed, world.nodes[1].view().claims), (3, 3));
    let owners = &world.nodes[1].endpoint.owners;
    assert!(flows.iter().all(|flow| owners.contains_key(&flow.mirrored())));

    world.end(0, &flows[1]);
    world.flows(0);
    world.run(SECOND);
    assert_eq!((world.nodes[0].view().confirmed, world.nodes[1].view().claims), (2, 2));
    assert!(!world.nodes[1].endpoint.owners.contains_key(&flows[1].mirrored()), "released");
    assert!(world.nodes[0].endpoint.peers.all.values().all(|peer| peer.claimant.releasing.is_empty()));
}

/// Three datagrams each way at most: the association, then claim, challenge, proof, acknowledgement.
#[test]
fn claims_follow_at_once() {
    let mut world = World::pair(2);
    let flows: Vec<_> = (0..89).map(|i| world.connect(0, 1, (HOME, 40_000 + i), (SERVER, 22))).collect();
    world.flows(0);
    let took =
        world.run_until(SECOND, |world| world.nodes[0].endpoint.peers().any(|peer| peer.confirmed == flows.len()));
    assert_eq!(took, 80 * MS, "four round trips of 20 ms");
    let lengths: Vec<_> = world.sent.iter().map(|datagram| (datagram.data[0], datagram.data.len())).collect();
    assert_eq!(lengths[3..], [(4, 33), (4, 1197), (4, 53), (4, 53), (4, 127)]);
}

#[test]
fn thousands_of_flows_of_both_families() {
    let mut world = World::new(3);
    world.add(mobile(1), &[HOME, "2001:db8:1::10"]);
    world.add(fixed(2), &[SERVER, "2001:db8:2::80"]);
    for port in 0..2000 {
        world.connect(0, 1, (HOME, 10_000 + port), (SERVER, 22));
        world.connect(0, 1, ("2001:db8:1::10", 10_000 + port), ("2001:db8:2::80", 22));
    }
    world.flows(0);
    world.run(3 * SECOND);
    let view = world.nodes[0].view();
    assert_eq!((view.confirmed, view.unconfirmed), (4000, 0));
    assert_eq!(world.nodes[1].view().claims, 4000);
    let sealed = world.sent.iter().filter(|datagram| datagram.data.len() > 500).count();
    assert_eq!(sealed, 2000_usize.div_ceil(89) + 2000_usize.div_ceil(31), "in full batches");
}

#[test]
fn a_flow_that_the_peer_does_not_know_yet_is_claimed_again() {
    let mut world = World::pair(4);
    world.claimed(1, HOME, SERVER);
    let late = world.connect(0, 1, (HOME, 50_000), (SERVER, 22));
    let instance = world.nodes[1].kernel.connections.remove(&late.mirrored()).expect("a connection");
    world.flows(0);
    world.run(500 * MS);
    assert!(refused(&world.nodes[0], ClaimStatus::NotFound));
    let view = world.nodes[0].view();
    assert_eq!((view.confirmed, view.unconfirmed), (1, 1));
    world.nodes[1].kernel.connections.insert(late.mirrored(), instance);
    world.run(2 * SECOND);
    assert_eq!(world.nodes[0].view().confirmed, 2);
}

#[test]
fn refused_claims_are_tried_less_and_less_often() {
    let mut world = World::pair(5);
    world.claimed(1, HOME, SERVER);
    let flow = world.connect(0, 1, (HOME, 50_000), (SERVER, 22));
    world.nodes[1].kernel.connections.remove(&flow.mirrored());
    world.flows(0);
    world.run(3600 * SECOND);
    let tries = world.nodes[0].news.iter().filter(|(_, news)| matches!(news, News::ClaimRefused { .. })).count();
    assert!((8..=13).contains(&tries), "{tries} in an hour");
}

#[test]
fn a_claim_holds_for_one_connection_only() {
    let mut world = World::pair(6);
    let flow = world.claimed(1, HOME, SERVER)[0];
    let before = world.nodes[1].endpoint.owners[&flow.mirrored()];
    // The same addresses and ports, another connection.
    world.end(0, &flow);
    world.end(1, &flow.mirrored());
    world.connect(0, 1, (HOME, 10_000), (SERVER, 22));
    world.flows(0);
    world.run(SECOND);
    let after = world.nodes[1].endpoint.owners[&flow.mirrored()];
    assert!(before.instance != after.instance && before.number != after.number);
    assert_eq!((world.nodes[0].view().confirmed, world.nodes[1].view().claims), (1, 1));
}

#[test]
fn claims_survive_a_bad_network() {
    for seed in 0..30 {
        let mut world = World::pair(seed);
        world.claimed(1, HOME, SERVER);
        world.link = Link { delay: 10 * MS, jitter: 40 * MS, loss: 30, duplicate: 20, corrupt: 5 };
        for port in 0..500 {
            world.connect(0, 1, (HOME, 20_000 + port), (SERVER, 22));
        }
        world.flows(0);
        world.run(60 * SECOND);
        world.link = Link::default();
        world.run(20 * SECOND);
        let view = world.nodes[0].view();
        assert_eq!((view.confirmed, view.unconfirmed), (501, 0), "seed {seed}");
        // What was confirmed twice because an answer was lost has been released.
        assert_eq!(world.nodes[1].view().claims, 501, "seed {seed}");
    }
}

#[test]
fn claims_are_bounded() {
    let mut world = World::new(7);
    world.add(mobile(1), &[HOME]);
    let mut config = fixed(2);
    config.limits.claims = 10;
    world.add(config, &[SERVER]);
    for port in 0..20 {
        world.connect(0, 1, (HOME, 20_000 + port), (SERVER, 22));
    }
    world.flows(0);
    world.run(SECOND);
    assert_eq!((world.nodes[0].view().confirmed, world.nodes[1].view().claims), (10, 10));
    assert!(refused(&world.nodes[0], ClaimStatus::Full));
}

/// The claimer's ping meets silence, so it associates anew, learns that the peer is another incarnation, and claims again.
#[test]
fn a_peer_that_restarted_is_told_again() {
    let mut world = World::pair(8);
    world.claimed(20, HOME, SERVER);
    world.restart(1);
    world.run(60 * SECOND);
    assert!(world.nodes[0].has_news(|news| matches!(news, News::PeerRestarted { .. })));
    assert_eq!((world.nodes[0].view().confirmed, world.nodes[1].view().claims), (20, 20));
}

#[test]
fn a_claimer_that_restarted_claims_again_and_keeps_what_is_its_own() {
    let mut world = World::pair(9);
    let flow = world.claimed(20, HOME, SERVER)[0];
    // The next incarnation will not give the same numbers to the same flows.
    world.connect(0, 1, (HOME, 5000), (SERVER, 22));
    world.flows(0);
    world.run(SECOND);
    let thief = world.add(mobile(3), &[CAFE]);
    world.restart(0);
    world.run(SECOND);
    assert!(world.nodes[1].has_news(|news| matches!(news, News::PeerRestarted { .. })));
    assert_eq!((world.nodes[0].view().confirmed, world.nodes[1].view().claims), (21, 21));
    let peer = world.nodes[1].endpoint.peers.all.values().next().expect("a peer");
    assert!(peer.correspondent.orphans.is_empty(), "all claimed again");
    assert_eq!(peer.channels.len(), 1, "nobody has the keys of the former incarnation");

    // Between the restart and the new claim the flow is nobody else's either.
    world.nodes[0].up.clear();
    world.restart(0);
    world.nodes[thief].up = [ip(CAFE), ip(HOME)].into();
    world.nodes[thief].kernel.connections.insert(flow, 1);
    world.flows(thief);
    world.run(5 * SECOND);
    assert!(refused(&world.nodes[thief], ClaimStatus::Taken));
}

#[test]
fn no_other_key_takes_a_claim_over() {
    let mut world = World::pair(10);
    let flow = world.claimed(1, HOME, SERVER)[0];
    // DHCP gives the address to another member of the group, who claims the flow of its former holder.
    let thief = world.add(mobile(3), &[CAFE]);
    world.nodes[0].up.remove(&ip(HOME));
    world.nodes[thief].up.insert(ip(HOME));
    world.nodes[thief].kernel.connections.insert(flow, 1);
    world.flows(thief);
    world.run(60 * SECOND);
    assert!(refused(&world.nodes[thief], ClaimStatus::Taken));
    assert_eq!(world.nodes[thief].view().confirmed, 0);

    // After the move the flow is not even at that address.
    world.go(0, HOME, CAFE, false);
    world.nodes[thief].up.remove(&ip(CAFE));
    world.run(3600 * SECOND);
    world.assert_agreed();
    assert!(refused(&world.nodes[thief], ClaimStatus::WrongAddress));
    assert_eq!(world.nodes[thief].view().confirmed, 0);
    assert_eq!(world.nodes[0].view().confirmed, 1);
}

/// Its source address is forged, its keys are good: the proof goes where the attacker does not receive.
#[test]
fn the_former_holder_of_an_address_cannot_claim_from_there() {
    let mut world = World::pair(11);
    world.claimed(1, HOME, SERVER);
    world.go(0, HOME, CAFE, false);
    world.run(SECOND);
    // The new holder of the address has a connection, not claimed.
    world.add(fixed(3), &[HOME]);
    let flow = world.connect(2, 1, (HOME, 50_000), (SERVER, 22));
    world.sent.clear();
    world.nodes[0].up.insert(ip(HOME));
    world.say(0, HOME, SERVER, &Message::Claim { first: 500, bundle: 9, flows: vec![flow] });
    world.nodes[0].up.remove(&ip(HOME));
    world.run(SECOND);
    let challenge = world.sent.last().expect("a challenge").clone();
    assert_eq!((challenge.to.ip(), challenge.data.len()), (ip(HOME), 53));
    let state = world.nodes[1].endpoint.owners.clone();
    for token in [Token::default(), [0xff; 16]] {
        world.nodes[0].up.insert(ip(HOME));
        world.say(0, HOME, SERVER, &Message::ClaimProof { first: 500, token });
        world.nodes[0].up.remove(&ip(HOME));
        world.run(SECOND);
    }
    assert_eq!(world.nodes[1].endpoint.owners, state);
    assert!(!state.contains_key(&flow.mirrored()));
}

/// The token was sent for one connection; the one that took its place needs another.
#[test]
fn a_proof_is_for_the_connection_that_lived_when_it_was_asked() {
    let mut world = World::pair(12);
    world.claimed(1, HOME, SERVER);
    let flow = world.connect(0, 1, (HOME, 50_000), (SERVER, 22));
    world.flows(0);
    world.run(15 * MS);
    world.nodes[1].kernel.connections.insert(flow.mirrored(), 77);
    world.run(30 * MS);
    assert!(refused(&world.nodes[0], ClaimStatus::NotFound));
    assert!(!world.nodes[1].endpoint.owners.contains_key(&flow.mirrored()));
}

#[test]
fn flows_that_cannot_be_are_not_claimed() {
    let mut world = World::pair(13);
    let good = world.claimed(1, HOME, SERVER)[0];
    let odd = |local: &str, remote: &str| {
        let flow = Flow { local: local.parse().expect("an end"), remote: remote.parse().expect("an end"), ..good };
        assert!(!crate::claimant::is_claimable(&flow));
        flow
    };
    let flows = vec![
        odd("192.0.2.10:0", "192.0.2.80:22"),
        odd("192.0.2.10:22", "192.0.2.80:0"),
        odd("192.0.2.10:22", "224.0.0.1:22"),
        odd("192.0.2.10:22", "127.0.0.1:22"),
        odd("0.0.0.0:22", "192.0.2.80:22"),
        odd("[::ffff:192.0.2.10]:22", "[2001:db8::80]:22"),
    ];
    for flow in &flows {
        world.nodes[0].kernel.connections.insert(*flow, 5);
        world.nodes[1].kernel.connections.insert(flow.mirrored(), 6);
    }
    world.flows(0);
    world.run(SECOND);
    assert_eq!(world.nodes[0].view().unconfirmed, 0, "not even tried");
    world.sent.clear();
    world.say(0, HOME, SERVER, &Message::Claim { first: 500, bundle: 1, flows: flows.clone() });
    world.run(SECOND);
    assert_eq!(world.nodes[1].endpoint.owners.len(), 1);
    assert_eq!(world.sent.len(), 2, "a claim and an answer: {:?}", world.sent);
    assert_eq!(world.sent[1].data.len(), 44, "six refusals, no challenge");
}

#[test]
fn an_address_is_found_to_have_another_owner() {
    let mut world = World::pair(14);
    world.claimed(1, HOME, SERVER);
    // The server goes away, another host gets its address.
    world.nodes[1].up.clear();
    let other = world.add(fixed(3), &[SERVER]);
    let flow = world.connect(0, other, (HOME, 50_000), (SERVER, 22));
    world.flows(0);
    world.run(200 * SECOND);
    assert!(world.nodes[other].endpoint.owners.contains_key(&flow.mirrored()));
    assert_eq!(world.nodes[other].endpoint.owners.len(), 1, "and not the flow of the former");
}

#[test]
fn wire_addresses_are_what_counts() {
    let mut world = World::pair(15);
    let flow = world.claimed(1, HOME, SERVER)[0];
    world.go(0, HOME, CAFE, false);
    world.run(SECOND);
    // Both daemons begin anew: the flow is claimed from where it is now.
    world.restart(1);
    world.restart(0);
    world.run(SECOND);
    assert_eq!(world.nodes[0].view().confirmed, 1);
    assert_eq!(world.nodes[1].view().address, SocketAddr::new(ip(CAFE), 9434));
    assert_eq!(world.wire(1, &flow.mirrored()).1, ip(CAFE));
}
