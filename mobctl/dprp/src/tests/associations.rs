//! Making associations and losing them.

use super::world::*;
use crate::wire::HELLO_LENGTH;
use crate::{ClaimStatus, Config, GroupKey, News};

#[test]
fn an_association_takes_three_datagrams_and_an_answer() {
    let mut world = World::pair(1);
    world.connect(0, 1, (HOME, 40_000), (SERVER, 22));
    world.flows(0);
    world.run(35 * MS);
    assert!(world.nodes[1].has_news(|news| matches!(news, News::AssociationUp { started: false, .. })));
    assert!(!world.nodes[0].has_news(|news| matches!(news, News::AssociationUp { .. })));
    world.run(10 * MS);
    let near = world.nodes[0].view();
    let far = world.nodes[1].view();
    assert_eq!((near.key, far.key), (host_key(2).public(), host_key(1).public()));
    assert_eq!((near.name.as_str(), far.name.as_str()), ("host2.example.org", "host1.example.org"));
    assert_eq!((near.address.ip(), far.address.ip()), (ip(SERVER), ip(HOME)));
    assert_eq!(near.round_trip, Some(20 * MS));
    assert_eq!(world.sent[0].data.len(), HELLO_LENGTH);
    assert!(world.sent[1].data.len() <= HELLO_LENGTH);
}

#[test]
fn a_host_without_mobconn_is_hardly_bothered() {
    let mut world = World::new(2);
    world.add(mobile(1), &[HOME]);
    world.add(fixed(2), &[]);
    for port in 0..50 {
        world.connect(0, 1, (HOME, 40_000 + port), (SERVER, 80));
    }
    for _ in 0..50 {
        world.flows(0);
        world.run(SECOND);
    }
    assert_eq!(world.sent.len(), 5);
    assert!(
        world.nodes[0].has_news(|news| matches!(news, News::NoAnswer { address, .. } if address.ip() == ip(SERVER)))
    );
    world.run(100 * 60 * SECOND);
    let sent = world.sent.len();
    assert!((6..=40).contains(&sent), "{sent} datagrams in 100 minutes");

    world.nodes[1].up.insert(ip(SERVER));
    world.run(90 * 60 * SECOND);
    assert_eq!(world.nodes[0].view().confirmed, 50, "tried again when mobconn is there");
}

#[test]
fn a_host_that_is_not_mobile_says_nothing_first() {
    let mut world = World::new(3);
    world.add(fixed(1), &[HOME]);
    world.add(fixed(2), &[SERVER]);
    world.connect(0, 1, (HOME, 40_000), (SERVER, 22));
    world.flows(0);
    world.run(60 * SECOND);
    assert_eq!(world.sent, []);
}

#[test]
fn only_targets_are_asked() {
    let mut world = World::new(4);
    let mut config = mobile(1);
    config.targets = vec!["198.51.100.0/24".parse().expect("a prefix")];
    world.add(config, &[HOME]);
    world.add(fixed(2), &[SERVER, SERVER_TOO]);
    world.connect(0, 1, (HOME, 40_000), (SERVER, 22));
    world.flows(0);
    world.run(SECOND);
    assert_eq!(world.sent, []);
    world.connect(0, 1, (HOME, 40_001), (SERVER_TOO, 22));
    world.flows(0);
    world.run(SECOND);
    assert_eq!(world.nodes[0].view().confirmed, 1);
}

/// Targets change: whoever waits for an association with what is none any more waits no longer, and what is claimed stays.
#[test]
fn targets_come_and_go() {
    let prefix = |text: &str| vec![text.parse().expect("a prefix")];
    let mut world = World::new(4);
    world.add(Config { targets: Vec::new(), ..mobile(1) }, &[HOME]);
    world.add(fixed(2), &[SERVER, SERVER_TOO]);
    let flow = world.connect(0, 1, (HOME, 40_000), (SERVER, 22));
    let nobody = world.connect(0, 1, (HOME, 40_001), ("192.0.2.99", 22));
    world.flows(0);
    world.run(SECOND);
    assert_eq!(world.sent, []);
    world.nodes[0].endpoint.aim(prefix("192.0.2.0/24"));
    world.flows(0);
    world.run(SECOND);
    assert_eq!(world.nodes[0].view().confirmed, 1);
    assert!(world.nodes[0].endpoint.mine.contains_key(&nobody));
    // Its host is asked a few times, and again after a while.
    world.run(30 * SECOND);
    world.nodes[0].endpoint.aim(prefix("198.51.100.0/24"));
    world.flows(0);
    let sent = world.sent.len();
    world.run(3600 * SECOND);
    assert!(world.nodes[0].endpoint.mine.keys().eq([&flow]));
    assert!(world.sent[sent..].iter().all(|datagram| datagram.to.ip() != ip("192.0.2.99")));
    assert_eq!(world.nodes[0].view().confirmed, 1);
}

#[test]
fn another_group_meets_silence() {
    let mut world = World::new(5);
    world.add(mobile(1), &[HOME]);
    let mut config = fixed(2);
    config.group_keys = vec![GroupKey::from_bytes(&[43; 32])];
    world.add(config, &[SERVER]);
    world.connect(0, 1, (HOME, 40_000), (SERVER, 22));
    world.flows(0);
    let before = world.nodes[1].state();
    world.run(60 * SECOND);
    assert!(world.sent.iter().all(|datagram| datagram.from.ip() == ip(HOME)), "no answer");
    assert_eq!(world.nodes[1].state(), before);
    assert_eq!(world.nodes[1].endpoint.counters().forged, 5);
}

#[test]
fn any_of_the_group_keys_is_answered() {
    let mut world = World::new(6);
    world.add(mobile(1), &[HOME]);
    let mut config = fixed(2);
    config.group_keys.insert(0, GroupKey::from_bytes(&[43; 32]));
    world.add(config, &[SERVER]);
    world.connect(0, 1, (HOME, 40_000), (SERVER, 22));
    world.flows(0);
    world.run(SECOND);
    assert_eq!(world.nodes[0].view().confirmed, 1);
}

#[test]
fn pinned_keys_are_demanded_at_both_ends() {
    for (near, far, up) in [(2, 1, true), (3, 1, false), (2, 3, false)] {
        let mut world = World::new(7);
        let mut config = mobile(1);
        config.pinned = vec![host_key(near).public()];
        world.add(config, &[HOME]);
        let mut config = fixed(2);
        config.pinned = vec![host_key(far).public()];
        world.add(config, &[SERVER]);
        world.connect(0, 1, (HOME, 40_000), (SERVER, 22));
        world.flows(0);
        world.run(30 * SECOND);
        for node in &world.nodes {
            assert_eq!(node.endpoint.peers().count(), usize::from(up), "{near} {far}");
        }
        let wrong = world.nodes.iter().any(|node| node.has_news(|news| matches!(news, News::WrongKey { .. })));
        assert_eq!(wrong, !up);
    }
}

#[test]
fn a_host_does_not_associate_with_itself() {
    let mut world = World::new(8);
    world.add(mobile(1), &[HOME]);
    world.add(fixed(1), &[SERVER]);
    world.connect(0, 1, (HOME, 40_000), (SERVER, 22));
    world.flows(0);
    world.run(10 * SECOND);
    assert_eq!(world.nodes[0].endpoint.peers().count() + world.nodes[1].endpoint.peers().count(), 0);
    assert!(world.nodes[0].endpoint.counters().unwelcome > 0);
}

#[test]
fn crossing_handshakes_end_with_the_same_keys() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        world.link.jitter = 30 * MS;
        world.add(mobile(1), &[HOME]);
        world.add(mobile(2), &[SERVER]);
        world.connect(0, 1, (HOME, 40_000), (SERVER, 22));
        world.flows(0);
        world.run(5 * MS);
        world.flows(1);
        world.run(5 * SECOND);
        let current = |node: usize| {
            let peer = world.nodes[node].endpoint.peers.all.values().next().expect("a peer");
            (peer.channels[0].local_index, peer.channels[0].remote_index)
        };
        let ((near, far), (other_far, other_near)) = (current(0), current(1));
        assert_eq!((near, far), (other_near, other_far), "seed {seed}");
        for node in &world.nodes {
            let view = node.view();
            assert_eq!((view.confirmed, view.claims), (1, 1), "seed {seed}: both claim the flow, each its half");
        }
        world.run(600 * SECOND);
        for node in &world.nodes {
            let peer = node.endpoint.peers.all.values().next().expect("a peer");
            assert_eq!(peer.channels.len(), 1, "the other keys are dropped");
        }
    }
}

#[test]
fn handshakes_survive_a_bad_network() {
    for seed in 0..60 {
        let mut world = World::pair(seed);
        world.link = Link { delay: 10 * MS, jitter: 40 * MS, loss: 30, duplicate: 30, corrupt: 10 };
        world.connect(0, 1, (HOME, 40_000), (SERVER, 22));
        world.flows(0);
        // Five tries in a row may fail; the next ones come after a minute.
        world.run_until(400 * SECOND, |world| world.nodes[0].endpoint.peers().any(|peer| peer.confirmed == 1));
        assert_eq!(world.nodes[1].view().claims, 1);
    }
}

/// A corrupt Finish makes snow forget where it was; the genuine one must be understood all the same.
#[test]
fn a_corrupt_finish_does_not_spoil_the_handshake() {
    let mut world = World::pair(9);
    let mut first = true;
    world.meddle = Some(Box::new(move |datagram| {
        if datagram.data[0] == 3 && std::mem::take(&mut first) {
            *datagram.data.last_mut().expect("not empty") ^= 1;
        }
        true
    }));
    world.connect(0, 1, (HOME, 40_000), (SERVER, 22));
    world.flows(0);
    world.run(SECOND);
    assert_eq!(world.nodes[0].view().confirmed, 1);
    let hellos = world.sent.iter().filter(|datagram| datagram.data[0] == 1).count();
    assert_eq!(hellos, 1, "the same handshake");
}

#[test]
fn half_open_handshakes_are_bounded_and_end() {
    let mut world = World::new(10);
    let mut config = fixed(2);
    config.limits.half_open = 8;
    world.add(config, &[SERVER]);
    for number in 1..=20 {
        // Members of the group that never finish.
        let node = world.add(mobile(number + 10), &[&format!("198.51.100.{number}")]);
        world.connect(node, 0, (&format!("198.51.100.{number}"), 40_000), (SERVER, 22));
        world.flows(node);
    }
    world.meddle = Some(Box::new(|datagram| datagram.data[0] != 2));
    world.run(15 * MS);
    let open = |world: &World| world.nodes[0].endpoint.handshakes.half_open_count();
    assert_eq!(open(&world), 4);
    assert_eq!(world.nodes[0].endpoint.counters().limited, 16);
    world.run(60 * SECOND);
    assert_eq!(open(&world), 0);
    assert_eq!(world.nodes[0].endpoint.peers().count(), 0);
}

/// More hosts at once than there is room for half-open handshakes: those that had to be forgotten begin anew.
#[test]
fn a_crowd_is_served_in_the_end() {
    let mut world = World::new(14);
    let mut config = fixed(2);
    config.limits.half_open = 8;
    world.add(config, &[SERVER]);
    for number in 1..=40 {
        let address = format!("198.51.100.{number}");
        let node = world.add(mobile(number + 10), &[&address]);
        world.connect(node, 0, (&address, 40_000), (SERVER, 22));
        world.flows(node);
    }
    world.run(20 * SECOND);
    assert_eq!(world.nodes[0].endpoint.owners.len(), 40);
}

#[test]
fn an_idle_association_ends() {
    let mut world = World::pair(11);
    let flow = world.claimed(1, HOME, SERVER)[0];
    world.run(3600 * SECOND);
    assert_eq!(world.nodes[0].view().confirmed, 1, "kept while there is a claim");
    world.end(0, &flow);
    world.end(1, &flow.mirrored());
    world.flows(0);
    world.flows(1);
    world.run(3600 * SECOND);
    for node in &world.nodes {
        assert_eq!(node.endpoint.peers().count(), 0);
        assert!(node.has_news(|news| matches!(news, News::AssociationDown { .. })));
        assert!(node.endpoint.poll_timeout().is_none(), "nothing is left to do");
    }
}

#[test]
fn address_translation_is_noticed_and_nothing_is_claimed_through_it() {
    let mut world = World::new(12);
    let (inside, outside) = (HOME, TRAIN);
    world.add(mobile(1), &[inside, outside]);
    world.add(fixed(2), &[SERVER]);
    world.meddle = Some(translator(inside, outside));
    // The connection as each end sees it.
    let near = world.connect(0, 1, (inside, 40_000), (SERVER, 22));
    let far = crate::Flow { local: near.remote, remote: (ip(outside), 40_000).into(), ..near };
    world.nodes[1].kernel.connections.clear();
    world.nodes[1].kernel.connections.insert(far, 7);
    world.flows(0);
    world.run(30 * SECOND);
    for node in &world.nodes {
        let translated = |news: &News| {
            matches!(news, News::Translated { sent_from, seen_as, .. }
                if *sent_from == ip(inside) && *seen_as == ip(outside))
        };
        let first = |wanted: &dyn Fn(&News) -> bool| node.news.iter().position(|(_, news)| wanted(news));
        let (up, told) = (first(&|news| matches!(news, News::AssociationUp { .. })), first(&translated));
        assert!(up.is_some() && up < told, "it is what is said last: {:?}", node.news);
    }
    let hidden = |news: &News| matches!(news, News::ClaimRefused { reason: ClaimStatus::WrongAddress, .. });
    assert!(world.nodes[0].has_news(hidden), "{:?}", world.nodes[0].news);
    assert_eq!((world.nodes[0].view().confirmed, world.nodes[1].view().claims), (0, 0));
}

#[test]
fn the_table_of_associations_is_bounded() {
    let mut world = World::new(13);
    let mut config = fixed(2);
    config.limits.peers = 3;
    world.add(config, &[SERVER]);
    for number in 1..=5 {
        let address = format!("198.51.100.{number}");
        let node = world.add(mobile(number + 10), &[&address]);
        world.connect(node, 0, (&address, 40_000), (SERVER, 22));
        world.flows(node);
        world.run(SECOND);
    }
    assert_eq!(world.nodes[0].endpoint.peers().count(), 3);
    let confirmed: usize =
        world.nodes[1..].iter().flat_map(|node| node.endpoint.peers()).map(|peer| peer.confirmed).sum();
    assert_eq!(confirmed, 3, "those who came first keep what they have");
}
