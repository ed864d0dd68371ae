//! Clocks: sleep, old keys, and clocks that are wrong.

use super::world::*;
use crate::News;
use std::time::Duration;

fn committed(node: &Node) -> usize {
    node.news.iter().filter(|(_, news)| matches!(news, News::MoveCommitted { .. })).count()
}

/// A laptop sleeps for three hours, and wakes up in another network.
#[test]
fn hours_apart() {
    for (hours, seed) in [(1, 1), (3, 2), (100, 3)] {
        let mut world = World::pair(seed);
        world.strict = true;
        let flows = world.claimed(5, HOME, SERVER);
        world.nodes[0].asleep = true;
        world.run(hours * 3600 * SECOND);
        world.nodes[0].asleep = false;
        assert_eq!(world.nodes[1].view().claims, 5, "the peer waits");
        world.go(0, HOME, CAFE, false);
        let took = world.run_until(SECOND, |world| committed(&world.nodes[0]) == 1);
        assert!(took <= 41 * MS, "{took:?}");
        world.run(60 * SECOND);
        world.assert_agreed();
        assert!(flows.iter().all(|flow| world.wire(0, flow).0 == ip(CAFE)));
        assert_eq!(world.nodes[0].view().confirmed, 5);
    }
}

/// It falls asleep at any moment of a move, and wakes up later, when the peer has taken everything back.
#[test]
fn asleep_in_the_middle_of_a_move() {
    for when in [0, 5, 15, 25, 35] {
        let mut world = World::pair(4);
        world.strict = true;
        let flows = world.claimed(5, HOME, SERVER);
        world.go(0, HOME, CAFE, false);
        world.run(when * MS);
        world.nodes[0].asleep = true;
        world.run(7200 * SECOND);
        world.nodes[0].asleep = false;
        world.go(0, CAFE, TRAIN, false);
        world.run(20 * SECOND);
        world.assert_agreed();
        assert!(flows.iter().all(|flow| world.wire(0, flow).0 == ip(TRAIN)), "{when}");
    }
}

/// No clock is compared with another host's: they may differ by years.
#[test]
fn clocks_may_be_wrong_by_years() {
    let run = |ahead: [u64; 2]| {
        let mut world = World::pair(5);
        for (node, years) in world.nodes.iter_mut().zip(ahead) {
            node.ahead = Duration::from_secs(years * 31_557_600);
        }
        world.claimed(5, HOME, SERVER);
        world.go(0, HOME, CAFE, false);
        world.run(100 * SECOND);
        world.assert_agreed();
        (world.sent.len(), world.nodes[0].kernel.clone(), world.nodes[1].kernel.clone())
    };
    let expected = run([0, 0]);
    for ahead in [[30, 0], [0, 30], [50, 20]] {
        assert_eq!(run(ahead), expected);
    }
}

/// Keys are replaced every two hours, by whoever made them, and no claim notices.
#[test]
fn keys_are_made_anew() {
    let mut world = World::pair(6);
    let flows = world.claimed(5, HOME, SERVER);
    world.run(5 * 7300 * SECOND);
    let handshakes = world.nodes[0]
        .news
        .iter()
        .filter(|(_, news)| matches!(news, News::AssociationUp { started: true, .. }))
        .count();
    assert!((5..=6).contains(&handshakes), "{handshakes}");
    let channels = |world: &World| world.nodes[0].endpoint.peers.all.values().map(|peer| peer.channels.len()).max();
    assert_eq!(channels(&world), Some(1), "the old ones are gone");
    assert_eq!((world.nodes[0].view().confirmed, world.nodes[1].view().claims), (5, 5));
    assert!(!world.nodes[0].has_news(|news| matches!(news, News::PeerRestarted { .. })));
    // By count, too.
    let peer = world.nodes[0].endpoint.peers.all.values_mut().next().expect("a peer");
    peer.channels[0].counter = 1 << 32;
    world.run(60 * SECOND);
    let peer = world.nodes[0].endpoint.peers.all.values().next().expect("a peer");
    assert!(peer.channels[0].counter < 100);
    world.go(0, HOME, CAFE, false);
    world.run(SECOND);
    assert!(flows.iter().all(|flow| world.wire(1, &flow.mirrored()).1 == ip(CAFE)));
}

/// A host that has no mobconn gets five small datagrams, and then few and fewer.
#[test]
fn hosts_without_mobconn_are_left_alone() {
    let mut world = World::new(7);
    world.add(mobile(1), &[HOME]);
    let node = world.add(fixed(2), &[SERVER]);
    world.nodes[node].up.clear();
    world.connect(0, node, (HOME, 40_000), (SERVER, 22));
    world.flows(0);
    for (minutes, most) in [(1, 5), (10, 25), (1440, 170)] {
        world.run(minutes * 60 * SECOND);
        assert!(world.sent.len() <= most, "{} after {minutes} minutes", world.sent.len());
        assert!(world.sent.iter().all(|datagram| datagram.data.len() == 400));
    }
}
