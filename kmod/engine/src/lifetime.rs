//! When bindings end: with their connections, not with any packet.

use crate::Engine;
use crate::control::Control;
use crate::flow::{Half, Protocol, Side};
use crate::journal::What;
use crate::shape::Second;

/// Seconds that a newcomer's connection may take to come about: while it
/// does, the host does not list it (TCP answers for the last time after
/// about a minute).
const EMBRYO: u32 = 90;

/// When things end, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long an address is accepted after its flow has left it.
    pub grace: u32,
    /// How long a UDP binding without a connected socket lives unused; 0: for ever.
    pub udp_idle: u32,
}

/// What a look at bindings did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Graces that ended.
    pub ended: u32,
    /// Bindings removed.
    pub removed: u32,
    /// Where to go on: 0 when all were seen.
    pub next: u64,
}

impl Control {
    /// Looks at up to `count` bindings with ids above `from`: ends graces, and
    /// removes bindings that translate nothing any more, TCP bindings whose
    /// connection is gone (unless they were made by hand), and UDP bindings that nothing used for long and that have no
    /// connected socket.
    ///
    /// `alive` says whether the host has a TCP connection, `TIME_WAIT`
    /// included, or a connected UDP socket with a given stack side.
    pub fn expire(
        &mut self,
        engine: &Engine,
        now: u32,
        limits: &Limits,
        (from, count): (u64, u32),
        alive: impl Fn(&Side) -> bool,
    ) -> Expired {
        let mut expired = Expired::default();
        let mut from = u32::try_from(from).unwrap_or(u32::MAX);
        for _ in 0..count {
            let Some((flow, cold)) = self.flows.next(from) else { return expired };
            from = flow.saturating_add(1);
            let created = cold.created;
            let Some(shape) = self.shape_of(engine, flow) else { continue };
            let stack = || shape.content.stack.side();
            let mut changed = shape;
            let mut ended = 0_u32;
            for half in [Half::Local, Half::Remote] {
                if matches!(changed.second(half), Second::Grace { since, .. } if now.saturating_sub(since) >= limits.grace)
                {
                    changed.set_second(half, Second::None);
                    ended = ended.saturating_add(1);
                }
            }
            let gone = match stack().protocol {
                Protocol::Tcp => {
                    let embryo = shape.is_displaced() && now.saturating_sub(created) < EMBRYO;
                    !shape.is_manual() && !embryo && !alive(&stack())
                }
                Protocol::Udp => {
                    let used = engine.table.used(flow).max(created);
                    // A connected socket may be silent for hours; of others nothing is known but what they send.
                    let idle = limits.udp_idle != 0 && now.saturating_sub(used) >= limits.udp_idle;
                    idle && !alive(&stack())
                }
            };
            if gone || changed.is_idle() {
                self.remove(engine, flow, &shape);
                expired.removed = expired.removed.saturating_add(1);
                expired.ended = expired.ended.saturating_add(ended);
            } else if ended != 0 && self.change(engine, flow, &shape, &changed).is_ok() {
                expired.ended = expired.ended.saturating_add(ended);
                self.tell(engine, flow, What::GraceEnded);
            }
        }
        if self.flows.next(from).is_some() {
            expired.next = u64::from(from);
        }
        expired
    }
}
