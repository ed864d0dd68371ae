//! What is wanted, what is done, and when to try again. No clock, no thread: time and chance come from outside.

use std::net::IpAddr;
use std::time::{Duration, Instant};

/// First wait after a trouble that may pass by itself, and after one that somebody must see to.
const FIRST: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];
/// Longest wait, in the same order.
const LONGEST: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(300)];

/// A try that has lasted longer is begun anew when a path may be back.
const PATIENCE: Duration = Duration::from_secs(1);

/// The newest wanted state; older ones are forgotten.
#[derive(Clone, Debug, Default)]
pub struct Desk {
    wanted: Option<Vec<IpAddr>>,
    done: Option<Vec<IpAddr>>,
    failures: u32,
    due: Option<Instant>,
    /// Since when a try has been under way.
    begun: Option<Instant>,
}

impl Desk {
    /// These addresses are wanted from `now` on. Returns whether that is anything new.
    pub fn want(&mut self, addresses: Vec<IpAddr>, now: Instant) -> bool {
        if self.wanted.as_ref() == Some(&addresses) {
            return false;
        }
        self.wanted = Some(addresses);
        self.failures = 0;
        self.due = (!self.is_done()).then_some(now);
        true
    }

    /// What waits for its next try is worth one now, and so is what has been tried in vain for a while. Returns whether
    /// there is any: a try that has only begun goes on.
    pub fn hurry(&mut self, now: Instant) -> bool {
        let stuck = self.begun.is_some_and(|begun| now.saturating_duration_since(begun) > PATIENCE);
        let waits = self.due.is_some_and(|due| stuck || due > now);
        if waits {
            self.failures = 0;
            self.due = Some(now);
        }
        waits
    }

    /// The addresses to be published, when it is time.
    #[must_use]
    pub fn job(&self, now: Instant) -> Option<Vec<IpAddr>> {
        self.wanted.clone().filter(|_| self.due.is_some_and(|due| due <= now))
    }

    /// Such a job is begun: from now on nobody knows what is published, until it is done.
    pub fn begun(&mut self, now: Instant) {
        self.done = None;
        self.begun = Some(now);
    }

    /// It has ended before anything came of it.
    pub fn interrupted(&mut self) {
        self.begun = None;
    }

    /// When there is something to do next.
    #[must_use]
    pub const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// What is wanted now.
    #[must_use]
    pub fn wanted(&self) -> Option<&[IpAddr]> {
        self.wanted.as_deref()
    }

    /// Whether what is wanted is done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.wanted.is_none() || self.wanted == self.done
    }

    /// These addresses are published.
    pub fn succeeded(&mut self, addresses: Vec<IpAddr>, now: Instant) {
        self.done = Some(addresses);
        self.begun = None;
        self.failures = 0;
        // Something newer may be wanted meanwhile.
        self.due = (!self.is_done()).then_some(now);
    }

    /// That did not work. `chance`: any number, for the jitter.
    pub fn failed(&mut self, now: Instant, passing: bool, chance: u64) {
        self.done = None;
        self.begun = None;
        let kind = usize::from(!passing);
        let (first, longest) =
            (FIRST.get(kind).copied().unwrap_or_default(), LONGEST.get(kind).copied().unwrap_or_default());
        let wait = first.saturating_mul(1 << self.failures.min(16)).min(longest);
        self.failures = self.failures.saturating_add(1);
        // Three quarters to five quarters of it: hosts that failed together do not come back together.
        self.due = Some(now + wait.mul_f64(0.75 + (chance % 1024) as f64 / 2048.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(number: u8) -> Vec<IpAddr> {
        vec![[192, 0, 2, number].into()]
    }

    #[test]
    fn the_newest_wins() {
        let now = Instant::now();
        let mut desk = Desk::default();
        assert_eq!((desk.job(now), desk.due(), desk.is_done()), (None, None, true));
        assert!(desk.want(address(1), now) && !desk.want(address(1), now));
        assert!(desk.want(address(2), now));
        assert_eq!(desk.job(now), Some(address(2)));
        // While that is under way something else is wanted.
        assert!(desk.want(address(3), now));
        desk.succeeded(address(2), now);
        assert_eq!(desk.job(now), Some(address(3)));
        desk.succeeded(address(3), now);
        assert_eq!((desk.job(now), desk.due(), desk.is_done()), (None, None, true));
        // There and back before anything was sent.
        assert!(desk.want(address(2), now) && desk.want(address(3), now));
        assert!(desk.is_done() && desk.due().is_none());
    }

    #[test]
    fn while_it_is_under_way_nobody_knows() {
        let now = Instant::now();
        let mut desk = Desk::default();
        desk.want(address(1), now);
        desk.begun(now);
        desk.succeeded(address(1), now);
        desk.want(address(2), now);
        desk.begun(now);
        // There and back: the server may have done the first half of it.
        assert!(desk.want(address(1), now));
        assert_eq!(desk.job(now), Some(address(1)));
    }

    #[test]
    fn after_a_failure_nobody_knows() {
        let now = Instant::now();
        let mut desk = Desk::default();
        desk.want(address(1), now);
        desk.succeeded(address(1), now);
        desk.want(address(2), now);
        desk.failed(now, true, 0);
        // Back to what was published before: perhaps it is not any more.
        desk.want(address(1), now);
        assert_eq!(desk.job(now), Some(address(1)));
    }

    #[test]
    fn something_new_does_not_wait() {
        let now = Instant::now();
        let mut desk = Desk::default();
        desk.want(address(1), now);
        for _ in 0..10 {
            desk.failed(now, false, 1023);
        }
        assert_eq!(desk.job(now), None);
        desk.want(address(2), now);
        assert_eq!(desk.job(now), Some(address(2)));
        desk.failed(now, true, 0);
        assert!(desk.due().unwrap() < now + Duration::from_secs(1));
        assert!(desk.hurry(now));
        assert_eq!(desk.job(now), Some(address(2)));
        // That one is under way, and once it is done there is nothing to hurry.
        assert!(!desk.hurry(now));
        desk.begun(now);
        assert!(!desk.hurry(now) && !desk.hurry(now + PATIENCE));
        // Unless nobody has answered for a while: perhaps there is a path now.
        assert!(desk.hurry(now + 2 * PATIENCE));
        desk.interrupted();
        assert_eq!(desk.job(now + 2 * PATIENCE), Some(address(2)));
        assert!(!desk.hurry(now + 4 * PATIENCE));
        desk.succeeded(address(2), now);
        assert!(!desk.hurry(now) && desk.due().is_none());
    }

    proptest! {
        #[test]
        fn waits_grow_and_are_bounded(chances: [u64; 20], passing: bool) {
            let now = Instant::now();
            let mut desk = Desk::default();
            desk.want(address(1), now);
            let longest = if passing { 60 } else { 300 };
            let mut last = Duration::ZERO;
            for chance in chances {
                desk.failed(now, passing, chance);
                let wait = desk.due().unwrap() - now;
                // At twice the mean, jitter of a quarter cannot make it shorter.
                prop_assert!(wait > last || wait >= Duration::from_secs(longest * 3 / 4));
                prop_assert!(wait >= Duration::from_millis(750) && wait <= Duration::from_secs(longest * 5 / 4));
                last = wait;
            }
        }
    }
}
