//! Anything at any time: random scenarios, each of which must end well.

use super::world::*;
use crate::host::Flow;
use std::net::IpAddr;

struct Traveller {
    node: usize,
    places: [&'static str; 3],
    at: usize,
}

/// Both hosts move at random over a bad network; at least one of the two can always be found. In the end everything is
/// quiet, both ends agree, and every connection is alive.
fn storm(seed: u64) {
    let mut world = World::new(seed);
    world.add(mobile(1), &[HOME]);
    world.add(mobile(2), &[SERVER]);
    let flows: Vec<Flow> = (0..20).map(|i| world.connect(0, 1, (HOME, 40_000 + i), (SERVER, 22))).collect();
    world.flows(0);
    world.flows(1);
    world.run(5 * SECOND);
    assert_eq!(world.nodes[0].view().confirmed, 20, "seed {seed}");
    assert_eq!(world.nodes[1].view().confirmed, 20, "seed {seed}");
    world.link = Link {
        delay: world.random(50) * MS,
        jitter: world.random(50) * MS,
        loss: world.random(31),
        duplicate: world.random(31),
        corrupt: world.random(11),
    };
    let mut travellers = [
        Traveller { node: 0, places: [HOME, CAFE, TRAIN], at: 0 },
        Traveller { node: 1, places: [SERVER, SERVER_TOO, "203.0.113.82"], at: 0 },
    ];
    for _ in 0..=world.random(6) {
        // The second host keeps its old addresses: somebody has to be found.
        let traveller = &mut travellers[usize::from(world.random(3) == 0)];
        let keeps = traveller.node == 1 || world.random(2) == 0;
        let to = (traveller.at + 1 + world.random(2) as usize) % 3;
        let (old, new) = (traveller.places[traveller.at], traveller.places[to]);
        traveller.at = to;
        world.go(traveller.node, old, new, keeps);
        let pause = world.random(3000);
        world.run(pause * MS);
    }
    world.link = Link::default();
    world.run(60 * SECOND);
    world.assert_agreed();
    let here: [IpAddr; 2] = [0, 1].map(|i: usize| ip(travellers[i].places[travellers[i].at]));
    for flow in &flows {
        assert_eq!(world.wire(0, flow), (here[0], here[1]), "seed {seed}");
    }
    for node in &world.nodes {
        let view = node.view();
        assert_eq!((view.confirmed, view.claims, view.moves.len(), view.pending), (20, 20, 0, 0), "seed {seed}");
    }
    // All connections end: nothing is left.
    for flow in &flows {
        world.end(0, flow);
        world.end(1, &flow.mirrored());
    }
    world.flows(0);
    world.flows(1);
    world.run(900 * SECOND);
    for node in &world.nodes {
        let endpoint = &node.endpoint;
        assert_eq!(endpoint.peers().count(), 0, "seed {seed}");
        assert!(endpoint.mine.is_empty() && endpoint.wanted.is_empty() && endpoint.owners.is_empty(), "seed {seed}");
        assert_eq!(endpoint.poll_timeout(), None, "seed {seed}");
    }
}

#[test]
fn storms_end_well() {
    (0..400).for_each(storm);
}

#[test]
fn a_simulation_is_the_same_every_time() {
    let run = || {
        let mut world = World::pair(9);
        world.link = Link { delay: 10 * MS, jitter: 40 * MS, loss: 30, duplicate: 30, corrupt: 10 };
        world.connect(0, 1, (HOME, 40_000), (SERVER, 22));
        world.flows(0);
        world.run(60 * SECOND);
        (world.sent.clone(), world.now())
    };
    assert_eq!(run(), run());
}
