//! taskqueue(9): the queue `taskqueue_thread`, its one thread, and timeouts.
//!
//! A handler runs on a kernel thread of its own, outside every epoch and without a current VNET; it may sleep. Timeouts
//! follow the machine's clock: a thread waits for the next one while the clock runs, and `Machine::advance` fires them
//! where the clock is moved by hand.

use crate::call;
use crate::clock;
use crate::complaint::complain;
use crate::foreign::shared;
use crate::kernel::{Kernel, kernel};
use crate::thread::{self, Entry};
use crate::vnet::VnetState;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread::ThreadId;
use std::time::Duration;

shared! {
    /// `struct task`.
    Task(32) {
        link, set_link: usize = 0;
        pending, set_pending: u16 = 8;
        priority, set_priority: u8 = 10;
        flags, set_flags: u8 = 11;
        func, set_func: usize = 16;
        context, set_context: usize = 24;
    }
}

shared! {
    /// `struct timeout_task`.
    TimeoutTask(112) {
        q, set_q: usize = 0;
        f, set_f: i32 = 104;
    }
}

/// Offset of the task in `struct timeout_task`.
pub(crate) const TT_TASK: usize = 8;
/// `DT_CALLOUT_ARMED` and `DT_DRAIN_IN_PROGRESS` of kern/subr_taskqueue.c.
const ARMED: i32 = 1;
const DRAINING: i32 = 2;
const TASK_NETWORK: u8 = 0x4;
const EBUSY: i32 = 16;

/// What `taskqueue_thread` holds: any value that no pointer has.
pub(crate) const THREAD: u64 = 0x7461_736b;

/// How long somebody may wait for a task before it counts as a deadlock.
const PATIENCE: Duration = Duration::from_secs(120);

/// Constants of FreeBSD's headers, by name.
pub(crate) const FACTS: &[(&str, u32)] = &[("TASK_NETWORK", TASK_NETWORK as u32)];

pub(crate) const SYMBOLS: &[crate::symbols::Function] = crate::symbols![
    taskqueue_enqueue,
    taskqueue_enqueue_timeout,
    taskqueue_cancel,
    taskqueue_cancel_timeout,
    taskqueue_drain,
    taskqueue_drain_timeout,
    _timeout_task_init,
];

/// A task that waits: its address and what it was enqueued as.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    at: usize,
    priority: u8,
    func: usize,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<Waiting>,
    running: Option<Waiting>,
    /// Timeouts under way: address of the `timeout_task`, when, and the function.
    timeouts: HashMap<usize, (Duration, usize)>,
    /// Timeout tasks that were initialised.
    known: HashSet<usize>,
    runs: u64,
    started: bool,
    timer: bool,
    stop: bool,
    worker: Option<ThreadId>,
    /// Network stacks that the thread is to destroy.
    ending: Vec<&'static VnetState>,
}

/// The task queue of a machine.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    state: Mutex<State>,
    changed: Condvar,
}

impl State {
    fn is_waiting(&self, at: usize) -> bool {
        self.waiting.iter().any(|waiting| waiting.at == at)
    }

    fn is_running(&self, at: usize) -> bool {
        self.running.is_some_and(|running| running.at == at)
    }

    fn is_worker(&self) -> bool {
        self.worker == Some(std::thread::current().id())
    }

    fn put(&mut self, task: Task) {
        let at = task.address();
        if self.is_waiting(at) {
            if task.pending() == 0 {
                complain!("taskqueue_enqueue: the task at {at:#x} was initialised again while it was queued");
            }
            task.set_pending(task.pending().saturating_add(1));
            return;
        }
        if task.pending() != 0 {
            complain!("taskqueue_enqueue: the task at {at:#x} is not initialised");
        }
        call::check(task.func(), "taskqueue_enqueue");
        task.set_pending(1);
        let priority = task.priority();
        let place = self.waiting.partition_point(|waiting| waiting.priority >= priority);
        self.waiting.insert(place, Waiting { at, priority, func: task.func() });
    }

    fn take(&mut self) -> Option<Task> {
        if self.waiting.is_empty() {
            return None;
        }
        let first = self.waiting.remove(0);
        let task = task(first.at);
        if task.pending() == 0 {
            complain!("the task at {:#x} was initialised again while it was queued", first.at);
        }
        self.running = Some(first);
        self.runs += 1;
        Some(task)
    }

    /// Enqueues what is due at `now`.
    fn fire(&mut self, now: Duration) {
        let mut due: Vec<(Duration, usize)> =
            self.timeouts.iter().filter(|(_, (when, _))| *when <= now).map(|(&at, &(when, _))| (when, at)).collect();
        due.sort_unstable();
        for (_, at) in due {
            self.timeouts.remove(&at);
            let timeout = timeout(at);
            timeout.set_f(timeout.f() & !ARMED);
            self.put(task(at + TT_TASK));
        }
    }
}

fn task(at: usize) -> Task {
    // SAFETY: the module gave the address of a `struct task`, which it keeps while it is queued (and `forget` looks).
    unsafe { Task::new(at as *mut u8) }.unwrap_or_else(|| complain!("a task at address 0"))
}

fn timeout(at: usize) -> TimeoutTask {
    // SAFETY: as above, of a `struct timeout_task`.
    unsafe { TimeoutTask::new(at as *mut u8) }.unwrap_or_else(|| complain!("a timeout task at address 0"))
}

impl Tasks {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// How many handlers have begun.
    pub(crate) fn runs(&self) -> u64 {
        self.lock().runs
    }

    /// Waits until no task waits or runs. Timeouts under way do not count.
    pub(crate) fn wait_idle(&self) {
        let mut state = self.lock();
        if state.is_worker() {
            complain!("a task waits for the end of all tasks");
        }
        while state.running.is_some() || !state.waiting.is_empty() {
            state = self.wait(state, "waiting for the end of all tasks");
        }
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, who: &str) -> MutexGuard<'a, State> {
        let before = state.runs;
        let waited = self.changed.wait_timeout(state, PATIENCE).unwrap_or_else(std::sync::PoisonError::into_inner);
        let (state, result) = waited;
        if result.timed_out() && state.runs == before {
            complain!("{who}: nothing happens for {PATIENCE:?}: a deadlock");
        }
        state
    }

    /// Destroys a network stack on the queue's thread, as prison_complete() does, with all tasks waiting behind.
    pub(crate) fn destroy(&'static self, kernel: &'static Kernel, vnet: &'static VnetState) {
        let mut state = self.lock();
        state.ending.push(vnet);
        self.start(&mut state, kernel);
        self.changed.notify_all();
        while state.ending.iter().any(|each| std::ptr::eq(*each, vnet)) {
            state = self.wait(state, "waiting for the end of a network stack");
        }
    }

    /// When the next timeout is due.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.lock().timeouts.values().map(|(when, _)| *when).min()
    }

    /// Begins what is due by the clock.
    pub(crate) fn clock_moved(&self) {
        self.lock().fire(clock::uptime());
        self.changed.notify_all();
    }

    /// Ends the threads.
    pub(crate) fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_all();
    }

    /// Tasks that lie in the range or whose function does, and that wait, run or have a timeout.
    pub(crate) fn within(&self, range: &Range<usize>) -> Vec<String> {
        let state = self.lock();
        let mut found = Vec::new();
        for (what, each) in
            state.waiting.iter().map(|w| ("queued", w)).chain(state.running.iter().map(|r| ("running", r)))
        {
            if range.contains(&each.at) || range.contains(&each.func) {
                found.push(format!("{what} task at {:#x}", each.at));
            }
        }
        for (at, (_, func)) in &state.timeouts {
            if range.contains(at) || range.contains(func) {
                found.push(format!("timeout under way at {at:#x}"));
            }
        }
        found
    }

    /// The memory is freed: complains if a task in it is queued, has a timeout, or runs on another thread.
    pub(crate) fn forget(&self, range: &Range<usize>, who: &str) {
        let mut state = self.lock();
        if state.known.is_empty() && state.waiting.is_empty() && state.running.is_none() {
            return;
        }
        if let Some(waiting) = state.waiting.iter().find(|waiting| range.contains(&waiting.at)) {
            complain!("{who}: the task at {:#x} is queued, and its memory is freed", waiting.at);
        }
        if let Some(at) = state.timeouts.keys().find(|at| range.contains(at)) {
            complain!("{who}: the timeout task at {at:#x} has a timeout under way, and its memory is freed");
        }
        if let Some(running) = state.running.filter(|running| range.contains(&running.at))
            && !state.is_worker()
        {
            complain!("{who}: the task at {:#x} is running, and its memory is freed", running.at);
        }
        state.known.retain(|at| !range.contains(at));
    }

    fn start(&'static self, state: &mut State, kernel: &'static Kernel) {
        if !state.started {
            state.started = true;
            let name = "taskqueue".to_owned();
            std::thread::Builder::new().name(name).spawn(move || run(&kernel.tasks)).expect("a thread for tasks");
        }
    }

    fn start_timer(&'static self, state: &mut State, kernel: &'static Kernel) {
        if !state.timer {
            state.timer = true;
            let name = "softclock".to_owned();
            std::thread::Builder::new().name(name).spawn(move || tick(&kernel.tasks)).expect("a thread for timeouts");
        }
    }
}

/// The queue's thread.
fn run(tasks: &'static Tasks) {
    let mut state = tasks.lock();
    state.worker = Some(std::thread::current().id());
    loop {
        if state.stop {
            return;
        }
        if let Some(vnet) = state.ending.last().copied() {
            // What was to be done later falls due just now, and waits for this thread.
            state.fire(Duration::MAX);
            drop(state);
            let entry = Entry::new("vnet_destroy", 0, 0);
            crate::vnet::destroy(vnet);
            drop(entry);
            state = tasks.lock();
            state.ending.retain(|each| !std::ptr::eq(*each, vnet));
            tasks.changed.notify_all();
            continue;
        }
        let Some(task) = state.take() else {
            state = tasks.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
            continue;
        };
        let (func, context, pending) = (task.func(), task.context(), task.pending());
        let network = task.flags() & TASK_NETWORK != 0;
        task.set_pending(0);
        drop(state);
        let entry = Entry::new("a task", 0, 0);
        let tracker = Box::new(0_u64);
        let tracker = std::ptr::from_ref(&*tracker) as usize;
        if network {
            crate::epoch::enter(tracker);
        }
        call::two(func, context, usize::from(pending));
        if network {
            crate::epoch::exit(tracker);
        }
        if thread::current(|thread| thread.td().vnet()) != 0 {
            complain!("a task leaves curvnet set");
        }
        drop(entry);
        state = tasks.lock();
        state.running = None;
        tasks.changed.notify_all();
    }
}

/// The thread that fires timeouts while the clock runs.
fn tick(tasks: &'static Tasks) {
    let mut state = tasks.lock();
    while !state.stop {
        let next = state.timeouts.values().map(|(when, _)| *when).min().filter(|_| !clock::is_manual());
        let poisoned = std::sync::PoisonError::into_inner;
        state = match next.map(|when| when.saturating_sub(clock::uptime())) {
            None => tasks.changed.wait(state).unwrap_or_else(poisoned),
            Some(Duration::ZERO) => {
                state.fire(clock::uptime());
                tasks.changed.notify_all();
                state
            }
            Some(left) => {
                let waited = tasks.changed.wait_timeout(state, left);
                waited.map_or_else(|e| e.into_inner().0, |(state, _)| state)
            }
        };
    }
}

fn check_queue(queue: u64, who: &str) {
    if queue != THREAD {
        complain!("{who}: {queue:#x} is not taskqueue_thread");
    }
}

fn check_context(who: &str) {
    // The queue's lock is a mutex.
    if thread::current(|thread| thread.td().critnest()) != 0 {
        complain!("{who} in a critical section");
    }
}

fn enqueue(at: usize) {
    let kernel = kernel();
    let mut state = kernel.tasks.lock();
    state.put(task(at));
    kernel.tasks.start(&mut state, kernel);
    kernel.tasks.changed.notify_all();
}

extern "C" fn taskqueue_enqueue(queue: u64, at: usize) -> i32 {
    check_queue(queue, "taskqueue_enqueue");
    check_context("taskqueue_enqueue");
    enqueue(at);
    0
}

extern "C" fn _timeout_task_init(queue: u64, at: usize, priority: i32, function: usize, context: usize) {
    let who = "timeout_task_init";
    check_queue(queue, who);
    let Ok(priority) = u8::try_from(priority) else { complain!("{who}: priority {priority}") };
    call::check(function, who);
    let mut state = kernel().tasks.lock();
    if state.timeouts.contains_key(&at) || state.is_waiting(at + TT_TASK) {
        complain!("{who}: the timeout task at {at:#x} is in use");
    }
    state.known.insert(at);
    let (timeout, task) = (timeout(at), task(at + TT_TASK));
    timeout.set_q(queue as usize);
    timeout.set_f(0);
    task.set_pending(0);
    task.set_priority(priority);
    task.set_flags(0);
    task.set_func(function);
    task.set_context(context);
}

extern "C" fn taskqueue_enqueue_timeout(queue: u64, at: usize, ticks: i32) -> i32 {
    let who = "taskqueue_enqueue_timeout";
    check_queue(queue, who);
    check_context(who);
    let kernel = kernel();
    let mut state = kernel.tasks.lock();
    if !state.known.contains(&at) {
        complain!("{who}: the timeout task at {at:#x} is not initialised");
    }
    let (timeout, task) = (timeout(at), task(at + TT_TASK));
    let mut result = i32::from(task.pending());
    if timeout.f() & DRAINING != 0 {
        return -1;
    }
    if ticks == 0 {
        drop(state);
        enqueue(at + TT_TASK);
        return result;
    }
    let armed = timeout.f() & ARMED != 0;
    result += i32::from(armed);
    // A negative number leaves a timeout under way alone.
    if !armed || ticks > 0 {
        let after = Duration::from_micros(u64::from(ticks.unsigned_abs()) * 1_000_000 / clock::HZ);
        timeout.set_f(timeout.f() | ARMED);
        state.timeouts.insert(at, (clock::uptime() + after, task.func()));
    }
    kernel.tasks.start(&mut state, kernel);
    kernel.tasks.start_timer(&mut state, kernel);
    kernel.tasks.changed.notify_all();
    result
}

fn cancel(state: &mut State, task: Task, pending: *mut u32, more: u32) -> i32 {
    let at = task.address();
    let count = if state.is_waiting(at) { u32::from(task.pending()) } else { 0 };
    state.waiting.retain(|waiting| waiting.at != at);
    task.set_pending(0);
    if !pending.is_null() {
        // SAFETY: the caller gives null or a place for a number.
        unsafe { pending.write(count + more) };
    }
    if state.is_running(at) { EBUSY } else { 0 }
}

extern "C" fn taskqueue_cancel(queue: u64, at: usize, pending: *mut u32) -> i32 {
    check_queue(queue, "taskqueue_cancel");
    check_context("taskqueue_cancel");
    let mut state = kernel().tasks.lock();
    let result = cancel(&mut state, task(at), pending, 0);
    kernel().tasks.changed.notify_all();
    result
}

extern "C" fn taskqueue_cancel_timeout(queue: u64, at: usize, pending: *mut u32) -> i32 {
    check_queue(queue, "taskqueue_cancel_timeout");
    check_context("taskqueue_cancel_timeout");
    let mut state = kernel().tasks.lock();
    let stopped = state.timeouts.remove(&at).is_some();
    let timeout = timeout(at);
    timeout.set_f(timeout.f() & !ARMED);
    let result = cancel(&mut state, task(at + TT_TASK), pending, u32::from(stopped));
    kernel().tasks.changed.notify_all();
    result
}

fn drain(at: usize, who: &str) {
    let tasks = &kernel().tasks;
    let mut state = tasks.lock();
    while state.is_waiting(at) || state.is_running(at) {
        if state.is_worker() {
            complain!("{who}: the task at {at:#x} is drained by the thread that runs tasks, which waits for itself");
        }
        state = tasks.wait(state, who);
    }
}

extern "C" fn taskqueue_drain(queue: u64, at: usize) {
    check_queue(queue, "taskqueue_drain");
    thread::check_sleep("taskqueue_drain");
    drain(at, "taskqueue_drain");
}

extern "C" fn taskqueue_drain_timeout(queue: u64, at: usize) {
    let who = "taskqueue_drain_timeout";
    check_queue(queue, who);
    thread::check_sleep(who);
    {
        let mut state = kernel().tasks.lock();
        if !state.known.contains(&at) {
            complain!("{who}: the timeout task at {at:#x} is not initialised");
        }
        let timeout = timeout(at);
        if timeout.f() & DRAINING != 0 {
            complain!("{who}: the timeout task at {at:#x} is being drained already");
        }
        timeout.set_f(timeout.f() | DRAINING);
        // As there, the mark of a timeout under way stays.
        state.timeouts.remove(&at);
    }
    drain(at + TT_TASK, who);
    let _state = kernel().tasks.lock();
    let timeout = timeout(at);
    timeout.set_f(timeout.f() & !DRAINING);
}
