//! The packet path: look up, decide, rewrite.

use crate::Engine;
use crate::flow::{Protocol, Side, Version};
use crate::icmp::{self, Quote};
use crate::key::Key;
use crate::packet::{DropReason, Packet, PassReason, Verdict};
use crate::parse::{Parsed, Segment, parse, plain};
use crate::rewrite::rewrite;
use crate::sync::{AtomicU32, Ordering};
use crate::table::{
    Find, Input, LOCAL_GRACE, LOCAL_HOLD, LOCAL_PENDING, LOST, Output, REMOTE_GRACE, REMOTE_HOLD, REMOTE_PENDING, Way,
};

const PENDING: u64 = LOCAL_PENDING | REMOTE_PENDING;
const GRACE: u64 = LOCAL_GRACE | REMOTE_GRACE;
const HOLD: u64 = LOCAL_HOLD | REMOTE_HOLD;

#[inline]
pub(crate) fn output<P: Packet, const V6: bool>(engine: &Engine, packet: &mut P, now: u32) -> Verdict {
    match plain::<P, V6>(packet) {
        Some(segment) => send::<P, V6>(engine, packet, &segment, now),
        None => output_odd::<P, V6>(engine, packet, now),
    }
}

#[inline]
pub(crate) fn input<P: Packet, const V6: bool>(engine: &Engine, packet: &mut P, now: u32) -> Verdict {
    match plain::<P, V6>(packet) {
        Some(segment) => receive::<P, V6>(engine, packet, &segment, now),
        None => input_odd::<P, V6>(engine, packet, now),
    }
}

#[cold]
fn output_odd<P: Packet, const V6: bool>(engine: &Engine, packet: &mut P, now: u32) -> Verdict {
    match parse::<P, V6>(packet) {
        Ok(Parsed::Segment(segment)) => send::<P, V6>(engine, packet, &segment, now),
        Ok(Parsed::Error(quote)) => error_output::<P, V6>(engine, packet, &quote),
        // What this host sends is cut into fragments after the hook.
        Ok(Parsed::Fragment(_) | Parsed::Other) => Verdict::Pass,
        Err(verdict) => verdict,
    }
}

#[cold]
fn input_odd<P: Packet, const V6: bool>(engine: &Engine, packet: &mut P, now: u32) -> Verdict {
    match parse::<P, V6>(packet) {
        Ok(Parsed::Segment(segment)) => receive::<P, V6>(engine, packet, &segment, now),
        Ok(Parsed::Error(quote)) => error_input::<P, V6>(engine, packet, &quote),
        Ok(Parsed::Fragment(offset)) => Verdict::Reassemble { offset },
        Ok(Parsed::Other) => Verdict::Pass,
        Err(verdict) => verdict,
    }
}

#[inline(always)]
fn send<P: Packet, const V6: bool>(engine: &Engine, packet: &mut P, segment: &Segment, now: u32) -> Verdict {
    let from = segment.forward;
    match engine.table.find::<Output, V6>(engine.hasher.hash::<V6>(&from), &from) {
        Find::Further => send_far::<P, V6>(engine, packet, now),
        found => send_found::<P, V6>(packet, segment, now, found),
    }
}

/// Begins again, so that what nearly all packets need stays in registers.
#[cold]
fn send_far<P: Packet, const V6: bool>(engine: &Engine, packet: &mut P, now: u32) -> Verdict {
    match parse::<P, V6>(packet) {
        Ok(Parsed::Segment(segment)) => {
            let found = search::<Output, V6>(engine, &segment.forward);
            send_found::<P, V6>(packet, &segment, now, found)
        }
        _ => Verdict::Pass,
    }
}

#[inline(always)]
fn send_found<P: Packet, const V6: bool>(packet: &mut P, segment: &Segment, now: u32, found: Find<'_>) -> Verdict {
    match found {
        Find::Miss | Find::Further => Verdict::Pass,
        // The wire side of another flow. A connection that is older than that
        // has lost it; a new one gets another.
        Find::Twin => newcomer_or_stray(segment),
        Find::Contended => Verdict::Drop(DropReason::Contended),
        Find::Hit(hit) if hit.state & (HOLD | LOST) != 0 => held(hit.state, hit.flow),
        Find::Hit(hit) => {
            touch(hit.used, now);
            translate::<P, V6>(packet, segment, &hit.to)
        }
    }
}

#[inline(always)]
fn receive<P: Packet, const V6: bool>(engine: &Engine, packet: &mut P, segment: &Segment, now: u32) -> Verdict {
    let from = segment.forward.reversed::<V6>();
    match engine.table.find::<Input, V6>(engine.hasher.hash::<V6>(&from), &from) {
        Find::Further => receive_far::<P, V6>(engine, packet, now),
        found => receive_found::<P, V6>(packet, segment, now, found),
    }
}

/// As [`send_far`].
#[cold]
fn receive_far<P: Packet, const V6: bool>(engine: &Engine, packet: &mut P, now: u32) -> Verdict {
    match parse::<P, V6>(packet) {
        Ok(Parsed::Segment(segment)) => {
            let found = search::<Input, V6>(engine, &segment.forward.reversed::<V6>());
            receive_found::<P, V6>(packet, &segment, now, found)
        }
        _ => Verdict::Pass,
    }
}

#[inline(always)]
fn receive_found<P: Packet, const V6: bool>(packet: &mut P, segment: &Segment, now: u32, found: Find<'_>) -> Verdict {
    match found {
        Find::Miss | Find::Further => Verdict::Pass,
        // The stack side of a flow that is elsewhere by now: a stranger.
        Find::Twin => newcomer_or_stray(segment),
        Find::Contended => Verdict::Drop(DropReason::Contended),
        Find::Hit(hit) if hit.state & PENDING != 0 && segment.is_reset() => Verdict::Drop(DropReason::PendingRst),
        Find::Hit(hit) if hit.state & GRACE != 0 && segment.begins() => Verdict::Displace,
        Find::Hit(hit) => {
            touch(hit.used, now);
            translate::<P, V6>(packet, segment, &hit.to.reversed::<V6>())
        }
    }
}

/// A look-up to its end.
#[inline(never)]
fn search<'a, W: Way, const V6: bool>(engine: &'a Engine, key: &Key) -> Find<'a> {
    engine.table.search::<W, V6>(engine.hasher.hash::<V6>(key), key)
}

#[cold]
fn held(state: u64, flow: u32) -> Verdict {
    if state & HOLD != 0 { Verdict::Hold { flow } } else { Verdict::Drop(DropReason::Stray) }
}

/// For TCP, only a SYN can begin something; anything else, delivered to the
/// wrong connection or to none, would be answered with RST.
#[cold]
fn newcomer_or_stray(segment: &Segment) -> Verdict {
    let begins = segment.protocol == Protocol::Udp || segment.begins();
    if begins { Verdict::Displace } else { Verdict::Drop(DropReason::Stray) }
}

/// Gives the packet the source and destination `to`.
#[inline(always)]
fn translate<P: Packet, const V6: bool>(packet: &mut P, segment: &Segment, to: &Key) -> Verdict {
    if segment.forward.is::<V6>(to) {
        return Verdict::Pass;
    }
    if segment.source_route {
        return Verdict::PassCounted(PassReason::Options);
    }
    rewrite::<P, V6>(packet, segment, to)
}

/// A received error quotes what was sent: the wire side, from here.
#[cold]
fn error_input<P: Packet, const V6: bool>(engine: &Engine, packet: &mut P, quote: &Quote) -> Verdict {
    let from = quote.forward;
    match search::<Input, V6>(engine, &from) {
        Find::Hit(hit) if hit.to != from => icmp::rewrite(packet, quote, &hit.to, false),
        _ => Verdict::Pass,
    }
}

/// An error to be sent quotes what was received: the stack side, from there.
/// It goes to the same end, so its own addresses change as well.
#[cold]
fn error_output<P: Packet, const V6: bool>(engine: &Engine, packet: &mut P, quote: &Quote) -> Verdict {
    let from = quote.forward.reversed::<V6>();
    match search::<Output, V6>(engine, &from) {
        Find::Hit(hit) if hit.state & (HOLD | LOST) != 0 => held(hit.state, hit.flow),
        Find::Hit(hit) if hit.to != from => icmp::rewrite(packet, quote, &hit.to.reversed::<V6>(), true),
        _ => Verdict::Pass,
    }
}

/// The side of a segment or datagram, local end first.
#[cold]
pub(crate) fn newcomer<P: Packet>(packet: &mut P, version: Version, received: bool) -> Option<Side> {
    let parsed = match version {
        Version::V4 => parse::<P, false>(packet),
        Version::V6 => parse::<P, true>(packet),
    };
    let Ok(Parsed::Segment(segment)) = parsed else { return None };
    let key = match (received, version) {
        (false, _) => segment.forward,
        (true, Version::V4) => segment.forward.reversed::<false>(),
        (true, Version::V6) => segment.forward.reversed::<true>(),
    };
    Some(key.side())
}

/// Notes the use, writing at most once a second, so that the line stays
/// shared between processors.
#[inline(always)]
fn touch(used: &AtomicU32, now: u32) {
    if used.load(Ordering::Relaxed) != now {
        used.store(now, Ordering::Relaxed);
    }
}
