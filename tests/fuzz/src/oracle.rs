//! What a translation may change, and what it must not, whatever the packet: judged from the bytes alone, by means that
//! are not the engine's.

use etherparse::checksum::Sum16BitWords;
use mobconn_engine::{Address, Protocol, Side, Version};
use std::ops::Range;

/// Where the headers of a packet lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) version: Version,
    pub(crate) protocol: u8,
    pub(crate) ip: usize,
    pub(crate) transport: usize,
    /// End of what the IP header says is the packet.
    pub(crate) end: usize,
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

impl Layout {
    /// The layout of the packet at `ip`.
    pub(crate) fn of(bytes: &[u8], ip: usize) -> Option<Self> {
        match bytes.get(ip)? >> 4 {
            4 => {
                let header = usize::from(bytes[ip] & 15) * 4;
                let end = ip + usize::from(word(bytes, ip + 2)?);
                Some(Self { version: Version::V4, protocol: *bytes.get(ip + 9)?, ip, transport: ip + header, end })
            }
            6 => {
                let end = ip + 40 + usize::from(word(bytes, ip + 4)?);
                let (mut protocol, mut at) = (*bytes.get(ip + 6)?, ip + 40);
                while matches!(protocol, 0 | 43 | 44 | 60) {
                    let length = if protocol == 44 { 8 } else { 8 + 8 * usize::from(*bytes.get(at + 1)?) };
                    (protocol, at) = (*bytes.get(at)?, at + length);
                }
                Some(Self { version: Version::V6, protocol, ip, transport: at, end })
            }
            _ => None,
        }
    }

    /// Where the addresses lie.
    pub(crate) fn addresses(&self) -> Range<usize> {
        if self.version == Version::V4 { self.ip + 12..self.ip + 20 } else { self.ip + 8..self.ip + 40 }
    }

    /// Where the transport checksum lies.
    pub(crate) fn check(&self) -> Range<usize> {
        let at = self.transport + if self.protocol == 6 { 16 } else { 6 };
        at..at + 2
    }

    /// Source and destination as a side.
    pub(crate) fn side(&self, bytes: &[u8]) -> Option<Side> {
        let addresses = bytes.get(self.addresses())?;
        let (from, to) = addresses.split_at(addresses.len() / 2);
        let address = |octets: &[u8]| {
            let mut all = [0; 16];
            all[..octets.len()].copy_from_slice(octets);
            Address(all)
        };
        Some(Side {
            local: address(from),
            remote: address(to),
            local_port: word(bytes, self.transport)?,
            remote_port: word(bytes, self.transport + 2)?,
            version: self.version,
            protocol: match self.protocol {
                6 => Protocol::Tcp,
                17 => Protocol::Udp,
                _ => return None,
            },
        })
    }

    /// The sum over the IPv4 header.
    fn header_sum(&self, bytes: &[u8]) -> Option<u16> {
        (self.version == Version::V4).then(|| bytes.get(self.ip..self.transport).map(sum)).flatten()
    }

    /// The sum over addresses, protocol, length and everything behind the IP header: as right or wrong as the checksum.
    fn transport_sum(&self, bytes: &[u8]) -> Option<u16> {
        let segment = bytes.get(self.transport..self.end)?;
        let addresses = bytes.get(self.addresses())?;
        let length = (segment.len() as u32).to_be_bytes();
        Some(sum(&[addresses, &[0, self.protocol], &length, segment].concat()))
    }
}

/// One's complement sum, with one zero only.
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    match !Sum16BitWords::new().add_slice(bytes).ones_complement().to_be() {
        0xffff => 0,
        sum => sum,
    }
}

/// Panics if bytes changed outside `allowed`.
fn only_these(before: &[u8], after: &[u8], allowed: &[Range<usize>]) {
    assert_eq!(before.len(), after.len(), "the length changed");
    for (at, (old, new)) in before.iter().zip(after).enumerate() {
        assert!(old == new || allowed.iter().any(|range| range.contains(&at)), "byte {at} changed");
    }
}

/// A translated segment or datagram: addresses, ports and checksums changed and nothing else, and the checksums are as
/// right, or as wrong, as before.
pub(crate) fn judge_segment(before: &[u8], after: &[u8], pseudo: bool) {
    let layout = Layout::of(before, 0).expect("what was translated has headers");
    assert_eq!(Layout::of(after, 0), Some(layout), "the headers are others");
    assert!(matches!(layout.protocol, 6 | 17), "neither TCP nor UDP");
    let ports = layout.transport..layout.transport + 4;
    let mut allowed = vec![layout.addresses(), ports, layout.check()];
    if layout.version == Version::V4 {
        allowed.push(10..12);
    }
    only_these(before, after, &allowed);
    assert_eq!(layout.header_sum(before), layout.header_sum(after), "the header checksum");
    let check = layout.check();
    if pseudo {
        // The field holds the sum of the pseudo header, of which only the addresses changed.
        let part = |bytes: &[u8]| {
            let field = [!bytes[check.start], !bytes[check.start + 1]];
            sum(&[&bytes[layout.addresses()], &field].concat())
        };
        assert_eq!(part(before), part(after), "the sum of the pseudo header");
    } else if layout.protocol == 17 && before[check.clone()] == [0, 0] {
        assert_eq!(after[check], [0, 0], "no checksum stays none");
    } else {
        assert_eq!(layout.transport_sum(before), layout.transport_sum(after), "the transport checksum");
        assert!(layout.protocol != 17 || after[check] != [0, 0], "a checksum became none");
    }
}

/// A translated ICMP error: the quote, and if `outer` the message's own addresses, changed and nothing else.
pub(crate) fn judge_error(before: &[u8], after: &[u8], outer: bool) {
    let message = Layout::of(before, 0).expect("what was translated has headers");
    assert_eq!(Layout::of(after, 0), Some(message), "the headers are others");
    assert!(matches!(message.protocol, 1 | 58), "no ICMP");
    let quoted = message.transport + 8;
    let quote = Layout::of(before, quoted).expect("what was translated quotes a packet");
    let check = quote.check();
    let mut allowed = vec![
        message.transport + 2..message.transport + 4,
        quote.addresses(),
        quote.transport..quote.transport + 4,
        check.clone(),
    ];
    if outer {
        allowed.push(message.addresses());
    }
    if message.version == Version::V4 {
        allowed.extend([10..12, quoted + 10..quoted + 12]);
    }
    only_these(before, after, &allowed);
    assert_eq!(message.header_sum(before), message.header_sum(after), "the header checksum");
    assert_eq!(quote.header_sum(before), quote.header_sum(after), "the quoted header checksum");
    let whole = |bytes: &[u8]| match message.version {
        Version::V4 => sum(&bytes[message.transport..message.end]),
        Version::V6 => message.transport_sum(bytes).expect("translated within its end"),
    };
    assert_eq!(whole(before), whole(after), "the checksum of the message");
    let in_quote = check.end <= message.end && before[check.clone()] != after[check.clone()];
    if in_quote {
        let part = |bytes: &[u8]| {
            let ports = &bytes[quote.transport..quote.transport + 4];
            sum(&[&bytes[quote.addresses()], ports, &bytes[check.clone()]].concat())
        };
        assert_eq!(part(before), part(after), "the quoted transport checksum");
    }
}

/// The packet with source and destination exchanged, which leaves every sum as it is.
pub(crate) fn turned(bytes: &[u8]) -> Vec<u8> {
    let mut turned = bytes.to_vec();
    let layout = Layout::of(bytes, 0).expect("what was translated has headers");
    for range in [layout.addresses(), layout.transport..layout.transport + 4] {
        let half = range.len() / 2;
        turned[range].rotate_left(half);
    }
    turned
}

/// Whether the IPv4 header and the transport checksum are right.
pub(crate) fn is_sound(bytes: &[u8]) -> bool {
    Layout::of(bytes, 0).is_some_and(|layout| {
        layout.header_sum(bytes).is_none_or(|sum| sum == 0) && layout.transport_sum(bytes) == Some(0)
    })
}
