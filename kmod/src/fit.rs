//! Whether a packet that the hook sends itself fits the interface by which it
//! leaves now, and what its sender is told if not.
//!
//! TCP made the packet for the interface towards the stack side. When that one
//! takes larger packets than the one towards the wire side, or cuts them into
//! segments (TSO) and the other does not, `ip_output` drops the packet, and
//! its error is the hook's, who cannot pass it on: the connection is locked by
//! its caller. So TCP hears of it as of any narrow link on the path: by the
//! ICMP error that a router there would send, which comes in through the hook
//! and gets its quote translated. There is none that says "no TSO"; that is
//! told to the connection itself, in another thread.
//!
//! Context: as for `hook`.

use crate::packet::View;
use mobconn_engine::{Packet, Version};
use mobconn_sys::{OwnedMbuf, Way, ffi};

/// A packet no longer than this fits everywhere: TCP makes no smaller ones
/// (FreeBSD's minmss and two headers).
const SMALL: usize = 256;
/// Most bytes of the packet that an error quotes: both headers. What the
/// engine reads of an error is bounded, too.
const QUOTE: usize = 80;

/// What became of a packet's look for its way.
pub(crate) enum Fit {
    /// It may go.
    Yes,
    /// It is too big; this is the error for its sender. None: memory is short.
    TooBig(Option<OwnedMbuf>),
    /// Nobody would cut it into segments.
    NoTso,
}

/// Looks whether a packet that has its wire side fits. `before`: the interface
/// that it was made for, or null.
///
/// # Safety
/// Inside the network epoch; `before` is alive or null.
pub(crate) unsafe fn fit(packet: &View<'_>, version: Version, before: *mut ffi::ifnet) -> Fit {
    let mbuf = &packet.mbuf;
    if mbuf.len() <= SMALL {
        return Fit::Yes;
    }
    // SAFETY: the caller's promise.
    let way = unsafe { mbuf.way(version == Version::V6, before) };
    // Without a way ip_output says so.
    let Some(way) = way else { return Fit::Yes };
    let segment = mbuf.tso_segsz();
    if segment.is_some() && !way.tso() {
        return Fit::NoTso;
    }
    let head = packet.head();
    let whole = match segment {
        Some(size) => headers(head, version).saturating_add(size.into()),
        None => mbuf.len(),
    };
    if whole <= way.mtu() || segment.is_none() && is_cut(head, version) {
        return Fit::Yes;
    }
    Fit::TooBig(error(packet, version, &way))
}

/// Bytes of the IP and TCP headers of a TCP packet.
fn headers(head: &[u8], version: Version) -> usize {
    let byte = |at: usize| head.get(at).copied().map_or(0, usize::from);
    let ip = match version {
        Version::V4 => (byte(0) & 0xf).saturating_mul(4),
        Version::V6 => 40,
    };
    ip.saturating_add((byte(ip.saturating_add(12)) >> 4).saturating_mul(4))
}

/// Whether the packet is cut into fragments when it is too long, as its
/// sender expects: IPv4 without "don't fragment"; IPv6, except for TCP, which
/// `ip6_output` would spare the news.
fn is_cut(head: &[u8], version: Version) -> bool {
    match version {
        Version::V4 => head.get(6).is_some_and(|flags| flags & 0x40 == 0),
        Version::V6 => head.get(6).is_some_and(|next| *next != 6),
    }
}

/// The error that a router at the beginning of the way would send: RFC 1191,
/// section 4; RFC 4443, section 3.2. It comes from the other end, so that
/// filters that look at the source by interface find it where they expect it.
fn error(packet: &View<'_>, version: Version, way: &Way) -> Option<OwnedMbuf> {
    let head = packet.head();
    let quote = head.get(..head.len().min(QUOTE))?;
    let mut bytes = [0; 48 + QUOTE];
    let ip = match version {
        Version::V4 => 20,
        Version::V6 => 40,
    };
    let total = quote.len().saturating_add(ip).saturating_add(8);
    let bytes = bytes.get_mut(..total)?;
    let (header, message) = bytes.split_at_mut_checked(ip)?;
    message.get_mut(8..)?.copy_from_slice(quote);
    match version {
        Version::V4 => {
            let [_, _, _, _, _, _, mtu @ ..] = message.first_chunk_mut::<8>()?;
            *mtu = u16::try_from(way.mtu()).unwrap_or(u16::MAX).to_be_bytes();
            *message.first_chunk_mut()? = [3, 4];
            put(message, 2, sum(message, 0));
            *header.first_chunk_mut()? = [0x45, 0];
            put(header, 2, u16::try_from(total).ok()?);
            *header.get_mut(8..)?.first_chunk_mut()? = [64, 1];
            header.get_mut(12..16)?.copy_from_slice(quote.get(16..20)?);
            header.get_mut(16..20)?.copy_from_slice(quote.get(12..16)?);
            put(header, 10, sum(header, 0));
        }
        Version::V6 => {
            let [_, _, _, _, mtu @ ..] = message.first_chunk_mut::<8>()?;
            *mtu = u32::try_from(way.mtu()).unwrap_or(u32::MAX).to_be_bytes();
            *message.first_chunk_mut()? = [2, 0];
            let length = u16::try_from(message.len()).ok()?;
            *header.first_chunk_mut()? = [0x60];
            put(header, 4, length);
            *header.get_mut(6..)?.first_chunk_mut()? = [58, 64];
            header.get_mut(8..24)?.copy_from_slice(quote.get(24..40)?);
            header.get_mut(24..40)?.copy_from_slice(quote.get(8..24)?);
            let pseudo = u32::from(length).saturating_add(58).saturating_add(add(header.get(8..40)?));
            put(message, 2, sum(message, pseudo));
        }
    }
    packet.mbuf.received(bytes, way)
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(place) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *place = value.to_be_bytes();
    }
}

/// The sum of big-endian words, of at most some thousand.
fn add(bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<2>();
    let last = rest.first().map_or(0, |byte| u32::from(*byte) << 8);
    words.iter().fold(last, |sum, word| sum.saturating_add(u16::from_be_bytes(*word).into()))
}

/// The Internet checksum (RFC 1071) of bytes whose own field is zero, and of
/// what was summed before.
pub(crate) fn sum(bytes: &[u8], before: u32) -> u16 {
    let sum = add(bytes).saturating_add(before);
    let sum = (sum & 0xffff).saturating_add(sum >> 16);
    let sum = (sum & 0xffff).saturating_add(sum >> 16);
    !(sum as u16)
}
