//! The IP layer around the hooks: what netinet/ip_input.c, ip_output.c, ip_fastfwd.c and their IPv6 counterparts do
//! with a packet before and after pfil(9), as far as a hook can tell.

mod checksum;
mod cut;
mod header;
mod input;
mod output;
mod reassembly;

pub(crate) use input::{come_up, receive};
pub(crate) use output::{FACTS as OUTPUT_FACTS, SYMBOLS, send};
pub(crate) use reassembly::{FACTS, Fragments, SYMBOLS as REASSEMBLY_SYMBOLS};

use crate::kernel::kernel;
use crate::mbuf::M;
use header::Header;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Packets inside the IP layer now.
static IN_FLIGHT: AtomicUsize = AtomicUsize::new(0);

/// Packets that callers have inside the IP layer now.
pub(crate) fn in_flight() -> usize {
    IN_FLIGHT.load(Ordering::Acquire)
}

/// Drops incomplete packets that have waited too long.
pub(crate) fn expire_fragments() {
    kernel().fragments.expire();
}

/// Counts a packet while it is inside, and keeps the thread in the network epoch.
pub(crate) struct Passage {
    tracker: Box<u64>,
}

impl Passage {
    /// Begins.
    pub(crate) fn new() -> Self {
        IN_FLIGHT.fetch_add(1, Ordering::AcqRel);
        let tracker = Box::new(0);
        crate::epoch::enter(std::ptr::from_ref(&*tracker) as usize);
        Self { tracker }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            crate::epoch::exit(std::ptr::from_ref(&*self.tracker) as usize);
        }
        IN_FLIGHT.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The header of a packet, which a hook may have changed: read again from its first mbuf.
fn header_of(m: M) -> Option<Header> {
    let mut front = [0; 60];
    let front = &mut front[..m.length().min(60)];
    m.read(0, front);
    Header::parse_front(front, m.total())
}
