//! Address and port translation at the router's end of a cable, for IPv4: each
//! host of the network is another one to the world, at other ports.

use std::borrow::Cow;

/// What translation does to the last byte of an address, and to a port; doing it twice is doing nothing.
const ADDRESS: u8 = 0x40;
const PORT: u16 = 0x4000;

/// Which end of a packet is in the network that is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inside {
    Source,
    Destination,
}

/// The packet on the other side of the router. What is neither TCP nor UDP over IPv4 stays as it is.
pub(crate) fn translate(packet: &[u8], inside: Inside) -> Cow<'_, [u8]> {
    translated(packet, inside).map_or(Cow::Borrowed(packet), Cow::Owned)
}

fn translated(packet: &[u8], inside: Inside) -> Option<Vec<u8>> {
    let first = *packet.first()?;
    let header = usize::from(first & 15) * 4;
    let is_first = packet.get(6..8)?.iter().zip([0x1f, 0xff]).all(|(byte, mask)| byte & mask == 0);
    let sum = header + if *packet.get(9)? == 6 { 16 } else { 6 };
    if first >> 4 != 4 || !is_first || ![6, 17].contains(packet.get(9)?) {
        return None;
    }
    let (address, port) = if inside == Inside::Source { (12, header) } else { (16, header + 2) };
    let mut packet = packet.to_vec();
    // The word that ends with the address's last byte.
    let (old, new) = change(&mut packet, address + 2, |word| word ^ u16::from(ADDRESS))?;
    adjust(&mut packet, 10, old, new)?;
    // UDP without a sum stays without one.
    let is_summed = packet.get(9) == Some(&6) || word(&packet, sum)? != 0;
    if is_summed {
        adjust(&mut packet, sum, old, new)?;
    }
    let (old, new) = change(&mut packet, port, |word| word ^ PORT)?;
    if is_summed {
        adjust(&mut packet, sum, old, new)?;
    }
    Some(packet)
}

fn word(packet: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?))
}

/// Changes a word; returns what it was and is.
fn change(packet: &mut [u8], at: usize, how: impl FnOnce(u16) -> u16) -> Option<(u16, u16)> {
    let old = word(packet, at)?;
    let new = how(old);
    packet.get_mut(at..at + 2)?.copy_from_slice(&new.to_be_bytes());
    Some((old, new))
}

/// Adjusts a checksum to a word that changed (RFC 1624).
fn adjust(packet: &mut [u8], at: usize, old: u16, new: u16) -> Option<()> {
    let mut sum = u32::from(!word(packet, at)?) + u32::from(!old) + u32::from(new);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    packet.get_mut(at..at + 2)?.copy_from_slice(&(!(sum as u16)).to_be_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::View;

    #[test]
    fn there_and_back() {
        let mut datagram = vec![0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0, 0, 198, 51, 100, 10, 203, 0, 113, 5];
        datagram.extend([0x24, 0xda, 0x24, 0xda, 0, 10, 0x12, 0x34, 1, 2]);
        let outside = translate(&datagram, Inside::Source);
        let view = View::parse(&outside).expect("a datagram");
        assert_eq!(view.source, "198.51.100.74:25818".parse().expect("an address"));
        assert_eq!(view.destination, "203.0.113.5:9434".parse().expect("an address"));
        assert_ne!(outside.get(26..28), datagram.get(26..28), "the sum follows");
        let sum =
            |packet: &[u8]| packet.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum::<u32>() % 0xffff;
        for (covered, what) in [(0..20, "header"), (12..30, "datagram and addresses")] {
            assert_eq!(
                sum(&outside[covered.clone()]),
                sum(&datagram[covered]),
                "the sum over {what} takes up what changed"
            );
        }
        assert_eq!(*translate(&outside, Inside::Source), datagram);
        datagram[9] = 1;
        assert_eq!(*translate(&datagram, Inside::Source), datagram, "no ports");
    }
}
