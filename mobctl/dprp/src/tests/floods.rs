//! Floods: what many senders can make a host remember and compute.

use super::world::*;
use crate::News;
use std::net::{IpAddr, SocketAddr};

/// Hellos of members of the group, as somebody who has listened can repeat them.
fn hellos(count: u8) -> Vec<Vec<u8>> {
    let mut world = World::new(99);
    world.add(fixed(2), &[SERVER]);
    for number in 1..=count {
        let address = format!("198.51.100.{number}");
        let node = world.add(mobile(number + 10), &[&address]);
        world.connect(node, 0, (&address, 40_000), (SERVER, 22));
        world.flows(node);
    }
    world.sent.iter().filter(|datagram| datagram.data[0] == 1).map(|datagram| datagram.data.clone()).collect()
}

fn flood(world: &mut World, hellos: &[Vec<u8>], round: u16) {
    for (i, data) in (0..).zip(hellos) {
        let from = SocketAddr::new(IpAddr::from([100, 64, round.to_be_bytes()[1], i]), 1024 + round);
        world.inject(&Datagram { from, to: SocketAddr::new(ip(SERVER), 9434), data: data.clone() });
    }
}

/// Repeated Hellos from everywhere, all the time: a newcomer associates and claims through a cookie, a move takes the time
/// that it always takes, and what is remembered stays bounded.
#[test]
fn legitimate_moves_finish_under_a_flood() {
    let hellos = hellos(200);
    let mut world = World::pair(1);
    let flows = world.claimed(10, HOME, SERVER);
    let newcomer = world.add(mobile(3), &[TRAIN]);
    for round in 0..30 {
        flood(&mut world, &hellos, round);
    }
    assert_eq!(world.nodes[1].endpoint.handshakes.half_open_count(), 512);
    world.connect(newcomer, 1, (TRAIN, 40_000), (SERVER, 22));
    world.flows(newcomer);
    world.go(0, HOME, CAFE, false);
    for round in 30..150 {
        world.run(MS);
        flood(&mut world, &hellos, round);
    }
    let done = |news: &News| matches!(news, News::MoveCommitted { flows: 10, elapsed, .. } if *elapsed == 20 * MS);
    assert!(world.nodes[0].has_news(done));
    assert!(flows.iter().all(|flow| world.wire(1, &flow.mirrored()).1 == ip(CAFE)));
    assert_eq!(world.nodes[newcomer].view().confirmed, 1, "one round trip more than usual");
    assert!(world.nodes[1].endpoint.handshakes.half_open_count() <= 1024);
    assert_eq!(world.nodes[1].endpoint.peers().count(), 2);
    // What was answered is shorter than what asked, and mostly very short.
    let answers: Vec<_> =
        world.sent.iter().filter(|d| d.from.ip() == ip(SERVER) && matches!(d.data[0], 2 | 5)).collect();
    assert!(answers.iter().filter(|d| d.data[0] == 5).all(|d| d.data.len() == 24));
    assert!(answers.iter().all(|d| d.data.len() <= 400) && answers.len() > 10_000);
}

/// Somebody who does receive at one address begins handshakes without end: others have room.
#[test]
fn one_source_has_a_share() {
    let mut world = World::new(2);
    world.add(fixed(2), &[SERVER]);
    let hellos = hellos(200);
    for round in 0..30 {
        flood(&mut world, &hellos, round);
    }
    let before = world.nodes[0].endpoint.handshakes.half_open_count();
    // It answers the cookies, with one Hello after the other.
    for number in 1..=60 {
        let node = world.add(mobile(100 + number), &[TRAIN]);
        world.connect(node, 0, (TRAIN, 40_000 + u16::from(number)), (SERVER, 22));
        world.meddle = Some(Box::new(|datagram| datagram.data[0] != 3));
        world.flows(node);
        world.run(45 * MS);
        world.nodes[node].up.clear();
    }
    let after = world.nodes[0].endpoint.handshakes.half_open_count();
    assert!(after > before && after <= before + 8, "{before} {after}");
}

/// Cookies that nobody sent, or that are another's, or that come again and again.
#[test]
fn forged_cookies_cost_a_little() {
    let mut world = World::pair(3);
    world.connect(0, 1, (HOME, 40_000), (SERVER, 22));
    world.meddle = Some(Box::new(|datagram| datagram.data[0] != 2));
    world.flows(0);
    let hello = world.sent[0].clone();
    assert_eq!(hello.data[0], 1);
    // The index is in the sealed part of the Hello: who does not know the group key guesses.
    for guess in 0..1000_u32 {
        let data = [&[5, 1, 0, 0][..], &guess.to_be_bytes(), &[7; 16]].concat();
        world.inject(&Datagram { from: hello.to, to: hello.from, data });
    }
    assert_eq!(world.sent.len(), 1);
    assert_eq!(world.nodes[0].endpoint.counters().unknown_index, 1000);
    world.meddle = None;
    world.run(5 * SECOND);
    assert_eq!(world.nodes[0].view().confirmed, 1);
}

/// A hundred thousand flows of one peer move in one exchange.
#[test]
fn a_hundred_thousand_flows_move_in_four_messages() {
    let mut world = World::pair(4);
    for i in 0..100_000_u32 {
        let (high, port) = (i / 50_000, u16::try_from(10_000 + i % 50_000).expect("a port"));
        world.connect(0, 1, (HOME, port), (SERVER, if high == 0 { 22 } else { 443 }));
    }
    world.link.delay = MS;
    world.flows(0);
    world.run(60 * SECOND);
    assert_eq!(world.nodes[0].view().confirmed, 100_000);
    let sent = world.sent.len();
    world.go(0, HOME, CAFE, false);
    world.run(5 * MS);
    assert!(world.nodes[0].has_news(|news| matches!(news, News::MoveCommitted { flows: 100_000, refused: 0, .. })));
    assert_eq!(world.sent.len() - sent, 4);
    world.assert_agreed();
}
