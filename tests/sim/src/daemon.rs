//! What `mobctl`'s daemon does around the protocol: see `mobctl/src/daemon/mod.rs` and `host.rs`, which this follows. Its
//! lists of connections and bindings are as old here as they are there.

use crate::kernel::{self, Kernel};
use crate::stack::{Phase, Stack};
use mobconn_dprp::{Config, Endpoint, Event, Flow, Half, Host, Instant, KernelError, News, Prepared};
use mobconn_engine::{Limits, Other};
use rand_chacha::ChaCha20Rng;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// As in the daemon.
const LISTING: u64 = 1_000_000;
const TIDYING: u64 = 10_000_000;
/// Listings on demand take at most a tenth of the time.
const SHARE: u64 = 10;

/// What the daemon writes down, and when it began.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// A listing of connections is said to take so many microseconds.
    pub listing_cost: u64,
    /// The memory is written at most so often.
    pub snapshot_lag: u64,
    /// When bindings end.
    pub limits: Limits,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    instance: u64,
    phase: Phase,
    missed: bool,
}

/// What the daemon knows of connections and bindings.
#[derive(Default)]
struct Lists {
    connections: BTreeMap<Flow, Known>,
    listed: Option<u64>,
    /// Stack side to wire side, and each accepted wire side to the stack side.
    bindings: Option<(BTreeMap<Flow, Flow>, BTreeMap<Flow, Flow>)>,
}

impl Lists {
    fn refresh(&mut self, stack: &Stack, now: u64) {
        let mut fresh: BTreeMap<Flow, Known> = stack
            .live()
            .iter()
            .filter(|(_, (_, phase))| *phase != Phase::Embryo)
            .map(|(flow, (instance, phase))| (*flow, Known { instance: *instance, phase: *phase, missed: false }))
            .collect();
        for (flow, known) in std::mem::take(&mut self.connections) {
            if !known.missed {
                fresh.entry(flow).or_insert(Known { missed: true, ..known });
            }
        }
        self.connections = fresh;
        self.listed = Some(now);
        self.bindings = None;
    }

    fn bindings(&mut self, kernel: &Kernel) -> &(BTreeMap<Flow, Flow>, BTreeMap<Flow, Flow>) {
        self.bindings.get_or_insert_with(|| {
            let (mut wire, mut stack) = (BTreeMap::new(), BTreeMap::new());
            let mut cursor = 0;
            while let Some(binding) = kernel.control.next(&kernel.engine, cursor) {
                cursor = binding.id;
                let of = kernel::flow(&binding.stack);
                wire.insert(of, kernel::flow(&binding.wire));
                let second = |other| match other {
                    Other::Pending { address, .. } | Other::Grace { address, .. } => Some(address),
                    Other::None => None,
                };
                for local in [Some(binding.wire.local), second(binding.local.other)].into_iter().flatten() {
                    for remote in [Some(binding.wire.remote), second(binding.remote.other)].into_iter().flatten() {
                        stack.insert(kernel::flow(&mobconn_engine::Side { local, remote, ..binding.wire }), of);
                    }
                }
            }
            (wire, stack)
        })
    }

    fn flows(&self) -> Vec<(Flow, u64)> {
        let established = |(_, known): &(&Flow, &Known)| known.phase == Phase::Established;
        self.connections.iter().filter(established).map(|(flow, known)| (*flow, known.instance)).collect()
    }
}

/// The host as the protocol sees it.
struct View<'a> {
    lists: &'a mut Lists,
    kernel: &'a mut Kernel,
    stack: &'a Stack,
    now: u64,
    cost: u64,
}

impl Host for View<'_> {
    fn instance(&mut self, flow: &Flow) -> Option<u64> {
        let established = |known: &&Known| known.phase == Phase::Established;
        if let Some(known) = self.lists.connections.get(flow).filter(established) {
            return Some(known.instance);
        }
        let age = self.lists.listed.map(|listed| self.now.saturating_sub(listed));
        if age.is_none_or(|age| age >= self.cost.saturating_mul(SHARE)) {
            self.lists.refresh(self.stack, self.now);
        }
        self.lists.connections.get(flow).filter(established).map(|known| known.instance)
    }

    fn wire(&mut self, flow: &Flow) -> Option<Flow> {
        self.lists.bindings(self.kernel).0.get(flow).copied()
    }

    fn stack(&mut self, wire: &Flow) -> Option<Flow> {
        self.lists.bindings(self.kernel).1.get(wire).copied()
    }

    fn prepare(&mut self, half: Half, new: IpAddr, hold: bool, moves: &[(Flow, u32)]) -> Vec<Result<(), KernelError>> {
        self.lists.bindings = None;
        self.kernel.prepare(self.stack, self.now, (half, new, hold), moves)
    }

    fn take(&mut self, half: Half, new: IpAddr, hold: bool, moves: &[(Flow, u32)]) -> Vec<Result<(), KernelError>> {
        self.lists.bindings = None;
        self.kernel.take(self.stack, self.now, (half, new, hold), moves)
    }

    fn commit(&mut self, half: Half, moves: &[(Flow, u32)]) -> Vec<Result<(), KernelError>> {
        self.lists.bindings = None;
        self.kernel.commit(self.now, half, moves)
    }

    fn abort(&mut self, half: Half, moves: &[(Flow, u32)]) -> Vec<Result<(), KernelError>> {
        self.lists.bindings = None;
        self.kernel.abort(half, moves)
    }
}

/// What came of something that the daemon did.
#[derive(Default)]
pub struct Outcome {
    /// Datagrams: from, to, payload.
    pub datagrams: Vec<mobconn_dprp::Transmit>,
    /// What it told.
    pub news: Vec<News>,
    /// Names that it wants resolved.
    pub queries: Vec<String>,
}

/// A running daemon.
pub struct Daemon {
    /// The protocol.
    pub endpoint: Endpoint,
    config: Config,
    habits: Habits,
    lists: Lists,
    /// The host's clock when the daemon began, where its own clock begins.
    origin: u64,
    listing_due: u64,
    tidying_due: u64,
    /// Where the flows of addresses that are gone were told to go.
    pub left: BTreeMap<IpAddr, IpAddr>,
    /// What it wrote down last, of which revision, and when.
    pub written: Option<(Vec<u8>, u64, u64)>,
}

/// A host and its kernel, for as long as the daemon does something.
pub struct Around<'a> {
    /// Its kernel.
    pub kernel: &'a mut Kernel,
    /// Its sockets.
    pub stack: &'a Stack,
    /// Its clock.
    pub now: u64,
}

impl Daemon {
    /// Starts it, with what an earlier one wrote down in this boot.
    pub fn start(
        config: Config,
        habits: Habits,
        rng: ChaCha20Rng,
        (boot, memory): (&[u8], Option<&[u8]>),
        around: &mut Around<'_>,
    ) -> Self {
        let generation = around.kernel.control.local_generation();
        let config = Config { generation, ..config };
        let clock = Instant::from_micros(0);
        let restored =
            memory.and_then(|memory| Endpoint::restore(config.clone(), rng.clone(), clock, boot, memory).ok());
        let endpoint =
            restored.unwrap_or_else(|| Endpoint::new(config.clone(), rng, clock).expect("a good configuration"));
        let now = around.now;
        Self {
            endpoint,
            config,
            habits,
            lists: Lists::default(),
            origin: now,
            listing_due: now.saturating_add(LISTING),
            tidying_due: now.saturating_add(TIDYING),
            left: BTreeMap::new(),
            written: None,
        }
    }

    /// Takes up what it finds in the kernel: moves that another daemon began. `addresses`: this host's.
    pub fn resume(&mut self, around: &mut Around<'_>, addresses: Vec<IpAddr>) {
        let mut moves = Vec::new();
        let mut cursor = 0;
        while let Some(binding) = around.kernel.control.next(&around.kernel.engine, cursor) {
            cursor = binding.id;
            let ip = |address| kernel::ip(address, binding.wire.version);
            let halves = [
                (Half::Local, binding.wire.local, binding.local.other),
                (Half::Remote, binding.wire.remote, binding.remote.other),
            ];
            for (half, old, other) in halves {
                if let Other::Pending { address, generation, hold } = other {
                    let (flow, old, new) = (kernel::flow(&binding.stack), ip(old), ip(address));
                    moves.push(Prepared { flow, half, old, new, generation, hold });
                }
            }
        }
        self.list(around);
        self.event(around, Event::Prepared { moves, addresses });
    }

    /// The protocol's clock.
    fn clock(&self, now: u64) -> Instant {
        Instant::from_micros(now.saturating_sub(self.origin))
    }

    fn with(&mut self, around: &mut Around<'_>, act: impl FnOnce(&mut Endpoint, Instant, &mut View<'_>)) {
        let clock = self.clock(around.now);
        let cost = self.habits.listing_cost;
        let Around { kernel, stack, now } = around;
        let mut view = View { lists: &mut self.lists, kernel, stack, now: *now, cost };
        act(&mut self.endpoint, clock, &mut view);
        self.write_down(around.now);
    }

    /// Writes down what must not be lost.
    fn write_down(&mut self, now: u64) {
        let revision = self.endpoint.revision();
        let due = self
            .written
            .as_ref()
            .is_none_or(|(_, of, at)| *of != revision && now.saturating_sub(*at) >= self.habits.snapshot_lag);
        if due {
            self.written = Some((self.endpoint.snapshot(BOOT), revision, now));
        }
    }

    /// Something happened on this host.
    pub fn event(&mut self, around: &mut Around<'_>, event: Event) {
        self.with(around, |endpoint, clock, view| endpoint.handle_event(clock, event, view));
    }

    /// A datagram came.
    pub fn datagram(&mut self, around: &mut Around<'_>, local: IpAddr, remote: std::net::SocketAddr, data: &[u8]) {
        self.with(around, |endpoint, clock, view| endpoint.handle_datagram(clock, local, remote, data, view));
    }

    /// Lists the connections, and tells the protocol.
    pub fn list(&mut self, around: &mut Around<'_>) {
        self.lists.refresh(around.stack, around.now);
        let flows = self.lists.flows();
        self.event(around, Event::Flows(flows));
    }

    /// When [`Self::due`] wants to be called.
    #[must_use]
    pub fn due_at(&self) -> u64 {
        let timer = self.endpoint.poll_timeout().map(|at| at.as_micros().saturating_add(self.origin));
        timer.into_iter().chain([self.listing_due, self.tidying_due]).min().unwrap_or(u64::MAX)
    }

    /// Does what the clock asks for.
    pub fn due(&mut self, around: &mut Around<'_>) {
        let now = around.now;
        if self.listing_due <= now {
            self.listing_due = now.saturating_add(LISTING);
            if self.config.mobile || self.endpoint.peers().next().is_some() {
                self.list(around);
            }
        }
        if self.tidying_due <= now {
            self.tidying_due = now.saturating_add(TIDYING);
            if !around.kernel.control.is_empty() {
                self.lists.refresh(around.stack, now);
                around.kernel.expire(around.stack, self.habits.limits, now);
            }
        }
        if self.endpoint.poll_timeout().is_some_and(|due| due <= self.clock(now)) {
            self.with(around, |endpoint, clock, view| endpoint.handle_timeout(clock, view));
        }
    }

    /// Whether all that matters is written down.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.written.as_ref().is_some_and(|(_, revision, _)| *revision == self.endpoint.revision())
    }

    /// What came of it all.
    pub fn outcome(&mut self) -> Outcome {
        Outcome {
            datagrams: std::iter::from_fn(|| self.endpoint.poll_transmit()).collect(),
            news: std::iter::from_fn(|| self.endpoint.poll_notice()).map(|notice| notice.news).collect(),
            queries: std::iter::from_fn(|| self.endpoint.poll_query()).collect(),
        }
    }
}

/// The boot that memories are of; one of another boot is thrown away by the host.
pub const BOOT: &[u8] = b"boot";
