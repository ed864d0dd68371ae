//! Packets as they travel: bytes that begin with an IP header.

use mobconn_dprp::{Flow, Protocol};
use mobconn_engine::{Checksum, Gone, Packet, Version};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, IpProtocol, IpRepr, IpVersion, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket, UdpRepr};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// A packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// All of it.
    pub bytes: Vec<u8>,
    /// Which connection's segment this was when TCP sent it: known to who judges, and to nobody else.
    pub origin: Option<usize>,
    /// When it left its sender, in microseconds.
    pub sent: u64,
}

impl From<Vec<u8>> for Frame {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, origin: None, sent: 0 }
    }
}

/// What the headers of a segment or datagram say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Its flow as the sender sees it.
    pub flow: Flow,
    /// Where the transport header begins.
    pub transport: usize,
}

impl Frame {
    /// A UDP datagram.
    #[must_use]
    pub fn udp(from: SocketAddr, to: SocketAddr, data: &[u8]) -> Self {
        let (source, destination) = (IpAddress::from(from.ip()), IpAddress::from(to.ip()));
        let udp = UdpRepr { src_port: from.port(), dst_port: to.port() };
        let length = udp.header_len().saturating_add(data.len());
        let ip = IpRepr::new(source, destination, IpProtocol::Udp, length, 64);
        let mut bytes = vec![0; ip.header_len().saturating_add(length)];
        let checksums = ChecksumCapabilities::default();
        ip.emit(bytes.as_mut_slice(), &checksums);
        let mut packet = UdpPacket::new_unchecked(bytes.get_mut(ip.header_len()..).unwrap_or_default());
        udp.emit(&mut packet, &source, &destination, data.len(), |to| to.copy_from_slice(data), &checksums);
        bytes.into()
    }

    /// IP version.
    #[must_use]
    pub fn version(&self) -> Version {
        match IpVersion::of_packet(&self.bytes) {
            Ok(IpVersion::Ipv6) => Version::V6,
            _ => Version::V4,
        }
    }

    /// Whether the IP header is as it was, as far as `ip_input` can tell before the hook sees the packet. A length that
    /// is another counts: links notice that.
    #[must_use]
    pub fn has_sound_header(&self) -> bool {
        match self.version() {
            Version::V4 => Ipv4Packet::new_checked(&self.bytes)
                .is_ok_and(|ip| ip.verify_checksum() && usize::from(ip.total_len()) == self.bytes.len()),
            Version::V6 => Ipv6Packet::new_checked(&self.bytes).is_ok_and(|ip| ip.total_len() == self.bytes.len()),
        }
    }

    /// Source, destination, protocol, and where the transport header begins.
    fn addresses(&self) -> Option<(IpAddr, IpAddr, IpProtocol, usize)> {
        match self.version() {
            Version::V4 => {
                let ip = Ipv4Packet::new_checked(&self.bytes).ok()?;
                Some((ip.src_addr().into(), ip.dst_addr().into(), ip.next_header(), ip.header_len().into()))
            }
            Version::V6 => {
                let ip = Ipv6Packet::new_checked(&self.bytes).ok()?;
                Some((ip.src_addr().into(), ip.dst_addr().into(), ip.next_header(), ip.header_len()))
            }
        }
    }

    /// Source address.
    #[must_use]
    pub fn source(&self) -> Option<IpAddr> {
        self.addresses().map(|(source, ..)| source)
    }

    /// Destination address.
    #[must_use]
    pub fn destination(&self) -> Option<IpAddr> {
        self.addresses().map(|(_, destination, ..)| destination)
    }

    /// The headers of a TCP segment or UDP datagram.
    #[must_use]
    pub fn heads(&self) -> Option<Heads> {
        let (source, destination, protocol, transport) = self.addresses()?;
        let rest = self.bytes.get(transport..)?;
        let (protocol, from, to) = match protocol {
            IpProtocol::Tcp => {
                let tcp = TcpPacket::new_checked(rest).ok()?;
                (Protocol::Tcp, tcp.src_port(), tcp.dst_port())
            }
            IpProtocol::Udp => {
                let udp = UdpPacket::new_checked(rest).ok()?;
                (Protocol::Udp, udp.src_port(), udp.dst_port())
            }
            _ => return None,
        };
        let flow = Flow { local: SocketAddr::new(source, from), remote: SocketAddr::new(destination, to), protocol };
        Some(Heads { flow, transport })
    }

    /// Whether it is a TCP segment with RST.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        let Some(heads) = self.heads().filter(|heads| heads.flow.protocol == Protocol::Tcp) else { return false };
        self.bytes
            .get(heads.transport..)
            .and_then(|rest| TcpPacket::new_checked(rest).ok())
            .is_some_and(|tcp| tcp.rst())
    }

    /// The payload of a UDP datagram whose checksum is right.
    #[must_use]
    pub fn payload(&self) -> Option<&[u8]> {
        let (source, destination, protocol, transport) = self.addresses()?;
        let udp = UdpPacket::new_checked(self.bytes.get(transport..)?).ok()?;
        let right =
            self.version() == Version::V6 || Ipv4Packet::new_checked(&self.bytes).is_ok_and(|ip| ip.verify_checksum());
        let whole = protocol == IpProtocol::Udp && udp.verify_checksum(&source.into(), &destination.into());
        (whole && right).then(|| udp.payload())
    }

    /// Whether the checksum of a TCP segment is right.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let Some((source, destination, IpProtocol::Tcp, transport)) = self.addresses() else { return false };
        let rest = self.bytes.get(transport..).unwrap_or_default();
        TcpPacket::new_checked(rest).is_ok_and(|tcp| tcp.verify_checksum(&source.into(), &destination.into()))
    }

    /// Gives a whole packet other addresses and ports.
    pub fn readdress(&mut self, from: Option<SocketAddr>, to: Option<SocketAddr>) {
        let Some(Heads { flow, transport }) = self.heads() else { return };
        let (from, to) = (from.unwrap_or(flow.local), to.unwrap_or(flow.remote));
        match (from.ip(), to.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut ip = Ipv4Packet::new_unchecked(&mut self.bytes);
                ip.set_src_addr(source);
                ip.set_dst_addr(destination);
                ip.fill_checksum();
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut ip = Ipv6Packet::new_unchecked(&mut self.bytes);
                ip.set_src_addr(source);
                ip.set_dst_addr(destination);
            }
            _ => return,
        }
        let rest = self.bytes.get_mut(transport..).unwrap_or_default();
        let (source, destination) = (IpAddress::from(from.ip()), IpAddress::from(to.ip()));
        match flow.protocol {
            Protocol::Tcp => {
                let mut tcp = TcpPacket::new_unchecked(rest);
                tcp.set_src_port(from.port());
                tcp.set_dst_port(to.port());
                tcp.fill_checksum(&source, &destination);
            }
            Protocol::Udp => {
                let mut udp = UdpPacket::new_unchecked(rest);
                udp.set_src_port(from.port());
                udp.set_dst_port(to.port());
                udp.fill_checksum(&source, &destination);
            }
        }
    }

    /// Makes a UDP checksum right, whatever happened to the rest: damage that nobody notices below DPRP.
    pub fn repair(&mut self) {
        let Some((source, destination, IpProtocol::Udp, transport)) = self.addresses() else { return };
        if let Ok(mut udp) = UdpPacket::new_checked(self.bytes.get_mut(transport..).unwrap_or_default()) {
            udp.fill_checksum(&source.into(), &destination.into());
        }
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Heads { flow, transport }) = self.heads() else {
            return write!(f, "{} bytes of something", self.bytes.len());
        };
        let Flow { local, remote, protocol } = flow;
        let rest = self.bytes.get(transport..).unwrap_or_default();
        match (protocol, TcpPacket::new_checked(rest)) {
            (Protocol::Tcp, Ok(tcp)) => {
                write!(f, "TCP {local} > {remote} ")?;
                for (set, flag) in [(tcp.syn(), "S"), (tcp.fin(), "F"), (tcp.rst(), "R"), (tcp.ack(), ".")] {
                    f.write_str(if set { flag } else { "" })?;
                }
                write!(f, " seq {} ack {} len {}", tcp.seq_number(), tcp.ack_number(), tcp.payload().len())
            }
            _ => write!(f, "UDP {local} > {remote} len {}", rest.len().saturating_sub(8)),
        }
    }
}

/// A packet before the engine, in a host whose memory may be short.
pub struct View<'a> {
    /// The packet.
    pub frame: &'a mut Frame,
    /// The next attempt to reshape it fails, and it is gone.
    pub short: bool,
}

impl Packet for View<'_> {
    fn head(&self) -> &[u8] {
        &self.frame.bytes
    }

    fn total(&self) -> usize {
        self.frame.bytes.len()
    }

    fn pull(&mut self, _: usize) -> Result<(), Gone> {
        Ok(())
    }

    fn writable(&mut self, _: usize) -> Result<&mut [u8], Gone> {
        if self.short { Err(Gone) } else { Ok(&mut self.frame.bytes) }
    }

    fn checksum(&self) -> Checksum {
        Checksum::Complete
    }

    fn shift_sum(&mut self, _: u16) {}
}
