//! The table against a simple model of it, over sequences of operations.

mod common;
use common::*;
use mobconn_engine::*;
use proptest::prelude::*;

/// A half in the model.
#[derive(Clone, Debug)]
struct Half_ {
    address: u8,
    generation: u32,
    other: Option<(u8, Kind)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Pending { generation: u32, hold: bool },
    Grace { since: u32 },
}

/// A binding in the model: addresses are small numbers, ports are fixed.
#[derive(Clone, Debug)]
struct Flow {
    stack: (u8, u8),
    port: u16,
    halves: [Half_; 2],
    created: u32,
}

impl Flow {
    fn new(stack: (u8, u8), wire: (u8, u8), port: u16, now: u32) -> Self {
        let half = |address| Half_ { address, generation: 0, other: None };
        Self { stack, port, halves: [half(wire.0), half(wire.1)], created: now }
    }

    fn accepted(&self) -> Vec<((u8, u8), bool)> {
        let both = |half: &Half_| {
            let mut all = vec![(half.address, false)];
            all.extend(half.other.map(|(address, kind)| (address, matches!(kind, Kind::Pending { .. }))));
            all
        };
        let mut all: Vec<((u8, u8), bool)> = Vec::new();
        for (local, p) in both(&self.halves[0]) {
            for (remote, q) in both(&self.halves[1]) {
                match all.iter_mut().find(|(known, _)| *known == (local, remote)) {
                    Some((_, pending)) => *pending &= p | q,
                    None => all.push(((local, remote), p | q)),
                }
            }
        }
        all
    }

    fn wire(&self) -> (u8, u8) {
        (self.halves[0].address, self.halves[1].address)
    }

    fn holds(&self) -> bool {
        self.halves.iter().any(|half| matches!(half.other, Some((_, Kind::Pending { hold: true, .. }))))
    }

    fn is_idle(&self) -> bool {
        self.wire() == self.stack && self.halves.iter().all(|half| half.other.is_none())
    }
}

#[derive(Default)]
struct Model {
    flows: Vec<Flow>,
    capacity: usize,
}

impl Model {
    fn find(&self, stack: (u8, u8), port: u16) -> Option<usize> {
        self.flows.iter().position(|flow| flow.stack == stack && flow.port == port)
    }

    /// Puts `flow` at `at` (or at the end) if no other accepts what it accepts.
    fn put(&mut self, at: Option<usize>, flow: Flow) -> Result<(), TableError> {
        let clash = self.flows.iter().enumerate().any(|(i, other)| {
            Some(i) != at
                && other.port == flow.port
                && other.accepted().iter().any(|(w, _)| flow.accepted().iter().any(|(v, _)| v == w))
        });
        if at.is_none() && self.flows.len() == self.capacity {
            return Err(TableError::Full);
        }
        if clash {
            return Err(TableError::Conflict);
        }
        match at {
            Some(i) => self.flows[i] = flow,
            None => self.flows.push(flow),
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Add { stack: (u8, u8), wire: (u8, u8) },
    Delete { stack: (u8, u8) },
    Prepare { stack: (u8, u8), half: usize, new: u8, generation: u32, hold: bool },
    Commit { stack: (u8, u8), half: usize, generation: u32 },
    Abort { stack: (u8, u8), half: usize, generation: u32 },
    Expire { grace: u32 },
    Flush,
}

const PORT: u16 = 4444;
/// Addresses 0 to 4; 4 is multicast, which no side may have.
const ADDRESSES: u8 = 5;

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let pair = || (0..3_u8, 0..3_u8);
    let one = prop_oneof![
        3 => (pair(), (0..ADDRESSES, 0..3_u8)).prop_map(|(stack, wire)| Operation::Add { stack, wire }),
        2 => pair().prop_map(|stack| Operation::Delete { stack }),
        8 => (pair(), 0..2_usize, 0..ADDRESSES, 0..5_u32, any::<bool>())
            .prop_map(|(stack, half, new, generation, hold)| Operation::Prepare { stack, half, new, generation, hold }),
        6 => (pair(), 0..2_usize, 0..5_u32).prop_map(|(stack, half, generation)| Operation::Commit { stack, half, generation }),
        2 => (pair(), 0..2_usize, 0..5_u32).prop_map(|(stack, half, generation)| Operation::Abort { stack, half, generation }),
        2 => (0..4_u32).prop_map(|grace| Operation::Expire { grace }),
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

fn side_of((local, remote): (u8, u8), v6: bool) -> Side {
    Side {
        local: address_of(0, local, v6),
        remote: address_of(1, remote, v6),
        local_port: PORT,
        remote_port: 80,
        version: if v6 { Version::V6 } else { Version::V4 },
        protocol: Protocol::Tcp,
    }
}

/// What the model says of an operation.
fn expect(model: &mut Model, operation: &Operation, now: u32) -> Result<(), TableError> {
    match *operation {
        Operation::Add { stack, wire } => {
            if wire.0 == 4 || wire.1 == 4 {
                return Err(TableError::Invalid);
            }
            if model.find(stack, PORT).is_some() {
                return Err(TableError::Exists);
            }
            model.put(None, Flow::new(stack, wire, PORT, now))
        }
        Operation::Delete { stack } => {
            let at = model.find(stack, PORT).ok_or(TableError::NotFound)?;
            model.flows.remove(at);
            Ok(())
        }
        Operation::Prepare { stack, half, new, generation, hold } => {
            if generation == 0 || new == 4 {
                return Err(TableError::Invalid);
            }
            let at = model.find(stack, PORT);
            let mut flow = at.map_or_else(|| Flow::new(stack, stack, PORT, now), |at| model.flows[at].clone());
            let state = &mut flow.halves[half];
            match state.other {
                Some((address, Kind::Pending { generation: pending, .. })) => {
                    if generation < pending || generation == pending && address != new {
                        return Err(TableError::Stale);
                    }
                }
                _ if generation == state.generation && state.address == new => return Ok(()),
                _ if generation <= state.generation => return Err(TableError::Stale),
                _ => {}
            }
            state.other = Some((new, Kind::Pending { generation, hold }));
            model.put(at, flow)
        }
        Operation::Commit { stack, half, generation } => {
            let at = model.find(stack, PORT).ok_or(TableError::NotFound)?;
            let state = &mut model.flows[at].halves[half];
            match state.other {
                Some((address, Kind::Pending { generation: pending, .. })) if pending == generation => {
                    let old = std::mem::replace(&mut state.address, address);
                    state.generation = generation;
                    state.other = (old != address).then_some((old, Kind::Grace { since: now }));
                    Ok(())
                }
                _ if generation != 0 && generation == state.generation => Ok(()),
                _ if generation < state.generation => Err(TableError::Stale),
                _ => Err(TableError::NotFound),
            }
        }
        Operation::Abort { stack, half, generation } => {
            let at = model.find(stack, PORT).ok_or(TableError::NotFound)?;
            let state = &mut model.flows[at].halves[half];
            match state.other {
                Some((_, Kind::Pending { generation: pending, .. })) if pending == generation => state.other = None,
                _ if generation <= state.generation => return Err(TableError::Stale),
                _ => return Err(TableError::NotFound),
            }
            if model.flows[at].is_idle() {
                model.flows.remove(at);
            }
            Ok(())
        }
        Operation::Expire { grace } => {
            for flow in &mut model.flows {
                for half in &mut flow.halves {
                    if matches!(half.other, Some((_, Kind::Grace { since })) if now - since >= grace) {
                        half.other = None;
                    }
                }
            }
            model.flows.retain(|flow| !flow.is_idle());
            Ok(())
        }
        Operation::Flush => {
            model.flows.clear();
            Ok(())
        }
    }
}

fn act(control: &mut Control, engine: &Engine, operation: &Operation, now: u32, v6: bool) -> Result<(), TableError> {
    let half = |half: usize| [Half::Local, Half::Remote][half];
    match *operation {
        Operation::Add { stack, wire } => control.add(engine, &side_of(stack, v6), &side_of(wire, v6), now),
        Operation::Delete { stack } => control.delete(engine, &side_of(stack, v6)),
        Operation::Prepare { stack, half: h, new, generation, hold } => {
            control.prepare(engine, &side_of(stack, v6), half(h), &address_of(h, new, v6), generation, hold, now)
        }
        Operation::Commit { stack, half: h, generation } => {
            control.commit(engine, &side_of(stack, v6), half(h), generation, now)
        }
        Operation::Abort { stack, half: h, generation } => {
            control.abort(engine, &side_of(stack, v6), half(h), generation)
        }
        Operation::Expire { grace } => {
            control.expire(engine, now, grace, 0);
            Ok(())
        }
        Operation::Flush => {
            control.flush(engine);
            Ok(())
        }
    }
}

/// Sends and receives a packet for every side that there can be, and compares
/// with the model.
fn compare(model: &Model, engine: &Engine, control: &Control, v6: bool) {
    let version = if v6 { Version::V6 } else { Version::V4 };
    for local in 0..ADDRESSES - 1 {
        for remote in 0..ADDRESSES - 1 {
            let pair = (local, remote);
            let side = side_of(pair, v6);
            let bound = model.flows.iter().find(|flow| flow.stack == pair);
            let mut packet = Bytes::new(outgoing(&side, "A", b""));
            let verdict = engine.output(&mut packet, version, 1);
            let (expected, bytes) = match bound {
                Some(flow) if flow.holds() => (Verdict::Drop(DropReason::Held), side),
                Some(flow) if flow.wire() != pair => (Verdict::Translated, side_of(flow.wire(), v6)),
                _ => (Verdict::Pass, side),
            };
            assert_eq!((verdict, packet.bytes), (expected, outgoing(&bytes, "A", b"")), "output {pair:?}");

            let owner = model.flows.iter().find_map(|flow| {
                flow.accepted().into_iter().find(|(wire, _)| *wire == pair).map(|(_, pending)| (flow, pending))
            });
            for flags in ["A", "R"] {
                let mut packet = Bytes::new(incoming(&side, flags, b""));
                let verdict = engine.input(&mut packet, version, 1);
                let (expected, bytes) = match owner {
                    Some((_, true)) if flags == "R" => (Verdict::Drop(DropReason::PendingRst), side),
                    Some((flow, _)) if flow.stack != pair => (Verdict::Translated, side_of(flow.stack, v6)),
                    Some(_) => (Verdict::Pass, side),
                    None if bound.is_some() => (Verdict::Drop(DropReason::Stray), side),
                    None => (Verdict::Pass, side),
                };
                assert_eq!((verdict, packet.bytes), (expected, incoming(&bytes, flags, b"")), "input {pair:?} {flags}");
            }
        }
    }
    let mut listed = Vec::new();
    let mut cursor = 0;
    while let Some(binding) = control.next(engine, cursor) {
        assert!(binding.id > cursor);
        cursor = binding.id;
        assert_eq!(control.get(engine, &binding.stack), Some(binding));
        listed.push(format!("{:?} {:?} {} {}", binding.stack, binding.wire, binding.local.generation, binding.created));
    }
    let mut expected: Vec<String> = model
        .flows
        .iter()
        .map(|flow| {
            let (stack, wire) = (side_of(flow.stack, v6), side_of(flow.wire(), v6));
            format!("{stack:?} {wire:?} {} {}", flow.halves[0].generation, flow.created)
        })
        .collect();
    listed.sort();
    expected.sort();
    assert_eq!(listed, expected);
    assert_eq!(control.len() as usize, model.flows.len());
    assert_eq!(engine.is_empty(), model.flows.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_table_does_what_the_model_does(operations in operations(), v6: bool, capacity in 1..8_u32) {
        let (engine, mut control) = engine(capacity);
        let mut model = Model { flows: Vec::new(), capacity: capacity as usize };
        for (now, operation) in operations.iter().enumerate() {
            let now = now as u32 + 1;
            let expected = expect(&mut model, operation, now);
            prop_assert_eq!(act(&mut control, &engine, operation, now, v6), expected, "{:?}", operation);
            compare(&model, &engine, &control, v6);
        }
    }
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
            control.prepare(&engine, &flow(i).0, Half::Local, &ip("10.3.0.2"), 1, true, 2).unwrap();
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
        assert_eq!(control.expire(&engine, 100, 60, 0), Expired { ended: 3000, removed: 0 });
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
    assert_eq!(control.expire(&engine, 149, 0, 50), Expired::default());
    let mut packet = Bytes::new(incoming(&wire, "", b"x"));
    assert_eq!(engine.input(&mut packet, Version::V4, 149), Verdict::Translated);
    assert_eq!(control.get(&engine, &stack).unwrap().used, 149);
    assert_eq!(control.expire(&engine, 198, 0, 50), Expired::default());
    assert_eq!(control.expire(&engine, 500, 0, 0), Expired::default());
    assert_eq!(control.expire(&engine, 199, 0, 50), Expired { ended: 0, removed: 1 });
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
            control.prepare(engine, &stack, Half::Local, &place(generation), generation, false, 2).unwrap();
            control.commit(engine, &stack, Half::Local, generation, 2).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}
