//! Packets: as the engine is given them, and as a fuzzer describes them.

use arbitrary::Arbitrary;
use etherparse::checksum::Sum16BitWords;
use mobconn_engine::{Address, Checksum, Gone, Packet, Protocol, Side, Version};

/// A packet of which `contiguous` bytes lie at the start until more are pulled.
#[derive(Clone, Debug)]
pub(crate) struct Bytes {
    pub(crate) bytes: Vec<u8>,
    pub(crate) contiguous: usize,
    pub(crate) state: Checksum,
    pub(crate) sum: u16,
    /// Memory is short.
    pub(crate) fail: bool,
    pub(crate) touched: bool,
}

impl Bytes {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let contiguous = bytes.len();
        Self { bytes, contiguous, state: Checksum::Complete, sum: 0, fail: false, touched: false }
    }

    pub(crate) fn version(&self) -> Version {
        if self.bytes.first().is_some_and(|first| first >> 4 == 6) { Version::V6 } else { Version::V4 }
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
        assert!(len <= self.bytes.len(), "pulls more than there is");
        assert!(len <= 160, "pulls more than an mbuf takes");
        if self.fail {
            return Err(Gone);
        }
        self.contiguous = self.contiguous.max(len);
        Ok(())
    }

    fn writable(&mut self, len: usize) -> Result<&mut [u8], Gone> {
        assert!(len <= self.contiguous, "writes what it did not pull");
        if self.fail {
            return Err(Gone);
        }
        self.touched = true;
        Ok(&mut self.bytes[..len])
    }

    fn checksum(&self) -> Checksum {
        self.state
    }

    fn shift_sum(&mut self, by: u16) {
        assert_eq!(self.state, Checksum::DataValid);
        let sum = u32::from(self.sum) + u32::from(by);
        self.sum = ((sum & 0xffff) + (sum >> 16)) as u16;
    }
}

/// What is special about a packet.
#[derive(Arbitrary, Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) flags: u8,
    pub(crate) payload: Vec<u8>,
    /// IPv4 options, as far as they fit.
    pub(crate) options: Vec<u8>,
    /// IPv6 extension headers: kind and content.
    pub(crate) extensions: Vec<(u8, u8, [u8; 6])>,
    /// The fragment field, IPv4 or IPv6.
    pub(crate) fragment: Option<u16>,
}

impl Shape {
    /// Neither options nor extension headers nor a fragment.
    pub(crate) fn is_plain(&self) -> bool {
        self.fragment.is_none_or(|field| field == 0)
            && self.options.is_empty()
            && self.extensions.is_empty()
            && self.payload.len() < 9000
    }

    /// The packet from `side.local` to `side.remote`, with right checksums.
    pub(crate) fn build(&self, side: &Side) -> Vec<u8> {
        let protocol = if side.protocol == Protocol::Tcp { 6 } else { 17 };
        let mut segment = Vec::new();
        segment.extend(side.local_port.to_be_bytes());
        segment.extend(side.remote_port.to_be_bytes());
        let field = if protocol == 6 {
            segment.extend([0, 1, 2, 3, 4, 5, 6, 7, 0x50, self.flags, 0x20, 0, 0, 0, 0, 0]);
            16
        } else {
            let length = 8 + self.payload.len();
            segment.extend((length as u16).to_be_bytes());
            segment.extend([0, 0]);
            6
        };
        segment.extend(&self.payload);
        let pseudo = pseudo(&side.local, &side.remote, side.version, protocol, segment.len());
        let mut check = pseudo.add_slice(&segment).ones_complement().to_be();
        if check == 0 && protocol == 17 {
            check = 0xffff;
        }
        segment[field..field + 2].copy_from_slice(&check.to_be_bytes());
        let mut packet = match side.version {
            Version::V4 => self.header_v4(side, protocol, segment.len()),
            Version::V6 => self.header_v6(side, protocol, segment.len()),
        };
        packet.extend(segment);
        packet
    }

    fn header_v4(&self, side: &Side, protocol: u8, rest: usize) -> Vec<u8> {
        let mut options = self.options.clone();
        options.truncate(40);
        options.resize(options.len().next_multiple_of(4), 0);
        let header = 20 + options.len();
        let mut packet = vec![0x40 | (header / 4) as u8, 0];
        packet.extend(((header + rest) as u16).to_be_bytes());
        packet.extend([0, 9]);
        packet.extend(self.fragment.unwrap_or(0x4000).to_be_bytes());
        packet.extend([64, protocol, 0, 0]);
        packet.extend(&side.local.0[..4]);
        packet.extend(&side.remote.0[..4]);
        packet.extend(options);
        let check = Sum16BitWords::new().add_slice(&packet).ones_complement().to_be();
        packet[10..12].copy_from_slice(&check.to_be_bytes());
        packet
    }

    fn header_v6(&self, side: &Side, protocol: u8, rest: usize) -> Vec<u8> {
        let mut extensions = Vec::new();
        let mut kinds = Vec::new();
        for (kind, length, content) in &self.extensions {
            let length = length % 3;
            kinds.push([0, 43, 60, 44][usize::from(kind % 4)]);
            extensions.push([&[0, length][..], content, &vec![0; 8 * usize::from(length)]].concat());
        }
        if let Some(field) = self.fragment {
            kinds.push(44);
            let [a, b] = field.to_be_bytes();
            extensions.push(vec![0, 0, a, b, 0, 0, 0, 9]);
        }
        kinds.push(protocol);
        let length: usize = rest + extensions.iter().map(Vec::len).sum::<usize>();
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend((length as u16).to_be_bytes());
        packet.extend([kinds[0], 64]);
        packet.extend(side.local.0);
        packet.extend(side.remote.0);
        for (mut extension, next) in extensions.into_iter().zip(&kinds[1..]) {
            extension[0] = *next;
            packet.extend(extension);
        }
        packet
    }
}

/// The sum of the pseudo header.
pub(crate) fn pseudo(from: &Address, to: &Address, version: Version, protocol: u8, length: usize) -> Sum16BitWords {
    let octets = if version == Version::V4 { 4 } else { 16 };
    Sum16BitWords::new()
        .add_slice(&from.0[..octets])
        .add_slice(&to.0[..octets])
        .add_2bytes([0, protocol])
        .add_slice(&(length as u32).to_be_bytes())
}

/// The side seen from the other end.
pub(crate) fn reversed(side: &Side) -> Side {
    Side { local: side.remote, remote: side.local, local_port: side.remote_port, remote_port: side.local_port, ..*side }
}
