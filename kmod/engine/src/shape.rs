//! A binding as writers see it, and how the table gets from one shape of it
//! to the next without a moment in which a packet finds none.

use crate::Engine;
use crate::flow::{Address, Binding, Half, HalfView, Other, TableError};
use crate::key::Key;
use crate::table::{
    Content, DISPLACED, LOCAL_GRACE, LOCAL_HOLD, LOCAL_PENDING, LOST, MANUAL, REMOTE_GRACE, REMOTE_HOLD,
    REMOTE_PENDING, Slots,
};

/// What a binding is: what its record says, and what that leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) content: Content,
    pub(crate) cold: Cold,
}

/// What a record does not hold: nothing that the packet path needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cold {
    generations: [u32; 2],
    /// Pending: its generation. Grace: uptime in seconds when it began.
    numbers: [u32; 2],
    pub(crate) created: u32,
}

/// The second address of a half, as slots have it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Second {
    None,
    Pending { address: [u64; 2], generation: u32, hold: bool },
    Grace { address: [u64; 2], since: u32 },
}

/// Flags of a half.
struct Flags {
    pending: u64,
    grace: u64,
    hold: u64,
}

const fn flags(half: Half) -> Flags {
    match half {
        Half::Local => Flags { pending: LOCAL_PENDING, grace: LOCAL_GRACE, hold: LOCAL_HOLD },
        Half::Remote => Flags { pending: REMOTE_PENDING, grace: REMOTE_GRACE, hold: REMOTE_HOLD },
    }
}

impl Shape {
    pub(crate) fn new(stack: &Key, wire: &Key) -> Self {
        let (local, remote) = wire.halves();
        let slots = |address| Slots { current: address, other: address };
        let content = Content { stack: *stack, wire: wire.head, local: slots(local), remote: slots(remote), state: 0 };
        Self { content, cold: Cold::default() }
    }

    /// The same, made now.
    pub(crate) fn made(mut self, now: u32) -> Self {
        self.cold.created = now;
        self
    }

    /// The same with a flag of the state set, or not.
    pub(crate) fn with_flag(mut self, flag: u64, set: bool) -> Self {
        self.content.state = self.content.state & !flag | if set { flag } else { 0 };
        self
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.content.state & LOST != 0
    }

    pub(crate) fn is_displaced(&self) -> bool {
        self.content.state & DISPLACED != 0
    }

    pub(crate) fn is_manual(&self) -> bool {
        self.content.state & MANUAL != 0
    }

    /// What output uses.
    pub(crate) fn current(&self, half: Half) -> [u64; 2] {
        self.content.slots(half).current
    }

    /// The move that brought it there.
    pub(crate) fn generation(&self, half: Half) -> u32 {
        let [local, remote] = self.cold.generations;
        match half {
            Half::Local => local,
            Half::Remote => remote,
        }
    }

    pub(crate) fn second(&self, half: Half) -> Second {
        let Flags { pending, grace, hold } = flags(half);
        let (state, address) = (self.content.state, self.content.slots(half).other);
        let [local, remote] = self.cold.numbers;
        let number = if half == Half::Local { local } else { remote };
        if state & pending != 0 {
            Second::Pending { address, generation: number, hold: state & hold != 0 }
        } else if state & grace != 0 {
            Second::Grace { address, since: number }
        } else {
            Second::None
        }
    }

    pub(crate) fn set_second(&mut self, half: Half, second: Second) {
        let Flags { pending, grace, hold } = flags(half);
        let (flags, address, number) = match second {
            Second::None => (0, self.current(half), 0),
            Second::Pending { address, generation, hold: true } => (pending | hold, address, generation),
            Second::Pending { address, generation, hold: false } => (pending, address, generation),
            Second::Grace { address, since } => (grace, address, since),
        };
        let content = &mut self.content;
        content.state = content.state & !(pending | grace | hold) | flags;
        content.slots_mut(half).other = address;
        let [local, remote] = &mut self.cold.numbers;
        *if half == Half::Local { local } else { remote } = number;
    }

    /// Takes another address into use; the one before.
    pub(crate) fn rebind(&mut self, half: Half, address: [u64; 2], generation: u32) -> [u64; 2] {
        let [local, remote] = &mut self.cold.generations;
        *if half == Half::Local { local } else { remote } = generation;
        core::mem::replace(&mut self.content.slots_mut(half).current, address)
    }

    /// Nothing to translate and nothing in preparation.
    pub(crate) fn is_idle(&self) -> bool {
        let seconds = LOCAL_PENDING | LOCAL_GRACE | REMOTE_PENDING | REMOTE_GRACE;
        self.content.state & seconds == 0 && self.content.wire_in_use() == self.content.stack
    }

    /// Takes out of `self` the second addresses in grace that make it accept
    /// `side`. False: it accepts it for another reason.
    pub(crate) fn yield_grace(&mut self, side: &Key) -> bool {
        let (local, remote) = side.halves();
        let mut yielded = false;
        for (half, wanted) in [(Half::Local, local), (Half::Remote, remote)] {
            let in_grace = matches!(self.second(half), Second::Grace { address, .. } if address == wanted);
            if self.current(half) != wanted && in_grace {
                self.set_second(half, Second::None);
                yielded = true;
            }
        }
        yielded
    }

    /// As it is listed.
    pub(crate) fn view(&self, id: u64, used: u32) -> Binding {
        let v6 = self.content.stack.is_v6();
        let half = |half| HalfView {
            generation: self.generation(half),
            other: match self.second(half) {
                Second::None => Other::None,
                Second::Pending { address, generation, hold } => {
                    Other::Pending { address: Address::of_slot(address, half, v6), generation, hold }
                }
                Second::Grace { address, since } => {
                    Other::Grace { address: Address::of_slot(address, half, v6), since }
                }
            },
        };
        Binding {
            stack: self.content.stack.side(),
            wire: self.content.wire_in_use().side(),
            local: half(Half::Local),
            remote: half(Half::Remote),
            displaced: self.is_displaced(),
            lost: self.is_lost(),
            id,
            created: self.cold.created,
            used,
        }
    }
}

impl Content {
    pub(crate) fn slots(&self, half: Half) -> &Slots {
        match half {
            Half::Local => &self.local,
            Half::Remote => &self.remote,
        }
    }

    fn slots_mut(&mut self, half: Half) -> &mut Slots {
        match half {
            Half::Local => &mut self.local,
            Half::Remote => &mut self.remote,
        }
    }

    pub(crate) fn wire_in_use(&self) -> Key {
        Key::join(self.wire, self.local.current, self.remote.current)
    }

    /// The wire side in use with the address of one half replaced.
    pub(crate) fn wire_with(&self, half: Half, address: [u64; 2]) -> Key {
        match half {
            Half::Local => Key::join(self.wire, address, self.remote.current),
            Half::Remote => Key::join(self.wire, self.local.current, address),
        }
    }

    /// The second address of a half, if it counts and is another than the first.
    fn other(&self, half: Half) -> Option<[u64; 2]> {
        let Flags { pending, grace, .. } = flags(half);
        let Slots { current, other } = *self.slots(half);
        (self.state & (pending | grace) != 0 && current != other).then_some(other)
    }

    /// Whether input accepts a wire side.
    pub(crate) fn accepts(&self, side: &Key) -> bool {
        if self.wire != side.head {
            return false;
        }
        let (local, remote) = side.halves();
        let is_current = local == self.local.current && remote == self.remote.current;
        if is_current {
            return self.state & LOST == 0;
        }
        (local == self.local.current || self.other(Half::Local) == Some(local))
            && (remote == self.remote.current || self.other(Half::Remote) == Some(remote))
    }

    /// The wire sides that input accepts, the one in use first, each once.
    pub(crate) fn accepted(&self) -> Accepted<'_> {
        let (local, remote) = (self.other(Half::Local).is_some(), self.other(Half::Remote).is_some());
        let in_use = self.state & LOST == 0;
        let left = u8::from(in_use) | u8::from(local) << 1 | u8::from(remote) << 2 | u8::from(local && remote) << 3;
        Accepted { of: self, left }
    }

    /// Those of them that `other` does not accept.
    pub(crate) fn beyond(&self, other: Option<&Self>) -> impl Iterator<Item = Key> {
        self.accepted().filter(move |side| other.is_none_or(|other| !other.accepts(side)))
    }
}

/// See [`Content::accepted`].
pub(crate) struct Accepted<'a> {
    of: &'a Content,
    /// A bit for each that is left: the lowest is the one in use; bit 0 of its
    /// number says second local address, bit 1 second remote one.
    left: u8,
}

impl Iterator for Accepted<'_> {
    type Item = Key;

    #[inline]
    fn next(&mut self) -> Option<Key> {
        if self.left == 0 {
            return None;
        }
        let nth = self.left.trailing_zeros();
        self.left &= self.left.wrapping_sub(1);
        let pick = |slots: &Slots, second: bool| if second { slots.other } else { slots.current };
        let Content { wire, local, remote, .. } = self.of;
        Some(Key::join(*wire, pick(local, nth & 1 != 0), pick(remote, nth & 2 != 0)))
    }
}

impl Engine {
    /// Takes the table from `old` (nothing, for a new record) to `new`. On
    /// error the table is as it was.
    pub(crate) fn place(&self, flow: u32, old: Option<&Content>, new: &Content) -> Result<(), TableError> {
        let stack = old.is_none().then_some(new.stack);
        let fresh = || stack.into_iter().chain(new.beyond(old).filter(|side| *side != new.stack));
        for (nth, key) in fresh().enumerate() {
            if self.table.insert(self.hasher.hash_any(&key), flow).is_err() {
                for added in fresh().take(nth) {
                    self.table.remove(self.hasher.hash_any(&added), flow);
                }
                return Err(TableError::Full);
            }
        }
        let Some(old) = old else {
            self.table.fill(flow, new, 0);
            return Ok(());
        };
        self.table.update(flow, new);
        for key in old.beyond(Some(new)).filter(|side| *side != new.stack) {
            self.table.remove(self.hasher.hash_any(&key), flow);
        }
        Ok(())
    }

    /// Takes a binding out of the table.
    pub(crate) fn unplace(&self, flow: u32, old: &Content) {
        self.table.clear(flow);
        for key in old.accepted().filter(|side| *side != old.stack).chain([old.stack]) {
            self.table.remove(self.hasher.hash_any(&key), flow);
        }
    }

    /// The binding with this stack side.
    #[inline]
    pub(crate) fn flow(&self, stack: &Key) -> Option<(u32, Content)> {
        self.table.first(self.hasher.hash_any(stack), |_, content| content.stack.is::<true>(stack))
    }

    /// The binding that accepts this wire side, not being `but`.
    pub(crate) fn owner(&self, wire: &Key, but: Option<u32>) -> Option<(u32, Content)> {
        self.table.first(self.hasher.hash_any(wire), |flow, content| Some(flow) != but && content.accepts(wire))
    }
}
