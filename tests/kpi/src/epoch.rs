//! epoch(9), for the one epoch of the network stack.
//!
//! A reader publishes the epoch number in which its section began, per CPU; a waiter raises the number and waits until
//! no CPU shows an older one. Callbacks run in a thread of their own, as the kernel's do.

use crate::call;
use crate::complaint::complain;
use crate::kernel::kernel;
use crate::thread::{self, Entry, SECTIONS};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Condvar, Mutex};

/// What `net_epoch_preempt` holds: any value that no pointer has.
pub(crate) const NET_EPOCH: u64 = 0x6e65_7470;

static EPOCH: AtomicU64 = AtomicU64::new(1);

pub(crate) const SYMBOLS: &[crate::symbols::Function] = crate::symbols![
    _epoch_enter_preempt,
    _epoch_exit_preempt,
    epoch_wait_preempt,
    epoch_call,
    epoch_drain_callbacks,
    in_epoch,
];

#[derive(Debug, Default)]
struct Queue {
    calls: VecDeque<(usize, usize)>,
    running: bool,
    started: bool,
    stop: bool,
}

/// Callbacks that wait for the end of a grace period.
#[derive(Debug, Default)]
pub(crate) struct Callbacks {
    queue: Mutex<Queue>,
    idle: Condvar,
}

impl Callbacks {
    /// Functions of callbacks that have not run.
    pub(crate) fn pending(&self) -> Vec<usize> {
        self.queue.lock().unwrap().calls.iter().map(|call| call.0).collect()
    }

    /// Ends the thread that runs them.
    pub(crate) fn stop(&self) {
        self.queue.lock().unwrap().stop = true;
        self.idle.notify_all();
    }

    /// Waits until none is left.
    pub(crate) fn drain(&self) {
        let mut queue = self.queue.lock().unwrap();
        while queue.running || !queue.calls.is_empty() {
            queue = self.idle.wait(queue).unwrap();
        }
    }
}

/// Opens a section of the calling thread.
pub(crate) fn enter(tracker: usize) {
    thread::current(|thread| {
        let mut trackers = thread.trackers.borrow_mut();
        if trackers.contains(&tracker) {
            complain!("epoch_enter: the tracker at {tracker:#x} is in use");
        }
        if trackers.is_empty() {
            SECTIONS[thread.cpu].0.store(EPOCH.load(Ordering::SeqCst), Ordering::SeqCst);
            fence(Ordering::SeqCst);
        }
        trackers.push(tracker);
    });
}

/// Closes it.
pub(crate) fn exit(tracker: usize) {
    thread::current(|thread| {
        let mut trackers = thread.trackers.borrow_mut();
        let Some(at) = trackers.iter().rposition(|&t| t == tracker) else {
            complain!("epoch_exit: the tracker at {tracker:#x} was not entered with");
        };
        trackers.remove(at);
        if trackers.is_empty() {
            SECTIONS[thread.cpu].0.store(0, Ordering::Release);
        }
    });
}

/// Waits for the end of every section that is open now.
pub(crate) fn wait() {
    let new = EPOCH.fetch_add(1, Ordering::SeqCst) + 1;
    fence(Ordering::SeqCst);
    for section in &SECTIONS {
        loop {
            let begun = section.0.load(Ordering::SeqCst);
            if begun == 0 || begun >= new {
                break;
            }
            std::thread::yield_now();
        }
    }
}

fn check(epoch: u64, who: &str) {
    if epoch != NET_EPOCH {
        complain!("{who}: {epoch:#x} is not the network epoch");
    }
}

extern "C" fn _epoch_enter_preempt(epoch: u64, tracker: usize) {
    check(epoch, "epoch_enter");
    enter(tracker);
}

extern "C" fn _epoch_exit_preempt(epoch: u64, tracker: usize) {
    check(epoch, "epoch_exit");
    exit(tracker);
}

extern "C" fn epoch_wait_preempt(epoch: u64) {
    check(epoch, "epoch_wait");
    thread::check_sleep("epoch_wait_preempt");
    wait();
}

extern "C" fn in_epoch(epoch: u64) -> i32 {
    check(epoch, "in_epoch");
    thread::current(|thread| i32::from(thread.in_epoch()))
}

extern "C" fn epoch_call(epoch: u64, function: usize, context: usize) {
    check(epoch, "epoch_call");
    call::check(function, "epoch_call");
    let callbacks = &kernel().callbacks;
    let mut queue = callbacks.queue.lock().unwrap();
    queue.calls.push_back((function, context));
    if !queue.started {
        queue.started = true;
        std::thread::Builder::new().name("epoch".to_owned()).spawn(run).expect("a thread for epoch callbacks");
    }
    callbacks.idle.notify_all();
}

fn run() {
    let callbacks = &kernel().callbacks;
    loop {
        let batch: Vec<_> = {
            let mut queue = callbacks.queue.lock().unwrap();
            while queue.calls.is_empty() {
                queue.running = false;
                callbacks.idle.notify_all();
                if queue.stop {
                    return;
                }
                queue = callbacks.idle.wait(queue).unwrap();
            }
            queue.running = true;
            queue.calls.iter().copied().collect()
        };
        wait();
        for (function, context) in batch {
            let entry = Entry::new("an epoch callback", 0, 0);
            call::one(function, context);
            drop(entry);
            callbacks.queue.lock().unwrap().calls.pop_front();
        }
    }
}

extern "C" fn epoch_drain_callbacks(epoch: u64) {
    check(epoch, "epoch_drain_callbacks");
    thread::check_sleep("epoch_drain_callbacks");
    kernel().callbacks.drain();
}
