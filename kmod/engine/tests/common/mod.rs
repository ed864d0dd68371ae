//! Packets for tests: built, and judged, by an implementation that is not ours.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test file uses its part")]

use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use mobconn_engine::*;
use proptest::prelude::*;

/// A packet of which only `contiguous` bytes lie at the start until pulled.
pub struct Bytes {
    pub bytes: Vec<u8>,
    pub contiguous: usize,
    pub checksum: Checksum,
    pub sum: u16,
    pub fail: bool,
    /// Gives all that is contiguous when asked to write.
    pub generous: bool,
    pub touched: bool,
}

impl Bytes {
    pub fn new(bytes: Vec<u8>) -> Self {
        let contiguous = bytes.len();
        Self { bytes, contiguous, checksum: Checksum::Complete, sum: 0, fail: false, generous: false, touched: false }
    }
}

impl Packet for Bytes {
    fn head(&self) -> &[u8] {
        &self.bytes[..self.contiguous.min(self.bytes.len())]
    }
    fn total(&self) -> usize {
        self.bytes.len()
    }
    fn pull(&mut self, len: usize) -> Result<(), Gone> {
        assert!(len <= self.bytes.len(), "pulls no more than there is");
        assert!(len <= 160, "pulls no more than an mbuf takes");
        if self.fail {
            return Err(Gone);
        }
        self.contiguous = self.contiguous.max(len);
        Ok(())
    }
    fn writable(&mut self, len: usize) -> Result<&mut [u8], Gone> {
        assert!(len <= self.contiguous, "pulled before it is written");
        if self.fail {
            return Err(Gone);
        }
        self.touched = true;
        let len = if self.generous { self.contiguous.min(self.bytes.len()) } else { len };
        Ok(&mut self.bytes[..len])
    }
    fn checksum(&self) -> Checksum {
        self.checksum
    }
    fn shift_sum(&mut self, by: u16) {
        assert_eq!(self.checksum, Checksum::DataValid);
        let sum = u32::from(self.sum) + u32::from(by);
        self.sum = ((sum & 0xffff) + (sum >> 16)) as u16;
    }
}

pub fn engine(capacity: u32) -> (Engine, Control) {
    let key = core::array::from_fn(|i| 0x0123_4567_89ab_cdef_u64.rotate_left(7 * i as u32) ^ i as u64);
    new(&Config { capacity, key }).expect("a capacity in range")
}

pub fn side(text: &str) -> Side {
    let mut words = text.split_whitespace();
    let protocol = match words.next() {
        Some("tcp") => Protocol::Tcp,
        Some("udp") => Protocol::Udp,
        other => panic!("{other:?}"),
    };
    let local: std::net::SocketAddr = words.next().expect("local").parse().expect("local");
    let remote: std::net::SocketAddr = words.next().expect("remote").parse().expect("remote");
    Side {
        local: address(local.ip()),
        remote: address(remote.ip()),
        local_port: local.port(),
        remote_port: remote.port(),
        version: if local.is_ipv4() { Version::V4 } else { Version::V6 },
        protocol,
    }
}

pub fn address(ip: std::net::IpAddr) -> Address {
    match ip {
        std::net::IpAddr::V4(ip) => Address::v4(ip.octets()),
        std::net::IpAddr::V6(ip) => Address(ip.octets()),
    }
}

pub fn ip(text: &str) -> Address {
    address(text.parse().expect("an address"))
}

fn v4(address: &Address) -> [u8; 4] {
    address.0[..4].try_into().expect("four octets")
}

/// A packet with right checksums from `side.local` to `side.remote`.
pub fn outgoing(side: &Side, flags: &str, payload: &[u8]) -> Vec<u8> {
    let (from, to) = (side.local, side.remote);
    let mut bytes = Vec::new();
    let ip = match side.version {
        Version::V4 => PacketBuilder::ipv4(v4(&from), v4(&to), 64),
        Version::V6 => PacketBuilder::ipv6(from.0, to.0, 64),
    };
    match side.protocol {
        Protocol::Udp => ip.udp(side.local_port, side.remote_port).write(&mut bytes, payload),
        Protocol::Tcp => {
            let mut tcp = ip.tcp(side.local_port, side.remote_port, 0x1122_3344, 0xffff);
            for flag in flags.chars() {
                tcp = match flag {
                    'S' => tcp.syn(),
                    'R' => tcp.rst(),
                    'F' => tcp.fin(),
                    'A' => tcp.ack(7),
                    other => panic!("flag {other}"),
                };
            }
            tcp.write(&mut bytes, payload)
        }
    }
    .expect("builds");
    bytes
}

pub fn reversed(side: &Side) -> Side {
    Side { local: side.remote, remote: side.local, local_port: side.remote_port, remote_port: side.local_port, ..*side }
}

/// A packet with right checksums from the remote end.
pub fn incoming(side: &Side, flags: &str, payload: &[u8]) -> Vec<u8> {
    outgoing(&reversed(side), flags, payload)
}

/// Whether IPv4 header and transport checksum are right.
pub fn is_sound(bytes: &[u8]) -> bool {
    let packet = SlicedPacket::from_ip(bytes).expect("parses");
    let transport_sound = |v4: Option<([u8; 4], [u8; 4])>, v6: Option<([u8; 16], [u8; 16])>| match packet.transport {
        Some(TransportSlice::Tcp(ref tcp)) => {
            let expected = match (v4, v6) {
                (Some((s, d)), _) => tcp.to_header().calc_checksum_ipv4_raw(s, d, tcp.payload()),
                (_, Some((s, d))) => tcp.to_header().calc_checksum_ipv6_raw(s, d, tcp.payload()),
                _ => unreachable!(),
            };
            expected.expect("fits") == tcp.checksum()
        }
        Some(TransportSlice::Udp(ref udp)) => {
            let expected = match (v4, v6) {
                (Some((s, d)), _) => udp.to_header().calc_checksum_ipv4_raw(s, d, udp.payload()),
                (_, Some((s, d))) => udp.to_header().calc_checksum_ipv6_raw(s, d, udp.payload()),
                _ => unreachable!(),
            };
            expected.expect("fits") == udp.checksum()
        }
        ref other => panic!("{other:?}"),
    };
    match packet.net {
        Some(etherparse::NetSlice::Ipv4(ref ip)) => {
            let header = ip.header();
            header.header_checksum() == header.to_header().calc_header_checksum()
                && transport_sound(Some((header.source(), header.destination())), None)
        }
        Some(etherparse::NetSlice::Ipv6(ref ip)) => {
            transport_sound(None, Some((ip.header().source(), ip.header().destination())))
        }
        ref other => panic!("{other:?}"),
    }
}

/// Any usable stack side and another usable wire side of the same kind.
pub fn any_pair() -> impl Strategy<Value = (Side, Side)> {
    let addresses = any::<[[u8; 16]; 4]>();
    let ports = any::<[std::num::NonZeroU16; 4]>();
    (addresses, ports, any::<bool>(), any::<bool>(), any::<bool>())
        .prop_map(|(addresses, ports, v6, udp, same_ports)| {
            let cut = |a: [u8; 16]| if v6 { Address(a) } else { Address::v4([a[0], a[1], a[2], a[3]]) };
            let side = |l: [u8; 16], r: [u8; 16], lp: std::num::NonZeroU16, rp: std::num::NonZeroU16| Side {
                local: cut(l),
                remote: cut(r),
                local_port: lp.get(),
                remote_port: rp.get(),
                version: if v6 { Version::V6 } else { Version::V4 },
                protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
            };
            let stack = side(addresses[0], addresses[1], ports[0], ports[1]);
            let (lp, rp) = if same_ports { (ports[0], ports[1]) } else { (ports[2], ports[3]) };
            (stack, side(addresses[2], addresses[3], lp, rp))
        })
        .prop_filter("usable", |(stack, wire)| stack.is_usable() && wire.is_usable() && stack != wire)
}
