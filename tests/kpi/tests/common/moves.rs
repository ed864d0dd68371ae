//! Moves by command, segments of every kind, and what came out on its own.

use super::{addresses, ioctl, tuple};
use etherparse::PacketBuilder;
use mobconn_abi::{
    EXPIRE, Expire, FLOW_GET, FlowGet, Half, MOVE_ABORT, MOVE_COMMIT, MOVE_PREPARE, MoveBatch, MoveEntry, Record, TCP,
    Tuple,
};
use mobconn_kpi::{Connection, Delivered, Errno, Event, Input, Machine, Output, Region, Vnet};
use std::net::{IpAddr, SocketAddr};
use zerocopy::{FromBytes, IntoBytes};

/// What kind of segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Syn,
    Data,
    Fin,
    Rst,
}

/// Where the three hosts are: the correspondent node, the address that the mover leaves, the one that it goes to.
pub(crate) const PLACES: [[&str; 3]; 2] =
    [["192.0.2.80", "198.51.100.10", "203.0.113.17"], ["2001:db8:80::80", "2001:db8:a::10", "2001:db8:b::17"]];

/// The flow between the correspondent node (local) and the mover at place 1 or 2.
pub(crate) fn at_peer(v6: bool, protocol: u8, place: usize) -> Tuple {
    let places = PLACES[usize::from(v6)];
    tuple(places[0], 80, places[place], 5000, protocol)
}

/// The same as the mover sees it.
pub(crate) fn at_mover(v6: bool, protocol: u8, place: usize) -> Tuple {
    let places = PLACES[usize::from(v6)];
    tuple(places[place], 5000, places[0], 80, protocol)
}

/// The address of a place.
pub(crate) fn place(v6: bool, place: usize) -> IpAddr {
    PLACES[usize::from(v6)][place].parse().expect("an address")
}

fn octets(ip: IpAddr) -> [u8; 16] {
    let mut wide = [0; 16];
    match ip {
        IpAddr::V4(ip) => wide[..4].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => wide = ip.octets(),
    }
    wide
}

fn batch(vnet: &Vnet, command: u32, mut batch: MoveBatch, stack: Tuple, generation: u32) -> Result<(), u32> {
    let entry = MoveEntry { stack, generation, error: 0 };
    let mut regions = [Region { address: 0x1000, bytes: entry.as_bytes().to_vec() }];
    (batch.entries, batch.count) = (0x1000, 1);
    ioctl(vnet, command, &mut batch, &mut regions).expect("a command");
    let entry = MoveEntry::read_from_bytes(&regions[0].bytes).expect("as long as before");
    assert_eq!(batch.failed, u32::from(entry.error != 0));
    if entry.error == 0 { Ok(()) } else { Err(entry.error) }
}

/// How a move is prepared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) half: Half,
    pub(crate) to: IpAddr,
    pub(crate) generation: u32,
    pub(crate) hold: bool,
    pub(crate) take: bool,
}

/// Prepares a move; the error is the entry's.
pub(crate) fn prepare(vnet: &Vnet, stack: Tuple, step: Step) -> Result<(), u32> {
    let mut argument = MoveBatch { version: stack.version, half: step.half as u8, ..MoveBatch::default() };
    argument.address = octets(step.to);
    (argument.hold, argument.take) = (step.hold.into(), step.take.into());
    batch(vnet, MOVE_PREPARE, argument, stack, step.generation)
}

/// Commits it.
pub(crate) fn commit(vnet: &Vnet, stack: Tuple, half: Half, generation: u32) -> Result<(), u32> {
    batch(vnet, MOVE_COMMIT, MoveBatch { half: half as u8, ..MoveBatch::default() }, stack, generation)
}

/// Takes it back.
pub(crate) fn abort(vnet: &Vnet, stack: Tuple, half: Half, generation: u32) -> Result<(), u32> {
    batch(vnet, MOVE_ABORT, MoveBatch { half: half as u8, ..MoveBatch::default() }, stack, generation)
}

/// Moves a half at once.
pub(crate) fn moves(vnet: &Vnet, stack: Tuple, half: Half, to: IpAddr, generation: u32) -> Result<(), u32> {
    prepare(vnet, stack, Step { half, to, generation, hold: false, take: false })?;
    commit(vnet, stack, half, generation)
}

/// Ends every grace.
pub(crate) fn end_grace(vnet: &Vnet) -> Expire {
    let mut expire = Expire::default();
    ioctl(vnet, EXPIRE, &mut expire, &mut []).expect("EXPIRE");
    expire
}

/// The binding with this stack side.
pub(crate) fn binding(vnet: &Vnet, stack: Tuple) -> Result<Record, Errno> {
    let mut get = FlowGet::default();
    get.record.stack = stack;
    ioctl(vnet, FLOW_GET, &mut get, &mut []).map(|()| get.record)
}

/// Bindings now.
pub(crate) fn bindings(machine: &Machine) -> u64 {
    machine.sysctl_get("net.inet.mobconn.flows").expect("a number").parse().expect("a number")
}

/// The ends of a tuple.
pub(crate) fn ends(tuple: &Tuple) -> (SocketAddr, SocketAddr) {
    let (local, remote) = addresses(tuple);
    (SocketAddr::new(local, tuple.local_port), SocketAddr::new(remote, tuple.remote_port))
}

/// The connection of a tuple.
pub(crate) fn connection(tuple: &Tuple) -> Connection {
    let (local, remote) = ends(tuple);
    Connection::new(tuple.protocol, local, remote)
}

/// A packet to the remote end of the tuple, or, `back`, from it. For UDP the kind does not matter.
pub(crate) fn segment(tuple: &Tuple, back: bool, kind: Kind, payload: &[u8]) -> Vec<u8> {
    let (local, remote) = ends(tuple);
    let (from, to) = if back { (remote, local) } else { (local, remote) };
    let ip = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
        _ => unreachable!("a tuple is of one version"),
    };
    let mut out = Vec::new();
    if tuple.protocol == TCP {
        let tcp = ip.tcp(from.port(), to.port(), 0x1234_5678, 4096);
        let tcp = match kind {
            Kind::Syn => tcp.syn(),
            Kind::Data => tcp.ack(9).psh(),
            Kind::Fin => tcp.ack(9).fin(),
            Kind::Rst => tcp.rst(),
        };
        tcp.write(&mut out, payload).expect("a packet");
    } else {
        ip.udp(from.port(), to.port()).write(&mut out, payload).expect("a packet");
    }
    out
}

/// What came up and what was sent since the last call, when nothing is under way any more.
pub(crate) fn came(machine: &Machine, vnet: &Vnet) -> (Vec<Delivered>, Vec<Vec<u8>>) {
    machine.quiesce();
    let (mut up, mut out) = (Vec::new(), Vec::new());
    for event in vnet.events() {
        match event {
            Event::Received(Input::Deliver(delivered)) => {
                assert!(delivered.checksum_ok, "{delivered:?}");
                up.push(delivered);
            }
            Event::Sent(Output::Send(sent)) => out.extend(sent.packets),
            other => panic!("{other:?}"),
        }
    }
    (up, out)
}
