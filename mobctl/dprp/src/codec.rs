//! Reading and writing bytes: big-endian integers, addresses, ranges.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Takes fields off the front of a buffer; `None` when it is too short.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(crate) fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// An IP address of the version that `version` says.
    pub(crate) fn ip(&mut self, version: u8) -> Option<IpAddr> {
        match version {
            4 => self.array().map(|octets: [u8; 4]| IpAddr::V4(Ipv4Addr::from(octets))),
            6 => self.array().map(|octets: [u8; 16]| IpAddr::V6(Ipv6Addr::from(octets))),
            _ => None,
        }
    }

    /// A version and an IP address.
    pub(crate) fn address(&mut self) -> Option<IpAddr> {
        let version = self.u8()?;
        self.ip(version)
    }

    /// What is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }

    /// `value` if nothing is left.
    pub(crate) fn end<T>(self, value: T) -> Option<T> {
        self.0.is_empty().then_some(value)
    }
}

/// Appends fields to a buffer.
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn new() -> Self {
        Self(Vec::with_capacity(64))
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes(&[value])
    }

    pub(crate) fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn ip(&mut self, address: IpAddr) -> &mut Self {
        match address {
            IpAddr::V4(v4) => self.bytes(&v4.octets()),
            IpAddr::V6(v6) => self.bytes(&v6.octets()),
        }
    }

    pub(crate) fn address(&mut self, address: IpAddr) -> &mut Self {
        self.u8(version(address)).ip(address)
    }

    /// A count of at most 255 and then each item; what is beyond is the caller's mistake and left out.
    pub(crate) fn list<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) -> &mut Self {
        let count = u8::try_from(items.len()).unwrap_or(u8::MAX);
        self.u8(count);
        items.iter().take(usize::from(count)).for_each(|item| each(self, item));
        self
    }
}

/// IP version of an address: 4 or 6.
pub(crate) fn version(address: IpAddr) -> u8 {
    if address.is_ipv4() { 4 } else { 6 }
}

/// Whether a host can have `address` on a network, for all one can tell from its bits.
pub(crate) fn is_host_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let first = v4.octets()[0];
            // Class E and 255.255.255.255 are above multicast.
            first != 0 && first != 127 && first < 224
        }
        IpAddr::V6(v6) => {
            !v6.is_unspecified() && !v6.is_loopback() && !v6.is_multicast() && v6.to_ipv4_mapped().is_none()
        }
    }
}

/// An inclusive range of claim numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) first: u32,
    pub(crate) last: u32,
}

impl Range {
    /// The range of one number.
    pub(crate) fn one(id: u32) -> Self {
        Self { first: id, last: id }
    }

    /// How many numbers it has.
    pub(crate) fn count(self) -> u64 {
        u64::from(self.last.saturating_sub(self.first)).saturating_add(1)
    }
}

/// The fewest ranges that hold exactly `ids`, which ascend.
pub(crate) fn ranges(ids: impl IntoIterator<Item = u32>) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for id in ids {
        match ranges.last_mut() {
            Some(range) if range.last.checked_add(1) == Some(id) => range.last = id,
            _ => ranges.push(Range::one(id)),
        }
    }
    ranges
}

/// The fewest ranges that say the same as `marked`, sorted.
pub(crate) fn merged<T: Copy + PartialEq>(mut marked: Vec<(Range, T)>) -> Vec<(Range, T)> {
    marked.sort_unstable_by_key(|(range, _)| range.first);
    marked.dedup_by(|(next, mark), (range, kept)| {
        let joins = range.last.checked_add(1) == Some(next.first) && mark == kept;
        if joins {
            range.last = next.last;
        }
        joins
    });
    marked
}

/// Whether `id` lies in one of the ascending `ranges`.
pub(crate) fn in_ranges(ranges: &[Range], id: u32) -> bool {
    let after = ranges.partition_point(|range| range.first <= id);
    after.checked_sub(1).and_then(|i| ranges.get(i)).is_some_and(|range| id <= range.last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_exactly_their_ids() {
        let ids = [1, 2, 3, 7, 9, 10, u32::MAX];
        let made = ranges(ids);
        let expected = [(1, 3), (7, 7), (9, 10), (u32::MAX, u32::MAX)].map(|(first, last)| Range { first, last });
        assert_eq!(made, expected);
        for id in (0..12).chain([u32::MAX - 1, u32::MAX]) {
            assert_eq!(in_ranges(&made, id), ids.contains(&id), "{id}");
        }
        assert!(!in_ranges(&[], 0));
        assert_eq!(Range { first: 0, last: u32::MAX }.count(), 1 << 32);
    }

    #[test]
    fn marked_ranges_are_merged() {
        let range = |first, last| Range { first, last };
        let marked =
            vec![(range(5, 5), 'a'), (range(1, 3), 'a'), (range(4, 4), 'a'), (range(6, 6), 'b'), (range(8, 9), 'b')];
        assert_eq!(merged(marked), [(range(1, 5), 'a'), (range(6, 6), 'b'), (range(8, 9), 'b')]);
    }

    #[test]
    fn addresses_that_no_host_has() -> Result<(), Box<dyn std::error::Error>> {
        for bad in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "ff02::1",
            "::ffff:192.0.2.1",
        ] {
            assert!(!is_host_address(bad.parse()?), "{bad}");
        }
        for good in ["192.0.2.1", "10.0.0.1", "223.255.255.254", "2001:db8::1", "fe80::1", "fd00::1"] {
            assert!(is_host_address(good.parse()?), "{good}");
        }
        Ok(())
    }
}
