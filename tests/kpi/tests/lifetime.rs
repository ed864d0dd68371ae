//! Bindings end with their connections, nothing else, and without a daemon.

mod common;

use common::loaded;
use common::moves::{Kind, at_peer, binding, bindings, connection, moves, place, segment};
use common::{add, flow};
use mobconn_abi::{Half, TCP, Tuple, UDP};
use mobconn_kpi::{Errno, Machine, Options, Rx, Tx, Vnet};
use std::time::Duration;

fn moved(v6: bool, protocol: u8) -> (Machine, Vnet, Tuple, Tuple) {
    let machine = loaded(Options::default());
    machine.set_uptime(Some(1000));
    let vnet = machine.vnet0();
    vnet.set_local(&[place(v6, 0)]);
    let stack = at_peer(v6, protocol, 1);
    vnet.set_connections(&[connection(&stack)]);
    moves(&vnet, stack, Half::Remote, place(v6, 2), 1).expect("a move");
    (machine, vnet, stack, at_peer(v6, protocol, 2))
}

#[test]
fn a_binding_ends_with_its_connection() {
    for v6 in [false, true] {
        let (machine, vnet, stack, _) = moved(v6, TCP);
        machine.advance(Duration::from_hours(1));
        assert_eq!(bindings(&machine), 1, "idle, but there");
        for state in [6, 9, 10] {
            let mut waiting = connection(&stack);
            waiting.state = state;
            vnet.set_connections(&[waiting]);
            machine.advance(Duration::from_secs(300));
            assert_eq!(bindings(&machine), 1, "state {state}");
        }
        vnet.set_connections(&[]);
        machine.advance(Duration::from_secs(5));
        assert_eq!((bindings(&machine), binding(&vnet, stack)), (0, Err(Errno::ENOENT)));
        // Nobody looks after an empty table.
        let before = vnet.lookups();
        machine.advance(Duration::from_hours(1));
        assert_eq!(vnet.lookups(), before);
    }
}

#[test]
fn packets_end_nothing() {
    for v6 in [false, true] {
        let (machine, vnet, stack, wire) = moved(v6, TCP);
        for kind in [Kind::Rst, Kind::Fin, Kind::Syn] {
            for packet in [segment(&wire, true, kind, b""), segment(&stack, true, kind, b"")] {
                let _ = vnet.ip_input(&packet, &Rx::new("em0"));
            }
            let _ = vnet.ip_output(&segment(&stack, false, kind, b""), &Tx::new("em0"));
        }
        machine.advance(Duration::from_secs(60));
        let record = binding(&vnet, stack).expect("it stays");
        assert_eq!(record.wire, wire);
    }
}

#[test]
fn udp_ends_when_it_is_not_used_and_its_socket_is_gone() {
    for v6 in [false, true] {
        let (machine, vnet, stack, wire) = moved(v6, UDP);
        machine.sysctl_set("net.inet.mobconn.udp_idle", "200").expect("udp_idle");
        machine.advance(Duration::from_hours(1));
        assert_eq!(bindings(&machine), 1, "idle, but there");
        let _ = vnet.ip_output(&segment(&stack, false, Kind::Data, b"out"), &Tx::new("em0"));
        vnet.set_connections(&[]);
        for round in 0..10 {
            machine.advance(Duration::from_secs(150));
            if round % 2 == 0 {
                let _ = vnet.ip_input(&segment(&wire, true, Kind::Data, b"in"), &Rx::new("em0"));
            } else {
                let _ = vnet.ip_output(&segment(&stack, false, Kind::Data, b"out"), &Tx::new("em0"));
            }
        }
        machine.advance(Duration::from_secs(195));
        assert_eq!(bindings(&machine), 1);
        machine.advance(Duration::from_secs(15));
        assert_eq!(bindings(&machine), 0);
    }
}

#[test]
fn a_binding_made_by_hand_stays() {
    let machine = loaded(Options::default());
    machine.set_uptime(Some(1000));
    let vnet = machine.vnet0();
    let (stack, wire) = flow(false, TCP, 1000);
    add(&vnet, stack, wire).expect("FLOW_ADD");
    machine.advance(Duration::from_hours(1));
    assert_eq!(bindings(&machine), 1);
}

#[test]
fn many_bindings_are_looked_at_in_turn() {
    let machine = loaded(Options::default());
    machine.set_uptime(Some(1000));
    let vnet = machine.vnet0();
    let flows: Vec<Tuple> = (1..=3000).map(|port| Tuple { remote_port: port, ..at_peer(false, TCP, 1) }).collect();
    let mut connections: Vec<_> = flows.iter().map(connection).collect();
    vnet.set_connections(&connections);
    for flow in &flows {
        moves(&vnet, *flow, Half::Remote, place(false, 2), 1).expect("a move");
    }
    connections.retain(|connection| connection.remote.port() % 3 == 0);
    vnet.set_connections(&connections);
    machine.advance(Duration::from_secs(60));
    assert_eq!(bindings(&machine), connections.len() as u64);
    // Stacks that go take theirs with them, whatever the sweep is about to do.
    let jail = machine.vnet_create();
    jail.set_connections(&[connection(&flows[0])]);
    moves(&jail, flows[0], Half::Remote, place(false, 2), 1).expect("a move");
    jail.destroy();
    machine.advance(Duration::from_secs(60));
    assert_eq!(bindings(&machine), connections.len() as u64);
}

#[test]
fn a_stack_that_ends_in_a_task_waits_for_none() {
    let machine = loaded(Options::default());
    machine.set_uptime(Some(1000));
    let jail = machine.vnet_create();
    jail.set_connections(&[connection(&at_peer(false, TCP, 1))]);
    moves(&jail, at_peer(false, TCP, 1), Half::Remote, place(false, 2), 1).expect("a move");
    // The sweep falls due, and waits for the thread that ends its stack.
    jail.destroy_in_task();
    machine.advance(Duration::from_secs(60));
    assert_eq!(bindings(&machine), 0);
}
