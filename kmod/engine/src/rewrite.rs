//! Writing the other side into a packet whose headers were checked.

use crate::checksum::Delta;
use crate::flow::Protocol;
use crate::key::Key;
use crate::packet::{Checksum, Packet, PassReason, Verdict};
use crate::parse::Segment;

/// Turns source and destination of the packet into `to`.
#[inline(always)]
pub(crate) fn rewrite<P: Packet, const V6: bool>(packet: &mut P, segment: &Segment, to: &Key) -> Verdict {
    let from = &segment.forward;
    let [a, b, c, d] = from.addresses;
    let [e, f, g, h] = to.addresses;
    let mut addresses = Delta::between(a, e);
    if V6 {
        let rest = Delta::between(c, g).plus(Delta::between(d, h));
        addresses = addresses.plus(Delta::between(b, f)).plus(rest);
    }
    let ports = Delta::between(from.head & 0xffff_ffff, to.head & 0xffff_ffff);
    let state = packet.checksum();
    let udp = segment.protocol == Protocol::Udp;
    let check = segment.transport.wrapping_add(if udp { 6 } else { 16 });
    let Ok(bytes) = packet.writable(segment.len) else { return Verdict::Gone };
    // The last check: from here on everything is written.
    let fits = segment.transport >= if V6 { 40 } else { 20 } && check.wrapping_add(2) <= segment.len;
    if bytes.len() < segment.len || !fits {
        return Verdict::PassCounted(PassReason::Malformed);
    }
    if V6 {
        put(bytes, 8, e.to_be_bytes());
        put(bytes, 16, f.to_be_bytes());
        put(bytes, 24, g.to_be_bytes());
        put(bytes, 32, h.to_be_bytes());
    } else {
        put(bytes, 12, e.to_be_bytes());
        let field = u16::from_be_bytes(get(bytes, 10));
        put(bytes, 10, addresses.adjust(field).to_be_bytes());
    }
    put(bytes, segment.transport, (to.head as u32).to_be_bytes());
    let field = u16::from_be_bytes(get(bytes, check));
    let adjusted = match state {
        Checksum::Pseudo => addresses.shift(field),
        // No checksum at all (RFC 768; IPv6: RFC 6935).
        Checksum::Complete | Checksum::DataValid if udp && field == 0 => 0,
        Checksum::Complete | Checksum::DataValid => match addresses.plus(ports).adjust(field) {
            0 if udp => 0xffff,
            adjusted => adjusted,
        },
    };
    put(bytes, check, adjusted.to_be_bytes());
    if state == Checksum::DataValid && !(udp && field == 0) {
        // The segment changed by its ports and by its checksum field, which
        // took the addresses and the ports back: minus the addresses remain.
        packet.shift_sum(!addresses.fold());
    }
    Verdict::Translated
}

/// Writes `N` bytes at `at`, which were found to be there.
#[inline(always)]
fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    if let Some(place) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *place = value;
    }
}

/// `N` bytes at `at`, which were found to be there.
#[inline(always)]
fn get<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}
