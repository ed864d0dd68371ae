//! Target `commands`: the ioctls of the very `mobconn.ko`, loaded into the user-space kernel.

use crate::table::Pick;
use arbitrary::{Arbitrary, Unstructured};
use mobconn_abi::{self as abi, FlowAdd, FlowDelete, FlowGet, FlowList, Info, MoveBatch, MoveEntry, Record, Tuple};
use mobconn_engine::{Protocol, Side, Version};
use mobconn_kpi::{Connection, Errno, Machine, Options, Region, Vnet};
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;
use zerocopy::{FromBytes, IntoBytes};

/// Bindings that the table takes, few enough to be reached.
const CAPACITY: u32 = 12;
/// Where the memory that arguments point to begins.
const MEMORY: u64 = 0x1000;
/// Bytes behind a buffer that no command may write.
const GUARD: usize = 16;
/// Every command that there is.
const NUMBERS: [u32; 14] = [
    abi::INFO,
    abi::FLOW_ADD,
    abi::FLOW_DELETE,
    abi::FLOW_GET,
    abi::FLOW_LIST,
    abi::MOVE_PREPARE,
    abi::MOVE_COMMIT,
    abi::MOVE_ABORT,
    abi::EXPIRE,
    abi::FLUSH,
    abi::STATS,
    abi::FLOW_FIND,
    abi::EGRESS_SET,
    abi::EGRESS_GET,
];
/// Every errno that mobconn(4) lists, and those of the kernel before it.
const ERRORS: [Errno; 12] = [
    Errno::EACCES,
    Errno::EADDRINUSE,
    Errno::E2BIG,
    Errno::EEXIST,
    Errno::EFAULT,
    Errno::EINVAL,
    Errno::ENOENT,
    Errno::ENOMEM,
    Errno::ENOSPC,
    Errno::ENOTTY,
    Errno::ESTALE,
    Errno::EBADF,
];

#[derive(Arbitrary, Debug)]
enum Step {
    /// Any number, any argument, any memory behind it.
    Raw {
        number: u32,
        argument: Vec<u8>,
        memory: Vec<u8>,
        writable: bool,
    },
    /// A command that there is, or nearly, with any argument.
    Known {
        number: u8,
        twist: Option<u8>,
        argument: Vec<u8>,
        memory: Vec<u8>,
        writable: bool,
    },
    Add {
        stack: Pick,
        wire: Pick,
        edit: Option<(u8, u8)>,
    },
    Delete {
        flow: Pick,
        edit: Option<(u8, u8)>,
    },
    Get {
        flow: Pick,
        by_wire: bool,
    },
    List {
        cursor: u64,
        count: u16,
        room: u8,
        size: Option<u32>,
    },
    Move(Move),
    Expire {
        grace: u8,
        idle: u8,
    },
    Stats {
        reset: u32,
    },
    Connected {
        flows: Vec<Pick>,
    },
    Wait(u8),
    Flush,
}

#[derive(Arbitrary, Debug)]
struct Move {
    kind: u8,
    to: Pick,
    half: u8,
    hold: u8,
    take: u8,
    entries: Vec<(Pick, u8)>,
    edit: Option<(u8, u8)>,
    /// Of the batch or of an entry, beyond what is there.
    lie: Option<u32>,
}

/// The machine and its network stack.
struct Host {
    machine: Machine,
    vnet: Vnet,
}

/// An input, and where to say whether all held.
type Job = (Vec<Step>, Sender<bool>);

fn module() -> PathBuf {
    std::env::var_os("MOBCONN_KO")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build/mobconn.ko"), PathBuf::from)
}

/// The thread that has the machine, which serves all inputs: a process makes one, once.
fn host() -> Sender<Job> {
    static HOST: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();
    let host = HOST.get_or_init(|| {
        let (jobs, inbox) = channel::<Job>();
        std::thread::spawn(move || {
            let host = Host::boot();
            for (steps, done) in inbox {
                let held = catch_unwind(AssertUnwindSafe(|| host.run(&steps))).is_ok();
                done.send(held).expect("somebody waits");
            }
        });
        Mutex::new(jobs)
    });
    host.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
}

/// What libFuzzer counts as reached, besides code: the module is no part of this program. Linked where it looks.
#[cfg_attr(target_os = "linux", unsafe(link_section = "__libfuzzer_extra_counters"))]
static REACHED: [AtomicU8; 4096] = [const { AtomicU8::new(0) }; 4096];

/// Notes that command `number` came to `outcome`.
fn reached(number: usize, outcome: usize) {
    let place = number.wrapping_mul(67).wrapping_add(outcome.wrapping_mul(31)) % REACHED.len();
    if let Some(counter) = REACHED.get(place) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs the target.
pub(crate) fn run(data: &[u8]) {
    let Ok(steps) = Vec::<Step>::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let (done, outcome) = channel();
    host().send((steps, done)).expect("the machine's thread goes on");
    assert!(outcome.recv().expect("an outcome"), "see above");
}

impl Host {
    fn boot() -> Self {
        let machine = Machine::boot(Options::default());
        let limit = CAPACITY.to_string();
        machine.kldload(&module(), &[("net.inet.mobconn.max_flows", &limit)]).expect("make kmod");
        machine.set_uptime(Some(1000));
        let vnet = machine.vnet0();
        Self { machine, vnet }
    }

    fn run(&self, steps: &[Step]) {
        for step in steps {
            self.step(step);
            self.judge();
        }
        self.vnet.set_connections(&[]);
        self.ioctl(abi::FLUSH, true, &mut [], &mut []).expect("FLUSH");
        assert_eq!(self.info().flows, 0);
        self.machine.quiesce();
        self.machine.check();
    }

    /// One command, whose outcome is one of those that are written down.
    fn ioctl(&self, number: u32, writable: bool, bytes: &mut [u8], regions: &mut [Region]) -> Result<(), Errno> {
        let result = self.vnet.ioctl(if writable { 3 } else { 1 }, number, bytes, regions);
        if let Err(error) = result {
            assert!(ERRORS.contains(&error), "{number:#x} fails with {error}");
        }
        let known = NUMBERS.iter().position(|each| *each == number);
        // What is too short, or not for a reader, is refused before anybody looks which it is.
        let unknown = matches!(result, Err(Errno::ENOTTY | Errno::EFAULT | Errno::EACCES));
        assert!(known.is_some() || unknown, "{number:#x}: {result:?}, which is no command");
        reached(known.unwrap_or(NUMBERS.len()), result.err().map_or(0, |Errno(error)| error as usize));
        result
    }

    fn typed<T: IntoBytes + FromBytes + zerocopy::Immutable>(
        &self,
        number: u32,
        argument: &mut T,
        edit: Option<(u8, u8)>,
        regions: &mut [Region],
    ) -> Result<(), Errno> {
        let mut bytes = argument.as_bytes().to_vec();
        if let Some((at, value)) = edit {
            let at = usize::from(at) % bytes.len();
            bytes[at] = value;
        }
        let result = self.ioctl(number, true, &mut bytes, regions);
        *argument = T::read_from_bytes(&bytes).expect("as long as before");
        result
    }

    fn info(&self) -> Info {
        let mut info = Info::default();
        self.typed(abi::INFO, &mut info, None, &mut []).expect("INFO");
        info
    }

    fn step(&self, step: &Step) {
        let before = self.info().flows;
        match step {
            Step::Raw { number, argument, memory, writable } => self.raw(*number, argument, memory, *writable),
            Step::Known { number, twist, argument, memory, writable } => {
                let known = NUMBERS[usize::from(*number) % NUMBERS.len()];
                self.raw(twist.map_or(known, |bit| known ^ 1 << (bit % 32)), argument, memory, *writable);
            }
            Step::Add { stack, wire, edit } => {
                let mut add = FlowAdd { stack: tuple(&stack.side()), wire: tuple(&wire.side()), flags: 0, reserved: 0 };
                (add.wire.version, add.wire.protocol) = (add.stack.version, add.stack.protocol);
                let done = self.typed(abi::FLOW_ADD, &mut add, *edit, &mut []).is_ok();
                assert_eq!(self.info().flows, before + u32::from(done));
            }
            Step::Delete { flow, edit } => {
                let mut delete = FlowDelete { stack: tuple(&flow.side()), flags: 0, reserved: 0 };
                let done = self.typed(abi::FLOW_DELETE, &mut delete, *edit, &mut []).is_ok();
                assert_eq!(self.info().flows, before - u32::from(done));
            }
            Step::Get { flow, by_wire } => {
                let (mut get, side) = (FlowGet::default(), tuple(&flow.side()));
                let number = if *by_wire { abi::FLOW_FIND } else { abi::FLOW_GET };
                *if *by_wire { &mut get.record.wire } else { &mut get.record.stack } = side;
                if self.typed(number, &mut get, None, &mut []).is_ok() {
                    judge_record(&get.record);
                    assert!(*by_wire || get.record.stack == side, "another binding");
                }
            }
            Step::List { cursor, count, room, size } => {
                let _ = self.list(*cursor, (*count).into(), (*room).into(), *size);
            }
            Step::Move(each) => self.moves(each),
            Step::Expire { grace, idle } => {
                let (grace, udp_idle) = (u32::from(*grace), u32::from(*idle));
                let mut expire = abi::Expire { grace, udp_idle, ended: 0, removed: 0 };
                self.typed(abi::EXPIRE, &mut expire, None, &mut []).expect("EXPIRE");
                assert_eq!(self.info().flows + expire.removed, before);
            }
            Step::Stats { reset } => {
                let mut stats = abi::Stats { reset: *reset, ..abi::Stats::default() };
                let done = self.typed(abi::STATS, &mut stats, None, &mut []).is_ok();
                assert_eq!(done, *reset < 2);
                if done {
                    let counters = abi::Counter::ALL.len();
                    assert_eq!(stats.count as usize, counters);
                    assert!(stats.values[counters..].iter().all(|value| *value == 0));
                }
            }
            Step::Connected { flows } => {
                let connections: Vec<_> = flows.iter().map(|flow| connection(&flow.side())).collect();
                self.vnet.set_connections(&connections);
            }
            Step::Wait(seconds) => {
                self.machine.advance(Duration::from_secs(u64::from(seconds % 8)));
                assert!(self.info().flows <= before);
            }
            Step::Flush => {
                self.ioctl(abi::FLUSH, true, &mut [], &mut []).expect("FLUSH");
                assert_eq!(self.info().flows, 0);
            }
        }
    }

    fn raw(&self, number: u32, argument: &[u8], memory: &[u8], writable: bool) {
        let mut bytes = argument.to_vec();
        let mut regions = [Region { address: MEMORY, bytes: memory.to_vec() }];
        let before = self.info();
        let result = self.ioctl(number, writable, &mut bytes, &mut regions);
        if !writable || result == Err(Errno::ENOTTY) {
            assert_eq!(self.info(), before, "a command that may change nothing");
        }
    }

    /// The walk through the list, and what a command leaves of the memory behind its buffer.
    fn list(&self, cursor: u64, count: u32, room: usize, size: Option<u32>) -> Result<(u64, Vec<Record>), Errno> {
        let record_size = size.unwrap_or(size_of::<Record>() as u32);
        let mut list = FlowList { cursor, buffer: MEMORY, count, record_size };
        let mut regions = [Region { address: MEMORY, bytes: vec![0xa5; room * size_of::<Record>() + GUARD] }];
        self.typed(abi::FLOW_LIST, &mut list, None, &mut regions)?;
        let written = list.count as usize;
        assert!(list.count <= count && written <= room, "{written} records of {count} in room for {room}");
        let (records, rest) = regions[0].bytes.split_at(written * size_of::<Record>());
        assert!(rest.iter().all(|byte| *byte == 0xa5), "written behind the records");
        let records = records.chunks_exact(size_of::<Record>());
        let records = records.map(|bytes| Record::read_from_bytes(bytes).expect("a record"));
        Ok((list.cursor, records.collect()))
    }

    fn moves(&self, each: &Move) {
        let number = [abi::MOVE_PREPARE, abi::MOVE_COMMIT, abi::MOVE_ABORT][usize::from(each.kind % 3)];
        let to = tuple(&each.to.side());
        let half = each.half % 4;
        let mut batch = MoveBatch { half, entries: MEMORY, ..MoveBatch::default() };
        if number == abi::MOVE_PREPARE {
            batch.address = if half == 2 { to.remote } else { to.local };
            (batch.version, batch.hold, batch.take) = (to.version, each.hold % 3, each.take % 3);
        }
        let mut memory = Vec::new();
        for (flow, generation) in each.entries.iter().take(32) {
            let entry = MoveEntry { stack: tuple(&flow.side()), generation: u32::from(generation % 8), error: 0 };
            memory.extend(entry.as_bytes());
        }
        let entries = memory.len() / size_of::<MoveEntry>();
        batch.count = each.lie.unwrap_or(entries as u32);
        memory.extend([0xa5; GUARD]);
        let mut regions = [Region { address: MEMORY, bytes: memory }];
        let result = self.typed(number, &mut batch, each.edit, &mut regions);
        let guard = regions[0].bytes.len() - GUARD;
        if each.lie.is_none() && each.edit.is_none() {
            assert!(regions[0].bytes[guard..].iter().all(|byte| *byte == 0xa5), "written behind the entries");
        }
        if result.is_ok() && each.lie.is_none() && each.edit.is_none() {
            let done = regions[0].bytes[..guard].chunks_exact(size_of::<MoveEntry>());
            let errors = done.map(|bytes| MoveEntry::read_from_bytes(bytes).expect("an entry").error);
            let failed = errors.filter(|error| *error != 0).inspect(|error| {
                assert!(ERRORS.contains(&Errno(*error as i32)), "an entry fails with {error}");
                reached(usize::from(each.kind % 3) + 20, *error as usize);
            });
            assert_eq!(failed.count(), batch.failed as usize);
        }
    }

    /// What must hold between commands: the list shows as many bindings as there are, each once, and each is found.
    fn judge(&self) {
        self.machine.quiesce();
        let info = self.info();
        assert!(info.flows <= CAPACITY && info.capacity == CAPACITY);
        let (cursor, records) = self.list(0, CAPACITY + 1, CAPACITY as usize + 1, None).expect("FLOW_LIST");
        assert_eq!((cursor, records.len()), (0, info.flows as usize));
        for (index, record) in records.iter().enumerate() {
            judge_record(record);
            assert!(records[..index].iter().all(|other| other.stack != record.stack && other.id < record.id));
            let mut get = FlowGet::default();
            get.record.stack = record.stack;
            self.typed(abi::FLOW_GET, &mut get, None, &mut []).expect("FLOW_GET");
            assert_eq!(get.record, *record);
            if record.flags & abi::LOST == 0 {
                let mut get = FlowGet::default();
                get.record.wire = record.wire;
                self.typed(abi::FLOW_FIND, &mut get, None, &mut []).expect("FLOW_FIND");
                assert_eq!(get.record.id, record.id, "two flows share a wire side");
            }
        }
        reached(30, info.flows as usize);
    }
}

fn judge_record(record: &Record) {
    assert_eq!((record.stack.version, record.stack.protocol), (record.wire.version, record.wire.protocol));
    assert_eq!((record.stack.reserved, record.wire.reserved, record.reserved), ([0; 2], [0; 2], 0));
    for half in [&record.local, &record.remote] {
        let alternate = abi::Alternate::from_raw(half.alternate).expect("an alternate");
        assert_eq!(half.other == [0; 16], alternate == abi::Alternate::None);
        assert_eq!(half.reserved, [0; 7]);
    }
    assert_eq!(record.flags & !(abi::DISPLACED | abi::LOST), 0);
}

fn tuple(side: &Side) -> Tuple {
    Tuple {
        local: side.local.0,
        remote: side.remote.0,
        local_port: side.local_port,
        remote_port: side.remote_port,
        version: if side.version == Version::V4 { abi::IPV4 } else { abi::IPV6 },
        protocol: if side.protocol == Protocol::Tcp { abi::TCP } else { abi::UDP },
        reserved: [0; 2],
    }
}

fn connection(side: &Side) -> Connection {
    let ip = |octets: [u8; 16]| match (side.version, octets) {
        (Version::V4, [a, b, c, d, ..]) => IpAddr::from([a, b, c, d]),
        (Version::V6, octets) => IpAddr::from(octets),
    };
    let protocol = tuple(side).protocol;
    let local = SocketAddr::new(ip(side.local.0), side.local_port);
    Connection::new(protocol, local, SocketAddr::new(ip(side.remote.0), side.remote_port))
}
