//! A binding as writers see it, and how the table gets from one shape of it
//! to the next without a moment in which a packet finds none.

use crate::Engine;
use crate::flow::{Address, Half, Other, Side, TableError};
use crate::key::Key;
use crate::table::{
    Content, DISPLACED, LOCAL_GRACE, LOCAL_HOLD, LOCAL_PENDING, LOST, MANUAL, REMOTE_GRACE, REMOTE_HOLD,
    REMOTE_PENDING, Slots, split,
};

/// One half of a wire side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HalfShape {
    /// What output uses.
    pub(crate) address: Address,
    pub(crate) generation: u32,
    pub(crate) other: Other,
}

/// What a binding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) stack: Side,
    /// Ports as they travel.
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
    pub(crate) local: HalfShape,
    pub(crate) remote: HalfShape,
    /// The wire side in use is another binding's by now.
    pub(crate) lost: bool,
    pub(crate) displaced: bool,
    /// Made by hand: it need not have a connection.
    pub(crate) manual: bool,
}

/// What a record does not hold: nothing that the packet path needs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cold {
    generation: [u32; 2],
    /// Pending: its generation. Grace: uptime in seconds when it began.
    other: [u32; 2],
    pub(crate) created: u32,
}

impl Shape {
    pub(crate) fn new(stack: &Side, wire: &Side) -> Self {
        let half = |address: Address| HalfShape { address, generation: 0, other: Other::None };
        Self {
            stack: *stack,
            local_port: wire.local_port,
            remote_port: wire.remote_port,
            local: half(wire.local),
            remote: half(wire.remote),
            lost: false,
            displaced: false,
            manual: false,
        }
    }

    pub(crate) fn wire(&self) -> Side {
        Side {
            local: self.local.address,
            remote: self.remote.address,
            local_port: self.local_port,
            remote_port: self.remote_port,
            ..self.stack
        }
    }

    pub(crate) fn half_mut(&mut self, half: Half) -> &mut HalfShape {
        match half {
            Half::Local => &mut self.local,
            Half::Remote => &mut self.remote,
        }
    }

    /// Nothing to translate and nothing in preparation.
    pub(crate) fn is_idle(&self) -> bool {
        self.wire() == self.stack && self.local.other == Other::None && self.remote.other == Other::None
    }

    /// The wire sides that input accepts, the one in use first, each once.
    pub(crate) fn accepted(&self) -> impl Iterator<Item = Side> + use<> {
        let wire = self.wire();
        let (locals, remotes) = (addresses(&self.local), addresses(&self.remote));
        let mut accepted = [None; 4];
        for (nth, place) in accepted.iter_mut().enumerate() {
            let (local, remote) = (locals.get(nth & 1).copied().flatten(), remotes.get(nth >> 1).copied().flatten());
            *place = local.zip(remote).map(|(local, remote)| Side { local, remote, ..wire });
        }
        if self.lost {
            accepted[0] = None;
        }
        accepted.into_iter().flatten()
    }

    /// Takes out of `self` the second addresses in grace that make it accept
    /// `side`. False: it accepts it for another reason.
    pub(crate) fn yield_grace(&mut self, side: &Side) -> bool {
        let mut yielded = false;
        for (half, wanted) in [(&mut self.local, side.local), (&mut self.remote, side.remote)] {
            if half.address != wanted && matches!(half.other, Other::Grace { address, .. } if address == wanted) {
                half.other = Other::None;
                yielded = true;
            }
        }
        yielded
    }

    /// The keys under which the table finds it.
    fn keys(&self) -> [Option<Key>; 5] {
        let mut keys = [Some(Key::new(&self.stack)), None, None, None, None];
        let wires = self.accepted().filter(|side| *side != self.stack);
        for (place, side) in keys.iter_mut().skip(1).zip(wires) {
            *place = Some(Key::new(&side));
        }
        keys
    }

    fn content(&self) -> Content {
        let wire = Key::new(&self.wire());
        let (local, remote) = slots_of(&wire);
        let others = Side { local: second(&self.local), remote: second(&self.remote), ..self.stack };
        let (other_local, other_remote) = slots_of(&Key::new(&others));
        let mut state = 0;
        for (other, pending, grace, hold) in [
            (self.local.other, LOCAL_PENDING, LOCAL_GRACE, LOCAL_HOLD),
            (self.remote.other, REMOTE_PENDING, REMOTE_GRACE, REMOTE_HOLD),
        ] {
            state |= match other {
                Other::None => 0,
                Other::Pending { hold: true, .. } => pending | hold,
                Other::Pending { .. } => pending,
                Other::Grace { .. } => grace,
            };
        }
        for (flag, bit) in [(self.lost, LOST), (self.displaced, DISPLACED), (self.manual, MANUAL)] {
            state |= if flag { bit } else { 0 };
        }
        Content {
            stack: Key::new(&self.stack),
            wire: wire.head,
            local: Slots { current: local, other: other_local },
            remote: Slots { current: remote, other: other_remote },
            state,
        }
    }

    pub(crate) fn cold(&self, created: u32) -> Cold {
        let number = |half: &HalfShape| match half.other {
            Other::None => 0,
            Other::Pending { generation, .. } => generation,
            Other::Grace { since, .. } => since,
        };
        Cold {
            generation: [self.local.generation, self.remote.generation],
            other: [number(&self.local), number(&self.remote)],
            created,
        }
    }

    fn of(content: &Content, cold: &Cold) -> Self {
        let v6 = content.stack.is_v6();
        let wire = wire_of(content, content.local.current, content.remote.current, v6);
        let others = wire_of(content, content.local.other, content.remote.other, v6);
        let half = |address, second, number, generation, pending, grace, hold| HalfShape {
            address,
            generation,
            other: if content.state & pending != 0 {
                Other::Pending { address: second, generation: number, hold: content.state & hold != 0 }
            } else if content.state & grace != 0 {
                Other::Grace { address: second, since: number }
            } else {
                Other::None
            },
        };
        let ([l, r], [m, n]) = (cold.generation, cold.other);
        Self {
            stack: content.stack.side(),
            local_port: wire.local_port,
            remote_port: wire.remote_port,
            local: half(wire.local, others.local, m, l, LOCAL_PENDING, LOCAL_GRACE, LOCAL_HOLD),
            remote: half(wire.remote, others.remote, n, r, REMOTE_PENDING, REMOTE_GRACE, REMOTE_HOLD),
            lost: content.state & LOST != 0,
            displaced: content.state & DISPLACED != 0,
            manual: content.state & MANUAL != 0,
        }
    }
}

fn slots_of(key: &Key) -> ([u64; 2], [u64; 2]) {
    if key.is_v6() { split::<true>(key) } else { split::<false>(key) }
}

fn wire_of(content: &Content, [a, b]: [u64; 2], [c, d]: [u64; 2], v6: bool) -> Side {
    let addresses = if v6 { [a, b, c, d] } else { [a | c, 0, 0, 0] };
    Key { head: content.wire, addresses }.side()
}

fn second(half: &HalfShape) -> Address {
    match half.other {
        Other::None => half.address,
        Other::Pending { address, .. } | Other::Grace { address, .. } => address,
    }
}

/// The address in use, and the second one if it is another.
fn addresses(half: &HalfShape) -> [Option<Address>; 2] {
    let other = second(half);
    [Some(half.address), (other != half.address).then_some(other)]
}

impl Engine {
    pub(crate) fn shape(&self, flow: u32, cold: &Cold) -> Option<Shape> {
        Some(Shape::of(&self.table.content(flow)?, cold))
    }

    /// Takes the table from `old` (nothing, for a new record) to `new`. On
    /// error the table is as it was.
    pub(crate) fn place(&self, flow: u32, old: Option<&Shape>, new: &Shape) -> Result<(), TableError> {
        let had = old.map_or([None; 5], Shape::keys);
        let has = new.keys();
        let fresh = || has.iter().flatten().filter(|key| !had.contains(&Some(**key)));
        for (nth, key) in fresh().enumerate() {
            if self.table.insert(self.hasher.hash_any(key), flow).is_err() {
                for added in fresh().take(nth) {
                    self.table.remove(self.hasher.hash_any(added), flow);
                }
                return Err(TableError::Full);
            }
        }
        match old {
            None => self.table.fill(flow, &new.content(), 0),
            Some(_) => self.table.update(flow, &new.content()),
        }
        for key in had.iter().flatten().filter(|key| !has.contains(&Some(**key))) {
            self.table.remove(self.hasher.hash_any(key), flow);
        }
        Ok(())
    }

    /// The same where both are found under the same keys.
    pub(crate) fn replace(&self, flow: u32, new: &Shape) {
        self.table.update(flow, &new.content());
    }

    /// Takes a binding out of the table.
    pub(crate) fn unplace(&self, flow: u32, old: &Shape) {
        self.table.clear(flow);
        for key in old.keys().iter().flatten() {
            self.table.remove(self.hasher.hash_any(key), flow);
        }
    }

    /// The number of the binding with this stack side.
    pub(crate) fn flow(&self, stack: &Side) -> Option<u32> {
        let key = Key::new(stack);
        self.table.first(self.hasher.hash_any(&key), |_, content| content.stack == key)
    }

    /// The number of the binding that accepts this wire side, not being `but`.
    pub(crate) fn owner(&self, wire: &Side, but: Option<u32>) -> Option<u32> {
        let key = Key::new(wire);
        self.table.first(self.hasher.hash_any(&key), |flow, content| {
            Some(flow) != but && content.wire == key.head && {
                let shape = Shape::of(content, &Cold::default());
                shape.accepted().any(|side| side == *wire)
            }
        })
    }
}
