//! What the IP layer looks at in a packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The IP header of a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) v6: bool,
    /// Bytes of the IPv4 header with options; 40 for IPv6.
    pub(crate) length: usize,
    /// Total length by the header.
    pub(crate) total: usize,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// Upper protocol; for IPv6 behind extension headers, 0xff behind ones that are not understood.
    pub(crate) protocol: u8,
    /// Where the transport header begins.
    pub(crate) transport: usize,
    /// A fragment, first or later.
    pub(crate) fragment: bool,
    /// `IP_DF`.
    pub(crate) dont_fragment: bool,
}

fn half(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

impl Header {
    /// The header, if it is well formed and the packet is at least as long as it says.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        Self::parse_front(bytes, bytes.len())
    }

    /// The same from the first bytes of a packet of `length` bytes; what lies behind them counts as not understood.
    pub(crate) fn parse_front(bytes: &[u8], length: usize) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => Self::parse_v4(bytes, length),
            6 => Self::parse_v6(bytes, length),
            _ => None,
        }
    }

    fn parse_v4(bytes: &[u8], available: usize) -> Option<Self> {
        if bytes.len() < 20 {
            return None;
        }
        let length = usize::from(bytes[0] & 0xf) * 4;
        let total = half(bytes, 2);
        if length < 20 || total < length || total > available {
            return None;
        }
        let address = |at: usize| IpAddr::V4(Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]));
        let offset = half(bytes, 6);
        Some(Self {
            v6: false,
            length,
            total,
            source: address(12),
            destination: address(16),
            protocol: bytes[9],
            transport: length,
            fragment: offset & 0x3fff != 0,
            dont_fragment: offset & 0x4000 != 0,
        })
    }

    fn parse_v6(bytes: &[u8], available: usize) -> Option<Self> {
        if bytes.len() < 40 {
            return None;
        }
        let total = 40 + half(bytes, 4);
        if total > available {
            return None;
        }
        let address =
            |at: usize| IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[at..at + 16]).unwrap_or([0; 16])));
        let (mut next, mut at, mut fragment) = (bytes[6], 40, false);
        // Hop-by-hop options, routing, fragment, destination options.
        while let 0 | 43 | 44 | 60 = next {
            let Some(extension) = bytes.get(at..at + 8).filter(|_| at + 8 <= total) else {
                next = 0xff;
                break;
            };
            let length = if next == 44 { 8 } else { 8 + 8 * usize::from(extension[1]) };
            fragment |= next == 44;
            next = extension[0];
            at += length;
        }
        Some(Self {
            v6: true,
            length: 40,
            total,
            source: address(8),
            destination: address(24),
            protocol: next,
            transport: at.min(total),
            fragment,
            dont_fragment: false,
        })
    }

    /// Bytes of transport header and data.
    pub(crate) fn transport_length(&self, packet: &[u8]) -> usize {
        let by_ip = self.total - self.transport;
        match packet.get(self.transport + 4..self.transport + 6) {
            Some(field) if self.protocol == 17 && !self.fragment => half(field, 0).min(by_ip),
            _ => by_ip,
        }
    }
}
