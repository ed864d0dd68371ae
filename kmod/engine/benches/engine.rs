//! The engine alone: nanoseconds, memory, and what the machine can do at all,
//! measured in the same run. Prints a table that says which goals are met;
//! with `--json FILE` also writes it there. `--quick` leaves out a million
//! flows. Every table is at 100 % of its capacity.
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
        ((u64::from(self.0) * u64::from(below)) >> 32) as u32
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

/// What a row should be.
#[derive(Clone, Copy)]
enum Goal {
    None,
    AtMost(f64),
    AtLeast(f64),
}
use Goal::{AtLeast, AtMost};

struct Report {
    lines: String,
    json: Vec<String>,
    goals: [u32; 2],
}

impl Report {
    fn add(&mut self, name: &str, value: f64, unit: &str, goal: Goal) {
        let (is_met, bound) = match goal {
            Goal::None => (None, String::new()),
            AtMost(bound) => (Some(value <= bound), format!("at most {bound:.4}")),
            AtLeast(bound) => (Some(value >= bound), format!("at least {bound:.4}")),
        };
        let verdict = match is_met {
            None => String::new(),
            Some(true) => format!("{bound}: met"),
            Some(false) => format!("{bound}: NOT MET"),
        };
        if let Some(is_met) = is_met {
            self.goals[usize::from(is_met)] += 1;
        }
        let _ = writeln!(self.lines, "{name:<60} {value:>9.2} {unit:<9} {verdict}");
        let met = is_met.map_or(String::new(), |is_met| format!(",\"goal\":\"{bound}\",\"met\":{is_met}"));
        self.json.push(format!("{{\"name\":\"{name}\",\"value\":{value:.3},\"unit\":\"{unit}\"{met}}}"));
    }
}

/// A call that does nothing with a packet.
#[inline(never)]
fn bare(header: &mut Header) -> Verdict {
    black_box(header);
    Verdict::Pass
}

fn prepare(flow: u32, new: [u8; 4], generation: u32, v6: bool) -> (Side, Prepare) {
    let new = side(flow, new, v6).local;
    (side(flow, OWN, v6), Prepare { half: Half::Local, new, generation, hold: false, take: false })
}

/// Moves all flows to `new`, as one command does it; nanoseconds a flow: prepared, committed.
fn rebind(engine: &Engine, control: &mut Control, flows: u32, new: [u8; 4], generation: u32, v6: bool) -> [f64; 2] {
    let start = Instant::now();
    for batch in (0..flows).step_by(LOOK_AHEAD) {
        let batch = batch..flows.min(batch + LOOK_AHEAD as u32);
        let first = prepare(batch.start, new, generation, v6).1;
        let stacks = batch.clone().map(|flow| side(flow, OWN, v6));
        control.look_ahead(engine, stacks, Some((first.half, first.new)));
        for flow in batch {
            let (stack, prepare) = prepare(flow, new, generation, v6);
            control.prepare(engine, &stack, &prepare, |_| false, 5).unwrap();
        }
    }
    let prepared = start.elapsed();
    for batch in (0..flows).step_by(LOOK_AHEAD) {
        let batch = batch..flows.min(batch + LOOK_AHEAD as u32);
        control.look_ahead(engine, batch.clone().map(|flow| side(flow, OWN, v6)), None);
        for flow in batch {
            control.commit(engine, &side(flow, OWN, v6), Half::Local, generation, 5).unwrap();
        }
    }
    [prepared, start.elapsed() - prepared].map(|time| time.as_nanos() as f64 / f64::from(flows))
}

/// Times of a reader's batches while `beside` runs, in microseconds: the 99.99th percentile, and the longest.
fn waits(engine: &Engine, flows: u32, mut beside: impl FnMut()) -> [f64; 2] {
    let done = AtomicBool::new(false);
    let mut times: Vec<u64> = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut times = Vec::with_capacity(4_000_000);
            while !done.load(Relaxed) && times.len() < 4_000_000 {
                let start = Instant::now();
                packets(engine, flows, false, false, OWN, Verdict::Translated, BATCH);
                times.push(start.elapsed().as_nanos() as u64);
            }
            times
        });
        beside();
        done.store(true, Relaxed);
        reader.join().unwrap()
    });
    times.sort_unstable();
    let at = |index: usize| times[index.min(times.len() - 1)] as f64 / 1e3;
    [at(times.len() - times.len() / 10_000 - 1), at(times.len() - 1)]
}

/// A table of so many flows.
fn measure(report: &mut Report, flows: u32, v6: bool, patch: f64) {
    let before = BYTES.load(Relaxed);
    let (engine, mut control) = table(flows, v6);
    let memory = BYTES.load(Relaxed) - before;
    let name = |what: &str| format!("{what}, {flows} flows, IPv{}", if v6 { 6 } else { 4 });
    let nanoseconds = match (flows, v6) {
        (1, false) => AtMost(15.0),
        (1000, false) => AtMost(20.0),
        (10_000, false) => AtMost(60.0),
        _ => Goal::None,
    };
    let mut both = 0.0;
    for (what, received, local) in [("sent", false, OWN), ("received", true, AWAY)] {
        let calls = CALLS.load(Relaxed);
        let hit = best(7, 400_000, |times| packets(&engine, flows, v6, received, local, Verdict::Translated, times));
        assert_eq!(CALLS.load(Relaxed), calls, "the packet path allocates");
        report.add(&name(what), hit, "ns", nanoseconds);
        both += hit / 2.0;
    }
    let none = [10, 9, 9, 9];
    let calls = CALLS.load(Relaxed);
    let miss = best(7, 400_000, |times| packets(&engine, flows, v6, false, none, Verdict::Pass, times));
    assert_eq!(CALLS.load(Relaxed), calls, "the packet path allocates");
    report.add(&name("of no flow"), miss, "ns", Goal::None);
    if flows >= 100_000 {
        let random = random_access(memory);
        report.add(&name("random access to as much memory"), random, "ns", Goal::None);
        report.add(&name("of no flow, in random accesses"), (miss - patch) / random, "", AtMost(1.2));
        report.add(&name("translated, in random accesses beside the patch"), (both - patch) / random, "", AtMost(1.5));
        report.add(&name("memory of a flow"), memory as f64 / f64::from(flows), "bytes", AtMost(256.0));
    }
    if flows == 10_000 || flows == 100_000 {
        let calls = CALLS.load(Relaxed);
        let [mut prepared, mut committed] = [f64::MAX; 2];
        for generation in 1..=6 {
            let new = if generation % 2 == 0 { AWAY } else { [10, 4, 0, 2] };
            let [first, second] = rebind(&engine, &mut control, flows, new, generation, v6);
            prepared = prepared.min(first);
            committed = committed.min(second);
        }
        assert_eq!(CALLS.load(Relaxed), calls, "a move of bound flows allocates");
        report.add(&name("prepare a move, a flow"), prepared, "ns", Goal::None);
        report.add(&name("commit it, a flow"), committed, "ns", Goal::None);
        let both = prepared + committed;
        if flows == 10_000 {
            report.add(&name("rebind 100,000 flows, in the cache"), both / 10.0, "ms", AtMost(20.0));
        } else {
            report.add(&name("rebind a flow, in random accesses"), both / random_access(memory), "", AtMost(5.0));
        }
    }
    if flows == 100_000 {
        churn(report, &engine, &mut control, flows, v6);
    }
}

/// Flows come and go for ever in a full table: what a packet costs afterwards.
fn churn(report: &mut Report, engine: &Engine, control: &mut Control, flows: u32, v6: bool) {
    control.flush(engine);
    let add = |control: &mut Control, flow: u32| {
        control.add(engine, &side(flow, OWN, v6), &side(flow, AWAY, v6), 1).unwrap();
    };
    (0..flows).for_each(|flow| add(control, flow));
    let name = |what: &str| format!("{what}, {flows} flows, IPv{}", if v6 { 6 } else { 4 });
    let measured = || {
        let hit = best(7, 400_000, |times| packets(engine, flows, v6, false, OWN, Verdict::Translated, times));
        let none = [10, 9, 9, 9];
        hit + best(7, 400_000, |times| packets(engine, flows, v6, false, none, Verdict::Pass, times))
    };
    let fresh = measured();
    // Each place is another flow's five times; in the end they are those that are measured.
    for round in 1..=5 {
        for flow in 0..flows {
            let from = |round: u32| flow + if round.is_multiple_of(5) { 0 } else { round * flows };
            control.delete(engine, &side(from(round - 1), OWN, v6)).unwrap();
            add(control, from(round));
        }
    }
    let worn = measured();
    report.add(&name("hit and miss after endless insert and delete, to fresh"), worn / fresh, "", AtMost(1.2));
}

/// Two threads, and moves beside them.
fn threads(report: &mut Report) {
    let flows = 10_000;
    let (engine, mut control) = table(flows, false);
    let work = |times: u32| packets(&engine, flows, false, false, OWN, Verdict::Translated, times);
    let nothing = || std::thread::sleep(std::time::Duration::from_millis(1));
    // Turn and turn about, so that what else the machine does meets both.
    let (mut touched, mut read, mut beside) = ([0.0_f64; 2], [0.0_f64; 2], 0.0_f64);
    let mut generation = 0;
    for _ in 0..5 {
        touched[0] = touched[0].max(1e3 / best(1, 2_000_000, |times| touches(flows, false, times)));
        read[0] = read[0].max(1e3 / best(1, 2_000_000, work));
        touched[1] = touched[1].max(together(nothing, |times| touches(flows, false, times)));
        read[1] = read[1].max(together(nothing, work));
        // Ten moves of one flow each a millisecond: ten thousand a second.
        let moves = || {
            std::thread::sleep(std::time::Duration::from_millis(1));
            generation += 1;
            let new = if generation % 2 == 0 { AWAY } else { [10, 4, 0, 2] };
            for flow in 0..10 {
                let (stack, prepare) = prepare(flow, new, generation, false);
                control.prepare(&engine, &stack, &prepare, |_| false, 5).unwrap();
                control.commit(&engine, &stack, Half::Local, generation, 5).unwrap();
            }
        };
        beside = beside.max(together(moves, work));
    }
    let gain = |[one, two]: [f64; 2]| two / one;
    let plain = gain(read) / gain(touched);
    report.add("two threads reading, of what touch and patch gains", plain, "", AtLeast(0.97));
    let busy = beside / read[0] / gain(touched);
    report.add("the same while 10,000 flows a second move", busy, "", AtLeast(0.97));

    let (engine, mut control) = table(100_000, false);
    let alone = waits(&engine, 100_000, || std::thread::sleep(std::time::Duration::from_millis(300)));
    let mut generation = 0;
    let beside = waits(&engine, 100_000, || {
        for _ in 0..3 {
            generation += 1;
            let new = if generation % 2 == 0 { AWAY } else { [10, 4, 0, 2] };
            rebind(&engine, &mut control, 100_000, new, generation, false);
        }
    });
    // The longest is the scheduler's as well: a reader waits for nobody.
    report.add("32 packets beside nothing, 99.99 % take at most", alone[0], "us", Goal::None);
    report.add("32 packets beside nothing, the longest", alone[1], "us", Goal::None);
    report.add("32 packets while 100,000 flows are rebound, 99.99 %", beside[0], "us", AtMost(50.0));
    report.add("32 packets while 100,000 flows are rebound, the longest", beside[1], "us", Goal::None);
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let mut report = Report { lines: String::new(), json: Vec::new(), goals: [0; 2] };

    let patch = best(9, 1_000_000, |times| touches(1, false, times));
    report.add("touch and patch a header, IPv4", patch, "ns", Goal::None);
    let patch6 = best(9, 1_000_000, |times| touches(1, true, times));
    report.add("touch and patch a header, IPv6", patch6, "ns", Goal::None);
    let call = best(9, 2_000_000, |times| {
        batches(1, false, false, OWN, times, |header| assert!(bare(header) == Verdict::Pass));
    });
    report.add("a call that does nothing", call, "ns", Goal::None);
    let (engine, _control) = table(0, false);
    let empty = best(9, 2_000_000, |times| packets(&engine, 1, false, false, OWN, Verdict::Pass, times));
    report.add("empty table", empty, "ns", AtMost(f64::max(5.0, 1.5 * call)));

    let sizes: &[u32] = if quick { &[1, 1000, 10_000, 100_000] } else { &[1, 1000, 10_000, 100_000, 1_000_000] };
    for &flows in sizes {
        measure(&mut report, flows, false, patch);
        measure(&mut report, flows, true, patch6);
    }
    threads(&mut report);
    report.add("allocations in the packet path, asserted", 0.0, "", AtMost(0.0));

    print!("{}", report.lines);
    println!("{} goals met, {} not met", report.goals[1], report.goals[0]);
    if let Some(at) = arguments.iter().position(|argument| argument == "--json") {
        let body = format!("[\n{}\n]\n", report.json.join(",\n"));
        std::fs::write(&arguments[at + 1], body).unwrap();
    }
}
