//! Checks on chains that come back from a hook.

use super::{M, flag};
use crate::complaint::complain;

/// Complains unless the chain is well formed: live mbufs, data inside their memory, lengths that add up, a packet
/// header at the front only, and the first `contiguous` bytes in the first mbuf.
pub(crate) fn verify(m: M, contiguous: usize, who: &str) {
    if !m.has(flag::PKTHDR) {
        complain!("{who}: the mbuf has lost its packet header");
    }
    let mut length = 0;
    let mut count = 0;
    for each in m.chain() {
        each.check_bounds(who);
        length += each.length();
        count += 1;
        if count > 1 && each.has(flag::PKTHDR) {
            complain!("{who}: a packet header in the middle of a chain");
        }
        if count > 1_000_000 {
            complain!("{who}: the chain is a ring");
        }
    }
    if length != m.total() {
        complain!("{who}: m_pkthdr.len is {}, the chain has {length} bytes", m.total());
    }
    if m.length() < contiguous {
        complain!("{who}: only {} bytes are contiguous, the IP layer reads {contiguous}", m.length());
    }
}

/// The bytes of the chain.
pub(crate) fn gather(m: M) -> Vec<u8> {
    let mut out = Vec::new();
    for m in m.chain() {
        let at = out.len();
        out.resize(at + m.length(), 0);
        m.read(0, &mut out[at..]);
    }
    out
}
