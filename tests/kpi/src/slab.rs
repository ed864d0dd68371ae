//! Fixed-size objects with poison, quarantine and red zones: for mbufs and clusters.
//!
//! Every object lives in one reserved range, so a pointer can be judged without touching what it points to. A freed
//! object is filled with poison and waits in a queue before it is used again; a write to it in that time, or to the
//! red zones around it, is found when it leaves the queue or at the final check.

use crate::complaint::complain;
use crate::sanitizer::{guard, unguard};
use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

const POISON: u8 = 0xde;
const ZONE: u8 = 0xa5;
const QUARANTINE: usize = 512;

const NEVER: u8 = 0;
const LIVE: u8 = 1;
const FREE: u8 = 2;

#[derive(Debug, Default)]
struct Queue {
    freed: VecDeque<u32>,
    fresh: u32,
}

/// A pool of objects of one size.
#[derive(Debug)]
pub(crate) struct Slab {
    what: &'static str,
    base: usize,
    zone: usize,
    size: usize,
    states: Box<[AtomicU8]>,
    queue: Mutex<Queue>,
    live: AtomicUsize,
}

impl Slab {
    /// A pool of at most `count` objects of `size` bytes, each with `zone` red bytes before and after.
    pub(crate) fn new(what: &'static str, size: usize, zone: usize, count: u32) -> Self {
        let count = count as usize;
        let length = (size + 2 * zone) * count;
        let base = crate::memory::reserve(length, false);
        let states = (0..count).map(|_| AtomicU8::new(NEVER)).collect();
        Self { what, base, zone, size, states, queue: Mutex::default(), live: AtomicUsize::new(0) }
    }

    fn stride(&self) -> usize {
        self.size + 2 * self.zone
    }

    fn start(&self, index: usize) -> usize {
        self.base + index * self.stride() + self.zone
    }

    /// Index of the object that begins at `address`, if one does.
    fn index(&self, address: usize) -> Option<usize> {
        let offset = address.checked_sub(self.base + self.zone)?;
        let index = offset / self.stride();
        (offset % self.stride() == 0 && index < self.states.len()).then_some(index)
    }

    fn fill(&self, at: usize, value: u8, length: usize) {
        debug_assert!(at >= self.base && at + length <= self.base + self.stride() * self.states.len());
        // SAFETY: the range lies inside the reservation, and belongs to an object that only the caller has.
        unsafe { std::ptr::write_bytes(at as *mut u8, value, length) }
    }

    fn holds(&self, at: usize, value: u8, length: usize) -> bool {
        // SAFETY: the range lies inside the reservation; nobody may write it, and if somebody does, that is what this
        // finds.
        let bytes = unsafe { std::slice::from_raw_parts(at as *const u8, length) };
        bytes.iter().all(|&byte| byte == value)
    }

    /// Looks at a free object; it is open to everybody afterwards.
    fn check_free(&self, index: usize) {
        let start = self.start(index);
        unguard(start, self.size);
        if !self.holds(start, POISON, self.size) {
            complain!("{} #{index} at {start:#x} was written after it was freed", self.what);
        }
    }

    fn check_zones(&self, index: usize) {
        let start = self.start(index);
        unguard(start - self.zone, self.zone);
        unguard(start + self.size, self.zone);
        if !self.holds(start - self.zone, ZONE, self.zone) || !self.holds(start + self.size, ZONE, self.zone) {
            complain!("something wrote beyond the bounds of {} #{index} at {start:#x}", self.what);
        }
        guard(start - self.zone, self.zone);
        guard(start + self.size, self.zone);
    }

    /// An object; its bytes are poison. `None` when all are in use.
    pub(crate) fn alloc(&self) -> Option<NonNull<u8>> {
        let (index, used) = {
            let mut queue = self.queue.lock().unwrap();
            if queue.freed.len() > QUARANTINE || queue.fresh as usize >= self.states.len() {
                (queue.freed.pop_front()? as usize, true)
            } else {
                queue.fresh += 1;
                (queue.fresh as usize - 1, false)
            }
        };
        let start = self.start(index);
        if used {
            self.check_free(index);
        } else {
            self.fill(start - self.zone, ZONE, self.stride());
            self.fill(start, POISON, self.size);
            guard(start - self.zone, self.zone);
            guard(start + self.size, self.zone);
        }
        self.states[index].store(LIVE, Ordering::Release);
        self.live.fetch_add(1, Ordering::Relaxed);
        NonNull::new(start as *mut u8)
    }

    /// Frees the object at `address`.
    pub(crate) fn free(&self, address: usize, who: &str) {
        let Some(index) = self.index(address) else {
            complain!("{who}: {address:#x} is no {}", self.what);
        };
        match self.states[index].compare_exchange(LIVE, FREE, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {}
            Err(FREE) => complain!("{who}: {} #{index} at {address:#x} is freed twice", self.what),
            Err(_) => complain!("{who}: {} at {address:#x} was never allocated", self.what),
        }
        self.check_zones(index);
        self.fill(address, POISON, self.size);
        guard(address, self.size);
        self.live.fetch_sub(1, Ordering::Relaxed);
        self.queue.lock().unwrap().freed.push_back(u32::try_from(index).unwrap_or(u32::MAX));
    }

    /// Complains unless `address` is a live object.
    pub(crate) fn check(&self, address: usize, who: &str) {
        let Some(index) = self.index(address) else {
            complain!("{who}: {address:#x} is no {}", self.what);
        };
        match self.states[index].load(Ordering::Acquire) {
            LIVE => {}
            FREE => complain!("{who}: use of freed {} #{index} at {address:#x}", self.what),
            _ => complain!("{who}: {} at {address:#x} was never allocated", self.what),
        }
    }

    /// Objects in use.
    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Looks at every object ever used: poison of the free ones, red zones of all.
    pub(crate) fn check_all(&self) {
        // Nothing leaves the queue meanwhile, and nothing enters it before it is filled with poison.
        let queue = self.queue.lock().unwrap();
        for &index in &queue.freed {
            self.check_free(index as usize);
            guard(self.start(index as usize), self.size);
        }
        for index in 0..queue.fresh as usize {
            if self.states[index].load(Ordering::Acquire) != NEVER {
                self.check_zones(index);
            }
        }
    }
}
