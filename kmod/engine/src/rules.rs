//! Which rules a binding needs, and how the table gets from the old ones to
//! the new ones without a moment in which a packet finds none.

use crate::Engine;
use crate::flow::{Address, Half, Other, Side, TableError};
use crate::key::Key;
use crate::table::{Find, HOLD, INPUT, NewRule, PENDING, Position};

/// One half of a wire side.
#[derive(Clone, Copy)]
pub(crate) struct HalfState {
    /// What output uses.
    pub(crate) address: Address,
    pub(crate) generation: u32,
    pub(crate) other: Other,
}

impl HalfState {
    /// The second address, and whether it is pending.
    fn second(&self) -> Option<(Address, bool)> {
        match self.other {
            Other::None => None,
            Other::Pending { address, .. } => Some((address, true)),
            Other::Grace { address, .. } => Some((address, false)),
        }
    }
}

/// What a binding is, but for where its rules lie.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) stack: Side,
    /// Ports as they travel.
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
    pub(crate) local: HalfState,
    pub(crate) remote: HalfState,
}

impl Shape {
    pub(crate) fn wire(&self) -> Side {
        Side {
            local: self.local.address,
            remote: self.remote.address,
            local_port: self.local_port,
            remote_port: self.remote_port,
            ..self.stack
        }
    }

    /// Nothing to translate and nothing in preparation.
    pub(crate) fn is_idle(&self) -> bool {
        self.wire() == self.stack && self.local.other == Other::None && self.remote.other == Other::None
    }

    fn holds(&self) -> bool {
        [self.local.other, self.remote.other].iter().any(|other| matches!(other, Other::Pending { hold: true, .. }))
    }

    /// The keys of all wire sides that input accepts, each once, the one in
    /// use first, with the flags of their rules.
    fn accepted(&self) -> [Option<(Key, u64)>; 4] {
        let wire = self.wire();
        let locals = [Some((wire.local, false)), self.local.second()];
        let remotes = [Some((wire.remote, false)), self.remote.second()];
        let mut accepted: [Option<(Key, u64)>; 4] = [None; 4];
        for (local, local_pending) in locals.into_iter().flatten() {
            for (remote, remote_pending) in remotes.into_iter().flatten() {
                let key = Key::new(&wire.with(Half::Local, local).with(Half::Remote, remote));
                let flags = if local_pending || remote_pending { INPUT | PENDING } else { INPUT };
                for place in &mut accepted {
                    match place {
                        // The same address twice: the rule that is not pending counts.
                        Some((known, known_flags)) if *known == key => {
                            *known_flags &= flags;
                            break;
                        }
                        Some(_) => {}
                        None => {
                            *place = Some((key, flags));
                            break;
                        }
                    }
                }
            }
        }
        accepted
    }
}

/// Where the rules of a binding lie.
#[derive(Clone, Copy, Default)]
pub(crate) struct Placed {
    pub(crate) output: Option<Position>,
    pub(crate) inputs: [Option<(Key, Position)>; 4],
}

impl Placed {
    fn input(&self, key: &Key) -> Option<Position> {
        self.inputs.iter().flatten().find(|(known, _)| known == key).map(|(_, position)| *position)
    }
}

impl Engine {
    /// Takes the table from the rules `old` to those that `shape` needs; `flow`
    /// is the binding's number. On error the table is as it was.
    ///
    /// What input accepts grows first; then output changes; then input
    /// accepts less. So no packet of the flow ever finds no rule.
    pub(crate) fn place(
        &self,
        flow: u32,
        shape: &Shape,
        old: &Placed,
        previous: Option<&Shape>,
    ) -> Result<Placed, TableError> {
        let stack = Key::new(&shape.stack);
        let mut new = Placed::default();
        let accepted = shape.accepted();
        for (place, (key, flags)) in new.inputs.iter_mut().zip(accepted.iter().flatten()) {
            let position = match old.input(key) {
                Some(position) => Ok(position),
                None => self.add_input(flow, key, &stack, *flags),
            };
            match position {
                Ok(position) => *place = Some((*key, position)),
                Err(error) => {
                    self.remove_inputs(&new, old);
                    return Err(error);
                }
            }
        }
        let flags = if shape.holds() { HOLD } else { 0 };
        let wire = shape.wire();
        let kept = old.output.filter(|_| previous.is_some_and(|previous| previous.wire() == wire));
        new.output = match kept {
            Some(position) => {
                self.table.set_flags(position, flags);
                Some(position)
            }
            None => {
                let used = old.output.map_or(0, |position| self.table.used(position));
                let rule = NewRule { key: &stack, to: &Key::new(&wire), flags, flow, used };
                match self.table.insert(self.hasher.hash(&stack), &rule) {
                    Ok(position) => Some(position),
                    Err(_) => {
                        self.remove_inputs(&new, old);
                        return Err(TableError::Full);
                    }
                }
            }
        };
        if let Some(position) = old.output.filter(|position| new.output != Some(*position)) {
            self.table.remove(position, self.hasher.hash(&stack));
        }
        for ((_, flags), (_, position)) in accepted.iter().flatten().zip(new.inputs.iter().flatten()) {
            self.table.set_flags(*position, *flags);
        }
        self.remove_inputs(old, &new);
        Ok(new)
    }

    /// Removes all rules of a binding.
    pub(crate) fn unplace(&self, stack: &Side, old: &Placed) {
        // Output first: a received packet must not find output's rule alone,
        // it would be a stranger's.
        if let Some(position) = old.output {
            self.table.remove(position, self.hasher.hash(&Key::new(stack)));
        }
        self.remove_inputs(old, &Placed::default());
    }

    /// Uptime in seconds when a rule of the binding last translated; 0: never.
    pub(crate) fn used(&self, placed: &Placed) -> u32 {
        let inputs = placed.inputs.iter().flatten().map(|(_, position)| *position);
        placed.output.into_iter().chain(inputs).map(|position| self.table.used(position)).max().unwrap_or(0)
    }

    /// The number of the binding with this stack side.
    pub(crate) fn flow(&self, stack: &Side) -> Option<u32> {
        let key = Key::new(stack);
        match self.table.find(self.hasher.hash(&key), &key, 0) {
            Find::Rule { flow, .. } => Some(flow),
            _ => None,
        }
    }

    fn add_input(&self, flow: u32, key: &Key, stack: &Key, flags: u64) -> Result<Position, TableError> {
        let hash = self.hasher.hash(key);
        if let Find::Rule { .. } = self.table.find(hash, key, INPUT) {
            return Err(TableError::Conflict);
        }
        let rule = NewRule { key, to: stack, flags, flow, used: 0 };
        self.table.insert(hash, &rule).map_err(|_| TableError::Full)
    }

    /// Removes the input rules of `these` that are not also in `kept`.
    fn remove_inputs(&self, these: &Placed, kept: &Placed) {
        for (key, position) in these.inputs.iter().flatten() {
            if kept.input(key).is_none() {
                self.table.remove(*position, self.hasher.hash(key));
            }
        }
    }
}
