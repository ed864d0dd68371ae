//! Both ends move at the same time.

use super::world::*;

fn both_mobile(seed: u64) -> World {
    let mut world = World::new(seed);
    world.add(mobile(1), &[HOME]);
    world.add(mobile(2), &[SERVER]);
    world
}

/// Each end moves its own half, while both old addresses can still receive.
#[test]
fn crossing_moves_do_not_overwrite_each_other() {
    for offset in [0, 3, 10, 17, 25, 33, 60] {
        for first in [0, 1] {
            let mut world = both_mobile(offset);
            world.strict = true;
            let flows: Vec<_> = (0..5).map(|i| world.connect(0, 1, (HOME, 40_000 + i), (SERVER, 22))).collect();
            world.flows(0);
            world.flows(1);
            world.run(3 * SECOND);
            let go = |world: &mut World, node: usize| {
                let (old, new) = if node == 0 { (HOME, CAFE) } else { (SERVER, SERVER_TOO) };
                world.go(node, old, new, true);
            };
            go(&mut world, first);
            world.run(u32::try_from(offset).expect("small") * MS);
            go(&mut world, 1 - first);
            world.run(5 * SECOND);
            world.assert_agreed();
            for flow in &flows {
                assert_eq!(world.wire(0, flow), (ip(CAFE), ip(SERVER_TOO)), "offset {offset}");
            }
            for node in &world.nodes {
                let view = node.view();
                assert_eq!((view.confirmed, view.claims, view.moves.len()), (5, 5, 0));
            }
        }
    }
}

/// One end has left its old address for good; the other one's still receives.
#[test]
fn one_end_can_still_be_reached() {
    let mut world = both_mobile(1);
    let flow = world.connect(0, 1, (HOME, 40_000), (SERVER, 22));
    world.flows(0);
    world.flows(1);
    world.run(3 * SECOND);
    world.go(0, HOME, CAFE, false);
    world.go(1, SERVER, SERVER_TOO, true);
    world.run(20 * SECOND);
    world.assert_agreed();
    assert_eq!(world.wire(0, &flow), (ip(CAFE), ip(SERVER_TOO)));
}

/// A host whose flows only the other end claims tells its new address, so that it is found when the other end moves.
#[test]
fn an_address_alone_is_told() {
    let mut world = World::new(2);
    world.add(mobile(1), &[HOME]);
    let mut config = mobile(2);
    config.targets.clear();
    world.add(config, &[SERVER]);
    world.connect(0, 1, (HOME, 40_000), (SERVER, 22));
    world.flows(0);
    world.flows(1);
    world.run(3 * SECOND);
    assert_eq!(world.nodes[1].view().confirmed, 0);
    world.go(1, SERVER, SERVER_TOO, true);
    world.run(SECOND);
    assert_eq!(world.nodes[0].view().address.ip(), ip(SERVER_TOO));
    assert_eq!(world.nodes[1].view().moves, []);
}
