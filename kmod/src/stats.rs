//! The counters of one network stack, by counter(9).
//!
//! Context: counting anywhere; making, reading and clearing in process context.

use mobconn_abi::{Counter, STATS_MAX};
use mobconn_engine::{DropReason, PassReason, TableError};
use mobconn_sys::CounterU64;

const COUNT: usize = Counter::ALL.len();
const _: () = assert!(COUNT <= STATS_MAX, "the counters fit the answer of STATS");

/// One counter(9) for each [`Counter`].
pub(crate) struct Stats([CounterU64; COUNT]);

impl Stats {
    /// All at zero. Sleeps while memory is short.
    pub(crate) fn new() -> Self {
        Self(core::array::from_fn(|_| CounterU64::alloc()))
    }

    /// Adds `by` to `counter`.
    #[inline]
    pub(crate) fn add(&self, counter: Counter, by: u32) {
        if let Some(cell) = self.0.get(counter as usize) {
            cell.add(i64::from(by));
        }
    }

    /// Counts one `counter`.
    #[inline]
    pub(crate) fn count(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts a refusal of the table that has a counter.
    pub(crate) fn count_refusal(&self, error: TableError) {
        match error {
            TableError::Full => self.count(Counter::RefusedFull),
            TableError::Conflict => self.count(Counter::RefusedConflict),
            TableError::Invalid
            | TableError::Exists
            | TableError::NoMemory
            | TableError::NotFound
            | TableError::Stale => {}
        }
    }

    /// The value of the counter with number `index`.
    pub(crate) fn fetch(&self, index: usize) -> Option<u64> {
        self.0.get(index).map(CounterU64::fetch)
    }

    /// All values, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(CounterU64::fetch)
    }

    /// Sets all to zero.
    pub(crate) fn zero(&self) {
        for counter in &self.0 {
            counter.zero();
        }
    }
}

/// The counter for packets dropped for `reason`.
pub(crate) const fn of_drop(reason: DropReason) -> Counter {
    match reason {
        DropReason::PendingRst => Counter::DroppedPendingRst,
        DropReason::Stray => Counter::DroppedStray,
        DropReason::Contended => Counter::DroppedContended,
    }
}

/// The counter for packets passed untouched for `reason`.
pub(crate) const fn of_pass(reason: PassReason) -> Counter {
    match reason {
        PassReason::Options => Counter::PassedOptions,
        PassReason::Malformed => Counter::PassedMalformed,
        PassReason::Ipsec => Counter::PassedIpsec,
    }
}
