//! A model of one host: its connections, and the halves that its kernel binds.

use crate::{Flow, Half, Host, KernelError, Prepared};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// The second address of a half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Other {
    None,
    Pending { address: IpAddr, generation: u32, hold: bool },
    Grace(IpAddr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HalfState {
    pub(crate) address: IpAddr,
    pub(crate) generation: u32,
    pub(crate) other: Other,
}

impl HalfState {
    fn new(address: IpAddr) -> Self {
        Self { address, generation: 0, other: Other::None }
    }

    pub(crate) fn accepts(&self, address: IpAddr) -> bool {
        let other = match self.other {
            Other::None => None,
            Other::Pending { address, .. } | Other::Grace(address) => Some(address),
        };
        self.address == address || other == Some(address)
    }

    fn prepared(&self, flow: &Flow, half: Half) -> Option<Prepared> {
        match self.other {
            Other::Pending { address: new, generation, hold } => {
                Some(Prepared { flow: *flow, half, old: self.address, new, generation, hold })
            }
            _ => None,
        }
    }

    pub(crate) fn holds(&self) -> bool {
        matches!(self.other, Other::Pending { hold: true, .. })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Binding {
    /// Local and remote port on the wire.
    pub(crate) ports: (u16, u16),
    pub(crate) local: HalfState,
    pub(crate) remote: HalfState,
}

impl Binding {
    fn new(flow: &Flow) -> Self {
        Self {
            ports: (flow.local.port(), flow.remote.port()),
            local: HalfState::new(flow.local.ip()),
            remote: HalfState::new(flow.remote.ip()),
        }
    }

    /// The binding of a displaced flow.
    pub(crate) fn displaced(wire: &Flow) -> Self {
        Self::new(wire)
    }

    fn wire(&self, flow: &Flow) -> Flow {
        Flow {
            local: SocketAddr::new(self.local.address, self.ports.0),
            remote: SocketAddr::new(self.remote.address, self.ports.1),
            protocol: flow.protocol,
        }
    }

    fn takes(&self, flow: &Flow, wire: &Flow) -> bool {
        flow.protocol == wire.protocol
            && self.ports == (wire.local.port(), wire.remote.port())
            && self.local.accepts(wire.local.ip())
            && self.remote.accepts(wire.remote.ip())
    }

    fn half(&mut self, half: Half) -> &mut HalfState {
        match half {
            Half::Local => &mut self.local,
            Half::Remote => &mut self.remote,
        }
    }
}

/// One host's kernel and connection list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kernel {
    pub(crate) connections: BTreeMap<Flow, u64>,
    pub(crate) bindings: BTreeMap<Flow, Binding>,
    /// Flows that the table refuses to prepare.
    pub(crate) refuses: BTreeSet<Flow>,
    /// Flows that the table prepares and then refuses to commit.
    pub(crate) falters: BTreeSet<Flow>,
    /// Whether wire sides are compared: no two flows share one.
    pub(crate) exclusive: bool,
    /// It gives wire sides away when it is told to, and so many it was told to.
    pub(crate) takes: bool,
    pub(crate) taken: usize,
    /// Kernel commands so far.
    pub(crate) commands: usize,
}

impl Kernel {
    pub(crate) fn snapshot(&self) -> Vec<(Flow, u64)> {
        self.connections.iter().map(|(flow, instance)| (*flow, *instance)).collect()
    }

    pub(crate) fn binding(&self, flow: &Flow) -> Binding {
        self.bindings.get(flow).copied().unwrap_or_else(|| Binding::new(flow))
    }

    /// What is prepared, and neither committed nor taken back.
    pub(crate) fn prepared(&self) -> Vec<Prepared> {
        let halves = |(flow, binding): (&Flow, &Binding)| {
            [binding.local.prepared(flow, Half::Local), binding.remote.prepared(flow, Half::Remote)]
        };
        self.bindings.iter().flat_map(halves).flatten().collect()
    }

    /// Whether another flow has the wire side that this one would get.
    fn is_taken(&self, flow: &Flow, half: Half, new: IpAddr) -> bool {
        let mut wire = self.binding(flow).wire(flow);
        match half {
            Half::Local => wire.local.set_ip(new),
            Half::Remote => wire.remote.set_ip(new),
        }
        let bound = self.bindings.iter().any(|(other, binding)| other != flow && binding.takes(other, &wire));
        bound || (wire != *flow && self.connections.contains_key(&wire) && !self.bindings.contains_key(&wire))
    }

    /// The connection ends, and its binding with it.
    pub(crate) fn end(&mut self, flow: &Flow) {
        self.connections.remove(flow);
        self.bindings.remove(flow);
    }

    /// Highest generation of a local half, as the device reports it.
    pub(crate) fn local_generation(&self) -> u32 {
        let generation = |binding: &Binding| match binding.local.other {
            Other::Pending { generation, .. } => generation.max(binding.local.generation),
            _ => binding.local.generation,
        };
        self.bindings.values().map(generation).max().unwrap_or(0)
    }

    fn each(
        &mut self,
        half: Half,
        moves: &[(Flow, u32)],
        mut act: impl FnMut(&mut HalfState, u32) -> Result<(), KernelError>,
    ) -> Vec<Result<(), KernelError>> {
        self.commands += 1;
        assert!(!moves.is_empty(), "a command about nothing");
        let mut each = |(flow, generation): &(Flow, u32)| {
            let binding = self.bindings.get_mut(flow).ok_or(KernelError::NotFound)?;
            act(binding.half(half), *generation)
        };
        moves.iter().map(&mut each).collect()
    }
}

impl Host for Kernel {
    fn instance(&mut self, flow: &Flow) -> Option<u64> {
        self.connections.get(flow).copied()
    }

    fn wire(&mut self, flow: &Flow) -> Option<Flow> {
        self.bindings.get(flow).map(|binding| binding.wire(flow))
    }

    fn stack(&mut self, wire: &Flow) -> Option<Flow> {
        // Mostly nothing is bound, or nothing has changed its ports.
        if let Some(binding) = self.bindings.get(wire)
            && binding.takes(wire, wire)
        {
            return Some(*wire);
        }
        self.bindings.iter().find(|(flow, binding)| binding.takes(flow, wire)).map(|(flow, _)| *flow)
    }

    fn prepare(&mut self, half: Half, new: IpAddr, hold: bool, moves: &[(Flow, u32)]) -> Vec<Result<(), KernelError>> {
        let mut refused = BTreeSet::new();
        for (flow, _) in moves {
            if self.refuses.contains(flow) || (self.exclusive && self.is_taken(flow, half, new)) {
                refused.insert(*flow);
            } else {
                self.bindings.entry(*flow).or_insert_with(|| Binding::new(flow));
            }
        }
        let mut results = self.each(half, moves, |state, generation| {
            let pending = match state.other {
                Other::Pending { generation, .. } => generation,
                _ => 0,
            };
            if generation <= state.generation || generation < pending {
                return Err(KernelError::Stale);
            }
            state.other = Other::Pending { address: new, generation, hold };
            Ok(())
        });
        for ((flow, _), result) in moves.iter().zip(&mut results) {
            if refused.contains(flow) {
                *result = Err(KernelError::Conflict);
            }
        }
        results
    }

    fn take(&mut self, half: Half, new: IpAddr, hold: bool, moves: &[(Flow, u32)]) -> Vec<Result<(), KernelError>> {
        if !self.takes {
            return vec![Err(KernelError::Conflict); moves.len()];
        }
        self.taken += moves.len();
        let exclusive = std::mem::take(&mut self.exclusive);
        let results = self.prepare(half, new, hold, moves);
        self.exclusive = exclusive;
        results
    }

    fn commit(&mut self, half: Half, moves: &[(Flow, u32)]) -> Vec<Result<(), KernelError>> {
        let falters: Vec<bool> = moves.iter().map(|(flow, _)| self.falters.contains(flow)).collect();
        let mut falters = falters.into_iter();
        self.each(half, moves, |state, generation| match state.other {
            _ if falters.next() == Some(true) => Err(KernelError::Other(5)),
            Other::Pending { address, generation: pending, .. } if pending == generation => {
                let former = std::mem::replace(&mut state.address, address);
                state.generation = generation;
                state.other = if former == address { Other::None } else { Other::Grace(former) };
                Ok(())
            }
            _ if state.generation == generation => Ok(()),
            Other::Pending { .. } => Err(KernelError::Stale),
            _ => Err(KernelError::NotFound),
        })
    }

    fn abort(&mut self, half: Half, moves: &[(Flow, u32)]) -> Vec<Result<(), KernelError>> {
        self.each(half, moves, |state, generation| match state.other {
            Other::Pending { generation: pending, .. } if pending == generation => {
                state.other = Other::None;
                Ok(())
            }
            _ => Err(KernelError::NotFound),
        })
    }
}
