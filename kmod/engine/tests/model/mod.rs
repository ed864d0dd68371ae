//! What the table promises, in the simplest words: a list of bindings, each
//! with the wire sides that it accepts. Addresses are small numbers.
#![allow(missing_docs, unreachable_pub, reason = "part of a test")]

use mobconn_engine::{Other, TableError};

/// Local and remote address, local and remote port.
pub type Tuple = (u8, u8, u16, u16);

#[derive(Clone, Debug)]
pub struct Half {
    pub address: u8,
    pub generation: u32,
    pub other: Option<(u8, Kind)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Pending { generation: u32, hold: bool },
    Grace { since: u32 },
}

impl Kind {
    pub fn is(&self, other: &Other) -> bool {
        match (self, other) {
            (Self::Pending { generation, hold }, Other::Pending { generation: g, hold: h, .. }) => {
                generation == g && hold == h
            }
            (Self::Grace { since }, Other::Grace { since: s, .. }) => since == s,
            _ => false,
        }
    }
}

/// Why a wire side is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    InUse,
    Grace,
    Pending,
    /// One half's address in grace, the other's pending.
    Both,
}

#[derive(Clone, Debug)]
pub struct Flow {
    pub stack: Tuple,
    pub ports: (u16, u16),
    pub halves: [Half; 2],
    pub created: u32,
    pub lost: bool,
    pub displaced: bool,
    pub manual: bool,
}

impl Flow {
    pub fn new(stack: Tuple, wire: Tuple, now: u32) -> Self {
        let half = |address| Half { address, generation: 0, other: None };
        let halves = [half(wire.0), half(wire.1)];
        Self { stack, ports: (wire.2, wire.3), halves, created: now, lost: false, displaced: false, manual: false }
    }

    pub fn accepted(&self) -> Vec<(Tuple, Why)> {
        let both = |half: &Half| {
            let mut all = vec![(half.address, Why::InUse)];
            if let Some((address, kind)) = half.other
                && address != half.address
            {
                all.push((address, if matches!(kind, Kind::Pending { .. }) { Why::Pending } else { Why::Grace }));
            }
            all
        };
        let mut all: Vec<(Tuple, Why)> = Vec::new();
        for (remote, q) in both(&self.halves[1]) {
            for (local, p) in both(&self.halves[0]) {
                let why = match (p, q) {
                    (Why::InUse, Why::InUse) => Why::InUse,
                    (Why::InUse, one) | (one, Why::InUse) => one,
                    (p, q) if p == q => p,
                    _ => Why::Both,
                };
                all.push(((local, remote, self.ports.0, self.ports.1), why));
            }
        }
        if self.lost {
            all.remove(0);
        }
        all
    }

    pub fn accepts(&self, wire: Tuple) -> Option<Why> {
        self.accepted().into_iter().find(|(known, _)| *known == wire).map(|(_, why)| why)
    }

    pub fn wire(&self) -> Tuple {
        (self.halves[0].address, self.halves[1].address, self.ports.0, self.ports.1)
    }

    pub fn holds(&self) -> bool {
        self.halves.iter().any(|half| matches!(half.other, Some((_, Kind::Pending { hold: true, .. }))))
    }

    pub fn is_idle(&self) -> bool {
        self.wire() == self.stack && self.halves.iter().all(|half| half.other.is_none())
    }

    /// Gives up the graces that make it accept `wire`.
    fn yield_grace(&mut self, wire: Tuple) -> bool {
        let mut yielded = false;
        for (half, wanted) in self.halves.iter_mut().zip([wire.0, wire.1]) {
            if half.address != wanted && matches!(half.other, Some((a, Kind::Grace { .. })) if a == wanted) {
                half.other = None;
                yielded = true;
            }
        }
        yielded
    }
}

#[derive(Default)]
pub struct Model {
    pub flows: Vec<Flow>,
    pub capacity: usize,
    /// Connections of the host that have no binding.
    pub busy: Vec<Tuple>,
}

impl Model {
    pub fn find(&self, stack: Tuple) -> Option<usize> {
        self.flows.iter().position(|flow| flow.stack == stack)
    }

    pub fn owner(&self, wire: Tuple) -> Option<usize> {
        self.flows.iter().position(|flow| flow.accepts(wire).is_some())
    }

    pub fn add(&mut self, stack: Tuple, wire: Tuple, now: u32) -> Result<(), TableError> {
        if wire.0 == 4 || wire.1 == 4 {
            return Err(TableError::Invalid);
        }
        if self.find(stack).is_some() {
            return Err(TableError::Exists);
        }
        if self.owner(wire).is_some() {
            return Err(TableError::Conflict);
        }
        self.push(Flow { manual: true, ..Flow::new(stack, wire, now) })
    }

    fn push(&mut self, flow: Flow) -> Result<(), TableError> {
        if self.flows.len() == self.capacity {
            return Err(TableError::Full);
        }
        self.flows.push(flow);
        Ok(())
    }

    pub fn delete(&mut self, stack: Tuple) -> Result<(), TableError> {
        let at = self.find(stack).ok_or(TableError::NotFound)?;
        self.flows.remove(at);
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "one command, field by field")]
    pub fn prepare(
        &mut self,
        stack: Tuple,
        half: usize,
        new: u8,
        generation: u32,
        hold: bool,
        take: bool,
        now: u32,
    ) -> Result<(), TableError> {
        if generation == 0 || new == 4 {
            return Err(TableError::Invalid);
        }
        let at = self.find(stack);
        let lost = self.owner(stack).is_some();
        let mut flow = at.map_or_else(|| Flow { lost, ..Flow::new(stack, stack, now) }, |at| self.flows[at].clone());
        let state = &mut flow.halves[half];
        match state.other {
            Some((address, Kind::Pending { generation: pending, .. })) => {
                if generation < pending || generation == pending && address != new {
                    return Err(TableError::Stale);
                }
            }
            _ if generation == state.generation && state.address == new => return Ok(()),
            _ if generation <= state.generation => return Err(TableError::Stale),
            _ => {}
        }
        state.other = Some((new, Kind::Pending { generation, hold }));
        let fresh: Vec<Tuple> = flow
            .accepted()
            .into_iter()
            .map(|(wire, _)| wire)
            .filter(|wire| at.is_none_or(|at| self.flows[at].accepts(*wire).is_none()))
            .collect();
        for wire in &fresh {
            match self.owner(*wire) {
                Some(owner) => {
                    let mut other = self.flows[owner].clone();
                    if !(other.yield_grace(*wire) || take && other.wire() == *wire) {
                        return Err(TableError::Conflict);
                    }
                }
                None if *wire == stack || self.find(*wire).is_some() || take => {}
                None if self.busy.contains(wire) => return Err(TableError::Conflict),
                None => {}
            }
        }
        if at.is_none() && self.flows.len() == self.capacity {
            return Err(TableError::Full);
        }
        for wire in fresh {
            self.give_up(wire);
        }
        match at {
            Some(at) => self.flows[at] = flow,
            None => self.flows.push(flow),
        }
        Ok(())
    }

    fn give_up(&mut self, wire: Tuple) {
        if let Some(owner) = self.owner(wire) {
            let owner = &mut self.flows[owner];
            if !owner.yield_grace(wire) {
                owner.lost = true;
            }
        }
    }

    pub fn commit(&mut self, stack: Tuple, half: usize, generation: u32, now: u32) -> Result<bool, TableError> {
        let at = self.find(stack).ok_or(TableError::NotFound)?;
        let state = &mut self.flows[at].halves[half];
        let held = match state.other {
            Some((address, Kind::Pending { generation: pending, hold })) if pending == generation => {
                let old = std::mem::replace(&mut state.address, address);
                state.generation = generation;
                state.other = (old != address).then_some((old, Kind::Grace { since: now }));
                hold
            }
            _ if generation != 0 && generation == state.generation => return Ok(false),
            _ if generation < state.generation => return Err(TableError::Stale),
            _ => return Err(TableError::NotFound),
        };
        if self.flows[at].lost {
            self.flows[at].halves[half].other = None;
            let wire = self.flows[at].wire();
            let owner = self.flows.iter().enumerate().any(|(i, flow)| i != at && flow.accepts(wire).is_some());
            self.flows[at].lost = owner;
        }
        Ok(held)
    }

    pub fn abort(&mut self, stack: Tuple, half: usize, generation: u32) -> Result<(), TableError> {
        let at = self.find(stack).ok_or(TableError::NotFound)?;
        let state = &mut self.flows[at].halves[half];
        match state.other {
            Some((_, Kind::Pending { generation: pending, .. })) if pending == generation => state.other = None,
            _ if generation <= state.generation => return Err(TableError::Stale),
            _ => return Err(TableError::NotFound),
        }
        if self.flows[at].is_idle() {
            self.flows.remove(at);
        }
        Ok(())
    }

    pub fn expire(&mut self, grace: u32, alive: impl Fn(Tuple) -> bool, now: u32) {
        for flow in &mut self.flows {
            for half in &mut flow.halves {
                if matches!(half.other, Some((_, Kind::Grace { since })) if now - since >= grace) {
                    half.other = None;
                }
            }
        }
        self.flows.retain(|flow| !flow.is_idle() && (flow.displaced || flow.manual || alive(flow.stack)));
    }

    /// `port` is what the table chose, if it made a binding.
    pub fn displace(&mut self, side: Tuple, received: bool, port: Option<u16>, now: u32) -> Result<(), TableError> {
        let owner = self.owner(side);
        let bound = self.find(side).is_some();
        let wanted = match (received, owner) {
            (true, Some(owner)) => {
                let mut other = self.flows[owner].clone();
                if !other.yield_grace(side) {
                    return Ok(());
                }
                bound
            }
            (true, None) => bound,
            (false, _) => owner.is_some() && !bound,
        };
        if wanted {
            let Some(port) = port.filter(|_| self.flows.len() < self.capacity) else { return Err(TableError::Full) };
            let other = if received { (side.0, side.1, side.2, port) } else { (side.0, side.1, port, side.3) };
            assert!(port >= 49152 && other != side);
            assert!(self.find(other).is_none() && self.owner(other).is_none() && !self.busy.contains(&other));
            let (stack, wire) = if received { (other, side) } else { (side, other) };
            self.flows.push(Flow { displaced: true, ..Flow::new(stack, wire, now) });
        }
        if let (true, Some(owner)) = (received, owner) {
            self.flows[owner].yield_grace(side);
        }
        Ok(())
    }
}
