//! Short memory at every place where the module asks for some.

mod common;

use common::packets::{Way, expected, look, packet, payload};
use common::{add, count, flow};
use mobconn_abi::{Counter, FLOW_LIST, FlowList, MOVE_PREPARE, MoveBatch, MoveEntry, Record, TCP};
use mobconn_kpi::{Errno, Failures, Input, Machine, Options, Output, Region, Rx, Split, Tx};
use zerocopy::IntoBytes;

#[test]
fn the_load_fails_cleanly_or_not_at_all() {
    let mut refused = 0;
    for after in 0..40 {
        let machine = Machine::boot(Options { failures: Failures::After(after), ..Options::default() });
        match machine.kldload(&common::module(), &[]) {
            Ok(()) => {
                machine.set_failures(Failures::None);
                let (stack, wire) = flow(false, TCP, 1000);
                // A VNET without an instance refuses; one with an instance works.
                let added = add(&machine.vnet0(), stack, wire);
                assert!(matches!(added, Ok(()) | Err(Errno::ENXIO | Errno::ENOMEM)), "{after}: {added:?}");
                refused += u32::from(added.is_err());
            }
            Err(error) => {
                assert_eq!(error, Errno::ENOEXEC, "{after}");
                refused += 1;
                assert_eq!(machine.devices(), Vec::<String>::new());
            }
        }
    }
    assert!(refused > 0, "no allocation of the load was failed");
}

#[test]
fn a_vnet_without_memory_still_works_as_a_network() {
    let mut without = 0;
    for after in 0..12 {
        let machine = common::loaded(Options::default());
        machine.set_failures(Failures::After(after));
        let jail = machine.vnet_create();
        machine.set_failures(Failures::None);
        let (stack, wire) = flow(false, TCP, 1000);
        without += u32::from(add(&jail, stack, wire).is_err());
        let other = flow(false, TCP, 2000).0;
        let bytes = packet(&other, Way::Sent, &payload(10), false);
        assert!(matches!(jail.ip_output(&bytes, &Tx::new("em0")), Output::Send(_)), "{after}");
        jail.destroy();
    }
    assert!(without > 0, "no allocation of an instance was failed");
}

#[test]
fn commands_fail_and_change_nothing() {
    for after in 0..60 {
        let machine = common::loaded(Options::default());
        let vnet = machine.vnet0();
        machine.set_failures(Failures::After(after));
        let mut failed = false;
        for port in 1..=200 {
            let (stack, wire) = flow(port % 2 == 0, TCP, port);
            match add(&vnet, stack, wire) {
                Ok(()) => {}
                Err(Errno::ENOMEM) => {
                    assert!(!failed, "only one allocation fails");
                    failed = true;
                    assert_eq!(add(&vnet, stack, wire), Ok(()), "{after}: the second attempt");
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(machine.sysctl_get("net.inet.mobconn.flows").as_deref(), Ok("200"));
        let mut list = FlowList { cursor: 0, buffer: 0x1000, count: 200, record_size: size_of::<Record>() as u32 };
        let mut regions = [Region { address: 0x1000, bytes: vec![0; 200 * size_of::<Record>()] }];
        machine.set_failures(Failures::All);
        assert_eq!(common::ioctl(&vnet, FLOW_LIST, &mut list, &mut regions), Err(Errno::ENOMEM));
        let entries = [MoveEntry { stack: flow(true, TCP, 2).0, generation: 5, error: 0 }];
        let mut regions = [Region { address: 0x1000, bytes: entries.as_bytes().to_vec() }];
        let mut batch = MoveBatch { entries: 0x1000, count: 1, version: 6, half: 1, ..MoveBatch::default() };
        batch.address[0] = 0x20;
        assert_eq!(common::ioctl(&vnet, MOVE_PREPARE, &mut batch, &mut regions), Err(Errno::ENOMEM));
        machine.set_failures(Failures::None);
    }
}

#[test]
fn packets_are_whole_or_gone() {
    let (mut gone, mut passed) = (0_u64, 0_u64);
    for seed in 0..8 {
        let machine = common::loaded(Options { seed, split: Split::Arbitrary, ..Options::default() });
        let vnet = machine.vnet0();
        vnet.set_mtu("em0", 1600);
        for v6 in [false, true] {
            let (stack, wire) = flow(v6, TCP, 1000);
            add(&vnet, stack, wire).expect("FLOW_ADD");
            machine.set_failures(Failures::PerMillion(400_000));
            for round in 0..1500 {
                let data = payload(round % 1400);
                match vnet.ip_output(&packet(&stack, Way::Sent, &data, round % 3 == 0), &Tx::new("em0")) {
                    Output::Send(sent) => {
                        assert_eq!(look(&sent.packets[0]), expected(&wire, Way::Sent, &data));
                        passed += 1;
                    }
                    Output::Consumed => gone += 1,
                    other => panic!("{other:?}"),
                }
                match vnet.ip_input(&packet(&wire, Way::Received, &data, round % 3 == 0), &Rx::new("em0")) {
                    Input::Deliver(delivered) => {
                        assert_eq!(look(&delivered.packet), expected(&stack, Way::Received, &data));
                        passed += 1;
                    }
                    Input::Consumed => gone += 1,
                    other => panic!("{other:?}"),
                }
                assert_eq!(machine.mbufs(), 0);
            }
            machine.set_failures(Failures::None);
        }
        machine.check();
        let memory = count(&vnet, Counter::DroppedMemory);
        assert!(memory > 0);
        assert_eq!(memory + count(&vnet, Counter::TranslatedIn) + count(&vnet, Counter::TranslatedOut), 6000);
    }
    assert!(gone > 1000 && passed > 1000, "{gone} {passed}");
}
