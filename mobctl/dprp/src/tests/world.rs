//! A simulated network of complete endpoints: seeded, and the same every time.

use super::kernel::Kernel;
use crate::message::Message;
use crate::{Config, Endpoint, Event, Flow, GroupKey, HostKey, Instant, News, Prefix, Protocol};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The boot that all nodes live in.
pub(crate) const BOOT: &[u8] = b"boot";
pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
/// Lengths of a MoveChallenge, a MoveResponse, and a whole MoveCommit without refusals.
pub(crate) const CHALLENGE: usize = 57;
pub(crate) const RESPONSE: usize = 53;
pub(crate) const COMMIT: usize = 42;

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// What the network does to datagrams. Chances are in percent.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    /// One way.
    pub(crate) delay: Duration,
    /// Added to the delay, at random up to this: reorders.
    pub(crate) jitter: Duration,
    pub(crate) loss: u32,
    pub(crate) duplicate: u32,
    pub(crate) corrupt: u32,
}

impl Default for Link {
    fn default() -> Self {
        Self { delay: 10 * MS, jitter: Duration::ZERO, loss: 0, duplicate: 0, corrupt: 0 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Datagram {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) data: Vec<u8>,
}

/// Changes datagrams on their way, or drops them.
type Meddle = Box<dyn FnMut(&mut Datagram) -> bool>;

pub(crate) struct Node {
    pub(crate) endpoint: Endpoint,
    pub(crate) kernel: Kernel,
    /// Addresses that work now.
    pub(crate) up: BTreeSet<IpAddr>,
    pub(crate) news: Vec<(Duration, News)>,
    /// When it was asked for which name.
    pub(crate) queries: Vec<(Duration, String)>,
    /// Its clock began so much earlier.
    pub(crate) ahead: Duration,
    /// It sleeps: nothing is due, nothing arrives.
    pub(crate) asleep: bool,
    config: Config,
}

impl Node {
    pub(crate) fn view(&self) -> crate::PeerView {
        let views: Vec<_> = self.endpoint.peers().collect();
        assert_eq!(views.len(), 1, "{views:?}");
        views[0].clone()
    }

    pub(crate) fn has_news(&self, wanted: impl Fn(&News) -> bool) -> bool {
        self.news.iter().any(|(_, news)| wanted(news))
    }

    /// Everything that the endpoint remembers, but counters.
    pub(crate) fn state(&self) -> String {
        format!("{:#?}\n{:#?}", self.endpoint.memory(), self.kernel)
    }
}

pub(crate) struct World {
    now: Duration,
    rng: ChaCha20Rng,
    pub(crate) nodes: Vec<Node>,
    pub(crate) link: Link,
    in_flight: BTreeMap<(Duration, u64), Datagram>,
    sequence: u64,
    instances: u64,
    /// Everything sent, in order, as it left the sender.
    pub(crate) sent: Vec<Datagram>,
    /// Whether to demand, all the time, that nothing sent now would be refused by its receiver.
    pub(crate) strict: bool,
    /// What a resolver would say.
    pub(crate) names: BTreeMap<String, Vec<IpAddr>>,
    /// Who waits for which name.
    asked: Vec<(usize, String)>,
    /// Changes a datagram on its way; `false` drops it.
    pub(crate) meddle: Option<Meddle>,
}

pub(crate) fn host_key(number: u8) -> HostKey {
    HostKey::from_bytes(&[number; 32])
}

/// A router that gives what comes from one address another one, and sends back what comes for that.
pub(crate) fn translator(inside: &'static str, outside: &'static str) -> Meddle {
    Box::new(move |datagram| {
        if datagram.from.ip() == ip(inside) {
            datagram.from.set_ip(ip(outside));
        } else if datagram.to.ip() == ip(outside) {
            datagram.to.set_ip(ip(inside));
        }
        true
    })
}

/// Configuration of a host that claims towards everything.
pub(crate) fn mobile(number: u8) -> Config {
    let mut config = Config::new(host_key(number), GroupKey::from_bytes(&[42; 32]));
    config.mobile = true;
    config.name = format!("host{number}.example.org");
    config.targets = ["0.0.0.0/0", "::/0"].map(|text| text.parse::<Prefix>().expect("a prefix")).to_vec();
    config
}

/// Configuration of a host that only answers.
pub(crate) fn fixed(number: u8) -> Config {
    Config { mobile: false, ..mobile(number) }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            now: Duration::ZERO,
            rng: ChaCha20Rng::seed_from_u64(seed),
            nodes: Vec::new(),
            link: Link::default(),
            in_flight: BTreeMap::new(),
            sequence: 0,
            instances: 1000,
            sent: Vec::new(),
            strict: false,
            names: BTreeMap::new(),
            asked: Vec::new(),
            meddle: None,
        }
    }

    /// A mobile host and a fixed one: nodes 0 and 1.
    pub(crate) fn pair(seed: u64) -> Self {
        let mut world = Self::new(seed);
        world.add(mobile(1), &[HOME]);
        world.add(fixed(2), &[SERVER]);
        world
    }

    pub(crate) fn add(&mut self, config: Config, addresses: &[&str]) -> usize {
        let rng = ChaCha20Rng::seed_from_u64(self.rng.next_u64());
        let endpoint = Endpoint::new(config.clone(), rng, self.instant()).expect("a good configuration");
        let up = addresses.iter().map(|text| ip(text)).collect();
        self.nodes.push(Node {
            endpoint,
            kernel: Kernel::default(),
            up,
            news: Vec::new(),
            queries: Vec::new(),
            ahead: Duration::ZERO,
            asleep: false,
            config,
        });
        self.nodes.len() - 1
    }

    /// The daemon of a node begins anew: it forgets everything; kernel and connections stay.
    pub(crate) fn restart(&mut self, node: usize) {
        let rng = ChaCha20Rng::seed_from_u64(self.rng.next_u64());
        let mut config = self.nodes[node].config.clone();
        config.generation = self.nodes[node].kernel.local_generation();
        self.nodes[node].endpoint = Endpoint::new(config, rng, self.clock(node)).expect("a good configuration");
        self.take_up(node);
    }

    /// A node boots: its connections, its bindings and its daemon's memory are gone.
    pub(crate) fn reboot(&mut self, node: usize) {
        self.nodes[node].kernel = Kernel::default();
        self.restart(node);
    }

    /// The daemon of a node begins anew, with this snapshot; kernel and connections stay.
    pub(crate) fn resume_from(&mut self, node: usize, snapshot: &[u8]) {
        let rng = ChaCha20Rng::seed_from_u64(self.rng.next_u64());
        let mut config = self.nodes[node].config.clone();
        config.generation = self.nodes[node].kernel.local_generation();
        let restored = Endpoint::restore(config, rng, self.clock(node), BOOT, snapshot).expect("a good snapshot");
        assert_eq!(restored.snapshot(BOOT).len(), snapshot.len(), "nothing is lost on the way");
        self.nodes[node].endpoint = restored;
        self.take_up(node);
    }

    /// The daemon of a node, which begins anew, takes up what it finds.
    fn take_up(&mut self, node: usize) {
        let (moves, addresses) = (self.nodes[node].kernel.prepared(), self.nodes[node].up.iter().copied().collect());
        self.flows(node);
        self.event(node, Event::Prepared { moves, addresses });
    }

    /// The daemon of a node begins anew and remembers everything.
    pub(crate) fn resume(&mut self, node: usize) {
        let snapshot = self.nodes[node].endpoint.snapshot(BOOT);
        self.resume_from(node, &snapshot);
    }

    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    pub(crate) fn random(&mut self, below: u32) -> u32 {
        self.rng.next_u32() % below
    }

    pub(crate) fn instant(&self) -> Instant {
        Instant::from_micros(u64::try_from(self.now.as_micros()).expect("a short simulation"))
    }

    /// What a node's clock says.
    fn clock(&self, node: usize) -> Instant {
        self.instant().after(self.nodes[node].ahead)
    }

    /// A connection between two nodes. Returns it as the first of them sees it.
    pub(crate) fn connect(&mut self, from: usize, to: usize, local: (&str, u16), remote: (&str, u16)) -> Flow {
        let flow = Flow {
            local: SocketAddr::new(ip(local.0), local.1),
            remote: SocketAddr::new(ip(remote.0), remote.1),
            protocol: Protocol::Tcp,
        };
        self.instances += 1;
        self.nodes[from].kernel.connections.insert(flow, self.instances);
        self.instances += 1;
        self.nodes[to].kernel.connections.insert(flow.mirrored(), self.instances);
        flow
    }

    /// `count` connections from `local` to `remote`, and time until they are claimed.
    pub(crate) fn claimed(&mut self, count: u16, local: &str, remote: &str) -> Vec<Flow> {
        let flows = (0..count).map(|i| self.connect(0, 1, (local, 10_000 + i), (remote, 22))).collect();
        self.flows(0);
        self.run(2 * SECOND);
        assert_eq!(self.nodes[0].view().unconfirmed, 0);
        flows
    }

    /// Ends a connection at one node.
    pub(crate) fn end(&mut self, node: usize, flow: &Flow) {
        self.nodes[node].kernel.end(flow);
    }

    pub(crate) fn event(&mut self, node: usize, event: Event) {
        let now = self.clock(node);
        let Node { endpoint, kernel, .. } = &mut self.nodes[node];
        endpoint.handle_event(now, event, kernel);
        self.collect(node);
    }

    /// The node looks at its connection list.
    pub(crate) fn flows(&mut self, node: usize) {
        let snapshot = self.nodes[node].kernel.snapshot();
        self.event(node, Event::Flows(snapshot));
    }

    /// The node's address changes; the old one is gone unless `old_usable`.
    pub(crate) fn go(&mut self, node: usize, old: &str, new: &str, old_usable: bool) {
        self.nodes[node].up.insert(ip(new));
        if !old_usable {
            self.nodes[node].up.remove(&ip(old));
        }
        self.event(node, Event::Move { old: ip(old), new: ip(new), old_usable });
    }

    /// Has a node say this to its only peer, from `local`: what an attacker could do with keys of its own.
    pub(crate) fn say(&mut self, node: usize, local: &str, remote: &str, message: &Message) {
        let endpoint = &mut self.nodes[node].endpoint;
        let id = *endpoint.peers.all.keys().next().expect("a peer");
        let path = crate::association::Path { local: ip(local), remote: SocketAddr::new(ip(remote), 9434) };
        endpoint.send(id, path, message);
        self.collect(node);
    }

    /// Hands a datagram to whoever has its destination, now.
    pub(crate) fn inject(&mut self, datagram: &Datagram) {
        let here = |node: &Node| !node.asleep && node.up.contains(&datagram.to.ip());
        let Some(node) = self.nodes.iter().position(here) else { return };
        let now = self.clock(node);
        let Node { endpoint, kernel, .. } = &mut self.nodes[node];
        endpoint.handle_datagram(now, datagram.to.ip(), datagram.from, &datagram.data, kernel);
        self.collect(node);
    }

    fn collect(&mut self, node: usize) {
        while let Some(transmit) = self.nodes[node].endpoint.poll_transmit() {
            assert!(transmit.data.len() <= 1200, "{} bytes", transmit.data.len());
            let local = transmit.local.expect("an address to send from");
            let from = SocketAddr::new(local, self.nodes[node].config.port);
            let datagram = Datagram { from, to: transmit.remote, data: transmit.data };
            // Routers drop what comes with an address that is not of their network.
            let routed = self.nodes[node].up.contains(&local);
            self.sent.push(datagram.clone());
            if routed {
                self.carry(datagram);
            }
        }
        while let Some(notice) = self.nodes[node].endpoint.poll_notice() {
            self.nodes[node].news.push((self.now, notice.news));
        }
        while let Some(name) = self.nodes[node].endpoint.poll_query() {
            self.nodes[node].queries.push((self.now, name.clone()));
            self.asked.push((node, name));
        }
        if self.strict {
            self.check_paths();
        }
    }

    pub(crate) fn carry(&mut self, mut datagram: Datagram) {
        if let Some(meddle) = &mut self.meddle
            && !meddle(&mut datagram)
        {
            return;
        }
        let copies = 1 + u32::from(self.random(100) < self.link.duplicate);
        for _ in 0..copies {
            if self.random(100) < self.link.loss {
                continue;
            }
            let mut copy = datagram.clone();
            if self.random(100) < self.link.corrupt {
                let length = u32::try_from(copy.data.len()).expect("a short datagram");
                let at = self.random(length) as usize;
                copy.data[at] ^= 1 << self.random(8);
            }
            let jitter = u32::try_from(self.link.jitter.as_micros()).expect("a short jitter");
            let late = Duration::from_micros(u64::from(self.random(jitter + 1)));
            self.sequence += 1;
            self.in_flight.insert((self.now + self.link.delay + late, self.sequence), copy);
        }
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            for (node, name) in std::mem::take(&mut self.asked) {
                if let Some(addresses) = self.names.get(&name).cloned() {
                    self.event(node, Event::Resolved { name, addresses });
                }
            }
            let due = |(i, node): (usize, &Node)| {
                let at = Duration::from_micros(node.endpoint.poll_timeout()?.as_micros());
                (!node.asleep).then(|| (at.saturating_sub(node.ahead), i))
            };
            let timer = self.nodes.iter().enumerate().filter_map(due).min();
            let arrival = self.in_flight.keys().next().copied();
            let next = timer.map(|(at, _)| at).into_iter().chain(arrival.map(|(at, _)| at)).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            if let Some(key) = arrival.filter(|(at, _)| *at == next) {
                let datagram = self.in_flight.remove(&key).expect("it is first");
                self.inject(&datagram);
            } else if let Some((_, node)) = timer {
                let now = self.clock(node);
                let Node { endpoint, kernel, .. } = &mut self.nodes[node];
                endpoint.handle_timeout(now, kernel);
                self.collect(node);
            }
        }
        self.now = end;
    }

    /// Runs until `done`, and tells how long that took.
    pub(crate) fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> Duration {
        let start = self.now;
        while !done(self) {
            assert!(self.now - start < limit, "not done after {limit:?}");
            self.run(MS);
        }
        self.now - start
    }

    /// What each end would send now, the other end accepts: no RST comes of it.
    fn check_paths(&self) {
        for (a, sender) in self.nodes.iter().enumerate() {
            for flow in sender.kernel.connections.keys() {
                let out = sender.kernel.binding(flow);
                if out.local.holds() || out.remote.holds() {
                    continue;
                }
                let receivers = self.nodes.iter().enumerate().filter(|(b, _)| *b != a);
                for (_, receiver) in receivers.filter(|(_, n)| n.kernel.connections.contains_key(&flow.mirrored())) {
                    let accepted = receiver.kernel.binding(&flow.mirrored());
                    assert!(
                        accepted.local.accepts(out.remote.address) && accepted.remote.accepts(out.local.address),
                        "at {:?}: {flow:?}\nsent {out:?}\naccepted {accepted:?}",
                        self.now
                    );
                }
            }
        }
    }

    /// Both ends agree about every flow between nodes 0 and 1, and nothing is pending.
    pub(crate) fn assert_agreed(&self) {
        for flow in self.nodes[0].kernel.connections.keys() {
            let (near, far) = (self.nodes[0].kernel.binding(flow), self.nodes[1].kernel.binding(&flow.mirrored()));
            assert_eq!((near.local.address, near.remote.address), (far.remote.address, far.local.address), "{flow:?}");
            for half in [near.local, near.remote, far.local, far.remote] {
                assert!(!matches!(half.other, super::kernel::Other::Pending { .. }), "{flow:?}: {half:?}");
            }
        }
    }

    /// The wire addresses of a flow at a node.
    pub(crate) fn wire(&self, node: usize, flow: &Flow) -> (IpAddr, IpAddr) {
        let binding = self.nodes[node].kernel.binding(flow);
        (binding.local.address, binding.remote.address)
    }
}

pub(crate) const HOME: &str = "192.0.2.10";
pub(crate) const CAFE: &str = "198.51.100.20";
pub(crate) const TRAIN: &str = "203.0.113.30";
pub(crate) const SERVER: &str = "192.0.2.80";
pub(crate) const SERVER_TOO: &str = "198.51.100.81";
