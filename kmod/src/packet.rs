//! A kernel packet as the engine wants to see it.
//!
//! Context: the hook, inside the network epoch; nothing sleeps. The packet
//! stays the kernel's; when reshaping fails it is freed and the hook's slot
//! is null.

use mobconn_engine::{Checksum, Gone, Packet};
use mobconn_sys::{Freed, Mbuf, ffi};

/// What a packet that is sent has in `csum_flags` while its transport
/// checksum is to be finished later: by the hardware or before it.
const DELAYED: u32 = ffi::CSUM_TCP | ffi::CSUM_UDP | ffi::CSUM_TCP_IPV6 | ffi::CSUM_UDP_IPV6 | ffi::CSUM_TSO;

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Received.
    In,
    /// To be sent.
    Out,
}

/// A packet in the hook.
pub(crate) struct View<'a> {
    pub(crate) mbuf: Mbuf<'a>,
    pub(crate) direction: Direction,
}

impl View<'_> {
    pub(crate) fn new(mbuf: Mbuf<'_>, direction: Direction) -> View<'_> {
        View { mbuf, direction }
    }

    fn gone(Freed: Freed) -> Gone {
        Gone
    }
}

impl Packet for View<'_> {
    #[inline]
    fn head(&self) -> &[u8] {
        self.mbuf.data()
    }

    #[inline]
    fn total(&self) -> usize {
        self.mbuf.len()
    }

    fn pull(&mut self, len: usize) -> Result<(), Gone> {
        self.mbuf.m_pullup(len).map_err(Self::gone)
    }

    #[inline]
    fn writable(&mut self, len: usize) -> Result<&mut [u8], Gone> {
        if self.mbuf.data().len() < len || !self.mbuf.m_writable() {
            self.mbuf.m_copyup(len).map_err(Self::gone)?;
        }
        // After m_copyup the first mbuf is new, hence nobody else's.
        self.mbuf.data_mut().ok_or(Gone)
    }

    #[inline]
    fn checksum(&self) -> Checksum {
        let flags = self.mbuf.csum_flags();
        match self.direction {
            Direction::Out if flags & DELAYED != 0 => Checksum::Pseudo,
            Direction::In if flags & (ffi::CSUM_DATA_VALID | ffi::CSUM_PSEUDO_HDR) == ffi::CSUM_DATA_VALID => {
                Checksum::DataValid
            }
            Direction::Out | Direction::In => Checksum::Complete,
        }
    }

    fn shift_sum(&mut self, by: u16) {
        // tcp_input takes the sum in host order for IPv4, and for IPv6 (in6_cksum_pseudo) as it lies in memory.
        let by = if self.mbuf.data().first().is_some_and(|first| first >> 4 == 6) { by.to_be() } else { by };
        // At most 0xffff and the carries of a few words: two folds do.
        let sum = u64::from(self.mbuf.csum_data()).wrapping_add(u64::from(by));
        let sum = (sum & 0xffff).wrapping_add(sum >> 16 & 0xffff).wrapping_add(sum >> 32);
        let sum = (sum & 0xffff).wrapping_add(sum >> 16);
        self.mbuf.set_csum_data(((sum & 0xffff).wrapping_add(sum >> 16)) as u32);
    }
}
