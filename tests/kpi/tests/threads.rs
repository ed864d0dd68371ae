//! Packets, commands, listings and unloading at once.

mod common;

use common::packets::{Way, expected, look, packet, payload};
use common::{add, addresses, count, delete, flow, loaded, module};
use mobconn_abi::{Counter, FLOW_LIST, FlowList, Record, TCP};
use mobconn_kpi::{Errno, Input, Machine, Options, Output, Region, Rx, Split, Tx};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Tells the others to end when a thread does, be it by a failed assertion.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Bound flows that nobody touches are translated, each packet of a flow that comes and goes is whole on one side or the
/// other, and the counters add up.
#[test]
fn packets_while_the_table_changes() {
    const STEADY: u16 = 8;
    const ROUNDS: u32 = 1500;
    let machine = loaded(Options { split: Split::Arbitrary, ..Options::default() });
    let vnet = machine.vnet0();
    for port in 1..=STEADY {
        for v6 in [false, true] {
            let (stack, wire) = flow(v6, TCP, port);
            add(&vnet, stack, wire).expect("FLOW_ADD");
        }
    }
    let translated = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let carriers: Vec<_> = (0..4_u32)
            .map(|number| {
                let translated = &translated;
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let v6 = round % 2 == 0;
                        let data = payload((round % 97) as usize);
                        let (stack, wire) = flow(v6, TCP, 1 + ((round + number) % u32::from(STEADY)) as u16);
                        let Output::Send(sent) =
                            vnet.ip_output(&packet(&stack, Way::Sent, &data, false), &Tx::new("em0"))
                        else {
                            panic!("not sent")
                        };
                        assert_eq!(look(&sent.packets[0]), expected(&wire, Way::Sent, &data));
                        let Input::Deliver(back) =
                            vnet.ip_input(&packet(&wire, Way::Received, &data, false), &Rx::new("em0"))
                        else {
                            panic!("not delivered")
                        };
                        assert_eq!(look(&back.packet), expected(&stack, Way::Received, &data));
                        translated.fetch_add(2, Ordering::Relaxed);
                        // A flow that another thread binds and unbinds.
                        let (stack, wire) = flow(v6, TCP, 1000 + (round % 50) as u16);
                        let Output::Send(sent) =
                            vnet.ip_output(&packet(&stack, Way::Sent, &data, false), &Tx::new("em0"))
                        else {
                            panic!("not sent")
                        };
                        let seen = look(&sent.packets[0]);
                        let moved = sent.destination_changed;
                        assert_eq!(seen, expected(if moved { &wire } else { &stack }, Way::Sent, &data));
                        translated.fetch_add(u64::from(moved), Ordering::Relaxed);
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            let mut port = 0;
            while !done.load(Ordering::Acquire) {
                port = (port + 1) % 50;
                let (stack, wire) = flow(port % 2 == 0, TCP, 1000 + port);
                if add(&vnet, stack, wire) == Err(Errno::EEXIST) {
                    delete(&vnet, stack).expect("FLOW_DELETE");
                }
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                let mut list =
                    FlowList { cursor: 0, buffer: 0x1000, count: 9, record_size: size_of::<Record>() as u32 };
                let mut regions = [Region { address: 0x1000, bytes: vec![0; 9 * size_of::<Record>()] }];
                common::ioctl(&vnet, FLOW_LIST, &mut list, &mut regions).expect("FLOW_LIST");
                assert!(count(&vnet, Counter::FlowAdded) >= 16);
            }
        });
        let outcomes: Vec<_> = carriers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Release);
        for outcome in outcomes {
            outcome.unwrap();
        }
    });
    let counted = count(&vnet, Counter::TranslatedIn) + count(&vnet, Counter::TranslatedOut);
    assert_eq!(counted, translated.load(Ordering::Relaxed));
    assert_eq!(machine.mbufs(), 0);
    machine.check();
}

/// The module goes, and comes again, under traffic: a packet is translated or as it was.
#[test]
fn unloading_under_traffic() {
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    let (stack, wire) = flow(false, TCP, 1000);
    vnet.set_local(&[addresses(&stack).0]);
    let done = AtomicBool::new(false);
    let (moved, untouched) = (AtomicU64::new(0), AtomicU64::new(0));
    // Waits until so many more packets were carried.
    let more = |carried: &AtomicU64| {
        let before = carried.load(Ordering::Acquire);
        while carried.load(Ordering::Acquire) < before + 20 && !done.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
    };
    std::thread::scope(|scope| {
        let carriers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let _end = End(&done);
                    while !done.load(Ordering::Acquire) {
                        let data = payload(64);
                        let Output::Send(sent) =
                            vnet.ip_output(&packet(&stack, Way::Sent, &data, false), &Tx::new("em0"))
                        else {
                            panic!("not sent")
                        };
                        let side = if sent.destination_changed { &wire } else { &stack };
                        assert_eq!(look(&sent.packets[0]), expected(side, Way::Sent, &data));
                        if sent.destination_changed { &moved } else { &untouched }.fetch_add(1, Ordering::AcqRel);
                        let _ = vnet.ip_input(&packet(&wire, Way::Received, &data, false), &Rx::new("em0"));
                    }
                })
            })
            .collect();
        for round in 0..40 {
            add(&vnet, stack, wire).expect("FLOW_ADD");
            more(&moved);
            common::unload(&machine);
            more(&untouched);
            if let Err(error) = machine.kldload(&common::module(), &[]) {
                panic!("round {round}: {error}: {:?}", machine.console());
            }
        }
        done.store(true, Ordering::Release);
        for carrier in carriers {
            carrier.join().unwrap();
        }
    });
    assert_eq!(machine.mbufs(), 0);
}

/// Stacks come and go with bindings alive while others carry packets.
#[test]
fn stacks_come_and_go() {
    let machine = loaded(Options::default());
    std::thread::scope(|scope| {
        for number in 0..4_u16 {
            let machine = &machine;
            scope.spawn(move || {
                for round in 0..30 {
                    let jail = machine.vnet_create();
                    let (stack, wire) = flow(round % 2 == 0, TCP, 1 + number);
                    add(&jail, stack, wire).expect("FLOW_ADD");
                    let data = payload(usize::from(number) * 100);
                    let Output::Send(sent) = jail.ip_output(&packet(&stack, Way::Sent, &data, false), &Tx::new("em0"))
                    else {
                        panic!("not sent")
                    };
                    assert_eq!(look(&sent.packets[0]), expected(&wire, Way::Sent, &data));
                    jail.destroy();
                }
            });
        }
    });
    assert_eq!(machine.sysctl_get("net.inet.mobconn.flows").as_deref(), Ok("0"));
}

/// Somebody reads the sysctls all the time while the module comes and goes: each answer is a value or "no such node".
#[test]
fn sysctls_are_read_while_the_module_comes_and_goes() {
    let machine = Machine::boot(Options::default());
    let done = AtomicBool::new(false);
    let answers = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for name in ["net.inet.mobconn.flows", "net.inet.mobconn.stats.again"] {
            let (machine, done, answers) = (&machine, &done, &answers);
            scope.spawn(move || {
                let _end = End(done);
                while !done.load(Ordering::Acquire) {
                    match machine.sysctl_get(name) {
                        Ok(value) => {
                            assert_eq!(value, "0");
                            answers.fetch_add(1, Ordering::Relaxed);
                        }
                        // Before there is a network stack's table, and when there is no module.
                        Err(error) => assert!([Errno::ENXIO, Errno::ENOENT].contains(&error), "{error}"),
                    }
                }
            });
        }
        let _end = End(&done);
        while answers.load(Ordering::Relaxed) < 1000 && !done.load(Ordering::Acquire) {
            machine.kldload(&module(), &[]).expect("kldload");
            machine.kldunload(false).expect("kldunload");
        }
    });
}
