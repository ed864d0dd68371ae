//! Strangers: connections whose addresses and ports a moved flow has, or had. Both live on, and no byte crosses over.

mod common;

use common::moves::{
    Kind, Step, at_mover, at_peer, binding, bindings, came, connection, end_grace, ends, moves, place, prepare, segment,
};
use common::packets::{Seen, look};
use common::{count, loaded};
use mobconn_abi::{Counter, DISPLACED, Half, LOST, TCP, Tuple, UDP};
use mobconn_kpi::{Connection, Connections, Input, Machine, Options, Output, Query, Rx, Split, Timer, Tx, Vnet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const EADDRINUSE: u32 = 48;
const KINDS: [(bool, u8); 4] = [(false, TCP), (true, TCP), (false, UDP), (true, UDP)];

/// A correspondent node whose peer has moved from place 1 to place 2; grace is over.
fn peer(v6: bool, protocol: u8) -> (Machine, Vnet, Tuple) {
    let machine = loaded(Options { split: Split::Arbitrary, ..Options::default() });
    machine.set_uptime(Some(1000));
    let vnet = machine.vnet0();
    vnet.set_local(&[place(v6, 0)]);
    let stack = at_peer(v6, protocol, 1);
    vnet.set_connections(&[connection(&stack)]);
    moves(&vnet, stack, Half::Remote, place(v6, 2), 1).expect("a move");
    assert_eq!(end_grace(&vnet).ended, 1);
    (machine, vnet, stack)
}

/// What is handed up, at once or after a detour.
fn up(machine: &Machine, vnet: &Vnet, packet: &[u8]) -> Option<Seen> {
    match vnet.ip_input(packet, &Rx::new("em0")) {
        Input::Deliver(delivered) => {
            assert!(delivered.checksum_ok);
            Some(look(&delivered.packet))
        }
        Input::Consumed => {
            let (mut up, out) = came(machine, vnet);
            assert!(up.len() <= 1 && out.is_empty());
            up.pop().map(|delivered| look(&delivered.packet))
        }
        other => panic!("{other:?}"),
    }
}

/// What leaves, at once or after a detour.
fn down(machine: &Machine, vnet: &Vnet, packet: &[u8]) -> Option<Seen> {
    match vnet.ip_output(packet, &Tx::new("em0").offload()) {
        Output::Send(sent) => Some(look(sent.single().expect("one packet"))),
        Output::Consumed => {
            let (up, mut out) = came(machine, vnet);
            assert!(out.len() <= 1 && up.is_empty());
            out.pop().map(|packet| look(&packet))
        }
        other => panic!("{other:?}"),
    }
}

/// The stranger's tuple towards the stack, once its first packet has been handed up.
fn begin(machine: &Machine, vnet: &Vnet, stack: &Tuple) -> Tuple {
    let seen = up(machine, vnet, &segment(stack, true, Kind::Syn, b"")).expect("the stranger is heard");
    let (local, remote) = ends(stack);
    assert_eq!((seen.source, seen.destination, seen.destination_port), (remote.ip(), local.ip(), local.port()));
    assert!(seen.right && seen.source_port != remote.port(), "{seen:?}");
    Tuple { remote_port: seen.source_port, ..*stack }
}

/// Both connections talk, both ways.
fn both_talk(machine: &Machine, vnet: &Vnet, stack: &Tuple, wire: &Tuple, stranger: &Tuple) {
    let is = |seen: Option<Seen>, tuple: &Tuple, back: bool, data: &[u8]| {
        let (local, remote) = ends(tuple);
        let (from, to) = if back { (remote, local) } else { (local, remote) };
        let seen = seen.expect("a packet");
        let ends = ((seen.source, seen.source_port), (seen.destination, seen.destination_port));
        assert_eq!(ends, ((from.ip(), from.port()), (to.ip(), to.port())));
        assert!(seen.right && seen.payload == data);
    };
    is(up(machine, vnet, &segment(wire, true, Kind::Data, b"owner")), stack, true, b"owner");
    is(up(machine, vnet, &segment(stack, true, Kind::Data, b"stranger")), stranger, true, b"stranger");
    is(down(machine, vnet, &segment(stack, false, Kind::Data, b"to owner")), wire, false, b"to owner");
    is(down(machine, vnet, &segment(stranger, false, Kind::Data, b"to stranger")), stack, false, b"to stranger");
}

#[test]
fn a_stranger_gets_another_port_and_both_live_on() {
    for (v6, protocol) in KINDS {
        let (machine, vnet, stack) = peer(v6, protocol);
        let wire = at_peer(v6, protocol, 2);
        let stranger = begin(&machine, &vnet, &stack);
        vnet.set_connections(&[connection(&stack), connection(&stranger)]);
        assert_eq!(binding(&vnet, stranger).expect("a binding").flags, DISPLACED);
        for _ in 0..3 {
            both_talk(&machine, &vnet, &stack, &wire, &stranger);
        }
        // The first packet again: the same port.
        let again = up(&machine, &vnet, &segment(&stack, true, Kind::Syn, b"")).expect("a packet");
        assert_eq!(again.source_port, stranger.remote_port);
        // For ever, as long as both are used.
        for _ in 0..10 {
            machine.advance(Duration::from_secs(60));
            both_talk(&machine, &vnet, &stack, &wire, &stranger);
        }
        assert_eq!((bindings(&machine), count(&vnet, Counter::Displaced), machine.mbufs()), (2, 1, 0));
        common::unload(&machine);
    }
}

#[test]
fn strangers_come_and_go_and_ports_are_freed() {
    for (v6, protocol) in KINDS {
        let (machine, vnet, stack) = peer(v6, protocol);
        let wire = at_peer(v6, protocol, 2);
        machine.sysctl_set("net.inet.mobconn.udp_idle", "600").expect("udp_idle");
        for round in 0..3 {
            let stranger = begin(&machine, &vnet, &stack);
            vnet.set_connections(&[connection(&stack), connection(&stranger)]);
            both_talk(&machine, &vnet, &stack, &wire, &stranger);
            // TIME_WAIT is still a connection.
            let mut waiting = connection(&stranger);
            waiting.state = 10;
            vnet.set_connections(&[connection(&stack), waiting]);
            machine.advance(Duration::from_secs(120));
            assert_eq!(bindings(&machine), 2, "{round}");
            // It ends: the port is free again, and the owner's binding stays as long as it is used.
            vnet.set_connections(&[connection(&stack)]);
            for _ in 0..8 {
                machine.advance(Duration::from_secs(100));
                assert!(up(&machine, &vnet, &segment(&wire, true, Kind::Data, b"owner")).is_some());
            }
            assert_eq!(bindings(&machine), 1, "{v6} {protocol} {round}");
        }
    }
}

#[test]
fn only_a_beginning_begins_something() {
    for v6 in [false, true] {
        let (machine, vnet, stack) = peer(v6, TCP);
        for kind in [Kind::Data, Kind::Fin, Kind::Rst] {
            assert_eq!(up(&machine, &vnet, &segment(&stack, true, kind, b"late")), None, "{kind:?}");
        }
        assert_eq!((count(&vnet, Counter::DroppedStray), bindings(&machine)), (3, 1));
    }
}

#[test]
fn in_the_grace_time_the_old_address_is_the_owners_until_a_stranger_begins() {
    for v6 in [false, true] {
        let (machine, vnet, stack) = peer(v6, TCP);
        let wire = at_peer(v6, TCP, 2);
        // On to another place: now the second one is in grace.
        let third = if v6 { "2001:db8:c::18" } else { "203.0.113.18" }.parse().expect("an address");
        moves(&vnet, stack, Half::Remote, third, 2).expect("a move");
        let late = up(&machine, &vnet, &segment(&wire, true, Kind::Data, b"late")).expect("a late segment");
        assert_eq!((late.source_port, late.payload.as_slice()), (5000, &b"late"[..]));
        assert_eq!(late.source, place(v6, 1), "to the owner");
        // Somebody begins at the second place: it has its address by now, and nothing of the owner's stack side.
        let seen = up(&machine, &vnet, &segment(&wire, true, Kind::Syn, b"")).expect("a beginning");
        assert_eq!((seen.source, seen.source_port), (place(v6, 2), 5000));
        let seen = up(&machine, &vnet, &segment(&wire, true, Kind::Data, b"new")).expect("its data");
        assert_eq!((seen.source, seen.payload.as_slice()), (place(v6, 2), &b"new"[..]));
    }
}

#[test]
fn a_stranger_in_the_grace_time_at_the_first_address() {
    for v6 in [false, true] {
        let machine = loaded(Options::default());
        let vnet = machine.vnet0();
        machine.set_uptime(Some(1000));
        vnet.set_local(&[place(v6, 0)]);
        let (stack, wire) = (at_peer(v6, TCP, 1), at_peer(v6, TCP, 2));
        vnet.set_connections(&[connection(&stack)]);
        moves(&vnet, stack, Half::Remote, place(v6, 2), 1).expect("a move");
        assert!(up(&machine, &vnet, &segment(&stack, true, Kind::Data, b"late")).is_some());
        let stranger = begin(&machine, &vnet, &stack);
        both_talk(&machine, &vnet, &stack, &wire, &stranger);
    }
}

/// Says that so many of the ports that are asked for are taken, by connections that the table does not know.
#[derive(Debug)]
struct Taken {
    stack: Tuple,
    first: usize,
    asked: AtomicUsize,
    refused: Mutex<Vec<u16>>,
}

impl Connections for Taken {
    fn find(&self, query: &Query) -> Option<Connection> {
        let (local, remote) = ends(&self.stack);
        let mut refused = self.refused.lock().expect("no panic");
        let own = query.local == local && query.remote == remote;
        if !own && self.asked.fetch_add(1, Ordering::Relaxed) < self.first {
            refused.push(query.remote.port());
        }
        (own || refused.contains(&query.remote.port()))
            .then(|| Connection::new(query.protocol, query.local, query.remote))
    }

    fn timer(&self, _: &Connection, _: Timer, _: u32) {}
}

#[test]
fn a_port_that_a_connection_outside_the_table_has_is_not_taken() {
    for (v6, protocol) in KINDS {
        for (first, found) in [(1, true), (40, true), (1000, false)] {
            let (machine, vnet, stack) = peer(v6, protocol);
            let (asked, refused) = (AtomicUsize::new(0), Mutex::default());
            let taken = Arc::new(Taken { stack, first, asked, refused });
            vnet.set_connection_source(Arc::clone(&taken) as Arc<dyn Connections>);
            let seen = up(&machine, &vnet, &segment(&stack, true, Kind::Syn, b""));
            assert_eq!(seen.is_some(), found, "{first}");
            let refused = taken.refused.lock().expect("no panic").clone();
            assert!(!refused.is_empty() && seen.is_none_or(|seen| !refused.contains(&seen.source_port)));
            assert_eq!(count(&vnet, Counter::DroppedNewcomer), u64::from(!found));
            assert_eq!(machine.mbufs(), 0);
        }
    }
}

#[test]
fn the_moved_flow_moves_back_home() {
    for (v6, protocol) in KINDS {
        let (machine, vnet, stack) = peer(v6, protocol);
        let stranger = begin(&machine, &vnet, &stack);
        vnet.set_connections(&[connection(&stack), connection(&stranger)]);
        let home = |take| Step { half: Half::Remote, to: place(v6, 1), generation: 2, hold: false, take };
        assert_eq!(prepare(&vnet, stack, home(false)), Err(EADDRINUSE), "somebody else is there");
        both_talk(&machine, &vnet, &stack, &at_peer(v6, protocol, 2), &stranger);
        // It proves that the address is its own now: the stranger has lost it.
        assert_eq!(prepare(&vnet, stack, home(true)), Ok(()));
        common::moves::commit(&vnet, stack, Half::Remote, 2).expect("a commit");
        assert_eq!(binding(&vnet, stranger).expect("a binding").flags, DISPLACED | LOST);
        let seen = up(&machine, &vnet, &segment(&stack, true, Kind::Data, b"home")).expect("a packet");
        assert_eq!((seen.source_port, seen.payload.as_slice()), (5000, &b"home"[..]));
        let seen = down(&machine, &vnet, &segment(&stack, false, Kind::Data, b"")).expect("a packet");
        assert_eq!((seen.destination, seen.destination_port), (place(v6, 1), 5000));
        assert_eq!(down(&machine, &vnet, &segment(&stranger, false, Kind::Data, b"lost")), None);
    }
}

#[test]
fn a_displaced_flow_moves_too() {
    for (v6, protocol) in KINDS {
        let (machine, vnet, stack) = peer(v6, protocol);
        let stranger = begin(&machine, &vnet, &stack);
        vnet.set_connections(&[connection(&stack), connection(&stranger)]);
        let third = if v6 { "2001:db8:c::18" } else { "203.0.113.18" }.parse().expect("an address");
        moves(&vnet, stranger, Half::Remote, third, 1).expect("a move");
        let seen = down(&machine, &vnet, &segment(&stranger, false, Kind::Data, b"on")).expect("a packet");
        assert_eq!((seen.destination, seen.destination_port), (third, 5000));
        // To the same place as the owner it may not.
        assert_eq!(moves(&vnet, stranger, Half::Remote, place(v6, 2), 2), Err(EADDRINUSE));
    }
}

#[test]
fn the_mover_begins_with_what_a_moved_flow_has_on_the_wire() {
    for (v6, protocol) in KINDS {
        let machine = loaded(Options { split: Split::Arbitrary, ..Options::default() });
        machine.set_uptime(Some(1000));
        let vnet = machine.vnet0();
        vnet.set_local(&[place(v6, 2)]);
        let (stack, wire) = (at_mover(v6, protocol, 1), at_mover(v6, protocol, 2));
        vnet.set_connections(&[connection(&stack)]);
        moves(&vnet, stack, Half::Local, place(v6, 2), 1).expect("a move");
        end_grace(&vnet);
        let seen = down(&machine, &vnet, &segment(&wire, false, Kind::Syn, b"")).expect("a beginning");
        assert_eq!((seen.source, seen.destination_port), (place(v6, 2), 80));
        assert!(seen.source_port != 5000 && seen.right);
        let outside = Tuple { local_port: seen.source_port, ..wire };
        let seen = up(&machine, &vnet, &segment(&outside, true, Kind::Data, b"answer")).expect("an answer");
        assert_eq!((seen.destination, seen.destination_port), (place(v6, 2), 5000));
        // The moved flow is where it was.
        let seen = down(&machine, &vnet, &segment(&stack, false, Kind::Data, b"owner")).expect("a packet");
        assert_eq!((seen.source, seen.source_port), (place(v6, 2), 5000));
        let seen = up(&machine, &vnet, &segment(&wire, true, Kind::Data, b"to owner")).expect("a packet");
        assert_eq!((seen.destination, seen.destination_port), (place(v6, 1), 5000));
    }
}

#[test]
fn a_connection_that_the_table_does_not_know_keeps_its_wire_side() {
    for (v6, protocol) in KINDS {
        let machine = loaded(Options::default());
        let vnet = machine.vnet0();
        let (stack, other) = (at_peer(v6, protocol, 1), at_peer(v6, protocol, 2));
        vnet.set_connections(&[connection(&stack), connection(&other)]);
        assert_eq!(moves(&vnet, stack, Half::Remote, place(v6, 2), 1), Err(EADDRINUSE));
        assert_eq!(bindings(&machine), 0);
        let seen = down(&machine, &vnet, &segment(&other, false, Kind::Data, b"mine")).expect("a packet");
        assert_eq!((seen.destination, seen.payload.as_slice()), (place(v6, 2), &b"mine"[..]));
    }
}

#[test]
fn two_movers_swap_their_addresses() {
    for (v6, protocol) in KINDS {
        let machine = loaded(Options::default());
        machine.set_uptime(Some(1000));
        let vnet = machine.vnet0();
        vnet.set_local(&[place(v6, 0)]);
        let flows = [at_peer(v6, protocol, 1), at_peer(v6, protocol, 2)];
        vnet.set_connections(&flows.map(|flow| connection(&flow)));
        for (flow, to) in [(0, 2), (1, 1)] {
            let step = Step { half: Half::Remote, to: place(v6, to), generation: 1, hold: false, take: true };
            prepare(&vnet, flows[flow], step).expect("taken");
            common::moves::commit(&vnet, flows[flow], Half::Remote, 1).expect("a commit");
        }
        end_grace(&vnet);
        for (flow, to) in [(0, 2), (1, 1)] {
            let wire = at_peer(v6, protocol, to);
            let seen = down(&machine, &vnet, &segment(&flows[flow], false, Kind::Data, b"out")).expect("a packet");
            assert_eq!((seen.destination, seen.destination_port), (place(v6, to), 5000));
            let seen = up(&machine, &vnet, &segment(&wire, true, Kind::Data, b"in")).expect("a packet");
            assert_eq!((seen.source, seen.source_port), (place(v6, flow + 1), 5000));
        }
    }
}
