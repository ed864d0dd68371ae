//! Others at the same heads: a firewall that links itself in front of the module, a bridge that runs the hooks twice.

mod common;

use common::moves::{Kind, at_peer, came, connection, end_grace, moves, place, segment};
use common::packets::{Way, expected, look};
use common::{count, loaded};
use mobconn_abi::{Counter, Half, TCP, Tuple, UDP};
use mobconn_kpi::{Input, Machine, Options, Output, Rx, RxChecksum, Split, Tx, Vnet};
use std::time::Duration;

const KINDS: [(bool, u8); 4] = [(false, TCP), (true, TCP), (false, UDP), (true, UDP)];

/// A host whose flows' other halves went elsewhere.
fn moved(split: Split) -> (Machine, Vnet, Vec<(Tuple, Tuple)>) {
    let machine = loaded(Options { split, ..Options::default() });
    machine.set_uptime(Some(1000));
    let vnet = machine.vnet0();
    vnet.set_local(&[place(false, 0), place(true, 0)]);
    let flows: Vec<_> = KINDS.map(|(v6, protocol)| (at_peer(v6, protocol, 1), at_peer(v6, protocol, 2))).to_vec();
    vnet.set_connections(&flows.iter().map(|(stack, _)| connection(stack)).collect::<Vec<_>>());
    for (stack, _) in &flows {
        moves(&vnet, *stack, Half::Remote, place(stack.version == 6, 2), 1).expect("moved");
    }
    end_grace(&vnet);
    (machine, vnet, flows)
}

/// One packet of each flow each way arrives as it must; returns what the firewall has seen of them.
fn traffic(vnet: &Vnet, flows: &[(Tuple, Tuple)]) -> Vec<(bool, Vec<u8>)> {
    let _ = vnet.firewall_saw();
    for (stack, wire) in flows {
        let Output::Send(sent) = vnet.ip_output(&segment(stack, false, Kind::Data, b"out"), &Tx::new("em0")) else {
            panic!("not sent")
        };
        assert_eq!(look(&sent.packets[0]), expected(wire, Way::Sent, b"out"));
        let Input::Deliver(came) = vnet.ip_input(&segment(wire, true, Kind::Data, b"in"), &Rx::new("em0")) else {
            panic!("not delivered")
        };
        assert_eq!(look(&came.packet), expected(stack, Way::Received, b"in"));
    }
    vnet.firewall_saw()
}

/// All that the firewall saw is the stack side of the flows.
fn knows_stack_sides_only(seen: &[(bool, Vec<u8>)], flows: &[(Tuple, Tuple)]) -> bool {
    let sides: Vec<_> = flows
        .iter()
        .flat_map(|(stack, _)| [expected(stack, Way::Sent, b"out"), expected(stack, Way::Received, b"in")])
        .collect();
    assert_eq!(seen.len(), sides.len());
    seen.iter().all(|(_, packet)| sides.contains(&look(packet)))
}

#[test]
fn a_firewall_that_is_switched_on_sees_stack_sides() {
    let (machine, vnet, flows) = moved(Split::Arbitrary);
    vnet.set_firewall(true);
    // It was linked nearest the wire; the first packet tells.
    let (_, wire) = &flows[0];
    let _ = vnet.ip_input(&segment(wire, true, Kind::Data, b"in"), &Rx::new("em0"));
    assert_eq!(look(&vnet.firewall_saw()[0].1), expected(wire, Way::Received, b"in"));
    machine.quiesce();
    let seen = traffic(&vnet, &flows);
    assert!(knows_stack_sides_only(&seen, &flows));
    // Off and on again between two packets: their number says nothing.
    for _ in 0..3 {
        vnet.set_firewall(false);
        vnet.set_firewall(true);
        machine.advance(Duration::from_secs(2));
        let seen = traffic(&vnet, &flows);
        assert!(knows_stack_sides_only(&seen, &flows));
    }
    vnet.set_firewall(false);
    machine.advance(Duration::from_secs(2));
    assert_eq!(traffic(&vnet, &flows), []);
    assert_eq!(count(&vnet, Counter::DroppedStray), 0);
    common::unload(&machine);
}

#[test]
fn hooks_change_places_under_traffic() {
    let (machine, vnet, flows) = moved(Split::Whole);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = traffic(&vnet, &flows);
                }
            });
        }
        for turn in 0..60 {
            vnet.set_firewall(turn % 2 == 0);
            std::thread::sleep(Duration::from_millis(5));
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    vnet.set_firewall(false);
    assert_eq!(count(&vnet, Counter::DroppedStray) + count(&vnet, Counter::DroppedNewcomer), 0);
    machine.quiesce();
    common::unload(&machine);
    machine.check();
}

#[test]
fn what_a_bridge_has_shown_to_the_hooks_is_no_stranger() {
    for split in [Split::Whole, Split::Arbitrary] {
        let (machine, vnet, flows) = moved(split);
        for (stack, wire) in &flows {
            for checksum in [RxChecksum::Unchecked, RxChecksum::Valid, RxChecksum::Data] {
                let rx = Rx { checksum, bridged: true, ..Rx::new("em0") };
                let Input::Deliver(came) = vnet.ip_input(&segment(wire, true, Kind::Data, b"in"), &rx) else {
                    panic!("not delivered")
                };
                assert_eq!(look(&came.packet), expected(stack, Way::Received, b"in"));
                assert!(came.checksum_ok && came.ours);
            }
            // A stranger's is none the less.
            let rx = Rx { bridged: true, ..Rx::new("em0") };
            assert_eq!(vnet.ip_input(&segment(stack, true, Kind::Data, b"late"), &rx), Input::Consumed);
        }
        let _ = came(&machine, &vnet);
        assert_eq!(count(&vnet, Counter::DroppedStray), 2, "TCP's; UDP's began something");
        common::unload(&machine);
        assert_eq!(machine.mbufs(), 0);
    }
}
