//! The device: who may, what is checked, and that nothing hostile does harm.

mod common;

use common::{RW, add, flow, ioctl, loaded};
use mobconn_abi::{
    BATCH_MAX, EXPIRE, FLOW_ADD, FLOW_DELETE, FLOW_GET, FLOW_LIST, FLUSH, FlowAdd, FlowDelete, FlowGet, FlowList, INFO,
    Info, LIST_MAX, MOVE_ABORT, MOVE_COMMIT, MOVE_PREPARE, MoveBatch, MoveEntry, Record, STATS, TCP, UDP,
    argument_length,
};
use mobconn_kpi::{Errno, Machine, Options, Region, Vnet};
use zerocopy::{FromBytes, IntoBytes};

const ALL: [u32; 11] =
    [INFO, FLOW_ADD, FLOW_DELETE, FLOW_GET, FLOW_LIST, MOVE_PREPARE, MOVE_COMMIT, MOVE_ABORT, EXPIRE, FLUSH, STATS];

fn flows(vnet: &Vnet) -> u32 {
    let mut info = Info::default();
    ioctl(vnet, INFO, &mut info, &mut []).expect("INFO");
    info.flows
}

/// A generator of the test's own (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

#[test]
fn only_root_gets_in() {
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    assert_eq!(vnet.open("mobconn", 1001, 1).map(drop), Err(Errno::EACCES));
    assert_eq!(vnet.open("mobconn", 1001, 3).map(drop), Err(Errno::EACCES));
    assert_eq!(vnet.open("mobcon", 0, 3).map(drop), Err(Errno::ENOENT));
    let mut argument = [0; 32];
    assert_eq!(vnet.open("mobconn", 0, 1).and_then(|file| file.ioctl(INFO, &mut argument, &mut [])), Ok(()));
}

#[test]
fn reading_is_not_writing() {
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    let (stack, wire) = flow(false, TCP, 1000);
    let mut bytes = FlowAdd { stack, wire, flags: 0, reserved: 0 }.as_bytes().to_vec();
    assert_eq!(vnet.ioctl(1, FLOW_ADD, &mut bytes, &mut []), Err(Errno::EACCES));
    assert_eq!(flows(&vnet), 0);
    assert_eq!(vnet.ioctl(RW, FLOW_ADD, &mut bytes, &mut []), Ok(()));
}

#[test]
fn a_command_of_another_length_is_no_command() {
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    for command in ALL {
        for length in [0, 1, argument_length(command).wrapping_sub(1), argument_length(command) + 1, 8191] {
            if length == argument_length(command) || length > 8191 {
                continue;
            }
            let other = command & !0x1fff_0000 | (length as u32) << 16;
            assert_eq!(vnet.ioctl(RW, other, &mut [0; 8192], &mut []), Err(Errno::ENOTTY), "{other:#x}");
        }
        for other in [command ^ 0x100, command & 0xffff_ff00, command | 0xff, command & 0x1fff_ffff] {
            assert_eq!(vnet.ioctl(RW, other, &mut [0; 8192], &mut []), Err(Errno::ENOTTY), "{other:#x}");
        }
    }
}

#[test]
fn a_short_argument_faults() {
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    for command in ALL {
        let length = argument_length(command);
        if length > 0 {
            let mut short = vec![0; length - 1];
            assert_eq!(vnet.ioctl(RW, command, &mut short, &mut []), Err(Errno::EFAULT), "{command:#x}");
        }
    }
}

#[test]
fn every_bad_field_is_refused() {
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    let (stack, wire) = flow(false, TCP, 1000);
    let good = FlowAdd { stack, wire, flags: 0, reserved: 0 };
    let spoil: [fn(&mut FlowAdd); 16] = [
        |a| a.flags = 1,
        |a| a.reserved = 1,
        |a| a.stack.local_port = 0,
        |a| a.wire.remote_port = 0,
        |a| a.stack.version = 5,
        |a| a.wire.version = 6,
        |a| a.stack.protocol = 1,
        |a| a.wire.protocol = UDP,
        |a| a.stack.reserved = [0, 1],
        |a| a.wire.local[15] = 1,
        |a| a.wire.local = [0; 16],
        |a| a.wire.remote[..4].copy_from_slice(&[224, 0, 0, 1]),
        |a| a.wire.remote[..4].copy_from_slice(&[255; 4]),
        |a| a.wire.local[..4].copy_from_slice(&[127, 0, 0, 1]),
        |a| a.stack.remote = [0; 16],
        |a| a.stack.protocol = 0,
    ];
    for (index, spoil) in spoil.iter().enumerate() {
        let mut bad = good;
        spoil(&mut bad);
        assert_eq!(ioctl(&vnet, FLOW_ADD, &mut bad, &mut []), Err(Errno::EINVAL), "field {index}");
        assert_eq!(flows(&vnet), 0);
    }
    assert_eq!(ioctl(&vnet, FLOW_ADD, &mut good.clone(), &mut []), Ok(()));
    assert_eq!(ioctl(&vnet, FLOW_ADD, &mut good.clone(), &mut []), Err(Errno::EEXIST));
    let (other, _) = flow(false, TCP, 1001);
    assert_eq!(add(&vnet, other, wire), Err(Errno::EADDRINUSE));
    let mut bad = FlowDelete { stack, flags: 1, reserved: 0 };
    assert_eq!(ioctl(&vnet, FLOW_DELETE, &mut bad, &mut []), Err(Errno::EINVAL));
    assert_eq!(common::delete(&vnet, other), Err(Errno::ENOENT));
    assert_eq!(flows(&vnet), 1);
}

#[test]
fn a_full_table_says_so() {
    let machine = Machine::boot(Options::default());
    machine.kldload(&common::module(), &[("net.inet.mobconn.max_flows", "100")]).expect("kldload");
    let vnet = machine.vnet0();
    for port in 1..=100 {
        let (stack, wire) = flow(false, TCP, port);
        add(&vnet, stack, wire).expect("FLOW_ADD");
    }
    let (stack, wire) = flow(false, TCP, 101);
    assert_eq!(add(&vnet, stack, wire), Err(Errno::ENOSPC));
    common::delete(&vnet, flow(false, TCP, 50).0).expect("FLOW_DELETE");
    assert_eq!(add(&vnet, stack, wire), Ok(()));
    assert_eq!(flows(&vnet), 100);
}

#[test]
fn lists_go_on_where_they_ended() {
    const USER: u64 = 0x20_0000;
    const FLOWS: u16 = 300;
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    for port in 1..=FLOWS {
        let (stack, wire) = flow(port % 2 == 0, TCP, port);
        add(&vnet, stack, wire).expect("FLOW_ADD");
    }
    for step in [1, 7, 64, 65, LIST_MAX] {
        let mut cursor = 0;
        let mut ports = Vec::new();
        loop {
            let room = step as usize * size_of::<Record>();
            let mut regions = [Region { address: USER, bytes: vec![0xee; room + 1] }];
            let mut list = FlowList { cursor, buffer: USER, count: step, record_size: size_of::<Record>() as u32 };
            ioctl(&vnet, FLOW_LIST, &mut list, &mut regions).expect("FLOW_LIST");
            let written = list.count as usize * size_of::<Record>();
            let (records, rest) = regions[0].bytes.split_at(written);
            assert!(rest.iter().all(|&byte| byte == 0xee), "written beyond what it says");
            for record in records.chunks_exact(size_of::<Record>()) {
                let record = Record::read_from_bytes(record).expect("a record");
                assert_eq!(record.wire, flow(record.stack.version == 6, TCP, record.stack.local_port).1);
                ports.push(record.stack.local_port);
            }
            cursor = list.cursor;
            if cursor == 0 {
                break;
            }
        }
        ports.sort_unstable();
        assert_eq!(ports, (1..=FLOWS).collect::<Vec<_>>(), "steps of {step}");
    }
    // A buffer that ends too early, or is nowhere.
    for (address, length) in [(USER, 10 * size_of::<Record>() - 1), (USER + 8, 100_000), (0, 0)] {
        let mut regions = [Region { address, bytes: vec![0; length] }];
        let mut list = FlowList { cursor: 0, buffer: USER, count: 10, record_size: size_of::<Record>() as u32 };
        assert_eq!(ioctl(&vnet, FLOW_LIST, &mut list, &mut regions), Err(Errno::EFAULT));
    }
    let mut list = FlowList { cursor: 0, buffer: u64::MAX - 100, count: 10, record_size: size_of::<Record>() as u32 };
    assert_eq!(ioctl(&vnet, FLOW_LIST, &mut list, &mut []), Err(Errno::EFAULT));
    assert_eq!(flows(&vnet), u32::from(FLOWS));
}

#[test]
fn batches_are_read_and_written() {
    const USER: u64 = 0x7f00_1000;
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    let entries: Vec<MoveEntry> =
        (1..=5).map(|port| MoveEntry { stack: flow(false, TCP, port).0, generation: 1, error: 77 }).collect();
    let mut regions = [Region { address: USER, bytes: entries.as_bytes().to_vec() }];
    let mut batch = MoveBatch { entries: USER, count: 5, version: 4, half: 1, ..MoveBatch::default() };
    batch.address[..4].copy_from_slice(&[198, 51, 100, 9]);
    let header = batch;
    ioctl(&vnet, MOVE_PREPARE, &mut batch, &mut regions).expect("MOVE_PREPARE");
    assert_eq!((batch.failed, flows(&vnet)), (0, 5));
    // Half of the array is not there: nothing happens.
    let mut short = [Region { address: USER, bytes: entries.as_bytes()[..200].to_vec() }];
    let mut batch = MoveBatch { address: [0; 16], version: 0, ..header };
    assert_eq!(ioctl(&vnet, MOVE_ABORT, &mut batch, &mut short), Err(Errno::EFAULT));
    let mut batch = MoveBatch { count: BATCH_MAX + 1, address: [0; 16], version: 0, ..header };
    assert_eq!(ioctl(&vnet, MOVE_ABORT, &mut batch, &mut regions), Err(Errno::E2BIG));
    let mut batch = MoveBatch { address: [0; 16], version: 0, ..header };
    ioctl(&vnet, MOVE_COMMIT, &mut batch, &mut regions).expect("MOVE_COMMIT");
    assert_eq!(batch.failed, 0);
    let mut get = FlowGet::default();
    get.record.stack = flow(false, TCP, 3).0;
    ioctl(&vnet, FLOW_GET, &mut get, &mut []).expect("FLOW_GET");
    assert_eq!(get.record.wire.local[..4], [198, 51, 100, 9]);
    // An older generation is told so, in its own entry.
    let mut batch = MoveBatch { address: [0; 16], version: 0, ..header };
    regions[0].bytes[40] = 9;
    ioctl(&vnet, MOVE_COMMIT, &mut batch, &mut regions).expect("MOVE_COMMIT");
    let entry = MoveEntry::read_from_bytes(&regions[0].bytes[..size_of::<MoveEntry>()]).expect("an entry");
    assert_eq!((batch.failed, entry.error), (1, Errno::ENOENT.0 as u32));
}

/// Random and nearly right arguments with random user memory; afterwards the module works and leaves nothing.
#[test]
fn nonsense_does_no_harm() {
    for seed in 0..6 {
        let machine = loaded(Options { seed, ..Options::default() });
        let vnet = machine.vnet0();
        let mut random = Random(seed);
        let (stack, wire) = flow(false, TCP, 1000);
        for round in 0..4000 {
            let command = ALL[random.below(ALL.len())];
            let mut argument = vec![0; argument_length(command)];
            match random.below(3) {
                0 => argument.iter_mut().for_each(|byte| *byte = random.next() as u8),
                1 => {
                    let tuples = FlowAdd { stack, wire, flags: 0, reserved: 0 };
                    let known = &tuples.as_bytes()[..argument.len().min(size_of::<FlowAdd>())];
                    argument[..known.len()].copy_from_slice(known);
                    for _ in 0..random.below(3) {
                        let at = random.below(argument.len().max(1));
                        if let Some(byte) = argument.get_mut(at) {
                            *byte ^= 1 << random.below(8);
                        }
                    }
                }
                _ => {}
            }
            // Pointers near the region.
            let base = 0x10_0000;
            if matches!(command, FLOW_LIST | MOVE_PREPARE | MOVE_COMMIT | MOVE_ABORT) && random.below(2) == 0 {
                let at = if command == FLOW_LIST { 8 } else { 16 };
                let pointer = base + random.below(4) as u64 * 48;
                argument[at..at + 8].copy_from_slice(&pointer.to_le_bytes());
                argument[at + 8..at + 12].copy_from_slice(&(random.below(50) as u32).to_le_bytes());
                if command == FLOW_LIST {
                    argument[20..24].copy_from_slice(&(size_of::<Record>() as u32).to_le_bytes());
                }
            }
            let bytes = (0..random.below(3000)).map(|_| random.next() as u8).collect();
            let mut regions = [Region { address: base, bytes }];
            let fflag = 1 + random.below(3) as u32;
            let result = vnet.ioctl(fflag, command, &mut argument, &mut regions);
            let ok = match result {
                Ok(()) => true,
                Err(error) => error.name().is_some(),
            };
            assert!(ok, "round {round} seed {seed}: {result:?}");
        }
        vnet.ioctl(RW, FLUSH, &mut [], &mut []).expect("FLUSH");
        assert_eq!(add(&vnet, stack, wire), Ok(()));
        assert_eq!(flows(&vnet), 1);
        machine.check();
    }
}

#[test]
fn counters_can_be_read_and_reset() {
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    let (stack, wire) = flow(false, TCP, 1000);
    add(&vnet, stack, wire).expect("FLOW_ADD");
    let added = mobconn_abi::Counter::FlowAdded as usize;
    let name = format!("net.inet.mobconn.stats.{}", mobconn_abi::Counter::FlowAdded.name());
    assert_eq!(machine.sysctl_get(&name).as_deref(), Ok("1"));
    let names = machine.sysctl_names("net.inet.mobconn.stats.");
    assert_eq!(names.len(), mobconn_abi::Counter::ALL.len());
    let mut stats = common::stats(&vnet);
    assert_eq!((stats.count as usize, stats.values[added]), (mobconn_abi::Counter::ALL.len(), 1));
    stats.reset = 1;
    ioctl(&vnet, STATS, &mut stats, &mut []).expect("STATS");
    assert_eq!(stats.values[added], 1);
    assert_eq!(common::stats(&vnet).values, [0; mobconn_abi::STATS_MAX]);
    stats.reset = 2;
    assert_eq!(ioctl(&vnet, STATS, &mut stats, &mut []), Err(Errno::EINVAL));
}
