//! Many flows in one command: what each of them will read is asked for at
//! once, so that the processor waits for the memory of all together and not
//! of one after the other. (There is no prefetch instruction without `unsafe`;
//! loads that nothing waits for do the same.)

use crate::Engine;
use crate::control::Control;
use crate::flow::{Address, Half, Side};
use crate::key::Key;
use core::hint::black_box;

/// Most flows for which it helps: some lines each, and as many as processors
/// wait for at once.
pub const LOOK_AHEAD: usize = 16;

/// What is known of a flow so far.
#[derive(Clone, Copy, Default)]
struct Ahead {
    hash: u64,
    flow: Option<u32>,
}

impl Control {
    /// Reads beforehand what the next steps for these flows will read, the
    /// first [`LOOK_AHEAD`] of them. `moving`: they are to be prepared to
    /// move. Changes nothing, and promises nothing.
    pub fn look_ahead(&self, engine: &Engine, stacks: impl Iterator<Item = Side>, moving: Option<(Half, Address)>) {
        let mut all = [Ahead::default(); LOOK_AHEAD];
        let mut sum = 0_u64;
        let mut count = 0_usize;
        for (ahead, stack) in all.iter_mut().zip(stacks) {
            ahead.hash = engine.hasher.hash_any(&Key::new(&stack));
            sum ^= engine.table.peek(ahead.hash);
            count = count.wrapping_add(1);
        }
        let used = all.get_mut(..count).unwrap_or_default();
        for ahead in &mut *used {
            ahead.flow = engine.table.guess(ahead.hash);
            let Some(flow) = ahead.flow else { continue };
            sum ^= engine.table.peek_record(flow);
            sum ^= self.flows.get(flow).map_or(0, |cold| u64::from(cold.created));
        }
        if let Some((half, new)) = moving {
            for flow in used.iter().filter_map(|ahead| ahead.flow) {
                let Some(content) = engine.table.content(flow) else { continue };
                let wire = content.wire_with(half, new.slot(half, content.stack.is_v6()));
                sum ^= engine.table.peek(engine.hasher.hash_any(&wire));
            }
        }
        black_box(sum);
    }
}
