//! A kernel that is none: the device socket of a user-space host over a table in this process.

#[allow(dead_code, reason = "not every test prints JSON")]
pub(crate) mod page;
#[allow(dead_code, reason = "not every test starts a daemon")]
pub(crate) mod ports;

use mobconn_abi as abi;
use mobconn_abi::{
    Alternate, Expire, FlowAdd, FlowDelete, FlowGet, FlowList, Half, HalfState, Info, MoveBatch, MoveEntry, Record,
    Stats, Tuple,
};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use zerocopy::{FromBytes, IntoBytes};

/// FreeBSD's numbers, written out so that they are not those of the code under test.
pub(crate) const ENOENT: u32 = 2;
pub(crate) const EEXIST: u32 = 17;
pub(crate) const EINVAL: u32 = 22;
pub(crate) const ENOTTY: u32 = 25;
pub(crate) const EAGAIN: u32 = 35;
const READ: u32 = 0xc004_5200;
pub(crate) const ESTALE: u32 = 70;

/// What the fake kernel holds; tests look into it and change it.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) version: u32,
    pub(crate) table: BTreeMap<u64, Record>,
    pub(crate) last_id: u64,
    pub(crate) uptime: u64,
    /// Every command so far, with the length of its batch or list.
    pub(crate) commands: Vec<(u32, u32)>,
    /// Most records in one answer to a listing.
    pub(crate) list_limit: usize,
    /// Instead of answering, send these bytes and hang up.
    pub(crate) garbage: Option<Vec<u8>>,
    pub(crate) expire: (u32, u32),
    pub(crate) counters: [u64; abi::STATS_MAX],
    /// What the next readings of events return.
    pub(crate) events: Vec<abi::Event>,
    pub(crate) egress: abi::Egress,
}

/// A fake kernel behind a socket in a folder of its own.
#[derive(Debug)]
pub(crate) struct Fake {
    _folder: tempfile::TempDir,
    pub(crate) path: PathBuf,
    state: Arc<Mutex<State>>,
}

impl Fake {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mobconn");
        let state = Arc::new(Mutex::new(State {
            version: abi::ABI_VERSION,
            table: BTreeMap::new(),
            last_id: 0,
            uptime: 1000,
            commands: Vec::new(),
            list_limit: usize::MAX,
            garbage: None,
            expire: (0, 0),
            counters: [0; abi::STATS_MAX],
            events: Vec::new(),
            egress: abi::Egress::default(),
        }));
        let listener = UnixListener::bind(&path).unwrap();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, shared) = (stream.unwrap(), Arc::clone(&shared));
                std::thread::spawn(move || while serve(&stream, &shared).is_ok() {});
            }
        });
        Self { _folder: folder, path, state }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

fn words<const N: usize>(mut stream: &UnixStream) -> io::Result<[u32; N]> {
    let mut words = [0; N];
    for word in &mut words {
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes)?;
        *word = u32::from_le_bytes(bytes);
    }
    Ok(words)
}

fn bytes(mut stream: &UnixStream, length: u32) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length as usize];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn serve(mut stream: &UnixStream, state: &Mutex<State>) -> io::Result<()> {
    let [command, fflag, length, regions] = words(stream)?;
    assert_eq!(fflag, 3, "open for reading and writing");
    assert_eq!(length as usize, abi::argument_length(command));
    assert!(regions <= 1);
    let mut argument = bytes(stream, length)?;
    let mut region = None;
    if regions == 1 {
        let [low, high, length] = words(stream)?;
        region = Some((u64::from(low) | u64::from(high) << 32, bytes(stream, length)?));
    }
    let mut state = state.lock().unwrap();
    if let Some(garbage) = &state.garbage {
        stream.write_all(garbage)?;
        return Err(io::ErrorKind::Other.into());
    }
    let errno = state.ioctl(command, &mut argument, region.as_mut()).err().unwrap_or(0);
    let mut response = errno.to_le_bytes().to_vec();
    for part in [Some(argument), region.map(|(_, bytes)| bytes)].into_iter().flatten() {
        response.extend((part.len() as u32).to_le_bytes());
        response.extend(part);
    }
    stream.write_all(&response)
}

/// Reads the argument, lets `change` work on it, and writes it back.
fn with<T: FromBytes + IntoBytes + zerocopy::Immutable>(
    bytes: &mut [u8],
    change: impl FnOnce(&mut T) -> Result<(), u32>,
) -> Result<(), u32> {
    let mut value = T::read_from_bytes(bytes).unwrap();
    change(&mut value)?;
    bytes.copy_from_slice(value.as_bytes());
    Ok(())
}

impl State {
    pub(crate) fn bind(&mut self, stack: Tuple, wire: Tuple) {
        self.last_id += 1;
        let record =
            Record { stack, wire, id: self.last_id, created: self.uptime, used: self.uptime, ..Record::default() };
        self.table.insert(self.last_id, record);
    }

    pub(crate) fn find(&mut self, stack: &Tuple) -> Option<&mut Record> {
        self.table.values_mut().find(|record| record.stack == *stack)
    }

    /// Whole events, as many as fit.
    fn read(&mut self, argument: &mut [u8], region: Option<&mut (u64, Vec<u8>)>) -> Result<(), u32> {
        let (_, bytes) = region.unwrap();
        let count = self.events.len().min(bytes.len() / size_of::<abi::Event>());
        if count == 0 {
            return Err(EAGAIN);
        }
        let mut length = 0;
        for event in self.events.drain(..count) {
            bytes[length..length + size_of::<abi::Event>()].copy_from_slice(event.as_bytes());
            length += size_of::<abi::Event>();
        }
        argument.copy_from_slice(&(length as u32).to_le_bytes());
        Ok(())
    }

    fn ioctl(&mut self, command: u32, argument: &mut [u8], region: Option<&mut (u64, Vec<u8>)>) -> Result<(), u32> {
        let mut length = 0;
        if command == READ {
            return self.read(argument, region);
        }
        let result = match command {
            abi::INFO => with(argument, |info: &mut Info| {
                let (flows, uptime) = (self.table.len() as u32, self.uptime);
                *info = Info { version: self.version, module: 0x0001_0203, flows, capacity: 65_536, uptime, ..*info };
                info.local_generation =
                    self.table.values().map(|r| r.local.generation.max(r.local.pending_generation)).max().unwrap_or(0);
                Ok(())
            }),
            abi::FLOW_ADD => with(argument, |add: &mut FlowAdd| {
                if add.stack.version != add.wire.version {
                    return Err(EINVAL);
                }
                if self.find(&add.stack).is_some() {
                    return Err(EEXIST);
                }
                self.bind(add.stack, add.wire);
                Ok(())
            }),
            abi::FLOW_DELETE => with(argument, |delete: &mut FlowDelete| {
                let id = self.find(&delete.stack).map(|record| record.id).ok_or(ENOENT)?;
                self.table.remove(&id);
                Ok(())
            }),
            abi::FLOW_GET => with(argument, |get: &mut FlowGet| {
                get.record = *self.find(&get.record.stack).ok_or(ENOENT)?;
                Ok(())
            }),
            abi::FLOW_FIND => with(argument, |get: &mut FlowGet| {
                let wire = get.record.wire;
                let accepts = |record: &&Record| {
                    let half = |used: [u8; 16], half: &HalfState, wanted: [u8; 16]| {
                        used == wanted || (half.alternate != 0 && half.other == wanted)
                    };
                    half(record.wire.local, &record.local, wire.local)
                        && half(record.wire.remote, &record.remote, wire.remote)
                        && Tuple { local: wire.local, remote: wire.remote, ..record.wire } == wire
                };
                get.record = *self.table.values().find(accepts).ok_or(ENOENT)?;
                Ok(())
            }),
            abi::FLOW_LIST => with(argument, |list: &mut FlowList| {
                let (address, records) = region.unwrap();
                assert_eq!(list.buffer, *address);
                assert_eq!(list.count as usize * size_of::<Record>(), records.len());
                assert_eq!(list.record_size as usize, size_of::<Record>());
                length = list.count;
                let room = self.list_limit.min(list.count as usize);
                let found: Vec<Record> =
                    self.table.range(list.cursor + 1..).take(room).map(|(_, record)| *record).collect();
                for (slot, record) in records.chunks_mut(size_of::<Record>()).zip(&found) {
                    slot.copy_from_slice(record.as_bytes());
                }
                list.count = found.len() as u32;
                list.cursor = found.last().map_or(0, |record| record.id);
                Ok(())
            }),
            abi::MOVE_PREPARE | abi::MOVE_COMMIT | abi::MOVE_ABORT => with(argument, |batch: &mut MoveBatch| {
                let (address, entries) = region.unwrap();
                assert_eq!(batch.entries, *address);
                length = batch.count;
                let mut moves = Vec::new();
                for slot in entries.chunks_mut(size_of::<MoveEntry>()) {
                    let mut entry = MoveEntry::read_from_bytes(slot).unwrap();
                    entry.error = self.one_move(command, batch, &entry).err().unwrap_or(0);
                    batch.failed += u32::from(entry.error != 0);
                    slot.copy_from_slice(entry.as_bytes());
                    moves.push(entry);
                }
                assert_eq!(moves.len(), batch.count as usize);
                Ok(())
            }),
            abi::EXPIRE => with(argument, |expire: &mut Expire| {
                self.expire = (expire.grace, expire.udp_idle);
                (expire.ended, expire.removed) = (3, 1);
                Ok(())
            }),
            abi::EGRESS_SET => with(argument, |egress: &mut abi::Egress| {
                self.egress = *egress;
                Ok(())
            }),
            abi::EGRESS_GET => with(argument, |egress: &mut abi::Egress| {
                *egress = self.egress;
                Ok(())
            }),
            abi::FLUSH => {
                self.table.clear();
                Ok(())
            }
            abi::STATS => with(argument, |stats: &mut Stats| {
                (stats.count, stats.values) = (abi::Counter::ALL.len() as u32, self.counters);
                if stats.reset == 1 {
                    self.counters = [0; abi::STATS_MAX];
                }
                Ok(())
            }),
            _ => Err(ENOTTY),
        };
        self.commands.push((command, length));
        result
    }

    fn one_move(&mut self, command: u32, batch: &MoveBatch, entry: &MoveEntry) -> Result<(), u32> {
        if command == abi::MOVE_PREPARE && self.find(&entry.stack).is_none() {
            if entry.stack.version == 0 {
                return Err(EINVAL);
            }
            self.bind(entry.stack, entry.stack);
        }
        let record = self.find(&entry.stack).ok_or(ENOENT)?;
        let is_local = Half::from_raw(batch.half) == Some(Half::Local);
        let address = if is_local { &mut record.wire.local } else { &mut record.wire.remote };
        let half = if is_local { &mut record.local } else { &mut record.remote };
        if entry.generation <= half.generation {
            return Err(ESTALE);
        }
        if command == abi::MOVE_PREPARE {
            half.other = batch.address;
            half.pending_generation = entry.generation;
            half.alternate = if batch.hold == 1 { Alternate::PendingHold } else { Alternate::Pending } as u8;
            return Ok(());
        }
        if half.pending_generation != entry.generation {
            return Err(ENOENT);
        }
        half.pending_generation = 0;
        if command == abi::MOVE_COMMIT {
            half.generation = entry.generation;
            half.alternate = Alternate::Grace as u8;
            std::mem::swap(address, &mut half.other);
        } else {
            half.alternate = Alternate::None as u8;
            half.other = [0; 16];
        }
        Ok(())
    }
}
