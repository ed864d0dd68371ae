//! counter(9).
//!
//! Context: `add` anywhere; making, reading and clearing in process context
//! (clearing interrupts the other processors).

use crate::ffi;

/// A counter with one cell per processor.
pub struct CounterU64(ffi::counter_u64_t);

// SAFETY: counter(9) is made for use by all processors at once.
unsafe impl Send for CounterU64 {}
// SAFETY: as above.
unsafe impl Sync for CounterU64 {}

impl CounterU64 {
    /// A counter at zero. Sleeps while memory is short.
    #[must_use]
    pub fn alloc() -> Self {
        // SAFETY: process context, where M_WAITOK may sleep.
        Self(unsafe { ffi::counter_u64_alloc(ffi::M_WAITOK as i32) })
    }

    /// Adds to this processor's cell.
    #[inline]
    pub fn add(&self, by: i64) {
        // SAFETY: the counter lives as long as `self`.
        unsafe { ffi::mobconn_counter_u64_add(self.0, by) };
    }

    /// Sum of all cells.
    #[must_use]
    pub fn fetch(&self) -> u64 {
        // SAFETY: as above.
        unsafe { ffi::counter_u64_fetch(self.0) }
    }

    /// Clears all cells.
    pub fn zero(&self) {
        // SAFETY: as above.
        unsafe { ffi::counter_u64_zero(self.0) };
    }
}

impl Drop for CounterU64 {
    fn drop(&mut self) {
        // SAFETY: made by `alloc`, freed here only, and nobody else holds it.
        unsafe { ffi::counter_u64_free(self.0) };
    }
}
