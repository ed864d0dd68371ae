//! A host moves on, or back, before its last move is complete.

use super::world::*;
use crate::{Flow, News};

/// Whether both addresses are accepted by node 0 as its own, and by node 1 as those of node 0.
fn accepted(world: &World, flow: &Flow, addresses: [&str; 2]) -> [bool; 2] {
    let (near, far) = (world.nodes[0].kernel.binding(flow), world.nodes[1].kernel.binding(&flow.mirrored()));
    [near.local, far.remote].map(|half| addresses.iter().all(|address| half.accepts(ip(address))))
}

/// The mover has sent from its second address, and is in the third one before the peer knows. What it sent may arrive after
/// its next request: the peer accepts it, though no response has arrived.
#[test]
fn what_was_sent_on_the_way_is_accepted() {
    let mut world = World::pair(1);
    world.strict = true;
    let flow = world.claimed(1, HOME, SERVER)[0];
    world.meddle = Some(Box::new(|datagram| datagram.from.ip() != ip(CAFE) || datagram.data.len() != RESPONSE));
    world.go(0, HOME, CAFE, false);
    world.run(25 * MS);
    world.go(0, CAFE, TRAIN, false);
    world.run(11 * MS);
    assert!(accepted(&world, &flow, [CAFE, TRAIN])[1]);
    assert!(world.nodes[1].has_news(|news| matches!(news, News::PeerMoved { number: 1, flows: 1, .. })));
    world.run(SECOND);
    world.assert_agreed();
    assert_eq!(world.wire(1, &flow.mirrored()).1, ip(TRAIN));
}

/// The old address works on; the peer has committed, and its commit is lost. Back there, the mover accepts both until the
/// peer has followed.
#[test]
fn back_home_in_doubt() {
    for back in [HOME, TRAIN] {
        let mut world = World::pair(2);
        world.strict = true;
        let flow = world.claimed(1, HOME, SERVER)[0];
        world.meddle = Some(Box::new(|datagram| datagram.from.ip() != ip(SERVER) || datagram.data.len() != COMMIT));
        world.go(0, HOME, CAFE, true);
        world.run(50 * MS);
        assert_eq!((world.wire(0, &flow).0, world.wire(1, &flow.mirrored()).1), (ip(HOME), ip(CAFE)));
        world.go(0, CAFE, back, true);
        assert!(accepted(&world, &flow, [HOME, CAFE])[0], "{back}");
        world.meddle = None;
        world.run(SECOND);
        world.assert_agreed();
        assert_eq!(world.wire(0, &flow).0, ip(back));
    }
}

/// The mover's own kernel does not let the flow follow to the third address: it is asked for again, from there and not from
/// the second one.
#[test]
fn nothing_is_asked_from_an_address_that_was_left() {
    let mut world = World::pair(3);
    let flow = world.claimed(1, HOME, SERVER)[0];
    world.meddle = Some(Box::new(|datagram| datagram.from.ip() != ip(CAFE) || datagram.data.len() != RESPONSE));
    world.go(0, HOME, CAFE, false);
    world.run(25 * MS);
    world.nodes[0].kernel.refuses.insert(flow);
    world.go(0, CAFE, TRAIN, false);
    world.nodes[0].kernel.refuses.clear();
    world.run(20 * SECOND);
    world.assert_agreed();
    assert_eq!(world.wire(1, &flow.mirrored()).1, ip(TRAIN));
    let started = |news: &News| matches!(news, News::MoveStarted { new, .. } if *new == ip(CAFE));
    assert_eq!(world.nodes[0].news.iter().filter(|(_, news)| started(news)).count(), 1);
}

/// The old address goes while its move, begun beside it, is between challenge and commit: the move that follows it to the same
/// address names it, so that the mover knows where the peer sends when it moves on, twice, before that is answered.
#[test]
fn the_old_address_goes_between_challenge_and_commit() {
    let mut world = World::pair(4);
    world.strict = true;
    let flow = world.claimed(1, HOME, SERVER)[0];
    world.go(0, HOME, CAFE, true);
    world.run(25 * MS);
    assert_eq!(world.wire(0, &flow).0, ip(HOME));
    world.go(0, HOME, CAFE, false);
    world.run(11 * MS);
    assert!(world.nodes[1].has_news(|news| matches!(news, News::PeerMoved { number: 1, flows: 1, .. })));
    world.go(0, CAFE, TRAIN, true);
    world.go(0, TRAIN, HOME, true);
    assert!(accepted(&world, &flow, [CAFE, HOME])[0]);
    world.run(SECOND);
    world.assert_agreed();
    assert_eq!(world.wire(1, &flow.mirrored()).1, ip(HOME));
}

/// The old address goes, and the host is in a third network at once: the peer may have committed the second one, which works on.
#[test]
fn the_old_address_goes_for_a_third() {
    let mut world = World::pair(5);
    let flow = world.claimed(1, HOME, SERVER)[0];
    world.go(0, HOME, CAFE, true);
    world.run(25 * MS);
    world.go(0, HOME, TRAIN, false);
    assert!(accepted(&world, &flow, [CAFE, TRAIN])[0]);
    world.run(SECOND);
    world.assert_agreed();
    assert_eq!(world.wire(1, &flow.mirrored()).1, ip(TRAIN));
}

/// The peer's kernel prepares and does not commit. It is told to forget that although many more moves follow before the time
/// is up: what it would send is not held.
#[test]
fn what_was_not_committed_is_not_held_for_ever() {
    let mut world = World::pair(6);
    let flows = world.claimed(2, HOME, SERVER);
    let stays = flows[0].mirrored();
    world.nodes[1].kernel.falters.insert(stays);
    world.go(0, HOME, CAFE, false);
    world.run(60 * MS);
    assert!(world.nodes[1].kernel.binding(&stays).remote.holds());
    for way in 0..9 {
        let (old, new) = if way % 2 == 0 { (CAFE, TRAIN) } else { (TRAIN, CAFE) };
        world.go(0, old, new, false);
        world.run(60 * MS);
    }
    assert_eq!(world.wire(1, &flows[1].mirrored()).1, ip(TRAIN));
    assert!(!world.nodes[1].kernel.binding(&stays).remote.holds());
}

/// The peer makes the former move, or cannot, and refuses the next one: its answer says where the flow stands, and both use
/// that.
#[test]
fn who_is_refused_stands_where_the_peer_has_him() {
    for (falters, at) in [(false, CAFE), (true, HOME)] {
        let mut world = World::pair(7);
        let flows = world.claimed(3, HOME, SERVER);
        let stays = flows[1].mirrored();
        world.meddle = Some(Box::new(|datagram| datagram.from.ip() != ip(CAFE) || datagram.data.len() != RESPONSE));
        world.go(0, HOME, CAFE, false);
        world.run(25 * MS);
        world.nodes[1].kernel.refuses.insert(stays);
        if falters {
            world.nodes[1].kernel.falters.insert(stays);
        }
        world.go(0, CAFE, TRAIN, false);
        world.run(100 * MS);
        assert_eq!((world.wire(0, &flows[1]).0, world.wire(1, &stays).1), (ip(at), ip(at)));
        assert!(!world.nodes[0].kernel.binding(&flows[1]).local.holds());
        assert_eq!((world.wire(0, &flows[2]).0, world.wire(1, &flows[2].mirrored()).1), (ip(TRAIN), ip(TRAIN)));
        world.nodes[1].kernel.refuses.clear();
        world.nodes[1].kernel.falters.clear();
        world.run(30 * SECOND);
        world.assert_agreed();
        assert_eq!(world.wire(0, &flows[1]).0, ip(TRAIN));
    }
}

/// One of two flows leaves a move that the peer has not answered, and what it is asked for instead is refused: the first move
/// is not made for it either.
#[test]
fn a_move_that_a_flow_has_left_is_not_made_for_it() {
    const OFFICE: &str = "203.0.113.31";
    let mut world = World::pair(8);
    let first = world.claimed(1, HOME, SERVER)[0];
    world.go(0, CAFE, CAFE, true);
    let second = world.connect(0, 1, (CAFE, 20_000), (SERVER, 22));
    world.flows(0);
    world.run(SECOND);
    assert_eq!(world.nodes[0].view().confirmed, 2);
    world.meddle = Some(Box::new(|datagram| datagram.from.ip() != ip(SERVER)));
    world.go(0, HOME, TRAIN, false);
    world.go(0, CAFE, TRAIN, false);
    world.run(5 * MS);
    // What is asked first is lost, and repeated when the refusal is over.
    world.meddle = Some(Box::new(|_| false));
    world.go(0, TRAIN, OFFICE, false);
    world.meddle = None;
    world.nodes[1].kernel.refuses.insert(second.mirrored());
    world.go(0, CAFE, OFFICE, false);
    world.run(60 * MS);
    world.nodes[1].kernel.refuses.clear();
    world.run(500 * MS);
    assert_eq!((world.wire(0, &second).0, world.wire(1, &second.mirrored()).1), (ip(CAFE), ip(CAFE)));
    assert_eq!((world.wire(0, &first).0, world.wire(1, &first.mirrored()).1), (ip(OFFICE), ip(OFFICE)));
    world.run(30 * SECOND);
    world.assert_agreed();
    assert_eq!(world.wire(0, &second).0, ip(OFFICE));
}
