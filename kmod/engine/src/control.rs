//! The writers' half: what may be done to bindings, and what each attempt
//! leaves behind. Every method either does all of what it says or leaves the
//! table as it was.

use crate::Engine;
use crate::flow::{Address, Binding, Half, HalfView, Other, Side, TableError};
use crate::rules::{HalfState, Placed, Shape};
use crate::slab::Slab;
use crate::sync::Ordering;

struct Entry {
    shape: Shape,
    placed: Placed,
    created: u32,
}

/// What only writers need. Every method takes the [`Engine`] that was made
/// together with it; the caller's lock lets one writer in at a time.
pub struct Control {
    capacity: u32,
    local_generation: u32,
    flows: Slab<Entry>,
}

/// What [`Control::expire`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Graces that ended.
    pub ended: u32,
    /// Bindings removed.
    pub removed: u32,
}

impl Control {
    pub(crate) fn new(capacity: u32) -> Self {
        Self { capacity, local_generation: 0, flows: Slab::new() }
    }

    /// Bindings now.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.flows.len()
    }

    /// Whether there is no binding.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flows.len() == 0
    }

    /// Most bindings that the table takes.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Highest generation that a local half ever had, pending ones included.
    #[must_use]
    pub fn local_generation(&self) -> u32 {
        self.local_generation
    }

    /// Makes a binding.
    ///
    /// # Errors
    /// `Invalid`, `Exists`, `Conflict`, `Full`, `NoMemory`.
    pub fn add(&mut self, engine: &Engine, stack: &Side, wire: &Side, now: u32) -> Result<(), TableError> {
        let fits = stack.version == wire.version && stack.protocol == wire.protocol;
        if !fits || !stack.is_usable() || !wire.is_usable() {
            return Err(TableError::Invalid);
        }
        if engine.flow(stack).is_some() {
            return Err(TableError::Exists);
        }
        self.insert(engine, shape(stack, wire), now)
    }

    /// Removes a binding.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn delete(&mut self, engine: &Engine, stack: &Side) -> Result<(), TableError> {
        let index = engine.flow(stack).ok_or(TableError::NotFound)?;
        self.remove(engine, index);
        Ok(())
    }

    /// The binding with this stack side.
    #[must_use]
    pub fn get(&self, engine: &Engine, stack: &Side) -> Option<Binding> {
        let index = engine.flow(stack)?;
        self.flows.get(index).map(|entry| view(engine, index, entry))
    }

    /// The first binding whose id is above `cursor`.
    #[must_use]
    pub fn next(&self, engine: &Engine, cursor: u64) -> Option<Binding> {
        let from = u32::try_from(cursor).ok()?;
        self.flows.next(from).map(|(index, entry)| view(engine, index, entry))
    }

    /// Prepares a move of one half to the address `new`: input accepts it from
    /// now on, output does not use it yet, and sends nothing at all if `hold`.
    /// Makes a binding if the flow has none. Repeating it is harmless.
    ///
    /// # Errors
    /// `Invalid`, `Stale` (the generation is not above the half's, or names
    /// another address than before), `Conflict`, `Full`, `NoMemory`.
    #[expect(clippy::too_many_arguments, reason = "one command of the device, field by field")]
    pub fn prepare(
        &mut self,
        engine: &Engine,
        stack: &Side,
        half: Half,
        new: &Address,
        generation: u32,
        hold: bool,
        now: u32,
    ) -> Result<(), TableError> {
        if generation == 0 || !stack.is_usable() {
            return Err(TableError::Invalid);
        }
        let index = engine.flow(stack);
        let entry = index.and_then(|index| self.flows.get(index));
        let mut changed = entry.map_or_else(|| shape(stack, stack), |entry| entry.shape);
        if !changed.wire().with(half, *new).is_usable() {
            return Err(TableError::Invalid);
        }
        let state = half_mut(&mut changed, half);
        match state.other {
            Other::Pending { address, generation: pending, .. } => {
                if generation < pending || (generation == pending && address != *new) {
                    return Err(TableError::Stale);
                }
            }
            _ if generation == state.generation && state.address == *new => return Ok(()),
            _ if generation <= state.generation => return Err(TableError::Stale),
            _ => {}
        }
        state.other = Other::Pending { address: *new, generation, hold };
        match index {
            Some(index) => self.change(engine, index, changed)?,
            None => self.insert(engine, changed, now)?,
        }
        if half == Half::Local {
            self.local_generation = self.local_generation.max(generation);
        }
        Ok(())
    }

    /// Commits a prepared move: output uses the new address, input goes on
    /// accepting the old one for a grace time. Repeating it is harmless.
    ///
    /// # Errors
    /// `Stale` when the half has moved on since, `NotFound`, `Full`.
    pub fn commit(
        &mut self,
        engine: &Engine,
        stack: &Side,
        half: Half,
        generation: u32,
        now: u32,
    ) -> Result<(), TableError> {
        let (index, mut changed) = self.find(engine, stack)?;
        let state = half_mut(&mut changed, half);
        match state.other {
            Other::Pending { address, generation: pending, .. } if pending == generation => {
                let old = core::mem::replace(&mut state.address, address);
                state.generation = generation;
                state.other = if old == address { Other::None } else { Other::Grace { address: old, since: now } };
            }
            _ if generation != 0 && generation == state.generation => return Ok(()),
            _ if generation < state.generation => return Err(TableError::Stale),
            _ => return Err(TableError::NotFound),
        }
        self.change(engine, index, changed)
    }

    /// Takes a prepared move back.
    ///
    /// # Errors
    /// `Stale` when it was committed, `NotFound`.
    pub fn abort(&mut self, engine: &Engine, stack: &Side, half: Half, generation: u32) -> Result<(), TableError> {
        let (index, mut changed) = self.find(engine, stack)?;
        let state = half_mut(&mut changed, half);
        match state.other {
            Other::Pending { generation: pending, .. } if pending == generation => state.other = Other::None,
            _ if generation <= state.generation => return Err(TableError::Stale),
            _ => return Err(TableError::NotFound),
        }
        if changed.is_idle() {
            self.remove(engine, index);
            return Ok(());
        }
        self.change(engine, index, changed)
    }

    /// Ends graces that are at least `grace` seconds old, and removes bindings
    /// that translate nothing any more, and UDP bindings that no packet used
    /// for `udp_idle` seconds (0: none of these).
    pub fn expire(&mut self, engine: &Engine, now: u32, grace: u32, udp_idle: u32) -> Expired {
        let mut expired = Expired::default();
        let mut from = 0;
        while let Some((index, entry)) = self.flows.next(from) {
            from = index.saturating_add(1);
            let mut changed = entry.shape;
            let mut ended = 0_u32;
            for state in [&mut changed.local, &mut changed.remote] {
                if let Other::Grace { since, .. } = state.other
                    && now.saturating_sub(since) >= grace
                {
                    state.other = Other::None;
                    ended = ended.saturating_add(1);
                }
            }
            let used = engine.used(&entry.placed).max(entry.created);
            let idle = udp_idle != 0
                && entry.shape.stack.protocol == crate::Protocol::Udp
                && now.saturating_sub(used) >= udp_idle;
            if idle || changed.is_idle() {
                self.remove(engine, index);
                expired.removed = expired.removed.saturating_add(1);
                expired.ended = expired.ended.saturating_add(ended);
            } else if ended != 0 && self.change(engine, index, changed).is_ok() {
                expired.ended = expired.ended.saturating_add(ended);
            }
        }
        expired
    }

    /// Removes every binding; returns how many there were.
    pub fn flush(&mut self, engine: &Engine) -> u32 {
        let count = self.flows.len();
        let mut from = 0;
        while let Some((index, _)) = self.flows.next(from) {
            from = index.saturating_add(1);
            self.remove(engine, index);
        }
        count
    }

    fn find(&self, engine: &Engine, stack: &Side) -> Result<(u32, Shape), TableError> {
        let index = engine.flow(stack).ok_or(TableError::NotFound)?;
        let entry = self.flows.get(index).ok_or(TableError::NotFound)?;
        Ok((index, entry.shape))
    }

    fn insert(&mut self, engine: &Engine, shape: Shape, now: u32) -> Result<(), TableError> {
        if self.flows.len() >= self.capacity {
            return Err(TableError::Full);
        }
        if !self.flows.reserve() || !engine.table.allocate(self.capacity) {
            return Err(TableError::NoMemory);
        }
        let placed = engine.place(self.flows.vacant(), &shape, &Placed::default(), None)?;
        self.flows.insert(Entry { shape, placed, created: now });
        engine.flows.store(self.flows.len(), Ordering::Relaxed);
        Ok(())
    }

    fn change(&mut self, engine: &Engine, index: u32, shape: Shape) -> Result<(), TableError> {
        let entry = self.flows.get_mut(index).ok_or(TableError::NotFound)?;
        entry.placed = engine.place(index, &shape, &entry.placed, Some(&entry.shape))?;
        entry.shape = shape;
        Ok(())
    }

    fn remove(&mut self, engine: &Engine, index: u32) {
        if let Some(entry) = self.flows.get(index) {
            engine.unplace(&entry.shape.stack, &entry.placed);
        }
        self.flows.remove(index);
        engine.flows.store(self.flows.len(), Ordering::Relaxed);
    }
}

fn shape(stack: &Side, wire: &Side) -> Shape {
    let half = |address: Address| HalfState { address, generation: 0, other: Other::None };
    Shape {
        stack: *stack,
        local_port: wire.local_port,
        remote_port: wire.remote_port,
        local: half(wire.local),
        remote: half(wire.remote),
    }
}

fn half_mut(shape: &mut Shape, half: Half) -> &mut HalfState {
    match half {
        Half::Local => &mut shape.local,
        Half::Remote => &mut shape.remote,
    }
}

fn view(engine: &Engine, index: u32, entry: &Entry) -> Binding {
    let half = |state: &HalfState| HalfView { generation: state.generation, other: state.other };
    Binding {
        stack: entry.shape.stack,
        wire: entry.shape.wire(),
        local: half(&entry.shape.local),
        remote: half(&entry.shape.remote),
        id: u64::from(index).saturating_add(1),
        created: entry.created,
        used: engine.used(&entry.placed).max(entry.created),
    }
}
