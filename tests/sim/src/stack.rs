//! What lies above the IP layer of a host: TCP (smoltcp's), and connected UDP sockets.

use crate::frame::Frame;
use mobconn_dprp::{Flow, Protocol};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr, Ipv4Address, Ipv6Address};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

/// Bytes that a socket buffers each way.
const BUFFER: usize = 8192;

/// How far a connection is, as the kernel lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Something is still to be exchanged.
    Established,
    /// `TIME_WAIT`.
    Waiting,
    /// Handshaking: a connection for the kernel, but not listed as one that can move.
    Embryo,
}

/// One TCP socket that is a connection.
#[derive(Debug)]
pub struct Tcp {
    handle: SocketHandle,
    /// Its number in this boot.
    pub instance: u64,
    /// Its stack side.
    pub flow: Flow,
    /// It was accepted from a listener.
    pub accepted: bool,
}

/// One connected UDP socket.
#[derive(Debug)]
pub struct Udp {
    /// Its number in this boot.
    pub instance: u64,
    /// Its stack side.
    pub flow: Flow,
    /// Accepted, as a server does that gives every caller a socket.
    pub accepted: bool,
    /// What arrived.
    pub received: VecDeque<Vec<u8>>,
}

#[derive(Default)]
struct Wire {
    incoming: Option<Vec<u8>>,
    outgoing: Vec<Frame>,
}

struct Incoming(Vec<u8>);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Outgoing<'a>(&'a mut Vec<Frame>);

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut bytes = vec![0; len];
        let result = f(&mut bytes);
        self.0.push(bytes.into());
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Incoming, Outgoing<'_>)> {
        Some((Incoming(self.incoming.take()?), Outgoing(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1500;
        capabilities
    }
}

/// The sockets of one host, since its boot.
pub struct Stack {
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    listeners: Vec<(u16, SocketHandle)>,
    bound: BTreeSet<u16>,
    /// Connections.
    pub tcp: Vec<Tcp>,
    /// Connected UDP sockets.
    pub udp: Vec<Udp>,
    instances: u64,
    /// Stack sides that had a connection in this boot.
    pub past: BTreeSet<Flow>,
    /// The connections that there are.
    live: BTreeMap<Flow, (u64, Phase)>,
}

fn time(micros: u64) -> Instant {
    Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}

impl Stack {
    /// A host that has just started, at this time of its clock.
    #[must_use]
    pub fn new(seed: u64, now: u64) -> Self {
        let mut wire = Wire::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut wire, time(now));
        // Everything that is given to TCP is for this host: who gives it has looked.
        let (v4, v6) = (Ipv4Address::new(192, 0, 2, 254), Ipv6Address::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));
        interface.update_ip_addrs(|own| {
            own.extend([IpCidr::new(v4.into(), 32), IpCidr::new(v6.into(), 128)]);
        });
        interface.set_any_ip(true);
        interface.routes_mut().add_default_ipv4_route(v4).expect("room for a route");
        interface.routes_mut().add_default_ipv6_route(v6).expect("room for a route");
        Self {
            wire,
            interface,
            sockets: SocketSet::new(Vec::new()),
            listeners: Vec::new(),
            bound: BTreeSet::new(),
            tcp: Vec::new(),
            udp: Vec::new(),
            instances: seed & 0xffff,
            past: BTreeSet::new(),
            live: BTreeMap::new(),
        }
    }

    /// Accepts connections and callers at this port.
    pub fn listen(&mut self, port: u16) {
        self.bound.insert(port);
        let mut socket = socket();
        socket.listen(port).expect("a port");
        let handle = self.sockets.add(socket);
        self.listeners.push((port, handle));
    }

    /// What still comes by UDP is of no connection any more.
    pub fn close_to_callers(&mut self) {
        self.bound.clear();
    }

    fn instance(&mut self) -> u64 {
        self.instances = self.instances.wrapping_add(1);
        self.instances
    }

    /// Opens a TCP connection, and says which of `tcp` it is; or a UDP socket.
    pub fn connect(&mut self, flow: Flow) -> Option<usize> {
        let instance = self.instance();
        self.past.insert(flow);
        if flow.protocol == Protocol::Udp {
            self.udp.push(Udp { instance, flow, accepted: false, received: VecDeque::new() });
            self.look();
            return self.udp.len().checked_sub(1);
        }
        let mut socket = socket();
        socket.connect(self.interface.context(), flow.remote, flow.local).ok()?;
        let handle = self.sockets.add(socket);
        self.tcp.push(Tcp { handle, instance, flow, accepted: false });
        self.look();
        self.tcp.len().checked_sub(1)
    }

    /// Takes in a packet that is for this host.
    pub fn receive(&mut self, now: u64, frame: Frame) {
        let Some(heads) = frame.heads() else { return };
        let flow = heads.flow.mirrored();
        if flow.protocol == Protocol::Udp {
            let Some(data) = frame.payload() else { return };
            if let Some(socket) = self.udp.iter_mut().find(|socket| socket.flow == flow) {
                socket.received.push_back(data.to_vec());
            } else if self.bound.contains(&flow.local.port()) {
                let received = [data.to_vec()].into();
                let instance = self.instance();
                self.past.insert(flow);
                self.udp.push(Udp { instance, flow, accepted: true, received });
                self.look();
            }
            return;
        }
        self.wire.incoming = Some(frame.bytes);
        self.interface.poll_ingress_single(time(now), &mut self.wire, &mut self.sockets);
        self.poll(now);
    }

    /// Does what is due.
    pub fn poll(&mut self, now: u64) {
        self.interface.poll_egress(time(now), &mut self.wire, &mut self.sockets);
        self.look();
    }

    /// When [`Self::poll`] is due.
    pub fn poll_at(&mut self, now: u64) -> Option<u64> {
        let at = self.interface.poll_at(time(now), &self.sockets)?;
        Some(u64::try_from(at.total_micros()).unwrap_or(0))
    }

    /// What TCP has to send.
    pub fn outgoing(&mut self) -> Vec<Frame> {
        std::mem::take(&mut self.wire.outgoing)
    }

    /// Takes note of connections that came and went.
    fn look(&mut self) {
        let mut taken = Vec::new();
        for (port, handle) in &mut self.listeners {
            let socket = self.sockets.get::<Socket<'_>>(*handle);
            if socket.state() == State::Listen {
                continue;
            }
            if let (Some(local), Some(remote)) = (socket.local_endpoint(), socket.remote_endpoint()) {
                taken.push((
                    *handle,
                    Flow { local: endpoint(local), remote: endpoint(remote), protocol: Protocol::Tcp },
                ));
            }
            let mut next = self::socket();
            next.listen(*port).expect("a port");
            *handle = self.sockets.add(next);
        }
        for (handle, flow) in taken {
            let instance = self.instance();
            self.past.insert(flow);
            self.tcp.push(Tcp { handle, instance, flow, accepted: true });
        }
        self.live.clear();
        for tcp in &self.tcp {
            let socket = self.sockets.get_mut::<Socket<'_>>(tcp.handle);
            let phase = match socket.state() {
                State::Closed => continue,
                State::Listen => {
                    // Its caller took it back, and here it would take the next one for that.
                    *socket = self::socket();
                    continue;
                }
                State::SynSent | State::SynReceived => Phase::Embryo,
                State::TimeWait => Phase::Waiting,
                _ => Phase::Established,
            };
            self.live.insert(tcp.flow, (tcp.instance, phase));
        }
        for udp in &self.udp {
            self.live.insert(udp.flow, (udp.instance, Phase::Established));
        }
    }

    /// All connections, with instance and phase.
    #[must_use]
    pub fn live(&self) -> &BTreeMap<Flow, (u64, Phase)> {
        &self.live
    }

    /// The socket of a connection.
    pub fn socket(&mut self, index: usize) -> Option<&mut Socket<'static>> {
        let handle = self.tcp.get(index)?.handle;
        Some(self.sockets.get_mut(handle))
    }

    /// A connection ends without a word.
    pub fn forget(&mut self, flow: &Flow) {
        self.udp.retain(|udp| udp.flow != *flow);
        for tcp in self.tcp.iter().filter(|tcp| tcp.flow == *flow) {
            // A socket that is there and closed: smoltcp would say RST if it were told to abort.
            *self.sockets.get_mut::<Socket<'_>>(tcp.handle) = socket();
        }
        self.look();
    }
}

fn endpoint(endpoint: smoltcp::wire::IpEndpoint) -> SocketAddr {
    SocketAddr::new(endpoint.addr.into(), endpoint.port)
}

fn socket() -> Socket<'static> {
    let mut socket = Socket::new(SocketBuffer::new(vec![0; BUFFER]), SocketBuffer::new(vec![0; BUFFER]));
    socket.set_congestion_control(CongestionControl::None);
    socket
}
