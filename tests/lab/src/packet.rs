//! As much of a packet as the lab needs to see, to check and to tell.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// UDP port of DPRP.
pub const DPRP_PORT: u16 = 9434;
/// Port of name servers.
pub const DNS_PORT: u16 = 53;

/// Transport of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP, with its flags, the sequence number of its first byte, and what it acknowledges.
    Tcp {
        /// The flags, as in the header's 14th byte.
        flags: u8,
        /// Sequence number.
        sequence: u32,
        /// Acknowledgement number.
        acknowledged: u32,
    },
    /// UDP.
    Udp,
}

/// A TCP or UDP packet that is not a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Source.
    pub source: SocketAddr,
    /// Destination.
    pub destination: SocketAddr,
    /// TCP or UDP.
    pub transport: Transport,
    /// Offset of the payload in the packet, bytes.
    pub payload: usize,
    /// Length of the payload, bytes.
    pub length: usize,
}

/// Flag RST of TCP.
const RST: u8 = 0x04;

impl View {
    /// Looks at a packet; `None` for what is neither TCP nor UDP.
    #[must_use]
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let (source, destination) = addresses(packet)?;
        let (protocol, header, end) = match packet.first()? >> 4 {
            4 => {
                if be16(packet, 6)? & 0x3fff != 0 {
                    return None;
                }
                (*packet.get(9)?, usize::from(packet.first()? & 15) * 4, usize::from(be16(packet, 2)?))
            }
            _ => (*packet.get(6)?, 40, 40 + usize::from(be16(packet, 4)?)),
        };
        let segment = packet.get(header..end)?;
        let (transport, transport_header) = match protocol {
            6 => {
                let flags = *segment.get(13)?;
                let number = |at| Some(u32::from(be16(segment, at)?) << 16 | u32::from(be16(segment, at + 2)?));
                let (sequence, acknowledged) = (number(4)?, number(8)?);
                (Transport::Tcp { flags, sequence, acknowledged }, usize::from(segment.get(12)? >> 4) * 4)
            }
            17 => (Transport::Udp, 8),
            _ => return None,
        };
        Some(Self {
            source: SocketAddr::new(source, be16(segment, 0)?),
            destination: SocketAddr::new(destination, be16(segment, 2)?),
            transport,
            payload: header + transport_header,
            length: segment.len().checked_sub(transport_header)?,
        })
    }

    /// Whether this is a TCP segment with RST.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        matches!(self.transport, Transport::Tcp { flags, .. } if flags & RST != 0)
    }

    /// Whether this is a message of DPRP.
    #[must_use]
    pub fn is_dprp(&self) -> bool {
        self.transport == Transport::Udp && (self.source.port() == DPRP_PORT || self.destination.port() == DPRP_PORT)
    }
}

impl View {
    /// Whether this view of `packet` is of a dynamic update of the DNS, RFC 2136.
    #[must_use]
    pub fn is_dns_update(&self, packet: &[u8]) -> bool {
        let flags = packet.get(self.payload + 2).filter(|_| self.length >= 12);
        self.transport == Transport::Udp
            && self.destination.port() == DNS_PORT
            && flags.is_some_and(|flags| flags >> 3 == 5)
    }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.transport {
            Transport::Tcp { .. } => "TCP",
            Transport::Udp => "UDP",
        };
        write!(f, "{name} {} > {}, {} bytes", self.source, self.destination, self.length)?;
        if let Transport::Tcp { flags, sequence, acknowledged } = self.transport {
            write!(f, ", flags {flags:#04x}, sequence {sequence}, acknowledged {acknowledged}")?;
        }
        Ok(())
    }
}

/// Source and destination address of an IP packet.
#[must_use]
pub fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match packet.first()? >> 4 {
        4 => {
            let at = |o: usize| -> Option<IpAddr> {
                let bytes: [u8; 4] = packet.get(o..o + 4)?.try_into().ok()?;
                Some(Ipv4Addr::from(bytes).into())
            };
            Some((at(12)?, at(16)?))
        }
        6 => {
            let at = |o: usize| -> Option<IpAddr> {
                let bytes: [u8; 16] = packet.get(o..o + 16)?.try_into().ok()?;
                Some(Ipv6Addr::from(bytes).into())
            };
            Some((at(8)?, at(24)?))
        }
        _ => None,
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYN: [u8; 44] = [
        0x45, 0, 0, 44, 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 10, 203, 0, 113, 5, // IPv4
        0x9c, 0x40, 0, 80, 0x01, 0x02, 0x03, 0x04, 0, 0, 0, 0, 0x60, 0x02, 0xff, 0xff, 0, 0, 0, 0, 2, 4, 5, 0xb4,
    ];

    #[test]
    fn tcp_over_ipv4() {
        let view = View::parse(&SYN).expect("a whole segment");
        assert_eq!(view.source, "192.0.2.10:40000".parse().expect("an address"));
        assert_eq!(view.destination, "203.0.113.5:80".parse().expect("an address"));
        assert_eq!(view.transport, Transport::Tcp { flags: 2, sequence: 0x0102_0304, acknowledged: 0 });
        assert_eq!((view.payload, view.length), (44, 0));
        assert!(!view.is_reset());
    }

    #[test]
    fn dprp_over_ipv6() {
        let mut packet = vec![0x60, 0, 0, 0, 0, 11, 17, 64];
        packet.extend("2001:db8:1::1".parse::<Ipv6Addr>().expect("an address").octets());
        packet.extend("2001:db8:2::1".parse::<Ipv6Addr>().expect("an address").octets());
        packet.extend([0x24, 0xda, 0x24, 0xda, 0, 11, 0, 0, 1, 2, 3]);
        let view = View::parse(&packet).expect("a whole datagram");
        assert!(view.is_dprp());
        assert_eq!((view.payload, view.length), (48, 3));
        assert_eq!(view.source, "[2001:db8:1::1]:9434".parse().expect("an address"));
    }

    #[test]
    fn short_packets_are_no_packets() {
        for length in 0..SYN.len() {
            assert_eq!(View::parse(&SYN[..length]), None, "{length} bytes");
        }
    }
}
