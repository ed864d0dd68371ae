//! mutex(9), sx(9), rwlock(9), rmlock(9): real locks, found by the address of the module's structure.
//!
//! Each is a reader-writer lock with an owner. An acquisition is checked as WITNESS would: no recursion where it is not
//! allowed, nothing that sleeps under a mutex or in the epoch, no reversal of an order seen before (by name).

use crate::complaint::complain;
use crate::foreign;
use crate::kernel::kernel;
use crate::layout::LockObject;
use crate::options::Planted;
use crate::thread::{self, Held};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, RwLock};

/// `LO_INITIALIZED` of sys/lock.h.
const LO_INITIALIZED: u32 = 0x0001_0000;
/// Offset of the lock word behind `struct lock_object`.
const WORD: usize = 24;
const MTX_RECURSE: i32 = 0x4;
const SX_RECURSE: i32 = 0x20;
const RM_RECURSE: i32 = 0x2;
const RM_SLEEPABLE: i32 = 0x4;
const RW_RECURSE: i32 = 0x10;

pub(crate) const SYMBOLS: &[crate::symbols::Function] = crate::symbols![
    _mtx_init,
    _mtx_destroy,
    __mtx_lock_flags,
    __mtx_unlock_flags,
    mtx_sysinit,
    sx_init_flags,
    sx_destroy,
    _sx_xlock,
    _sx_xunlock,
    _sx_slock,
    _sx_sunlock,
    sx_sysinit,
    rm_init,
    rm_init_flags,
    rm_destroy,
    _rm_wlock_debug,
    _rm_wunlock_debug,
    _rm_rlock_debug,
    _rm_runlock_debug,
    _rw_init_flags,
    _rw_destroy,
    _rw_wlock_cookie,
    _rw_wunlock_cookie,
    __rw_rlock,
    _rw_runlock_cookie,
];

/// Constants of FreeBSD's headers, by name.
pub(crate) const FACTS: &[(&str, u32)] = &[
    ("MTX_RECURSE", MTX_RECURSE as u32),
    ("SX_RECURSE", SX_RECURSE as u32),
    ("RM_RECURSE", RM_RECURSE as u32),
    ("RM_SLEEPABLE", RM_SLEEPABLE as u32),
    ("RW_RECURSE", RW_RECURSE as u32),
    ("LO_INITIALIZED", LO_INITIALIZED),
];

/// What kind of lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Mtx,
    Sx,
    Rm,
    Rw,
}

#[derive(Debug)]
struct Lock {
    class: Class,
    name: String,
    recurse: bool,
    /// Whether waiting for it is sleeping, and its holder may sleep.
    sleepable: bool,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    writer: bool,
    readers: u32,
}

/// The locks of a machine.
#[derive(Debug, Default)]
pub(crate) struct Locks {
    table: RwLock<HashMap<usize, Arc<Lock>>>,
    order: Mutex<HashSet<(String, String)>>,
}

impl Locks {
    /// Names of the locks that are initialised and lie in the range.
    pub(crate) fn within(&self, range: &Range<usize>) -> Vec<String> {
        let table = self.table.read().unwrap();
        table.iter().filter(|(at, _)| range.contains(at)).map(|(_, lock)| lock.name.clone()).collect()
    }

    fn find(&self, at: usize, who: &str) -> Arc<Lock> {
        let found = self.table.read().unwrap().get(&at).cloned();
        found.unwrap_or_else(|| complain!("{who}: the lock at {at:#x} is not initialised"))
    }

    /// Whether `after` can be reached from `before` in the order seen so far.
    fn ordered(order: &HashSet<(String, String)>, before: &str, after: &str) -> bool {
        let mut seen = HashSet::from([before.to_owned()]);
        let mut work = vec![before.to_owned()];
        while let Some(name) = work.pop() {
            if name == after {
                return true;
            }
            for (_, to) in order.iter().filter(|(from, _)| *from == name) {
                if seen.insert(to.clone()) {
                    work.push(to.clone());
                }
            }
        }
        false
    }

    fn check_order(&self, held: &[Held], lock: &Lock, who: &str) {
        for before in held.iter().filter(|held| held.name != lock.name) {
            let pair = (before.name.clone(), lock.name.clone());
            let mut order = self.order.lock().unwrap();
            if order.contains(&pair) {
                continue;
            }
            if Self::ordered(&order, &lock.name, &before.name) {
                complain!(
                    "{who}: lock order reversal: \"{}\" is held, \"{}\" came first elsewhere",
                    before.name,
                    lock.name
                );
            }
            order.insert(pair);
        }
    }
}

fn object(at: usize) -> LockObject {
    // SAFETY: every lock begins with a `struct lock_object`; the module gave its address.
    unsafe { LockObject::new(at as *mut u8) }.unwrap_or_else(|| complain!("a lock at address 0"))
}

/// Writes what an unlocked lock, or one owned by `thread`, has in its word; assertions in module code look there.
fn set_word(class: Class, at: usize, thread: Option<usize>) {
    let value = match (class, thread) {
        (Class::Rm, _) => return,
        (_, Some(thread)) => thread,
        (Class::Mtx, None) => 0,
        (Class::Sx | Class::Rw, None) => 1,
    };
    let word = (at + WORD) as *mut usize;
    // SAFETY: the word behind the lock object, which is as aligned as that. The kernel accesses it atomically, too: with a
    // planted mistake, several threads believe that the lock is theirs.
    unsafe { AtomicUsize::from_ptr(word) }.store(value, Ordering::Relaxed);
}

fn init(class: Class, at: usize, name: *const u8, recurse: bool, sleepable: bool) {
    // SAFETY: the name is a string, by the KPI.
    let name = unsafe { foreign::text(name) };
    make(class, at, name, recurse, sleepable);
}

fn make(class: Class, at: usize, name: String, recurse: bool, sleepable: bool) {
    let lock = Lock { class, name, recurse, sleepable, state: Mutex::default(), wake: Condvar::new() };
    let name = lock.name.clone();
    if kernel().locks.table.write().unwrap().insert(at, Arc::new(lock)).is_some() {
        complain!("the lock \"{name}\" at {at:#x} is initialised twice");
    }
    object(at).set_flags(LO_INITIALIZED);
    set_word(class, at, None);
}

fn destroy(class: Class, at: usize) {
    let lock = kernel().locks.find(at, "destroying a lock");
    if lock.class != class {
        complain!("the lock \"{}\" is destroyed as another kind", lock.name);
    }
    // mtx_destroy takes a mutex that its caller owns; nothing else may be held.
    let mine = thread::current(|thread| {
        let mut held = thread.held.borrow_mut();
        held.iter().position(|h| h.lock == at).map(|index| held.remove(index))
    });
    let state = lock.state.lock().unwrap();
    if (state.writer || state.readers > 0) && (mine.is_none() || class != Class::Mtx) {
        complain!("the lock \"{}\" is destroyed while held", lock.name);
    }
    kernel().locks.table.write().unwrap().remove(&at);
    object(at).set_flags(0);
}

fn acquire(class: Class, at: usize, exclusive: bool, who: &str) {
    let lock = kernel().locks.find(at, who);
    if lock.class != class {
        complain!("{who}: \"{}\" is another kind of lock", lock.name);
    }
    let again = thread::current(|thread| {
        let mut held = thread.held.borrow_mut();
        if let Some(mine) = held.iter_mut().find(|held| held.lock == at) {
            if !lock.recurse || mine.exclusive != exclusive {
                complain!("{who}: recursion on \"{}\"", lock.name);
            }
            mine.depth += 1;
            return true;
        }
        kernel().locks.check_order(&held, &lock, who);
        false
    });
    if again {
        return;
    }
    if lock.sleepable {
        thread::check_sleep(who);
    }
    let open = kernel().options.planted == Planted::NoLocks && class == Class::Sx;
    let mut state = lock.state.lock().unwrap();
    while !open && (state.writer || (exclusive && state.readers > 0)) {
        state = lock.wake.wait(state).unwrap();
    }
    if exclusive {
        state.writer = true;
    } else {
        state.readers += 1;
    }
    drop(state);
    thread::current(|thread| {
        if exclusive {
            set_word(class, at, Some(thread.td().address()));
        }
        let (name, sleepable) = (lock.name.clone(), lock.sleepable);
        thread.held.borrow_mut().push(Held { lock: at, name, sleepable, depth: 1, exclusive });
    });
}

fn release(at: usize, exclusive: bool, who: &str) {
    let lock = kernel().locks.find(at, who);
    let last = thread::current(|thread| {
        let mut held = thread.held.borrow_mut();
        let Some(index) = held.iter().rposition(|held| held.lock == at && held.exclusive == exclusive) else {
            complain!("{who}: \"{}\" is not held by this thread", lock.name);
        };
        held[index].depth -= 1;
        let last = held[index].depth == 0;
        if last {
            held.remove(index);
        }
        last
    });
    if !last {
        return;
    }
    if exclusive {
        set_word(lock.class, at, None);
    }
    let mut state = lock.state.lock().unwrap();
    if exclusive {
        state.writer = false;
    } else {
        state.readers -= 1;
    }
    lock.wake.notify_all();
}

/// mtx_lock(9) of the mutex at this address, by the kernel itself.
pub(crate) fn lock_mtx(at: usize, who: &str) {
    acquire(Class::Mtx, at, true, who);
}

/// mtx_unlock(9).
pub(crate) fn unlock_mtx(at: usize, who: &str) {
    release(at, true, who);
}

/// Whether the calling thread has locked the mutex.
pub(crate) fn owns_mtx(at: usize) -> bool {
    thread::current(|thread| thread.held.borrow().iter().any(|held| held.lock == at && held.exclusive))
}

/// Runs `f` as the kernel does with a mutex of its own held, which it does not share with anybody here.
pub(crate) fn under_mutex<R>(name: &str, f: impl FnOnce() -> R) -> R {
    let mine = Held { lock: 0, name: name.to_owned(), sleepable: false, depth: 1, exclusive: true };
    thread::current(|thread| thread.held.borrow_mut().push(mine));
    let result = f();
    thread::current(|thread| thread.held.borrow_mut().retain(|held| held.lock != 0));
    result
}

/// Names of the lock of an inpcb.
const INPCB: [&str; 2] = ["tcpinp", "udpinp"];

/// Initialises the lock of an inpcb.
pub(crate) fn init_inpcb(at: usize, tcp: bool) {
    make(Class::Rw, at, INPCB[usize::from(!tcp)].to_owned(), false, false);
}

/// Locks an inpcb for the calling thread.
pub(crate) fn lock_inpcb(at: usize, exclusive: bool, who: &str) {
    acquire(Class::Rw, at, exclusive, who);
}

/// Unlocks one that is locked exclusively.
pub(crate) fn unlock_inpcb(at: usize) {
    release(at, true, "inpcb");
}

/// Whether the calling thread has locked the inpcb exclusively.
pub(crate) fn owns_inpcb(at: usize) -> bool {
    thread::current(|thread| thread.held.borrow().iter().any(|held| held.lock == at && held.exclusive))
}

/// Whether the calling thread holds the lock of any inpcb.
pub(crate) fn holds_inpcb() -> bool {
    thread::current(|thread| thread.held.borrow().iter().any(|held| INPCB.contains(&held.name.as_str())))
}

/// Runs `f` as a thread that sends for a socket does: with the lock of the socket's inpcb held. There is no such socket;
/// nobody else waits for the lock.
pub(crate) fn with_inpcb<R>(tcp: bool, f: impl FnOnce() -> R) -> R {
    under_mutex(INPCB[usize::from(!tcp)], f)
}

// A mutex and an rwlock are passed by the address of their lock word.

extern "C" fn _mtx_init(word: usize, name: *const u8, _kind: usize, options: i32) {
    init(Class::Mtx, word - WORD, name, options & MTX_RECURSE != 0, false);
}

extern "C" fn _mtx_destroy(word: usize) {
    destroy(Class::Mtx, word - WORD);
}

extern "C" fn __mtx_lock_flags(word: usize, _options: i32, _file: usize, _line: i32) {
    acquire(Class::Mtx, word - WORD, true, "mtx_lock");
}

extern "C" fn __mtx_unlock_flags(word: usize, _options: i32, _file: usize, _line: i32) {
    release(word - WORD, true, "mtx_unlock");
}

/// `struct mtx_args` and `struct sx_args`: lock, description, options.
fn arguments(at: *const u8) -> (usize, *const u8, i32) {
    // SAFETY: such a structure of 24 bytes, by the KPI.
    let bytes = unsafe { foreign::bytes(at, 24) };
    let word = |from: usize| usize::from_le_bytes(std::array::from_fn(|i| bytes[from + i]));
    (word(0), word(8) as *const u8, word(16) as i32)
}

extern "C" fn mtx_sysinit(at: *const u8) {
    let (lock, name, options) = arguments(at);
    init(Class::Mtx, lock, name, options & MTX_RECURSE != 0, false);
}

extern "C" fn sx_sysinit(at: *const u8) {
    let (lock, name, options) = arguments(at);
    sx_init_flags(lock, name, options);
}

extern "C" fn sx_init_flags(at: usize, name: *const u8, options: i32) {
    init(Class::Sx, at, name, options & SX_RECURSE != 0, true);
}

extern "C" fn sx_destroy(at: usize) {
    destroy(Class::Sx, at);
}

extern "C" fn _sx_xlock(at: usize, _options: i32, _file: usize, _line: i32) -> i32 {
    acquire(Class::Sx, at, true, "sx_xlock");
    0
}

extern "C" fn _sx_xunlock(at: usize, _file: usize, _line: i32) {
    release(at, true, "sx_xunlock");
}

extern "C" fn _sx_slock(at: usize, _options: i32, _file: usize, _line: i32) -> i32 {
    acquire(Class::Sx, at, false, "sx_slock");
    0
}

extern "C" fn _sx_sunlock(at: usize, _file: usize, _line: i32) {
    release(at, false, "sx_sunlock");
}

extern "C" fn rm_init(at: usize, name: *const u8) {
    rm_init_flags(at, name, 0);
}

extern "C" fn rm_init_flags(at: usize, name: *const u8, options: i32) {
    init(Class::Rm, at, name, options & RM_RECURSE != 0, options & RM_SLEEPABLE != 0);
}

extern "C" fn rm_destroy(at: usize) {
    destroy(Class::Rm, at);
}

extern "C" fn _rm_wlock_debug(at: usize, _file: usize, _line: i32) {
    acquire(Class::Rm, at, true, "rm_wlock");
}

extern "C" fn _rm_wunlock_debug(at: usize, _file: usize, _line: i32) {
    release(at, true, "rm_wunlock");
}

extern "C" fn _rm_rlock_debug(at: usize, _tracker: usize, trylock: i32, _file: usize, _line: i32) -> i32 {
    if trylock != 0 {
        complain!("rm_try_rlock is not emulated");
    }
    acquire(Class::Rm, at, false, "rm_rlock");
    1
}

extern "C" fn _rm_runlock_debug(at: usize, _tracker: usize, _file: usize, _line: i32) {
    release(at, false, "rm_runlock");
}

extern "C" fn _rw_init_flags(word: usize, name: *const u8, options: i32) {
    init(Class::Rw, word - WORD, name, options & RW_RECURSE != 0, false);
}

extern "C" fn _rw_destroy(word: usize) {
    destroy(Class::Rw, word - WORD);
}

extern "C" fn _rw_wlock_cookie(word: usize, _file: usize, _line: i32) {
    acquire(Class::Rw, word - WORD, true, "rw_wlock");
}

extern "C" fn _rw_wunlock_cookie(word: usize, _file: usize, _line: i32) {
    release(word - WORD, true, "rw_wunlock");
}

extern "C" fn __rw_rlock(word: usize, _file: usize, _line: i32) {
    acquire(Class::Rw, word - WORD, false, "rw_rlock");
}

extern "C" fn _rw_runlock_cookie(word: usize, _file: usize, _line: i32) {
    release(word - WORD, false, "rw_runlock");
}
