//! The replay window: which counters of a channel were seen (RFC 6479).
//!
//! What is kept is which ones were *not* seen: on most paths none is ever
//! missing, and then there is nothing to keep.

const WORDS: usize = 16;
const WORD_BITS: u64 = 64;
/// How far behind the highest counter a datagram may arrive. One word of the ring is being reused.
pub(crate) const WINDOW: u64 = (WORDS as u64 - 1) * WORD_BITS;

/// Counters seen so far: all that matter fit a ring of words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replay {
    /// One above the highest counter seen.
    next: u64,
    /// Counters below that and within the window that were not seen; `None`: there is none.
    missing: Option<Box<[u64; WORDS]>>,
}

impl Replay {
    pub(crate) const fn new() -> Self {
        Self { next: 0, missing: None }
    }

    /// Whether `counter` is new. Changes nothing: only authenticated datagrams are marked.
    pub(crate) fn is_new(&self, counter: u64) -> bool {
        // The last counter is reserved (Noise, section 5.1).
        if counter == u64::MAX {
            return false;
        }
        if counter >= self.next {
            return true;
        }
        let (word, bit) = Self::place(counter);
        let missing = self.missing.as_ref().and_then(|missing| missing.get(word));
        self.next - counter <= WINDOW && missing.is_some_and(|bits| bits & bit != 0)
    }

    /// Remembers `counter`, which is new.
    pub(crate) fn mark(&mut self, counter: u64) {
        if counter >= self.next {
            self.advance(counter);
        } else if let Some(missing) = &mut self.missing {
            let (word, bit) = Self::place(counter);
            if let Some(bits) = missing.get_mut(word) {
                *bits &= !bit;
            }
        }
        if self.missing.as_ref().is_some_and(|missing| **missing == [0; WORDS]) {
            self.missing = None;
        }
    }

    /// `counter` is the highest: those between it and the highest before are missing.
    fn advance(&mut self, counter: u64) {
        let first = self.next;
        self.next = counter.saturating_add(1);
        if first < counter {
            self.missing.get_or_insert_default();
        }
        let Some(missing) = &mut self.missing else { return };
        // Words between the old highest counter and this one held counters of an earlier round.
        let newest = first.saturating_sub(1) / WORD_BITS;
        let ahead = (counter / WORD_BITS).saturating_sub(newest).min(WORDS as u64);
        for step in 1..=ahead {
            let (passed, _) = Self::place(newest.saturating_add(step).wrapping_mul(WORD_BITS));
            if let Some(bits) = missing.get_mut(passed) {
                *bits = 0;
            }
        }
        for skipped in first.max(counter.saturating_sub(WINDOW))..counter {
            let (word, bit) = Self::place(skipped);
            if let Some(bits) = missing.get_mut(word) {
                *bits |= bit;
            }
        }
    }

    fn place(counter: u64) -> (usize, u64) {
        let word = usize::try_from(counter / WORD_BITS % WORDS as u64).unwrap_or(0);
        (word, 1 << (counter % WORD_BITS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_counter_once() {
        let mut replay = Replay::new();
        for counter in [0, 1, 5, 3, 2000, 1999, 4, 2000 - WINDOW + 1] {
            assert_eq!(replay.is_new(counter), counter != 4, "{counter}");
            if replay.is_new(counter) {
                replay.mark(counter);
            }
            assert!(!replay.is_new(counter), "{counter}");
        }
        assert!(!replay.is_new(2000 - WINDOW), "too old to tell");
        assert!(!replay.is_new(u64::MAX));
        assert!(replay.is_new(u64::MAX - 1));
        replay.mark(u64::MAX - 1);
        assert!(!replay.is_new(u64::MAX - 1) && !replay.is_new(2001));
        assert!(replay.is_new(u64::MAX - 2) && replay.missing.is_some());
    }

    #[test]
    fn without_gaps_nothing_is_kept() {
        let mut replay = Replay::new();
        (0..5000).for_each(|counter| replay.mark(counter));
        assert_eq!((replay.next, &replay.missing), (5000, &None));
        replay.mark(5001);
        assert!(replay.missing.is_some() && replay.is_new(5000) && !replay.is_new(5001));
        replay.mark(5000);
        assert_eq!((replay.next, &replay.missing), (5002, &None));
    }

    proptest! {
        /// Against a set that forgets nothing.
        #[test]
        fn as_a_set_would(steps in proptest::collection::vec((any::<bool>(), 0_u64..3000), 1..400)) {
            let mut replay = Replay::new();
            let mut model = BTreeSet::new();
            let mut base = 0_u64;
            for (jump, offset) in steps {
                let counter = if jump { base + offset } else { base.saturating_sub(offset) };
                let next = model.last().map_or(0, |last| last + 1);
                let new = counter >= next || (next - counter <= WINDOW && !model.contains(&counter));
                prop_assert_eq!(replay.is_new(counter), new);
                if new {
                    replay.mark(counter);
                    model.insert(counter);
                    base = base.max(counter);
                }
            }
        }
    }
}
