//! The packet path: look up, decide, rewrite.

use crate::Engine;
use crate::flow::Version;
use crate::key::Key;
use crate::packet::{DropReason, Packet, PassReason, Verdict};
use crate::parse::{Parsed, parse};
use crate::rewrite::rewrite;
use crate::sync::{AtomicU32, Ordering};
use crate::table::{Find, HOLD, INPUT, PENDING};

#[inline]
pub(crate) fn output<P: Packet>(engine: &Engine, packet: &mut P, version: Version, now: u32) -> Verdict {
    let parsed = match parse(packet, version) {
        Ok(Some(parsed)) => parsed,
        Ok(None) => return Verdict::Pass,
        Err(verdict) => return verdict,
    };
    let from = parsed.forward;
    match engine.table.find(engine.hasher.hash(&from), &from, 0) {
        Find::Miss | Find::Twin => Verdict::Pass,
        Find::Contended => Verdict::Drop(DropReason::Contended),
        Find::Rule { flags, .. } if flags & HOLD != 0 => Verdict::Drop(DropReason::Held),
        Find::Rule { to, used, .. } => {
            touch(used, now);
            translate(packet, &parsed, &to)
        }
    }
}

#[inline]
pub(crate) fn input<P: Packet>(engine: &Engine, packet: &mut P, version: Version, now: u32) -> Verdict {
    let parsed = match parse(packet, version) {
        Ok(Some(parsed)) => parsed,
        Ok(None) => return Verdict::Pass,
        Err(verdict) => return verdict,
    };
    let from = parsed.forward.reversed();
    match engine.table.find(engine.hasher.hash(&from), &from, INPUT) {
        Find::Miss => Verdict::Pass,
        Find::Twin => Verdict::Drop(DropReason::Stray),
        Find::Contended => Verdict::Drop(DropReason::Contended),
        Find::Rule { flags, .. } if flags & PENDING != 0 && parsed.reset => Verdict::Drop(DropReason::PendingRst),
        Find::Rule { to, used, .. } => {
            touch(used, now);
            translate(packet, &parsed, &to.reversed())
        }
    }
}

/// Gives the packet the source and destination `to`.
#[inline]
fn translate<P: Packet>(packet: &mut P, parsed: &Parsed, to: &Key) -> Verdict {
    if parsed.forward == *to {
        return Verdict::Pass;
    }
    if parsed.fragment {
        return Verdict::Drop(DropReason::Fragment);
    }
    if parsed.source_route {
        return Verdict::PassCounted(PassReason::Options);
    }
    rewrite(packet, parsed, to)
}

/// Notes the use, writing at most once a second, so that the line stays
/// shared between processors.
#[inline]
fn touch(used: &AtomicU32, now: u32) {
    if used.load(Ordering::Relaxed) != now {
        used.store(now, Ordering::Relaxed);
    }
}
