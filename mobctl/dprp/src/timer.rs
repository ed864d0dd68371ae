//! Deadlines: one queue for the whole endpoint. And how long to wait: round
//! trips and retransmission intervals.

use crate::time::Instant;
use rand_core::CryptoRng;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// Number of an association within this endpoint, never used again.
pub(crate) type PeerId = u64;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Repeat a Hello.
    Dial(u32),
    /// Give up a handshake that somebody else began.
    HalfOpen(u32),
    /// A host that did not answer may be tried again.
    Silence(IpAddr),
    /// Repeat a Finish.
    Confirm(PeerId, u32),
    /// Ping, retire keys, end an idle association.
    Upkeep(PeerId),
    /// Repeat a Claim or its proof.
    Offer(PeerId, u32),
    /// Claims that were refused may be tried again.
    Reclaim(PeerId),
    /// Repeat a Release.
    Release(PeerId),
    /// Repeat a Move or its response.
    Move(PeerId, u32),
    /// The response to a challenge has left: send from the new address.
    Ahead(PeerId, u32),
    /// Flows that could not move for a reason that may pass are tried again.
    Again(PeerId),
    /// Ask for the peer's name once more.
    Seek(PeerId),
    /// Take back a peer's move that was not completed.
    Pending(PeerId, u32),
    /// The same, of moves that an earlier daemon prepared.
    Leftovers,
}

/// The deadlines.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    queue: BTreeSet<(Instant, Timer)>,
    at: BTreeMap<Timer, Instant>,
}

impl Timers {
    /// Sets or moves a deadline.
    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        self.cancel(timer);
        self.at.insert(timer, at);
        self.queue.insert((at, timer));
    }

    pub(crate) fn cancel(&mut self, timer: Timer) {
        if let Some(at) = self.at.remove(&timer) {
            self.queue.remove(&(at, timer));
        }
    }

    pub(crate) fn is_set(&self, timer: Timer) -> bool {
        self.at.contains_key(&timer)
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Takes the first deadline that has come.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Timer> {
        let (at, timer) = *self.queue.first()?;
        if at > now {
            return None;
        }
        self.cancel(timer);
        Some(timer)
    }
}

/// `first` doubled `tries` times, at most `cap`.
pub(crate) fn doubled(first: Duration, tries: u32, cap: Duration) -> Duration {
    first.saturating_mul(1_u32.checked_shl(tries.min(31)).unwrap_or(u32::MAX)).min(cap)
}

/// `interval` and up to a quarter more, so that hosts that began together do not stay together.
pub(crate) fn jittered(interval: Duration, rng: &mut dyn CryptoRng) -> Duration {
    let quarter = interval / 4;
    interval.saturating_add(quarter.mul_f64(f64::from(rng.next_u32()) / f64::from(u32::MAX)))
}

/// Round trip estimate (RFC 6298): smoothed, and its deviation, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RoundTrip(Option<(u32, u32)>);

impl RoundTrip {
    pub(crate) fn sample(&mut self, sample: Duration) {
        let sample = u32::try_from(sample.as_micros()).unwrap_or(u32::MAX);
        let mean = |old: u32, parts: u64, new: u32| {
            let sum = u64::from(old).saturating_mul(parts).saturating_add(u64::from(new));
            u32::try_from(sum / parts.saturating_add(1)).unwrap_or(u32::MAX)
        };
        self.0 = Some(match self.0 {
            None => (sample, sample / 2),
            Some((smooth, variance)) => (mean(smooth, 7, sample), mean(variance, 3, smooth.abs_diff(sample))),
        });
    }

    pub(crate) fn smooth(&self) -> Option<Duration> {
        self.0.map(|(smooth, _)| Duration::from_micros(smooth.into()))
    }

    /// First retransmission interval; `unknown` without an estimate, and never below half of it.
    pub(crate) fn timeout(&self, unknown: Duration) -> Duration {
        self.0.map_or(unknown, |(smooth, variance)| {
            let wait = u64::from(variance).saturating_mul(4).saturating_add(smooth.into());
            Duration::from_micros(wait).clamp(unknown / 2, Duration::from_secs(3))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;

    #[test]
    fn deadlines_come_in_order_and_can_be_moved() {
        let at = Instant::from_micros;
        let mut timers = Timers::default();
        timers.set(Timer::Dial(1), at(30));
        timers.set(Timer::Dial(2), at(20));
        timers.set(Timer::Dial(1), at(10));
        timers.set(Timer::Upkeep(3), at(15));
        timers.cancel(Timer::Upkeep(3));
        assert_eq!(timers.next(), Some(at(10)));
        assert_eq!(timers.pop(at(9)), None);
        assert_eq!(timers.pop(at(50)), Some(Timer::Dial(1)));
        assert!(!timers.is_set(Timer::Dial(1)) && timers.is_set(Timer::Dial(2)));
        assert_eq!(timers.pop(at(50)), Some(Timer::Dial(2)));
        assert_eq!((timers.pop(at(50)), timers.next()), (None, None));
    }

    #[test]
    fn intervals() {
        let ms = Duration::from_millis;
        assert_eq!([0, 1, 3, 40].map(|tries| doubled(ms(100), tries, ms(500))), [100, 200, 500, 500].map(ms));
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let drawn: Vec<_> = (0..100).map(|_| jittered(ms(100), &mut rng)).collect();
        assert!(drawn.iter().all(|wait| (ms(100)..=ms(125)).contains(wait)));
        assert!(drawn.iter().max() > drawn.iter().min());
    }

    #[test]
    fn round_trips() {
        let ms = Duration::from_millis;
        let mut trip = RoundTrip::default();
        assert_eq!((trip.smooth(), trip.timeout(ms(100))), (None, ms(100)));
        trip.sample(ms(80));
        assert_eq!((trip.smooth(), trip.timeout(ms(100))), (Some(ms(80)), ms(240)));
        for _ in 0..100 {
            trip.sample(ms(1));
        }
        assert_eq!(trip.timeout(ms(100)), ms(50), "never below half of what is used without an estimate");
        trip.sample(Duration::from_secs(100));
        assert_eq!(trip.timeout(ms(100)), Duration::from_secs(3));
    }
}
