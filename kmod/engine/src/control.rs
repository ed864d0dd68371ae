//! The writers' half: what may be done to bindings, and what each attempt
//! leaves behind. Every method either does all of what it says or leaves the
//! table as it was.

use crate::Engine;
use crate::flow::{Address, Binding, Half, Side, TableError};
use crate::journal::{Journal, What};
use crate::key::Key;
use crate::shape::{Cold, Second, Shape};
use crate::slab::Slab;
use crate::sync::Ordering;
use crate::table::{Content, LOST, MANUAL};

/// What only writers need. Every method takes the [`Engine`] that was made
/// together with it; the caller's lock lets one writer in at a time.
pub struct Control {
    pub(crate) capacity: u32,
    local_generation: u32,
    pub(crate) flows: Slab<Cold>,
    journal: Journal,
}

/// A move of one half, to be prepared.
#[derive(Clone, Copy, Debug)]
pub struct Prepare {
    /// Which half.
    pub half: Half,
    /// Its new address.
    pub new: Address,
    /// The move's generation, not 0.
    pub generation: u32,
    /// The old path is gone: nothing is sent until commit.
    pub hold: bool,
    /// The new address is proved to be the mover's: a wire side of another
    /// binding becomes this one's. Without it, that is a `Conflict`.
    pub take: bool,
}

impl Control {
    pub(crate) fn new(capacity: u32) -> Self {
        Self { capacity, local_generation: 0, flows: Slab::new(), journal: Journal::default() }
    }

    /// Gives the table's hash another secret. False: it has bindings, and
    /// keeps the one it has.
    pub fn rekey(&mut self, engine: &Engine, key: [u64; 8]) -> bool {
        if self.is_empty() {
            engine.hasher.set(key);
        }
        self.is_empty()
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

    /// What happened, as far as it is kept.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// One more watches what happens; from which number on. None: no memory.
    pub fn watch(&mut self) -> Option<u64> {
        self.journal.watch()
    }

    /// One less watches.
    pub fn unwatch(&mut self) {
        self.journal.unwatch();
    }

    /// Says what time it is, for the journal; in any unit.
    pub fn set_clock(&mut self, at: u64) {
        self.journal.set_clock(at);
    }

    /// Takes the table's memory now, so that the first binding need not wait for
    /// it. Repeating it is harmless.
    ///
    /// # Errors
    /// `NoMemory`.
    pub fn reserve(&self, engine: &Engine) -> Result<(), TableError> {
        if engine.table.allocate(self.capacity) { Ok(()) } else { Err(TableError::NoMemory) }
    }

    /// Makes a binding by hand: [`Control::expire`] does not ask for its
    /// connection.
    ///
    /// # Errors
    /// `Invalid`, `Exists`, `Conflict`, `Full`, `NoMemory`.
    pub fn add(&mut self, engine: &Engine, stack: &Side, wire: &Side, now: u32) -> Result<(), TableError> {
        let fits = stack.version == wire.version && stack.protocol == wire.protocol;
        if !fits || !stack.is_usable() || !wire.is_usable() {
            return Err(TableError::Invalid);
        }
        let (stack, wire) = (Key::new(stack), Key::new(wire));
        if engine.flow(&stack).is_some() {
            return Err(TableError::Exists);
        }
        if engine.owner(&wire, None).is_some() {
            return Err(TableError::Conflict);
        }
        self.insert(engine, &Shape::new(&stack, &wire).with_flag(MANUAL, true), now)?;
        Ok(())
    }

    /// Removes a binding.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn delete(&mut self, engine: &Engine, stack: &Side) -> Result<(), TableError> {
        let (flow, shape) = self.find(engine, &Key::new(stack)).ok_or(TableError::NotFound)?;
        self.remove(engine, flow, &shape);
        Ok(())
    }

    /// The binding with this stack side.
    #[must_use]
    pub fn get(&self, engine: &Engine, stack: &Side) -> Option<Binding> {
        self.view(engine, engine.flow(&Key::new(stack))?.0)
    }

    /// The binding that accepts this wire side on input.
    #[must_use]
    pub fn get_by_wire(&self, engine: &Engine, wire: &Side) -> Option<Binding> {
        self.view(engine, engine.owner(&Key::new(wire), None)?.0)
    }

    /// The first binding whose id is above `cursor`.
    #[must_use]
    pub fn next(&self, engine: &Engine, cursor: u64) -> Option<Binding> {
        let (flow, _) = self.flows.next(u32::try_from(cursor).ok()?)?;
        self.view(engine, flow)
    }

    /// Prepares a move of one half: input accepts the new address from now
    /// on, output does not use it yet. Makes a binding if the flow has none.
    /// Repeating it is harmless.
    ///
    /// `busy` says whether the host has a connection with a given stack side;
    /// one that the table does not know keeps its wire side, unless
    /// `prepare.take`.
    ///
    /// # Errors
    /// `Invalid`, `Stale` (the generation is not above the half's, or names
    /// another address than before), `Conflict`, `Full`, `NoMemory`.
    pub fn prepare(
        &mut self,
        engine: &Engine,
        stack: &Side,
        prepare: &Prepare,
        busy: impl Fn(&Side) -> bool,
        now: u32,
    ) -> Result<(), TableError> {
        let Prepare { half, new, generation, hold, take } = *prepare;
        if generation == 0 || !stack.is_usable() {
            return Err(TableError::Invalid);
        }
        let key = Key::new(stack);
        let known = self.find(engine, &key);
        let mut changed = match &known {
            Some((_, shape)) => *shape,
            // Somebody else may have taken its wire side while it had no binding.
            None => Shape::new(&key, &key).with_flag(LOST, engine.owner(&key, None).is_some()),
        };
        let address = new.slot(half, key.is_v6());
        let leads_to_itself = changed.content.wire_with(half, address).meets_itself();
        if !new.is_usable(stack.version) || leads_to_itself {
            return Err(TableError::Invalid);
        }
        match changed.second(half) {
            Second::Pending { address: before, generation: pending, .. } => {
                if generation < pending || (generation == pending && before != address) {
                    return Err(TableError::Stale);
                }
            }
            _ if generation == changed.generation(half) && changed.current(half) == address => return Ok(()),
            _ if generation <= changed.generation(half) => return Err(TableError::Stale),
            _ => {}
        }
        changed.set_second(half, Second::Pending { address, generation, hold });
        let before = known.as_ref().map(|(_, shape)| &shape.content);
        let mut takes = [None; 4];
        for (place, side) in takes.iter_mut().zip(changed.content.beyond(before)) {
            *place = self.taken_from(engine, &key, &side, take, &busy)?.map(|owner| (owner, side));
        }
        let flow = match &known {
            Some((flow, shape)) => {
                self.change(engine, *flow, shape, &changed)?;
                *flow
            }
            None => self.insert(engine, &changed, now)?,
        };
        if known.as_ref().is_none_or(|(_, before)| *before != changed) {
            self.tell(engine, flow, What::Prepared(half));
        }
        for (owner, side) in takes.iter().flatten() {
            self.take(engine, *owner, side);
        }
        if half == Half::Local {
            self.local_generation = self.local_generation.max(generation);
        }
        Ok(())
    }

    /// Commits a prepared move: output uses the new address, input goes on
    /// accepting the old one for a grace time. Repeating it is harmless.
    /// Returns whether the flow was held until now.
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
    ) -> Result<bool, TableError> {
        let (flow, shape) = self.find(engine, &Key::new(stack)).ok_or(TableError::NotFound)?;
        let mut changed = shape;
        let held = match changed.second(half) {
            Second::Pending { address, generation: pending, hold } if pending == generation => {
                let old = changed.rebind(half, address, generation);
                let grace = Second::Grace { address: old, since: now };
                changed.set_second(half, if old == address { Second::None } else { grace });
                hold
            }
            _ if generation != 0 && generation == shape.generation(half) => return Ok(false),
            _ if generation < shape.generation(half) => return Err(TableError::Stale),
            _ => return Err(TableError::NotFound),
        };
        if shape.is_lost() {
            // What it had before is another's, so there is no grace for it.
            changed.set_second(half, Second::None);
            let is_lost = engine.owner(&changed.content.wire_in_use(), Some(flow)).is_some();
            self.change(engine, flow, &shape, &changed.with_flag(LOST, is_lost))?;
        } else {
            // What input accepts stays the same.
            engine.table.update(flow, &changed.content);
            self.note(flow, &changed);
        }
        self.tell(engine, flow, What::Rebound(half));
        Ok(held)
    }

    /// Takes a prepared move back.
    ///
    /// # Errors
    /// `Stale` when it was committed, `NotFound`.
    pub fn abort(&mut self, engine: &Engine, stack: &Side, half: Half, generation: u32) -> Result<(), TableError> {
        let (flow, shape) = self.find(engine, &Key::new(stack)).ok_or(TableError::NotFound)?;
        let mut changed = shape;
        match changed.second(half) {
            Second::Pending { generation: pending, .. } if pending == generation => {
                changed.set_second(half, Second::None);
            }
            _ if generation <= shape.generation(half) => return Err(TableError::Stale),
            _ => return Err(TableError::NotFound),
        }
        if changed.is_idle() {
            self.tell(engine, flow, What::Aborted(half));
            self.remove(engine, flow, &shape);
            return Ok(());
        }
        self.change(engine, flow, &shape, &changed)?;
        self.tell(engine, flow, What::Aborted(half));
        Ok(())
    }

    /// Removes every binding; returns how many there were.
    pub fn flush(&mut self, engine: &Engine) -> u32 {
        let count = self.flows.len();
        let mut from = 0;
        while let Some((flow, _)) = self.flows.next(from) {
            from = flow.saturating_add(1);
            if let Some(shape) = self.shape_of(engine, flow) {
                self.remove(engine, flow, &shape);
            }
        }
        count
    }

    /// Whose wire side `side` is, which the binding of `stack` is about to
    /// accept, if it may.
    fn taken_from(
        &self,
        engine: &Engine,
        stack: &Key,
        side: &Key,
        take: bool,
        busy: &impl Fn(&Side) -> bool,
    ) -> Result<Option<u32>, TableError> {
        let Some((owner, content)) = engine.owner(side, None) else {
            let unbound = || side != stack && engine.flow(side).is_none();
            return if !take && unbound() && busy(&side.side()) { Err(TableError::Conflict) } else { Ok(None) };
        };
        let mut shape = self.shape(owner, content).ok_or(TableError::Conflict)?;
        let may = shape.yield_grace(side) || (take && shape.content.wire_in_use() == *side);
        if may { Ok(Some(owner)) } else { Err(TableError::Conflict) }
    }

    /// Makes binding `owner` accept `side` no more.
    pub(crate) fn take(&mut self, engine: &Engine, owner: u32, side: &Key) {
        let Some(shape) = self.shape_of(engine, owner) else { return };
        // What it has just given up for another side may have been why it accepted this one.
        if !shape.content.accepts(side) {
            return;
        }
        let mut changed = shape;
        if !changed.yield_grace(side) {
            changed = changed.with_flag(LOST, true);
        }
        // It takes entries away only, so it cannot fail.
        let _ = self.change(engine, owner, &shape, &changed);
        self.tell(engine, owner, if changed.is_lost() { What::Lost } else { What::GraceEnded });
    }

    pub(crate) fn shape_of(&self, engine: &Engine, flow: u32) -> Option<Shape> {
        self.shape(flow, engine.table.content(flow)?)
    }

    /// A record's content, and what it leaves out.
    pub(crate) fn shape(&self, flow: u32, content: Content) -> Option<Shape> {
        Some(Shape { content, cold: *self.flows.get(flow)? })
    }

    #[inline]
    fn find(&self, engine: &Engine, stack: &Key) -> Option<(u32, Shape)> {
        let (flow, content) = engine.flow(stack)?;
        Some((flow, self.shape(flow, content)?))
    }

    pub(crate) fn insert(&mut self, engine: &Engine, shape: &Shape, now: u32) -> Result<u32, TableError> {
        if self.flows.len() >= self.capacity {
            self.journal.note(What::Full, || Some(shape.made(now).view(0, now)));
            return Err(TableError::Full);
        }
        if !self.flows.reserve() || !engine.table.allocate(self.capacity) {
            return Err(TableError::NoMemory);
        }
        let flow = self.flows.vacant();
        engine.place(flow, None, &shape.content)?;
        self.flows.insert(shape.made(now).cold);
        engine.flows.store(self.flows.len(), Ordering::Relaxed);
        self.tell(engine, flow, if shape.is_displaced() { What::Displaced } else { What::Made });
        Ok(flow)
    }

    pub(crate) fn change(&mut self, engine: &Engine, flow: u32, old: &Shape, new: &Shape) -> Result<(), TableError> {
        engine.place(flow, Some(&old.content), &new.content)?;
        self.note(flow, new);
        Ok(())
    }

    /// Keeps what the record does not hold.
    fn note(&mut self, flow: u32, shape: &Shape) {
        if let Some(cold) = self.flows.get_mut(flow) {
            *cold = shape.cold;
        }
    }

    pub(crate) fn remove(&mut self, engine: &Engine, flow: u32, shape: &Shape) {
        self.tell(engine, flow, What::Gone);
        engine.unplace(flow, &shape.content);
        self.flows.remove(flow);
        engine.flows.store(self.flows.len(), Ordering::Relaxed);
    }

    /// Notes what happened to a binding, as it is now.
    pub(crate) fn tell(&mut self, engine: &Engine, flow: u32, what: What) {
        let Self { journal, flows, .. } = self;
        journal.note(what, || view(engine, flows, flow));
    }

    fn view(&self, engine: &Engine, flow: u32) -> Option<Binding> {
        view(engine, &self.flows, flow)
    }
}

fn view(engine: &Engine, flows: &Slab<Cold>, flow: u32) -> Option<Binding> {
    let shape = Shape { content: engine.table.content(flow)?, cold: *flows.get(flow)? };
    let used = engine.table.used(flow).max(shape.cold.created);
    Some(shape.view(u64::from(flow).saturating_add(1), used))
}
