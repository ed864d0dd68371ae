//! malloc(9): types, poison, red zones, quarantine, and who leaked what.

use crate::complaint::complain;
use crate::foreign;
use crate::kernel::kernel;
use crate::layout::MallocType;
use crate::options::Planted;
use crate::sanitizer::{guard, unguard};
use std::alloc::Layout;
use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

pub(crate) const M_NOWAIT: i32 = 1;
pub(crate) const M_WAITOK: i32 = 2;
const M_ZERO: i32 = 0x100;
/// `M_VERSION` of sys/malloc.h.
pub(crate) const M_VERSION: u64 = 2_020_110_501;

const POISON: u8 = 0xde;
const ZONE: u8 = 0xa5;
const RED: usize = 64;
const QUARANTINE: usize = 4 << 20;

pub(crate) const SYMBOLS: &[crate::symbols::Function] =
    crate::symbols![malloc, malloc_aligned, mallocarray, realloc, free, zfree, malloc_init, malloc_uninit,];

/// Constants of FreeBSD's headers, by name.
pub(crate) const FACTS: &[(&str, u32)] = &[
    ("M_NOWAIT", M_NOWAIT as u32),
    ("M_WAITOK", M_WAITOK as u32),
    ("M_ZERO", M_ZERO as u32),
    ("M_VERSION", M_VERSION as u32),
];

/// Whom memory belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A malloc type, by address.
    Type(usize),
    /// The emulated kernel itself, for this.
    Kernel(&'static str),
}

#[derive(Debug)]
struct Allocation {
    kind: Kind,
    size: usize,
    base: usize,
    layout: Layout,
}

/// The memory of a machine.
#[derive(Debug, Default)]
pub(crate) struct Malloc {
    live: Mutex<HashMap<usize, Allocation>>,
    freed: Mutex<Freed>,
    types: Mutex<HashMap<usize, String>>,
}

#[derive(Debug, Default)]
struct Freed {
    bytes: usize,
    queue: VecDeque<(usize, Allocation)>,
}

/// Complains about flags that make no sense, and about sleeping where one must not.
pub(crate) fn check_sleep(who: &str, flags: i32) {
    match flags & (M_WAITOK | M_NOWAIT) {
        M_WAITOK => crate::thread::check_sleep(who),
        M_NOWAIT => {}
        _ => complain!("{who}: neither or both of M_WAITOK and M_NOWAIT"),
    }
}

fn name(kind: Kind) -> String {
    match kind {
        Kind::Type(address) => {
            kernel().malloc.types.lock().unwrap().get(&address).cloned().unwrap_or_else(|| "?".to_owned())
        }
        Kind::Kernel(what) => format!("the kernel's {what}"),
    }
}

fn is_filled(at: usize, value: u8, length: usize) -> bool {
    // SAFETY: part of an allocation that is in a table, so it is mapped and initialised.
    let bytes = unsafe { std::slice::from_raw_parts(at as *const u8, length) };
    bytes.iter().all(|&byte| byte == value)
}

fn fill(at: usize, value: u8, length: usize) {
    // SAFETY: part of an allocation that only the caller has.
    unsafe { std::ptr::write_bytes(at as *mut u8, value, length) }
}

/// What malloc(9) promises for a size: that of its zone where that is a power of two, else a pointer's.
fn alignment(size: usize) -> usize {
    if (257..=384).contains(&size) { 8 } else { size.max(16).next_power_of_two().min(4096) }
}

fn get(kind: Kind, size: usize, align: usize, flags: i32) -> *mut u8 {
    check_sleep("malloc", flags);
    if let Kind::Type(address) = kind {
        // SAFETY: a `struct malloc_type`, by the caller's promise.
        let mtype = unsafe { MallocType::new(address as *mut u8) };
        let known = kernel().malloc.types.lock().unwrap().contains_key(&address);
        if !known || mtype.is_none_or(|mtype| mtype.version() != M_VERSION) {
            complain!("malloc: the type at {address:#x} is not initialised");
        }
        if flags & M_WAITOK == 0 && kernel().failures.next() {
            return std::ptr::null_mut();
        }
    }
    let asked = size;
    let short = kernel().options.planted == Planted::ShortMemory && matches!(kind, Kind::Type(_)) && asked > 8;
    let size = if short { asked - 8 } else { asked };
    // Not more aligned than promised: a module that needs more fails here.
    let lead = RED.next_multiple_of(align * 2) + align;
    let Ok(layout) = Layout::from_size_align(lead + size + RED, (align * 2).max(RED)) else {
        return std::ptr::null_mut();
    };
    // SAFETY: the layout has a size.
    let base = unsafe { std::alloc::alloc(layout) } as usize;
    assert!(base != 0, "the process is out of memory");
    fill(base, ZONE, layout.size());
    fill(base + lead, if flags & M_ZERO == 0 { POISON } else { 0 }, size);
    let allocation = Allocation { kind, size, base, layout };
    guard_zones(base + lead, &allocation);
    kernel().malloc.live.lock().unwrap().insert(base + lead, allocation);
    (base + lead) as *mut u8
}

/// Memory for `kind`.
pub(crate) fn allocate(kind: Kind, size: usize, flags: i32) -> *mut u8 {
    get(kind, size.max(1), alignment(size), flags)
}

fn guard_zones(at: usize, allocation: &Allocation) {
    let end = at + allocation.size;
    guard(allocation.base, at - allocation.base);
    guard(end, allocation.base + allocation.layout.size() - end);
}

/// Looks at the red zones; they are open to everybody afterwards.
fn check_zones(at: usize, allocation: &Allocation) {
    let end = at + allocation.size;
    let after = allocation.base + allocation.layout.size() - end;
    unguard(allocation.base, at - allocation.base);
    unguard(end, after);
    if !is_filled(allocation.base, ZONE, at - allocation.base) || !is_filled(end, ZONE, after) {
        complain!("something wrote beyond the bounds of {} bytes of \"{}\"", allocation.size, name(allocation.kind));
    }
}

/// Frees memory; `kind` is checked if given.
pub(crate) fn release(at: usize, kind: Option<Kind>, who: &str) {
    if at == 0 {
        return;
    }
    let found = kernel().malloc.live.lock().unwrap().remove(&at);
    let Some(allocation) = found else {
        let before = kernel().malloc.freed.lock().unwrap().queue.iter().any(|(address, _)| *address == at);
        if before {
            complain!("{who}: {at:#x} is freed twice");
        }
        complain!("{who}: {at:#x} was never allocated");
    };
    if kind.is_some_and(|kind| kind != allocation.kind) {
        complain!("{who}: memory of \"{}\" is freed as another type", name(allocation.kind));
    }
    check_zones(at, &allocation);
    kernel().tasks.forget(&(at..at + allocation.size), who);
    fill(at, POISON, allocation.size);
    guard(allocation.base, allocation.layout.size());
    let mut freed = kernel().malloc.freed.lock().unwrap();
    freed.bytes += allocation.layout.size();
    freed.queue.push_back((at, allocation));
    while freed.bytes > QUARANTINE
        && let Some((at, allocation)) = freed.queue.pop_front()
    {
        freed.bytes -= allocation.layout.size();
        bury(at, &allocation);
    }
}

fn bury(at: usize, allocation: &Allocation) {
    unguard(allocation.base, allocation.layout.size());
    if !is_filled(at, POISON, allocation.size) {
        complain!("{} bytes of \"{}\" were written after they were freed", allocation.size, name(allocation.kind));
    }
    check_zones(at, allocation);
    // SAFETY: allocated by `get` with this layout, and now in no table.
    unsafe { std::alloc::dealloc(allocation.base as *mut u8, allocation.layout) };
}

/// Whether live memory begins there.
pub(crate) fn is_live(at: usize) -> bool {
    kernel().malloc.live.lock().unwrap().contains_key(&at)
}

impl Malloc {
    /// Looks at all memory; what is freed is given back.
    pub(crate) fn check_all(&self) {
        for (&at, allocation) in &*self.live.lock().unwrap() {
            check_zones(at, allocation);
            guard_zones(at, allocation);
        }
        let freed = std::mem::take(&mut *self.freed.lock().unwrap());
        for (at, allocation) in &freed.queue {
            bury(*at, allocation);
        }
    }

    /// Makes a type known, as `MALLOC_DEFINE` has it done at boot or load.
    pub(crate) fn register(&self, address: usize) {
        // SAFETY: the caller's structure.
        let mtype = unsafe { MallocType::new(address as *mut u8) }.unwrap_or_else(|| complain!("malloc_init of null"));
        if mtype.version() != M_VERSION {
            complain!("malloc_init: the type is of another version");
        }
        // SAFETY: its name, a string.
        let name = unsafe { foreign::text(mtype.shortdesc() as *const u8) };
        self.types.lock().unwrap().insert(address, name);
    }

    /// Bytes in use of the type of this name.
    pub(crate) fn in_use(&self, name: &str) -> usize {
        let types = self.types.lock().unwrap().clone();
        let of_type = |kind: Kind| matches!(kind, Kind::Type(t) if types.get(&t).is_some_and(|n| n == name));
        self.live.lock().unwrap().values().filter(|a| of_type(a.kind)).map(|a| a.size).sum()
    }

    /// Types whose structure lies in the range: of a module that is gone.
    pub(crate) fn types_in(&self, range: &std::ops::Range<usize>) -> Vec<String> {
        self.types.lock().unwrap().iter().filter(|(at, _)| range.contains(at)).map(|(_, name)| name.clone()).collect()
    }
}

extern "C" fn malloc_init(mtype: usize) {
    kernel().malloc.register(mtype);
}

extern "C" fn malloc_uninit(mtype: usize) {
    let kind = Kind::Type(mtype);
    // While the type has a name.
    kernel().malloc.check_all();
    let (count, bytes) = {
        let live = kernel().malloc.live.lock().unwrap();
        live.values().filter(|a| a.kind == kind).fold((0, 0), |(count, bytes), a| (count + 1, bytes + a.size))
    };
    if count > 0 {
        complain!("memory type {} leaked memory on destroy ({count} allocations, {bytes} bytes leaked)", name(kind));
    }
    if kernel().malloc.types.lock().unwrap().remove(&mtype).is_none() {
        complain!("malloc_uninit: the type at {mtype:#x} is not initialised");
    }
}

extern "C" fn malloc(size: usize, mtype: usize, flags: i32) -> *mut u8 {
    allocate(Kind::Type(mtype), size, flags)
}

extern "C" fn malloc_aligned(size: usize, align: usize, mtype: usize, flags: i32) -> *mut u8 {
    if !align.is_power_of_two() || align > 4096 {
        complain!("malloc_aligned: wrong alignment {align}");
    }
    get(Kind::Type(mtype), size.max(1), align.max(16), flags)
}

extern "C" fn mallocarray(count: usize, size: usize, mtype: usize, flags: i32) -> *mut u8 {
    match count.checked_mul(size) {
        Some(bytes) => allocate(Kind::Type(mtype), bytes, flags),
        None => complain!("mallocarray: overflow of {count} * {size}"),
    }
}

extern "C" fn realloc(at: *mut u8, size: usize, mtype: usize, flags: i32) -> *mut u8 {
    if at.is_null() {
        return allocate(Kind::Type(mtype), size, flags);
    }
    let Some(old) = kernel().malloc.live.lock().unwrap().get(&(at as usize)).map(|a| a.size) else {
        complain!("realloc: {at:p} is no live memory");
    };
    let new = allocate(Kind::Type(mtype), size, flags);
    if !new.is_null() {
        // SAFETY: `old` bytes were allocated at `at`.
        let bytes = unsafe { foreign::bytes(at, old.min(size)) };
        // SAFETY: at least as many at `new`.
        unsafe { foreign::store(new, &bytes) };
        release(at as usize, Some(Kind::Type(mtype)), "realloc");
    }
    new
}

extern "C" fn free(at: usize, mtype: usize) {
    release(at, Some(Kind::Type(mtype)), "free");
}

extern "C" fn zfree(at: usize, mtype: usize) {
    release(at, Some(Kind::Type(mtype)), "zfree");
}
