//! The state of the one machine.

use crate::counter::Counters;
use crate::epoch::Callbacks;
use crate::failures::Plan;
use crate::layout::{MCLBYTES, MSIZE};
use crate::options::{Options, Split};
use crate::rng::Rng;
use crate::slab::Slab;
use crate::vnet::VnetState;
use std::collections::HashMap;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, OnceLock, RwLock};

const MBUFS: u32 = 1 << 16;
const CLUSTERS: u32 = 1 << 15;
const ZONE: usize = 64;

/// Everything that a machine consists of.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) options: Options,
    pub(crate) rng: Rng,
    pub(crate) failures: Plan,
    pub(crate) split: Mutex<Split>,
    pub(crate) mbufs: Slab,
    pub(crate) clusters: Slab,
    pub(crate) malloc: crate::malloc::Malloc,
    pub(crate) counters: Counters,
    pub(crate) callbacks: Callbacks,
    pub(crate) locks: crate::lock::Locks,
    pub(crate) hooks: crate::pfil::Hooks,
    pub(crate) vnets: RwLock<Vec<&'static VnetState>>,
    pub(crate) sysinits: Mutex<crate::vnet::Sysinits>,
    pub(crate) vnet0: OnceLock<&'static VnetState>,
    pub(crate) devices: crate::cdev::Devices,
    pub(crate) waiting: crate::waiting::Waiting,
    pub(crate) probes: crate::sdt::Probes,
    pub(crate) sysctls: crate::sysctl::Tree,
    pub(crate) contexts: crate::oids::Contexts,
    pub(crate) environment: Mutex<HashMap<String, String>>,
    pub(crate) console: Mutex<Console>,
    pub(crate) modules: Mutex<Vec<crate::linker::Loaded>>,
    pub(crate) tasks: crate::taskqueue::Tasks,
    pub(crate) netisr: crate::netisr::Netisr,
    pub(crate) fragments: crate::ip::Fragments,
    /// Every interface ever made, in the order of its index.
    pub(crate) interfaces: Mutex<Vec<usize>>,
}

/// What the module said.
#[derive(Debug, Default)]
pub(crate) struct Console {
    pub(crate) lines: Vec<String>,
    pub(crate) partial: String,
}

static KERNEL: AtomicPtr<Kernel> = AtomicPtr::new(std::ptr::null_mut());

/// The machine that is up.
pub(crate) fn kernel() -> &'static Kernel {
    let kernel = KERNEL.load(Ordering::Acquire);
    assert!(!kernel.is_null(), "no machine is up");
    // SAFETY: set by `install` to a leaked box, so it is valid for ever.
    unsafe { &*kernel }
}

/// Seed of the machine that is up, or 0.
pub(crate) fn seed() -> u64 {
    if KERNEL.load(Ordering::Acquire).is_null() { 0 } else { kernel().options.seed }
}

impl Kernel {
    /// Makes a machine and makes it the one that is up. It is never freed: threads may still hold references.
    pub(crate) fn install(options: Options) -> &'static Self {
        let seed = options.seed;
        let kernel = Box::new(Self {
            rng: Rng::new(seed),
            failures: Plan::new(options.failures, seed),
            split: Mutex::new(options.split),
            mbufs: Slab::new("mbuf", MSIZE, 0, MBUFS),
            clusters: Slab::new("cluster", MCLBYTES, ZONE, CLUSTERS),
            malloc: crate::malloc::Malloc::default(),
            counters: Counters::default(),
            callbacks: Callbacks::default(),
            locks: crate::lock::Locks::default(),
            hooks: crate::pfil::Hooks::default(),
            vnets: RwLock::default(),
            sysinits: Mutex::default(),
            vnet0: OnceLock::new(),
            devices: crate::cdev::Devices::default(),
            waiting: crate::waiting::Waiting::default(),
            probes: crate::sdt::Probes::default(),
            sysctls: crate::sysctl::Tree::default(),
            contexts: crate::oids::Contexts::default(),
            environment: Mutex::default(),
            console: Mutex::default(),
            modules: Mutex::default(),
            tasks: crate::taskqueue::Tasks::default(),
            netisr: crate::netisr::Netisr::default(),
            fragments: crate::ip::Fragments::default(),
            interfaces: Mutex::default(),
            options,
        });
        let kernel = Box::into_raw(kernel);
        KERNEL.store(kernel, Ordering::Release);
        // SAFETY: just leaked.
        unsafe { &*kernel }
    }

    /// Credentials of the host's root, or 0 before there is a VNET.
    pub(crate) fn vnet0_ucred(&self) -> usize {
        self.vnet0.get().map_or(0, |vnet| vnet.ucred(0))
    }

    /// mbufs that exist, but for those that the IP layer keeps because it reassembles packets.
    pub(crate) fn live_mbufs(&self) -> usize {
        self.mbufs.live().saturating_sub(self.fragments.mbufs())
    }

    /// Writes to the console.
    pub(crate) fn say(&self, text: &str) {
        let mut console = self.console.lock().unwrap();
        console.partial.push_str(text);
        while let Some(end) = console.partial.find('\n') {
            let line: String = console.partial.drain(..=end).collect();
            let line = line.trim_end_matches('\n').to_owned();
            if self.options.verbose {
                eprintln!("console: {line}");
            }
            console.lines.push(line);
        }
    }
}
