//! Moves that are not committed yet: what waits, what leaves, in which order, and how a connection resumes.

mod common;

use common::moves::{Kind, Step, abort, at_mover, at_peer, binding, came, commit, connection, place, prepare, segment};
use common::packets::{Seen, look};
use common::{count, loaded};
use mobconn_abi::{Counter, Half, TCP, Tuple, UDP};
use mobconn_kpi::{Connection, Input, Machine, Options, Output, Rx, Split, TcpStack, Timer, Tx, Vnet};
use std::net::IpAddr;
use std::time::Duration;

const KINDS: [(bool, u8); 4] = [(false, TCP), (true, TCP), (false, UDP), (true, UDP)];

/// A host one half of whose flow is about to go to place 2, and its old path is gone.
fn holding(half: Half, v6: bool, protocol: u8) -> (Machine, Vnet, Tuple, Tuple) {
    let machine = loaded(Options { split: Split::Arbitrary, ..Options::default() });
    machine.set_uptime(Some(1000));
    let vnet = machine.vnet0();
    let tuple = if half == Half::Local { at_mover } else { at_peer };
    let (stack, wire) = (tuple(v6, protocol, 1), tuple(v6, protocol, 2));
    vnet.set_local(&[if half == Half::Local { place(v6, 2) } else { place(v6, 0) }]);
    vnet.set_connections(&[connection(&stack)]);
    prepare(&vnet, stack, step(half, place(v6, 2), 1, true)).expect("prepared");
    (machine, vnet, stack, wire)
}

fn step(half: Half, to: IpAddr, generation: u32, hold: bool) -> Step {
    Step { half, to, generation, hold, take: false }
}

fn send(vnet: &Vnet, stack: &Tuple, data: &[u8]) -> Output {
    vnet.ip_output(&segment(stack, false, Kind::Data, data), &Tx::new("em0").offload())
}

fn seen(packets: &[Vec<u8>]) -> Vec<Seen> {
    packets.iter().map(|packet| look(packet)).collect()
}

#[test]
fn nothing_leaves_before_the_commit_and_all_of_it_in_order_at_it() {
    for half in [Half::Local, Half::Remote] {
        for (v6, protocol) in KINDS {
            let (machine, vnet, stack, wire) = holding(half, v6, protocol);
            for number in 0..6_u8 {
                assert_eq!(send(&vnet, &stack, &[number; 100]), Output::Consumed);
            }
            assert_eq!(came(&machine, &vnet), (vec![], vec![]));
            assert_eq!(count(&vnet, Counter::Held), 6);
            commit(&vnet, stack, half, 1).expect("a commit");
            let (up, out) = came(&machine, &vnet);
            assert!(up.is_empty());
            for (number, seen) in seen(&out).into_iter().enumerate() {
                let expected = common::packets::expected(&wire, common::packets::Way::Sent, &[number as u8; 100]);
                assert_eq!(seen, expected);
            }
            assert_eq!((out.len(), count(&vnet, Counter::Released), machine.mbufs()), (6, 6, 0));
            // From now on nothing waits.
            assert!(matches!(send(&vnet, &stack, b"now"), Output::Send(_)));
            assert_eq!(commit(&vnet, stack, half, 1), Ok(()), "again");
            common::unload(&machine);
        }
    }
}

#[test]
fn a_path_that_is_usable_is_used_until_the_commit() {
    for half in [Half::Local, Half::Remote] {
        for (v6, protocol) in KINDS {
            let tuple = if half == Half::Local { at_mover } else { at_peer };
            let (stack, wire) = (tuple(v6, protocol, 1), tuple(v6, protocol, 2));
            let machine = loaded(Options::default());
            let vnet = machine.vnet0();
            vnet.set_connections(&[connection(&stack)]);
            vnet.set_local(&[place(v6, 0), place(v6, 1)]);
            prepare(&vnet, stack, step(half, place(v6, 2), 1, false)).expect("prepared");
            let Output::Send(sent) = send(&vnet, &stack, b"old path") else { panic!("not sent") };
            assert_eq!(sent.packets, [segment(&stack, false, Kind::Data, b"old path")]);
            // Input is accepted from both, and from neither does RST end anything.
            for from in [&stack, &wire] {
                let received = |kind| vnet.ip_input(&segment(from, true, kind, b""), &Rx::new("em0"));
                assert!(matches!(received(Kind::Data), Input::Deliver(_)));
                if protocol == TCP && from == &wire {
                    assert_eq!(received(Kind::Rst), Input::Consumed);
                    assert_eq!(count(&vnet, Counter::DroppedPendingRst), 1);
                }
            }
            commit(&vnet, stack, half, 1).expect("a commit");
            let Output::Send(sent) = send(&vnet, &stack, b"new path") else { panic!("not sent") };
            assert_eq!(sent.packets, [segment(&wire, false, Kind::Data, b"new path")]);
        }
    }
}

#[test]
fn what_is_held_is_bounded_and_freed() {
    for (v6, protocol) in KINDS {
        let (machine, vnet, stack, _) = holding(Half::Local, v6, protocol);
        for _ in 0..500 {
            assert_eq!(send(&vnet, &stack, &[1; 500]), Output::Consumed);
        }
        let (held, dropped) = (count(&vnet, Counter::Held), count(&vnet, Counter::DroppedHeld));
        assert_eq!(held + dropped, 500);
        assert!((3..=64).contains(&held), "{held}");
        // Many flows together are bounded, too.
        let mut connections = vec![connection(&stack)];
        let many: Vec<Tuple> = (0..200).map(|port| Tuple { local_port: 6000 + port, ..stack }).collect();
        for flow in &many {
            connections.push(connection(flow));
            vnet.set_connections(&connections);
            prepare(&vnet, *flow, step(Half::Local, place(v6, 2), 1, true)).expect("prepared");
            for _ in 0..8 {
                assert_eq!(send(&vnet, flow, &[2; 500]), Output::Consumed);
            }
        }
        assert!(count(&vnet, Counter::Held) < 1000);
        // mbufs of packets that are cut anywhere, clusters' owners included.
        assert!(machine.mbufs() > 0);
        // The module may go with all of it.
        common::unload(&machine);
        assert_eq!(machine.mbufs(), 0);
    }
}

#[test]
fn taken_back_the_packets_go_the_old_way() {
    for (v6, protocol) in KINDS {
        let (machine, vnet, stack, _) = holding(Half::Local, v6, protocol);
        for number in 0..3_u8 {
            assert_eq!(send(&vnet, &stack, &[number; 10]), Output::Consumed);
        }
        abort(&vnet, stack, Half::Local, 1).expect("an abort");
        let (_, out) = came(&machine, &vnet);
        let expected: Vec<_> =
            (0..3_u8).map(|number| look(&segment(&stack, false, Kind::Data, &[number; 10]))).collect();
        assert_eq!(seen(&out), expected);
        assert_eq!(machine.mbufs(), 0);
    }
}

#[test]
fn what_waits_for_a_binding_that_ends_does_not_stay() {
    for (v6, protocol) in KINDS {
        let (machine, vnet, stack, _) = holding(Half::Local, v6, protocol);
        assert_eq!(send(&vnet, &stack, b"waits"), Output::Consumed);
        assert_eq!(common::delete(&vnet, stack), Ok(()));
        machine.advance(Duration::from_secs(5));
        let _ = vnet.events();
        assert_eq!(machine.mbufs(), 0, "{v6} {protocol}");
    }
}

#[test]
fn in_doubt_means_keep() {
    for (v6, protocol) in KINDS {
        let (machine, vnet, stack, wire) = holding(Half::Local, v6, protocol);
        machine.sysctl_set("net.inet.mobconn.udp_idle", "0").expect("udp_idle");
        machine.advance(Duration::from_mins(20));
        assert!(binding(&vnet, stack).is_ok());
        assert_eq!(send(&vnet, &stack, b"still"), Output::Consumed);
        commit(&vnet, stack, Half::Local, 1).expect("a late commit");
        let (_, out) = came(&machine, &vnet);
        assert_eq!(seen(&out), [look(&segment(&wire, false, Kind::Data, b"still"))]);
    }
}

/// What the commit does to the timers of a connection.
fn timers_at_commit(half: Half, v6: bool, change: impl Fn(Connection) -> Connection) -> Vec<(Timer, u32)> {
    let (machine, vnet, stack, _) = holding(half, v6, TCP);
    vnet.set_connections(&[change(connection(&stack))]);
    commit(&vnet, stack, half, 1).expect("a commit");
    machine.quiesce();
    let timers = vnet.timers();
    assert_eq!(count(&vnet, Counter::Resumed), timers.len() as u64);
    // Once only.
    commit(&vnet, stack, half, 1).expect("a commit");
    assert!(vnet.timers().is_empty());
    timers.into_iter().map(|(_, timer, ticks)| (timer, ticks)).collect()
}

#[test]
fn a_connection_that_waits_for_its_timer_sends_at_once() {
    for half in [Half::Local, Half::Remote] {
        for v6 in [false, true] {
            let none: Vec<(Timer, u32)> = Vec::new();
            for shift in [0, 1, 6, 11] {
                let timers = timers_at_commit(half, v6, |connection| connection.outstanding(shift));
                assert!(matches!(timers.as_slice(), [(Timer::Retransmit, 0..=1)]) || shift == 11, "{shift} {timers:?}");
            }
            assert_eq!(timers_at_commit(half, v6, |connection| connection), none, "nothing is outstanding");
            let last = timers_at_commit(half, v6, |connection| connection.outstanding(12));
            assert_eq!(last, none, "the next try would be the end of it");
            let persists = timers_at_commit(half, v6, |connection| Connection { persist: true, ..connection });
            assert!(matches!(persists.as_slice(), [(Timer::Persist, 0..=1)]), "{persists:?}");
            let rack = |connection: Connection| Connection { stack: TcpStack::Rack, ..connection.outstanding(3) };
            assert_eq!(timers_at_commit(half, v6, rack), none, "another stack keeps timers of its own");
        }
    }
}
