//! Everything at once: `kpi-storm FILE ROUNDS [FAULT]`.
//!
//! Packets of all kinds, every command, listings, sysctls, and network stacks that come and go, each from threads of
//! their own. Meant for a module and a process that a sanitizer instruments (tools/sanitize), which then says what is
//! wrong; the machine complains about the rest. FAULT is a mistake to make on purpose (see [`Planted`]): what cannot
//! be found by this program cannot be missing either.

use mobconn_abi::{
    EXPIRE, Expire, FLOW_ADD, FLOW_DELETE, FLOW_GET, FLOW_LIST, FLUSH, FlowAdd, FlowDelete, FlowGet, FlowList, INFO,
    Info, MOVE_ABORT, MOVE_COMMIT, MOVE_PREPARE, MoveBatch, MoveEntry, Record, STATS, Stats, TCP, Tuple, UDP,
};
use mobconn_kpi::{Machine, Options, Planted, Region, Rx, Split, Tx, Vnet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use zerocopy::IntoBytes;

const CARRIERS: u64 = 2;
const COMMANDERS: u64 = 2;
/// So few flows that threads meet.
const FLOWS: u64 = 24;
const IFNAME: &str = "em0";

/// Numbers that look random, the same in every run (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % bound
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// A side of a flow; `place` is where the local end is.
    fn side(&mut self, place: u8) -> Tuple {
        let number = self.below(FLOWS);
        let v6 = number & 1 != 0;
        let mut tuple = Tuple {
            local_port: 1000 + (number >> 2) as u16,
            remote_port: 443,
            version: if v6 { 6 } else { 4 },
            protocol: if number & 2 != 0 { UDP } else { TCP },
            ..Tuple::default()
        };
        if v6 {
            tuple.local = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, place];
            tuple.remote = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 9];
        } else {
            tuple.local[..4].copy_from_slice(&[10, 0, 0, place]);
            tuple.remote[..4].copy_from_slice(&[10, 0, 9, 9]);
        }
        tuple
    }

    fn place(&mut self) -> u8 {
        1 + self.below(4) as u8
    }
}

/// A packet from the first end to the second; its checksums are of no matter here.
fn packet(tuple: &Tuple, sent: bool, length: usize, flags: u8) -> Vec<u8> {
    let (from, to) = ((tuple.local, tuple.local_port), (tuple.remote, tuple.remote_port));
    let (from, to) = if sent { (from, to) } else { (to, from) };
    let mut segment = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    if tuple.protocol == TCP {
        segment.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0x10, 0, 0x12, 0x34, 0, 0]);
    } else {
        segment.extend(((8 + length) as u16).to_be_bytes());
        segment.extend([0x12, 0x34]);
    }
    segment.resize(segment.len() + length, 0x5a);
    wrapped(tuple.version, tuple.protocol, &from.0, &to.0, &segment)
}

/// An IP header, and behind it the rest.
fn wrapped(version: u8, protocol: u8, from: &[u8; 16], to: &[u8; 16], rest: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if version == 6 {
        out.extend([0x60, 0, 0, 0]);
        out.extend((rest.len() as u16).to_be_bytes());
        out.extend([protocol, 64]);
        out.extend(from);
        out.extend(to);
    } else {
        out.extend([0x45, 0]);
        out.extend((20 + rest.len() as u16).to_be_bytes());
        out.extend([0, 1, 0, 0, 64, protocol, 0, 0]);
        out.extend(&from[..4]);
        out.extend(&to[..4]);
        let sum: u32 = out.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        out[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    out.extend(rest);
    out
}

/// An error message about a packet that this host sent.
fn error(tuple: &Tuple, length: usize) -> Vec<u8> {
    let mut quote = packet(tuple, true, 40, 0x10);
    quote.truncate(length);
    let kind = if tuple.version == 6 { [2, 0] } else { [3, 4] };
    let message = [&kind[..], &[0, 0, 0, 0, 5, 0], &quote].concat();
    let protocol = if tuple.version == 6 { 58 } else { 1 };
    wrapped(tuple.version, protocol, &tuple.remote, &tuple.local, &message)
}

/// Sends and receives one packet.
fn carry(vnet: &Vnet, dice: &mut Dice) {
    let place = dice.place();
    let tuple = dice.side(place);
    let flags = [0x10, 0x02, 0x04, 0x11, 0x18][dice.below(5) as usize];
    let length = dice.below(1200) as usize;
    let (tx, rx) = (Tx::new(IFNAME), Rx::new(IFNAME));
    match dice.below(8) {
        0..3 => drop(vnet.ip_output(&packet(&tuple, true, length, flags), &tx)),
        3 => drop(vnet.ip_output(&packet(&tuple, true, length, flags), &tx.offload())),
        4..7 => drop(vnet.ip_input(&packet(&tuple, false, length, flags), &rx)),
        _ => drop(vnet.ip_input(&error(&tuple, 20 + length % 80), &rx)),
    }
}

/// Gives one command; what the module answers is its own affair.
fn command(vnet: &Vnet, dice: &mut Dice) {
    let stack = dice.side(1);
    let ioctl = |number: u32, argument: &mut [u8], regions: &mut [Region]| {
        let _ = vnet.ioctl(3, number, argument, regions);
    };
    match dice.below(16) {
        0..4 => {
            let place = dice.place();
            let mut wire = stack;
            if wire.version == 4 {
                wire.local[3] = place
            } else {
                wire.local[15] = place
            }
            ioctl(FLOW_ADD, FlowAdd { stack, wire, flags: 0, reserved: 0 }.as_mut_bytes(), &mut []);
        }
        4 => ioctl(FLOW_DELETE, FlowDelete { stack, flags: 0, reserved: 0 }.as_mut_bytes(), &mut []),
        5 => {
            let record = Record { stack, ..Record::default() };
            ioctl(FLOW_GET, FlowGet { record }.as_mut_bytes(), &mut []);
        }
        6 => {
            let mut list = FlowList { cursor: 0, buffer: 0x1000, count: 9, record_size: size_of::<Record>() as u32 };
            let mut regions = [Region { address: 0x1000, bytes: vec![0; 9 * size_of::<Record>()] }];
            ioctl(FLOW_LIST, list.as_mut_bytes(), &mut regions);
        }
        7 => ioctl(
            EXPIRE,
            Expire { grace: 0, udp_idle: dice.below(2) as u32, ..Expire::default() }.as_mut_bytes(),
            &mut [],
        ),
        8 if dice.one_in(8) => ioctl(FLUSH, &mut [], &mut []),
        8 => {
            ioctl(STATS, Stats::default().as_mut_bytes(), &mut []);
            ioctl(INFO, Info::default().as_mut_bytes(), &mut []);
        }
        kind => {
            let number = [MOVE_PREPARE, MOVE_PREPARE, MOVE_COMMIT, MOVE_ABORT][(kind % 4) as usize];
            let generation = dice.below(6) as u32;
            let count = 1 + dice.below(8) as usize;
            let entries: Vec<MoveEntry> =
                (0..count).map(|_| MoveEntry { stack: dice.side(1), generation, error: 0 }).collect();
            let mut batch = MoveBatch { entries: 0x1000, count: count as u32, half: 1, ..MoveBatch::default() };
            if number == MOVE_PREPARE {
                (batch.address, batch.version) = (stack.local, stack.version);
                batch.hold = dice.below(2) as u8;
                batch.address[if stack.version == 4 { 3 } else { 15 }] = dice.place();
            }
            let mut regions = [Region { address: 0x1000, bytes: entries.as_bytes().to_vec() }];
            ioctl(number, batch.as_mut_bytes(), &mut regions);
        }
    }
}

/// A network stack from its begin to its end.
fn jail(machine: &Machine, dice: &mut Dice) {
    let vnet = machine.vnet_create();
    for _ in 0..20 {
        command(&vnet, dice);
        carry(&vnet, dice);
    }
    vnet.destroy();
}

fn storm(machine: &Machine, rounds: u64) {
    let vnet = machine.vnet0();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let carriers = (0..CARRIERS).map(|number| {
            scope.spawn(move || {
                let mut dice = Dice(number);
                (0..rounds).for_each(|_| carry(&vnet, &mut dice));
            })
        });
        let commanders = (0..COMMANDERS).map(|number| {
            scope.spawn(move || {
                let mut dice = Dice(1000 + number);
                (0..rounds / 4).for_each(|_| command(&vnet, &mut dice));
            })
        });
        let workers: Vec<_> = carriers.chain(commanders).collect();
        scope.spawn(|| {
            let mut dice = Dice(2000);
            while !done.load(Ordering::Acquire) {
                jail(machine, &mut dice);
                for name in machine.sysctl_names("net.inet.mobconn") {
                    drop(machine.sysctl_get(&name));
                }
                // The clock is the module's only idea of time.
                machine.set_uptime(Some(dice.below(1000)));
            }
        });
        let outcomes: Vec<_> = workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Release);
        outcomes.into_iter().for_each(|outcome| outcome.expect("a thread"));
    });
    println!("{} packets, {} commands", rounds * CARRIERS, rounds / 4 * COMMANDERS);
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (file, rounds) = (arguments.next().map(PathBuf::from), arguments.next().and_then(|n| n.parse::<u64>().ok()));
    let planted = match arguments.next().as_deref() {
        None => Some(Planted::Nothing),
        Some("short-memory") => Some(Planted::ShortMemory),
        Some("no-locks") => Some(Planted::NoLocks),
        Some(_) => None,
    };
    let (Some(file), Some(rounds), Some(planted)) = (file, rounds, planted) else {
        eprintln!("usage: kpi-storm FILE ROUNDS [short-memory | no-locks]");
        return ExitCode::from(64);
    };
    let machine = Machine::boot(Options { split: Split::Arbitrary, planted, ..Options::default() });
    // Twice, so that what one load leaves behind meets the next.
    for _ in 0..2 {
        if let Err(error) = machine.kldload(&file, &[]) {
            eprintln!("kpi-storm: {}: {error} {:?}", file.display(), machine.console());
            return ExitCode::FAILURE;
        }
        storm(&machine, rounds / 2);
        machine.sysctl_set("net.inet.mobconn.force_unload", "1").expect("force_unload");
        machine.kldunload(false).expect("kldunload");
    }
    machine.check();
    println!("1 passed, 0 failed");
    ExitCode::SUCCESS
}
