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
    let Ok(bytes) = packet.writable(segment.len) else { return Verdict::Gone };
    let Some((ip, transport)) = bytes.split_at_mut_checked(segment.transport) else { return MALFORMED };
    let patched = match segment.protocol {
        Protocol::Tcp => transport.first_chunk_mut::<18>().map(|header| {
            let [p0, p1, p2, p3, .., c0, c1] = header;
            ([p0, p1, p2, p3], [c0, c1])
        }),
        Protocol::Udp => transport.first_chunk_mut::<8>().map(|header| {
            let [p0, p1, p2, p3, _, _, c0, c1] = header;
            ([p0, p1, p2, p3], [c0, c1])
        }),
    };
    let Some((port_fields, [c0, c1])) = patched else { return MALFORMED };
    // The last check: from here on everything is written.
    if V6 {
        let Some(fields) = ip.get_mut(8..40) else { return MALFORMED };
        for (field, word) in fields.as_chunks_mut().0.iter_mut().zip(to.addresses) {
            *field = word.to_be_bytes();
        }
    } else {
        let Some([.., h0, h1, a0, a1, a2, a3, a4, a5, a6, a7]) = ip.first_chunk_mut::<20>() else { return MALFORMED };
        [*a0, *a1, *a2, *a3, *a4, *a5, *a6, *a7] = to.addresses[0].to_be_bytes();
        [*h0, *h1] = addresses.adjust(u16::from_be_bytes([*h0, *h1])).to_be_bytes();
    }
    for (field, byte) in port_fields.into_iter().zip((to.head as u32).to_be_bytes()) {
        *field = byte;
    }
    let field = u16::from_be_bytes([*c0, *c1]);
    let udp = segment.protocol == Protocol::Udp;
    let adjusted = match state {
        Checksum::Pseudo => addresses.shift(field),
        // No checksum at all (RFC 768; IPv6: RFC 6935).
        Checksum::Complete | Checksum::DataValid if udp && field == 0 => 0,
        Checksum::Complete | Checksum::DataValid => match addresses.plus(ports).adjust(field) {
            0 if udp => 0xffff,
            adjusted => adjusted,
        },
    };
    [*c0, *c1] = adjusted.to_be_bytes();
    if state == Checksum::DataValid && !(udp && field == 0) {
        // The segment changed by its ports and by its checksum field, which
        // took the addresses and the ports back: minus the addresses remain.
        packet.shift_sum(!addresses.fold());
    }
    Verdict::Translated
}

const MALFORMED: Verdict = Verdict::PassCounted(PassReason::Malformed);
