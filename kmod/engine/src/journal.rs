//! What happened to bindings, kept for those who watch.
//!
//! A ring of fixed size under the writers' lock. Nobody waits for a watcher:
//! each one remembers how far it has come, and what it was too slow for is
//! overwritten; the gap in the numbers tells it how much that was. While
//! nobody watches, nothing is kept and no memory is used.

use crate::flow::{Binding, Half};
use alloc::vec::Vec;

/// Entries that are kept.
pub const PLACES: usize = 1024;

/// What happened to a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It was made.
    Made,
    /// It was made for a newcomer, see [`Control::displace`](crate::Control::displace).
    Displaced,
    /// A move of a half was prepared.
    Prepared(Half),
    /// A move of a half was committed: it has another wire side now.
    Rebound(Half),
    /// A prepared move was taken back.
    Aborted(Half),
    /// The grace of an address ended, or another flow took it.
    GraceEnded,
    /// Another flow took its wire side.
    Lost,
    /// It ended.
    Gone,
    /// It could not be made: the table is full. Told once until a binding ends.
    Full,
}

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What.
    pub what: What,
    /// When, by the clock of [`Control::set_clock`](crate::Control::set_clock).
    pub at: u64,
    /// The binding after that, or what it was when it ended. One that could
    /// not be made has the id 0.
    pub binding: Binding,
}

/// What happened, from the oldest that is kept.
#[derive(Default)]
pub struct Journal {
    ring: Vec<Entry>,
    watchers: u32,
    next: u64,
    /// Number of the first entry since watching began.
    first: u64,
    clock: u64,
    told_full: bool,
}

impl Journal {
    /// One more watches; from which number on.
    pub(crate) fn watch(&mut self) -> Option<u64> {
        if self.watchers == 0 {
            self.ring.try_reserve_exact(PLACES).ok()?;
            self.first = self.next;
        }
        self.watchers = self.watchers.saturating_add(1);
        Some(self.next)
    }

    /// One less watches.
    pub(crate) fn unwatch(&mut self) {
        self.watchers = self.watchers.saturating_sub(1);
        if self.watchers == 0 {
            self.ring = Vec::new();
        }
    }

    pub(crate) fn set_clock(&mut self, at: u64) {
        self.clock = at;
    }

    /// How many watch.
    #[must_use]
    pub fn watchers(&self) -> u32 {
        self.watchers
    }

    /// Number of the entry that comes next.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Number of the oldest entry that is kept.
    #[must_use]
    pub fn oldest(&self) -> u64 {
        self.next.saturating_sub(self.ring.len() as u64)
    }

    /// The entry with that number, if it is kept.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<&Entry> {
        if number < self.oldest() || number >= self.next {
            return None;
        }
        self.ring.get(self.place(number))
    }

    /// Keeps what `binding` says, if anybody watches.
    pub(crate) fn note(&mut self, what: What, binding: impl FnOnce() -> Option<Binding>) {
        if what == What::Gone {
            self.told_full = false;
        }
        if self.watchers == 0 || (what == What::Full && self.told_full) {
            return;
        }
        let Some(binding) = binding() else { return };
        self.told_full |= what == What::Full;
        let entry = Entry { what, at: self.clock, binding };
        let place = self.place(self.next);
        match self.ring.get_mut(place) {
            Some(oldest) => *oldest = entry,
            // Within the capacity that was reserved.
            None => self.ring.push(entry),
        }
        self.next = self.next.saturating_add(1);
    }

    fn place(&self, number: u64) -> usize {
        number.saturating_sub(self.first) as usize % PLACES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Address, HalfView, Other, Protocol, Side, Version};

    fn binding(id: u64) -> Option<Binding> {
        let address = |last| Address([192, 0, 2, last, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let side = Side {
            local: address(1),
            remote: address(2),
            local_port: 1,
            remote_port: 2,
            version: Version::V4,
            protocol: Protocol::Tcp,
        };
        let half = HalfView { generation: 0, other: Other::None };
        let (local, remote) = (half, half);
        Some(Binding { stack: side, wire: side, local, remote, displaced: false, lost: false, id, created: 0, used: 0 })
    }

    #[test]
    fn nothing_is_kept_while_nobody_watches() {
        let mut journal = Journal::default();
        journal.note(What::Made, || panic!("looked at"));
        assert_eq!((journal.next(), journal.ring.capacity()), (0, 0));
    }

    #[test]
    fn a_slow_watcher_sees_the_gap() {
        let mut journal = Journal::default();
        assert_eq!(journal.watch(), Some(0));
        let kept = PLACES as u64;
        for id in 0..kept + 10 {
            journal.note(What::Made, || binding(id));
        }
        assert_eq!((journal.oldest(), journal.next()), (10, kept + 10));
        assert_eq!((journal.get(9), journal.get(kept + 10)), (None, None));
        for number in 10..kept + 10 {
            assert_eq!(journal.get(number).map(|entry| entry.binding.id), Some(number));
        }
        assert!(journal.ring.capacity() <= PLACES, "it grows no more");
    }

    #[test]
    fn numbers_go_on_when_watching_begins_anew() {
        let mut journal = Journal::default();
        journal.watch();
        journal.watch();
        for id in 0..7 {
            journal.note(What::Made, || binding(id));
        }
        journal.unwatch();
        assert_eq!(journal.oldest(), 0, "another one watches");
        journal.unwatch();
        assert_eq!(journal.ring.capacity(), 0);
        assert_eq!(journal.watch(), Some(7));
        assert_eq!((journal.oldest(), journal.next(), journal.get(6)), (7, 7, None));
        for id in 7..7 + 2 * PLACES as u64 {
            journal.note(What::Made, || binding(id));
            assert_eq!(journal.get(id).map(|entry| entry.binding.id), Some(id));
        }
    }

    #[test]
    fn full_is_told_once_until_a_binding_ends() {
        let mut journal = Journal::default();
        journal.watch();
        for what in [What::Full, What::Full, What::Gone, What::Full, What::Full] {
            journal.note(what, || binding(0));
        }
        let told: Vec<What> = (0..journal.next()).filter_map(|number| Some(journal.get(number)?.what)).collect();
        assert_eq!(told, [What::Full, What::Gone, What::Full]);
    }
}
