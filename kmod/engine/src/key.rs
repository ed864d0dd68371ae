//! The key of a lookup, in the few words that the table compares, and its
//! keyed hash.

use crate::flow::{Address, Half, Protocol, Side, Version};
use core::sync::atomic::{AtomicU64, Ordering};

/// A side in five words. IPv4 uses the first two only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// Ports, and what kind of flow this is.
    pub(crate) head: u64,
    /// IPv4: local and remote address, then zero. IPv6: local, remote.
    pub(crate) addresses: [u64; 4],
}

const V6: u64 = 1 << 63;
const UDP: u64 = 1 << 62;

impl Key {
    /// The key of a side.
    #[inline(always)]
    pub(crate) fn new(side: &Side) -> Self {
        let head = kind(side.protocol) | u64::from(side.local_port) << 16 | u64::from(side.remote_port);
        match side.version {
            Version::V4 => {
                let addresses = [u64::from(v4(&side.local)) << 32 | u64::from(v4(&side.remote)), 0, 0, 0];
                Self { head, addresses }
            }
            Version::V6 => {
                let (a, b) = words(&side.local);
                let (c, d) = words(&side.remote);
                Self { head: head | V6, addresses: [a, b, c, d] }
            }
        }
    }

    /// The key of source and destination address (32 bits each) and port.
    #[inline(always)]
    pub(crate) fn from_v4(addresses: u64, ports: u32, protocol: Protocol) -> Self {
        Self { head: kind(protocol) | u64::from(ports), addresses: [addresses, 0, 0, 0] }
    }

    /// The key of source and destination address and port.
    #[inline(always)]
    pub(crate) fn from_v6(addresses: &[u8; 32], ports: u32, protocol: Protocol) -> Self {
        let mut words = [0; 4];
        for (word, octets) in words.iter_mut().zip(addresses.as_chunks().0) {
            *word = u64::from_be_bytes(*octets);
        }
        Self { head: V6 | kind(protocol) | u64::from(ports), addresses: words }
    }

    /// The key seen from the other end.
    #[inline(always)]
    pub(crate) fn reversed<const V6: bool>(&self) -> Self {
        let ports = (self.head as u32).rotate_left(16);
        let [a, b, c, d] = self.addresses;
        Self {
            head: self.head & !0xffff_ffff | u64::from(ports),
            addresses: if V6 { [c, d, a, b] } else { [a.rotate_left(32), 0, 0, 0] },
        }
    }

    /// Both halves of the addresses, as a record has them.
    #[inline(always)]
    pub(crate) fn split<const V6: bool>(&self) -> ([u64; 2], [u64; 2]) {
        let [a, b, c, d] = self.addresses;
        if V6 { ([a, b], [c, d]) } else { ([a & !0xffff_ffff, 0], [a & 0xffff_ffff, 0]) }
    }

    /// The same for a key of either version.
    #[inline]
    pub(crate) fn halves(&self) -> ([u64; 2], [u64; 2]) {
        if self.is_v6() { self.split::<true>() } else { self.split::<false>() }
    }

    /// The key with both halves of the addresses.
    #[inline]
    pub(crate) fn join(head: u64, [a, b]: [u64; 2], [c, d]: [u64; 2]) -> Self {
        Self { head, addresses: if head & V6 != 0 { [a, b, c, d] } else { [a | c, 0, 0, 0] } }
    }

    /// Whether both ends have the same address.
    #[inline]
    pub(crate) fn meets_itself(&self) -> bool {
        let [a, b, c, d] = self.addresses;
        if self.is_v6() { a == c && b == d } else { a == a.rotate_left(32) }
    }

    /// Whether both are equal. (Word by word: compared as a whole, they would
    /// be stored and read back in pieces of another size, which stalls.)
    #[inline(always)]
    pub(crate) fn is<const V6: bool>(&self, other: &Self) -> bool {
        let ([a, b, c, d], [e, f, g, h]) = (self.addresses, other.addresses);
        self.head == other.head && a == e && (!V6 || (b == f && c == g && d == h))
    }

    /// Whether this is an IPv6 flow.
    #[inline(always)]
    pub(crate) fn is_v6(&self) -> bool {
        self.head & V6 != 0
    }

    /// The side of a key.
    pub(crate) fn side(&self) -> Side {
        let [a, b, c, d] = self.addresses;
        let (version, local, remote) = if self.is_v6() {
            let join = |hi: u64, lo: u64| Address((u128::from(hi) << 64 | u128::from(lo)).to_be_bytes());
            (Version::V6, join(a, b), join(c, d))
        } else {
            let octets = |word: u64| Address::v4((word as u32).to_be_bytes());
            (Version::V4, octets(a >> 32), octets(a))
        };
        Side {
            local,
            remote,
            local_port: (self.head >> 16) as u16,
            remote_port: self.head as u16,
            version,
            protocol: if self.head & UDP != 0 { Protocol::Udp } else { Protocol::Tcp },
        }
    }
}

impl Address {
    /// The address as a record has it in a half.
    #[inline]
    pub(crate) fn slot(&self, half: Half, v6: bool) -> [u64; 2] {
        let (high, low) = words(self);
        match (v6, half) {
            (true, _) => [high, low],
            (false, Half::Local) => [high & !0xffff_ffff, 0],
            (false, Half::Remote) => [high >> 32, 0],
        }
    }

    /// The address of a half of a record.
    pub(crate) fn of_slot([high, low]: [u64; 2], half: Half, v6: bool) -> Self {
        match (v6, half) {
            (true, _) => Self((u128::from(high) << 64 | u128::from(low)).to_be_bytes()),
            (false, Half::Local) => Self::v4(((high >> 32) as u32).to_be_bytes()),
            (false, Half::Remote) => Self::v4((high as u32).to_be_bytes()),
        }
    }
}

#[inline]
fn kind(protocol: Protocol) -> u64 {
    match protocol {
        Protocol::Tcp => 0,
        Protocol::Udp => UDP,
    }
}

#[inline]
fn v4(address: &Address) -> u32 {
    let [a, b, c, d, ..] = address.0;
    u32::from_be_bytes([a, b, c, d])
}

#[inline]
fn words(address: &Address) -> (u64, u64) {
    let word = u128::from_be_bytes(address.0);
    ((word >> 64) as u64, word as u64)
}

/// A universal hash (NH, as in UMAC, RFC 4418 section 5.2, with 64-bit words):
/// who does not know the secret cannot choose keys that collide more often
/// than chance, whatever he sends.
pub(crate) struct Hasher {
    // Not of `sync`: it changes only while the table is empty, and a look-up under another key finds nothing.
    key: [AtomicU64; 8],
}

impl Hasher {
    pub(crate) fn new(key: [u64; 8]) -> Self {
        Self { key: key.map(AtomicU64::new) }
    }

    /// Takes another secret.
    pub(crate) fn set(&self, key: [u64; 8]) {
        for (to, word) in self.key.iter().zip(key) {
            to.store(word, Ordering::Relaxed);
        }
    }

    /// The hash of a key of either version.
    pub(crate) fn hash_any(&self, key: &Key) -> u64 {
        if key.is_v6() { self.hash::<true>(key) } else { self.hash::<false>(key) }
    }

    #[inline(always)]
    pub(crate) fn hash<const V6: bool>(&self, key: &Key) -> u64 {
        let [k0, k1, k2, k3, k4, k5, k6, k7] = &self.key;
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let [a, b, c, d] = key.addresses;
        let mut sum = product(key.head, load(k0), a, load(k1));
        if V6 {
            let rest = product(b, load(k2), c, load(k3)).wrapping_add(product(d, load(k4), 0, load(k5)));
            sum = sum.wrapping_add(rest);
        }
        // Bucket and tag are taken from a part of the bits, and NH alone maps
        // ports in a row to hashes in a row, which crowd some buckets: mix once
        // more under the key.
        let folded = (sum as u64) ^ ((sum >> 64) as u64).wrapping_mul(load(k6) | 1);
        let mixed = u128::from(folded ^ load(k7)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed as u64) ^ ((mixed >> 64) as u64)
    }
}

#[inline(always)]
fn product(a: u64, ka: u64, b: u64, kb: u64) -> u128 {
    u128::from(a.wrapping_add(ka)).wrapping_mul(u128::from(b.wrapping_add(kb)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn any_side() -> impl Strategy<Value = Side> {
        (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<u16>(), any::<u16>(), any::<bool>(), any::<bool>()).prop_map(
            |(l, r, local_port, remote_port, v6, udp)| {
                let cut = |a: [u8; 16]| if v6 { Address(a) } else { Address::v4([a[0], a[1], a[2], a[3]]) };
                Side {
                    local: cut(l),
                    remote: cut(r),
                    local_port,
                    remote_port,
                    version: if v6 { Version::V6 } else { Version::V4 },
                    protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
                }
            },
        )
    }

    proptest! {
        #[test]
        fn a_key_says_all_of_its_side(side in any_side()) {
            prop_assert_eq!(Key::new(&side).side(), side);
            let back = Side {
                local: side.remote,
                remote: side.local,
                local_port: side.remote_port,
                remote_port: side.local_port,
                ..side
            };
            let key = Key::new(&side);
            let reversed = if key.is_v6() { key.reversed::<true>() } else { key.reversed::<false>() };
            prop_assert_eq!(reversed, Key::new(&back));
        }
    }

    #[test]
    fn every_bit_of_a_key_counts() {
        let hasher = Hasher::new(core::array::from_fn(|i| (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let base = Key { head: V6 | 0x1234_5678, addresses: [1, 2, 3, 4] };
        let hash = hasher.hash_any(&base);
        for bit in (0..32).chain(62..63) {
            assert_ne!(hash, hasher.hash_any(&Key { head: base.head ^ 1 << bit, ..base }), "head bit {bit}");
        }
        for word in 0..4 {
            for bit in 0..64 {
                let mut other = base;
                other.addresses[word] ^= 1 << bit;
                assert_ne!(hash, hasher.hash_any(&other), "word {word} bit {bit}");
            }
        }
    }

    #[test]
    fn keys_that_collide_under_one_secret_scatter_under_another() {
        let hasher =
            |seed: u64| Hasher::new(core::array::from_fn(|i| (i as u64 + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let (known, secret) = (hasher(1), hasher(77));
        let key = |n: u32| Key::from_v4(u64::from(n) << 32 | 0x0a00_0001, 0x0050_1388, Protocol::Tcp);
        // What somebody who knew the one would send: all to one bucket of 4096.
        let chosen: alloc::vec::Vec<Key> =
            (0..).map(key).filter(|key| known.hash_any(key) >> 52 == 7).take(2000).collect();
        let mut buckets = [0_u32; 4096];
        for key in &chosen {
            buckets[(secret.hash_any(key) >> 52) as usize] += 1;
        }
        assert!(buckets.iter().max() < Some(&10), "{:?}", buckets.iter().max());
        known.set(core::array::from_fn(|i| i as u64));
        assert!(chosen.iter().filter(|key| known.hash_any(key) >> 52 == 7).count() < 20);
    }
}
