//! Daemons that begin anew and remember.

use super::kernel::Other;
use super::world::*;
use crate::{Endpoint, News, RestoreError};
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

fn restore(config: crate::Config, boot: &[u8], snapshot: &[u8]) -> Result<Endpoint, RestoreError> {
    Endpoint::restore(config, ChaCha20Rng::seed_from_u64(1), crate::Instant::from_micros(0), boot, snapshot)
}

/// A world with claims, a move, and refusals to remember; snapshots of both ends.
fn past() -> (World, [Vec<u8>; 2]) {
    let mut world = World::pair(1);
    let flows = world.claimed(200, HOME, SERVER);
    flows.iter().step_by(3).for_each(|flow| world.end(1, &flow.mirrored()));
    world.flows(1);
    world.go(0, HOME, CAFE, true);
    world.run(SECOND);
    let snapshots = [0, 1].map(|node| world.nodes[node].endpoint.snapshot(BOOT));
    (world, snapshots)
}

#[test]
fn either_side_restarts_and_loses_nothing() {
    for restarted in [vec![0], vec![1], vec![0, 1], vec![1, 0, 0, 1]] {
        let mut world = World::pair(2);
        world.strict = true;
        let flows = world.claimed(10, HOME, SERVER);
        world.go(0, HOME, CAFE, false);
        world.run(SECOND);
        for node in &restarted {
            world.resume(*node);
        }
        world.run(2 * SECOND);
        for (node, view) in [world.nodes[0].view(), world.nodes[1].view()].iter().enumerate() {
            assert_eq!((view.confirmed, view.claims), if node == 0 { (10, 0) } else { (0, 10) }, "{restarted:?}");
            assert!(!world.nodes[node].has_news(|news| matches!(news, News::PeerRestarted { .. })));
        }
        // The association is there again: a move takes what it always takes, and nobody had to ask twice.
        let news = world.nodes[0].news.len();
        world.go(0, CAFE, TRAIN, false);
        world.run(45 * MS);
        let done = |news: &News| matches!(news, News::MoveCommitted { flows: 10, refused: 0, elapsed, .. } if *elapsed == 20 * MS);
        assert!(world.nodes[0].news[news..].iter().any(|(_, news)| done(news)), "{restarted:?}");
        assert!(flows.iter().all(|flow| world.wire(0, flow).0 == ip(TRAIN)));
        world.run(60 * SECOND);
        world.assert_agreed();
        let peer = world.nodes[0].endpoint.peers.all.values().next().expect("a peer");
        assert_eq!(peer.claimant.lost, None, "released");
    }
}

/// Killed at any moment of a move, on either side, with a snapshot of that moment or an older one.
#[test]
fn a_restart_in_the_middle_of_a_move() {
    for node in [0, 1] {
        for usable in [false, true] {
            for when in [0, 5, 12, 15, 22, 25, 32, 35, 45] {
                for stale in [false, true] {
                    let mut world = World::pair(3);
                    world.strict = true;
                    let flows = world.claimed(10, HOME, SERVER);
                    let before = world.nodes[node].endpoint.snapshot(BOOT);
                    world.go(0, HOME, CAFE, usable);
                    world.run(when * MS);
                    let snapshot = if stale { before } else { world.nodes[node].endpoint.snapshot(BOOT) };
                    world.resume_from(node, &snapshot);
                    world.run(60 * SECOND);
                    world.assert_agreed();
                    let what = (node, usable, when, stale);
                    assert!(flows.iter().all(|flow| world.wire(0, flow).0 == ip(CAFE)), "{what:?}");
                    let view = world.nodes[0].view();
                    assert_eq!((view.confirmed, view.moves.len()), (10, 0), "{what:?}");
                }
            }
        }
    }
}

/// The address goes away while the association is made anew: what was begun from the old address is no use any more.
#[test]
fn a_move_in_the_middle_of_the_handshake_after_a_restart() {
    for when in (0..300).step_by(7) {
        let mut world = World::pair(8);
        world.strict = true;
        let flow = world.claimed(1, HOME, SERVER)[0];
        world.resume(0);
        world.run(when * MS);
        world.go(0, HOME, CAFE, false);
        world.run(20 * SECOND);
        world.assert_agreed();
        assert_eq!(world.wire(0, &flow).0, ip(CAFE), "{when}");
    }
}

/// The peer answers and does not hear: handshakes fail one after the other. The claims are older than they are.
#[test]
fn handshakes_that_fail_after_a_restart_cost_no_claim() {
    const FINISH: u8 = 3;
    let mut world = World::pair(9);
    let flow = world.claimed(1, HOME, SERVER)[0];
    world.meddle = Some(Box::new(|datagram| datagram.data[0] != FINISH));
    world.resume(0);
    world.run(300 * SECOND);
    assert_eq!(world.nodes[0].view().confirmed, 1);
    world.meddle = None;
    world.go(0, HOME, CAFE, false);
    world.run(30 * SECOND);
    world.assert_agreed();
    assert_eq!(world.wire(0, &flow).0, ip(CAFE));
}

/// Claims that were confirmed after the snapshot are made again, under numbers that were never used.
#[test]
fn what_happened_after_the_snapshot_is_made_good() {
    for node in [0, 1] {
        let mut world = World::pair(4);
        let snapshot = {
            world.claimed(5, HOME, SERVER);
            world.nodes[node].endpoint.snapshot(BOOT)
        };
        let late: Vec<_> = (0..5).map(|i| world.connect(0, 1, (HOME, 30_000 + i), (SERVER, 22))).collect();
        world.flows(0);
        world.run(SECOND);
        world.resume_from(node, &snapshot);
        world.run(SECOND);
        world.flows(0);
        world.run(5 * SECOND);
        world.go(0, HOME, CAFE, true);
        world.run(20 * SECOND);
        world.assert_agreed();
        assert!(late.iter().all(|flow| world.wire(0, flow).0 == ip(CAFE)), "{node}");
    }
}

/// A move that waits when the correspondent restarts is not forgotten: if its mover is gone, it is taken back in time.
#[test]
fn a_prepared_move_is_taken_back_after_a_restart() {
    let mut world = World::pair(5);
    let flow = world.claimed(1, HOME, SERVER)[0];
    world.go(0, HOME, CAFE, true);
    world.run(15 * MS);
    world.nodes[0].up.clear();
    world.resume(1);
    world.run(SECOND);
    let half = |world: &World| world.nodes[1].kernel.binding(&flow.mirrored()).remote;
    assert!(half(&world).accepts(ip(CAFE)));
    world.run(30 * SECOND);
    assert_eq!((half(&world).address, half(&world).other), (ip(HOME), Other::None));
}

/// The host was on its way elsewhere, held what it sent, and came home while no daemon ran, or a daemon that remembers
/// nothing began: nobody else would end that.
#[test]
fn what_an_earlier_daemon_held_goes_on_at_home() {
    for remembers in [false, true] {
        // Before the peer has heard of the move, and when it has prepared it.
        for when in [5, 15] {
            let mut world = World::pair(10);
            let flow = world.claimed(1, HOME, SERVER)[0];
            world.meddle = Some(Box::new(|datagram| datagram.from.ip() != ip(SERVER)));
            world.go(0, HOME, CAFE, false);
            world.run(when * MS);
            assert!(world.nodes[0].kernel.binding(&flow).local.holds());
            world.nodes[0].up = [ip(HOME)].into();
            world.meddle = None;
            if remembers {
                world.resume(0)
            } else {
                world.restart(0)
            }
            assert!(!world.nodes[0].kernel.binding(&flow).local.holds(), "{remembers} {when}");
            world.run(30 * SECOND);
            assert_eq!(world.nodes[0].view().confirmed, 1);
            world.assert_agreed();
            assert_eq!(world.wire(0, &flow).0, ip(HOME), "{remembers} {when}");
            // Nor is it gone after later.
            world.connect(0, 1, (HOME, 30_000), (SERVER, 22));
            world.flows(0);
            world.run(SECOND);
            let view = world.nodes[0].view();
            assert_eq!((view.confirmed, view.moves.len()), (2, 0), "{remembers} {when}");
        }
    }
}

/// The host was on its way back to where its flow stands when its daemon began anew: the peer need not wait until it forgets
/// what it has prepared.
#[test]
fn a_restart_on_the_way_home() {
    let mut world = World::pair(12);
    let flow = world.claimed(1, HOME, SERVER)[0];
    world.meddle = Some(Box::new(|datagram| datagram.from.ip() != ip(SERVER)));
    world.go(0, HOME, CAFE, false);
    world.run(5 * MS);
    world.go(0, CAFE, HOME, false);
    world.run(20 * MS);
    let holds = |world: &World| {
        world.nodes[0].kernel.binding(&flow).local.holds()
            && world.nodes[1].kernel.binding(&flow.mirrored()).remote.holds()
    };
    assert!(holds(&world));
    world.resume(0);
    world.meddle = None;
    world.run(2 * SECOND);
    world.assert_agreed();
    assert_eq!(world.wire(1, &flow.mirrored()).1, ip(HOME));
}

/// A move that its mover asks for again, in time, is kept for as long as any other.
#[test]
fn what_is_asked_for_again_is_not_taken_back() {
    let mut world = World::pair(13);
    let flow = world.claimed(1, HOME, SERVER)[0];
    world.go(0, HOME, CAFE, true);
    world.run(15 * MS);
    world.meddle = Some(Box::new(|_| false));
    world.resume(1);
    world.run(12 * SECOND);
    // Heard again, but without an answer that arrives.
    world.meddle = Some(Box::new(|datagram| datagram.from.ip() != ip(SERVER) || datagram.data.len() != CHALLENGE));
    world.run(12 * SECOND);
    assert!(world.nodes[1].kernel.binding(&flow.mirrored()).remote.accepts(ip(CAFE)));
    world.meddle = None;
    world.run(30 * SECOND);
    world.assert_agreed();
    assert_eq!(world.wire(1, &flow.mirrored()).1, ip(CAFE));
}

/// A daemon that remembers nothing of a move that its forerunner had prepared for a peer takes that back, but not before
/// the peer had time to ask again.
#[test]
fn what_nobody_asks_for_again_is_taken_back() {
    let mut world = World::pair(11);
    let flow = world.claimed(1, HOME, SERVER)[0];
    world.go(0, HOME, CAFE, false);
    world.run(15 * MS);
    world.nodes[0].up.clear();
    // The mover goes home and hears nothing.
    world.restart(1);
    let half = |world: &World| world.nodes[1].kernel.binding(&flow.mirrored()).remote;
    world.run(19 * SECOND);
    assert!(half(&world).holds());
    world.run(2 * SECOND);
    assert_eq!((half(&world).address, half(&world).other), (ip(HOME), Other::None));
}

/// A peer that was not asked to forget, and did: it says so under its keys, and the mover lets TCP end the flow.
#[test]
fn a_peer_that_lost_a_flow_says_so() {
    let mut world = World::pair(6);
    let flows = world.claimed(2, HOME, SERVER);
    world.end(1, &flows[0].mirrored());
    world.resume(1);
    world.run(SECOND);
    world.go(0, HOME, CAFE, false);
    world.run(SECOND);
    assert!(world.nodes[0].has_news(|news| matches!(news, News::MoveCommitted { flows: 1, refused: 1, .. })));
    assert_eq!((world.wire(0, &flows[0]).0, world.wire(0, &flows[1]).0), (ip(HOME), ip(CAFE)));
    assert!(!world.nodes[0].kernel.binding(&flows[0]).local.holds());
}

/// A reboot forgets everything, and so does the other end, as soon as it has to do with what is new.
#[test]
fn a_reboot_is_forgotten_on_both_ends() {
    for node in [0, 1] {
        let mut world = World::pair(9);
        let flows = world.claimed(5, HOME, SERVER);
        world.go(0, HOME, CAFE, false);
        world.run(SECOND);
        world.reboot(node);
        world.run(60 * SECOND);
        // Connections with a host that has rebooted end by RST as soon as one of their segments arrives there.
        let other = 1 - node;
        for flow in &flows {
            world.end(other, &if other == 0 { *flow } else { flow.mirrored() });
        }
        world.flows(other);
        let fresh = world.connect(0, 1, (CAFE, 50_000), (SERVER, 22));
        world.flows(0);
        world.run(60 * SECOND);
        assert_eq!(world.nodes[0].view().confirmed, 1, "{node}");
        assert_eq!(world.nodes[1].endpoint.owners.keys().copied().collect::<Vec<_>>(), [fresh.mirrored()], "{node}");
        assert!(world.nodes[other].has_news(|news| matches!(news, News::PeerRestarted { .. })), "{node}");
        // The new connection moves as if nothing had been.
        world.go(0, CAFE, TRAIN, false);
        world.run(SECOND);
        assert_eq!(world.wire(0, &fresh).0, ip(TRAIN), "{node}");
        world.end(0, &fresh);
        world.end(1, &fresh.mirrored());
        for _ in 0..120 {
            world.flows(0);
            world.flows(1);
            world.run(10 * SECOND);
        }
        assert!(world.nodes.iter().all(|node| node.endpoint.peers().count() == 0), "{node}: nothing is left");
    }
}

#[test]
fn a_snapshot_is_of_one_boot_and_one_key() {
    let (_, [mover, peer]) = past();
    assert!(restore(mobile(1), BOOT, &mover).is_ok() && restore(fixed(2), BOOT, &peer).is_ok());
    assert_eq!(restore(mobile(1), b"another", &mover).err(), Some(RestoreError::OtherBoot));
    assert_eq!(restore(mobile(3), BOOT, &mover).err(), Some(RestoreError::OtherKey));
    assert_eq!(restore(mobile(1), BOOT, b"").err(), Some(RestoreError::Damaged));
    let mut config = mobile(1);
    config.port = 0;
    assert!(matches!(restore(config, BOOT, &mover), Err(RestoreError::Config(_))));
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let (_, [_, snapshot]) = past();
    for at in 0..snapshot.len() {
        let mut damaged = snapshot.clone();
        damaged[at] ^= 1 << (at % 8);
        assert_eq!(restore(fixed(2), BOOT, &damaged).err(), Some(RestoreError::Damaged), "{at}");
    }
    for length in 0..snapshot.len() {
        assert_eq!(restore(fixed(2), BOOT, &snapshot[..length]).err(), Some(RestoreError::Damaged), "{length}");
    }
}

#[test]
fn a_snapshot_holds_no_secret() {
    let (_, [snapshot, _]) = past();
    for secret in [[1; 32], [42; 32]] {
        assert!(!snapshot.windows(32).any(|window| window == secret));
    }
}

#[test]
fn the_revision_tells_when_to_write() {
    let mut world = World::pair(7);
    let revision = |world: &World, node: usize| world.nodes[node].endpoint.revision();
    let mut last = [0, 0];
    let mut grown = |world: &World, what: &str| {
        for node in [0, 1] {
            assert!(revision(world, node) > last[node], "{what}: {node}");
            last[node] = revision(world, node);
        }
    };
    let flows = world.claimed(2, HOME, SERVER);
    grown(&world, "claims");
    world.go(0, HOME, CAFE, true);
    world.run(SECOND);
    grown(&world, "a move");
    world.end(0, &flows[0]);
    world.flows(0);
    world.run(SECOND);
    grown(&world, "a release");
    world.flows(0);
    world.flows(1);
    world.run(300 * SECOND);
    assert_eq!([0, 1].map(|node| revision(&world, node)), last, "pings are nothing to remember");
}

proptest! {
    /// Whatever follows a right checksum: refused or taken, never a panic.
    #[test]
    fn any_snapshot_is_survived(body in proptest::collection::vec(any::<u8>(), 0..300), cut in 0_usize..2000, at in 0_usize..2000) {
        let (_, snapshot) = seed();
        let mut forged = snapshot.clone();
        let at = 20 + at % (forged.len() - 20);
        for (byte, new) in forged[at..].iter_mut().zip(&body) {
            *byte = *new;
        }
        forged.truncate(20.max(forged.len() - cut % forged.len()));
        let sum = crate::store::crc32(&forged[20..]).to_be_bytes();
        forged[16..20].copy_from_slice(&sum);
        if let Ok(mut endpoint) = restore(mobile(1), BOOT, &forged) {
            let mut kernel = super::kernel::Kernel::default();
            endpoint.handle_event(crate::Instant::from_micros(5), crate::Event::Flows(Vec::new()), &mut kernel);
            endpoint.handle_timeout(crate::Instant::from_micros(u64::MAX / 2), &mut kernel);
        }
    }
}

fn seed() -> (World, Vec<u8>) {
    let mut world = World::pair(8);
    world.claimed(3, HOME, SERVER);
    let snapshot = world.nodes[0].endpoint.snapshot(BOOT);
    (world, snapshot)
}
