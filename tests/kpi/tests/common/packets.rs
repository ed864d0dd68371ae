//! Packets made and judged by an independent implementation.

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use mobconn_abi::{TCP, Tuple};
use std::net::IpAddr;

/// Which way along a tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From local to remote.
    Sent,
    /// From remote to local.
    Received,
}

/// A packet of the flow, checksums complete; with `options`, TCP has some.
pub(crate) fn packet(tuple: &Tuple, way: Way, payload: &[u8], options: bool) -> Vec<u8> {
    let (local, remote) = super::addresses(tuple);
    let (from, to, from_port, to_port) = match way {
        Way::Sent => (local, remote, tuple.local_port, tuple.remote_port),
        Way::Received => (remote, local, tuple.remote_port, tuple.local_port),
    };
    let ip = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
        _ => unreachable!("a tuple is of one version"),
    };
    let mut out = Vec::new();
    if tuple.protocol == TCP {
        let tcp = ip.tcp(from_port, to_port, 0x1234_5678, 4096).ack(0x9abc_def0).psh();
        let tcp = if options { tcp.options_raw(&[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]).expect("options") } else { tcp };
        tcp.write(&mut out, payload).expect("a packet");
    } else {
        ip.udp(from_port, to_port).write(&mut out, payload).expect("a packet");
    }
    out
}

/// What a packet says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) payload: Vec<u8>,
    /// IP header checksum (IPv4) and transport checksum are right.
    pub(crate) right: bool,
}

/// Reads a packet and recomputes its checksums.
pub(crate) fn look(packet: &[u8]) -> Seen {
    let sliced = SlicedPacket::from_ip(packet).expect("an IP packet");
    let (source, destination, header_right) = match sliced.net.as_ref().expect("IP") {
        NetSlice::Ipv4(v4) => {
            let header = v4.header();
            let right = header.to_header().calc_header_checksum() == header.header_checksum();
            (IpAddr::V4(header.source_addr()), IpAddr::V4(header.destination_addr()), right)
        }
        NetSlice::Ipv6(v6) => (IpAddr::V6(v6.header().source_addr()), IpAddr::V6(v6.header().destination_addr()), true),
        other => panic!("{other:?}"),
    };
    let (source_port, destination_port, payload, right) = match sliced.transport.as_ref().expect("transport") {
        TransportSlice::Tcp(tcp) => {
            let sum = match (source, destination) {
                (IpAddr::V4(from), IpAddr::V4(to)) => tcp.calc_checksum_ipv4(from.octets(), to.octets()),
                (IpAddr::V6(from), IpAddr::V6(to)) => tcp.calc_checksum_ipv6(from.octets(), to.octets()),
                _ => unreachable!("a packet is of one version"),
            };
            let right = sum.expect("a sum") == tcp.checksum();
            (tcp.source_port(), tcp.destination_port(), tcp.payload().to_vec(), right)
        }
        TransportSlice::Udp(udp) => {
            let header = udp.to_header();
            let sum = match (source, destination) {
                (IpAddr::V4(from), IpAddr::V4(to)) => {
                    header.calc_checksum_ipv4_raw(from.octets(), to.octets(), udp.payload())
                }
                (IpAddr::V6(from), IpAddr::V6(to)) => {
                    header.calc_checksum_ipv6_raw(from.octets(), to.octets(), udp.payload())
                }
                _ => unreachable!("a packet is of one version"),
            };
            let right = sum.expect("a sum") == udp.checksum();
            (udp.source_port(), udp.destination_port(), udp.payload().to_vec(), right)
        }
        other => panic!("{other:?}"),
    };
    Seen { source, destination, source_port, destination_port, payload, right: right && header_right }
}

/// What a packet of this tuple says.
pub(crate) fn expected(tuple: &Tuple, way: Way, payload: &[u8]) -> Seen {
    let (local, remote) = super::addresses(tuple);
    let (source, destination, source_port, destination_port) = match way {
        Way::Sent => (local, remote, tuple.local_port, tuple.remote_port),
        Way::Received => (remote, local, tuple.remote_port, tuple.local_port),
    };
    Seen { source, destination, source_port, destination_port, payload: payload.to_vec(), right: true }
}

/// Bytes that are not all alike.
pub(crate) fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + i / 251 + 3) as u8).collect()
}
