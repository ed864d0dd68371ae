//! The hook alone, for measurements.

use crate::ip;
use crate::mbuf::{self, M, flag};
use crate::options::Split;
use crate::pfil;
use crate::thread::Entry;
use crate::vnet::VnetState;
use crate::{Vnet, complaint};
use std::time::{Duration, Instant};

/// Which hook to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// For received packets.
    In,
    /// For packets to be sent.
    Out,
}

/// A packet in an mbuf, ready to be given to the hook again and again.
#[derive(Debug)]
pub struct Prepared {
    vnet: &'static VnetState,
    packet: Vec<u8>,
    direction: Direction,
}

impl Vnet {
    /// Prepares a packet for [`Prepared::run`].
    ///
    /// # Panics
    /// For what is no IP packet of at most a cluster.
    #[must_use]
    pub fn prepare(&self, packet: &[u8], direction: Direction) -> Prepared {
        assert!(packet.len() <= 2000 && matches!(packet.first().map(|b| b >> 4), Some(4 | 6)), "an IP packet");
        Prepared { vnet: self.0, packet: packet.to_vec(), direction }
    }
}

impl Prepared {
    /// Calls the hook `count` times, each time on the packet as it was; with `hook` false, does all but the call. The
    /// time that took.
    ///
    /// # Panics
    /// When no hook is linked.
    #[must_use]
    pub fn run(&self, count: u64, hook: bool) -> Duration {
        const HEAD: usize = 80;
        let entry = Entry::new("a measurement", self.vnet.address(), 0);
        let passage = ip::Passage::new();
        let built = mbuf::build(&self.packet, self.packet.len(), Split::Whole);
        let m = built.m;
        let ifp = self.vnet.ifnet("bench0").address();
        let direction = if self.direction == Direction::In { pfil::IN } else { pfil::OUT };
        let head = &self.vnet.heads[usize::from(self.packet[0] >> 4 == 6)];
        let (check, ruleset) = head.first(direction).expect("a linked hook");
        if direction == pfil::IN {
            m.set_rcvif(ifp);
        }
        let flags = m.flags();
        let begin = &self.packet[..self.packet.len().min(HEAD)];
        let start = Instant::now();
        for _ in 0..count {
            // SAFETY: the packet's own data, which is in one mbuf.
            unsafe { crate::foreign::store(m.data() as *mut u8, begin) };
            m.set_flags(flags);
            m.set_loc(0);
            let mut pointer = std::hint::black_box(m.address());
            let verdict = if hook { check(&raw mut pointer, ifp, direction, ruleset, 0) } else { pfil::PASS };
            if std::hint::black_box(verdict) != pfil::PASS || pointer != m.address() {
                complaint::complain!("the hook took or replaced the packet of a measurement");
            }
        }
        let took = start.elapsed();
        m.clear_flags(flag::PROTO);
        mbuf::freem(M::at(m.address(), "a measurement"), "a measurement");
        built.settle();
        drop(passage);
        drop(entry);
        took
    }
}
