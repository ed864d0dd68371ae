//! netisr(9): packets that are queued for the IP layer, and come up again from a thread of their own.
//!
//! While a packet waits, its receiving interface is kept as index and generation, as the kernel does, because interfaces
//! and whole network stacks may go meanwhile.

use crate::complaint::complain;
use crate::ip;
use crate::kernel::{Kernel, kernel};
use crate::layout::Ifnet;
use crate::mbuf::{self, M, flag};
use crate::thread;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard};

const IP: u32 = 1;
const IPV6: u32 = 6;
/// Packets that wait at most, of each kind: `net.isr.defaultqlimit`.
const LIMIT: usize = 256;
const ENOBUFS: i32 = 55;

/// Constants of FreeBSD's headers, by name.
pub(crate) const FACTS: &[(&str, u32)] = &[("NETISR_IP", IP), ("NETISR_IPV6", IPV6)];

pub(crate) const SYMBOLS: &[crate::symbols::Function] =
    crate::symbols![netisr_queue, m_rcvif_serialize, m_rcvif_restore];

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<(u32, usize)>,
    running: bool,
    runs: u64,
    started: bool,
    stop: bool,
}

/// The queues of a machine.
#[derive(Debug, Default)]
pub(crate) struct Netisr {
    state: Mutex<State>,
    changed: Condvar,
}

impl Netisr {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// How many packets have been taken.
    pub(crate) fn runs(&self) -> u64 {
        self.lock().runs
    }

    /// Waits until no packet waits or is on its way up.
    pub(crate) fn wait_idle(&self) {
        let mut state = self.lock();
        while state.running || !state.queue.is_empty() {
            state = self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_all();
    }
}

fn run(kernel: &'static Kernel) {
    let netisr = &kernel.netisr;
    let mut state = netisr.lock();
    loop {
        if state.stop {
            return;
        }
        let Some((protocol, m)) = state.queue.pop_front() else {
            state = netisr.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
            continue;
        };
        state.running = true;
        state.runs += 1;
        drop(state);
        ip::come_up(protocol == IPV6, m);
        state = netisr.lock();
        state.running = false;
        netisr.changed.notify_all();
    }
}

extern "C" fn netisr_queue(protocol: u32, m: usize) -> i32 {
    let who = "netisr_queue";
    let Some(m) = M::at(m, who) else { complain!("{who}: null mbuf") };
    if ![IP, IPV6].contains(&protocol) {
        complain!("{who}: protocol {protocol} is not emulated");
    }
    if m.nextpkt() != 0 {
        complain!("{who}: the mbuf is in a list of packets");
    }
    mbuf::verify(m, if protocol == IP { 20 } else { 40 }, who);
    if m.rcvif() == 0 {
        complain!("{who}: the packet has no receiving interface");
    }
    let kernel = kernel();
    let mut state = kernel.netisr.lock();
    if state.queue.iter().filter(|(each, _)| *each == protocol).count() >= LIMIT {
        drop(state);
        mbuf::freem(Some(m), who);
        return ENOBUFS;
    }
    serialize(m, who);
    state.queue.push_back((protocol, m.address()));
    if !state.started {
        state.started = true;
        std::thread::Builder::new().name("netisr".to_owned()).spawn(move || run(kernel)).expect("a thread for netisr");
    }
    kernel.netisr.changed.notify_all();
    0
}

/// An interface's place among all and its generation in a word, as they lie over the pointer to it. The index that others
/// see is no good for that: a test may give two network stacks the same ones.
fn mark(ifnet: usize, who: &str) -> u32 {
    let place = kernel().interfaces.lock().unwrap().iter().position(|each| *each == ifnet);
    let Some(place) = place.and_then(|place| u16::try_from(place + 1).ok()) else {
        complain!("{who}: the packet's receiving interface is {ifnet:#x}, which is none");
    };
    // SAFETY: just found to be an interface.
    let ifnet = unsafe { Ifnet::new(ifnet as *mut u8) }.unwrap_or_else(|| unreachable!());
    u32::from(place) | u32::from(ifnet.idxgen()) << 16
}

fn unmark(mark: u32) -> Option<Ifnet> {
    let (place, generation) = (mark as u16, (mark >> 16) as u16);
    let at = *kernel().interfaces.lock().unwrap().get(usize::from(place).checked_sub(1)?)?;
    // SAFETY: an interface of this crate, which is never freed.
    let ifnet = unsafe { Ifnet::new(at as *mut u8) }?;
    let vnet = crate::vnet::at(ifnet.vnet()).is_some_and(|vnet| !vnet.is_gone());
    (vnet && ifnet.idxgen() == generation).then_some(ifnet)
}

/// Replaces the receiving interface by index and generation. The rest of each word is left as it was, as there.
fn serialize(m: M, who: &str) {
    if !m.has(flag::PKTHDR) {
        complain!("{who}: no packet header");
    }
    let (rcvif, leaf) = (m.rcvif(), m.leaf_rcvif());
    m.set_rcvif(rcvif & !0xffff_ffff | mark(rcvif, who) as usize);
    let leaf_mark = if leaf == 0 { 0xffff } else { mark(leaf, who) };
    m.set_leaf_rcvif(leaf & !0xffff_ffff | leaf_mark as usize);
}

/// Puts the interface back; `None` when it is gone.
pub(crate) fn restore(m: M, who: &str) -> Option<Ifnet> {
    if !m.has(flag::PKTHDR) {
        complain!("{who}: no packet header");
    }
    let ifnet = unmark(m.rcvif() as u32)?;
    let leaf = m.leaf_rcvif() as u32;
    let leaf = if leaf as u16 == u16::MAX { None } else { unmark(leaf) };
    m.set_leaf_rcvif(leaf.map_or(0, Ifnet::address));
    m.set_rcvif(ifnet.address());
    Some(ifnet)
}

extern "C" fn m_rcvif_serialize(m: *mut u8) {
    serialize(M::must(m, "m_rcvif_serialize"), "m_rcvif_serialize");
}

extern "C" fn m_rcvif_restore(m: *mut u8) -> usize {
    let who = "m_rcvif_restore";
    if !thread::current(|thread| thread.in_epoch()) {
        complain!("{who} outside the network epoch");
    }
    restore(M::must(m, who), who).map_or(0, Ifnet::address)
}
