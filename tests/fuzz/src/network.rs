//! Target `network`: a mobile host and a correspondent, each an endpoint of the protocol over a real table, and between
//! them a network that does what the fuzzer says.

use arbitrary::{Arbitrary, Unstructured};
use mobconn_dprp::{
    Config, Endpoint, Event, Flow, GroupKey, Half, Host, HostKey, Instant, KernelError, Prefix, Prepared, Protocol,
    Transmit,
};
use mobconn_engine::{Address, Control, Engine, HalfView, Other, Prepare, Side, TableError, Version};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Most datagrams under way; older ones are lost.
const UNDER_WAY: usize = 64;

#[derive(Arbitrary, Debug)]
enum Step {
    /// Takes a datagram that is under way to where it goes.
    Deliver(u8),
    /// The same, but it stays under way: it comes again.
    Repeat(u8),
    Lose(u8),
    /// A byte changes, the length, or where it seems to come from.
    Forge {
        which: u8,
        at: u16,
        value: u8,
        length: u16,
        from: u8,
    },
    /// Anything at all.
    Inject {
        to: bool,
        from: u8,
        data: Vec<u8>,
    },
    /// Time passes.
    Wait(u16),
    /// As long as nothing is due, time passes; what is under way is delivered in order.
    Run(u8),
    Connect(u8),
    /// The connection ends at one end.
    End {
        at: bool,
        port: u8,
    },
    /// A host looks at its connections.
    Look(bool),
    /// A host moves.
    Move {
        who: bool,
        to: u8,
        old_usable: bool,
    },
    /// The kernel of a host refuses the next so many commands.
    Refuse {
        at: bool,
        times: u8,
    },
    /// The daemon begins anew, with what it knew or without.
    Restart {
        at: bool,
        remembers: bool,
    },
    /// The resolver says where a host is, rightly or not.
    Resolve {
        at: bool,
        of: bool,
        addresses: [u8; 2],
    },
    /// Somebody has changed what the daemon wrote down.
    Spoil {
        at: bool,
        byte: u16,
        value: u8,
        length: u16,
        sound: bool,
    },
}

/// One host.
struct Node {
    endpoint: Endpoint,
    kernel: Kernel,
    address: u8,
    config: Config,
}

/// Connections, and the table.
struct Kernel {
    connections: BTreeMap<Flow, u64>,
    engine: Engine,
    control: Control,
    refuse: u8,
    /// Own flows whose move it refused to prepare: what they are sent with is what it was.
    stays: BTreeSet<Flow>,
}

/// The boot that all of it happens in.
const BOOT: &[u8] = b"boot";

/// The name of a host.
fn name(second: bool) -> String {
    format!("host{}.example.org", u8::from(second))
}

fn address(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, number.wrapping_add(1)))
}

fn side(flow: &Flow) -> Side {
    let address = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => Address::v4(v4.octets()),
        IpAddr::V6(v6) => Address(v6.octets()),
    };
    Side {
        local: address(flow.local.ip()),
        remote: address(flow.remote.ip()),
        local_port: flow.local.port(),
        remote_port: flow.remote.port(),
        version: if flow.local.is_ipv4() { Version::V4 } else { Version::V6 },
        protocol: match flow.protocol {
            Protocol::Tcp => mobconn_engine::Protocol::Tcp,
            Protocol::Udp => mobconn_engine::Protocol::Udp,
        },
    }
}

fn ip(address: &Address) -> IpAddr {
    let [a, b, c, d, ..] = address.0;
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

fn flow_of(side: &Side) -> Flow {
    Flow {
        local: SocketAddr::new(ip(&side.local), side.local_port),
        remote: SocketAddr::new(ip(&side.remote), side.remote_port),
        protocol: match side.protocol {
            mobconn_engine::Protocol::Tcp => Protocol::Tcp,
            mobconn_engine::Protocol::Udp => Protocol::Udp,
        },
    }
}

impl Kernel {
    fn new(number: u8) -> Self {
        let key = core::array::from_fn(|i| 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(i as u64 * 2 + u64::from(number)));
        let config = mobconn_engine::Config { capacity: 64, key };
        let (engine, control) = mobconn_engine::new(&config).expect("a capacity in range");
        Self { connections: BTreeMap::new(), engine, control, refuse: 0, stays: BTreeSet::new() }
    }

    fn each(
        &mut self,
        moves: &[(Flow, u32)],
        mut step: impl FnMut(&mut Control, &Engine, &Side, u32) -> Result<(), TableError>,
    ) -> Vec<Result<(), KernelError>> {
        let mut one = |(flow, generation): &(Flow, u32)| {
            step(&mut self.control, &self.engine, &side(flow), *generation).map_err(|error| match error {
                TableError::NotFound => KernelError::NotFound,
                TableError::Stale => KernelError::Stale,
                TableError::Conflict => KernelError::Conflict,
                TableError::Full | TableError::NoMemory => KernelError::Full,
                _ => KernelError::Other(22),
            })
        };
        moves.iter().map(&mut one).collect()
    }

    /// Whether a connection has this tuple, or a binding this wire side.
    fn knows(&self, flow: &Flow) -> bool {
        self.connections.contains_key(flow) || self.control.get_by_wire(&self.engine, &side(flow)).is_some()
    }

    fn refused(&mut self) -> bool {
        let refused = self.refuse != 0;
        self.refuse = self.refuse.saturating_sub(1);
        refused
    }
}

fn half(half: Half) -> mobconn_engine::Half {
    match half {
        Half::Local => mobconn_engine::Half::Local,
        Half::Remote => mobconn_engine::Half::Remote,
    }
}

impl Host for Kernel {
    fn instance(&mut self, flow: &Flow) -> Option<u64> {
        self.connections.get(flow).copied()
    }

    fn wire(&mut self, flow: &Flow) -> Option<Flow> {
        self.control.get(&self.engine, &side(flow)).map(|binding| flow_of(&binding.wire))
    }

    fn stack(&mut self, wire: &Flow) -> Option<Flow> {
        self.control.get_by_wire(&self.engine, &side(wire)).map(|binding| flow_of(&binding.stack))
    }

    fn prepare(&mut self, which: Half, new: IpAddr, hold: bool, moves: &[(Flow, u32)]) -> Vec<Result<(), KernelError>> {
        let refused = self.refused();
        if which == Half::Local {
            for (flow, _) in moves {
                let _ = if refused { self.stays.insert(*flow) } else { self.stays.remove(flow) };
            }
        }
        if refused {
            return moves.iter().map(|_| Err(KernelError::Full)).collect();
        }
        let IpAddr::V4(new) = new else { return Vec::new() };
        let new = Address::v4(new.octets());
        let connections = self.connections.clone();
        let busy = |side: &Side| connections.contains_key(&flow_of(side));
        self.each(moves, |control, engine, stack, generation| {
            let prepare = Prepare { half: half(which), new, generation, hold, take: which == Half::Remote };
            control.prepare(engine, stack, &prepare, busy, 1)
        })
    }

    fn commit(&mut self, which: Half, moves: &[(Flow, u32)]) -> Vec<Result<(), KernelError>> {
        self.each(moves, |control, engine, stack, generation| {
            control.commit(engine, stack, half(which), generation, 1).map(drop)
        })
    }

    fn abort(&mut self, which: Half, moves: &[(Flow, u32)]) -> Vec<Result<(), KernelError>> {
        self.each(moves, |control, engine, stack, generation| control.abort(engine, stack, half(which), generation))
    }
}

struct World {
    now: u64,
    seed: u64,
    nodes: [Node; 2],
    under_way: Vec<(SocketAddr, Transmit)>,
    instances: u64,
    /// Somebody on the path gave a genuine datagram another source: he can have connections reset by himself, so no more is
    /// promised than that nobody panics.
    on_path: bool,
    /// Flows that a daemon forgot while they were moving: where the other end has them, nobody can tell it.
    forgotten: BTreeSet<Flow>,
}

fn rng(seed: &mut u64) -> ChaCha8Rng {
    *seed += 1;
    ChaCha8Rng::seed_from_u64(*seed)
}

impl World {
    fn new() -> Self {
        let mut seed = 0;
        let node = |number: u8, seed: &mut u64| {
            let mut config = Config::new(HostKey::from_bytes(&[number + 1; 32]), GroupKey::from_bytes(&[0x77; 32]));
            config.mobile = number == 0;
            config.name = name(number != 0);
            config.targets = vec!["192.0.2.0/24".parse::<Prefix>().expect("a prefix")];
            let endpoint = Endpoint::new(config.clone(), rng(seed), Instant::default()).expect("a good configuration");
            Node { endpoint, kernel: Kernel::new(number), address: number * 100, config }
        };
        let nodes = [node(0, &mut seed), node(1, &mut seed)];
        Self {
            now: 1_000_000,
            seed,
            nodes,
            under_way: Vec::new(),
            instances: 1,
            on_path: false,
            forgotten: BTreeSet::new(),
        }
    }

    fn instant(&self) -> Instant {
        Instant::from_micros(self.now)
    }

    fn collect(&mut self) {
        for node in &mut self.nodes {
            while let Some(transmit) = node.endpoint.poll_transmit() {
                assert!(transmit.data.len() <= 1200, "a datagram that is too long");
                let from = transmit.local.unwrap_or_else(|| address(node.address));
                self.under_way.push((SocketAddr::new(from, mobconn_dprp::PORT), transmit));
            }
            while node.endpoint.poll_notice().is_some() {}
            while let Some(query) = node.endpoint.poll_query() {
                assert!([name(false), name(true)].contains(&query), "a name that nobody has");
            }
            assert_eq!(node.kernel.control.is_empty(), node.kernel.engine.is_empty());
        }
        let more = self.under_way.len().saturating_sub(UNDER_WAY);
        self.under_way.drain(..more);
    }

    fn arrive(&mut self, from: SocketAddr, transmit: &Transmit) {
        let now = self.instant();
        let local = transmit.remote.ip();
        for node in &mut self.nodes {
            // The correspondent's old addresses work on; the mover's only while it has them.
            if address(node.address) == local {
                node.endpoint.handle_datagram(now, local, from, &transmit.data, &mut node.kernel);
                // What is due now is done before the next datagram, as the daemon does.
                if node.endpoint.poll_timeout().is_some_and(|due| due <= now) {
                    node.endpoint.handle_timeout(now, &mut node.kernel);
                }
            }
        }
        self.collect();
    }

    fn timers(&mut self) {
        let now = self.instant();
        for node in &mut self.nodes {
            node.endpoint.handle_timeout(now, &mut node.kernel);
            assert!(node.endpoint.poll_timeout().is_none_or(|at| at > now), "a timer stays due");
        }
        self.collect();
    }

    fn event(&mut self, node: usize, event: Event) {
        let now = self.instant();
        let Node { endpoint, kernel, .. } = &mut self.nodes[node];
        endpoint.handle_event(now, event, kernel);
        self.collect();
    }

    fn look(&mut self, node: usize) {
        let flows = self.nodes[node].kernel.connections.iter().map(|(flow, instance)| (*flow, *instance)).collect();
        self.event(node, Event::Flows(flows));
    }

    fn connect(&mut self, port: u8) {
        let flow = Flow {
            local: SocketAddr::new(address(self.nodes[0].address), 10_000 + u16::from(port % 4)),
            remote: SocketAddr::new(address(self.nodes[1].address), 22),
            protocol: if port & 4 == 0 { Protocol::Tcp } else { Protocol::Udp },
        };
        let ends = [flow, flow.mirrored()];
        // A host gives nobody a tuple that is in use. One that is some flow's on the wire the module would displace.
        if self.nodes.iter().zip(&ends).any(|(node, flow)| node.kernel.knows(flow)) {
            return;
        }
        for (node, flow) in self.nodes.iter_mut().zip(ends) {
            self.instances += 1;
            node.kernel.connections.insert(flow, self.instances);
        }
    }

    fn restart(&mut self, at: usize, remembers: bool) {
        let (now, rng) = (self.instant(), rng(&mut self.seed));
        let moving = |node: &Node| node.endpoint.peers().any(|peer| peer.moves.iter().any(|one| one.flows > 0));
        if !remembers && self.nodes.iter().any(moving) {
            self.forgotten.extend(self.nodes.iter().flat_map(|node| node.kernel.connections.keys()));
        }
        let node = &mut self.nodes[at];
        node.config.generation = node.kernel.control.local_generation();
        let known = |node: &Node| -> Vec<_> {
            let flows = node.kernel.connections.keys();
            flows.map(|flow| (node.endpoint.claimed(flow), node.endpoint.owner(flow))).collect()
        };
        let (before, memory) = (known(node), node.endpoint.snapshot(BOOT));
        node.endpoint = if remembers {
            Endpoint::restore(node.config.clone(), rng, now, BOOT, &memory).expect("what it wrote itself")
        } else {
            Endpoint::new(node.config.clone(), rng, now).expect("a good configuration")
        };
        assert!(!remembers || known(node) == before, "something was forgotten");
        // The daemon takes up what it finds prepared in the kernel.
        let Kernel { engine, control, .. } = &self.nodes[at].kernel;
        let (mut cursor, mut moves) = (0, Vec::new());
        while let Some(binding) = control.next(engine, cursor) {
            cursor = binding.id;
            let halves = [
                (Half::Local, binding.wire.local, binding.local.other),
                (Half::Remote, binding.wire.remote, binding.remote.other),
            ];
            for (half, old, other) in halves {
                if let Other::Pending { address, generation, hold } = other {
                    let (flow, old, new) = (flow_of(&binding.stack), ip(&old), ip(&address));
                    moves.push(Prepared { flow, half, old, new, generation, hold });
                }
            }
        }
        let addresses = vec![address(self.nodes[at].address)];
        self.look(at);
        self.event(at, Event::Prepared { moves, addresses });
    }

    /// A daemon that finds this says what is wrong with it, or works with it; never anything else.
    fn spoil(&mut self, at: usize, byte: usize, value: u8, length: usize, sound: bool) {
        let (now, rng) = (self.instant(), rng(&mut self.seed));
        let node = &self.nodes[at];
        let mut memory = node.endpoint.snapshot(BOOT);
        let end = memory.len();
        if let Some(byte) = memory.get_mut(byte % end.max(1)) {
            *byte = value;
        }
        memory.truncate(length.max(1));
        if sound {
            mobconn_dprp::fuzz::repair(&mut memory);
        }
        if let Ok(mut endpoint) = Endpoint::restore(node.config.clone(), rng, now, BOOT, &memory) {
            let mut kernel = Kernel::new(9);
            endpoint.handle_event(now, Event::Flows(Vec::new()), &mut kernel);
            endpoint.handle_timeout(now.after(Duration::from_secs(3600)), &mut kernel);
            let _ = endpoint.snapshot(BOOT);
        }
    }

    fn step(&mut self, step: &Step) {
        let pick =
            |which: u8, from: &Vec<(SocketAddr, Transmit)>| (!from.is_empty()).then(|| usize::from(which) % from.len());
        match step {
            Step::Deliver(which) => {
                if let Some(at) = pick(*which, &self.under_way) {
                    let (from, transmit) = self.under_way.remove(at);
                    self.arrive(from, &transmit);
                }
            }
            Step::Repeat(which) => {
                if let Some(at) = pick(*which, &self.under_way) {
                    let (from, transmit) = self.under_way[at].clone();
                    self.arrive(from, &transmit);
                }
            }
            Step::Lose(which) => {
                if let Some(at) = pick(*which, &self.under_way) {
                    self.under_way.remove(at);
                }
            }
            Step::Forge { which, at, value, length, from } => {
                if let Some(index) = pick(*which, &self.under_way) {
                    let (mut source, mut transmit) = self.under_way[index].clone();
                    if let Some(byte) = transmit.data.get_mut(usize::from(*at)) {
                        *byte = *value;
                    }
                    transmit.data.truncate(usize::from(*length).max(1));
                    if from & 1 != 0 {
                        source.set_ip(address(from >> 1));
                        self.on_path = true;
                    }
                    self.arrive(source, &transmit);
                }
            }
            Step::Inject { to, from, data } => {
                let remote = SocketAddr::new(address(self.nodes[usize::from(*to)].address), mobconn_dprp::PORT);
                let source = SocketAddr::new(address(*from), mobconn_dprp::PORT);
                self.arrive(source, &Transmit { local: None, remote, data: data.clone() });
            }
            Step::Wait(milliseconds) => {
                self.now += u64::from(*milliseconds) * 1000;
                self.timers();
            }
            Step::Run(steps) => {
                for _ in 0..*steps {
                    if self.under_way.is_empty() {
                        self.now += Duration::from_millis(10).as_micros() as u64;
                        self.timers();
                    } else {
                        let (from, transmit) = self.under_way.remove(0);
                        self.now += 500;
                        self.arrive(from, &transmit);
                    }
                }
            }
            Step::Connect(port) => self.connect(*port),
            Step::End { at, port } => {
                let node = &mut self.nodes[usize::from(*at)];
                let nth = usize::from(*port) % node.kernel.connections.len().max(1);
                if let Some(flow) = node.kernel.connections.keys().nth(nth).copied() {
                    node.kernel.connections.remove(&flow);
                    let Kernel { engine, control, .. } = &mut node.kernel;
                    let _ = control.delete(engine, &side(&flow));
                }
            }
            Step::Look(node) => self.look(usize::from(*node)),
            Step::Move { who, to, old_usable } => {
                let node = usize::from(*who);
                let to = 100 * u8::from(*who) + to % 4;
                let from = std::mem::replace(&mut self.nodes[node].address, to);
                let (old, new) = (address(from), address(to));
                self.event(node, Event::Move { old, new, old_usable: *old_usable });
            }
            Step::Refuse { at, times } => self.nodes[usize::from(*at)].kernel.refuse = *times,
            Step::Restart { at, remembers } => self.restart(usize::from(*at), *remembers),
            Step::Resolve { at, of, addresses } => {
                let addresses = addresses.iter().map(|number| address(*number)).collect();
                self.event(usize::from(*at), Event::Resolved { name: name(*of), addresses });
            }
            Step::Spoil { at, byte, value, length, sound } => {
                self.spoil(usize::from(*at), usize::from(*byte), *value, usize::from(*length), *sound);
            }
        }
        self.check();
    }

    /// What each end would send now, the other end accepts, unless two moves have overtaken it: no RST comes of it.
    fn check(&self) {
        if self.on_path {
            return;
        }
        for (sender, receiver) in [(&self.nodes[0], &self.nodes[1]), (&self.nodes[1], &self.nodes[0])] {
            for flow in sender.kernel.connections.keys() {
                let mirrored = flow.mirrored();
                let stays = sender.kernel.stays.contains(flow) || receiver.kernel.stays.contains(&mirrored);
                if stays || self.forgotten.contains(flow) || !receiver.kernel.connections.contains_key(&mirrored) {
                    continue;
                }
                let sent = sender.kernel.control.get(&sender.kernel.engine, &side(flow));
                let holds = |other: Other| matches!(other, Other::Pending { hold: true, .. });
                if sent.is_some_and(|binding| holds(binding.local.other) || holds(binding.remote.other)) {
                    continue;
                }
                let wire = sent.map_or_else(|| side(flow), |binding| binding.wire);
                let known = receiver.kernel.control.get(&receiver.kernel.engine, &side(&mirrored));
                // A half has two addresses: what two moves have overtaken is accepted no more.
                let overtaken = |by: Option<HalfView>, half: Option<HalfView>| {
                    let newest = by.map_or(0, |by| match by.other {
                        Other::Pending { generation, .. } => generation,
                        Other::None | Other::Grace { .. } => by.generation,
                    });
                    let theirs = half.map_or(0, |half| half.generation);
                    // The other end has made a move of which this one has not heard, and this one is in the next already.
                    let between = by.is_some_and(|by| by.generation < theirs) && theirs < newest;
                    newest >= theirs + 2 || between
                };
                let (ours, theirs) = (sent.map(|b| (b.local, b.remote)), known.map(|b| (b.local, b.remote)));
                if overtaken(theirs.map(|(local, _)| local), ours.map(|(_, remote)| remote))
                    || overtaken(ours.map(|(local, _)| local), theirs.map(|(_, remote)| remote))
                {
                    continue;
                }
                let accepts = |address: Address, plain: Address, half: Option<Other>| {
                    address == plain
                        || match half {
                            Some(Other::Pending { address: other, .. } | Other::Grace { address: other, .. }) => {
                                address == other
                            }
                            _ => false,
                        }
                };
                let plain = known.map_or_else(|| side(&mirrored), |binding| binding.wire);
                assert!(
                    accepts(wire.remote, plain.local, known.map(|binding| binding.local.other))
                        && accepts(wire.local, plain.remote, known.map(|binding| binding.remote.other)),
                    "{flow:?}\nsent {sent:?}\nknown {known:?}"
                );
            }
        }
    }
}

/// Runs the target.
pub(crate) fn run(data: &[u8]) {
    let Ok(steps) = Vec::<Step>::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let mut world = World::new();
    world.connect(0);
    world.look(0);
    world.step(&Step::Run(24));
    steps.iter().take(200).for_each(|step| world.step(step));
}
