//! Flows whose two ends know them by different ports: names are wire sides.

use super::kernel::Binding;
use super::world::*;
use crate::{ClaimStatus, Event, Flow, Host, News, Protocol};
use std::net::SocketAddr;

const PORT: u16 = 40_000;

/// A connection of `node`, which has the address `at`, with the server (1), where it is displaced: there its stack side has
/// the remote port `port`.
fn displaced(world: &mut World, node: usize, at: &str, port: u16) -> (Flow, Flow) {
    let flow =
        Flow { local: SocketAddr::new(ip(at), PORT), remote: SocketAddr::new(ip(SERVER), 22), protocol: Protocol::Tcp };
    let wire = flow.mirrored();
    let stack = Flow { remote: SocketAddr::new(ip(at), port), ..wire };
    let instance = 1_000_000 + u64::from(port);
    world.nodes[node].kernel.connections.insert(flow, instance);
    world.nodes[1].kernel.connections.insert(stack, instance + 1);
    world.nodes[1].kernel.bindings.insert(stack, Binding::displaced(&wire));
    (flow, stack)
}

/// A mover (0) that began at HOME and is in the CAFE, the server (1), and another mobile host (2) that has HOME now, with
/// a displaced connection from the very same port.
fn with_a_successor() -> (World, Flow, (Flow, Flow)) {
    let mut world = World::pair(1);
    world.nodes[1].kernel.exclusive = true;
    let first = world.connect(0, 1, (HOME, PORT), (SERVER, 22));
    world.flows(0);
    world.run(SECOND);
    world.go(0, HOME, CAFE, false);
    world.run(SECOND);
    assert_eq!(world.wire(1, &first.mirrored()).1, ip(CAFE));
    // Grace is over.
    world.nodes[1].kernel.bindings.get_mut(&first.mirrored()).expect("a binding").remote.other =
        super::kernel::Other::None;
    let successor = world.add(mobile(3), &[HOME]);
    let second = displaced(&mut world, successor, HOME, 50_001);
    world.flows(successor);
    world.run(2 * SECOND);
    (world, first, second)
}

#[test]
fn a_displaced_flow_is_claimed_and_moves() {
    let (mut world, first, (second, stack)) = with_a_successor();
    assert_eq!((world.nodes[0].view().confirmed, world.nodes[2].view().confirmed), (1, 1));
    assert!(world.nodes[1].endpoint.owners.contains_key(&stack));
    world.go(2, HOME, TRAIN, false);
    world.run(SECOND);
    let wires = |world: &mut World| {
        let kernel = &mut world.nodes[1].kernel;
        (kernel.wire(&first.mirrored()), kernel.wire(&stack))
    };
    let wire = |text: &str| Some(Flow { remote: SocketAddr::new(ip(text), PORT), ..first.mirrored() });
    assert_eq!(wires(&mut world), (wire(CAFE), wire(TRAIN)));
    assert_eq!((world.wire(0, &first).0, world.wire(2, &second).0), (ip(CAFE), ip(TRAIN)));
    // The first one comes home.
    world.nodes[0].up.remove(&ip(CAFE));
    world.nodes[2].up.remove(&ip(HOME));
    world.go(0, CAFE, HOME, false);
    world.run(500 * MS);
    assert_eq!(wires(&mut world), (wire(CAFE), wire(TRAIN)), "the other one's grace is not over");
    world.nodes[1].kernel.bindings.get_mut(&stack).expect("a binding").remote.other = super::kernel::Other::None;
    world.run(2 * SECOND);
    assert_eq!(wires(&mut world), (wire(HOME), wire(TRAIN)));
}

/// Two connections, one name each, at any time: who has the address now cannot claim what began there.
#[test]
fn a_name_means_the_flow_that_has_it_now() {
    let (mut world, first, (second, stack)) = with_a_successor();
    world.nodes[2].kernel.connections.remove(&second);
    world.flows(2);
    world.nodes[1].kernel.end(&stack);
    world.flows(1);
    world.run(SECOND);
    // The stranger's connection has ended. It claims the name once more: that is the first flow's stack side.
    world.nodes[2].kernel.connections.insert(second, 77);
    world.flows(2);
    world.run(3 * SECOND);
    let refused = |news: &News| matches!(news, News::ClaimRefused { reason: ClaimStatus::WrongAddress, .. });
    assert!(world.nodes[2].has_news(refused));
    assert_eq!(world.nodes[2].view().confirmed, 0);
    assert_eq!(world.wire(1, &first.mirrored()).1, ip(CAFE));
}

/// A connection whose own host gave it another port on the wire is named by that port.
#[test]
fn the_movers_own_ports_may_differ() {
    let mut world = World::pair(2);
    let wire = world.connect(0, 1, (HOME, PORT), (SERVER, 22));
    let instance = world.nodes[0].kernel.connections.remove(&wire).expect("a connection");
    let stack = Flow { local: SocketAddr::new(ip(HOME), 1234), ..wire };
    world.nodes[0].kernel.connections.insert(stack, instance);
    world.nodes[0].kernel.bindings.insert(stack, Binding::displaced(&wire));
    world.flows(0);
    world.run(SECOND);
    assert_eq!(world.nodes[0].view().confirmed, 1);
    world.go(0, HOME, CAFE, false);
    world.run(SECOND);
    assert_eq!((world.wire(0, &stack).0, world.wire(1, &wire.mirrored()).1), (ip(CAFE), ip(CAFE)));
}

/// Two mobiles (the second one is returned) that have swapped their addresses, with the same ports.
fn swapped(takes: bool) -> (World, usize, Flow, Flow) {
    let mut world = World::pair(3);
    (world.nodes[1].kernel.exclusive, world.nodes[1].kernel.takes) = (true, takes);
    let other = world.add(mobile(3), &[CAFE]);
    let a = world.connect(0, 1, (HOME, PORT), (SERVER, 22));
    let b = world.connect(other, 1, (CAFE, PORT), (SERVER, 22));
    world.flows(0);
    world.flows(other);
    world.run(2 * SECOND);
    world.nodes[0].up.clear();
    world.nodes[other].up.clear();
    world.go(0, HOME, CAFE, false);
    world.go(other, CAFE, HOME, false);
    world.run(2 * SECOND);
    (world, other, a, b)
}

/// Two mobiles swap their addresses, with the same ports: each has proved that it receives where the other one was, so its
/// flow gets the wire side, in one exchange.
#[test]
fn two_that_swap_addresses_take_each_others_wire_sides() {
    let (mut world, other, a, b) = swapped(true);
    for node in [0, other] {
        assert!(world.nodes[node].has_news(|news| matches!(news, News::MoveCommitted { flows: 1, refused: 0, .. })));
    }
    assert_eq!((world.wire(1, &a.mirrored()).1, world.wire(1, &b.mirrored()).1), (ip(CAFE), ip(HOME)));
    assert_eq!((world.wire(0, &a).0, world.wire(other, &b).0), (ip(CAFE), ip(HOME)));
    // And back again, one after the other.
    world.go(0, CAFE, TRAIN, false);
    world.run(SECOND);
    world.go(other, HOME, CAFE, false);
    world.run(SECOND);
    assert_eq!((world.wire(0, &a).0, world.wire(other, &b).0), (ip(TRAIN), ip(CAFE)));
}

/// Nothing is taken before the new address has answered: a mover that cannot be reached there takes nothing.
#[test]
fn nothing_is_taken_without_a_proof() {
    let mut world = World::pair(3);
    (world.nodes[1].kernel.exclusive, world.nodes[1].kernel.takes) = (true, true);
    let other = world.add(mobile(3), &[CAFE]);
    let a = world.connect(0, 1, (HOME, PORT), (SERVER, 22));
    world.connect(other, 1, (CAFE, PORT), (SERVER, 22));
    world.flows(0);
    world.flows(other);
    world.run(2 * SECOND);
    let taken = world.nodes[1].kernel.taken;
    // It says that it is where the other one is: the challenge goes there.
    world.event(0, Event::Move { old: ip(HOME), new: ip(CAFE), old_usable: true });
    world.run(20 * SECOND);
    assert_eq!(world.nodes[1].kernel.taken, taken);
    assert_eq!(world.wire(1, &a.mirrored()).1, ip(HOME));
}

/// The same with a kernel that takes nothing. Neither flow can have the wire side that the other one has: both are refused, with the reason, nothing is mixed up; and as soon as one of them is elsewhere, the other one follows.
#[test]
fn two_that_swap_addresses_never_share_a_wire_side() {
    let (mut world, other, a, b) = swapped(false);
    for node in [0, other] {
        assert!(world.nodes[node].has_news(|news| matches!(news, News::MoveCommitted { flows: 0, refused: 1, .. })));
    }
    assert_eq!((world.wire(1, &a.mirrored()).1, world.wire(1, &b.mirrored()).1), (ip(HOME), ip(CAFE)));
    // One of them goes on to a third network. Nobody has to tell the other one.
    world.nodes[other].up.remove(&ip(HOME));
    world.go(other, HOME, TRAIN, false);
    world.go(other, CAFE, TRAIN, false);
    world.run(SECOND);
    // The grace time of what was left.
    world.nodes[1].kernel.bindings.get_mut(&b.mirrored()).expect("a binding").remote.other = super::kernel::Other::None;
    world.run(20 * SECOND);
    assert_eq!((world.wire(1, &a.mirrored()).1, world.wire(1, &b.mirrored()).1), (ip(CAFE), ip(TRAIN)));
    assert_eq!((world.wire(0, &a).0, world.wire(other, &b).0), (ip(CAFE), ip(TRAIN)));
}
