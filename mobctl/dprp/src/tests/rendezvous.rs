//! Both ends move at once, and neither is where the other one believes.

use super::world::*;
use crate::{Flow, MoveRefusal, News};
use std::net::IpAddr;

const NAMES: [&str; 2] = ["host1.example.org", "host2.example.org"];

fn both_mobile(seed: u64) -> (World, Vec<Flow>) {
    let mut world = World::new(seed);
    world.add(mobile(1), &[HOME]);
    world.add(mobile(2), &[SERVER]);
    let flows = (0..5).map(|i| world.connect(0, 1, (HOME, 40_000 + i), (SERVER, 22))).collect();
    world.flows(0);
    world.flows(1);
    world.run(3 * SECOND);
    world.strict = true;
    (world, flows)
}

fn moved(world: &World, flows: &[Flow], to: [&str; 2]) -> bool {
    let wires = flows.iter().map(|flow| (world.wire(0, flow), world.wire(1, &flow.mirrored())));
    let (a, b): (IpAddr, IpAddr) = (ip(to[0]), ip(to[1]));
    wires.into_iter().all(|wires| wires == ((a, b), (b, a)))
}

fn tell(world: &mut World, node: usize, address: &str) {
    world.names.insert(NAMES[node].into(), vec![ip(address)]);
}

/// Both old addresses are gone. One name, or both, lead to the new ones.
#[test]
fn a_name_brings_them_together() {
    for (seed, known) in [(1, vec![0]), (2, vec![1]), (3, vec![0, 1])] {
        let (mut world, flows) = both_mobile(seed);
        tell(&mut world, 0, HOME);
        tell(&mut world, 1, SERVER);
        world.go(0, HOME, CAFE, false);
        world.go(1, SERVER, SERVER_TOO, false);
        // The DNS takes a while.
        world.run(7 * SECOND);
        assert!(!moved(&world, &flows, [CAFE, SERVER_TOO]));
        for node in known {
            tell(&mut world, node, [CAFE, SERVER_TOO][node]);
        }
        let took = world.run_until(10 * SECOND, |world| moved(world, &flows, [CAFE, SERVER_TOO]));
        assert!(took <= 2 * SECOND, "{took:?}");
        world.run(10 * SECOND);
        world.assert_agreed();
        let queries = world.nodes[0].queries.len();
        world.run(600 * SECOND);
        assert_eq!(world.nodes[0].queries.len(), queries, "nobody asks any more");
        assert!(world.nodes.iter().all(|node| node.view().moves.is_empty()));
    }
}

/// Both are unreachable for an hour, and come back in other networks, one after the other.
#[test]
fn an_hour_later() {
    let (mut world, flows) = both_mobile(4);
    tell(&mut world, 0, HOME);
    tell(&mut world, 1, SERVER);
    for node in [0, 1] {
        world.nodes[node].up.clear();
    }
    world.run(3600 * SECOND);
    world.go(0, HOME, CAFE, false);
    tell(&mut world, 0, CAFE);
    world.run(600 * SECOND);
    world.go(1, SERVER, SERVER_TOO, false);
    tell(&mut world, 1, SERVER_TOO);
    let took = world.run_until(10 * SECOND, |world| moved(world, &flows, [CAFE, SERVER_TOO]));
    assert!(took <= 2 * SECOND, "{took:?}");
    let per_minute = world.nodes[0].queries.len() * 60 / 4200;
    assert!((1..=60).contains(&per_minute), "{per_minute}");
}

/// Once more before the first meeting is over, over a bad network, with answers that are stale half of the time.
#[test]
fn again_and_again_over_a_bad_network() {
    for seed in 10..40 {
        let (mut world, flows) = both_mobile(seed);
        world.link = Link { delay: 20 * MS, jitter: 20 * MS, loss: 30, duplicate: 30, corrupt: 30 };
        let places = [[HOME, CAFE, TRAIN], [SERVER, SERVER_TOO, "203.0.113.82"]];
        let mut at = [0, 0];
        for _ in 0..4 {
            for node in [0, 1] {
                let to = (at[node] + 1 + world.random(2) as usize) % 3;
                let (old, new) = (places[node][at[node]], places[node][to]);
                world.go(node, old, new, false);
                at[node] = to;
                if world.random(2) == 0 {
                    tell(&mut world, node, new);
                }
            }
            let pause = world.random(3000);
            world.run(pause * MS);
        }
        world.link = Link::default();
        for node in [0, 1] {
            tell(&mut world, node, places[node][at[node]]);
        }
        world.run(60 * SECOND);
        world.assert_agreed();
        assert!(moved(&world, &flows, [places[0][at[0]], places[1][at[1]]]), "seed {seed}");
    }
}

/// The peer is behind a translator, and finds the mover outside: it does not send there, where it would seem to be another.
#[test]
fn a_peer_that_is_translated_refuses() {
    const OUTSIDE: &str = "203.0.113.250";
    let (mut world, flows) = both_mobile(6);
    tell(&mut world, 0, CAFE);
    tell(&mut world, 1, SERVER);
    world.meddle = Some(Box::new(|datagram| {
        if (datagram.from.ip(), datagram.to.ip()) == (ip(SERVER), ip(CAFE)) {
            datagram.from.set_ip(ip(OUTSIDE));
        } else if datagram.to.ip() == ip(OUTSIDE) {
            datagram.to.set_ip(ip(SERVER));
        } else if datagram.to.ip() == ip(SERVER) {
            return false;
        }
        true
    }));
    world.go(0, HOME, CAFE, false);
    world.run(120 * SECOND);
    let refused = |news: &News| matches!(news, News::MoveRefused { reason: MoveRefusal::Translated, .. });
    assert!(world.nodes[0].has_news(refused));
    assert!(flows.iter().all(|flow| world.wire(1, &flow.mirrored()) == (ip(SERVER), ip(HOME))));
    // It comes inside, too.
    world.meddle = None;
    world.go(0, CAFE, TRAIN, false);
    tell(&mut world, 0, TRAIN);
    world.run(120 * SECOND);
    assert!(moved(&world, &flows, [TRAIN, SERVER]));
    world.assert_agreed();
}

/// Each end refuses what the other one moves, again and again: neither makes the other one ask more often for that.
#[test]
fn refusals_of_both_do_not_chase_each_other() {
    let (mut world, flows) = both_mobile(7);
    for node in 0..2 {
        world.nodes[node].kernel.falters.extend(flows.iter().flat_map(|flow| [*flow, flow.mirrored()]));
    }
    tell(&mut world, 0, CAFE);
    tell(&mut world, 1, SERVER_TOO);
    world.strict = false;
    world.go(0, HOME, CAFE, false);
    world.go(1, SERVER, SERVER_TOO, false);
    world.run(60 * SECOND);
    world.go(0, CAFE, TRAIN, false);
    world.run(240 * SECOND);
    for node in &world.nodes {
        let begun = node.news.iter().filter(|(_, news)| matches!(news, News::MoveStarted { .. })).count();
        assert!((1..30).contains(&begun), "{begun} moves in five minutes");
    }
}

/// The name leads to a stranger of the group, to nowhere, and to nonsense: nothing comes of it.
#[test]
fn the_dns_is_only_a_hint() {
    let (mut world, flows) = both_mobile(5);
    let stranger = world.add(mobile(3), &[TRAIN]);
    let hints = [TRAIN, "203.0.113.99", "127.0.0.1", "224.0.0.1", "0.0.0.0", CAFE, "2001:db8::1"].map(ip);
    world.names.insert(NAMES[1].into(), hints.into());
    world.go(0, HOME, CAFE, false);
    world.nodes[1].up.clear();
    let sent = world.sent.len();
    world.run(120 * SECOND);
    assert!(
        world.nodes[0].has_news(|news| matches!(news, News::WrongKey { address, .. } if address.ip() == ip(TRAIN)))
    );
    assert_eq!(world.nodes[stranger].endpoint.peers().count(), 0);
    assert_eq!(world.wire(0, &flows[0]), (ip(HOME), ip(SERVER)), "and the flows are held");
    let hers = |datagram: &&Datagram| datagram.from.ip() == ip(CAFE);
    let to = |address: &str| world.sent[sent..].iter().filter(hers).filter(|d| d.to.ip() == ip(address)).count();
    assert!((1..=40).contains(&to("203.0.113.99")), "{}", to("203.0.113.99"));
    assert_eq!(to("127.0.0.1") + to("224.0.0.1") + to("0.0.0.0") + to(CAFE) + to("2001:db8::1"), 0);
    // An answer that nobody asked for.
    world.nodes[1].up.insert(ip(SERVER));
    world.run(30 * SECOND);
    let sent = world.sent.len();
    world.event(0, crate::Event::Resolved { name: NAMES[1].into(), addresses: vec![ip("203.0.113.77")] });
    assert_eq!(world.sent.len(), sent);
}
