//! The commands of `/dev/mobconn`, one function each. What they promise is
//! written at the numbers in `mobconn_abi`.
//!
//! Context: process context; may sleep. User memory is copied while no lock is
//! held, whole before anything changes. Memory for it is asked for without
//! sleeping, so that a large request fails instead of waiting.

use crate::convert::{connection, flag, half, record, side, version};
use crate::module::Making;
use crate::probe;
use crate::refusal::Refusal;
use crate::vnet::Instance;
use alloc::vec::Vec;
use core::cell::Cell;
use mobconn_abi::{self as abi, Counter};
use mobconn_engine::{Address, Control, Engine, Half, LOOK_AHEAD, Limits, Prepare, Protocol, Side, TableError};
use mobconn_sys::{copyin, copyout, is_connected, tcp_resume, time_uptime};
use zerocopy::IntoBytes;

/// Records that [`flow_list`] copies at a time.
const LIST_CHUNK: usize = 64;

/// Bindings that [`expire`] looks at without letting others in.
const EXPIRE_CHUNK: u32 = 1024;

/// This module's version, as [`abi::Info::module`] has it.
const VERSION: u32 = (number(env!("CARGO_PKG_VERSION_MAJOR")) << 16)
    | (number(env!("CARGO_PKG_VERSION_MINOR")) << 8)
    | number(env!("CARGO_PKG_VERSION_PATCH"));

const fn number(digits: &str) -> u32 {
    let number = match u32::from_str_radix(digits, 10) {
        Ok(number) => number,
        Err(_) => u32::MAX,
    };
    assert!(number < 256, "each part of the version is a number below 256");
    number
}

/// [`abi::INFO`]
pub(crate) fn info(instance: &Instance, info: &mut abi::Info) {
    *info = instance.read(|control, _| abi::Info {
        version: abi::ABI_VERSION,
        module: VERSION,
        flows: control.len(),
        capacity: control.capacity(),
        local_generation: control.local_generation(),
        reserved: 0,
        uptime: u64::from(time_uptime()),
    });
}

/// [`abi::FLOW_ADD`]
pub(crate) fn flow_add(instance: &Instance, add: &mut abi::FlowAdd) -> Result<(), Refusal> {
    if add.flags != 0 || add.reserved != 0 {
        return Err(Refusal::Invalid);
    }
    let (stack, wire) = (side(&add.stack)?, side(&add.wire)?);
    let _making = Making::begin().ok_or(Refusal::Absent)?;
    instance
        .change(|control, engine| control.add(engine, &stack, &wire, time_uptime()))
        .inspect_err(|error| instance.stats.count_refusal(*error))?;
    Ok(())
}

/// [`abi::FLOW_DELETE`]
pub(crate) fn flow_delete(instance: &Instance, delete: &mut abi::FlowDelete) -> Result<(), Refusal> {
    if delete.flags != 0 || delete.reserved != 0 {
        return Err(Refusal::Invalid);
    }
    let stack = side(&delete.stack)?;
    Ok(instance.change(|control, engine| control.delete(engine, &stack))?)
}

/// [`abi::FLOW_GET`]
pub(crate) fn flow_get(instance: &Instance, get: &mut abi::FlowGet) -> Result<(), Refusal> {
    let stack = side(&get.record.stack)?;
    let binding = instance.read(|control, engine| control.get(engine, &stack)).ok_or(TableError::NotFound)?;
    get.record = record(&binding);
    Ok(())
}

/// [`abi::FLOW_FIND`]
pub(crate) fn flow_find(instance: &Instance, get: &mut abi::FlowGet) -> Result<(), Refusal> {
    let wire = side(&get.record.wire)?;
    let binding = instance.read(|control, engine| control.get_by_wire(engine, &wire)).ok_or(TableError::NotFound)?;
    get.record = record(&binding);
    Ok(())
}

/// [`abi::FLOW_LIST`]
pub(crate) fn flow_list(instance: &Instance, list: &mut abi::FlowList) -> Result<(), Refusal> {
    if list.record_size as usize != size_of::<abi::Record>() || list.count == 0 {
        return Err(Refusal::Invalid);
    }
    if list.count > abi::LIST_MAX {
        return Err(Refusal::TooMany);
    }
    let room = list.count as usize;
    let mut chunk: Vec<abi::Record> = Vec::new();
    chunk.try_reserve_exact(room.min(LIST_CHUNK)).map_err(|_| Refusal::NoMemory)?;
    let (mut cursor, mut written, mut to) = (list.cursor, 0_usize, list.buffer);
    loop {
        chunk.clear();
        let wanted = room.saturating_sub(written).min(LIST_CHUNK);
        let more = instance.read(|control, engine| {
            while chunk.len() < wanted {
                let Some(binding) = control.next(engine, cursor) else { return false };
                cursor = binding.id;
                chunk.push(record(&binding));
            }
            control.next(engine, cursor).is_some()
        });
        copyout(chunk.as_bytes(), to)?;
        to = to.wrapping_add(size_of_val(chunk.as_slice()) as u64);
        written = written.saturating_add(chunk.len());
        if !more || written == room {
            list.cursor = if more { cursor } else { 0 };
            list.count = written as u32;
            return Ok(());
        }
    }
}

/// The entries of a move, read whole.
fn entries(batch: &abi::MoveBatch) -> Result<Vec<abi::MoveEntry>, Refusal> {
    if batch.count > abi::BATCH_MAX {
        return Err(Refusal::TooMany);
    }
    let count = batch.count as usize;
    let mut entries = Vec::new();
    entries.try_reserve_exact(count).map_err(|_| Refusal::NoMemory)?;
    entries.resize(count, abi::MoveEntry::default());
    if count != 0 {
        copyin(batch.entries, entries.as_mut_bytes())?;
    }
    Ok(entries)
}

/// Does `step` for every entry of `batch` and tells user space how each went.
/// `moving`: where the flows are to go.
fn move_each(
    instance: &Instance,
    batch: &mut abi::MoveBatch,
    counter: Counter,
    moving: Option<(Half, Address)>,
    mut step: impl FnMut(&mut Control, &Engine, &Side, u32) -> Result<(), TableError>,
) -> Result<(), Refusal> {
    let mut entries = entries(batch)?;
    let mut done = 0_u32;
    let mut failed = 0_u32;
    instance.change(|control, engine| {
        for some in entries.chunks_mut(LOOK_AHEAD) {
            control.look_ahead(engine, some.iter().filter_map(|entry| side(&entry.stack).ok()), moving);
            for entry in some {
                let outcome = side(&entry.stack).and_then(|stack| {
                    step(control, engine, &stack, entry.generation)
                        .inspect_err(|error| instance.stats.count_refusal(*error))
                        .map_err(Refusal::from)
                });
                match outcome {
                    Ok(()) => {
                        entry.error = 0;
                        done = done.saturating_add(1);
                    }
                    Err(refusal) => {
                        entry.error = refusal.errno();
                        failed = failed.saturating_add(1);
                    }
                }
            }
        }
    });
    instance.stats.add(counter, done);
    batch.failed = failed;
    if !entries.is_empty() {
        copyout(entries.as_bytes(), batch.entries)?;
    }
    Ok(())
}

/// The half of a commit or an abort, whose other fields are zero.
fn bare_half(batch: &abi::MoveBatch) -> Result<Half, Refusal> {
    let zero = batch.version == 0 && batch.hold == 0 && batch.take == 0 && batch.reserved == [0; 4];
    if batch.address != [0; 16] || !zero {
        return Err(Refusal::Invalid);
    }
    half(batch.half)
}

/// [`abi::MOVE_PREPARE`]
pub(crate) fn move_prepare(instance: &Instance, batch: &mut abi::MoveBatch) -> Result<(), Refusal> {
    let (hold, take) = (flag(u32::from(batch.hold))?, flag(u32::from(batch.take))?);
    let half = half(batch.half)?;
    let (address, version) = (Address(batch.address), version(batch.version)?);
    if batch.reserved != [0; 4] || !address.is_usable(version) {
        return Err(Refusal::Invalid);
    }
    let _making = Making::begin().ok_or(Refusal::Absent)?;
    if batch.count == 0 {
        instance.change(|control, engine| control.reserve(engine))?;
    }
    let _vnet = instance.enter();
    let now = time_uptime();
    move_each(instance, batch, Counter::MovePrepared, Some((half, address)), |control, engine, stack, generation| {
        if stack.version != version {
            return Err(TableError::Invalid);
        }
        let prepare = Prepare { half, new: address, generation, hold, take };
        control.prepare(engine, stack, &prepare, |side| is_connected(&connection(side)), now)
    })
}

/// [`abi::MOVE_COMMIT`]
pub(crate) fn move_commit(instance: &Instance, batch: &mut abi::MoveBatch) -> Result<(), Refusal> {
    let half = bare_half(batch)?;
    let now = time_uptime();
    let _vnet = instance.enter();
    let held = Cell::new(0_u32);
    move_each(instance, batch, Counter::MoveCommitted, None, |control, engine, stack, generation| {
        let was_held = control.commit(engine, stack, half, generation, now)?;
        probe::rebound(half, generation, || control.get(engine, stack));
        if was_held {
            held.set(held.get().saturating_add(1));
            // It waited in vain since its old path went away, and would wait
            // for its own timer, up to a minute.
            if stack.protocol == Protocol::Tcp && tcp_resume(&connection(stack)) {
                instance.stats.count(Counter::Resumed);
            }
        }
        Ok(())
    })?;
    if held.get() != 0 {
        instance.attend();
    }
    Ok(())
}

/// [`abi::MOVE_ABORT`]
pub(crate) fn move_abort(instance: &Instance, batch: &mut abi::MoveBatch) -> Result<(), Refusal> {
    let half = bare_half(batch)?;
    move_each(instance, batch, Counter::MoveAborted, None, |control, engine, stack, generation| {
        control.abort(engine, stack, half, generation)
    })?;
    instance.attend();
    Ok(())
}

/// [`abi::EXPIRE`]
pub(crate) fn expire(instance: &Instance, expire: &mut abi::Expire) {
    let _vnet = instance.enter();
    let limits = Limits { grace: expire.grace, udp_idle: expire.udp_idle };
    let mut from = 0;
    loop {
        let expired = instance.change(|control, engine| {
            let alive = |side: &Side| is_connected(&connection(side));
            control.expire(engine, time_uptime(), &limits, (from, EXPIRE_CHUNK), alive)
        });
        expire.ended = expire.ended.saturating_add(expired.ended);
        expire.removed = expire.removed.saturating_add(expired.removed);
        from = expired.next;
        if from == 0 {
            return;
        }
    }
}

/// [`abi::FLUSH`]
pub(crate) fn flush(instance: &Instance) {
    instance.change(|control, engine| control.flush(engine));
}

/// [`abi::EGRESS_SET`]
pub(crate) fn egress_set(instance: &Instance, egress: &abi::Egress) -> Result<(), Refusal> {
    instance.egress.set(egress)
}

/// [`abi::EGRESS_GET`]
pub(crate) fn egress_get(instance: &Instance, egress: &mut abi::Egress) {
    instance.egress.copy(egress);
}

/// [`abi::STATS`]
pub(crate) fn stats(instance: &Instance, stats: &mut abi::Stats, writable: bool) -> Result<(), Refusal> {
    let reset = flag(stats.reset)?;
    if reset && !writable {
        return Err(Refusal::ReadOnly);
    }
    *stats = abi::Stats { reset: stats.reset, count: Counter::ALL.len() as u32, ..Default::default() };
    for (to, value) in stats.values.iter_mut().zip(instance.stats.iter()) {
        *to = value;
    }
    if reset {
        instance.stats.zero();
    }
    Ok(())
}
