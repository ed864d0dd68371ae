//! A mover whose old path is gone sends from the new address as soon as the peer accepts it, before the peer has committed.

use super::kernel::Other;
use super::world::*;
use crate::{Flow, MoveRefusal, News};
use std::net::IpAddr;
use std::time::Duration;

/// How long the peer keeps accepting without hearing anything.
const PENDING: u32 = 20;

fn sends_from(world: &World, flow: &Flow) -> Option<IpAddr> {
    let half = world.nodes[0].kernel.binding(flow).local;
    (!half.holds()).then_some(half.address)
}

fn numbers(world: &World) -> Vec<u32> {
    let number = |news: &News| match news {
        News::MoveStarted { number, .. } => Some(*number),
        _ => None,
    };
    world.nodes[0].news.iter().filter_map(|(_, news)| number(news)).collect()
}

/// The response never arrives: the mover stops sending long before the peer stops accepting, and asks anew.
#[test]
fn it_does_not_stay_ahead_for_long() {
    let mut world = World::pair(1);
    world.strict = true;
    let flow = world.claimed(1, HOME, SERVER)[0];
    world.meddle = Some(Box::new(|datagram| datagram.from.ip() != ip(CAFE) || datagram.data.len() != RESPONSE));
    world.go(0, HOME, CAFE, false);
    world.run(25 * MS);
    assert_eq!(sends_from(&world, &flow), Some(ip(CAFE)));
    // From now on nothing reaches the peer at all: it will take the move back.
    world.meddle = Some(Box::new(|datagram| datagram.from.ip() != ip(CAFE)));
    world.run(SECOND);
    assert_eq!(sends_from(&world, &flow), Some(ip(CAFE)));
    world.run(2 * SECOND);
    assert_eq!((sends_from(&world, &flow), numbers(&world)), (None, vec![1, 3]));
    world.run(2 * PENDING * SECOND);
    assert!(world.nodes[1].has_news(|news| matches!(news, News::PeerMoveExpired { number: 1, .. })));
    assert_eq!(world.nodes[1].kernel.binding(&flow.mirrored()).remote.other, Other::None);
    world.meddle = None;
    world.run(20 * SECOND);
    world.assert_agreed();
    assert_eq!(sends_from(&world, &flow), Some(ip(CAFE)));
}

/// What the kernel had held leaves after the response, which must not be lost behind it.
#[test]
fn the_response_leaves_before_it_is_ahead() {
    let mut world = World::pair(1);
    let flow = world.claimed(1, HOME, SERVER)[0];
    world.go(0, HOME, CAFE, false);
    world.meddle = Some(Box::new(|datagram| datagram.to.ip() != ip(CAFE)));
    world.run(15 * MS);
    let challenge = world.sent.last().cloned().expect("a challenge");
    world.meddle = None;
    world.inject(&challenge);
    assert_eq!(world.sent.last().map(|sent| (sent.from.ip(), sent.data.len())), Some((ip(CAFE), RESPONSE)));
    assert_eq!(sends_from(&world, &flow), None);
    world.run(Duration::ZERO);
    assert_eq!(sends_from(&world, &flow), Some(ip(CAFE)));
}

/// All commits are lost: whatever the mover believes, what it sends is accepted.
#[test]
fn commits_that_get_lost_do_no_harm() {
    let mut world = World::pair(2);
    world.strict = true;
    let flows = world.claimed(5, HOME, SERVER);
    world.meddle = Some(Box::new(|datagram| datagram.from.ip() != ip(SERVER) || datagram.data.len() != COMMIT));
    world.go(0, HOME, CAFE, false);
    world.run(60 * SECOND);
    assert!(numbers(&world).len() > 5);
    assert_eq!(world.wire(1, &flows[0].mirrored()).1, ip(CAFE));
    world.meddle = None;
    world.run(15 * SECOND);
    world.assert_agreed();
    assert_eq!(world.nodes[0].view().moves, []);
}

/// Some flows cannot come along: the mover waits for the list, and none of them is ever sent from the new address.
#[test]
fn it_waits_when_some_are_refused() {
    let mut world = World::pair(3);
    world.strict = true;
    let flows = world.claimed(5, HOME, SERVER);
    world.nodes[1].kernel.refuses.insert(flows[2].mirrored());
    world.go(0, HOME, CAFE, false);
    world.run(25 * MS);
    assert!(flows.iter().all(|flow| sends_from(&world, flow).is_none()));
    world.run(20 * MS);
    for (i, flow) in flows.iter().enumerate() {
        assert_eq!(sends_from(&world, flow), Some(ip(if i == 2 { HOME } else { CAFE })), "{i}");
    }
}

/// The peer's kernel prepared a flow and did not commit it: it goes back to where the peer knows it, and until it is there
/// the peer accepts it at both.
#[test]
fn it_goes_back_when_the_commit_refuses() {
    let mut world = World::pair(4);
    world.strict = true;
    let flows = world.claimed(5, HOME, SERVER);
    world.nodes[1].kernel.falters.insert(flows[2].mirrored());
    world.go(0, HOME, CAFE, false);
    world.run(25 * MS);
    assert!(flows.iter().all(|flow| sends_from(&world, flow) == Some(ip(CAFE))));
    world.run(SECOND);
    for (i, flow) in flows.iter().enumerate() {
        assert_eq!(sends_from(&world, flow), Some(ip(if i == 2 { HOME } else { CAFE })), "{i}");
    }
    let remote = |world: &World| world.nodes[1].kernel.binding(&flows[2].mirrored()).remote;
    assert!(remote(&world).accepts(ip(CAFE)));
    world.run(PENDING * SECOND);
    assert_eq!((remote(&world).address, remote(&world).other), (ip(HOME), Other::None), "and forgets it");
    // Also when its daemon begins anew meanwhile, and hears nothing.
    world.go(0, CAFE, TRAIN, false);
    world.go(0, HOME, TRAIN, false);
    world.run(SECOND);
    assert!(remote(&world).accepts(ip(TRAIN)));
    world.resume(1);
    world.meddle = Some(Box::new(|_| false));
    world.run(PENDING * SECOND);
    assert_eq!((remote(&world).address, remote(&world).other), (ip(HOME), Other::None));
    world.meddle = None;
    world.run(2 * PENDING * SECOND);
    // The next move takes it along.
    world.nodes[1].kernel.falters.clear();
    world.go(0, HOME, TRAIN, false);
    world.go(0, CAFE, TRAIN, false);
    world.run(SECOND);
    world.assert_agreed();
    assert!(flows.iter().all(|flow| sends_from(&world, flow) == Some(ip(TRAIN))));
}

/// On to a third network, or back home, while it is ahead in the second.
#[test]
fn it_moves_on_from_there() {
    for (next, usable) in [(TRAIN, false), (TRAIN, true), (HOME, false)] {
        let mut world = World::pair(5);
        world.strict = true;
        let flow = world.claimed(1, HOME, SERVER)[0];
        world.meddle = Some(Box::new(|datagram| datagram.from.ip() != ip(CAFE) || datagram.data.len() != RESPONSE));
        world.go(0, HOME, CAFE, false);
        world.run(25 * MS);
        world.nodes[0].up.remove(&ip(CAFE));
        world.go(0, CAFE, next, usable);
        world.run(10 * SECOND);
        world.assert_agreed();
        assert_eq!(sends_from(&world, &flow), Some(ip(next)), "{next}");
    }
}

/// The peer restarts while the mover is ahead, and has forgotten all claims: the flow goes back, TCP decides.
#[test]
fn a_peer_that_forgets_is_not_sent_to() {
    let mut world = World::pair(6);
    let flow = world.claimed(1, HOME, SERVER)[0];
    world.meddle = Some(Box::new(|datagram| datagram.from.ip() != ip(CAFE) || datagram.data.len() != RESPONSE));
    world.go(0, HOME, CAFE, false);
    world.run(25 * MS);
    assert_eq!(sends_from(&world, &flow), Some(ip(CAFE)));
    world.restart(1);
    world.meddle = None;
    world.run(20 * SECOND);
    assert_eq!((sends_from(&world, &flow), world.nodes[0].view().moves), (Some(ip(HOME)), vec![]));
}

/// A challenge that was long on its way says nothing of what the peer accepts by now.
#[test]
fn a_late_challenge_is_not_trusted() {
    let mut world = World::pair(7);
    let flow = world.claimed(1, HOME, SERVER)[0];
    world.link.delay = 1300 * MS;
    world.go(0, HOME, CAFE, false);
    world.meddle = Some(Box::new(|datagram| datagram.from.ip() != ip(CAFE)));
    world.run(2500 * MS);
    assert_eq!(sends_from(&world, &flow), None);
    world.run(200 * MS);
    assert_eq!(sends_from(&world, &flow), Some(ip(CAFE)), "the answer to a repetition is young enough");
}

/// A router in between translates addresses from now on: the peer refuses, and the flow stays.
#[test]
fn a_move_that_is_refused_is_not_ahead() {
    let mut world = World::pair(8);
    let flow = world.claimed(1, HOME, SERVER)[0];
    world.nodes[0].up.insert(ip(TRAIN));
    world.meddle = Some(translator(CAFE, TRAIN));
    world.go(0, HOME, CAFE, false);
    world.run(SECOND);
    let refused = |news: &News| matches!(news, News::MoveRefused { reason: MoveRefusal::Translated, .. });
    assert!(world.nodes[0].has_news(refused));
    assert_eq!(sends_from(&world, &flow), Some(ip(HOME)));
}
