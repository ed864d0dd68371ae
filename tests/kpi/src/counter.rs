//! Per-CPU memory: `struct pcpu` of each CPU, and counter(9).
//!
//! A counter is one 64-bit slot in each CPU's page of a slab; its handle is the slot's distance from the first CPU's
//! `struct pcpu`, so that `%gs` plus the handle is the calling CPU's slot. Module code adds there by itself.

use crate::complaint::complain;
use crate::kernel::kernel;
use crate::layout::Pcpu;
use crate::malloc;
use crate::memory::{PAGE, reserve};
use crate::thread::CPUS;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

const SLABS: usize = 8;
const SLOTS: usize = SLABS * PAGE / 8;

pub(crate) const SYMBOLS: &[crate::symbols::Function] =
    crate::symbols![counter_u64_alloc, counter_u64_free, counter_u64_fetch, counter_u64_zero];

/// Where the first CPU's `struct pcpu` is: the symbol `__pcpu`.
pub(crate) fn base() -> usize {
    static BASE: OnceLock<usize> = OnceLock::new();
    *BASE.get_or_init(|| reserve((1 + SLABS) * CPUS * PAGE, true))
}

/// `struct pcpu` of a CPU.
pub(crate) fn pcpu(cpu: usize) -> Pcpu {
    assert!(cpu < CPUS);
    let at = base() + cpu * PAGE;
    // SAFETY: one page for each CPU, of the size of the structure, for ever.
    unsafe { Pcpu::new(at as *mut u8) }.unwrap_or_else(|| unreachable!())
}

/// The counters of a machine.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    live: Mutex<BTreeSet<usize>>,
}

impl Counters {
    /// Counters that exist.
    pub(crate) fn live(&self) -> usize {
        self.live.lock().unwrap().len()
    }
}

/// The handle of slot number `slot`.
fn handle(slot: usize) -> usize {
    let slab = slot / (PAGE / 8);
    (1 + slab) * CPUS * PAGE + slot % (PAGE / 8) * 8
}

fn slot(counter: usize, cpu: usize) -> *mut u64 {
    (base() + counter + cpu * PAGE) as *mut u64
}

fn cpus() -> std::ops::Range<usize> {
    0..usize::from(kernel().options.cpus)
}

fn check(counter: usize, who: &str) {
    if !kernel().counters.live.lock().unwrap().contains(&counter) {
        complain!("{who}: {counter:#x} is no live counter");
    }
}

/// Sum over all CPUs.
pub(crate) fn fetch(counter: usize) -> u64 {
    check(counter, "counter_u64_fetch");
    cpus().fold(0_u64, |sum, cpu| {
        // SAFETY: a slot of the reserved range, aligned; its CPU may be adding to it at the same time.
        sum.wrapping_add(unsafe { AtomicU64::from_ptr(slot(counter, cpu)) }.load(Ordering::Relaxed))
    })
}

extern "C" fn counter_u64_alloc(flags: i32) -> usize {
    malloc::check_sleep("counter_u64_alloc", flags);
    if flags & malloc::M_WAITOK == 0 && kernel().failures.next() {
        return 0;
    }
    let counter = {
        let mut live = kernel().counters.live.lock().unwrap();
        let free = (0..SLOTS).map(handle).find(|counter| !live.contains(counter));
        let free = free.unwrap_or_else(|| complain!("more than {SLOTS} counters"));
        live.insert(free);
        free
    };
    counter_u64_zero(counter);
    counter
}

extern "C" fn counter_u64_free(counter: usize) {
    if !kernel().counters.live.lock().unwrap().remove(&counter) {
        complain!("counter_u64_free: {counter:#x} is no live counter");
    }
}

extern "C" fn counter_u64_fetch(counter: usize) -> u64 {
    fetch(counter)
}

extern "C" fn counter_u64_zero(counter: usize) {
    check(counter, "counter_u64_zero");
    for cpu in cpus() {
        // SAFETY: a slot of the reserved range.
        unsafe { AtomicU64::from_ptr(slot(counter, cpu)) }.store(0, Ordering::Relaxed);
    }
}
