//! From the bytes of a packet to the key of its flow, reading no more than
//! needed and nothing that is not there.

use crate::flow::{Protocol, Version};
use crate::icmp::{Quote, is_error};
use crate::key::Key;
use crate::packet::{Packet, PassReason, Verdict};

/// Most bytes of headers that are looked at: what fits a FreeBSD mbuf with
/// packet header, which is all that m_pullup(9) makes contiguous.
pub(crate) const HEADERS_MAX: usize = 128;
/// Most IPv6 extension headers before the transport header.
const EXTENSIONS_MAX: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const ESP: u8 = 50;
const AH: u8 = 51;
const ICMP_V6: u8 = 58;
const DESTINATION: u8 = 60;

/// A packet that may concern a flow.
pub(crate) enum Parsed {
    /// It may be of the flow.
    Segment(Segment),
    /// It may be an error about a packet of the flow.
    Error(Quote),
    /// A part of something that may be of a flow. IPv6: where the fragment
    /// header lies.
    Fragment(usize),
    /// It cannot.
    Other,
}

/// What the headers of a segment or datagram say.
pub(crate) struct Segment {
    /// Key of the side source → destination.
    pub(crate) forward: Key,
    /// Offset of the transport header.
    pub(crate) transport: usize,
    /// Bytes that a translation touches, from the start.
    pub(crate) len: usize,
    pub(crate) protocol: Protocol,
    /// TCP's flags; UDP: 0.
    pub(crate) flags: u8,
    /// The destination is only a stop on the way.
    pub(crate) source_route: bool,
}

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

impl Segment {
    /// A TCP segment that resets its connection.
    #[inline(always)]
    pub(crate) fn is_reset(&self) -> bool {
        self.flags & RST != 0
    }

    /// A TCP segment that begins a connection.
    #[inline(always)]
    pub(crate) fn begins(&self) -> bool {
        self.flags & (SYN | RST | ACK) == SYN
    }
}

/// A TCP segment behind an IP header as nearly all have it: all headers
/// contiguous, no options, no fragment. Everything else is for [`parse`].
#[inline(always)]
pub(crate) fn plain<P: Packet, const V6: bool>(packet: &P) -> Option<Segment> {
    let (forward, transport, flags) = if V6 {
        let header = packet.head().first_chunk::<60>()?;
        let [first, _, _, _, l0, l1, next, _, rest @ ..] = header;
        let payload = usize::from(u16::from_be_bytes([*l0, *l1]));
        let (addresses, rest) = rest.split_first_chunk::<32>()?;
        let [p0, p1, p2, p3, _, _, _, _, _, _, _, _, _, flags, ..] = *rest.first_chunk::<20>()?;
        if first >> 4 != 6 || *next != TCP || payload < 20 || payload.wrapping_add(40) > packet.total() {
            return None;
        }
        (Key::from_v6(addresses, u32::from_be_bytes([p0, p1, p2, p3]), Protocol::Tcp), 40, flags)
    } else {
        let header = packet.head().first_chunk::<40>()?;
        let [first, _, t0, t1, _, _, f0, f1, _, protocol, _, _, a0, a1, a2, a3, a4, a5, a6, a7, ..] = *header;
        let [.., p0, p1, p2, p3, _, _, _, _, _, _, _, _, _, flags, _, _, _, _, _, _] = *header;
        let total = usize::from(u16::from_be_bytes([t0, t1]));
        let fragment = u16::from_be_bytes([f0, f1]) & 0x3fff != 0;
        if first != 0x45 || protocol != TCP || fragment || total < 40 || total > packet.total() {
            return None;
        }
        let addresses = u64::from_be_bytes([a0, a1, a2, a3, a4, a5, a6, a7]);
        (Key::from_v4(addresses, u32::from_be_bytes([p0, p1, p2, p3]), Protocol::Tcp), 20, flags)
    };
    let len = if V6 { 60 } else { 40 };
    Some(Segment { forward, transport, len, protocol: Protocol::Tcp, flags, source_route: false })
}

/// `Err`: the verdict.
pub(crate) fn parse<P: Packet, const V6: bool>(packet: &mut P) -> Result<Parsed, Verdict> {
    if V6 { parse_v6(packet) } else { parse_v4(packet) }
}

fn parse_v4<P: Packet>(packet: &mut P) -> Result<Parsed, Verdict> {
    let header = bytes::<P, 20>(packet, 0)?;
    let [first, _, _, _, _, _, _, _, _, protocol, ..] = *header;
    if !matches!(protocol, TCP | UDP | ICMP) {
        return other(protocol);
    }
    let offset = usize::from(first & 0xf).wrapping_mul(4);
    let fragment = u16::from_be_bytes(field(header, 6)) & 0x3fff != 0;
    let total = usize::from(u16::from_be_bytes(field(header, 2)));
    let addresses = u64::from_be_bytes(field(header, 12));
    if first >> 4 != 4 || offset < 20 || total > packet.total() {
        return Err(MALFORMED);
    }
    let Some(protocol) = transport(protocol) else {
        return if fragment { Ok(Parsed::Other) } else { parse_error(packet, Version::V4, offset, total) };
    };
    if fragment {
        return Ok(Parsed::Fragment(0));
    }
    let source_route = offset > 20 && has_source_route(packet, offset)?;
    let transport = Transport { protocol, offset, end: total, source_route };
    transport.parse(packet, |ports| Key::from_v4(addresses, ports, protocol)).map(Parsed::Segment)
}

fn parse_v6<P: Packet>(packet: &mut P) -> Result<Parsed, Verdict> {
    let header = bytes::<P, 40>(packet, 0)?;
    let [first, _, _, _, l0, l1, mut next, _, addresses @ ..] = *header;
    let end = usize::from(u16::from_be_bytes([l0, l1])).saturating_add(40);
    if first >> 4 != 6 || end > packet.total() {
        return Err(MALFORMED);
    }
    let (mut offset, mut source_route) = (40_usize, false);
    for _ in 0..=EXTENSIONS_MAX {
        if let Some(protocol) = transport(next) {
            let transport = Transport { protocol, offset, end, source_route };
            return transport.parse(packet, |ports| Key::from_v6(&addresses, ports, protocol)).map(Parsed::Segment);
        }
        if next == ICMP_V6 {
            return parse_error(packet, Version::V6, offset, end);
        }
        if !matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION) {
            return other(next);
        }
        if offset.saturating_add(8) > end {
            return Err(MALFORMED);
        }
        if offset.saturating_add(8) > HEADERS_MAX {
            return Ok(Parsed::Other);
        }
        let [following, length, b2, b3, ..] = *bytes::<P, 8>(packet, offset)?;
        let length = match next {
            FRAGMENT => {
                // An atomic fragment is whole (RFC 6946).
                if u16::from_be_bytes([b2, b3]) & 0xfff9 != 0 {
                    let other = !matches!(following, TCP | UDP | HOP_BY_HOP | ROUTING | DESTINATION);
                    return Ok(if other { Parsed::Other } else { Parsed::Fragment(offset) });
                }
                8
            }
            ROUTING => {
                // Segments left (RFC 8200, section 4.4).
                source_route |= b3 != 0;
                usize::from(length).saturating_add(1).saturating_mul(8)
            }
            _ => usize::from(length).saturating_add(1).saturating_mul(8),
        };
        next = following;
        offset = offset.saturating_add(length);
    }
    Ok(Parsed::Other)
}

/// A protocol that has no flows.
#[cold]
fn other(protocol: u8) -> Result<Parsed, Verdict> {
    if matches!(protocol, ESP | AH) { Err(Verdict::PassCounted(PassReason::Ipsec)) } else { Ok(Parsed::Other) }
}

fn transport(protocol: u8) -> Option<Protocol> {
    match protocol {
        TCP => Some(Protocol::Tcp),
        UDP => Some(Protocol::Udp),
        _ => None,
    }
}

const MALFORMED: Verdict = Verdict::PassCounted(PassReason::Malformed);

/// Where the transport header is and what the IP headers said before it.
struct Transport {
    protocol: Protocol,
    offset: usize,
    /// Where the packet ends by its own account.
    end: usize,
    source_route: bool,
}

impl Transport {
    #[inline(always)]
    fn parse<P: Packet>(self, packet: &mut P, key: impl FnOnce(u32) -> Key) -> Result<Segment, Verdict> {
        let Self { protocol, offset, end, source_route } = self;
        let header = match protocol {
            Protocol::Tcp => 20,
            Protocol::Udp => 8,
        };
        let len = offset.saturating_add(header);
        if len > end {
            return Err(MALFORMED);
        }
        if len > HEADERS_MAX {
            return Err(Verdict::Pass);
        }
        let (ports, flags) = if protocol == Protocol::Tcp {
            let tcp = bytes::<P, 20>(packet, offset)?;
            let [.., flags, _, _, _, _, _, _] = *tcp;
            (field(tcp, 0), flags)
        } else {
            (field(bytes::<P, 8>(packet, offset)?, 0), 0)
        };
        let forward = key(u32::from_be_bytes(ports));
        Ok(Segment { forward, transport: offset, len, protocol, flags, source_route })
    }
}

/// An ICMP message at `icmp`. What it quotes is somebody's claim: whatever is
/// odd about it, the message passes untouched.
#[cold]
fn parse_error<P: Packet>(packet: &mut P, version: Version, icmp: usize, end: usize) -> Result<Parsed, Verdict> {
    let v6 = version == Version::V6;
    let ip = icmp.saturating_add(8);
    // The shortest quote: an IP header and 8 bytes (RFC 792).
    let shortest = ip.saturating_add(if v6 { 48 } else { 28 });
    if shortest > end || shortest > HEADERS_MAX {
        return Ok(Parsed::Other);
    }
    let [kind, ..] = *bytes::<P, 8>(packet, icmp)?;
    if !is_error(v6, kind) {
        return Ok(Parsed::Other);
    }
    let (protocol, transport_at, forward) = if v6 {
        let [first, _, _, _, _, _, next, _, addresses @ ..] = *bytes::<P, 40>(packet, ip)?;
        let Some(protocol) = transport(next).filter(|_| first >> 4 == 6) else { return Ok(Parsed::Other) };
        let at = ip.saturating_add(40);
        let [a, b, c, d] = *bytes::<P, 4>(packet, at)?;
        (protocol, at, Key::from_v6(&addresses, u32::from_be_bytes([a, b, c, d]), protocol))
    } else {
        let [first, _, _, _, _, _, f0, f1, _, next, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
            *bytes::<P, 20>(packet, ip)?;
        let offset = usize::from(first & 0xf).saturating_mul(4);
        let whole = u16::from_be_bytes([f0, f1]) & 0x1fff == 0 && offset >= 20 && first >> 4 == 4;
        let Some(protocol) = transport(next).filter(|_| whole) else { return Ok(Parsed::Other) };
        let at = ip.saturating_add(offset);
        let least = at.saturating_add(8);
        if least > end || least > HEADERS_MAX {
            return Ok(Parsed::Other);
        }
        let [a, b, c, d] = *bytes::<P, 4>(packet, at)?;
        let addresses = u64::from_be_bytes([s0, s1, s2, s3, d0, d1, d2, d3]);
        (protocol, at, Key::from_v4(addresses, u32::from_be_bytes([a, b, c, d]), protocol))
    };
    let check = transport_at.saturating_add(if protocol == Protocol::Tcp { 16 } else { 6 });
    let reach = check.saturating_add(2);
    let check = (reach <= end && reach <= HEADERS_MAX).then_some(check);
    let len = if check.is_some() { reach } else { transport_at.saturating_add(8) };
    if packet.total() < len {
        return Err(MALFORMED);
    }
    if packet.head().len() < len {
        packet.pull(len).map_err(|_| Verdict::Gone)?;
    }
    Ok(Parsed::Error(Quote { icmp, ip, transport: transport_at, check, len, forward, protocol }))
}

/// `N` bytes at `at` of a header that has them.
#[inline(always)]
fn field<const N: usize>(header: &[u8], at: usize) -> [u8; N] {
    header.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

/// `N` contiguous bytes at `offset`.
#[inline(always)]
fn bytes<P: Packet, const N: usize>(packet: &mut P, offset: usize) -> Result<&[u8; N], Verdict> {
    let end = offset.saturating_add(N);
    if packet.head().len() < end {
        if packet.total() < end {
            return Err(MALFORMED);
        }
        packet.pull(end).map_err(|_| Verdict::Gone)?;
    }
    packet.head().get(offset..).and_then(|rest| rest.first_chunk()).ok_or(MALFORMED)
}

/// Whether the IPv4 options hold a loose or strict source route (RFC 791,
/// section 3.1), or cannot be read to their end.
#[cold]
fn has_source_route<P: Packet>(packet: &mut P, end: usize) -> Result<bool, Verdict> {
    if packet.total() < end {
        return Err(MALFORMED);
    }
    if packet.head().len() < end {
        packet.pull(end).map_err(|_| Verdict::Gone)?;
    }
    let mut options = packet.head().get(20..end).ok_or(MALFORMED)?;
    while let [kind, rest @ ..] = options {
        options = match (kind, rest) {
            (0, _) => return Ok(false),
            (1, _) => rest,
            (131 | 137, _) => return Ok(true),
            (_, [length, ..]) if *length >= 2 => match options.get(usize::from(*length)..) {
                Some(following) => following,
                None => return Ok(true),
            },
            _ => return Ok(true),
        };
    }
    Ok(false)
}
