//! The kernel's variables that modules refer to, in low memory.

use crate::foreign;
use crate::layout::{MallocType, Oid};
use crate::malloc::M_VERSION;
use crate::memory::LOW;
use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// 64-bit variables (narrower ones are read at the same address) and what they hold at boot.
const WORDS: &[(&str, u64)] = &[
    ("net_epoch_preempt", crate::epoch::NET_EPOCH),
    ("osreldate", 0),
    ("physmem", 0),
    ("time_uptime", 1),
    ("ticks", 0),
    ("hz", crate::clock::HZ),
    ("taskqueue_thread", crate::taskqueue::THREAD),
    ("mp_maxid", 0),
    ("mp_ncpus", 1),
    ("bootverbose", 0),
    ("sdt_probe_func", 0),
    ("__stack_chk_guard", 0x0bad_cafe_dead_c0de),
];

/// Nodes of the sysctl tree: symbol and path.
pub(crate) const NODES: &[(&str, &str)] = &[
    ("sysctl___kern", "kern"),
    ("sysctl___debug", "debug"),
    ("sysctl___net", "net"),
    ("sysctl___net_inet", "net.inet"),
    ("sysctl___net_inet6", "net.inet6"),
    ("sysctl___net_inet_ip", "net.inet.ip"),
];

/// Malloc types of the kernel: symbol and name.
const TYPES: &[(&str, &str)] = &[("M_TEMP", "temp"), ("M_DEVBUF", "devbuf")];

fn blob(size: usize) -> usize {
    LOW.lock().unwrap().take(size, 64)
}

fn word(at: usize, value: u64) {
    // SAFETY: a blob of at least 8 bytes of the low heap; aligned, so a reader sees the old or the new value.
    unsafe { AtomicU64::from_ptr(at as *mut u64) }.store(value, Ordering::Relaxed);
}

fn table() -> &'static HashMap<&'static str, usize> {
    static TABLE: OnceLock<HashMap<&'static str, usize>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table = HashMap::new();
        for &(name, value) in WORDS.iter().chain(&crate::mbuf::zone_data()) {
            let at = blob(8);
            word(at, value);
            table.insert(name, at);
        }
        for &(name, _) in NODES {
            table.insert(name, blob(Oid::SIZE));
        }
        for &(symbol, name) in TYPES {
            let at = blob(MallocType::SIZE + 64);
            let label = at + MallocType::SIZE;
            // SAFETY: behind the structure, in the same blob, NUL-terminated because the blob is zero.
            unsafe { foreign::store(label as *mut u8, name.as_bytes()) };
            // SAFETY: the blob has the size of the structure.
            let mtype = unsafe { MallocType::new(at as *mut u8) }.unwrap_or_else(|| unreachable!());
            mtype.set_version(M_VERSION);
            mtype.set_shortdesc(label);
            table.insert(symbol, at);
        }
        for (name, offset) in crate::vnet::VARIABLES {
            table.insert(name, crate::vnet::start() + offset);
        }
        table.insert("__pcpu", crate::counter::base());
        table
    })
}

/// All variables: name and address.
pub(crate) fn all() -> Vec<(&'static str, usize)> {
    table().iter().map(|(&name, &at)| (name, at)).collect()
}

/// Sets a variable.
pub(crate) fn set(name: &str, value: u64) {
    if let Some(&at) = table().get(name) {
        word(at, value);
    }
}

/// Sets `time_uptime` and `ticks`.
pub(crate) fn set_time(seconds: u64, ticks: u32) {
    static AT: OnceLock<Option<(usize, usize)>> = OnceLock::new();
    let place = || Some((*table().get("time_uptime")?, *table().get("ticks")?));
    if let Some((uptime_at, ticks_at)) = *AT.get_or_init(place) {
        word(uptime_at, seconds);
        word(ticks_at, ticks.into());
    }
}

/// The malloc types, for the machine that boots.
pub(crate) fn malloc_types() -> impl Iterator<Item = usize> {
    TYPES.iter().filter_map(|(symbol, _)| table().get(symbol).copied())
}

/// Path of the sysctl node whose list of children is at this address.
pub(crate) fn node(children: usize) -> Option<&'static str> {
    NODES.iter().find(|(symbol, _)| table().get(symbol) == Some(&children)).map(|(_, path)| *path)
}
