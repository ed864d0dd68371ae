//! Packets leave by the network of their source.

mod common;

use common::moves::{Step, came, commit, connection, prepare};
use common::packets::{Way, expected, look, packet, payload};
use common::{RW, add, addresses, count, ioctl, loaded, tuple};
use mobconn_abi::{Counter, EGRESS_GET, EGRESS_SET, Egress, EgressPrefix, EgressRule, Half, TCP, Tuple, UDP};
use mobconn_kpi::{Errno, Failures, Machine, Options, Output, Route, Sent, Split, Tx, Vnet};
use zerocopy::IntoBytes;

/// Of both networks: interface, its index, this host's address, the router, IPv4 and IPv6.
const NETWORKS: [[(&str, u16, &str, &str); 2]; 2] = [
    [("em0", 11, "192.0.2.10", "192.0.2.1"), ("em0", 11, "2001:db8:a::10", "2001:db8:a::1")],
    [("em1", 12, "198.51.100.10", "198.51.100.1"), ("em1", 12, "2001:db8:b::10", "fe80::1")],
];
/// The daemon's port.
const PORT: u16 = 9434;

fn octets(address: &str) -> [u8; 16] {
    tuple(address, 1, address, 1, TCP).local
}

fn prefix(address: &str, length: u8, on_link: bool) -> EgressPrefix {
    let version = if address.contains(':') { 6 } else { 4 };
    EgressPrefix { address: octets(address), length, version, on_link: on_link.into(), reserved: [0; 5] }
}

/// Both networks; peers are in 203.0.113.0/24 and 2001:db8:c::/48, on the first link are 192.0.2.0/24 and its twin.
fn rules() -> Egress {
    let mut egress = Egress { port: PORT, ..Egress::default() };
    for (rule, (_, index, source, gateway)) in egress.rules.iter_mut().zip(NETWORKS.into_iter().flatten()) {
        *rule = EgressRule {
            source: octets(source),
            gateway: octets(gateway),
            interface: index.into(),
            version: if source.contains(':') { 6 } else { 4 },
            reserved: [0; 3],
        };
        egress.rule_count += 1;
    }
    let prefixes = [
        prefix("203.0.113.0", 24, false),
        prefix("2001:db8:c::", 48, false),
        prefix("192.0.2.0", 24, true),
        prefix("2001:db8:a::", 64, true),
    ];
    for (to, from) in egress.prefixes.iter_mut().zip(prefixes) {
        *to = from;
        egress.prefix_count += 1;
    }
    egress
}

fn set(vnet: &Vnet, egress: &Egress) -> Result<(), Errno> {
    ioctl(vnet, EGRESS_SET, &mut egress.clone(), &mut [])
}

fn get(vnet: &Vnet) -> Egress {
    let mut egress = Egress::default();
    ioctl(vnet, EGRESS_GET, &mut egress, &mut []).expect("EGRESS_GET");
    egress
}

/// A machine whose default routes lead to the first network, with a route to 10.9.0.0/16 through a tunnel.
fn world(options: Options) -> (Machine, Vnet) {
    let machine = loaded(options);
    let vnet = machine.vnet0();
    let route = |prefix: &str, length, ifname: &str| Route {
        prefix: prefix.parse().expect("an address"),
        length,
        ifname: ifname.to_owned(),
    };
    vnet.set_routes(&[
        route("0.0.0.0", 0, "em0"),
        route("::", 0, "em0"),
        route("198.51.100.0", 24, "em1"),
        route("2001:db8:b::", 64, "em1"),
        route("10.9.0.0", 16, "tun0"),
    ]);
    for (ifname, index, ..) in NETWORKS.map(|network| network[0]) {
        vnet.set_index(ifname, index);
        vnet.set_mtu(ifname, 1600);
    }
    vnet.set_local(&NETWORKS.map(|network| network.map(|(_, _, address, _)| address.parse().expect("one"))).concat());
    (machine, vnet)
}

fn sent(output: Output) -> Sent {
    match output {
        Output::Send(sent) => sent,
        other => panic!("{other:?}"),
    }
}

/// A side between this host's address in a network and a peer.
fn side(network: usize, v6: bool, remote: &str, port: u16, protocol: u8) -> Tuple {
    tuple(NETWORKS[network][usize::from(v6)].2, port, remote, 80, protocol)
}

const PEERS: [&str; 2] = ["203.0.113.5", "2001:db8:c::5"];

fn kinds() -> impl Iterator<Item = (bool, u8)> {
    [(false, TCP), (false, UDP), (true, TCP), (true, UDP)].into_iter()
}

#[test]
fn flows_to_peers_leave_by_the_network_of_their_source() {
    for seed in 0..8 {
        let (machine, vnet) = world(Options { seed, split: Split::Arbitrary, ..Options::default() });
        set(&vnet, &rules()).expect("EGRESS_SET");
        let mut steered = 0;
        for (v6, protocol) in kinds() {
            let peer = PEERS[usize::from(v6)];
            for (network, ifname) in [(0, "em0"), (1, "em1")] {
                for size in [0, 5, 700, 1400] {
                    let side = side(network, v6, peer, 5000, protocol);
                    let data = payload(size);
                    let tx = Tx { offload: size % 2 == 0, ..Tx::new("em0") };
                    let sent = sent(vnet.ip_output(&packet(&side, Way::Sent, &data, false), &tx));
                    assert_eq!(sent.ifname, ifname, "{side:?}");
                    assert_eq!(sent.forced, network == 1);
                    assert_eq!(look(sent.single().expect("one")), expected(&side, Way::Sent, &data));
                    steered += u64::from(network == 1);
                }
            }
        }
        assert_eq!(count(&vnet, Counter::Steered), steered);
        assert_eq!(count(&vnet, Counter::TranslatedOut), 0);
        assert_eq!(machine.mbufs(), 0, "an mbuf is left");
        machine.check();
    }
}

#[test]
fn nothing_else_is_touched() {
    let (machine, vnet) = world(Options::default());
    let way = |side: Tuple| {
        let sent = sent(vnet.ip_output(&packet(&side, Way::Sent, &payload(9), false), &Tx::new("em0")));
        (sent.ifname, sent.forced, sent.passes)
    };
    let em0 = ("em0".to_owned(), false, 1);
    // Without rules not even this is.
    assert_eq!(way(side(1, false, PEERS[0], 5000, TCP)), em0);
    set(&vnet, &rules()).expect("EGRESS_SET");
    // A stranger.
    assert_eq!(way(side(1, false, "8.8.8.8", 5000, TCP)), em0);
    assert_eq!(way(side(1, true, "2001:db8:d::5", 5000, UDP)), em0);
    // A source of no rule.
    assert_eq!(way(tuple("198.51.100.11", 5000, PEERS[0], 80, TCP)), em0);
    // On the link that it is routed to.
    assert_eq!(way(side(1, false, "192.0.2.77", PORT, UDP)), em0);
    // A tunnel.
    assert_eq!(way(side(1, false, "10.9.0.1", PORT, UDP)), ("tun0".to_owned(), false, 1));
    // The right network by itself.
    assert_eq!(way(side(1, false, "198.51.100.77", PORT, UDP)), ("em1".to_owned(), false, 1));
    assert_eq!(count(&vnet, Counter::Steered), 0);
    // The daemon's datagrams, to whomever; of TCP the port means nothing.
    for (v6, remote) in [(false, "8.8.8.8"), (true, "2001:db8:d::5")] {
        assert_eq!(way(side(1, v6, remote, PORT, UDP)).0, "em1");
        assert_eq!(way(side(0, v6, remote, PORT, UDP)), em0);
        assert_eq!(way(side(1, v6, remote, PORT, TCP)), em0);
    }
    assert_eq!(count(&vnet, Counter::Steered), 2);
    // Withdrawn.
    set(&vnet, &Egress { port: PORT, ..Egress::default() }).expect("EGRESS_SET");
    assert_eq!(way(side(1, false, PEERS[0], 5000, TCP)), em0);
    assert_eq!(get(&vnet), Egress::default());
    machine.check();
}

#[test]
fn bound_flows_leave_by_the_network_of_their_wire_side() {
    for seed in 0..8 {
        let (machine, vnet) = world(Options { seed, split: Split::Arbitrary, ..Options::default() });
        set(&vnet, &rules()).expect("EGRESS_SET");
        // Moved here, then the peer too; and one that is to a host outside the prefixes.
        for (v6, protocol) in kinds() {
            let there = if v6 { "2001:db8:d::9" } else { "8.8.8.8" };
            for (port, remote, wire_remote) in [
                (1, PEERS[usize::from(v6)], PEERS[usize::from(v6)]),
                (2, PEERS[usize::from(v6)], there),
                (3, there, there),
            ] {
                let stack = side(0, v6, remote, port, protocol);
                let wire = side(1, v6, wire_remote, port, protocol);
                add(&vnet, stack, wire).expect("FLOW_ADD");
                let data = payload(300);
                let sent = sent(vnet.ip_output(&packet(&stack, Way::Sent, &data, false), &Tx::new("em0")));
                assert_eq!((sent.ifname.as_str(), sent.forced), ("em1", true), "{stack:?}");
                assert_eq!(look(sent.single().expect("one")), expected(&wire, Way::Sent, &data));
            }
        }
        assert_eq!(count(&vnet, Counter::Steered), 12);
        assert_eq!(count(&vnet, Counter::TranslatedOut), 12);
        assert_eq!(count(&vnet, Counter::Again), 4, "those with another destination");
        assert_eq!(machine.mbufs(), 0, "an mbuf is left");
        machine.check();
    }
}

#[test]
fn what_was_kept_leaves_by_the_new_network() {
    let (machine, vnet) = world(Options::default());
    set(&vnet, &rules()).expect("EGRESS_SET");
    let stack = side(0, false, PEERS[0], 5000, TCP);
    vnet.set_connections(&[connection(&stack)]);
    let to = addresses(&side(1, false, PEERS[0], 1, TCP)).0;
    prepare(&vnet, stack, Step { half: Half::Local, to, generation: 1, hold: true, take: false }).expect("prepared");
    let data = payload(40);
    assert_eq!(vnet.ip_output(&packet(&stack, Way::Sent, &data, false), &Tx::new("em0")), Output::Consumed);
    commit(&vnet, stack, Half::Local, 1).expect("committed");
    let (_, out) = came(&machine, &vnet);
    assert_eq!(out.len(), 1);
    assert_eq!(look(&out[0]).source, to);
    assert_eq!(count(&vnet, Counter::Steered), 1);
    machine.check();
}

#[test]
fn no_memory_for_the_tag_is_a_counted_drop() {
    let (machine, vnet) = world(Options::default());
    set(&vnet, &rules()).expect("EGRESS_SET");
    let bytes = packet(&side(1, false, PEERS[0], 5000, TCP), Way::Sent, &payload(20), false);
    machine.set_failures(Failures::All);
    assert_eq!(vnet.ip_output(&bytes, &Tx::new("em0")), Output::Consumed);
    assert_eq!(set(&vnet, &rules()), Err(Errno::ENOMEM));
    machine.set_failures(Failures::None);
    assert_eq!((count(&vnet, Counter::DroppedMemory), count(&vnet, Counter::Steered)), (1, 0));
    assert_eq!(get(&vnet), rules(), "as before");
    assert_eq!(machine.mbufs(), 0, "an mbuf is left");
    machine.check();
}

#[test]
fn what_cannot_be_is_refused() {
    let (machine, vnet) = world(Options::default());
    assert_eq!(get(&vnet), Egress::default());
    let good = rules();
    set(&vnet, &good).expect("EGRESS_SET");
    type Change = fn(&mut Egress);
    let cases: [(Change, Errno); 18] = [
        (|e| e.rule_count = 17, Errno::E2BIG),
        (|e| e.prefix_count = 65, Errno::E2BIG),
        (|e| e.rule_count = 3, Errno::EINVAL),
        (|e| e.prefix_count = 3, Errno::EINVAL),
        (|e| e.reserved[5] = 1, Errno::EINVAL),
        (|e| e.rules[0].reserved[0] = 1, Errno::EINVAL),
        (|e| e.rules[0].version = 5, Errno::EINVAL),
        (|e| e.rules[0].source = [0; 16], Errno::EINVAL),
        (|e| e.rules[0].source[4] = 1, Errno::EINVAL),
        (|e| e.rules[0].gateway[0] = 224, Errno::EINVAL),
        (|e| e.rules[0].gateway = e.rules[0].source, Errno::EINVAL),
        (|e| e.rules[0].interface = 0, Errno::EINVAL),
        (|e| e.rules[0].interface = 0x1_0000, Errno::EINVAL),
        (|e| e.rules[1] = e.rules[0], Errno::EINVAL),
        (|e| e.rules[3].gateway[3] = 1, Errno::EINVAL),
        (|e| e.prefixes[0].length = 33, Errno::EINVAL),
        (|e| e.prefixes[0].address[3] = 1, Errno::EINVAL),
        (|e| e.prefixes[0].on_link = 2, Errno::EINVAL),
    ];
    for (number, (change, errno)) in cases.into_iter().enumerate() {
        let mut bad = good;
        change(&mut bad);
        assert_eq!(set(&vnet, &bad), Err(errno), "case {number}");
        assert_eq!(get(&vnet), good, "case {number}");
    }
    // A descriptor for reading reads, and changes nothing.
    let mut bytes = good.as_bytes().to_vec();
    assert_eq!(vnet.ioctl(1, EGRESS_SET, &mut bytes, &mut []), Err(Errno::EACCES));
    assert_eq!(vnet.ioctl(1, EGRESS_GET, &mut bytes, &mut []), Ok(()));
    assert_eq!(vnet.ioctl(RW, EGRESS_GET, &mut bytes, &mut []), Ok(()));
    // Each network stack has its own.
    let jail = machine.vnet_create();
    assert_eq!(get(&jail), Egress::default());
    jail.destroy();
    machine.check();
}

#[test]
fn rules_are_replaced_under_traffic() {
    let (machine, vnet) = world(Options::default());
    let bytes = packet(&side(1, true, PEERS[1], 5000, UDP), Way::Sent, &payload(20), false);
    std::thread::scope(|scope| {
        let senders: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let sent = sent(vnet.ip_output(&bytes, &Tx::new("em0")));
                        assert_eq!(sent.forced, sent.ifname == "em1");
                    }
                })
            })
            .collect();
        let mut turn = 0_u32;
        while senders.iter().any(|sender| !sender.is_finished()) {
            let egress = if turn.is_multiple_of(3) { Egress::default() } else { rules() };
            set(&vnet, &egress).expect("EGRESS_SET");
            turn += 1;
        }
    });
    assert_eq!(machine.mbufs(), 0, "an mbuf is left");
    machine.check();
}
