//! Nanoseconds per packet of the module's hook: `kpi-bench [FILE [JSON]]` (`build/mobconn.ko` by default); the rows
//! are also written to the file JSON.
//!
//! One thread calls the hook alone, again and again, on one packet that is put back as it was before each call; what
//! that costs without the call is measured too and subtracted. The best of several runs.

use mobconn_abi::{Counter, FLOW_ADD, FLUSH, FlowAdd, STATS, Stats, TCP, Tuple};
use mobconn_kpi::{Direction, Machine, Options, Rx, Tx, Vnet};
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use zerocopy::{FromBytes, IntoBytes};

const CALLS: u64 = 100_000;
const RUNS: usize = 60;

fn tuple(v6: bool, local: u8, remote: u8, number: u32) -> Tuple {
    let mut tuple = Tuple { local_port: number as u16, remote_port: 443, protocol: TCP, ..Tuple::default() };
    let high = (number >> 16) as u8;
    if v6 {
        tuple.version = 6;
        tuple.local = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, high, local];
        tuple.remote = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, high, remote];
    } else {
        tuple.version = 4;
        tuple.local[..4].copy_from_slice(&[10, 0, high, local]);
        tuple.remote[..4].copy_from_slice(&[10, 1, high, remote]);
    }
    tuple
}

/// A TCP segment with 1000 bytes along the tuple; its checksums are of no matter here.
fn segment(tuple: &Tuple, direction: Direction) -> Vec<u8> {
    let (from, to) = match direction {
        Direction::Out => ((tuple.local, tuple.local_port), (tuple.remote, tuple.remote_port)),
        Direction::In => ((tuple.remote, tuple.remote_port), (tuple.local, tuple.local_port)),
    };
    let mut out = Vec::new();
    if tuple.version == 6 {
        out.extend([0x60, 0, 0, 0]);
        out.extend(1020_u16.to_be_bytes());
        out.extend([TCP, 64]);
        out.extend(from.0);
        out.extend(to.0);
    } else {
        out.extend([0x45, 0]);
        out.extend(1040_u16.to_be_bytes());
        out.extend([0, 1, 0, 0, 64, TCP, 0, 0]);
        out.extend(&from.0[..4]);
        out.extend(&to.0[..4]);
    }
    out.extend(from.1.to_be_bytes());
    out.extend(to.1.to_be_bytes());
    out.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0x10, 0, 0x12, 0x34, 0, 0]);
    out.resize(out.len() + 1000, 0x5a);
    out
}

/// Binds `count` flows of each version, as a host does that has moved: what goes elsewhere would be routed in the hook.
fn fill(vnet: &Vnet, count: u32) {
    vnet.ioctl(3, FLUSH, &mut [], &mut []).expect("FLUSH");
    for number in 1..=count {
        for v6 in [false, true] {
            let add = FlowAdd { stack: tuple(v6, 1, 2, number), wire: tuple(v6, 3, 2, number), flags: 0, reserved: 0 };
            vnet.ioctl(3, FLOW_ADD, &mut add.as_bytes().to_vec(), &mut []).expect("FLOW_ADD");
        }
    }
}

/// Packets that the module has translated.
fn translated(vnet: &Vnet) -> u64 {
    let mut stats = Stats::default().as_bytes().to_vec();
    vnet.ioctl(3, STATS, &mut stats, &mut []).expect("STATS");
    let stats = Stats::read_from_bytes(&stats).expect("as long as before");
    stats.values[Counter::TranslatedIn as usize] + stats.values[Counter::TranslatedOut as usize]
}

/// Nanoseconds of a call, as far as other programs let it run.
fn measure(vnet: &Vnet, packet: &[u8], direction: Direction, hit: bool) -> f64 {
    let prepared = vnet.prepare(packet, direction);
    let before = translated(vnet);
    let _ = prepared.run(2, true);
    assert_eq!(translated(vnet) - before, 2 * u64::from(hit), "the packet is not what the row says");
    let best = |hook| (0..RUNS).map(|_| prepared.run(CALLS, hook).as_secs_f64()).fold(f64::INFINITY, f64::min);
    (best(true) - best(false)) * 1e9 / CALLS as f64
}

fn row(vnet: &Vnet, name: &str, sides: [u8; 4], hit: bool, json: &mut Vec<String>) {
    print!("{name:<28}");
    let mut values = Vec::new();
    for v6 in [false, true] {
        for direction in [Direction::Out, Direction::In] {
            let [out_local, out_remote, in_local, in_remote] = sides;
            let side = match direction {
                Direction::Out => tuple(v6, out_local, out_remote, 7),
                Direction::In => tuple(v6, in_local, in_remote, 7),
            };
            let value = measure(vnet, &segment(&side, direction), direction, hit);
            print!("{value:>10.1}");
            values.push(format!("{value:.1}"));
        }
    }
    println!();
    json.push(format!("{{\"name\":\"hook, {name}\",\"unit\":\"ns\",\"value\":[{}]}}", values.join(",")));
}

/// Nanoseconds of a whole call of the emulated IP layer, which is what a host made of it costs per packet.
fn whole(vnet: &Vnet, name: &str) {
    print!("{name:<28}");
    for v6 in [false, true] {
        let output = segment(&tuple(v6, 1, 2, 7), Direction::Out);
        let mut input = segment(&tuple(v6, 3, 4, 7), Direction::In);
        if !v6 {
            let sum: u32 = input[..20].chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
            input[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
        }
        for direction in [Direction::Out, Direction::In] {
            let best = (0..RUNS).map(|_| {
                let start = Instant::now();
                for _ in 0..CALLS / 100 {
                    match direction {
                        Direction::Out => drop(black_box(vnet.ip_output(&output, &Tx::new("em0")))),
                        Direction::In => drop(black_box(vnet.ip_input(&input, &Rx::new("em0")))),
                    }
                }
                start.elapsed().as_secs_f64() * 1e9 / (CALLS / 100) as f64
            });
            print!("{:>10.1}", best.fold(f64::INFINITY, f64::min));
        }
    }
    println!();
}

fn main() -> ExitCode {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build/mobconn.ko");
    let file = std::env::args_os().nth(1).map_or_else(default, PathBuf::from);
    let machine = Machine::boot(Options::default());
    if let Err(error) = machine.kldload(&file, &[]) {
        eprintln!("kpi-bench: {}: {error} {:?}", file.display(), machine.console());
        return ExitCode::FAILURE;
    }
    let vnet = machine.vnet0();
    println!("ns per packet of the hook   {:>10}{:>10}{:>10}{:>10}", "IPv4 out", "IPv4 in", "IPv6 out", "IPv6 in");
    let mut json = Vec::new();
    row(&vnet, "no binding", [1, 2, 3, 2], false, &mut json);
    for flows in [7, 1_000, 30_000] {
        fill(&vnet, flows);
        row(&vnet, &format!("{} bindings: miss", flows * 2), [8, 9, 8, 9], false, &mut json);
        row(&vnet, &format!("{} bindings: hit", flows * 2), [1, 2, 3, 2], true, &mut json);
    }
    whole(&vnet, "whole emulated IP layer, hit");
    vnet.ioctl(3, FLUSH, &mut [], &mut []).expect("FLUSH");
    println!("most stack in use at a call of the kernel: {} bytes", machine.deepest_stack());
    if let Some(file) = std::env::args_os().nth(2)
        && let Err(error) = std::fs::write(&file, format!("[\n{}\n]\n", json.join(",\n")))
    {
        eprintln!("kpi-bench: {}: {error}", file.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
