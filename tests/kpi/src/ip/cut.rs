//! Packets that are too long: fragments (RFC 791, RFC 8200 4.5) and TCP segments (TSO).

use super::checksum;
use super::header::Header;
use crate::kernel::kernel;

/// Cuts a packet into fragments of at most `mtu` bytes.
pub(super) fn fragment(packet: &[u8], header: &Header, mtu: usize) -> Vec<Vec<u8>> {
    let identity = kernel().rng.word() as u32;
    let extra = if header.v6 { 8 } else { 0 };
    let room = (mtu.saturating_sub(header.length + extra) & !7).max(8);
    let data = &packet[header.length..];
    let count = data.len().div_ceil(room);
    let pieces = data.chunks(room).enumerate().map(|(index, piece)| {
        let more = index + 1 < count;
        let offset = index * room;
        let mut out = packet[..header.length].to_vec();
        if header.v6 {
            let next = std::mem::replace(&mut out[6], 44);
            out[4..6].copy_from_slice(&((piece.len() + 8) as u16).to_be_bytes());
            out.extend([next, 0]);
            out.extend((offset as u16 | u16::from(more)).to_be_bytes());
            out.extend(identity.to_be_bytes());
        } else {
            let before = u16::from_be_bytes([packet[6], packet[7]]);
            let field = (before & 0x1fff) + (offset / 8) as u16;
            let flags = if more { 0x2000 } else { before & 0x2000 };
            out[2..4].copy_from_slice(&((header.length + piece.len()) as u16).to_be_bytes());
            out[6..8].copy_from_slice(&(field | flags).to_be_bytes());
            checksum::finish_ipv4(&mut out, header.length);
        }
        out.extend(piece);
        out
    });
    pieces.collect()
}

/// Cuts a TCP packet into segments of at most `size` data bytes, as an interface with TSO does. The checksum field
/// holds the pseudo header sum of the whole, of which the interface uses nothing but the addresses.
pub(super) fn segment(packet: &[u8], header: &Header, size: usize) -> Vec<Vec<u8>> {
    const FIN_PSH: u8 = 0x09;
    const CWR: u8 = 0x80;
    let transport = header.transport;
    let headers = transport + usize::from(packet[transport + 12] >> 4) * 4;
    let data = &packet[headers..];
    let count = data.len().div_ceil(size.max(1)).max(1);
    let sequence = u32::from_be_bytes(std::array::from_fn(|i| packet[transport + 4 + i]));
    let whole = u32::from(u16::from_be_bytes([packet[transport + 16], packet[transport + 17]]));
    let pieces = (0..count).map(|index| {
        let begin = index * size;
        let piece = &data[begin.min(data.len())..(begin + size).min(data.len())];
        let mut out = packet[..headers].to_vec();
        out[transport + 4..transport + 8].copy_from_slice(&sequence.wrapping_add(begin as u32).to_be_bytes());
        if index + 1 < count {
            out[transport + 13] &= !FIN_PSH;
        }
        if index > 0 {
            out[transport + 13] &= !CWR;
        }
        out.extend(piece);
        let length = out.len();
        if header.v6 {
            out[4..6].copy_from_slice(&((length - 40) as u16).to_be_bytes());
        } else {
            let identity = u16::from_be_bytes([packet[4], packet[5]]).wrapping_add(index as u16);
            out[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            out[4..6].copy_from_slice(&identity.to_be_bytes());
            checksum::finish_ipv4(&mut out, header.length);
        }
        // The hardware takes the stack's pseudo header sum and corrects its length: a wrong one stays wrong.
        let shrunk = (packet.len() - length) as u32;
        let pseudo = whole + (0xffff - shrunk % 0xffff);
        out[transport + 16..transport + 18].fill(0);
        let value = !checksum::sum(&out[transport..], pseudo);
        out[transport + 16..transport + 18].copy_from_slice(&value.to_be_bytes());
        out
    });
    pieces.collect()
}
