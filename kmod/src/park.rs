//! Packets that wait: for the commit of their flow's move, or for a port.
//!
//! Context: packets come from the hook, which does not sleep: all room is
//! taken beforehand. They are taken out in process context. The lock is held
//! for a few instructions, never while a packet is handled.

use alloc::vec::Vec;
use core::mem;
use mobconn_engine::Version;
use mobconn_sys::{Mtx, NoMemory, OwnedMbuf};

/// Most packets that wait in one network stack, of each kind.
pub(crate) const PLACES: usize = 256;
/// Most packets of one flow that wait for its commit: enough to make the
/// other end notice what is missing (RFC 5681 asks for three duplicates), and
/// no more than a burst that any path takes.
const PLACES_EACH: usize = 8;
/// Most bytes that wait in one network stack for commits.
const BYTES: usize = 4 << 20;

/// A packet that waits.
pub(crate) struct Parked {
    /// None: sent meanwhile.
    pub(crate) packet: Option<OwnedMbuf>,
    pub(crate) version: Version,
    /// Of one that waits for a port: whether it was received. The others are
    /// all to be sent.
    pub(crate) received: bool,
    /// A number that packets of the same flow have in common.
    pub(crate) flow: u32,
    pub(crate) bytes: usize,
}

/// One queue, and as much room beside it, so that the queue can be taken out
/// as a whole.
struct Queue {
    waiting: Vec<Parked>,
    spare: Vec<Parked>,
}

/// Where packets of one kind wait, in order.
pub(crate) struct Park(Mtx<Queue>);

impl Park {
    /// # Errors
    /// `NoMemory`.
    pub(crate) fn new() -> Result<Self, NoMemory> {
        let mut queue = Queue { waiting: Vec::new(), spare: Vec::new() };
        queue.waiting.try_reserve_exact(PLACES).map_err(|_| NoMemory)?;
        queue.spare.try_reserve_exact(PLACES).map_err(|_| NoMemory)?;
        Ok(Self(Mtx::new(queue, c"mobconn park")?))
    }

    /// Keeps a packet. Err: there is no room; the packet comes back.
    pub(crate) fn keep(&self, parked: Parked) -> Result<(), Parked> {
        let mut queue = self.0.lock();
        let (mut of_flow, mut bytes) = (0_usize, parked.bytes);
        for other in &queue.waiting {
            bytes = bytes.saturating_add(other.bytes);
            of_flow = of_flow.saturating_add(usize::from(other.flow == parked.flow));
        }
        let full = queue.waiting.len() >= queue.waiting.capacity();
        if full || of_flow >= PLACES_EACH || bytes > BYTES {
            return Err(parked);
        }
        queue.waiting.push(parked);
        Ok(())
    }

    /// Takes all packets out, in order. To be given back to [`Park::put_back`].
    pub(crate) fn take(&self) -> Vec<Parked> {
        let mut queue = self.0.lock();
        let empty = mem::take(&mut queue.spare);
        mem::replace(&mut queue.waiting, empty)
    }

    /// Puts the packets that still wait in front of those that came since;
    /// what finds no room comes back, for [`Park::restore`].
    pub(crate) fn put_back(&self, mut still: Vec<Parked>) -> Vec<Parked> {
        let mut queue = self.0.lock();
        let room = PLACES.saturating_sub(still.len()).min(queue.waiting.len());
        still.extend(queue.waiting.drain(..room));
        // What is over stays in the other vector, in which the spare room is.
        mem::swap(&mut queue.waiting, &mut still);
        still
    }

    /// Gives room back that [`Park::put_back`] returned, without packets.
    pub(crate) fn restore(&self, mut spare: Vec<Parked>) {
        spare.clear();
        self.0.lock().spare = spare;
    }
}
