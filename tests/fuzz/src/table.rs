//! A table filled by any commands, over so few addresses and ports that they meet.

use arbitrary::Arbitrary;
use mobconn_engine::{Address, Config, Control, Engine, Half, Limits, Prepare, Protocol, Side, Version, new};

/// A side of a flow.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) struct Pick {
    bits: u16,
}

impl Pick {
    /// The side it stands for.
    pub(crate) fn side(self) -> Side {
        let bits = |from: u32, count: u32| (self.bits >> from) & ((1 << count) - 1);
        let version = if bits(0, 1) == 0 { Version::V4 } else { Version::V6 };
        Side {
            local: local(version, bits(2, 2) as u8),
            remote: address(version, 100 + bits(4, 2) as u8),
            local_port: 1000 + bits(6, 2),
            remote_port: 80 + bits(8, 1),
            version,
            protocol: if bits(1, 1) == 0 { Protocol::Tcp } else { Protocol::Udp },
        }
    }
}

fn address(version: Version, number: u8) -> Address {
    match version {
        Version::V4 => Address::v4([10, number, 255, 254]),
        Version::V6 => Address([0x20, 1, 0xd, 0xb8, number, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, number]),
    }
}

/// An address of this host.
pub(crate) fn local(version: Version, number: u8) -> Address {
    address(version, number)
}

/// Whether `bits` names a side: a quarter of the few there are.
pub(crate) fn chosen(side: &Side, bits: u8) -> bool {
    bits >> (side.local_port % 4 * 2) & 3 == side.local.0[1] & 3
}

/// A command.
#[derive(Arbitrary, Clone, Debug)]
pub(crate) enum Command {
    Add(Pick, Pick),
    Delete(Pick),
    Prepare { flow: Pick, remote: bool, to: u8, generation: u8, hold: bool, take: bool, busy: u8 },
    Commit { flow: Pick, remote: bool, generation: u8 },
    Abort { flow: Pick, remote: bool, generation: u8 },
    Expire { grace: u8, idle: u8, alive: u8, count: u8 },
    Flush,
}

/// Engine and control, and what time it is.
pub(crate) struct Table {
    pub(crate) engine: Engine,
    pub(crate) control: Control,
    pub(crate) now: u32,
}

impl Table {
    pub(crate) fn new(capacity: u32) -> Self {
        let key = core::array::from_fn(|i| 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(i as u64 * 2 + 1));
        let (engine, control) = new(&Config { capacity, key }).expect("a capacity in range");
        Self { engine, control, now: 1 }
    }

    /// Does as told, or refuses.
    pub(crate) fn command(&mut self, command: &Command) {
        let half = |remote| if remote { Half::Remote } else { Half::Local };
        let (engine, control, now) = (&self.engine, &mut self.control, self.now);
        let before = control.len();
        match *command {
            Command::Add(stack, wire) => {
                let stack = stack.side();
                // Mostly of one kind, or the command is refused.
                let wire = Side { version: stack.version, protocol: stack.protocol, ..wire.side() };
                let fits = |address: &Address| address.is_usable(stack.version);
                let wire = if fits(&wire.local) && fits(&wire.remote) {
                    wire
                } else {
                    Side { local: local(stack.version, 3), remote: stack.remote, ..wire }
                };
                if control.add(engine, &stack, &wire, now).is_err() {
                    assert_eq!(control.len(), before, "refused, and yet done");
                }
            }
            Command::Delete(flow) => {
                let gone = control.delete(engine, &flow.side()).is_ok();
                assert_eq!(control.len() + u32::from(gone), before);
            }
            Command::Prepare { flow, remote, to, generation, hold, take, busy } => {
                let flow = flow.side();
                let new = if remote { address(flow.version, 100 + to % 4) } else { local(flow.version, to % 4) };
                let prepare = Prepare { half: half(remote), new, generation: u32::from(generation % 8), hold, take };
                let _ = control.prepare(engine, &flow, &prepare, |side| chosen(side, busy), now);
            }
            Command::Commit { flow, remote, generation } => {
                let _ = control.commit(engine, &flow.side(), half(remote), u32::from(generation % 8), now);
            }
            Command::Abort { flow, remote, generation } => {
                let _ = control.abort(engine, &flow.side(), half(remote), u32::from(generation % 8));
            }
            Command::Expire { grace, idle, alive, count } => {
                self.now += u32::from(grace);
                let limits = Limits { grace: u32::from(grace), udp_idle: u32::from(idle) };
                let part = (u64::from(count >> 4), u32::from(count % 16));
                let expired = control.expire(engine, self.now, &limits, part, |side| !chosen(side, alive));
                assert_eq!(control.len() + expired.removed, before);
            }
            Command::Flush => {
                control.flush(engine);
                assert!(control.is_empty() && engine.is_empty());
            }
        }
        assert_eq!(self.control.is_empty(), self.engine.is_empty());
    }

    /// All bindings, each found by its stack side and, unless that was lost, by its wire side.
    pub(crate) fn bindings(&self) -> Vec<mobconn_engine::Binding> {
        let mut all: Vec<mobconn_engine::Binding> = Vec::new();
        let mut cursor = 0;
        while let Some(binding) = self.control.next(&self.engine, cursor) {
            assert!(binding.id > cursor, "the cursor goes on");
            cursor = binding.id;
            let by_stack = self.control.get(&self.engine, &binding.stack).map(|found| found.id);
            assert_eq!(by_stack, Some(binding.id), "the stack side finds another");
            if !binding.lost {
                let by_wire = self.control.get_by_wire(&self.engine, &binding.wire).map(|found| found.id);
                assert_eq!(by_wire, Some(binding.id), "the wire side finds another");
            }
            assert!(all.iter().all(|other| other.stack != binding.stack), "two flows share a stack side");
            all.push(binding);
        }
        assert_eq!(all.len(), self.control.len() as usize);
        all
    }
}
