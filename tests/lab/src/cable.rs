//! A cable: what happens to a packet between a host and the router.
//!
//! Pure arithmetic over time, so that the same seed loses the same packets.

use std::net::IpAddr;
use std::time::{Duration, Instant};

/// A network: an address and how many of its bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Address; the other bits are zero.
    pub address: IpAddr,
    /// Length in bits.
    pub length: u8,
}

impl Prefix {
    /// Whether `address` is of this network.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(p), IpAddr::V4(a)) => (p.to_bits() ^ a.to_bits()).leading_zeros() >= u32::from(self.length),
            (IpAddr::V6(p), IpAddr::V6(a)) => (p.to_bits() ^ a.to_bits()).leading_zeros() >= u32::from(self.length),
            _ => false,
        }
    }
}

/// Properties of one direction of a cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Time that every packet takes.
    pub delay: Duration,
    /// Bits a second; 0: no limit.
    pub rate: u64,
    /// Bytes that wait for their turn at most, where there is a rate.
    pub queue: u64,
    /// Packets lost, of a million.
    pub loss: u32,
}

impl Default for Lane {
    fn default() -> Self {
        Self { delay: Duration::ZERO, rate: 0, queue: 256 << 10, loss: 0 }
    }
}

/// What became of the packets of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets that came through.
    pub packets: u64,
    /// Bytes that came through.
    pub bytes: u64,
    /// Packets lost at random.
    pub lost: u64,
    /// Packets dropped because the queue was full.
    pub full: u64,
    /// Packets dropped because the cable was unplugged.
    pub unplugged: u64,
    /// Packets dropped by the router because of a foreign source (BCP 38).
    pub foreign: u64,
    /// Packets that the receiving side did not take.
    pub refused: u64,
}

/// One direction at work.
#[derive(Debug)]
pub struct Direction {
    lane: Lane,
    free: Option<Instant>,
    random: Random,
    /// What became of its packets.
    pub tally: Tally,
}

impl Direction {
    /// A direction with nothing under way.
    #[must_use]
    pub fn new(lane: Lane, seed: u64) -> Self {
        Self { lane, free: None, random: Random(seed), tally: Tally::default() }
    }

    /// Changes the properties for packets that come from now on.
    pub fn set(&mut self, lane: Lane) {
        self.lane = lane;
    }

    /// Its properties now.
    #[must_use]
    pub fn lane(&self) -> Lane {
        self.lane
    }

    /// Takes a packet of `length` bytes. Returns when it arrives, or `None`
    /// when it does not.
    pub fn offer(&mut self, now: Instant, length: usize) -> Option<Instant> {
        if self.lane.loss > 0 && self.random.below(1_000_000) < u64::from(self.lane.loss) {
            self.tally.lost += 1;
            return None;
        }
        let begin = self.free.map_or(now, |free| free.max(now));
        let end = if self.lane.rate == 0 {
            now
        } else {
            let waiting = begin.duration_since(now).as_nanos() * u128::from(self.lane.rate) / 8_000_000_000;
            if waiting > u128::from(self.lane.queue) {
                self.tally.full += 1;
                return None;
            }
            let nanoseconds = length as u64 * 8_000_000_000 / self.lane.rate;
            begin + Duration::from_nanos(nanoseconds)
        };
        self.free = Some(end);
        Some(end + self.lane.delay)
    }
}

/// A small seeded generator (SplitMix64): loss must repeat, not surprise.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`; the bias is below `limit / 2^64`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next_u64() % limit.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        let v4 = Prefix { address: "192.0.2.0".parse().expect("an address"), length: 24 };
        assert!(v4.contains("192.0.2.255".parse().expect("an address")));
        assert!(!v4.contains("192.0.3.0".parse().expect("an address")));
        assert!(!v4.contains("::1".parse().expect("an address")));
        let all = Prefix { address: "::".parse().expect("an address"), length: 0 };
        assert!(all.contains("2001:db8::1".parse().expect("an address")));
    }

    #[test]
    fn rate_and_queue() {
        let lane = Lane { rate: 8_000_000, queue: 2500, delay: Duration::from_millis(10), loss: 0 };
        let mut direction = Direction::new(lane, 1);
        let now = Instant::now();
        let arrivals: Vec<_> =
            (0..6).filter_map(|_| direction.offer(now, 1000)).map(|at| at.duration_since(now).as_micros()).collect();
        assert_eq!(arrivals, [11_000, 12_000, 13_000], "a millisecond each, three fit");
        assert_eq!(direction.tally.full, 3);
    }

    #[test]
    fn loss_repeats() {
        let lane = Lane { loss: 50_000, ..Lane::default() };
        let lost = |seed| {
            let mut direction = Direction::new(lane, seed);
            let now = Instant::now();
            (0..2000).map(|_| direction.offer(now, 100).is_none()).collect::<Vec<_>>()
        };
        assert_eq!(lost(7), lost(7));
        assert_ne!(lost(7), lost(8));
        let count = lost(7).iter().filter(|l| **l).count();
        assert!((50..150).contains(&count), "5 % of 2000, roughly: {count}");
    }
}
