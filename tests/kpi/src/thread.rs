//! Threads of the host process as threads of the emulated kernel.
//!
//! A thread that enters the kernel is given a CPU of its own for the rest of its life: `%gs` points to that CPU's
//! `struct pcpu`, where module code finds `curthread`, `curcpu` and its share of every counter(9). It leaves with what it
//! came with: no lock, no epoch section, no critical section, no current VNET.

use crate::complaint::complain;
use crate::foreign::eternal;
use crate::kernel::kernel;
use crate::layout::{Pcpu, Td};
use crate::user::UserMemory;
use std::cell::{Cell, RefCell};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// Most CPUs of a machine.
pub(crate) const CPUS: usize = 256;

/// Which CPUs are taken.
static TAKEN: Mutex<[bool; CPUS]> = Mutex::new([false; CPUS]);

/// Per CPU: 0 outside epoch sections, else the epoch in which the section began.
pub(crate) static SECTIONS: [Padded; CPUS] = [const { Padded(AtomicU64::new(0)) }; CPUS];

/// A cache line of its own.
#[repr(align(64))]
#[derive(Debug)]
pub(crate) struct Padded(pub(crate) AtomicU64);

static NEXT_TID: AtomicI32 = AtomicI32::new(100_001);

/// A lock that a thread holds.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    /// Address of the lock.
    pub(crate) lock: usize,
    /// Name of it.
    pub(crate) name: String,
    /// Whether its holder may sleep.
    pub(crate) sleepable: bool,
    /// Times acquired.
    pub(crate) depth: u32,
    /// Held exclusively.
    pub(crate) exclusive: bool,
}

/// The calling thread, as the kernel sees it.
#[derive(Debug)]
pub(crate) struct Thread {
    /// Its CPU.
    pub(crate) cpu: usize,
    td: Td,
    entry: Cell<&'static str>,
    /// Locks held, oldest first.
    pub(crate) held: RefCell<Vec<Held>>,
    /// Trackers of open epoch sections.
    pub(crate) trackers: RefCell<Vec<usize>>,
    /// User memory that copyin and copyout reach.
    pub(crate) user: RefCell<Option<UserMemory>>,
    /// Private data of the open device file in use.
    pub(crate) file: RefCell<Option<crate::cdev::FilePrivate>>,
    /// It is in poll(2).
    pub(crate) polling: Cell<bool>,
}

thread_local! {
    static THREAD: Thread = Thread::new();
    static ENTERED: Cell<bool> = const { Cell::new(false) };
}

impl Thread {
    fn new() -> Self {
        let cpu = {
            let mut taken = TAKEN.lock().unwrap();
            let limit = usize::from(kernel().options.cpus).min(CPUS);
            let Some(cpu) = taken.iter().take(limit).position(|taken| !taken) else {
                complain!("more than {limit} threads are inside the machine; raise Options::cpus");
            };
            taken[cpu] = true;
            cpu
        };
        // SAFETY: eternal memory of that size.
        let td = unsafe { Td::new(eternal(Td::SIZE).as_ptr()) }.unwrap_or_else(|| unreachable!());
        td.set_tid(NEXT_TID.fetch_add(1, Ordering::Relaxed));
        td.set_proc(eternal(crate::memory::PAGE).as_ptr() as usize);
        let pcpu = crate::counter::pcpu(cpu);
        pcpu.set_curthread(td.address());
        pcpu.set_cpuid(cpu as u32);
        set_gs(pcpu);
        ENTERED.set(true);
        Self {
            cpu,
            td,
            entry: Cell::new("no call"),
            held: RefCell::default(),
            trackers: RefCell::default(),
            user: RefCell::default(),
            file: RefCell::default(),
            polling: Cell::default(),
        }
    }

    /// Its `struct thread`.
    pub(crate) const fn td(&self) -> Td {
        self.td
    }

    /// Whether it is inside the network epoch.
    pub(crate) fn in_epoch(&self) -> bool {
        !self.trackers.borrow().is_empty()
    }

    /// Complains if it must not sleep now.
    pub(crate) fn check_sleep(&self, what: &str) {
        if self.in_epoch() {
            complain!("{what}: sleeps inside the network epoch");
        }
        if self.td.critnest() != 0 {
            complain!("{what}: sleeps in a critical section");
        }
        if let Some(held) = self.held.borrow().iter().find(|held| !held.sleepable) {
            complain!("{what}: sleeps while it holds \"{}\"", held.name);
        }
    }

    fn check_leaving(&self) {
        let entry = self.entry.get();
        if let Some(held) = self.held.borrow().last() {
            complain!("{entry} returns with the lock \"{}\" held", held.name);
        }
        if self.in_epoch() {
            complain!("{entry} returns inside an epoch section");
        }
        if self.td.critnest() != 0 {
            complain!("{entry} returns in a critical section");
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        SECTIONS[self.cpu].0.store(0, Ordering::SeqCst);
        TAKEN.lock().unwrap()[self.cpu] = false;
    }
}

fn set_gs(pcpu: Pcpu) {
    const ARCH_SET_GS: libc::c_int = 0x1001;
    // SAFETY: sets this thread's %gs base, which nothing else on Linux x86-64 uses.
    let result = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, pcpu.address()) };
    assert!(result == 0, "arch_prctl: {}", std::io::Error::last_os_error());
}

/// Runs `f` with the calling thread.
pub(crate) fn current<R>(f: impl FnOnce(&Thread) -> R) -> R {
    THREAD.with(f)
}

/// What the thread is doing, for complaints.
pub(crate) fn entry_name() -> &'static str {
    if ENTERED.get() {
        THREAD.try_with(|thread| thread.entry.get()).unwrap_or("the end of a thread")
    } else {
        "no call"
    }
}

/// Complains if the calling thread must not sleep now.
pub(crate) fn check_sleep(what: &str) {
    current(|thread| thread.check_sleep(what));
}

/// A call into the kernel, from its begin to its end.
#[derive(Debug)]
pub(crate) struct Entry {
    previous: &'static str,
    vnet: usize,
    ucred: usize,
}

impl Entry {
    /// Enters. `vnet` is what `curvnet` becomes, or 0; `ucred` are the thread's credentials, or 0 for the host's root.
    pub(crate) fn new(name: &'static str, vnet: usize, ucred: usize) -> Self {
        current(|thread| {
            let td = thread.td;
            let entry = Self { previous: thread.entry.replace(name), vnet: td.vnet(), ucred: td.ucred() };
            td.set_vnet(vnet);
            td.set_ucred(if ucred == 0 { kernel().vnet0_ucred() } else { ucred });
            crate::clock::tick();
            entry
        })
    }

    /// Says what the call does now, for complaints.
    pub(crate) fn rename(&self, name: &'static str) {
        current(|thread| thread.entry.set(name));
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        current(|thread| {
            thread.check_leaving();
            thread.td.set_vnet(self.vnet);
            thread.td.set_ucred(self.ucred);
            thread.entry.set(self.previous);
        });
    }
}
