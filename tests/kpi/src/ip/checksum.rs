//! Internet checksums (RFC 1071), as the IP layer and the transports compute them.

use super::header::Header;

/// Ones'-complement sum of big-endian words, folded to 16 bits.
pub(crate) fn sum(bytes: &[u8], start: u32) -> u16 {
    let mut total = u64::from(start);
    let mut words = bytes.chunks_exact(2);
    for word in &mut words {
        total += u64::from(u16::from_be_bytes([word[0], word[1]]));
    }
    if let [last] = words.remainder() {
        total += u64::from(u16::from_be_bytes([*last, 0]));
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// Sum of the pseudo header for `length` bytes of transport header and data.
pub(crate) fn pseudo(header: &Header, packet: &[u8], length: usize) -> u16 {
    let addresses = if header.v6 { &packet[8..40] } else { &packet[12..20] };
    let length = length as u32;
    sum(addresses, (length >> 16) + (length & 0xffff) + u32::from(header.protocol))
}

/// Offset of the checksum field in the transport header.
pub(crate) const fn field(protocol: u8) -> Option<usize> {
    match protocol {
        6 => Some(16),
        17 => Some(6),
        _ => None,
    }
}

/// Writes the IPv4 header checksum.
pub(crate) fn finish_ipv4(packet: &mut [u8], header_length: usize) {
    packet[10..12].fill(0);
    let value = !sum(&packet[..header_length], 0);
    packet[10..12].copy_from_slice(&value.to_be_bytes());
}

/// Finishes a delayed transport checksum: the field holds the pseudo header sum, and the sum over everything
/// from the transport header on is put there, as in_delayed_cksum does. `at` is the field, from the transport header.
pub(crate) fn finish_delayed(packet: &mut [u8], header: &Header, at: usize) {
    let start = header.transport;
    let end = header.transport + header.transport_length(packet);
    let mut value = !sum(&packet[start..end], 0);
    if header.protocol == 17 && value == 0 {
        value = 0xffff;
    }
    packet[start + at..start + at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Whether the transport checksum in the packet is right.
pub(crate) fn is_right(packet: &[u8], header: &Header) -> bool {
    let Some(at) = field(header.protocol) else { return true };
    let length = header.transport_length(packet);
    let Some(segment) = packet.get(header.transport..header.transport + length) else { return false };
    let Some(field) = segment.get(at..at + 2) else { return false };
    if header.protocol == 17 && field == [0, 0] {
        return !header.v6;
    }
    sum(segment, u32::from(pseudo(header, packet, length))) == 0xffff
}
