//! Where threads wait for a device: sleep(9), selrecord(9), and the notes of kqueue(9).
//!
//! What the kernel may do at any time happens here at once: a sleeper's mutex is another thread's as soon as it sleeps, a
//! poll that records nothing never wakes, a note's event function runs with the list's mutex held.

use crate::call;
use crate::cdev::File;
use crate::complaint::complain;
use crate::errno::Errno;
use crate::foreign::eternal;
use crate::kernel::kernel;
use crate::layout::{Filterops, Knote};
use crate::lock;
use crate::thread::{self, Entry};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

const PRIMASK: i32 = 0x0ff;
const PCATCH: i32 = 0x100;
const PDROP: i32 = 0x200;
const KNF_LISTLOCKED: i32 = 0x0001;
const KN_DETACHED: i32 = 0x08;
/// `EVFILT_READ`.
pub(crate) const EVFILT_READ: i16 = -1;
/// `EWOULDBLOCK`, what a sleep whose time is over returns.
const EWOULDBLOCK: i32 = 35;

pub(crate) const SYMBOLS: &[crate::symbols::Function] = crate::symbols![
    _sleep,
    wakeup,
    selrecord,
    selwakeup,
    seldrain,
    knlist_init_mtx,
    knlist_destroy,
    knlist_add,
    knlist_remove,
    knlist_cleardel,
    knote,
];

/// Constants of FreeBSD's headers, by name.
pub(crate) const FACTS: &[(&str, u32)] = &[
    ("PRIMASK", PRIMASK as u32),
    ("PCATCH", PCATCH as u32),
    ("PDROP", PDROP as u32),
    ("KNF_LISTLOCKED", KNF_LISTLOCKED as u32),
    ("KN_DETACHED", KN_DETACHED as u32),
    ("EVFILT_READ", EVFILT_READ as u32),
];

/// A thread that sleeps.
#[derive(Debug)]
struct Sleeper {
    channel: usize,
    lock: usize,
    catch: bool,
    /// None: it sleeps on; else what the sleep returns.
    result: Option<i32>,
}

#[derive(Debug, Default)]
struct Queue {
    next: u64,
    sleepers: HashMap<u64, Sleeper>,
}

/// A list of knotes: the mutex that goes with it, and the notes.
#[derive(Debug)]
struct List {
    mutex: usize,
    notes: Vec<usize>,
}

/// Who polls what, and who has been woken.
#[derive(Debug, Default)]
struct Select {
    recorded: HashMap<usize, HashSet<usize>>,
    woken: HashSet<usize>,
}

/// All that waits.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    queue: Mutex<Queue>,
    wake: Condvar,
    select: Mutex<Select>,
    selected: Condvar,
    lists: Mutex<HashMap<usize, List>>,
    /// Notes that say that there is something, and all that there are.
    active: Mutex<HashSet<usize>>,
    activated: Condvar,
    all: Mutex<HashSet<usize>>,
}

impl Waiting {
    /// Lists of knotes that were made and not destroyed.
    pub(crate) fn lists(&self) -> Vec<String> {
        self.lists.lock().unwrap().keys().map(|at| format!("{at:#x}")).collect()
    }

    /// Knotes whose functions lie in the range.
    pub(crate) fn notes_of(&self, range: &Range<usize>) -> Vec<String> {
        let all = self.all.lock().unwrap();
        all.iter().filter(|at| range.contains(&note(**at).fop())).map(|at| format!("{at:#x}")).collect()
    }

    /// Threads that sleep.
    pub(crate) fn sleepers(&self) -> usize {
        self.queue.lock().unwrap().sleepers.values().filter(|sleeper| sleeper.result.is_none()).count()
    }

    /// Has a signal come to every thread whose sleep a signal ends.
    pub(crate) fn interrupt(&self) -> usize {
        let mut queue = self.queue.lock().unwrap();
        let mut count = 0;
        for sleeper in queue.sleepers.values_mut().filter(|sleeper| sleeper.catch && sleeper.result.is_none()) {
            sleeper.result = Some(Errno::EINTR.0);
            count += 1;
        }
        self.wake.notify_all();
        count
    }
}

extern "C" fn _sleep(
    channel: usize,
    lock: usize,
    priority: i32,
    _message: usize,
    time: i64,
    _precision: i64,
    _flags: i32,
) -> i32 {
    if channel == 0 {
        complain!("_sleep: on no channel");
    }
    if lock != 0 && !lock::owns_mtx(lock) {
        complain!("_sleep: the mutex is not held");
    }
    let waiting = &kernel().waiting;
    let mut queue = waiting.queue.lock().unwrap();
    if let Some(other) = queue.sleepers.values().find(|sleeper| sleeper.channel == channel && sleeper.lock != lock) {
        complain!("_sleep: {channel:#x} is slept on with the mutexes {lock:#x} and {:#x}", other.lock);
    }
    queue.next += 1;
    let mine = queue.next;
    queue.sleepers.insert(mine, Sleeper { channel, lock, catch: priority & PCATCH != 0, result: None });
    // Whoever takes the mutex now finds the sleeper.
    if lock != 0 {
        lock::unlock_mtx(lock, "_sleep");
    }
    thread::check_sleep("_sleep");
    let end = (time > 0).then(|| Instant::now() + Duration::from_secs_f64(time as f64 / (1_u64 << 32) as f64));
    let result = loop {
        if let Some(result) = queue.sleepers.get(&mine).and_then(|sleeper| sleeper.result) {
            break result;
        }
        match end.map(|end| end.saturating_duration_since(Instant::now())) {
            Some(Duration::ZERO) => break EWOULDBLOCK,
            Some(left) => queue = waiting.wake.wait_timeout(queue, left).unwrap().0,
            None => queue = waiting.wake.wait(queue).unwrap(),
        }
    };
    queue.sleepers.remove(&mine);
    drop(queue);
    if lock != 0 && priority & PDROP == 0 {
        lock::lock_mtx(lock, "_sleep");
    }
    result
}

extern "C" fn wakeup(channel: usize) {
    let waiting = &kernel().waiting;
    let mut queue = waiting.queue.lock().unwrap();
    for sleeper in queue.sleepers.values_mut().filter(|sleeper| sleeper.channel == channel) {
        sleeper.result.get_or_insert(0);
    }
    waiting.wake.notify_all();
}

/// What `d_poll` is called with: poll(2) of one descriptor, until there is something or the time is over.
pub(crate) fn poll(timeout: Duration, scan: impl Fn() -> Result<i32, Errno>) -> Result<i32, Errno> {
    let me = thread::current(|thread| thread.td().address());
    let waiting = &kernel().waiting;
    let end = Instant::now() + timeout;
    let result = loop {
        waiting.select.lock().unwrap().woken.remove(&me);
        thread::current(|thread| thread.polling.set(true));
        let found = scan();
        thread::current(|thread| thread.polling.set(false));
        if !matches!(found, Ok(0)) {
            break found;
        }
        let mut select = waiting.select.lock().unwrap();
        while !select.woken.contains(&me) && Instant::now() < end {
            select = waiting.selected.wait_timeout(select, end.saturating_duration_since(Instant::now())).unwrap().0;
        }
        if !select.woken.contains(&me) {
            break Ok(0);
        }
    };
    let mut select = waiting.select.lock().unwrap();
    select.woken.remove(&me);
    select.recorded.retain(|_, threads| {
        threads.remove(&me);
        !threads.is_empty()
    });
    result
}

extern "C" fn selrecord(td: usize, selinfo: usize) {
    let polling = thread::current(|thread| thread.td().address() == td && thread.polling.get());
    if !polling {
        complain!("selrecord: {td:#x} is no thread that polls");
    }
    kernel().waiting.select.lock().unwrap().recorded.entry(selinfo).or_default().insert(td);
}

extern "C" fn selwakeup(selinfo: usize) {
    let waiting = &kernel().waiting;
    let mut select = waiting.select.lock().unwrap();
    let threads = select.recorded.remove(&selinfo).unwrap_or_default();
    select.woken.extend(threads);
    waiting.selected.notify_all();
}

extern "C" fn seldrain(selinfo: usize) {
    selwakeup(selinfo);
}

fn note(at: usize) -> Knote {
    // SAFETY: eternal memory of `Kqueue::add`, or what the module took for such.
    unsafe { Knote::new(at as *mut u8) }.unwrap_or_else(|| complain!("a knote at address 0"))
}

/// The mutex of the list, and its notes now.
fn list(at: usize, who: &str) -> (usize, Vec<usize>) {
    let lists = kernel().waiting.lists.lock().unwrap();
    let list = lists.get(&at).unwrap_or_else(|| complain!("{who}: the list at {at:#x} is not initialised"));
    (list.mutex, list.notes.clone())
}

/// Runs `f` with the list's mutex held, which the caller holds or does not, as he says.
fn locked<R>(mutex: usize, is_locked: bool, who: &str, f: impl FnOnce() -> R) -> R {
    if lock::owns_mtx(mutex) != is_locked {
        complain!("{who}: the list's mutex is {}held", if is_locked { "not " } else { "" });
    }
    if is_locked {
        return f();
    }
    lock::lock_mtx(mutex, who);
    let result = f();
    lock::unlock_mtx(mutex, who);
    result
}

extern "C" fn knlist_init_mtx(at: usize, mutex: usize) {
    if mutex == 0 {
        complain!("knlist_init_mtx: lists without a mutex of their own are not emulated");
    }
    if kernel().waiting.lists.lock().unwrap().insert(at, List { mutex, notes: Vec::new() }).is_some() {
        complain!("knlist_init_mtx: the list at {at:#x} is initialised twice");
    }
}

extern "C" fn knlist_destroy(at: usize) {
    let (_, notes) = list(at, "knlist_destroy");
    if !notes.is_empty() {
        complain!("knlist_destroy: {} knotes are on the list", notes.len());
    }
    kernel().waiting.lists.lock().unwrap().remove(&at);
}

fn change(at: usize, f: impl FnOnce(&mut Vec<usize>)) {
    if let Some(list) = kernel().waiting.lists.lock().unwrap().get_mut(&at) {
        f(&mut list.notes);
    }
}

extern "C" fn knlist_add(at: usize, knote: usize, is_locked: i32) {
    let (mutex, _) = list(at, "knlist_add");
    locked(mutex, is_locked != 0, "knlist_add", || {
        let note = note(knote);
        if note.status() & KN_DETACHED == 0 {
            complain!("knlist_add: the knote is on a list");
        }
        note.set_status(note.status() & !KN_DETACHED);
        note.set_knlist(at);
        change(at, |notes| notes.push(knote));
    });
}

fn remove(at: usize, knote: usize) {
    let note = note(knote);
    if note.status() & KN_DETACHED != 0 || note.knlist() != at {
        complain!("knlist_remove: the knote is not on the list");
    }
    note.set_status(note.status() | KN_DETACHED);
    note.set_knlist(0);
    change(at, |notes| notes.retain(|one| *one != knote));
}

extern "C" fn knlist_remove(at: usize, knote: usize, is_locked: i32) {
    let (mutex, _) = list(at, "knlist_remove");
    locked(mutex, is_locked != 0, "knlist_remove", || remove(at, knote));
}

extern "C" fn knlist_cleardel(at: usize, _td: usize, is_locked: i32, kill: i32) {
    let (mutex, _) = list(at, "knlist_cleardel");
    locked(mutex, is_locked != 0, "knlist_cleardel", || {
        for knote in list(at, "knlist_cleardel").1 {
            remove(at, knote);
            let waiting = &kernel().waiting;
            waiting.active.lock().unwrap().remove(&knote);
            // One that is not deleted goes on referring to the module.
            if kill != 0 {
                waiting.all.lock().unwrap().remove(&knote);
            }
        }
    });
}

extern "C" fn knote(at: usize, hint: i64, flags: i32) {
    let (mutex, _) = list(at, "knote");
    locked(mutex, flags & KNF_LISTLOCKED != 0, "knote", || {
        for knote in list(at, "knote").1 {
            if event(knote, hint) {
                activate(knote);
            }
        }
    });
}

fn activate(knote: usize) {
    let waiting = &kernel().waiting;
    waiting.active.lock().unwrap().insert(knote);
    waiting.activated.notify_all();
}

fn filterops(knote: usize) -> Filterops {
    // SAFETY: what the module's d_kqfilter set.
    let fop = unsafe { Filterops::new(note(knote).fop() as *mut u8) };
    fop.unwrap_or_else(|| complain!("the knote has no functions"))
}

/// Asks the module; with the list's mutex held.
fn event(knote: usize, hint: i64) -> bool {
    call::three(filterops(knote).event(), knote, hint as usize, 0) != 0
}

/// A kqueue(2) whose filters look at devices.
#[derive(Debug, Default)]
pub struct Kqueue<'a> {
    notes: Vec<(usize, &'a File)>,
}

impl<'a> Kqueue<'a> {
    /// kqueue(2).
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// kevent(2) with `EV_ADD`: `EVFILT_READ` (-1) or another filter on the file.
    pub fn add(&mut self, file: &'a File, filter: i16) -> Result<(), Errno> {
        let knote = eternal(Knote::SIZE).as_ptr() as usize;
        let note = note(knote);
        note.set_filter(filter);
        note.set_status(KN_DETACHED);
        file.kqfilter(knote)?;
        if filterops(knote).isfd() != 1 {
            complain!("d_kqfilter: f_isfd is not set");
        }
        kernel().waiting.all.lock().unwrap().insert(knote);
        self.notes.push((knote, file));
        let _entry = Entry::new("kevent", 0, 0);
        if Self::look(knote) {
            activate(knote);
        }
        Ok(())
    }

    fn look(knote: usize) -> bool {
        let list_at = note(knote).knlist();
        if list_at == 0 {
            return false;
        }
        let (mutex, _) = list(list_at, "kevent");
        locked(mutex, false, "kevent", || event(knote, 0))
    }

    /// kevent(2): what the filters that have something say of how much it is.
    pub fn wait(&self, timeout: Duration) -> Vec<i64> {
        let _entry = Entry::new("kevent", 0, 0);
        let waiting = &kernel().waiting;
        let end = Instant::now() + timeout;
        loop {
            let mine: Vec<usize> = {
                let mut active = waiting.active.lock().unwrap();
                loop {
                    let mine: Vec<usize> =
                        self.notes.iter().map(|(knote, _)| *knote).filter(|knote| active.contains(knote)).collect();
                    let left = end.saturating_duration_since(Instant::now());
                    if !mine.is_empty() || left.is_zero() {
                        break mine;
                    }
                    active = waiting.activated.wait_timeout(active, left).unwrap().0;
                }
            };
            if mine.is_empty() {
                return Vec::new();
            }
            let mut found = Vec::new();
            for knote in mine {
                if Self::look(knote) {
                    found.push(note(knote).data());
                } else {
                    waiting.active.lock().unwrap().remove(&knote);
                }
            }
            if !found.is_empty() {
                return found;
            }
        }
    }
}

impl Drop for Kqueue<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let _entry = Entry::new("close", 0, 0);
        let waiting = &kernel().waiting;
        for (knote, _) in self.notes.drain(..) {
            waiting.active.lock().unwrap().remove(&knote);
            if waiting.all.lock().unwrap().remove(&knote) && note(knote).status() & KN_DETACHED == 0 {
                call::one(filterops(knote).detach(), knote);
            }
        }
    }
}
