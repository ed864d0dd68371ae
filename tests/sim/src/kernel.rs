//! What `mobconn.ko` does around the engine: see `kmod/src/hook.rs`, `park.rs`, `vnet.rs` and `command.rs`, which this
//! follows step by step. Its task runs when the host says so.

use crate::frame::{Frame, View};
use crate::stack::Stack;
use mobconn_dprp::{Flow, Half, KernelError, Protocol};
use mobconn_engine::{
    self as engine, Address, Config, Control, Engine, Limits, Prepare, Side, TableError, Verdict, Version,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::RngCore;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// As in `kmod/src/park.rs`.
const PLACES: usize = 256;
const PLACES_EACH: usize = 8;

/// What the host is to do with a packet.
#[derive(Debug)]
pub enum Fate {
    /// Goes on; `ours`: it was translated, so it is for this host, whatever its destination.
    On {
        /// The packet.
        frame: Frame,
        /// Translated.
        ours: bool,
    },
    /// Kept, or dropped for a reason.
    Ends(&'static str),
}

#[derive(Debug)]
struct Parked {
    frame: Frame,
    received: bool,
    flow: u32,
}

/// What goes wrong in a kernel, each with a chance in a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trouble {
    /// A command is refused for one flow.
    pub refuse: u32,
    /// Memory is short when a packet is to be reshaped.
    pub short: u32,
}

/// The module's state of one host.
pub struct Kernel {
    /// The packet path's part of the table.
    pub engine: Engine,
    /// The writers' part of the table.
    pub control: Control,
    held: Vec<Parked>,
    newcomers: Vec<Parked>,
    /// The task is to run.
    pub attend: bool,
    /// Chances of failure.
    pub trouble: Trouble,
    /// What makes them.
    rng: ChaCha8Rng,
    swept: u64,
    /// Packets that were held and released.
    pub released: u64,
    /// Newcomers that got a port.
    pub displaced: u64,
    /// Wire sides that were taken from others.
    pub taken: u64,
    /// Bindings were refused because there was no room.
    pub full: u64,
}

/// A flow of the protocol as a side of the table.
#[must_use]
pub fn side(flow: &Flow) -> Side {
    Side {
        local: address(flow.local.ip()),
        remote: address(flow.remote.ip()),
        local_port: flow.local.port(),
        remote_port: flow.remote.port(),
        version: if flow.local.is_ipv4() { Version::V4 } else { Version::V6 },
        protocol: match flow.protocol {
            Protocol::Tcp => engine::Protocol::Tcp,
            Protocol::Udp => engine::Protocol::Udp,
        },
    }
}

/// An address as the table has it.
#[must_use]
pub fn address(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(v4) => Address::v4(v4.octets()),
        IpAddr::V6(v6) => Address(v6.octets()),
    }
}

/// An address of the table.
#[must_use]
pub fn ip(address: Address, version: Version) -> IpAddr {
    match version {
        Version::V4 => {
            let [a, b, c, d, ..] = address.0;
            Ipv4Addr::new(a, b, c, d).into()
        }
        Version::V6 => address.0.into(),
    }
}

/// A side of the table as a flow of the protocol.
#[must_use]
pub fn flow(side: &Side) -> Flow {
    Flow {
        local: SocketAddr::new(ip(side.local, side.version), side.local_port),
        remote: SocketAddr::new(ip(side.remote, side.version), side.remote_port),
        protocol: match side.protocol {
            engine::Protocol::Tcp => Protocol::Tcp,
            engine::Protocol::Udp => Protocol::Udp,
        },
    }
}

fn half(half: Half) -> engine::Half {
    match half {
        Half::Local => engine::Half::Local,
        Half::Remote => engine::Half::Remote,
    }
}

fn seconds(now: u64) -> u32 {
    u32::try_from(now / 1_000_000).unwrap_or(u32::MAX)
}

impl Kernel {
    /// A module that was just loaded.
    #[must_use]
    pub fn new(mut rng: ChaCha8Rng, capacity: u32) -> Self {
        let key = std::array::from_fn(|_| rng.next_u64());
        let (engine, control) = mobconn_engine::new(&Config { capacity, key }).expect("a capacity in range");
        Self {
            engine,
            control,
            held: Vec::new(),
            newcomers: Vec::new(),
            attend: false,
            trouble: Trouble::default(),
            rng,
            swept: 0,
            released: 0,
            displaced: 0,
            taken: 0,
            full: 0,
        }
    }

    fn chance(&mut self, in_thousand: u32) -> bool {
        in_thousand != 0 && self.rng.next_u32() % 1000 < in_thousand
    }

    /// The hook, for a packet that was received.
    pub fn input(&mut self, frame: Frame, now: u64) -> Fate {
        self.translate(frame, true, now)
    }

    /// The hook, for a packet to be sent.
    pub fn output(&mut self, frame: Frame, now: u64) -> Fate {
        self.translate(frame, false, now)
    }

    fn translate(&mut self, mut frame: Frame, received: bool, now: u64) -> Fate {
        let version = frame.version();
        let short = self.chance(self.trouble.short);
        let mut view = View { frame: &mut frame, short };
        let verdict = if received {
            self.engine.input(&mut view, version, seconds(now))
        } else {
            self.engine.output(&mut view, version, seconds(now))
        };
        match verdict {
            Verdict::Pass | Verdict::PassCounted(_) => Fate::On { frame, ours: false },
            Verdict::Translated => Fate::On { frame, ours: true },
            Verdict::Hold { flow } => {
                if !keep(&mut self.held, Parked { frame, received: false, flow }) {
                    return Fate::Ends("not held: no room");
                }
                self.attend |= !self.engine.holds(flow);
                Fate::Ends("held")
            }
            Verdict::Displace => {
                let side = Engine::newcomer(&mut View { frame: &mut frame, short: false }, version, received);
                let ports = side.map_or(0, |side| u32::from(side.local_port) << 16 | u32::from(side.remote_port));
                if !keep(&mut self.newcomers, Parked { frame, received, flow: ports }) {
                    return Fate::Ends("newcomer dropped: no room");
                }
                self.attend = true;
                Fate::Ends("newcomer")
            }
            Verdict::Reassemble { .. } => Fate::Ends("a fragment"),
            Verdict::Drop(engine::DropReason::PendingRst) => Fate::Ends("dropped: RST on a pending wire side"),
            Verdict::Drop(engine::DropReason::Stray) => Fate::Ends("dropped: stray"),
            Verdict::Drop(engine::DropReason::Contended) => Fate::Ends("dropped: contended"),
            Verdict::Gone => Fate::Ends("dropped: no memory"),
        }
    }

    /// The task: looks after the packets that wait. Returns those that go on, and whether each comes in again.
    pub fn run_task(&mut self, stack: &Stack, now: u64) -> Vec<(Frame, bool)> {
        self.attend = false;
        let mut on = Vec::new();
        for parked in std::mem::take(&mut self.newcomers) {
            on.extend(self.newcomer(parked, stack, now));
        }
        let held = std::mem::take(&mut self.held);
        let mut still = Vec::new();
        for mut parked in held {
            match self.resend(&mut parked.frame, now) {
                None => still.push(parked),
                Some(true) => {
                    self.released = self.released.saturating_add(1);
                    on.push((parked.frame, false));
                }
                Some(false) => {}
            }
        }
        still.append(&mut self.held);
        still.truncate(PLACES);
        self.held = still;
        on
    }

    /// None: still to be kept. Some: whether it is to be sent.
    fn resend(&mut self, frame: &mut Frame, now: u64) -> Option<bool> {
        let version = frame.version();
        let short = self.chance(self.trouble.short);
        match self.engine.output(&mut View { frame, short }, version, seconds(now)) {
            Verdict::Hold { .. } => None,
            Verdict::Translated | Verdict::Pass | Verdict::PassCounted(_) => Some(true),
            _ => Some(false),
        }
    }

    fn newcomer(&mut self, parked: Parked, stack: &Stack, now: u64) -> Option<(Frame, bool)> {
        let Parked { mut frame, received, .. } = parked;
        let version = frame.version();
        let side = Engine::newcomer(&mut View { frame: &mut frame, short: false }, version, received)?;
        let chance = (self.rng.next_u32() & 0xffff) as u16;
        let before = self.control.len();
        let busy = |side: &Side| is_connected(stack, side);
        self.control.displace(&self.engine, &side, received, busy, chance, seconds(now)).ok()?;
        self.displaced = self.displaced.saturating_add(u64::from(self.control.len().saturating_sub(before)));
        if received {
            return Some((frame, true));
        }
        (self.resend(&mut frame, now) == Some(true)).then_some((frame, false))
    }

    /// What the module does every second while there are bindings.
    pub fn sweep(&mut self, stack: &Stack, limits: Limits, now: u64) {
        let alive = |side: &Side| is_connected(stack, side);
        let expired = self.control.expire(&self.engine, seconds(now), &limits, (self.swept, 1024), alive);
        self.swept = expired.next;
        self.attend = true;
    }

    /// Does one command for each of `moves`.
    fn each(
        &mut self,
        moves: &[(Flow, u32)],
        may_fail: bool,
        mut step: impl FnMut(&mut Control, &Engine, &Side, u32) -> Result<(), TableError>,
    ) -> Vec<Result<(), KernelError>> {
        let mut results = Vec::new();
        for (flow, generation) in moves {
            if may_fail && self.chance(self.trouble.refuse) {
                results.push(Err(KernelError::Full));
                continue;
            }
            let result = step(&mut self.control, &self.engine, &side(flow), *generation);
            self.full += u64::from(result == Err(TableError::Full));
            results.push(result.map_err(|error| match error {
                TableError::NotFound => KernelError::NotFound,
                TableError::Stale => KernelError::Stale,
                TableError::Conflict => KernelError::Conflict,
                TableError::Full | TableError::NoMemory => KernelError::Full,
                TableError::Invalid | TableError::Exists => KernelError::Other(22),
            }));
        }
        results
    }

    /// `MOVE_PREPARE`
    pub fn prepare(
        &mut self,
        stack: &Stack,
        now: u64,
        what: (Half, IpAddr, bool),
        moves: &[(Flow, u32)],
    ) -> Vec<Result<(), KernelError>> {
        self.begin(stack, now, what, false, moves)
    }

    /// The same, of wire sides that were another flow's.
    pub fn take(
        &mut self,
        stack: &Stack,
        now: u64,
        what: (Half, IpAddr, bool),
        moves: &[(Flow, u32)],
    ) -> Vec<Result<(), KernelError>> {
        let results = self.begin(stack, now, what, true, moves);
        self.taken += results.iter().filter(|result| result.is_ok()).count() as u64;
        results
    }

    fn begin(
        &mut self,
        stack: &Stack,
        now: u64,
        (which, new, hold): (Half, IpAddr, bool),
        take: bool,
        moves: &[(Flow, u32)],
    ) -> Vec<Result<(), KernelError>> {
        if !address(new).is_usable(if new.is_ipv4() { Version::V4 } else { Version::V6 }) {
            return moves.iter().map(|_| Err(KernelError::Other(22))).collect();
        }
        let new = address(new);
        self.each(moves, true, |control, engine, stack_side, generation| {
            let prepare = Prepare { half: half(which), new, generation, hold, take };
            control.prepare(engine, stack_side, &prepare, |side| is_connected(stack, side), seconds(now))
        })
    }

    /// `MOVE_COMMIT`, which fails for want of memory at most when it is the peer's half.
    pub fn commit(&mut self, now: u64, which: Half, moves: &[(Flow, u32)]) -> Vec<Result<(), KernelError>> {
        let mut held = false;
        let results = self.each(moves, which == Half::Remote, |control, engine, stack_side, generation| {
            held |= control.commit(engine, stack_side, half(which), generation, seconds(now))?;
            Ok(())
        });
        self.attend |= held;
        results
    }

    /// `MOVE_ABORT`
    pub fn abort(&mut self, which: Half, moves: &[(Flow, u32)]) -> Vec<Result<(), KernelError>> {
        let results = self.each(moves, false, |control, engine, stack_side, generation| {
            control.abort(engine, stack_side, half(which), generation)
        });
        self.attend = true;
        results
    }

    /// `EXPIRE`
    pub fn expire(&mut self, stack: &Stack, limits: Limits, now: u64) {
        let alive = |side: &Side| is_connected(stack, side);
        let mut from = 0;
        loop {
            from = self.control.expire(&self.engine, seconds(now), &limits, (from, 1024), alive).next;
            if from == 0 {
                return;
            }
        }
    }

    /// An administrator binds flows of his own until there is room for `left` more.
    pub fn fill(&mut self, left: u32) {
        let mut number = 0;
        while self.control.len().saturating_add(left) < self.control.capacity() {
            let side = filler(number);
            let _ = self.control.add(&self.engine, &side, &Side { local_port: 2, ..side }, 0);
            number += 1;
        }
    }

    /// And takes them back.
    pub fn empty(&mut self) {
        for number in 0..u16::try_from(self.control.capacity()).unwrap_or(u16::MAX) {
            let _ = self.control.delete(&self.engine, &filler(number));
        }
    }

    /// Packets that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.held.len().saturating_add(self.newcomers.len())
    }
}

/// A flow that nobody has.
fn filler(number: u16) -> Side {
    side(&Flow {
        local: SocketAddr::new(Ipv4Addr::new(192, 0, 2, 1).into(), 1),
        remote: SocketAddr::new(Ipv4Addr::new(192, 0, 2, 2).into(), 1000 + number),
        protocol: Protocol::Tcp,
    })
}

/// Whether the host has a connection with this stack side.
#[must_use]
pub fn is_connected(stack: &Stack, side: &Side) -> bool {
    stack.live().contains_key(&flow(side))
}

fn keep(queue: &mut Vec<Parked>, parked: Parked) -> bool {
    let of_flow = queue.iter().filter(|other| other.flow == parked.flow).count();
    let room = queue.len() < PLACES && of_flow < PLACES_EACH;
    if room {
        queue.push(parked);
    }
    room
}
