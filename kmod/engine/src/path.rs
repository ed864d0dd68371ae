//! The packet path: look up, decide, rewrite.

use crate::Engine;
use crate::flow::Version;
use crate::icmp::{self, Quote};
use crate::key::Key;
use crate::packet::{DropReason, Packet, PassReason, Verdict};
use crate::parse::{Parsed, Segment, parse};
use crate::rewrite::rewrite;
use crate::sync::{AtomicU32, Ordering};
use crate::table::{Find, HOLD, INPUT, PENDING};

#[inline]
pub(crate) fn output<P: Packet>(engine: &Engine, packet: &mut P, version: Version, now: u32) -> Verdict {
    let segment = match parse(packet, version) {
        Ok(Some(Parsed::Segment(segment))) => segment,
        Ok(Some(Parsed::Error(quote))) => return error_output(engine, packet, &quote),
        Ok(None) => return Verdict::Pass,
        Err(verdict) => return verdict,
    };
    let from = segment.forward;
    match engine.table.find(engine.hasher.hash(&from), &from, 0) {
        Find::Miss | Find::Twin => Verdict::Pass,
        Find::Contended => Verdict::Drop(DropReason::Contended),
        Find::Rule { flags, .. } if flags & HOLD != 0 => Verdict::Drop(DropReason::Held),
        Find::Rule { to, used, .. } => {
            touch(used, now);
            translate(packet, &segment, &to)
        }
    }
}

#[inline]
pub(crate) fn input<P: Packet>(engine: &Engine, packet: &mut P, version: Version, now: u32) -> Verdict {
    let segment = match parse(packet, version) {
        Ok(Some(Parsed::Segment(segment))) => segment,
        Ok(Some(Parsed::Error(quote))) => return error_input(engine, packet, &quote),
        Ok(None) => return Verdict::Pass,
        Err(verdict) => return verdict,
    };
    let from = segment.forward.reversed();
    match engine.table.find(engine.hasher.hash(&from), &from, INPUT) {
        Find::Miss => Verdict::Pass,
        Find::Twin => Verdict::Drop(DropReason::Stray),
        Find::Contended => Verdict::Drop(DropReason::Contended),
        Find::Rule { flags, .. } if flags & PENDING != 0 && segment.reset => Verdict::Drop(DropReason::PendingRst),
        Find::Rule { to, used, .. } => {
            touch(used, now);
            translate(packet, &segment, &to.reversed())
        }
    }
}

/// Gives the packet the source and destination `to`.
#[inline(always)]
fn translate<P: Packet>(packet: &mut P, segment: &Segment, to: &Key) -> Verdict {
    if segment.forward == *to {
        return Verdict::Pass;
    }
    if segment.fragment {
        return Verdict::Drop(DropReason::Fragment);
    }
    if segment.source_route {
        return Verdict::PassCounted(PassReason::Options);
    }
    rewrite(packet, segment, to)
}

/// A received error quotes what was sent: the wire side, from here.
#[cold]
fn error_input<P: Packet>(engine: &Engine, packet: &mut P, quote: &Quote) -> Verdict {
    let from = quote.forward;
    match engine.table.find(engine.hasher.hash(&from), &from, INPUT) {
        Find::Rule { to, .. } if to != from => icmp::rewrite(packet, quote, &to, false),
        _ => Verdict::Pass,
    }
}

/// An error to be sent quotes what was received: the stack side, from there.
/// It goes to the same end, so its own addresses change as well.
#[cold]
fn error_output<P: Packet>(engine: &Engine, packet: &mut P, quote: &Quote) -> Verdict {
    let from = quote.forward.reversed();
    match engine.table.find(engine.hasher.hash(&from), &from, 0) {
        Find::Rule { flags, .. } if flags & HOLD != 0 => Verdict::Drop(DropReason::Held),
        Find::Rule { to, .. } if to != from => icmp::rewrite(packet, quote, &to.reversed(), true),
        _ => Verdict::Pass,
    }
}

/// Notes the use, writing at most once a second, so that the line stays
/// shared between processors.
#[inline]
fn touch(used: &AtomicU32, now: u32) {
    if used.load(Ordering::Relaxed) != now {
        used.store(now, Ordering::Relaxed);
    }
}
