//! A complete host: sockets, `mobconn.ko`, the daemon, and addresses on its interfaces.

use crate::daemon::{Around, BOOT, Daemon, Habits};
use crate::kernel::{self, Kernel};
use crate::net;
use crate::stack::Stack;
use mobconn_dprp::{Config, Event, Flow, PublicKey};
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rand_chacha::{ChaCha8Rng, ChaCha20Rng};
use std::net::IpAddr;

/// What a host is made with.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Of the protocol; its name in the DNS is in there.
    pub config: Config,
    /// It runs mobconn.
    pub mobconn: bool,
    /// Of the daemon.
    pub habits: Habits,
    /// Bindings that its table takes.
    pub capacity: u32,
    /// What its clock says when the simulation begins.
    pub clock: u64,
    /// Versions of IP that it has addresses of: 6?
    pub families: Vec<bool>,
}

/// An interface that is attached to a network, with one address of each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The network.
    pub network: usize,
    /// The address in it.
    pub slot: u8,
}

/// A host.
pub struct Host {
    /// What it is.
    pub kind: Kind,
    /// Its sockets.
    pub stack: Stack,
    /// Its module.
    pub kernel: Kernel,
    /// Its daemon, while one runs.
    pub daemon: Option<Daemon>,
    /// Its interfaces, the one of the default route last.
    pub attached: Vec<Attachment>,
    /// How often it was started.
    pub boot: u32,
    /// Its clock is ahead of the simulation's by this.
    pub ahead: u64,
    /// It sleeps, since then.
    pub asleep: Option<u64>,
    /// When it has something to do, in the simulation's time.
    pub due: u64,
    /// When the module looks at its bindings again, by its own clock.
    pub sweep_due: u64,
    /// The module's task is going to run.
    pub task: bool,
    /// What the daemon wrote down.
    pub memory: Option<Vec<u8>>,
    /// Addresses that it has left and that the daemon has not looked at yet.
    pub untold: Vec<Attachment>,
    /// When its daemon was told to move, from where and to where, of IPv4 and of IPv6.
    pub moves: [Vec<(u64, IpAddr, IpAddr)>; 2],
    /// Ports that it serves.
    pub ports: Vec<u16>,
    rng: ChaCha8Rng,
}

impl Host {
    /// A host that has just been switched on.
    #[must_use]
    pub fn new(kind: Kind, mut rng: ChaCha8Rng) -> Self {
        let stack = Stack::new(rng.next_u64(), kind.clock);
        let kernel = Kernel::new(ChaCha8Rng::seed_from_u64(rng.next_u64()), kind.capacity);
        let ahead = kind.clock;
        let mut host = Self {
            kind,
            stack,
            kernel,
            daemon: None,
            attached: Vec::new(),
            boot: 0,
            ahead,
            asleep: None,
            due: 0,
            sweep_due: 0,
            task: false,
            memory: None,
            untold: Vec::new(),
            moves: Default::default(),
            ports: Vec::new(),
            rng,
        };
        host.start_daemon(0);
        host
    }

    /// Its clock.
    #[must_use]
    pub fn clock(&self, now: u64) -> u64 {
        now.saturating_add(self.ahead)
    }

    /// Who it is.
    #[must_use]
    pub fn key(&self) -> PublicKey {
        self.kind.config.host_key.public()
    }

    /// Whether the module looks at its bindings every second. It does so once more when the last is gone.
    #[must_use]
    pub fn is_swept(&self) -> bool {
        self.kind.mobconn && (!self.kernel.control.is_empty() || self.kernel.waiting() != 0)
    }

    /// Its addresses.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        let of = |at: &Attachment| self.kind.families.iter().map(|v6| net::address(at.network, at.slot, *v6)).collect();
        self.attached.iter().flat_map(|at| -> Vec<IpAddr> { of(at) }).collect()
    }

    /// Whether this is one of its addresses now.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        self.kind.families.contains(&address.is_ipv6())
            && self.attached.iter().any(|at| net::address(at.network, at.slot, address.is_ipv6()) == address)
    }

    /// The network that a packet with this source leaves by: the one that the address is of, else the default.
    #[must_use]
    pub fn leaves_by(&self, source: IpAddr) -> Option<usize> {
        let of = |at: &&Attachment| net::address(at.network, at.slot, source.is_ipv6()) == source;
        self.attached.iter().find(of).or(self.attached.last()).map(|at| at.network)
    }

    /// Attaches an interface, which gets the default route.
    pub fn attach(&mut self, at: Attachment) {
        self.attached.retain(|known| *known != at);
        self.attached.push(at);
    }

    /// Serves callers at this port.
    pub fn serve(&mut self, port: u16) {
        self.ports.push(port);
        self.listen();
    }

    fn listen(&mut self) {
        for port in self.ports.clone() {
            self.stack.listen(port);
        }
    }

    /// Has the daemon do something.
    pub fn with_daemon(&mut self, now: u64, act: impl FnOnce(&mut Daemon, &mut Around<'_>)) {
        let now = self.clock(now);
        if let Some(daemon) = &mut self.daemon {
            act(daemon, &mut Around { kernel: &mut self.kernel, stack: &self.stack, now });
        }
    }

    /// Starts the daemon, with its memory if there is one.
    pub fn start_daemon(&mut self, now: u64) {
        if !self.kind.mobconn || self.daemon.is_some() {
            return;
        }
        let rng = ChaCha20Rng::seed_from_u64(self.rng.next_u64());
        let addresses = self.addresses();
        let memory = self.memory.take();
        let clock = self.clock(now);
        let mut around = Around { kernel: &mut self.kernel, stack: &self.stack, now: clock };
        let mut daemon =
            Daemon::start(self.kind.config.clone(), self.kind.habits, rng, (BOOT, memory.as_deref()), &mut around);
        daemon.resume(&mut around, addresses);
        self.daemon = Some(daemon);
    }

    /// Kills the daemon. What it wrote down stays, unless that is lost too.
    pub fn kill_daemon(&mut self, keep: bool) {
        if let Some(daemon) = self.daemon.take() {
            self.memory = daemon.written.map(|(memory, ..)| memory).filter(|_| keep);
        }
    }

    /// Begins anew with nothing but its keys.
    pub fn reboot(&mut self, now: u64) {
        let clock = self.rng.next_u64() % 1_000_000_000;
        self.ahead = clock;
        self.boot = self.boot.saturating_add(1);
        self.kill_daemon(false);
        let trouble = self.kernel.trouble;
        self.stack = Stack::new(self.rng.next_u64(), self.clock(now));
        self.kernel = Kernel::new(ChaCha8Rng::seed_from_u64(self.rng.next_u64()), self.kind.capacity);
        self.kernel.trouble = trouble;
        self.sweep_due = 0;
        self.listen();
    }

    /// This host moves: the daemon has noticed.
    pub fn tell_move(&mut self, now: u64, old: IpAddr, new: IpAddr) {
        self.with_daemon(now, Daemon::list);
        self.command_move(now, old, new, self.has(old));
    }

    /// Somebody has the daemon move.
    pub fn command_move(&mut self, now: u64, old: IpAddr, new: IpAddr, old_usable: bool) {
        self.moves[usize::from(new.is_ipv6())].push((now, old, new));
        self.with_daemon(now, |daemon, around| daemon.event(around, Event::Move { old, new, old_usable }));
    }

    /// Whether an address is one that it left before its last move.
    #[must_use]
    pub fn left_long_ago(&self, address: IpAddr) -> bool {
        let moves = &self.moves[usize::from(address.is_ipv6())];
        let last = moves.last().map(|(at, ..)| *at);
        let mut since = moves.iter().rev().take_while(|(_, _, new)| *new != address);
        since.any(|(at, old, _)| *old == address && Some(*at) != last)
    }

    /// The wire side that a flow is sent with.
    #[must_use]
    pub fn wire(&self, flow: &Flow) -> Flow {
        let binding = self.kernel.control.get(&self.kernel.engine, &kernel::side(flow));
        binding.map_or(*flow, |binding| kernel::flow(&binding.wire))
    }

    /// The stack side of what arrives with this wire side.
    #[must_use]
    pub fn accepts(&self, wire: &Flow) -> Option<Flow> {
        let control = &self.kernel.control;
        if let Some(binding) = control.get_by_wire(&self.kernel.engine, &kernel::side(wire)) {
            return Some(kernel::flow(&binding.stack));
        }
        control.get(&self.kernel.engine, &kernel::side(wire)).is_none().then_some(*wire)
    }

    /// A number by chance.
    pub fn random(&mut self) -> u64 {
        self.rng.next_u64()
    }
}
