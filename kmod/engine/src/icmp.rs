//! ICMP and ICMPv6 errors: what they quote is a packet of ours on the wire, or
//! one that the stack knows. The quote gets the other side too, or TCP would
//! not recognise its packet, and path MTU discovery would end with a move.
//!
//! An error gets through to a connection exactly if its quote names the
//! flow's addresses and ports, as it would without us: nothing is added to
//! what a forger can do.

use crate::checksum::Delta;
use crate::flow::Protocol;
use crate::key::Key;
use crate::packet::{Packet, PassReason, Verdict};

/// An error message whose quote can be translated.
pub(crate) struct Quote {
    /// Offset of the ICMP header.
    pub(crate) icmp: usize,
    /// Offset of the quoted IP header.
    pub(crate) ip: usize,
    /// Offset of the quoted transport header.
    pub(crate) transport: usize,
    /// Offset of its checksum, if the quote goes that far.
    pub(crate) check: Option<usize>,
    /// Bytes that a translation touches, from the start.
    pub(crate) len: usize,
    /// Key of the quoted side source → destination.
    pub(crate) forward: Key,
    pub(crate) protocol: Protocol,
}

/// Whether a message of this type is an error, which quotes a packet: RFC 792
/// and RFC 4443. (A redirect is about a route of ours, not about a flow.)
pub(crate) fn is_error(v6: bool, kind: u8) -> bool {
    if v6 { matches!(kind, 1..=4) } else { matches!(kind, 3 | 4 | 11 | 12) }
}

/// Turns source and destination of the quoted packet into `to`, and, if
/// `outer`, those of the message itself where they are the other way round:
/// it answers the quoted packet.
pub(crate) fn rewrite<P: Packet>(packet: &mut P, quote: &Quote, to: &Key, outer: bool) -> Verdict {
    let Ok(bytes) = packet.writable(quote.len) else { return Verdict::Gone };
    // The last check: every offset below lies within `len`.
    if bytes.len() < quote.len {
        return Verdict::PassCounted(PassReason::Malformed);
    }
    let from = &quote.forward;
    let v6 = from.is_v6();
    let addresses = addresses(from, to);
    // The sum of the message changes by what its bytes do.
    let mut sum = write_addresses(bytes, quote.ip, to, v6);
    if !v6 {
        sum = sum.plus(adjust(bytes, quote.ip.saturating_add(10), addresses));
    }
    let ports = write(bytes, quote.transport, &(to.head as u32).to_be_bytes());
    sum = sum.plus(ports);
    if let Some(check) = quote.check {
        let udp = quote.protocol == Protocol::Udp;
        if !(udp && word(bytes, check) == 0) {
            sum = sum.plus(adjust(bytes, check, addresses.plus(ports)));
            if udp && word(bytes, check) == 0 {
                sum = sum.plus(write(bytes, check, &[0xff, 0xff]));
            }
        }
    }
    if outer {
        let outside = answer(bytes, from, to, v6);
        if v6 {
            // The pseudo header (RFC 4443, section 2.3).
            sum = sum.plus(outside);
        } else {
            adjust(bytes, 10, outside);
        }
    }
    adjust(bytes, quote.icmp.saturating_add(2), sum);
    Verdict::Translated
}

/// Gives the message itself the new addresses where it has the old ones.
fn answer(bytes: &mut [u8], from: &Key, to: &Key, v6: bool) -> Delta {
    let back = |key: &Key| if v6 { key.reversed::<true>() } else { key.reversed::<false>() };
    let (from, to) = (back(from).side(), back(to).side());
    let mut change = Delta::ZERO;
    for (nth, old, new) in [(0, from.local, to.local), (1, from.remote, to.remote)] {
        let (at, len) = if v6 { (8_usize, 16_usize) } else { (12, 4) };
        let at = at.saturating_add(len.saturating_mul(nth));
        let (Some(old), Some(new)) = (old.0.get(..len), new.0.get(..len)) else { continue };
        if bytes.get(at..at.saturating_add(len)) == Some(old) {
            change = change.plus(write(bytes, at, new));
        }
    }
    change
}

fn addresses(from: &Key, to: &Key) -> Delta {
    let pairs = from.addresses.iter().zip(&to.addresses);
    pairs.fold(Delta::ZERO, |sum, (old, new)| sum.plus(Delta::between(*old, *new)))
}

fn write_addresses(bytes: &mut [u8], ip: usize, to: &Key, v6: bool) -> Delta {
    if !v6 {
        return write(bytes, ip.saturating_add(12), &to.addresses[0].to_be_bytes());
    }
    let mut change = Delta::ZERO;
    for (at, address) in (ip.saturating_add(8)..).step_by(8).zip(to.addresses) {
        change = change.plus(write(bytes, at, &address.to_be_bytes()));
    }
    change
}

/// Writes whole 16-bit words; returns the change of the sum over them.
fn write(bytes: &mut [u8], at: usize, new: &[u8]) -> Delta {
    let Some(place) = bytes.get_mut(at..at.saturating_add(new.len())) else { return Delta::ZERO };
    let mut change = Delta::ZERO;
    for (old, new) in place.as_chunks_mut().0.iter_mut().zip(new.as_chunks().0) {
        change = change.plus(Delta::between(u64::from(u16::from_be_bytes(*old)), u64::from(u16::from_be_bytes(*new))));
        *old = *new;
    }
    change
}

/// Adjusts the checksum at `at`; returns the change of the sum over it.
fn adjust(bytes: &mut [u8], at: usize, change: Delta) -> Delta {
    let adjusted = change.adjust(word(bytes, at));
    write(bytes, at, &adjusted.to_be_bytes())
}

fn word(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u16::from_be_bytes(*word))
}
