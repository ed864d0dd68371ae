//! Datagrams from strangers, at a rate that a small host has to bear.

use crate::frame::Frame;
use crate::net;
use crate::world::World;
use mobconn_dprp::{
    Config, Endpoint, Event, Flow, GroupKey, Half, Host, HostKey, Instant, KernelError, PORT, Protocol,
};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use std::net::{IpAddr, SocketAddr};

/// The network of strangers: whatever goes there is lost.
pub const STRANGERS: usize = 200;

/// What has come from there, and what was answered.
#[derive(Clone, Debug, Default)]
pub struct Flood {
    /// A Hello of a member of the group, and one of somebody else.
    hellos: Vec<Vec<u8>>,
    received: usize,
    sent: usize,
}

/// A host without connections.
struct Empty;

impl Host for Empty {
    fn instance(&mut self, _: &Flow) -> Option<u64> {
        None
    }
    fn wire(&mut self, _: &Flow) -> Option<Flow> {
        None
    }
    fn stack(&mut self, _: &Flow) -> Option<Flow> {
        None
    }
    fn prepare(&mut self, _: Half, _: IpAddr, _: bool, _: &[(Flow, u32)]) -> Vec<Result<(), KernelError>> {
        Vec::new()
    }
    fn commit(&mut self, _: Half, _: &[(Flow, u32)]) -> Vec<Result<(), KernelError>> {
        Vec::new()
    }
    fn abort(&mut self, _: Half, _: &[(Flow, u32)]) -> Vec<Result<(), KernelError>> {
        Vec::new()
    }
}

/// What a host with this group key says first to another one.
fn hello(group: GroupKey, to: IpAddr) -> Option<Vec<u8>> {
    let mut config = Config::new(HostKey::from_bytes(&[0xee; 32]), group);
    config.mobile = true;
    config.targets = vec!["0.0.0.0/0".parse().ok()?, "::/0".parse().ok()?];
    let now = Instant::from_micros(0);
    let mut endpoint = Endpoint::new(config, ChaCha20Rng::seed_from_u64(7), now).ok()?;
    let local = SocketAddr::new(net::address(STRANGERS, 1, to.is_ipv6()), 40_000);
    let flow = Flow { local, remote: SocketAddr::new(to, 22), protocol: Protocol::Tcp };
    endpoint.handle_event(now, Event::Flows(vec![(flow, 1)]), &mut Empty);
    endpoint.poll_transmit().map(|transmit| transmit.data)
}

impl World {
    /// One more datagram for host `h`.
    pub(crate) fn flood(&mut self, h: usize, nth: u32) {
        let Some(to) = self.hosts[h].addresses().first().copied() else { return };
        if self.strangers.hellos.is_empty() {
            let config = &self.hosts[h].kind.config;
            let groups = config.group_keys.iter().take(1).cloned().chain([GroupKey::from_bytes(&[0x43; 32])]);
            self.strangers.hellos = groups.filter_map(|group| hello(group, to)).collect();
        }
        let random = self.hosts[h].random();
        let [a, b, c, d, ..] = random.to_be_bytes();
        let mut data = match nth % 4 {
            0 | 1 => self.strangers.hellos[0].clone(),
            2 => self.strangers.hellos[1].clone(),
            // Sealed, of nobody.
            _ => [vec![4, 1, 0, 0], vec![a; 60]].concat(),
        };
        if nth % 8 == 1 {
            // Damaged.
            data[usize::from(a)] ^= b | 1;
        }
        let mut source = net::address(STRANGERS, c, to.is_ipv6());
        if let IpAddr::V4(v4) = source {
            let [x, y, ..] = v4.octets();
            source = IpAddr::from([x, y, d, c]);
        }
        self.strangers.received += data.len();
        let frame = Frame::udp(SocketAddr::new(source, 1024 + u16::from(a)), SocketAddr::new(to, PORT), &data);
        self.arrive(frame);
        self.judge_flood(h);
    }

    /// What goes to strangers.
    pub(crate) fn watch_strangers(&mut self, frame: &Frame) {
        if frame.destination().and_then(net::network_of) == Some(STRANGERS) {
            self.strangers.sent += frame.payload().map_or(0, <[u8]>::len);
        }
    }

    fn judge_flood(&mut self, h: usize) {
        let hosts = self.hosts.len();
        let Some(daemon) = &self.hosts[h].daemon else { return };
        let (half_open, peers) = (daemon.endpoint.half_open(), daemon.endpoint.peers().count());
        if half_open > self.hosts[h].kind.config.limits.half_open || peers >= hosts {
            self.violation(format!("{}: {half_open} half-open handshakes, {peers} associations", self.name(h)));
        }
        let (received, sent) = (self.strangers.received, self.strangers.sent);
        if sent > received {
            self.violation(format!("{}: {received} bytes from strangers, {sent} to them", self.name(h)));
        }
    }

    /// Whether all that was promised is where its hosts are, and can move: it was time enough for that.
    pub(crate) fn judge_settled(&mut self) {
        for h in 0..self.hosts.len() {
            for (id, which) in self.promised(h) {
                let end = &self.conns[id].ends[which];
                let wire = end.flow.map(|flow| self.hosts[h].wire(&flow).local.ip());
                let mobile = self.hosts[h].kind.config.mobile;
                if mobile && (!self.is_guarded(id, which) || wire.is_none_or(|wire| !self.hosts[h].has(wire))) {
                    self.violation(format!("not settled in spite of the flood: {}", self.portrait(id)));
                }
            }
        }
    }
}
