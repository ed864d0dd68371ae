//! The table against a simple model of it, over sequences of operations.

mod common;
mod model;
use common::*;
use mobconn_engine::*;
use model::{Flow, Model, Tuple, Why};
use proptest::prelude::*;
use std::cell::Cell;

#[derive(Clone, Debug)]
enum Operation {
    Add {
        stack: Tuple,
        wire: Tuple,
    },
    Delete {
        stack: Tuple,
    },
    Prepare {
        stack: Tuple,
        half: usize,
        new: u8,
        generation: u32,
        hold: bool,
        take: bool,
    },
    Commit {
        stack: Tuple,
        half: usize,
        generation: u32,
    },
    Abort {
        stack: Tuple,
        half: usize,
        generation: u32,
    },
    Expire {
        grace: u32,
        dead: Option<Tuple>,
    },
    Displace {
        side: Tuple,
        received: bool,
        chance: u16,
    },
    /// The same for a binding that there is, if any: its stack side moves.
    Chosen {
        which: prop::sample::Index,
        half: usize,
        new: u8,
        generation: u32,
    },
    Flush,
}

/// Addresses 0 to 4; 4 is multicast, which no side may have.
const ADDRESSES: u8 = 5;
const PORTS: (u16, u16) = (4444, 80);

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let pair = || (0..3_u8, 0..3_u8).prop_map(|(l, r)| (l, r, PORTS.0, PORTS.1));
    let wire = (0..ADDRESSES, 0..3_u8).prop_map(|(l, r)| (l, r, PORTS.0, PORTS.1));
    let one = prop_oneof![
        2 => (pair(), wire).prop_map(|(stack, wire)| Operation::Add { stack, wire }),
        2 => pair().prop_map(|stack| Operation::Delete { stack }),
        8 => (pair(), 0..2_usize, 0..ADDRESSES, 0..5_u32, any::<bool>(), any::<bool>()).prop_map(
            |(stack, half, new, generation, hold, take)| Operation::Prepare { stack, half, new, generation, hold, take }
        ),
        7 => (pair(), 0..2_usize, 0..5_u32).prop_map(|(stack, half, generation)| Operation::Commit { stack, half, generation }),
        2 => (pair(), 0..2_usize, 0..5_u32).prop_map(|(stack, half, generation)| Operation::Abort { stack, half, generation }),
        2 => (0..4_u32, proptest::option::of(pair())).prop_map(|(grace, dead)| Operation::Expire { grace, dead }),
        6 => (pair(), any::<bool>(), 0..50_u16).prop_map(|(side, received, chance)| Operation::Displace { side, received, chance }),
        4 => (any::<prop::sample::Index>(), 0..2_usize, 0..4_u8, 1..5_u32)
            .prop_map(|(which, half, new, generation)| Operation::Chosen { which, half, new, generation }),
        1 => Just(Operation::Flush),
    ];
    proptest::collection::vec(one, 1..60)
}

/// Local and remote addresses come from two networks, so that they differ.
fn address_of(half: usize, number: u8, v6: bool) -> Address {
    let text = match (v6, number, half) {
        (false, 4, _) => "224.0.0.1".to_string(),
        (true, 4, _) => "ff02::1".to_string(),
        (false, n, h) => format!("10.{h}.0.{}", n + 1),
        (true, n, h) => format!("2001:db8:{h}::{}", n + 1),
    };
    ip(&text)
}

fn side_of((local, remote, local_port, remote_port): Tuple, v6: bool) -> Side {
    Side {
        local: address_of(0, local, v6),
        remote: address_of(1, remote, v6),
        local_port,
        remote_port,
        version: if v6 { Version::V6 } else { Version::V4 },
        protocol: Protocol::Tcp,
    }
}

/// Does it to the table and to the model, and compares what they say.
fn act(table: &mut (Engine, Control), model: &mut Model, operation: &Operation, now: u32, v6: bool) {
    let (engine, control) = (&table.0, &mut table.1);
    let side = |tuple| side_of(tuple, v6);
    let half_of = |half: usize| [Half::Local, Half::Remote][half];
    let connections = model.busy.clone();
    let busy = |tuple: &Side| connections.iter().any(|known| side(*known) == *tuple);
    match *operation {
        Operation::Add { stack, wire } => {
            assert_eq!(control.add(engine, &side(stack), &side(wire), now), model.add(stack, wire, now));
        }
        Operation::Delete { stack } => {
            assert_eq!(control.delete(engine, &side(stack)), model.delete(stack));
        }
        Operation::Prepare { stack, half, new, generation, hold, take } => {
            let prepare = Prepare { half: half_of(half), new: address_of(half, new, v6), generation, hold, take };
            assert_eq!(
                control.prepare(engine, &side(stack), &prepare, busy, now),
                model.prepare(stack, half, new, generation, hold, take, now)
            );
        }
        Operation::Commit { stack, half, generation } => {
            assert_eq!(
                control.commit(engine, &side(stack), half_of(half), generation, now),
                model.commit(stack, half, generation, now)
            );
        }
        Operation::Abort { stack, half, generation } => {
            assert_eq!(
                control.abort(engine, &side(stack), half_of(half), generation),
                model.abort(stack, half, generation)
            );
        }
        Operation::Expire { grace, dead } => {
            let limits = Limits { grace, udp_idle: 0 };
            let mut from = 0;
            let looks = Cell::new(0);
            loop {
                let alive = |tuple: &Side| {
                    looks.set(looks.get() + 1);
                    dead.is_none_or(|dead| side(dead) != *tuple)
                };
                from = control.expire(engine, now, &limits, (from, 2), alive).next;
                assert!(looks.take() <= 2, "bounded work");
                if from == 0 {
                    break;
                }
            }
            model.expire(grace, |tuple| dead != Some(tuple), now);
        }
        Operation::Displace { side: tuple, received, chance } => {
            let outcome = control.displace(engine, &side(tuple), received, busy, chance, now);
            let made =
                if received { control.get_by_wire(engine, &side(tuple)) } else { control.get(engine, &side(tuple)) };
            let port = made
                .filter(|made| made.displaced)
                .map(|made| if received { made.stack.remote_port } else { made.wire.local_port });
            assert_eq!(outcome, model.displace(tuple, received, port, now));
        }
        Operation::Chosen { which, half, new, generation } => {
            if !model.flows.is_empty() {
                let stack = model.flows[which.index(model.flows.len())].stack;
                let (hold, take) = (false, false);
                act(table, model, &Operation::Prepare { stack, half, new, generation, hold, take }, now, v6);
                act(table, model, &Operation::Commit { stack, half, generation }, now, v6);
            }
        }
        Operation::Flush => {
            control.flush(engine);
            model.flows.clear();
        }
    }
}

/// Sends and receives a packet for every side that there can be, and compares
/// with the model.
fn compare(model: &Model, engine: &Engine, control: &Control, v6: bool) {
    let version = if v6 { Version::V6 } else { Version::V4 };
    let plain = (0..ADDRESSES - 1).flat_map(|l| (0..ADDRESSES - 1).map(move |r| (l, r, PORTS.0, PORTS.1)));
    let odd = model.flows.iter().filter(|flow| flow.displaced).flat_map(|flow| [flow.stack, flow.wire()]);
    for tuple in plain.chain(odd) {
        let side = side_of(tuple, v6);
        let bound = model.flows.iter().find(|flow| flow.stack == tuple);
        let owner = model.flows.iter().find_map(|flow| flow.accepts(tuple).map(|why| (flow, why)));
        for flags in ["A", "R", "S", "SA"] {
            let mut packet = Bytes::new(outgoing(&side, flags, b""));
            let verdict = engine.output(&mut packet, version, 1);
            let (expected, bytes) = match bound {
                Some(flow) if flow.holds() => (Verdict::Hold { flow: 0 }, side),
                Some(flow) if flow.lost => (Verdict::Drop(DropReason::Stray), side),
                Some(flow) if flow.wire() != tuple => (Verdict::Translated, side_of(flow.wire(), v6)),
                None if owner.is_some() && flags == "S" => (Verdict::Displace, side),
                None if owner.is_some() => (Verdict::Drop(DropReason::Stray), side),
                _ => (Verdict::Pass, side),
            };
            let verdict = if matches!(verdict, Verdict::Hold { .. }) { Verdict::Hold { flow: 0 } } else { verdict };
            assert_eq!((verdict, packet.bytes), (expected, outgoing(&bytes, flags, b"")), "output {tuple:?} {flags}");
            if expected == Verdict::Displace {
                let mut packet = Bytes::new(outgoing(&side, flags, b""));
                assert_eq!(Engine::newcomer(&mut packet, version, false), Some(side));
            }

            let mut packet = Bytes::new(incoming(&side, flags, b""));
            let verdict = engine.input(&mut packet, version, 1);
            let (expected, bytes) = match owner {
                Some((_, Why::Pending | Why::Both)) if flags == "R" => (Verdict::Drop(DropReason::PendingRst), side),
                Some((_, Why::Grace | Why::Both)) if flags == "S" => (Verdict::Displace, side),
                Some((flow, _)) if flow.stack != tuple => (Verdict::Translated, side_of(flow.stack, v6)),
                Some(_) => (Verdict::Pass, side),
                None if bound.is_some() && flags == "S" => (Verdict::Displace, side),
                None if bound.is_some() => (Verdict::Drop(DropReason::Stray), side),
                None => (Verdict::Pass, side),
            };
            assert_eq!((verdict, packet.bytes), (expected, incoming(&bytes, flags, b"")), "input {tuple:?} {flags}");
            if expected == Verdict::Displace {
                let mut packet = Bytes::new(incoming(&side, flags, b""));
                assert_eq!(Engine::newcomer(&mut packet, version, true), Some(side));
            }
        }
    }
    let describe = |flow: &Flow| {
        (side_of(flow.stack, v6), side_of(flow.wire(), v6), flow.halves[0].generation, flow.created, flow.lost)
    };
    let mut seen = 0;
    let mut cursor = 0;
    while let Some(binding) = control.next(engine, cursor) {
        assert!(binding.id > cursor);
        cursor = binding.id;
        seen += 1;
        assert_eq!(control.get(engine, &binding.stack), Some(binding));
        let known = (binding.stack, binding.wire, binding.local.generation, binding.created, binding.lost);
        let flow = model.flows.iter().find(|flow| describe(flow) == known).expect("in the model too");
        for (half, view) in flow.halves.iter().zip([binding.local, binding.remote]) {
            assert_eq!(half.other.is_none(), view.other == Other::None);
            assert!(half.other.is_none_or(|(_, kind)| kind.is(&view.other)));
        }
        assert_eq!(flow.displaced, binding.displaced);
    }
    assert_eq!((seen, control.len() as usize), (model.flows.len(), model.flows.len()));
    assert_eq!(engine.is_empty(), model.flows.is_empty());
    // No two bindings accept one wire side.
    for (nth, flow) in model.flows.iter().enumerate() {
        for other in &model.flows[nth + 1..] {
            assert!(flow.accepted().iter().all(|(wire, _)| other.accepts(*wire).is_none()), "{flow:?} {other:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_table_does_what_the_model_does(
        operations in operations(), v6: bool, capacity in 1..8_u32, busy in (0..3_u8, 0..3_u8), ports in 0..40_u16
    ) {
        let mut table = engine(capacity);
        // One connection beside the table, and many on the ports that newcomers get.
        let mut connections = vec![(busy.0, busy.1, PORTS.0, PORTS.1)];
        connections.extend((0..ports).map(|port| (busy.0, busy.1, PORTS.0, 49152 + port)));
        let mut model = Model { capacity: capacity as usize, busy: connections, ..Model::default() };
        for (now, operation) in operations.iter().enumerate() {
            act(&mut table, &mut model, operation, now as u32 + 1, v6);
            compare(&model, &table.0, &table.1, v6);
        }
    }
}

fn moved(table: &mut (Engine, Control), stack: &Side, half: usize, new: u8, commit: bool) {
    let half_of = [Half::Local, Half::Remote][half];
    let new = address_of(half, new, false);
    let prepare = Prepare { half: half_of, new, generation: 1, hold: false, take: false };
    table.1.prepare(&table.0, stack, &prepare, |_| false, 1).expect("prepared");
    if commit {
        table.1.commit(&table.0, stack, half_of, 1, 1).expect("committed");
    }
}

/// Both halves of a flow are in grace, and another gets two of its old wire sides in one step.
#[test]
fn who_gives_two_wire_sides_up_at_once_keeps_the_one_in_use() {
    let mut table = engine(4);
    let side = |local: u8, remote: u8| side_of((local, remote, PORTS.0, PORTS.1), false);
    let (owner, other) = (side(1, 1), side(0, 1));
    moved(&mut table, &owner, 1, 3, true);
    moved(&mut table, &owner, 0, 2, true);
    moved(&mut table, &other, 1, 3, false);
    moved(&mut table, &other, 0, 1, false);
    let binding = table.1.get(&table.0, &owner).expect("a binding");
    assert_eq!((binding.lost, binding.wire), (false, side(2, 3)));
    assert_eq!((binding.local.other, binding.remote.other), (Other::None, Other::None));
    let mut packet = Bytes::new(outgoing(&owner, "A", b""));
    assert_eq!(table.0.output(&mut packet, Version::V4, 1), Verdict::Translated);
}

fn local(new: &str, generation: u32) -> Prepare {
    Prepare { half: Half::Local, new: ip(new), generation, hold: true, take: false }
}

fn limits(grace: u32, udp_idle: u32) -> Limits {
    Limits { grace, udp_idle }
}

/// A table at its limit: every place taken, all found, and all given back.
#[test]
fn a_full_table_finds_all_and_refuses_more() {
    let (engine, mut control) = engine(3000);
    let flow = |i: u32| {
        let stack = Side { local_port: 1 + (i % 60000) as u16, ..side("tcp 10.1.0.2:1 10.9.0.9:80") };
        (stack, Side { local: ip("10.2.0.2"), ..stack })
    };
    for round in 0..3 {
        for i in 0..3000 {
            let (stack, wire) = flow(i);
            control.add(&engine, &stack, &wire, 1).unwrap_or_else(|e| panic!("round {round} flow {i}: {e:?}"));
        }
        let (stack, wire) = flow(3000);
        assert_eq!(control.add(&engine, &stack, &wire, 1), Err(TableError::Full));
        // A move of all of them at once has room too.
        for i in 0..3000 {
            control.prepare(&engine, &flow(i).0, &local("10.3.0.2", 1), |_| false, 2).unwrap();
        }
        for i in 0..3000 {
            control.commit(&engine, &flow(i).0, Half::Local, 1, 3).unwrap();
        }
        for i in 0..3000 {
            let (stack, wire) = flow(i);
            for accepted in [wire, Side { local: ip("10.3.0.2"), ..wire }] {
                let mut packet = Bytes::new(incoming(&accepted, "A", b""));
                assert_eq!(engine.input(&mut packet, Version::V4, 4), Verdict::Translated);
                assert_eq!(packet.bytes, incoming(&stack, "A", b""));
            }
        }
        let expired = control.expire(&engine, 100, &limits(60, 0), (0, 4000), |_| true);
        assert_eq!(expired, Expired { ended: 3000, removed: 0, next: 0 });
        assert_eq!(control.flush(&engine), 3000);
        assert!(engine.is_empty());
    }
}

#[test]
fn an_idle_udp_binding_ends_and_a_busy_one_stays() {
    let (engine, mut control) = engine(4);
    let stack = side("udp 10.1.0.2:4444 10.9.0.9:53");
    let wire = Side { local: ip("10.2.0.2"), ..stack };
    control.add(&engine, &stack, &wire, 100).unwrap();
    assert_eq!(control.expire(&engine, 149, &limits(0, 50), (0, 9), |_| false), Expired::default());
    let mut packet = Bytes::new(incoming(&wire, "", b"x"));
    assert_eq!(engine.input(&mut packet, Version::V4, 149), Verdict::Translated);
    assert_eq!(control.get(&engine, &stack).unwrap().used, 149);
    assert_eq!(control.expire(&engine, 198, &limits(0, 50), (0, 9), |_| false), Expired::default());
    assert_eq!(control.expire(&engine, 500, &limits(0, 0), (0, 9), |_| false), Expired::default());
    assert_eq!(
        control.expire(&engine, 199, &limits(0, 50), (0, 9), |_| false),
        Expired { ended: 0, removed: 1, next: 0 }
    );
}

#[test]
fn a_udp_binding_stays_as_long_as_its_socket() {
    let (engine, mut control) = engine(4);
    let stack = side("udp 10.1.0.2:4444 10.9.0.9:53");
    control.prepare(&engine, &stack, &local("10.2.0.2", 1), |_| false, 100).unwrap();
    let alive = |side: &Side| *side == stack;
    assert_eq!(control.expire(&engine, 9999, &limits(0, 50), (0, 9), alive), Expired::default());
    control.commit(&engine, &stack, Half::Local, 1, 9999).unwrap();
    assert_eq!(
        control.expire(&engine, 99_999, &limits(50, 50), (0, 9), alive),
        Expired { ended: 1, removed: 0, next: 0 }
    );
    assert_eq!(control.expire(&engine, 99_999, &limits(50, 50), (0, 9), |_| false).removed, 1);
}

/// Nobody is left who could end that move.
#[test]
fn a_udp_binding_whose_move_is_in_doubt_ends_with_its_socket() {
    let (engine, mut control) = engine(4);
    let stack = side("udp 10.1.0.2:4444 10.9.0.9:53");
    control.prepare(&engine, &stack, &local("10.2.0.2", 1), |_| false, 100).unwrap();
    assert_eq!(control.expire(&engine, 149, &limits(0, 50), (0, 9), |_| false), Expired::default());
    assert_eq!(control.expire(&engine, 150, &limits(0, 50), (0, 9), |_| false).removed, 1);
}

/// Readers beside a writer that moves their flow to and fro: every packet is
/// translated to one of the wire sides that the flow has had, none is missed.
#[test]
fn a_reader_beside_a_writer_misses_nothing() {
    let (engine, mut control) = engine(40);
    let stack = side("tcp 10.1.0.2:4444 10.9.0.9:80");
    // Neighbours that fill the buckets, so that chains are walked.
    for i in 0..39_u16 {
        let other = Side { local_port: 5000 + i, ..stack };
        control.add(&engine, &other, &Side { local: ip("10.2.0.2"), ..other }, 1).unwrap();
    }
    let place = |n: u32| ip(&format!("10.2.0.{}", 2 + n % 2));
    control.add(&engine, &stack, &Side { local: place(0), ..stack }, 1).unwrap();
    let wires: Vec<Vec<u8>> = (0..2).map(|n| outgoing(&Side { local: place(n), ..stack }, "A", b"")).collect();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (engine, done, wires) = (&engine, &done, &wires);
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(move || {
                    let mut count = 0_u64;
                    while !done.load(std::sync::atomic::Ordering::Relaxed) || count < 1000 {
                        let mut packet = Bytes::new(outgoing(&stack, "A", b""));
                        assert_eq!(engine.output(&mut packet, Version::V4, 2), Verdict::Translated);
                        assert!(wires.contains(&packet.bytes), "half of one rule and half of another");
                        count += 1;
                    }
                })
            })
            .collect();
        for generation in 1..20_000 {
            let prepare = Prepare { half: Half::Local, new: place(generation), generation, hold: false, take: false };
            control.prepare(engine, &stack, &prepare, |_| false, 2).unwrap();
            control.commit(engine, &stack, Half::Local, generation, 2).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}
