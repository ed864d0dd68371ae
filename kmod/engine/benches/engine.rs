//! The engine alone: nanoseconds, memory, and what the machine can do at all,
//! measured in the same run. Prints a table; with `--json FILE` also writes it
//! there. `--quick` leaves out a million flows.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "a bench")]

use mobconn_engine::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

/// Counts what is allocated: the packet path must not.
struct Counting;
static CALLS: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Relaxed);
        BYTES.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller's own promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A TCP segment, or what of it is looked at.
struct Header {
    bytes: [u8; 64],
    v6: bool,
}

impl Packet for Header {
    fn head(&self) -> &[u8] {
        &self.bytes
    }
    fn total(&self) -> usize {
        64
    }
    fn pull(&mut self, _: usize) -> Result<(), Gone> {
        Err(Gone)
    }
    fn writable(&mut self, len: usize) -> Result<&mut [u8], Gone> {
        self.bytes.get_mut(..len).ok_or(Gone)
    }
    fn checksum(&self) -> Checksum {
        Checksum::Complete
    }
    fn shift_sum(&mut self, _: u16) {}
}

const OWN: [u8; 4] = [10, 2, 0, 2];
const AWAY: [u8; 4] = [10, 3, 0, 2];

fn remote(flow: u32) -> [u8; 4] {
    (0x0b00_0000 + (flow >> 14)).to_be_bytes()
}

const fn port(flow: u32) -> u16 {
    1024 + (flow & 0x3fff) as u16
}

impl Header {
    fn new(v6: bool) -> Self {
        let mut bytes = [0; 64];
        if v6 {
            bytes[0] = 0x60;
            bytes[5] = 24;
            bytes[6] = 6;
            bytes[8] = 0x20;
            bytes[24] = 0x20;
            bytes[52] = 0x50;
            bytes[53] = 0x10;
        } else {
            bytes[0] = 0x45;
            bytes[3] = 64;
            bytes[9] = 6;
            bytes[32] = 0x50;
            bytes[33] = 0x10;
        }
        Self { bytes, v6 }
    }

    /// Makes it a segment of a flow, from `local` or to it.
    #[inline(always)]
    fn set(&mut self, flow: u32, local: [u8; 4], received: bool) {
        let (source, destination, at) = if self.v6 { (20, 36, 40) } else { (12, 16, 20) };
        let ends = [(local, port(flow)), (remote(flow), 80)];
        let (from, to) = if received { (ends[1], ends[0]) } else { (ends[0], ends[1]) };
        self.bytes[source..source + 4].copy_from_slice(&from.0);
        self.bytes[destination..destination + 4].copy_from_slice(&to.0);
        self.bytes[at..at + 2].copy_from_slice(&from.1.to_be_bytes());
        self.bytes[at + 2..at + 4].copy_from_slice(&to.1.to_be_bytes());
    }

    fn version(&self) -> Version {
        if self.v6 { Version::V6 } else { Version::V4 }
    }
}

fn side(flow: u32, local: [u8; 4], v6: bool) -> Side {
    let address = |octets: [u8; 4]| {
        if !v6 {
            return Address::v4(octets);
        }
        let mut all = [0; 16];
        all[0] = 0x20;
        all[12..].copy_from_slice(&octets);
        Address(all)
    };
    let version = if v6 { Version::V6 } else { Version::V4 };
    let (local, remote) = (address(local), address(remote(flow)));
    Side { local, remote, local_port: port(flow), remote_port: 80, version, protocol: Protocol::Tcp }
}

/// Numbers that jump about, cheaply.
struct Jump(u32);

impl Jump {
    #[inline(always)]
    fn next(&mut self, below: u32) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (u64::from(self.0) * u64::from(below) >> 32) as u32
    }
}

/// The best of some runs, in nanoseconds a time.
fn best(runs: usize, times: u32, mut run: impl FnMut(u32)) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..runs {
        let start = Instant::now();
        run(times);
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(times));
    }
    best
}

/// Reading a header and patching it with no table.
#[inline(always)]
fn touch(header: &mut Header) {
    let at = if header.v6 { 20 } else { 12 };
    let old = u32::from_be_bytes(header.bytes[at..at + 4].try_into().unwrap());
    let new = u32::from_be_bytes(AWAY);
    header.bytes[at..at + 4].copy_from_slice(&AWAY);
    let check = if header.v6 { 56 } else { 36 };
    for field in if header.v6 { [check, check] } else { [10, check] } {
        let sum = u16::from_be_bytes([header.bytes[field], header.bytes[field + 1]]);
        let mut wide = u64::from(!sum) + u64::from(!old) + u64::from(new);
        wide = (wide & 0xffff) + (wide >> 16 & 0xffff) + (wide >> 32);
        wide = (wide & 0xffff) + (wide >> 16);
        wide = (wide & 0xffff) + (wide >> 16);
        header.bytes[field..field + 2].copy_from_slice(&(!(wide as u16)).to_be_bytes());
    }
}

/// One dependent access to a random line of so many bytes.
fn random_access(bytes: usize) -> f64 {
    let lines = (bytes / 64).max(2);
    let mut next: Vec<[u32; 16]> = vec![[0; 16]; lines];
    // One cycle through all lines (Sattolo).
    let mut order: Vec<u32> = (0..lines as u32).collect();
    let mut jump = Jump(7);
    for i in (1..lines).rev() {
        order.swap(i, jump.next(i as u32) as usize);
    }
    for pair in 0..lines {
        next[order[pair] as usize][0] = order[(pair + 1) % lines];
    }
    let mut at = 0_u32;
    best(5, 400_000, |times| {
        for _ in 0..times {
            at = next[at as usize][0];
        }
        black_box(at);
    })
}

fn table(flows: u32, v6: bool) -> (Engine, Control) {
    let key = core::array::from_fn(|i| 0x9e37_79b9_7f4a_7c15_u64.rotate_left(11 * i as u32) ^ 0x1234_5678);
    let (engine, mut control) = new(&Config { capacity: flows.max(1), key }).unwrap();
    for flow in 0..flows {
        control.add(&engine, &side(flow, OWN, v6), &side(flow, AWAY, v6), 1).unwrap();
    }
    (engine, control)
}

/// Headers that are filled before they are used: read right after it was
/// written, a header would cost what no received one does.
const BATCH: u32 = 32;

fn batches(flows: u32, v6: bool, received: bool, local: [u8; 4], times: u32, mut work: impl FnMut(&mut Header)) {
    let mut headers: [Header; BATCH as usize] = core::array::from_fn(|_| Header::new(v6));
    let mut jump = Jump(1);
    for _ in 0..times / BATCH {
        for header in &mut headers {
            header.set(jump.next(flows), local, received);
        }
        black_box(&mut headers);
        headers.iter_mut().for_each(&mut work);
    }
}

fn packets(engine: &Engine, flows: u32, v6: bool, received: bool, local: [u8; 4], expected: Verdict, times: u32) {
    batches(flows, v6, received, local, times, |header| {
        let version = header.version();
        let verdict = if received { engine.input(header, version, 5) } else { engine.output(header, version, 5) };
        assert!(verdict == expected);
    });
}

fn touches(flows: u32, v6: bool, times: u32) {
    batches(flows, v6, false, OWN, times, touch);
}

/// Packets a microsecond of two threads together, by what one does in a call.
fn together(mut beside: impl FnMut(), work: impl Fn(u32) + Sync) -> f64 {
    const TIMES: u32 = 2_000_000;
    let left = AtomicUsize::new(2);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                work(TIMES);
                left.fetch_sub(1, Relaxed);
            });
        }
        while left.load(Relaxed) > 0 {
            beside();
        }
    });
    2.0 * f64::from(TIMES) / start.elapsed().as_micros() as f64
}

struct Report {
    lines: String,
    json: Vec<String>,
}

impl Report {
    fn add(&mut self, name: &str, value: f64, unit: &str, note: &str) {
        let _ = writeln!(self.lines, "{name:<58} {value:>9.2} {unit:<9} {note}");
        self.json.push(format!("{{\"name\":\"{name}\",\"value\":{value:.3},\"unit\":\"{unit}\"}}"));
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let mut report = Report { lines: String::new(), json: Vec::new() };

    let patch = best(9, 1_000_000, |times| touches(1, false, times));
    report.add("touch and patch a header, IPv4", patch, "ns", "");
    let patch6 = best(9, 1_000_000, |times| touches(1, true, times));
    report.add("touch and patch a header, IPv6", patch6, "ns", "");

    let (engine, _control) = table(0, false);
    let empty = best(9, 2_000_000, |times| packets(&engine, 1, false, false, OWN, Verdict::Pass, times));
    report.add("empty table", empty, "ns", "goal 5");

    let sizes: &[u32] = if quick { &[1, 1000, 10_000, 100_000] } else { &[1, 1000, 10_000, 100_000, 1_000_000] };
    for &flows in sizes {
        for v6 in [false, true] {
            let before = BYTES.load(Relaxed);
            let (engine, mut control) = table(flows, v6);
            let memory = BYTES.load(Relaxed) - before;
            let name = |what: &str| format!("{what}, {flows} flows, IPv{}", if v6 { 6 } else { 4 });
            let mut nanoseconds = 0.0;
            let cases = [("sent", false, OWN), ("received", true, AWAY)];
            for (what, received, local) in cases {
                let calls = CALLS.load(Relaxed);
                let hit = best(7, 400_000, |times| {
                    packets(&engine, flows, v6, received, local, Verdict::Translated, times);
                });
                assert_eq!(CALLS.load(Relaxed), calls, "the packet path allocates");
                report.add(&name(what), hit, "ns", "");
                nanoseconds += hit / 2.0;
            }
            let miss =
                best(7, 400_000, |times| packets(&engine, flows, v6, false, [10, 9, 9, 9], Verdict::Pass, times));
            report.add(&name("of no flow"), miss, "ns", "");
            if flows >= 100_000 {
                let random = random_access(memory);
                report.add(&name("random access to as much memory"), random, "ns", "");
                report.add(&name("of no flow, in random accesses"), (miss - patch) / random, "", "goal 1.2");
                let each = (nanoseconds - patch) / random;
                report.add(&name("translated, in random accesses beside the patch"), each, "", "goal 1.5");
                report.add(&name("memory of a flow"), memory as f64 / f64::from(flows), "bytes", "goal 256");
            }
            if flows == 10_000 || flows == 100_000 {
                let start = Instant::now();
                let prepare = |flow: u32| {
                    let new = side(flow, [10, 4, 0, 2], v6).local;
                    (side(flow, OWN, v6), Prepare { half: Half::Local, new, generation: 1, hold: false, take: false })
                };
                for flow in 0..flows {
                    let (stack, prepare) = prepare(flow);
                    control.prepare(&engine, &stack, &prepare, |_| false, 5).unwrap();
                }
                let prepared = start.elapsed().as_secs_f64();
                for flow in 0..flows {
                    control.commit(&engine, &prepare(flow).0, Half::Local, 1, 5).unwrap();
                }
                let all = start.elapsed().as_secs_f64();
                let commit = (all - prepared) * 1e9 / f64::from(flows);
                let prepare = prepared * 1e9 / f64::from(flows);
                report.add(&name("prepare a move, a flow"), prepare, "ns", "");
                report.add(&name("commit it, a flow"), commit, "ns", "goal 200 for both, in the cache");
                if flows == 100_000 {
                    let accesses = (prepare + commit) / random_access(memory);
                    report.add(&name("rebind a flow, in random accesses"), accesses, "", "goal 5");
                }
            }
        }
    }

    let flows = 10_000;
    let (engine, mut control) = table(flows, false);
    let work = |times: u32| packets(&engine, flows, false, false, OWN, Verdict::Translated, times);
    let nothing = || std::thread::sleep(std::time::Duration::from_millis(1));
    let gain = |one: f64, two: f64| two / one;
    let one_touch = 1e3 / best(3, 2_000_000, |times| touches(flows, false, times));
    let two_touch = together(nothing, |times| touches(flows, false, times));
    let one = 1e3 / best(3, 2_000_000, work);
    let two = together(nothing, work);
    let plain = gain(one, two) / gain(one_touch, two_touch);
    report.add("two threads reading, of what touch and patch gains", plain, "", "goal 0.97");
    // Ten moves of one flow each a millisecond: ten thousand a second.
    let mut generation = 0;
    let going = AtomicBool::new(true);
    let beside = || {
        std::thread::sleep(std::time::Duration::from_millis(1));
        generation += 1;
        for flow in 0..10 {
            let stack = side(flow, OWN, false);
            let new = Address::v4(if generation % 2 == 0 { AWAY } else { [10, 4, 0, 2] });
            let prepare = Prepare { half: Half::Local, new, generation, hold: false, take: false };
            control.prepare(&engine, &stack, &prepare, |_| false, 5).unwrap();
            control.commit(&engine, &stack, Half::Local, generation, 5).unwrap();
        }
    };
    let moving = together(beside, work);
    going.store(false, Relaxed);
    let busy = gain(one, moving) / gain(one_touch, two_touch);
    report.add("the same while 10,000 flows a second move", busy, "", "goal 0.97");

    print!("{}", report.lines);
    if let Some(at) = arguments.iter().position(|argument| argument == "--json") {
        let body = format!("[\n{}\n]\n", report.json.join(",\n"));
        std::fs::write(&arguments[at + 1], body).unwrap();
    }
}
