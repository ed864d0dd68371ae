//! Translated packets, compared with full recomputation by an independent implementation.

mod common;

use common::packets::{Way, expected, look, packet, payload};
use common::{add, addresses, count, flow, loaded};
use mobconn_abi::{Counter, TCP, Tuple, UDP};
use mobconn_kpi::{
    Delivered, Errno, Event, Input, Machine, Options, Output, Route, Rx, RxChecksum, Sent, Split, Tx, Vnet,
};

const IFNAME: &str = "em0";
const SPLITS: [Split; 6] =
    [Split::Whole, Split::After(0), Split::After(24), Split::After(41), Split::After(60), Split::Arbitrary];

fn kinds() -> impl Iterator<Item = (bool, u8)> {
    [(false, TCP), (false, UDP), (true, TCP), (true, UDP)].into_iter()
}

fn bind(vnet: &Vnet, port: u16) -> Vec<(Tuple, Tuple)> {
    vnet.set_mtu(IFNAME, 1600);
    let flows: Vec<_> = kinds().map(|(v6, protocol)| flow(v6, protocol, port)).collect();
    for (stack, wire) in &flows {
        add(vnet, *stack, *wire).expect("FLOW_ADD");
    }
    flows
}

fn sent(output: Output) -> Sent {
    match output {
        Output::Send(sent) => sent,
        other => panic!("{other:?}"),
    }
}

fn delivered(input: Input) -> Delivered {
    match input {
        Input::Deliver(delivered) => delivered,
        other => panic!("{other:?}"),
    }
}

fn quiet(machine: &Machine) {
    assert_eq!(machine.mbufs(), 0, "an mbuf is left");
    machine.check();
}

/// Sizes around those of headers, mbufs and clusters.
const SIZES: [usize; 9] = [0, 1, 13, 100, 159, 160, 700, 1200, 1440];

#[test]
fn sent_packets_get_their_wire_side() {
    for seed in 0..24 {
        let machine = loaded(Options { seed, ..Options::default() });
        let vnet = machine.vnet0();
        let mut packets = 0;
        for (stack, wire) in bind(&vnet, 5001) {
            for split in SPLITS {
                machine.set_split(split);
                for size in SIZES {
                    for (offload, options) in [(false, false), (true, false), (false, true), (true, true)] {
                        let data = payload(size);
                        let tx = Tx { offload, ..Tx::new(IFNAME) };
                        let sent = sent(vnet.ip_output(&packet(&stack, Way::Sent, &data, options), &tx));
                        let seen = look(sent.single().expect("one packet"));
                        assert_eq!(seen, expected(&wire, Way::Sent, &data), "{split:?} {size} {offload} seed {seed}");
                        assert!(sent.destination_changed);
                        assert_eq!(sent.passes, 2, "the hook runs again after a changed destination");
                        packets += 1;
                    }
                }
            }
        }
        assert_eq!(count(&vnet, Counter::TranslatedOut), packets);
        assert_eq!(count(&vnet, Counter::Again), packets);
        quiet(&machine);
    }
}

#[test]
fn received_packets_get_their_stack_side() {
    for seed in 0..24 {
        let machine = loaded(Options { seed, ..Options::default() });
        let vnet = machine.vnet0();
        // The stack side's address is on no interface.
        vnet.set_local(&["172.16.5.17".parse().unwrap(), "2001:db8:aa::17".parse().unwrap()]);
        let mut packets = 0;
        for (stack, wire) in bind(&vnet, 5001) {
            for split in SPLITS {
                machine.set_split(split);
                for size in SIZES {
                    for checksum in [RxChecksum::Unchecked, RxChecksum::Valid, RxChecksum::Data] {
                        let data = payload(size);
                        let rx = Rx { checksum, ..Rx::new(IFNAME) };
                        let bytes = packet(&wire, Way::Received, &data, size % 2 == 0);
                        let delivered = delivered(vnet.ip_input(&bytes, &rx));
                        let seen = look(&delivered.packet);
                        let context = format!("{stack:?} {split:?} {size} {checksum:?} seed {seed}");
                        assert_eq!(seen, expected(&stack, Way::Received, &data), "{context}");
                        assert!(delivered.ours, "{context}");
                        assert!(delivered.checksum_ok, "{context}");
                        packets += 1;
                    }
                }
            }
        }
        assert_eq!(count(&vnet, Counter::TranslatedIn), packets);
        quiet(&machine);
    }
}

#[test]
fn there_and_back_is_as_before() {
    for seed in 0..20 {
        let machine = loaded(Options { seed, split: Split::Arbitrary, ..Options::default() });
        let here = machine.vnet0();
        let there = machine.vnet_create();
        for (stack, wire) in bind(&here, 5001) {
            let mirror = |t: &Tuple| Tuple {
                local: t.remote,
                remote: t.local,
                local_port: t.remote_port,
                remote_port: t.local_port,
                ..*t
            };
            add(&there, mirror(&stack), mirror(&wire)).expect("FLOW_ADD");
            for size in [0, 5, 1300] {
                let bytes = packet(&stack, Way::Sent, &payload(size), true);
                let wire_bytes = sent(here.ip_output(&bytes, &Tx::new(IFNAME))).packets.remove(0);
                assert_ne!(wire_bytes, bytes);
                let arrived = delivered(there.ip_input(&wire_bytes, &Rx::new(IFNAME)));
                assert_eq!(arrived.packet, bytes);
            }
        }
        quiet(&machine);
    }
}

#[test]
fn a_corrupt_packet_stays_corrupt() {
    let machine = loaded(Options { split: Split::Arbitrary, ..Options::default() });
    let vnet = machine.vnet0();
    for (stack, wire) in bind(&vnet, 5001) {
        for checksum in [RxChecksum::Unchecked, RxChecksum::Data] {
            let mut bytes = packet(&wire, Way::Received, &payload(200), false);
            *bytes.last_mut().unwrap() ^= 0x10;
            let delivered = delivered(vnet.ip_input(&bytes, &Rx { checksum, ..Rx::new(IFNAME) }));
            assert!(!delivered.checksum_ok, "{stack:?} {checksum:?}");
            assert!(!look(&delivered.packet).right);
        }
        let mut bytes = packet(&stack, Way::Sent, &payload(200), false);
        *bytes.last_mut().unwrap() ^= 0x10;
        assert!(!look(&sent(vnet.ip_output(&bytes, &Tx::new(IFNAME))).packets[0]).right);
    }
    quiet(&machine);
}

#[test]
fn udp_without_checksum_stays_without() {
    let machine = loaded(Options { split: Split::Arbitrary, ..Options::default() });
    let vnet = machine.vnet0();
    let (stack, wire) = flow(false, UDP, 5001);
    add(&vnet, stack, wire).expect("FLOW_ADD");
    let mut bytes = packet(&stack, Way::Sent, &payload(64), false);
    bytes[26..28].fill(0);
    let out = sent(vnet.ip_output(&bytes, &Tx::new(IFNAME))).packets.remove(0);
    assert_eq!(out[26..28], [0, 0]);
    assert_eq!(look(&out).destination, addresses(&wire).1);
    let mut bytes = packet(&wire, Way::Received, &payload(64), false);
    bytes[26..28].fill(0);
    let delivered = delivered(vnet.ip_input(&bytes, &Rx::new(IFNAME)));
    assert_eq!(delivered.packet[26..28], [0, 0]);
    assert!(delivered.checksum_ok);
}

#[test]
fn segmentation_offload_is_translated_whole() {
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    for split in [Split::Whole, Split::Arbitrary] {
        machine.set_split(split);
        for v6 in [false, true] {
            let (stack, wire) = flow(v6, TCP, 5001);
            let _ = common::delete(&vnet, stack);
            add(&vnet, stack, wire).expect("FLOW_ADD");
            let data = payload(20_000);
            let bytes = packet(&stack, Way::Sent, &data, true);
            let tx = Tx { tso: Some(1400), ..Tx::new(IFNAME) };
            let sent = sent(vnet.ip_output(&bytes, &tx));
            assert_eq!(sent.packets.len(), 15);
            let mut all = Vec::new();
            for piece in &sent.packets {
                let seen = look(piece);
                assert!(seen.right, "{split:?}");
                assert_eq!((seen.source, seen.destination), addresses(&wire));
                all.extend(seen.payload);
            }
            assert_eq!(all, data);
        }
    }
    quiet(&machine);
}

#[test]
fn other_traffic_passes_untouched() {
    let machine = loaded(Options { split: Split::Arbitrary, ..Options::default() });
    let vnet = machine.vnet0();
    let others: Vec<_> = kinds().map(|(v6, protocol)| flow(v6, protocol, 6000).0).collect();
    bind(&vnet, 5001);
    for other in others {
        let local = addresses(&other).0;
        vnet.set_local(&[local]);
        for offload in [false, true] {
            let bytes = packet(&other, Way::Sent, &payload(333), false);
            let sent = sent(vnet.ip_output(&bytes, &Tx { offload, ..Tx::new(IFNAME) }));
            assert_eq!((sent.passes, sent.destination_changed), (1, false));
            assert_eq!(look(&sent.packets[0]), expected(&other, Way::Sent, &payload(333)));
        }
        let bytes = packet(&other, Way::Received, &payload(333), false);
        let delivered = delivered(vnet.ip_input(&bytes, &Rx::new(IFNAME)));
        assert_eq!((delivered.packet, delivered.ours), (bytes.clone(), false));
        vnet.set_local(&["192.0.2.1".parse().unwrap()]);
        assert!(matches!(vnet.ip_input(&bytes, &Rx::new(IFNAME)), Input::Dropped(mobconn_kpi::DropCause::NotOurs)));
    }
    assert_eq!(count(&vnet, Counter::TranslatedOut) + count(&vnet, Counter::TranslatedIn), 0);
    quiet(&machine);
}

#[test]
fn the_new_destination_is_routed() {
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    let (stack, wire) = flow(false, TCP, 5001);
    add(&vnet, stack, wire).expect("FLOW_ADD");
    let route = |prefix: &str, length, ifname: &str| Route {
        prefix: prefix.parse().unwrap(),
        length,
        ifname: ifname.to_owned(),
    };
    let bytes = packet(&stack, Way::Sent, &payload(10), false);
    vnet.set_routes(&[route("0.0.0.0", 0, "em0"), route("192.168.77.0", 24, "wlan0")]);
    assert_eq!(sent(vnet.ip_output(&bytes, &Tx::new(IFNAME))).ifname, "wlan0");
    // The module sends it; the sender is not told what came of that.
    vnet.set_routes(&[route("10.0.0.0", 8, "em0")]);
    assert_eq!(vnet.ip_output(&bytes, &Tx::new(IFNAME)), Output::Consumed);
    assert_eq!(vnet.events(), [Event::Sent(Output::Dropped(Errno::EHOSTUNREACH))]);
    vnet.set_routes(&[route("192.168.77.0", 24, "wlan0")]);
    assert_eq!(vnet.ip_output(&bytes, &Tx::new(IFNAME)), Output::Dropped(Errno::EHOSTUNREACH));
    quiet(&machine);
}

#[test]
fn a_peer_that_is_this_host_loops_back() {
    for (v6, protocol) in kinds() {
        let machine = loaded(Options { split: Split::Arbitrary, ..Options::default() });
        let vnet = machine.vnet0();
        let (stack, wire) = flow(v6, protocol, 5001);
        add(&vnet, stack, wire).expect("FLOW_ADD");
        vnet.set_local(&[addresses(&wire).1]);
        for offload in [false, true] {
            let bytes = packet(&stack, Way::Sent, &payload(100), false);
            let Output::Loop(input) = vnet.ip_output(&bytes, &Tx { offload, ..Tx::new(IFNAME) }) else {
                panic!("not looped back")
            };
            let delivered = delivered(*input);
            assert!(delivered.checksum_ok, "{v6} {protocol} {offload}");
            assert_eq!(look(&delivered.packet).destination, addresses(&wire).1);
        }
        quiet(&machine);
    }
}

#[test]
fn forwarded_packets_are_left_alone() {
    let machine = loaded(Options { split: Split::Arbitrary, ..Options::default() });
    let vnet = machine.vnet0();
    vnet.set_forwarding(true);
    vnet.set_local(&["203.0.113.1".parse().unwrap(), "2001:db8:ffff::1".parse().unwrap()]);
    vnet.set_routes(&[
        Route { prefix: "0.0.0.0".parse().unwrap(), length: 0, ifname: "em1".to_owned() },
        Route { prefix: "::".parse().unwrap(), length: 0, ifname: "em1".to_owned() },
    ]);
    for (stack, _) in bind(&vnet, 5001) {
        // Somebody behind this host has the same tuple: it is not this host's flow.
        let bytes = packet(&stack, Way::Sent, &payload(50), false);
        let Input::Forward(sent) = vnet.ip_input(&bytes, &Rx::new(IFNAME)) else { panic!("not forwarded") };
        assert_eq!(look(&sent.packets[0]), expected(&stack, Way::Sent, &payload(50)));
        assert_eq!(sent.passes, 1);
    }
    assert_eq!(count(&vnet, Counter::TranslatedOut), 0);
    quiet(&machine);
}
